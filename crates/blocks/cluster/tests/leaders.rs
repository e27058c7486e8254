//! Leaders under pauses: the clock jumps, as it does for a process that is stopped and continues.
#![allow(clippy::unwrap_used, reason = "a failing test should fail")]

use async_trait::async_trait;
use holon_base::{Tenant, Timestamp};
use holon_cluster::{
    fence::{Claim, FENCES, FenceError},
    leader::{Candidate, Lapsed, Leader, hold},
};
use holon_ports::{
    Batch, Condition, Consistency, Fence, Lease, LeaseError, Leases, Partition, RowKey, StoreError, Table,
};
use holon_testkit::TestHome;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::{Instant, advance, sleep};

const TTL: Duration = Duration::from_secs(6);

/// Leases by the clock of the test, which jumps.
#[derive(Default)]
struct TestLeases {
    rows: Mutex<HashMap<String, (Lease, Instant)>>,
    is_away: Mutex<bool>,
}

impl TestLeases {
    fn check(&self) -> Result<(), LeaseError> {
        match *self.is_away.lock() {
            true => Err(LeaseError::Unavailable("away".into())),
            false => Ok(()),
        }
    }

    fn holder(&self, name: &str) -> Option<String> {
        let rows = self.rows.lock();
        let (lease, end) = rows.get(name)?;
        (Instant::now() < *end).then(|| lease.holder.clone())
    }
}

#[async_trait]
impl Leases for TestLeases {
    async fn acquire(&self, name: &str, holder: &str, ttl: Duration) -> Result<Lease, LeaseError> {
        self.check()?;
        let mut rows = self.rows.lock();
        let now = Instant::now();
        let fence = match rows.get(name) {
            Some((lease, end)) if now < *end && lease.holder != holder => {
                return Err(LeaseError::Held {
                    holder: lease.holder.clone(),
                    expires: lease.expires,
                });
            }
            Some((lease, end)) if now < *end => lease.fence,
            Some((lease, _)) => Fence(lease.fence.0 + 1),
            None => Fence(1),
        };
        let lease = Lease {
            name: name.into(),
            holder: holder.into(),
            fence,
            expires: Timestamp::EPOCH,
        };
        rows.insert(name.into(), (lease.clone(), now + ttl));
        Ok(lease)
    }

    async fn renew(&self, held: &Lease, ttl: Duration) -> Result<Lease, LeaseError> {
        self.check()?;
        let mut rows = self.rows.lock();
        match rows.get_mut(&held.name) {
            Some((lease, end)) if lease.fence == held.fence && Instant::now() < *end => {
                *end = Instant::now() + ttl;
                Ok(lease.clone())
            }
            _ => Err(LeaseError::Lost),
        }
    }

    async fn release(&self, held: &Lease) -> Result<(), LeaseError> {
        let mut rows = self.rows.lock();
        if let Some((lease, end)) = rows.get_mut(&held.name)
            && lease.fence == held.fence
        {
            *end = Instant::now();
        }
        Ok(())
    }

    async fn current(&self, name: &str) -> Result<Option<Lease>, LeaseError> {
        self.check()?;
        let rows = self.rows.lock();
        let held = rows.get(name).filter(|(_, end)| Instant::now() < *end);
        Ok(held.map(|(lease, _)| lease.clone()))
    }
}

fn leases() -> (Arc<TestLeases>, Arc<dyn Leases>) {
    let leases = Arc::<TestLeases>::default();
    (Arc::clone(&leases), leases)
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_next_follows_when_it_resigns_or_dies() {
    let (_, leases) = leases();
    let a = Candidate::start(Arc::clone(&leases), "maps", "a", TTL);
    let first = a.elected().await;
    let b = Candidate::start(Arc::clone(&leases), "maps", "b", TTL);
    let seen = b.leader_changed(None).await.unwrap();
    assert_eq!((seen.holder.as_str(), seen.fence), ("a", first.check().unwrap()));

    // It stays as it is for as long as nothing happens.
    sleep(TTL * 20).await;
    assert_eq!(first.check(), Ok(Fence(1)));
    assert!(b.leading().is_none());

    let began = Instant::now();
    a.resign().await;
    assert_eq!(first.check(), Err(Lapsed));
    let second = b.elected().await;
    assert_eq!(second.check(), Ok(Fence(2)));
    assert!(began.elapsed() <= TTL / 3, "{:?}", began.elapsed());

    // Dies without a word.
    let c = Candidate::start(leases, "maps", "c", TTL);
    c.leader_changed(None).await.unwrap();
    let began = Instant::now();
    drop(b);
    let third = c.elected().await;
    assert_eq!(third.check(), Ok(Fence(3)));
    assert!(began.elapsed() <= TTL + TTL / 3, "{:?}", began.elapsed());
    assert_eq!(
        c.leader(),
        Some(Leader {
            holder: "c".into(),
            fence: Fence(3)
        })
    );
}

#[tokio::test(start_paused = true)]
async fn who_was_stopped_does_not_act_on_what_it_knew() {
    let (rows, leases) = leases();
    let a = Candidate::start(Arc::clone(&leases), "maps", "a", TTL);
    let term = a.elected().await;
    // Acts all the time, and must have the lease each time.
    let acting = tokio::spawn({
        let (term, rows) = (term.clone(), Arc::clone(&rows));
        async move {
            let acts = async {
                loop {
                    assert_eq!(rows.holder("maps").as_deref(), Some("a"));
                    sleep(Duration::from_millis(10)).await;
                }
            };
            term.run(acts).await
        }
    });
    sleep(TTL * 2).await;
    assert!(!acting.is_finished());

    // Stopped for a little: it goes on.
    advance(TTL / 3).await;
    sleep(TTL).await;
    assert!(!acting.is_finished());
    assert_eq!(term.check(), Ok(Fence(1)));

    // Stopped for long; another takes over meanwhile.
    advance(TTL * 5).await;
    let stolen = rows.acquire("maps", "b", TTL).await;
    assert_eq!(term.check(), Err(Lapsed));
    assert!(
        a.leading()
            .is_none_or(|term| term.check().is_ok_and(|fence| fence > Fence(1)))
    );
    assert_eq!(acting.await.unwrap(), Err::<(), _>(Lapsed));
    // It may have been awake in time to ask before the other did; then it has a new term, and the other has nothing.
    match stolen {
        Ok(lease) => assert_eq!(lease.fence, Fence(2)),
        Err(_) => assert_eq!(a.elected().await.check(), Ok(Fence(2))),
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_from_the_database_steps_down_before_another_can_lead() {
    let (rows, leases) = leases();
    let a = Candidate::start(Arc::clone(&leases), "maps", "a", TTL);
    let term = a.elected().await;
    sleep(TTL).await;
    *rows.is_away.lock() = true;
    let began = Instant::now();
    let lapsed = term.run(std::future::pending::<()>()).await;
    assert_eq!(lapsed, Err(Lapsed));
    assert!(began.elapsed() <= TTL * 2 / 3, "{:?}", began.elapsed());
    // There is a third of the lease's time left, in which nobody leads.
    assert_eq!(rows.holder("maps").as_deref(), Some("a"));
    *rows.is_away.lock() = false;
    // The lease was still its own: it goes on with it, in another term.
    let again = a.elected().await;
    assert_eq!(again.check(), Ok(Fence(1)));
    assert_eq!(term.check(), Err(Lapsed));
}

#[tokio::test(start_paused = true)]
async fn one_thing_is_done_under_a_lease_or_dropped() {
    let (rows, leases) = leases();
    let work = async {
        sleep(TTL * 3).await;
        7
    };
    let (done, lease) = hold(&*leases, "once", "a", TTL, work).await.unwrap();
    assert_eq!((done, lease.fence), (7, Fence(1)));
    let refused = hold(&*leases, "once", "b", TTL, async {}).await;
    assert!(matches!(refused, Err(LeaseError::Held { .. })), "{refused:?}");

    *rows.is_away.lock() = false;
    let cut_off = async {
        *rows.is_away.lock() = true;
        sleep(TTL * 3).await;
    };
    let lost = hold(&*leases, "once", "a", TTL, cut_off).await;
    assert_eq!(lost.map(|_| ()), Err(LeaseError::Lost));
}

const TALLY: Table = Table("test.tally");

#[tokio::test]
async fn what_a_leader_of_before_still_writes_is_refused() {
    let home = TestHome::start().await;
    home.create(&[FENCES, TALLY], &[]).await;
    let ports = home.context().ports;
    let (store, leases) = (&*ports.store, &*ports.leases);
    let partition = Partition::new(&Tenant::default(), "tally");
    let total = async || {
        let key = RowKey::new(TALLY, partition.clone(), "total");
        let row = store.get(&key, Consistency::Strong).await.unwrap();
        row.map(|row| row.json::<u64>().unwrap())
    };
    let put = |total: u64| Batch::new().put(TALLY, "total", &total);

    let short = Duration::from_millis(20);
    let first = leases.acquire("tally", "a", short).await.unwrap();
    let a = Claim::of(store, partition.clone(), "tally", first.fence)
        .await
        .unwrap();
    a.commit(store, put(1)).await.unwrap();
    // Claimed again in the same term, it is the same claim.
    let again = Claim::of(store, partition.clone(), "tally", first.fence)
        .await
        .unwrap();
    again.commit(store, put(2)).await.unwrap();
    a.commit(store, put(3)).await.unwrap();

    // While it is away, another leads.
    let second = holon_testkit::eventually("the lease to be free", Duration::from_secs(60), || async {
        leases.acquire("tally", "b", Duration::from_secs(60)).await.ok()
    })
    .await;
    let b = Claim::of(store, partition.clone(), "tally", second.fence)
        .await
        .unwrap();
    let refused = a.commit(store, put(100)).await.unwrap_err();
    assert_eq!(
        refused,
        FenceError::Superseded {
            name: "tally".into(),
            own: first.fence.0,
            by: second.fence.0
        }
    );
    let late = Claim::of(store, partition.clone(), "tally", first.fence).await;
    assert!(matches!(late, Err(FenceError::Superseded { .. })), "{late:?}");
    assert_eq!(total().await, Some(3));
    b.commit(store, put(4)).await.unwrap();
    assert_eq!(total().await, Some(4));

    // A condition of the batch's own is told by its own number.
    let wrong = put(5).op(holon_ports::Op::Check {
        table: TALLY,
        sort: "other".into(),
        condition: Condition::Present,
    });
    let failed = b.commit(store, wrong).await.unwrap_err();
    assert_eq!(failed, FenceError::Store(StoreError::ConditionFailed { op: 1 }));
}
