//! One load for all who ask, on this node and on the others.
//!
//! On a node, who asks for a key that is being loaded waits for that load. Among nodes, the load holds a *lease* in
//! the key itself (Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013): a token that `begin` puts where the
//! value will be, or into the value that is stale. Who finds another's token waits for what comes of it, told by the
//! bus or by asking again. When the load ends its value is kept only if its token is still there; and whoever writes
//! or deletes the key takes the token away with it, so an old value never replaces a newer one, on whatever node
//! either was made. A lease runs out when its node dies, and is renewed while its loader runs.

use crate::link::{Fault, Repeat};
use crate::local::{Flight, Look, Progress};
use crate::value::{self, Held, NOTHING, Reading};
use crate::{Inner, functions};
use bytes::Bytes;
use futures::FutureExt;
use holon_base::{ErrorKind, trace};
use holon_ports::CacheError;
use holon_ports::cache::{LoadPolicy, Loaded, Loader};
use redis::Value;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, atomic::Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How soon and how seldom a node asks again for what another loads; the bus usually tells it before.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// Loads of other nodes that came to nothing, after which a node loads by itself.
const PATIENCE: usize = 3;
/// Leases are renewed for so many of their lengths; a loader that takes longer has no right to keep anything.
const RENEWALS: u32 = 30;

/// What a node may do about a key.
enum Begun {
    Kept(Reading),
    /// There is a value to serve, and the right to load it anew.
    Stale(Reading),
    Leased,
    /// Another has the right to load.
    Held(String),
}

enum Start {
    Answer(Reading, u64),
    Load { leased: bool },
    Fail(CacheError),
}

impl Inner {
    pub(crate) async fn load(self: &Arc<Self>, key: &str, policy: LoadPolicy, loader: Loader) -> Loaded {
        let mut progress = match self.local.look(key) {
            Some(Look::Fresh(value)) => return Ok(value),
            Some(Look::Stale(value)) => {
                // Who asks meanwhile is served the stale value too, so nobody waits for this.
                let _ = self.join(key, policy, loader);
                return Ok(value);
            }
            None => match self.join(key, policy, loader) {
                Ok(progress) => progress,
                Err(Look::Fresh(value) | Look::Stale(value)) => return Ok(value),
            },
        };
        loop {
            let far = progress.borrow_and_update().clone();
            match far {
                Progress::Done(loaded) => return loaded,
                Progress::Stale(value, expires) if expires > Instant::now() => return Ok(Some(value)),
                _ => {}
            }
            if progress.changed().await.is_err() {
                return Err(CacheError::Unavailable("the load was cut off".into()));
            }
        }
    }

    /// The load of a key that is under way on this node, or a new one.
    fn join(
        self: &Arc<Self>,
        key: &str,
        policy: LoadPolicy,
        loader: Loader,
    ) -> Result<watch::Receiver<Progress>, Look> {
        self.local.flight(key, || {
            let (tell, progress) = watch::channel(Progress::Begun);
            let number = self.flights.fetch_add(1, Ordering::Relaxed);
            let flying = Flying {
                inner: Arc::clone(self),
                key: key.to_owned(),
                number,
                token: format!("{:016x}", rand::random::<u64>()),
            };
            let work = flying.fly(policy, loader, tell);
            match trace::current() {
                Some(traceparent) => tokio::spawn(trace::scope(traceparent, work)),
                None => tokio::spawn(work),
            };
            Flight { number, progress }
        })
    }

    async fn begin(&self, key: &str, token: &str) -> Result<Begun, Fault> {
        let redis_key = self.link.key(key);
        let mut command = functions::call("begin", &redis_key);
        command.arg(token).arg(value::milliseconds(self.lease));
        let asked = Instant::now();
        let answer = self.link.call(&redis_key, command, Repeat::Yes).await?;
        let unreadable = || Fault::Away("redis answered what it should not".into());
        let Value::Array(parts) = answer else {
            return Err(unreadable());
        };
        let mut parts = parts.into_iter();
        let what = parts.next();
        match what.as_ref().and_then(value::text) {
            Some("leased") => return Ok(Begun::Leased),
            Some("held") => {
                let holder = parts.next().as_ref().and_then(value::text).map(str::to_owned);
                return holder.map(Begun::Held).ok_or_else(unreadable);
            }
            _ => {}
        }
        let raw = parts.next().and_then(value::bytes).ok_or_else(unreadable)?;
        let left = parts
            .next()
            .as_ref()
            .and_then(value::integer)
            .ok_or_else(unreadable)?;
        match (
            what.as_ref().and_then(value::text),
            value::decode(raw, left, asked),
        ) {
            (Some("kept"), Held::Kept(reading)) => Ok(Begun::Kept(reading)),
            (Some("stale"), Held::Kept(reading)) => Ok(Begun::Stale(reading)),
            _ => Err(unreadable()),
        }
    }

    /// Ends a load; true if what was loaded is kept.
    async fn finish(
        &self,
        key: &str,
        token: &str,
        loaded: &Loaded,
        stale: Duration,
        life: Duration,
    ) -> Result<bool, Fault> {
        let redis_key = self.link.key(key);
        let mut command = functions::call("finish", &redis_key);
        command.arg(token);
        let life_ms = value::milliseconds(life);
        match loaded {
            Err(_) => command.arg("release"),
            Ok(_) if life_ms == 0 => command.arg("drop"),
            Ok(None) => command.arg("keep").arg(life_ms).arg(NOTHING),
            Ok(Some(value)) if self.is_too_large(key, value) => command.arg("drop"),
            Ok(Some(value)) => command
                .arg("keep")
                .arg(life_ms)
                .arg(value::encode(value, stale).as_ref()),
        };
        let answer = self.link.call(&redis_key, command, Repeat::Yes).await?;
        Ok(value::integer(&answer) == Some(1))
    }
}

/// A load of this node, from asking Redis to its end.
struct Flying {
    inner: Arc<Inner>,
    key: String,
    number: u64,
    token: String,
}

impl Flying {
    async fn fly(self, policy: LoadPolicy, loader: Loader, tell: watch::Sender<Progress>) {
        let leased = match self.start(&tell).await {
            Start::Answer(reading, changes) => {
                let value = reading.value.clone();
                self.inner.local.fill(&self.key, changes, reading);
                self.land(None);
                tell.send_replace(Progress::Done(Ok(value)));
                return;
            }
            Start::Fail(error) => {
                self.land(None);
                tell.send_replace(Progress::Done(Err(error)));
                return;
            }
            Start::Load { leased } => leased,
        };
        self.inner.loads.fetch_add(1, Ordering::Relaxed);
        let renewing = leased.then(|| self.renew());
        // A loader that panics must not leave those who wait for it waiting.
        let loaded = AssertUnwindSafe(async { loader().await }).catch_unwind().await;
        drop(renewing);
        let loaded = loaded.unwrap_or_else(|_| {
            Err(CacheError::Load {
                kind: ErrorKind::Internal,
                message: "the loader panicked".into(),
            })
        });
        let (fresh, stale) = match &loaded {
            Ok(Some(_)) => (jittered(policy), policy.stale),
            _ => (policy.negative, Duration::ZERO),
        };
        let before = Instant::now();
        // Also without a lease: one may have been granted in an answer that did not arrive.
        let finished = self
            .inner
            .finish(&self.key, &self.token, &loaded, stale, fresh + stale)
            .await;
        let is_outdated = leased && finished == Ok(false);
        let reading = match &loaded {
            Ok(value) if !is_outdated && fresh + stale > Duration::ZERO => Some(Reading {
                value: value.clone(),
                fresh_until: before + capped(fresh),
                expires: before + capped(fresh + stale),
            }),
            _ => None,
        };
        self.land(reading);
        tell.send_replace(Progress::Done(loaded));
        if leased {
            self.inner.told.loaded(&self.key);
        }
    }

    /// Finds out whether there is something to load, and waits while another node loads it.
    async fn start(&self, tell: &watch::Sender<Progress>) -> Start {
        let mut holders: Vec<String> = Vec::new();
        let mut pause = ASK_AGAIN.0;
        loop {
            let changed = self.inner.local.changed(&self.key).notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let changes = self.inner.local.changes(&self.key);
            match self.inner.begin(&self.key, &self.token).await {
                Ok(Begun::Leased) => return Start::Load { leased: true },
                Ok(Begun::Kept(reading)) => return Start::Answer(reading, changes),
                Ok(Begun::Stale(reading)) => {
                    if let Some(value) = reading.value.clone() {
                        let expires = reading.expires;
                        self.inner.local.fill(&self.key, changes, reading);
                        tell.send_replace(Progress::Stale(value, expires));
                    }
                    return Start::Load { leased: true };
                }
                Ok(Begun::Held(holder)) => {
                    if !holders.contains(&holder) {
                        holders.push(holder);
                    }
                    if holders.len() > PATIENCE {
                        return Start::Load { leased: false };
                    }
                }
                Err(Fault::WrongShape) => return Start::Fail(Fault::WrongShape.of(&self.key)),
                // Redis is away: the truth is still there.
                Err(Fault::Away(_)) => return Start::Load { leased: false },
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(ASK_AGAIN.1);
        }
    }

    /// Renews the lease until the answer is dropped.
    fn renew(&self) -> Renewing {
        let inner = Arc::clone(&self.inner);
        let key = inner.link.key(&self.key);
        let token = self.token.clone();
        let task = tokio::spawn(async move {
            let every = inner.lease / 3;
            for _ in 0..RENEWALS * 3 {
                tokio::time::sleep(every).await;
                let mut command = functions::call("renew", &key);
                command.arg(&token).arg(value::milliseconds(inner.lease));
                let renewed = inner.link.call(&key, command, Repeat::Yes).await;
                if renewed.is_ok_and(|answer| value::integer(&answer) != Some(1)) {
                    return;
                }
            }
        });
        Renewing(task.abort_handle())
    }

    fn land(&self, reading: Option<Reading>) {
        self.inner.local.land(&self.key, self.number, reading);
    }
}

impl Drop for Flying {
    /// Also when its task is cut off.
    fn drop(&mut self) {
        self.land(None);
    }
}

struct Renewing(tokio::task::AbortHandle);

impl Drop for Renewing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn jittered(policy: LoadPolicy) -> Duration {
    let jitter = f64::from(policy.jitter.clamp(0.0, 0.5));
    policy.fresh.mul_f64(1.0 - jitter * rand::random::<f64>())
}

fn capped(time: Duration) -> Duration {
    Duration::from_millis(value::milliseconds(time))
}

/// What a plain read found.
pub(crate) enum Found {
    Nothing,
    Kept(Reading),
}

/// Reads the answer of the function `get`.
pub(crate) fn found(answer: Value, asked: Instant) -> Result<Found, Fault> {
    let unreadable = || Fault::Away("redis answered what it should not".into());
    let Value::Array(parts) = answer else {
        return Err(unreadable());
    };
    let mut parts = parts.into_iter();
    let Some(raw) = parts.next().and_then(value::bytes) else {
        return Ok(Found::Nothing);
    };
    let left = parts.next().as_ref().and_then(value::integer);
    match value::decode(raw, left.ok_or_else(unreadable)?, asked) {
        Held::Kept(reading) => Ok(Found::Kept(reading)),
        Held::Loading => Ok(Found::Nothing),
        Held::OtherShape => Err(Fault::WrongShape),
        Held::Unreadable => Err(unreadable()),
    }
}

/// A value that is fresh to its end, from now on.
pub(crate) fn written(value: Bytes, ttl: Duration) -> Reading {
    let expires = Instant::now() + capped(ttl);
    Reading {
        value: Some(value),
        fresh_until: expires,
        expires,
    }
}
