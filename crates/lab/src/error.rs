//! What goes wrong in the lab, in words for who typed the command.

use futures::FutureExt as _;
use std::{any::Any, future::Future, panic::AssertUnwindSafe, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("{0}")]
    Server(String),
    #[error("{what} {path}: {error}")]
    File {
        what: &'static str,
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("the cluster has no {name}; it has {known}")]
    NoPart { name: String, known: String },
    #[error("{name} is {state}, so it cannot be told to {action}")]
    State {
        name: String,
        state: &'static str,
        action: &'static str,
    },
    #[error("{action} is nothing that {name} can be told; it can be told to {known}")]
    NoAction {
        action: String,
        name: String,
        known: String,
    },
    #[error(
        "the standby of shard {0} may lack commits that were acknowledged, so it is not promoted: wait until `holon-lab \
         status` calls the shard synchronous"
    )]
    NotSynchronous(String),
    #[error("shard {0} has no standby")]
    NoStandby(String),
    #[error("nothing can be cut or slowed: the nodes of this cluster reach their servers directly")]
    NoLinks,
    #[error("{what}: {error}")]
    Network { what: String, error: std::io::Error },
    #[error("node {node} is not ready after {seconds} s; it said:\n{said}")]
    NotReady { node: u16, seconds: u64, said: String },
    #[error("{0}")]
    Setup(String),
}

/// The test kit says what went wrong by panicking, as a failing test should; here it is an error like others.
pub async fn guarded<T>(work: impl Future<Output = T>) -> Result<T, LabError> {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    outcome.map_err(|panic| LabError::Server(words(&*panic)))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a server could not be handled").to_owned()
}
