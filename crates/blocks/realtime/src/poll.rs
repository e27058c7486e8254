//! Long polling: an answer that waits until there is one.

use crate::{
    End,
    hub::{Hub, Transport},
};
use holon_web::{ApiError, AuthError, Caller};
use std::{future::Future, sync::Arc, time::Duration};

impl Hub {
    /// Asks `load` for what is new; if that is nothing, waits until the room is told something and asks again, for at
    /// most `wait`. `None` when time is up or the node drains: the client simply asks again.
    ///
    /// What is told in the room only wakes the caller; the answer always comes from `load`, so nothing is missed or
    /// seen twice however requests and messages cross.
    ///
    /// # Errors
    /// Those of `load` and of [`Hub::join`]; 401 if the caller's session ends while waiting.
    pub async fn long_poll<T, F>(
        self: &Arc<Self>,
        room: &str,
        caller: Option<&Caller>,
        wait: Duration,
        load: impl Fn() -> F + Send + Sync,
    ) -> Result<Option<T>, ApiError>
    where
        F: Future<Output = Result<Option<T>, ApiError>> + Send,
    {
        if wait.is_zero() {
            return load().await;
        }
        let deadline = tokio::time::Instant::now() + wait;
        let mut listener = self.join(room, Transport::LongPoll, caller)?;
        if tokio::time::timeout_at(deadline, self.ready()).await.is_err() {
            return load().await;
        }
        loop {
            if let Some(found) = load().await? {
                return Ok(Some(found));
            }
            match tokio::time::timeout_at(deadline, listener.next()).await {
                Ok(Ok(_)) => while listener.try_next().is_some() {},
                // It has fallen behind, which does not matter here: one more look at the rows finds everything.
                Ok(Err(End::Slow | End::Resync)) => return load().await,
                Ok(Err(End::SignedOut)) => return Err(AuthError::Invalid.into()),
                Ok(Err(End::Draining)) | Err(_) => return Ok(None),
            }
        }
    }
}
