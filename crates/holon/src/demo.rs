//! The demo's files, built in, and filling a data directory with them once.

use crate::import::Source;

/// See `demo/README.md` for where these come from and their terms.
pub static EDGES: Source = Source::BuiltIn {
    name: "demo/facebook_edges.txt.gz",
    bytes: include_bytes!("../../../demo/facebook_edges.txt.gz"),
};
pub static POSTS: Source = Source::BuiltIn {
    name: "demo/posts.jsonl.gz",
    bytes: include_bytes!("../../../demo/posts.jsonl.gz"),
};
