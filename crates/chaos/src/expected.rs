//! What must be there, from the clients' journal alone, and what the journal by itself shows to be wrong.

use crate::journal::{Action, Entry, Outcome};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Whether something must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Yes,
    No,
    /// Its client never learned: either, but the same wherever one looks.
    Either,
}

impl Fate {
    /// After a change whose outcome nobody knows.
    fn perhaps(before: Self, after: Self) -> Self {
        if before == after { before } else { Self::Either }
    }
}

/// A post that somebody wanted to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPost {
    pub author: String,
    /// If it was told.
    pub id: Option<u64>,
    pub fate: Fate,
}

/// What must be there.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    pub people: Vec<String>,
    /// By follower and followee; what is not named must not be.
    pub follows: BTreeMap<(String, String), Fate>,
    /// By text.
    pub posts: BTreeMap<String, WantedPost>,
    /// By post and who likes it; what is not named must not be.
    pub likes: BTreeMap<(u64, String), Fate>,
    /// What is wrong already, in words.
    pub complaints: Vec<String>,
}

impl Expected {
    /// Folds a journal of these people.
    pub fn of(people: &[String], entries: &[Entry]) -> Self {
        let mut expected = Self {
            people: people.to_vec(),
            ..Self::default()
        };
        let deletions = first_deletions(entries);
        let mut minds: HashMap<&str, Mind> = HashMap::new();
        for entry in entries {
            let mind = minds.entry(&entry.person).or_default();
            expected.fold(entry, mind, &deletions);
        }
        expected.look_for_strangers(entries);
        expected
    }

    fn fold(&mut self, entry: &Entry, mind: &mut Mind, deletions: &HashMap<u64, u64>) {
        let person = &entry.person;
        if let Outcome::Refused { status, problem } = &entry.outcome {
            if !is_fair(entry, deletions) {
                self.complaints.push(format!(
                    "{person}: {:?} was refused with {status} {problem}, and nothing in the journal says why",
                    entry.action
                ));
            }
            if !is_done_before(entry) {
                return;
            }
        }
        let is_known = entry.outcome != Outcome::Unknown;
        match &entry.action {
            Action::Post { text } => {
                let (id, fate) = match &entry.outcome {
                    Outcome::Posted { post } => (Some(*post), Fate::Yes),
                    _ => (None, Fate::Either),
                };
                mind.posted.extend(id);
                let wanted = WantedPost {
                    author: person.clone(),
                    id,
                    fate,
                };
                self.posts.insert(text.clone(), wanted);
            }
            Action::Delete { post } => {
                mind.posted.remove(post);
                if is_known {
                    mind.deleted.insert(*post);
                }
                if let Some(wanted) = self.posts.values_mut().find(|wanted| wanted.id == Some(*post)) {
                    wanted.fate = if is_known { Fate::No } else { Fate::Either };
                }
            }
            Action::Like { post, .. } => {
                set(&mut self.likes, (*post, person.clone()), Fate::Yes, is_known);
            }
            Action::Unlike { post, .. } => {
                set(&mut self.likes, (*post, person.clone()), Fate::No, is_known);
            }
            Action::Follow { handle } => {
                mind.unfollowed.remove(handle);
                set(
                    &mut self.follows,
                    (person.clone(), handle.clone()),
                    Fate::Yes,
                    is_known,
                );
            }
            Action::Unfollow { handle } => {
                if is_known {
                    mind.unfollowed.insert(handle.clone());
                }
                set(
                    &mut self.follows,
                    (person.clone(), handle.clone()),
                    Fate::No,
                    is_known,
                );
            }
            Action::Home => {
                if let Outcome::Seen { posts, is_all } = &entry.outcome {
                    let wrong = mind.what_is_wrong(person, posts, *is_all);
                    self.complaints.extend(wrong);
                }
            }
        }
    }

    /// Posts in homes that nobody can have written.
    fn look_for_strangers(&mut self, entries: &[Entry]) {
        let written: BTreeSet<u64> = self.posts.values().filter_map(|wanted| wanted.id).collect();
        let unsure: BTreeSet<&str> = self
            .posts
            .values()
            .filter(|wanted| wanted.id.is_none())
            .map(|wanted| wanted.author.as_str())
            .collect();
        let mut strangers = BTreeSet::new();
        for entry in entries {
            let Outcome::Seen { posts, .. } = &entry.outcome else {
                continue;
            };
            for (id, author) in posts {
                if !written.contains(id) && !unsure.contains(author.as_str()) {
                    strangers.insert((*id, author.clone()));
                }
            }
        }
        self.complaints.extend(strangers.into_iter().map(|(id, author)| {
            format!("post {id} of {author} was seen in a home, and {author} never wrote it")
        }));
    }
}

/// What one person was told so far, for what they must see at once.
#[derive(Default)]
struct Mind {
    posted: BTreeSet<u64>,
    deleted: BTreeSet<u64>,
    unfollowed: BTreeSet<String>,
}

impl Mind {
    /// What one changes oneself is so on the next read, through whichever node.
    fn what_is_wrong(&self, person: &str, seen: &[(u64, String)], is_all: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let ids: BTreeSet<u64> = seen.iter().map(|(id, _)| *id).collect();
        if !seen.windows(2).all(|pair| pair[0].0 > pair[1].0) {
            wrong.push(format!(
                "the home of {person} is out of order or shows a post twice"
            ));
        }
        let lowest = if is_all {
            0
        } else {
            seen.last().map_or(0, |(id, _)| *id)
        };
        for post in self.posted.range(lowest..).filter(|post| !ids.contains(post)) {
            wrong.push(format!(
                "{person} was told that post {post} is there, and their home, read afterwards, lacked it"
            ));
        }
        for post in self.deleted.intersection(&ids) {
            wrong.push(format!(
                "{person} was told that post {post} is gone, and their home, read afterwards, showed it"
            ));
        }
        for (post, author) in seen.iter().filter(|(_, author)| self.unfollowed.contains(author)) {
            wrong.push(format!(
                "{person} follows {author} no more, and their home, read afterwards, showed post {post} of theirs"
            ));
        }
        wrong
    }
}

fn set<K: Ord>(fates: &mut BTreeMap<K, Fate>, key: K, wanted: Fate, is_known: bool) {
    let fate = fates.entry(key).or_insert(Fate::No);
    *fate = if is_known {
        wanted
    } else {
        Fate::perhaps(*fate, wanted)
    };
}

/// When the first request to delete a post was sent.
fn first_deletions(entries: &[Entry]) -> HashMap<u64, u64> {
    let mut deletions: HashMap<u64, u64> = HashMap::new();
    for entry in entries {
        if let Action::Delete { post } = entry.action {
            let first = deletions.entry(post).or_insert(u64::MAX);
            *first = (*first).min(entry.started());
        }
    }
    deletions
}

/// A deletion whose answer was lost is answered 404 the next time: it was done.
fn is_done_before(entry: &Entry) -> bool {
    let is_gone = matches!(entry.outcome, Outcome::Refused { status: 404, .. });
    let had_errors = entry.attempts.iter().any(|attempt| attempt.is_error());
    is_gone && had_errors && matches!(entry.action, Action::Delete { .. })
}

/// Whether the journal explains a refusal: what is liked may have been deleted by its author.
fn is_fair(entry: &Entry, deletions: &HashMap<u64, u64>) -> bool {
    match &entry.action {
        Action::Like { post, .. } | Action::Unlike { post, .. } => {
            let is_gone = matches!(entry.outcome, Outcome::Refused { status: 404, .. });
            is_gone && deletions.get(post).is_some_and(|sent| *sent < entry.ended())
        }
        Action::Delete { .. } => is_done_before(entry),
        _ => false,
    }
}
