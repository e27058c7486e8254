//! The trace that the current task belongs to, as a W3C `traceparent`.
//!
//! The edge sets it for a request; a commit writes it into its events; a consumer sets it again while it handles
//! them. So one trace follows a request across the log, whichever engine carries it.

use std::{future::Future, sync::Arc};

tokio::task_local! {
    static CURRENT: Arc<str>;
}

/// Runs a future as part of a trace. `traceparent` is passed on as it is.
pub async fn scope<F: Future>(traceparent: impl Into<Arc<str>>, future: F) -> F::Output {
    CURRENT.scope(traceparent.into(), future).await
}

/// The `traceparent` of the running task, if it has one.
pub fn current() -> Option<Arc<str>> {
    CURRENT.try_with(Arc::clone).ok()
}
