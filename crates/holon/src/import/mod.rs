//! `holon import social`: a graph and texts become accounts, follows and posts, over the public HTTP API.
//!
//! The import can be stopped anywhere and run again, on the same server or after that was killed: nothing is lost
//! and nothing doubled. That rests on three things.
//!
//! - Accounts and follows have natural keys: a handle that is taken and a follow that is there are done.
//! - A post has an idempotency key made of the files' fingerprint and its number, so that sending it twice within
//!   a day is sending it once.
//! - For accounts that were there before, what they follow and have posted is read and compared first. So a second
//!   run is also quick, and right long after the idempotency keys are forgotten. Texts are compared without the
//!   hashtag that `--hashtags` appends. The same is done before a post is sent again whose answer was lost.
//!
//! Text number `i` belongs to account `(i * 2654435761) mod n` (Knuth's multiplicative hashing: an odd prime, so a
//! permutation of `0..n` for each run of `n` texts unless it divides `n`).

mod activity;
mod files;
mod people;
mod person;
mod progress;
mod run;

pub use files::{FileError, Source};
pub use progress::grouped;
pub use run::{Done, Import};

use crate::client::ClientError;
use std::time::Duration;

/// What to import, where to, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Such as `http://127.0.0.1:8080`.
    pub server: String,
    pub edges: Source,
    pub posts: Source,
    /// An administrator's credential.
    pub token: String,
    /// Requests in flight.
    pub concurrency: usize,
    /// Append the topic as a hashtag where it fits.
    pub hashtags: bool,
    /// Posts of friends that each account likes.
    pub likes: usize,
    /// Reposts of friends' posts, one each by the accounts that a hash picks.
    pub reposts: usize,
    /// Return only when every consumer has caught up.
    pub wait: bool,
    /// Give up when the server has answered nothing for so long.
    pub patience: Duration,
    /// A password for `u0`, for somebody to sign in as; used only when the account is made.
    pub password: Option<String>,
}

/// Why an import ended early. It can be run again.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("a worker failed: {0}")]
    Worker(String),
}

/// The handle of a person in the graph.
pub fn handle(person: usize) -> String {
    format!("u{person}")
}

/// Whose text number `index` is, among `people`.
pub fn author_of(index: usize, people: usize) -> usize {
    (index as u64).wrapping_mul(2_654_435_761) as usize % people.max(1)
}

/// A number that is always the same for the same two, and otherwise as good as random (SplitMix64's finaliser,
/// Steele, Lea and Flood 2014).
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = (a ^ b.rotate_left(32)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The most graphemes of a post.
const POST_GRAPHEMES: usize = 280;

/// The text as it is posted: with its topic as a hashtag behind it, if that is wanted and fits.
fn text_to_post(text: &files::Text, hashtags: bool) -> String {
    use unicode_segmentation::UnicodeSegmentation;
    let tag = hashtag(&text.topic);
    if !hashtags || tag.is_empty() {
        return text.text.clone();
    }
    let tagged = format!("{}{tag}", text.text);
    if tagged.graphemes(true).count() > POST_GRAPHEMES {
        return text.text.clone();
    }
    tagged
}

/// ` #songspoems` for `songs-poems`; empty for a topic without letters or digits.
fn hashtag(topic: &str) -> String {
    let word: String = topic.chars().filter(|c| c.is_alphanumeric()).collect();
    if word.is_empty() {
        String::new()
    } else {
        format!(" #{word}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_dealt_out_evenly_and_always_the_same_way() {
        let people = 4_039;
        let mut dealt = vec![0; people];
        for index in 0..8_834 {
            dealt[author_of(index, people)] += 1;
        }
        assert!(dealt.iter().all(|texts| (2..=3).contains(texts)));
        assert_eq!(
            [0, 1, 2, 4_039].map(|index| author_of(index, 4_039)),
            [0, 922, 1_844, 0]
        );
    }

    #[test]
    fn a_hashtag_is_appended_only_where_it_fits() {
        let text = |length: usize, topic: &str| files::Text {
            topic: topic.into(),
            text: "é".repeat(length),
        };
        assert!(text_to_post(&text(10, "songs-poems"), true).ends_with("é #songspoems"));
        assert_eq!(text_to_post(&text(280, "art"), true), "é".repeat(280));
        assert_eq!(text_to_post(&text(275, "art"), true), "é".repeat(275) + " #art");
        assert_eq!(text_to_post(&text(276, "art"), true), "é".repeat(276));
        assert_eq!(text_to_post(&text(10, "art"), false), "é".repeat(10));
        assert_eq!(text_to_post(&text(10, "-"), true), "é".repeat(10));
    }
}
