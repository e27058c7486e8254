//! The records of the feed and where they lie. No I/O.
//!
//! What belongs to a person lies in the partition `user:<id>`, so that a post, its place in the author's outbox, its
//! idempotency key and the event that tells of it are one commit. What belongs to a post seen from outside (who wrote
//! it, who replied) lies in `post:<id>`; who follows somebody in `followers:<id>`; a home timeline in `timeline:<id>`.

use bytes::{BufMut, Bytes, BytesMut};
use holon_base::{Id, KeyWriter, Tenant, Timestamp};
use holon_contracts::feed::PostCreated;
use holon_ports::{Partition, StoreError, Table};
use serde::{Deserialize, Serialize};

/// `user:<author>`, sort post id: [`PostRecord`]. The truth of a post; no row, no post.
pub const POSTS: Table = Table("feed.posts");
/// `user:<author>`, sort post id descending: [`Entry`]. The same posts, tiny, newest first: what a reader pulls.
pub const OUTBOX: Table = Table("feed.outbox");
/// `user:<author>`, sort post id and number of the edit: [`PastText`].
pub const HISTORY: Table = Table("feed.post_history");
/// `user:<author>`, sort `Idempotency-Key`: [`PostKey`]; expires after a day.
pub const POST_KEYS: Table = Table("feed.post_keys");
/// `user:<follower>`, sort followee id: [`Since`].
pub const FOLLOWS: Table = Table("feed.follows");
/// `user:<blocker>`, sort blocked id: [`Switch`]. Never deleted, so that its version orders block and unblock.
pub const BLOCKS: Table = Table("feed.blocks");
/// `user:<blocked>`, sort blocker id: [`Mirror`] of the blocker's row.
pub const BLOCKED_BY: Table = Table("feed.blocked_by");
/// `user:<muter>`, sort muted id: [`Since`].
pub const MUTES: Table = Table("feed.mutes");
/// `user:<viewer>`, sort post id: [`Mark`]. Mirror of the like counters' members, for `viewer.liked`.
pub const LIKES: Table = Table("feed.likes");
/// `user:<viewer>`, sort original post id: [`RepostMark`].
pub const REPOSTS: Table = Table("feed.reposts");
/// `user:<viewer>`, sort post id: [`Mark`].
pub const BOOKMARKS: Table = Table("feed.bookmarks");
/// Counters that say that something changed, so that a cached copy of it can be trusted after one point read, and
/// the counts of a profile. `user:<id>`: see the `VERSION_…` and `COUNT_…` sorts.
pub const VERSIONS: Table = Table("feed.versions");
/// `user:<id>`, sort empty: [`Activity`].
pub const ACTIVITY: Table = Table("feed.activity");
/// `user:<recipient>`, sort notification id: [`NotificationRecord`].
pub const NOTIFICATIONS: Table = Table("feed.notifications");
/// `user:<recipient>`, sort kind, actor, post: the notification's id; what is told once is told once.
pub const NOTIFIED: Table = Table("feed.notified");
/// `user:<recipient>`, sort empty: [`ReadMark`].
pub const READ_MARKS: Table = Table("feed.read_marks");
/// `post:<id>`, sort empty: [`AuthorOf`].
pub const POST_AUTHORS: Table = Table("feed.post_authors");
/// `post:<id>`, sort reply id: [`AuthorOf`] the reply.
pub const REPLIES: Table = Table("feed.replies");
/// `post:<id>`, sort empty: [`FanoutRecord`], for the glass box.
pub const FANOUTS: Table = Table("feed.fanouts");
/// `followers:<author>`, sort follower id: [`Since`].
pub const FOLLOWERS: Table = Table("feed.followers");
/// `followers:<author>`, sort empty: how many followers, changed in the commit that changes [`FOLLOWERS`].
pub const FOLLOWER_COUNTS: Table = Table("feed.follower_counts");
/// `tiers`, sort author id: [`TierRecord`]; authors of the push tier have no row.
pub const TIERS: Table = Table("feed.tiers");
/// `timeline:<reader>`, sort [`META_SORT`]: [`TimelineMeta`]; sort [`crate::pack::pack_sort`]: a pack of entries.
pub const TIMELINE: Table = Table("feed.timeline");
/// `trends:<log partition>`, sort see `trends.rs`: counters.
pub const TAG_COUNTS: Table = Table("feed.tag_counts");
/// `tag:<tag>`, sort post id descending: [`AuthorOf`].
pub const TAGS: Table = Table("feed.tags");

/// Every table of the feed itself (counters bring their own).
pub const ALL_TABLES: [Table; 25] = [
    POSTS,
    OUTBOX,
    HISTORY,
    POST_KEYS,
    FOLLOWS,
    BLOCKS,
    BLOCKED_BY,
    MUTES,
    LIKES,
    REPOSTS,
    BOOKMARKS,
    VERSIONS,
    ACTIVITY,
    NOTIFICATIONS,
    NOTIFIED,
    READ_MARKS,
    POST_AUTHORS,
    REPLIES,
    FANOUTS,
    FOLLOWERS,
    FOLLOWER_COUNTS,
    TIERS,
    TIMELINE,
    TAG_COUNTS,
    TAGS,
];

/// Grows with every change of whom a person follows, blocks, mutes or is blocked by.
pub const VERSION_GRAPH: &[u8] = b"graph";
/// Grows with every change of what a person liked, reposted or bookmarked.
pub const VERSION_MARKS: &[u8] = b"marks";
/// In partition `tiers`: grows with every change of a tier.
pub const VERSION_TIERS: &[u8] = b"tiers";
/// How many posts a person has.
pub const COUNT_POSTS: &[u8] = b"count.posts";
/// How many people a person follows.
pub const COUNT_FOLLOWING: &[u8] = b"count.following";

/// Topic of what people do to posts and to each other. Key: the actor's id.
pub const ACTIONS_TOPIC: &str = "feed.actions";
/// On [`holon_contracts::feed::POSTS_TOPIC`], keyed by the followee: a follow began or ended. Data: [`FollowChanged`].
pub const FOLLOW_CHANGED: &str = "feed.follow.changed.v1";
/// Data: [`LikeChanged`].
pub const LIKE_CHANGED: &str = "feed.like.changed.v1";
/// Data: [`BlockChanged`].
pub const BLOCK_CHANGED: &str = "feed.block.changed.v1";

pub fn user(tenant: &Tenant, id: Id) -> Partition {
    Partition::new(tenant, format!("user:{id}"))
}

pub fn post(tenant: &Tenant, id: Id) -> Partition {
    Partition::new(tenant, format!("post:{id}"))
}

pub fn followers(tenant: &Tenant, id: Id) -> Partition {
    Partition::new(tenant, format!("followers:{id}"))
}

pub fn timeline(tenant: &Tenant, id: Id) -> Partition {
    Partition::new(tenant, format!("timeline:{id}"))
}

pub fn tag(tenant: &Tenant, tag: &str) -> Partition {
    Partition::new(tenant, format!("tag:{tag}"))
}

pub fn tiers(tenant: &Tenant) -> Partition {
    Partition::new(tenant, "tiers")
}

/// The id in a partition's name, such as 42 in `user:42`.
pub fn owner_of(partition: &Partition, prefix: &str) -> Option<Id> {
    partition.entity.strip_prefix(prefix)?.parse().ok()
}

/// Sort key of an id, oldest first.
pub fn by_id(id: Id) -> Bytes {
    Bytes::copy_from_slice(&id.as_u64().to_be_bytes())
}

/// Sort key of an id, newest first.
pub fn by_id_desc(id: Id) -> Bytes {
    Bytes::copy_from_slice(&(!id.as_u64()).to_be_bytes())
}

/// The id of a sort key made by [`by_id`].
///
/// # Errors
/// [`StoreError::Corrupt`] if it is none.
pub fn id_of(sort: &[u8]) -> Result<Id, StoreError> {
    sort.try_into()
        .map(|bytes| Id::from_u64(u64::from_be_bytes(bytes)))
        .map_err(|_| StoreError::Corrupt("sort key is no id".into()))
}

/// The id of a sort key made by [`by_id_desc`].
///
/// # Errors
/// [`StoreError::Corrupt`] if it is none.
pub fn id_of_desc(sort: &[u8]) -> Result<Id, StoreError> {
    id_of(sort).map(|id| Id::from_u64(!id.as_u64()))
}

/// Where a timeline keeps its [`TimelineMeta`]: before all entries, so that the scan of a first page has both in one
/// snapshot.
pub const META_SORT: &[u8] = &[0];

/// Sort key of a past text.
pub fn history_sort(post: Id, edit: u64) -> Bytes {
    KeyWriter::with_capacity(16).id(post).u64(edit).finish()
}

/// What sort of post it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = PostKind)]
pub enum Kind {
    Post,
    Reply,
    Repost,
    Quote,
}

/// A post and who wrote it: enough to find it in one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PostRef {
    pub id: Id,
    pub author: Id,
}

/// Somebody whom a post names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Mention {
    pub id: Id,
    pub handle: String,
}

/// A post as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostRecord {
    pub id: Id,
    pub author: Id,
    pub text: String,
    pub created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<Timestamp>,
    /// How often it was edited.
    #[serde(default)]
    pub edits: u64,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<PostRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repost_of: Option<PostRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote_of: Option<PostRef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hashtags: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<Mention>,
}

impl PostRecord {
    /// Its place in outboxes and timelines.
    pub fn entry(&self) -> Entry {
        Entry {
            author: self.author,
            kind: self.kind,
            target: match self.kind {
                Kind::Post => None,
                Kind::Reply => self.reply_to,
                Kind::Repost => self.repost_of,
                Kind::Quote => self.quote_of,
            },
        }
    }

    /// The event that tells of it.
    pub fn told(&self) -> PostCreated {
        PostCreated {
            id: self.id,
            author: self.author,
            text: self.text.clone(),
            created: self.created,
            reply_to: self.reply_to.map(|to| to.id),
            repost_of: self.repost_of.map(|of| of.id),
            quote_of: self.quote_of.map(|of| of.id),
            hashtags: self.hashtags.clone(),
            mentions: self.mentions.iter().map(|mention| mention.id).collect(),
        }
    }
}

/// In the first byte of an encoded [`Entry`]: a target follows.
const POINTS: u8 = 0x80;

/// A post in an outbox or a timeline: whose it is, and what it points at. 9 or 25 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    pub author: Id,
    pub kind: Kind,
    /// What it replies to, reposts or quotes.
    pub target: Option<PostRef>,
}

impl Entry {
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(25);
        self.write(&mut bytes);
        bytes.freeze()
    }

    /// Writes it onto the end.
    pub fn write(&self, out: &mut BytesMut) {
        let kind = self.kind as u8;
        out.put_u8(if self.target.is_some() {
            kind | POINTS
        } else {
            kind
        });
        out.put_u64(self.author.as_u64());
        if let Some(target) = self.target {
            out.put_u64(target.id.as_u64());
            out.put_u64(target.author.as_u64());
        }
    }

    /// # Errors
    /// [`StoreError::Corrupt`] if the bytes are no entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        match Self::read(bytes)? {
            (entry, []) => Ok(entry),
            _ => Err(StoreError::Corrupt("value is no timeline entry".into())),
        }
    }

    /// Reads one from the start of the bytes; answers it and the rest.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the bytes do not start with an entry.
    pub fn read(bytes: &[u8]) -> Result<(Self, &[u8]), StoreError> {
        let corrupt = || StoreError::Corrupt("value is no timeline entry".into());
        let number =
            |bytes: &[u8]| -> Option<Id> { Some(Id::from_u64(u64::from_be_bytes(*bytes.first_chunk()?))) };
        let (first, rest) = bytes.split_first().ok_or_else(corrupt)?;
        let kind = match first & !POINTS {
            0 => Kind::Post,
            1 => Kind::Reply,
            2 => Kind::Repost,
            3 => Kind::Quote,
            _ => return Err(corrupt()),
        };
        let (author, rest) = rest.split_at_checked(8).ok_or_else(corrupt)?;
        let author = number(author).ok_or_else(corrupt)?;
        if first & POINTS == 0 {
            let target = None;
            return Ok((Self { author, kind, target }, rest));
        }
        let (target, rest) = rest.split_at_checked(16).ok_or_else(corrupt)?;
        let target = PostRef {
            id: number(target).ok_or_else(corrupt)?,
            author: number(&target[8..]).ok_or_else(corrupt)?,
        };
        let target = Some(target);
        Ok((Self { author, kind, target }, rest))
    }

    /// Whose post a repost shows.
    pub fn original(&self) -> Option<PostRef> {
        if self.kind == Kind::Repost {
            self.target
        } else {
            None
        }
    }
}

/// A text that a post had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PastText {
    pub text: String,
    /// When it was written.
    pub at: Timestamp,
}

/// What an idempotency key made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostKey {
    pub id: Id,
    /// A hash of the request, so that the same key with another body is refused.
    pub request: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    pub since: Timestamp,
}

/// On or off, with the time of the last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    pub on: bool,
    pub since: Timestamp,
}

/// A copy of another partition's [`Switch`]: applied only if its version is newer than the one copied before, so
/// that late copies change nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    pub on: bool,
    pub version: u64,
}

/// A viewer's mark on a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub author: Id,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepostMark {
    pub repost: Id,
    pub author: Id,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorOf {
    pub author: Id,
}

/// When somebody last looked at their home, and since when they did so without a long gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    pub last: Timestamp,
    /// Absent while a gap is being closed.
    #[serde(default)]
    pub since: Option<Timestamp>,
}

/// How an author's posts reach their followers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Written to every follower's timeline.
    Push,
    /// Written to the timelines of active followers; the others pull.
    Active,
    /// Pulled by every follower.
    Pull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TierRecord {
    pub tier: Tier,
    /// In the active tier: posts with larger ids were pushed to whoever was active.
    pub complete_above: Id,
}

/// What a timeline promises: every post with an id above `floor` by an author of the push tier is there, as soon as
/// its fan-out is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineMeta {
    pub floor: Id,
    /// Grows when the timeline is built anew: the only time at which the floor may sink.
    #[serde(default)]
    pub epoch: u64,
}

impl Default for TimelineMeta {
    fn default() -> Self {
        Self {
            floor: Id::MIN,
            epoch: 0,
        }
    }
}

/// What the fan-out of a post did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FanoutRecord {
    pub tier: Tier,
    pub followers: u64,
    pub pushed: u64,
    pub at: Timestamp,
    pub partition: u16,
    pub offset: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NotificationKind {
    Follow,
    Like,
    Mention,
    Reply,
    Repost,
    Quote,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationRecord {
    pub kind: NotificationKind,
    pub time: Timestamp,
    pub actor: Id,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post: Option<PostRef>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadMark {
    pub up_to: Id,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowChanged {
    pub follower: Id,
    pub followee: Id,
    pub following: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LikeChanged {
    pub actor: Id,
    pub post: PostRef,
    pub liked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockChanged {
    pub blocker: Id,
    pub blocked: Id,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_entry_is_read_as_it_was_written(author: u64, kind in 0..4_u8, target: Option<(u64, u64)>) {
            let entry = Entry {
                author: Id::from_u64(author),
                kind: [Kind::Post, Kind::Reply, Kind::Repost, Kind::Quote][usize::from(kind)],
                target: target.map(|(id, author)| PostRef { id: Id::from_u64(id), author: Id::from_u64(author) }),
            };
            prop_assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
        }

        #[test]
        fn rubbish_is_an_error(bytes: Vec<u8>) {
            let _ = Entry::decode(&bytes);
        }
    }
}
