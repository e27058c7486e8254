//! What every home timeline must be, computed from follows and posts alone.

use std::collections::{BTreeSet, HashMap};

/// Everybody's follows and posts. Everybody has a place in both, if an empty one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct World {
    pub follows: HashMap<String, BTreeSet<String>>,
    /// Ids and texts, by author.
    pub posts: HashMap<String, Vec<(u64, String)>>,
}

impl World {
    /// The plain definition: the posts of those I follow and mine, newest first.
    ///
    /// # Panics
    /// If there is nobody of this name.
    pub fn home(&self, handle: &str) -> Vec<u64> {
        let authors = self.follows[handle].iter().map(String::as_str).chain([handle]);
        let mut ids: Vec<u64> = authors
            .flat_map(|author| self.posts[author].iter().map(|(id, _)| *id))
            .collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids
    }

    pub fn follow_count(&self) -> usize {
        self.follows.values().map(BTreeSet::len).sum()
    }

    pub fn post_count(&self) -> usize {
        self.posts.values().map(Vec::len).sum()
    }
}
