//! Holds what the nodes show against what must be there, and says in words what is wrong.
//!
//! What the clients' journal leaves open (they were never told) is settled by the rows that are the truth of it: the list
//! of whom somebody follows, of what they wrote, of who likes a post. From then on it must be the same everywhere: in
//! the other's list of followers, in every count, and in every home, on every node.

use crate::{
    expected::{Expected, Fate},
    observe::{Seen, SeenPost},
    oracle::World,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How many differences of one kind are told.
const TOLD: usize = 5;

/// What is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complaints {
    /// Lists, homes, posts.
    pub lists: Vec<String>,
    /// Counts beside posts and people, which may be some seconds old on a node that did not change them.
    pub counts: Vec<String>,
}

impl Complaints {
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.counts.is_empty()
    }

    pub fn into_all(self) -> Vec<String> {
        self.lists.into_iter().chain(self.counts).collect()
    }
}

/// Judges what all nodes show. The first is taken for what the journal leaves open, so its likes must have been looked up.
pub fn judge(expected: &Expected, nodes: &[Seen]) -> Complaints {
    let mut complaints = Complaints::default();
    let Some(first) = nodes.first() else {
        complaints.lists.push("no node was looked at".into());
        return complaints;
    };
    let settled = Settled::of(expected, first, &mut complaints.lists);
    for node in nodes {
        settled.hold_against(node, &mut complaints);
    }
    complaints
}

/// The one world that all must show.
struct Settled {
    world: World,
    followers: HashMap<String, BTreeSet<String>>,
    /// Of the posts that are there.
    likers: BTreeMap<u64, BTreeSet<String>>,
}

impl Settled {
    fn of(expected: &Expected, first: &Seen, wrong: &mut Vec<String>) -> Self {
        let mut world = World::default();
        let mut followers: HashMap<String, BTreeSet<String>> = HashMap::new();
        for handle in &expected.people {
            let seen = first.people.get(handle).cloned().unwrap_or_default();
            let follows = settle_follows(expected, handle, &seen.following, wrong);
            for followee in &follows {
                followers
                    .entry(followee.clone())
                    .or_default()
                    .insert(handle.clone());
            }
            world.follows.insert(handle.clone(), follows);
            let posts = settle_posts(expected, handle, &seen.posts, wrong);
            world.posts.insert(handle.clone(), posts);
        }
        let mut likers = BTreeMap::new();
        for (id, _) in world.posts.values().flatten() {
            let seen = first.likers.get(id).map(Vec::as_slice).unwrap_or_default();
            likers.insert(*id, settle_likes(expected, *id, seen, wrong));
        }
        Self {
            world,
            followers,
            likers,
        }
    }

    fn hold_against(&self, node: &Seen, complaints: &mut Complaints) {
        let at = &node.node;
        for (handle, seen) in &node.people {
            let lists = &mut complaints.lists;
            let follows = &self.world.follows[handle];
            compare(
                lists,
                &format!("{at}: whom {handle} follows"),
                follows,
                &seen.following,
            );
            let followers = self.followers.get(handle).cloned().unwrap_or_default();
            compare(
                lists,
                &format!("{at}: the followers of {handle}"),
                &followers,
                &seen.followers,
            );
            let posts: BTreeSet<u64> = self.world.posts[handle].iter().map(|(id, _)| *id).collect();
            let listed: Vec<u64> = seen.posts.iter().map(|post| post.id).collect();
            compare(lists, &format!("{at}: the posts of {handle}"), &posts, &listed);
            self.compare_home(lists, at, handle, &seen.home);
            for (what, expected, seen) in [
                ("posts", posts.len(), seen.post_count),
                ("followers", followers.len(), seen.follower_count),
                ("followed people", follows.len(), seen.following_count),
            ] {
                if expected as u64 != seen {
                    complaints.counts.push(format!(
                        "{at}: {handle} is said to have {seen} {what}, and has {expected}"
                    ));
                }
            }
            for post in &seen.posts {
                self.compare_likes(complaints, at, handle, post);
            }
        }
    }

    /// A home must be the oracle's, in order.
    fn compare_home(&self, wrong: &mut Vec<String>, at: &str, handle: &str, home: &[SeenPost]) {
        let expected = self.world.home(handle);
        let seen: Vec<u64> = home.iter().map(|post| post.id).collect();
        if seen != expected {
            let name = format!("{at}: the home of {handle}");
            let before = wrong.len();
            compare(wrong, &name, &expected.iter().copied().collect(), &seen);
            if wrong.len() == before {
                wrong.push(format!("{name} is out of order"));
            }
        }
        for post in home {
            let likes = self
                .likers
                .get(&post.id)
                .is_some_and(|likers| likers.contains(handle));
            if likes != post.is_liked {
                wrong.push(format!(
                    "{at}: in the home of {handle}, post {} is shown as {}liked by them, and is {}",
                    post.id,
                    if post.is_liked { "" } else { "not " },
                    if likes { "liked" } else { "not" }
                ));
            }
        }
    }

    fn compare_likes(&self, complaints: &mut Complaints, at: &str, handle: &str, post: &SeenPost) {
        let Some(likers) = self.likers.get(&post.id) else {
            return;
        };
        if likers.len() as u64 != post.likes {
            complaints.counts.push(format!(
                "{at}: post {} of {handle} is said to have {} likes, and has {}",
                post.id,
                post.likes,
                likers.len()
            ));
        }
    }
}

fn settle_follows(
    expected: &Expected,
    handle: &str,
    seen: &[String],
    wrong: &mut Vec<String>,
) -> BTreeSet<String> {
    let there: BTreeSet<&String> = seen.iter().collect();
    let mut follows = BTreeSet::new();
    for ((_, followee), fate) in expected
        .follows
        .range((handle.to_owned(), String::new())..)
        .take_while(|((follower, _), _)| follower == handle)
    {
        let is_there = there.contains(followee);
        if settle(*fate, is_there, wrong, || format!("{handle} follows {followee}")) {
            follows.insert(followee.clone());
        }
    }
    for stranger in seen.iter().filter(|followee| {
        let key = (handle.to_owned(), (*followee).clone());
        !expected.follows.contains_key(&key)
    }) {
        wrong.push(format!("{handle} follows {stranger}, and never asked to"));
    }
    follows
}

fn settle_posts(
    expected: &Expected,
    handle: &str,
    seen: &[SeenPost],
    wrong: &mut Vec<String>,
) -> Vec<(u64, String)> {
    let mut by_text: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for post in seen {
        by_text.entry(&post.text).or_default().push(post.id);
    }
    let mut posts = Vec::new();
    for (text, wanted) in expected
        .posts
        .iter()
        .filter(|(_, wanted)| wanted.author == handle)
    {
        let ids = by_text.remove(text.as_str()).unwrap_or_default();
        if ids.len() > 1 {
            wrong.push(format!(
                "{handle} posted {text:?} once, and it is there {} times: {ids:?}",
                ids.len()
            ));
        }
        let is_there = !ids.is_empty();
        let is_kept = settle(wanted.fate, is_there, wrong, || {
            format!("{handle} posted {text:?}")
        });
        let id = wanted.id.or(ids.first().copied());
        if let (true, Some(id)) = (is_kept, id) {
            if is_there && !ids.contains(&id) {
                wrong.push(format!(
                    "{handle} was told that {text:?} is post {id}, and it is {ids:?}"
                ));
            }
            posts.push((id, text.clone()));
        }
    }
    for (text, ids) in by_text {
        wrong.push(format!(
            "{handle} has posts {ids:?}, {text:?}, and never wrote that"
        ));
    }
    posts
}

fn settle_likes(
    expected: &Expected,
    post: u64,
    seen: &[String],
    wrong: &mut Vec<String>,
) -> BTreeSet<String> {
    let there: BTreeSet<&String> = seen.iter().collect();
    if there.len() < seen.len() {
        wrong.push(format!("somebody likes post {post} twice: {seen:?}"));
    }
    let mut likers = BTreeSet::new();
    let wanted = expected
        .likes
        .range((post, String::new())..)
        .take_while(|((liked, _), _)| *liked == post);
    for ((_, liker), fate) in wanted {
        let is_there = there.contains(liker);
        if settle(*fate, is_there, wrong, || format!("{liker} likes post {post}")) {
            likers.insert(liker.clone());
        }
    }
    for stranger in seen.iter().filter(|liker| {
        let key = (post, (*liker).clone());
        !expected.likes.contains_key(&key)
    }) {
        wrong.push(format!("{stranger} likes post {post}, and never asked to"));
    }
    likers
}

/// Whether something is, by its fate and by what is seen of it.
fn settle(fate: Fate, is_there: bool, wrong: &mut Vec<String>, what: impl Fn() -> String) -> bool {
    match (fate, is_there) {
        (Fate::Yes, false) => {
            wrong.push(format!("{}: acknowledged, and lost", what()));
            true
        }
        (Fate::No, true) => {
            wrong.push(format!(
                "{}: acknowledged as taken back (or refused), and there",
                what()
            ));
            false
        }
        (Fate::Either, is_there) => is_there,
        (fate, _) => fate == Fate::Yes,
    }
}

fn compare<T: Ord + std::fmt::Debug>(
    wrong: &mut Vec<String>,
    what: &str,
    expected: &BTreeSet<T>,
    seen: &[T],
) {
    let there: BTreeSet<&T> = seen.iter().collect();
    let missing: Vec<&T> = expected.iter().filter(|one| !there.contains(one)).collect();
    let extra: Vec<&&T> = there.iter().filter(|one| !expected.contains(**one)).collect();
    if !missing.is_empty() {
        let some = &missing[..missing.len().min(TOLD)];
        wrong.push(format!("{what}: {} missing, such as {some:?}", missing.len()));
    }
    if !extra.is_empty() {
        let some = &extra[..extra.len().min(TOLD)];
        wrong.push(format!("{what}: {} too many, such as {some:?}", extra.len()));
    }
    if there.len() < seen.len() {
        wrong.push(format!("{what}: {} are listed twice", seen.len() - there.len()));
    }
}
