//! Feed: what people said and whom they follow.

use holon_base::{Id, Timestamp};
use serde::{Deserialize, Serialize};

/// Topic of posts. Key: the author's id, so that an author's posts and followers keep one order.
pub const POSTS_TOPIC: &str = "feed.posts";

/// Data: [`PostCreated`].
pub const POST_CREATED: &str = "feed.post.created.v1";
/// Data: [`PostCreated`], as it is after the edit.
pub const POST_EDITED: &str = "feed.post.edited.v1";
/// Data: [`PostDeleted`].
pub const POST_DELETED: &str = "feed.post.deleted.v1";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostCreated {
    pub id: Id,
    pub author: Id,
    pub text: String,
    pub created: Timestamp,
    #[serde(default)]
    pub reply_to: Option<Id>,
    #[serde(default)]
    pub repost_of: Option<Id>,
    #[serde(default)]
    pub quote_of: Option<Id>,
    #[serde(default)]
    pub hashtags: Vec<String>,
    #[serde(default)]
    pub mentions: Vec<Id>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostDeleted {
    pub id: Id,
    pub author: Id,
    #[serde(default)]
    pub reply_to: Option<Id>,
    #[serde(default)]
    pub repost_of: Option<Id>,
    #[serde(default)]
    pub quote_of: Option<Id>,
    #[serde(default)]
    pub hashtags: Vec<String>,
}
