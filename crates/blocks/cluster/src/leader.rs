//! Leaders: at most one node at a time does a thing, by a lease.
//!
//! A [`Candidate`] asks for a lease again and again; whoever has it leads, for a [`Term`]. A lease is the database's word,
//! counted by its clock from when it was asked; a term is over well before, by this process's monotonic clock counted from
//! *before* it asked, at two thirds of the lease's time. So whatever the network does, and however far apart the wall
//! clocks are, a term ends before another can begin, as long as both clocks run at the same speed to within a third.
//!
//! A process that is stopped and continues (SIGSTOP, a machine without a processor for it) does not know that time passed.
//! So nothing acts on what it knew before: [`Term::check`] looks at the clock each time, and [`Term::run`] looks each time
//! before its work goes on, however it was woken. A term that was once over does not come back, even if the lease can still
//! be renewed; then there is a new term.
//!
//! What is left is the instant between the look at the clock and the act, and a virtual machine that is suspended as a
//! whole, whose monotonic clock stands still as well. For those there is the fence (Kleppmann, "How to do distributed
//! locking", 2016): it grows each time the lease changes hands, and [`crate::fence`] puts it into commits.

use holon_ports::{Fence, Lease, LeaseError, Leases};
use parking_lot::Mutex;
use std::{future::Future, pin::pin, sync::Arc, task::Poll, time::Duration};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

/// How often a lease is renewed, and asked for by others, in its time.
const STEPS: u32 = 6;

/// The term is over: another may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node does not lead any more")]
pub struct Lapsed;

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    pub holder: String,
    pub fence: Fence,
}

/// A time during which this process leads. Clones are of the same term.
#[derive(Debug, Clone)]
pub struct Term {
    fence: Fence,
    /// `None` once it is over.
    until: Arc<Mutex<Option<Instant>>>,
}

impl Term {
    fn begin(lease: &Lease, asked: Instant, ttl: Duration) -> Self {
        Self {
            fence: lease.fence,
            until: Arc::new(Mutex::new(Some(asked + safe(ttl)))),
        }
    }

    /// True if it was still on, and now goes on for longer.
    fn prolong(&self, asked: Instant, ttl: Duration) -> bool {
        let mut until = self.until.lock();
        match *until {
            Some(end) if Instant::now() < end => {
                *until = Some(asked + safe(ttl));
                true
            }
            _ => {
                *until = None;
                false
            }
        }
    }

    fn end(&self) {
        *self.until.lock() = None;
    }

    fn until(&self) -> Option<Instant> {
        *self.until.lock()
    }

    /// The fence to act under, now. To be asked before each act.
    ///
    /// # Errors
    /// [`Lapsed`] once the term is over, for good.
    pub fn check(&self) -> Result<Fence, Lapsed> {
        let mut until = self.until.lock();
        match *until {
            Some(end) if Instant::now() < end => Ok(self.fence),
            _ => {
                *until = None;
                Err(Lapsed)
            }
        }
    }

    /// Does work for as long as the term lasts, and drops it where it is when the term is over.
    ///
    /// # Errors
    /// [`Lapsed`] if the work was not finished.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Lapsed> {
        let mut work = pin!(work);
        loop {
            let Some(until) = self.until() else {
                return Err(Lapsed);
            };
            let mut end = pin!(sleep_until(until));
            let step = std::future::poll_fn(|context| {
                // Whatever woke it, and before the work sees it.
                if self.check().is_err() {
                    return Poll::Ready(Some(Err(Lapsed)));
                }
                if let Poll::Ready(done) = work.as_mut().poll(context) {
                    return Poll::Ready(Some(Ok(done)));
                }
                end.as_mut().poll(context).map(|()| None)
            });
            // It may have been prolonged meanwhile.
            if let Some(done) = step.await {
                return done;
            }
        }
    }
}

/// How long a holder may count on a lease.
fn safe(ttl: Duration) -> Duration {
    ttl * 2 / 3
}

#[derive(Debug, Clone, Default)]
struct State {
    term: Option<Term>,
    leader: Option<Leader>,
}

/// Somebody who would lead, until it is dropped.
pub struct Candidate {
    states: watch::Receiver<State>,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Candidate {
    /// Stands for election under a name. A leader that dies is followed within `ttl` and a sixth of it, one that resigns
    /// within a sixth.
    pub fn start(
        leases: Arc<dyn Leases>,
        name: impl Into<String>,
        holder: impl Into<String>,
        ttl: Duration,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (changed, states) = watch::channel(State::default());
        let campaign = Campaign {
            leases,
            name: name.into(),
            holder: holder.into(),
            ttl,
            changed,
        };
        let task = tokio::spawn(campaign.run(stopped));
        Self {
            states,
            stop,
            task: Mutex::new(Some(task)),
        }
    }

    /// The present term, if this process leads now.
    pub fn leading(&self) -> Option<Term> {
        let term = self.states.borrow().term.clone()?;
        term.check().is_ok().then_some(term)
    }

    /// Waits until this process leads.
    pub async fn elected(&self) -> Term {
        let mut states = self.states.clone();
        loop {
            if let Some(term) = self.leading() {
                return term;
            }
            if states.changed().await.is_err() {
                // It stands no more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Who leads, as far as is known: this process or another.
    pub fn leader(&self) -> Option<Leader> {
        self.states.borrow().leader.clone()
    }

    /// Returns when somebody else leads than this said; then it is asked who.
    pub async fn leader_changed(&self, from: Option<&Leader>) -> Option<Leader> {
        let mut states = self.states.clone();
        let state = states.wait_for(|state| state.leader.as_ref() != from).await;
        match state {
            Ok(state) => state.leader.clone(),
            Err(_) => None,
        }
    }

    /// Stands no more, and gives the lease back, so that another need not wait for its end.
    pub async fn resign(&self) {
        self.stop.send_replace(true);
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if let Some(term) = &self.states.borrow().term {
            term.end();
        }
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

struct Campaign {
    leases: Arc<dyn Leases>,
    name: String,
    holder: String,
    ttl: Duration,
    changed: watch::Sender<State>,
}

impl Campaign {
    async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut held: Option<Lease> = None;
        loop {
            held = self.step(held).await;
            let stopped = tokio::time::timeout(self.ttl / STEPS, stop.wait_for(|stop| *stop));
            if stopped.await.is_ok() {
                break;
            }
        }
        let term = self.changed.borrow().term.clone();
        if let Some(term) = term {
            term.end();
        }
        self.say(None, None);
        if let Some(lease) = held
            && let Err(error) = self.leases.release(&lease).await
        {
            tracing::warn!(name = self.name, %error, "cannot give a lease back");
        }
    }

    /// Renews the lease, or asks for it. Answers the lease as it is held now.
    async fn step(&self, held: Option<Lease>) -> Option<Lease> {
        let asked = Instant::now();
        let answer = match &held {
            Some(lease) => self.in_time(self.leases.renew(lease, self.ttl)).await,
            None => self.ask().await,
        };
        match answer {
            Ok(lease) => {
                self.lead(&lease, asked);
                Some(lease)
            }
            Err(LeaseError::Held { .. } | LeaseError::Lost) => {
                let term = self.changed.borrow().term.clone();
                if let Some(term) = term {
                    term.end();
                }
                match self.in_time(self.leases.current(&self.name)).await {
                    Ok(current) => self.say(None, current.as_ref()),
                    Err(_) => self.say(None, None),
                }
                None
            }
            Err(error) => {
                tracing::warn!(name = self.name, %error, "cannot ask for a lease");
                // Whoever leads may still lead, this process too, until its term is over.
                held
            }
        }
    }

    /// Asks for the lease if nobody has it; only to look is cheaper, and leaves no trace.
    async fn ask(&self) -> Result<Lease, LeaseError> {
        match self.in_time(self.leases.current(&self.name)).await? {
            Some(lease) if lease.holder != self.holder => Err(LeaseError::Held {
                holder: lease.holder,
                expires: lease.expires,
            }),
            _ => {
                let acquiring = self.leases.acquire(&self.name, &self.holder, self.ttl);
                self.in_time(acquiring).await
            }
        }
    }

    /// A database that does not answer must not keep this from asking again.
    async fn in_time<T>(&self, asking: impl Future<Output = Result<T, LeaseError>>) -> Result<T, LeaseError> {
        tokio::time::timeout(self.ttl / 3, asking)
            .await
            .unwrap_or_else(|_| Err(LeaseError::Unavailable("no answer in time".into())))
    }

    fn lead(&self, lease: &Lease, asked: Instant) {
        let present = self.changed.borrow().term.clone();
        let term = match present {
            Some(term) if term.fence == lease.fence && term.prolong(asked, self.ttl) => term,
            _ => Term::begin(lease, asked, self.ttl),
        };
        self.say(Some(term), Some(lease));
    }

    fn say(&self, term: Option<Term>, lease: Option<&Lease>) {
        let leader = lease.map(|lease| Leader {
            holder: lease.holder.clone(),
            fence: lease.fence,
        });
        self.changed.send_if_modified(|state| {
            let same_term = match (&state.term, &term) {
                (Some(before), Some(now)) => Arc::ptr_eq(&before.until, &now.until),
                (None, None) => true,
                _ => false,
            };
            let is_news = !same_term || state.leader != leader;
            *state = State { term, leader };
            is_news
        });
    }
}

/// Does one thing under a lease that is held for as long as it takes.
///
/// # Errors
/// [`LeaseError::Held`] when another has the lease; nothing was begun. [`LeaseError::Lost`] when the work was dropped on
/// the way, since another may have the lease.
pub async fn hold<T>(
    leases: &dyn Leases,
    name: &str,
    holder: &str,
    ttl: Duration,
    work: impl Future<Output = T>,
) -> Result<(T, Lease), LeaseError> {
    let asked = Instant::now();
    let lease = leases.acquire(name, holder, ttl).await?;
    let term = Term::begin(&lease, asked, ttl);
    let renewing = async {
        loop {
            sleep(ttl / STEPS).await;
            let asked = Instant::now();
            match leases.renew(&lease, ttl).await {
                Ok(_) => {
                    term.prolong(asked, ttl);
                }
                Err(LeaseError::Lost) => return,
                // The term ends by itself.
                Err(error) => tracing::warn!(name, %error, "cannot renew a lease"),
            }
        }
    };
    let done = tokio::select! {
        done = term.run(work) => done.map_err(|Lapsed| LeaseError::Lost)?,
        () = renewing => return Err(LeaseError::Lost),
    };
    Ok((done, lease))
}
