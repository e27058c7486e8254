//! The housekeeper: a thread that sweeps expired rows, drops old events and writes committed offsets, a bounded
//! amount in each round.

use crate::{
    committer::Message,
    encoding,
    files::read_error,
    log::retention,
    shared::{Shared, closed},
};
use holon_ports::StoreError;
use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering, mpsc},
};
use tokio::sync::oneshot;

/// The most rows that one round sweeps.
const SWEEP_AT_ONCE: usize = 2_000;

/// What a round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Round {
    /// Expired rows that were removed.
    pub rows_swept: u64,
    /// Events that were dropped.
    pub events_dropped: u64,
}

pub(crate) enum Chore {
    /// A round now; the answer comes when it is done.
    Now(oneshot::Sender<Result<Round, StoreError>>),
    Stop,
}

pub(crate) struct Housekeeper {
    pub shared: Arc<Shared>,
    pub chores: mpsc::Receiver<Chore>,
}

impl Housekeeper {
    pub fn run(self) {
        while self.wait().is_continue() {}
    }

    fn wait(&self) -> ControlFlow<()> {
        match self.chores.recv_timeout(self.shared.options.housekeeping) {
            Ok(Chore::Now(answer)) => {
                drop(answer.send(self.round()));
                ControlFlow::Continue(())
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.shared.counters.sample();
                if let Err(error) = self.round()
                    && self.shared.failure().is_none()
                {
                    tracing::warn!(%error, "housekeeping failed, will try again");
                }
                ControlFlow::Continue(())
            }
            Ok(Chore::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => ControlFlow::Break(()),
        }
    }

    fn round(&self) -> Result<Round, StoreError> {
        self.shared.admit()?;
        let round = Round {
            rows_swept: self.sweep()?,
            events_dropped: retention::run(&self.shared)?,
        };
        if !self.shared.offsets.lock().is_empty() {
            // The offsets travel with this write, which itself is empty.
            self.shared.send_blocking(Message::Raw {
                writes: Vec::new(),
                durable: false,
                answer: None,
            })?;
        }
        Ok(round)
    }

    fn sweep(&self) -> Result<u64, StoreError> {
        let from = self.shared.sweep_from.load(Ordering::Acquire);
        let now = self.shared.clock.now().millis();
        if from > now {
            return Ok(0);
        }
        // Starting where the last round ended spares a walk over what was removed before.
        let bound = |ms: i64| encoding::expiry_key(holon_base::Timestamp::from_millis(ms), &[]);
        let mut entries = Vec::new();
        let mut next = now.saturating_add(1);
        {
            let files = self.shared.files()?;
            for guard in files.expiry.range(bound(from)..) {
                let key = guard.key().map_err(|error| read_error(&error))?;
                let (expires, _) = encoding::split_expiry_key(&key)
                    .map_err(|damaged| StoreError::Corrupt(damaged.to_string()))?;
                if expires.millis() > now || entries.len() == SWEEP_AT_ONCE {
                    next = expires.millis();
                    break;
                }
                entries.push(key);
            }
        }
        let swept = if entries.is_empty() {
            0
        } else {
            let (answer, answered) = oneshot::channel();
            self.shared.send_blocking(Message::Sweep { entries, answer })?;
            answered.blocking_recv().map_err(|_| closed())??
        };
        // Whoever put in an earlier expiry meanwhile has set it lower, and wins.
        let _ = self
            .shared
            .sweep_from
            .compare_exchange(from, next, Ordering::AcqRel, Ordering::Acquire);
        self.shared.counters.swept.fetch_add(swept, Ordering::Relaxed);
        Ok(swept)
    }
}
