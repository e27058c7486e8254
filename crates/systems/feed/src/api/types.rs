//! What goes in and out, as JSON. Posts go out as bytes made elsewhere; their types here are the promise of how those
//! look, and what tests read them with.

use crate::{
    home::Source,
    model::{Kind, Mention, NotificationKind, PastText},
    trends::Trend,
};
use holon_base::{Id, Timestamp};
use holon_contracts::identity::AccountSummary;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who wrote a post.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Author {
    pub id: Id,
    #[schema(pattern = "^[a-z0-9_]{1,32}$")]
    pub handle: String,
    pub name: String,
}

impl From<AccountSummary> for Author {
    fn from(account: AccountSummary) -> Self {
        Self {
            id: account.id,
            handle: account.handle,
            name: account.name,
        }
    }
}

/// A post. Of a repost, text is empty and `repostOf` has the original, whose counts and marks it shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Post {
    pub id: Id,
    pub author: Author,
    pub text: String,
    pub created: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub edited: Option<Timestamp>,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reply_to: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion, nullable = false)]
    pub repost_of: Option<Box<Post>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion, nullable = false)]
    pub quote_of: Option<Box<Post>>,
    /// What it quotes is deleted, or not for you.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub quote_gone: Option<bool>,
    pub hashtags: Vec<String>,
    pub mentions: Vec<Mention>,
    pub counts: PostCounts,
    /// What you did to it; absent where nobody is signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub viewer: Option<ViewerMarks>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PostCounts {
    pub likes: u64,
    pub reposts: u64,
    pub replies: u64,
    pub quotes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ViewerMarks {
    pub liked: bool,
    pub reposted: bool,
    pub bookmarked: bool,
}

/// What to post.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewPost {
    /// 1 to 280 characters as people count them (grapheme clusters).
    #[schema(min_length = 1, max_length = 8192)]
    pub text: String,
    #[serde(default)]
    #[schema(nullable = false)]
    pub reply_to: Option<Id>,
    #[serde(default)]
    #[schema(nullable = false)]
    pub quote_of: Option<Id>,
}

/// What a post shall say.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PostEdit {
    /// 1 to 280 characters as people count them (grapheme clusters).
    #[schema(min_length = 1, max_length = 8192)]
    pub text: String,
}

/// The texts that a post had, newest first, the present one included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PostHistory {
    pub items: Vec<PastText>,
}

/// A post with what it replies to and what replies to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PostThread {
    /// Root first.
    pub ancestors: Vec<Post>,
    pub post: Post,
    /// Oldest first.
    pub replies: Vec<Post>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
}

/// A page of posts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PostPage {
    pub items: Vec<Post>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
}

/// A post of a home.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HomePost {
    #[serde(flatten)]
    pub post: Post,
    /// With `explain=true`: why it stands here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub explain: Option<Explanation>,
}

/// A page of a home.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HomePage {
    pub items: Vec<HomePost>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
    /// For what comes later: `GET /v1/feed/home?since=` and `/v1/feed/home/live?since=`.
    pub since: String,
}

/// Why a post stands where it does. In `order=latest` only its source matters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    pub score: f64,
    pub features: Vec<FeatureShare>,
    pub source: Source,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FeatureShare {
    pub name: String,
    #[schema(minimum = 0, maximum = 1)]
    pub value: f64,
    #[schema(minimum = 0, maximum = 1)]
    pub weight: f64,
    /// Its part of the score.
    #[schema(minimum = 0, maximum = 1)]
    pub share: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Liked {
    pub liked: bool,
    pub likes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reposted {
    pub reposted: bool,
    pub reposts: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bookmarked {
    pub bookmarked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Following {
    pub following: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Blocking {
    pub blocking: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Muting {
    pub muting: bool,
}

/// Somebody in a list of people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PersonItem {
    pub id: Id,
    #[schema(pattern = "^[a-z0-9_]{1,32}$")]
    pub handle: String,
    pub name: String,
    /// Whether you follow them; absent where nobody is signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub following: Option<bool>,
}

/// A page of people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PersonPage {
    pub items: Vec<PersonItem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Profile {
    pub id: Id,
    #[schema(pattern = "^[a-z0-9_]{1,32}$")]
    pub handle: String,
    pub name: String,
    pub bio: String,
    pub created: Timestamp,
    pub counts: PersonCounts,
    /// What stands between you two; absent where nobody is signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub viewer: Option<ViewerRelation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PersonCounts {
    pub posts: u64,
    pub followers: u64,
    pub following: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ViewerRelation {
    pub following: bool,
    pub followed_by: bool,
    pub blocking: bool,
    pub blocked_by: bool,
    pub muting: bool,
}

/// Something that happened to you.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Notification {
    pub id: Id,
    pub kind: NotificationKind,
    pub time: Timestamp,
    pub actor: Author,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub post: Option<Post>,
    pub read: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NotificationPage {
    pub items: Vec<Notification>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
    /// Counted up to 1,000.
    pub unread: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReadUpTo {
    /// The newest notification that was seen.
    pub up_to: Id,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unread {
    pub unread: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrendList {
    pub items: Vec<Trend>,
    pub as_of: Timestamp,
}
