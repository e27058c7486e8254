//! The suite of [`Leases`].

use super::drive::{Time, for_all, soon};
use crate::{Fence, Lease, LeaseError, Leases};
use futures::future::join_all;
use proptest::prelude::*;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Runs the whole suite. Each test and each random case uses names of its own, so the leases may be shared.
pub fn run<F>(runtime: &Runtime, make: impl Fn() -> F)
where
    F: Future<Output = (Arc<dyn Leases>, Time)>,
{
    let (leases, time) = runtime.block_on(make());
    let cases = AtomicU64::new(0);
    let subject = || Subject {
        leases: Arc::clone(&leases),
        time: time.clone(),
        prefix: format!(
            "suite-{:016x}-{}",
            rand::random::<u64>(),
            cases.fetch_add(1, Ordering::Relaxed)
        ),
    };
    let commands = prop::collection::vec(command(), 1..50);
    for_all(if time.is_exact() { 96 } else { 4 }, commands, |commands| {
        runtime.block_on(any_commands_answer_as_the_model_does(subject(), commands));
    });
    runtime.block_on(one_of_many_gets_it(subject()));
    runtime.block_on(no_two_ever_hold_it(subject()));
    runtime.block_on(what_makes_no_sense_is_refused(subject()));
}

/// Leases and names that no other test has.
struct Subject {
    leases: Arc<dyn Leases>,
    time: Time,
    prefix: String,
}

#[derive(Debug, Clone)]
enum Command {
    Acquire {
        name: u8,
        holder: u8,
        life: u32,
    },
    /// Of the last lease that the holder was given under the name.
    Renew {
        name: u8,
        holder: u8,
        life: u32,
    },
    Release {
        name: u8,
        holder: u8,
    },
    Current {
        name: u8,
    },
    Pass {
        units: u32,
    },
}

fn command() -> impl Strategy<Value = Command> {
    let (name, holder, life) = (0_u8..2, 0_u8..3, 0_u32..5);
    prop_oneof![
        4 => (name.clone(), holder.clone(), life.clone())
            .prop_map(|(name, holder, life)| Command::Acquire { name, holder, life }),
        3 => (name.clone(), holder.clone(), life)
            .prop_map(|(name, holder, life)| Command::Renew { name, holder, life }),
        2 => (name.clone(), holder).prop_map(|(name, holder)| Command::Release { name, holder }),
        2 => name.prop_map(|name| Command::Current { name }),
        3 => (1_u32..4).prop_map(|units| Command::Pass { units }),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holding {
    holder: u8,
    fence: Fence,
    /// In half units since the start.
    until: u32,
}

/// One name in the model.
#[derive(Default)]
struct Named {
    holding: Option<Holding>,
    last_fence: Option<Fence>,
    given: HashMap<u8, Lease>,
}

async fn any_commands_answer_as_the_model_does(subject: Subject, commands: Vec<Command>) {
    let Subject { leases, time, prefix } = subject;
    let name_of = |name: u8| format!("{prefix}-{name}");
    let holder_of = |holder: u8| format!("node-{holder}");
    let mut now = 0_u32;
    let mut model: HashMap<u8, Named> = HashMap::new();
    for command in commands {
        for named in model.values_mut() {
            named.holding = named.holding.filter(|holding| holding.until > now);
        }
        match command {
            Command::Acquire { name, holder, life } => {
                let ttl = time.units_and_half(life);
                let answer = leases.acquire(&name_of(name), &holder_of(holder), ttl).await;
                let named = model.entry(name).or_default();
                match named.holding {
                    Some(holding) if holding.holder != holder => {
                        let Err(LeaseError::Held { holder, .. }) = answer else {
                            panic!("held by {holding:?}, and yet {answer:?}");
                        };
                        assert_eq!(holder, holder_of(holding.holder));
                        continue;
                    }
                    held => {
                        let lease = answer.unwrap();
                        match held {
                            Some(holding) => assert_eq!(lease.fence, holding.fence),
                            None => assert!(Some(lease.fence) > named.last_fence, "{lease:?}"),
                        }
                        check(&lease, &name_of(name), &holder_of(holder), &time, ttl);
                        named.last_fence = Some(lease.fence);
                        named.holding = Some(Holding {
                            holder,
                            fence: lease.fence,
                            until: now + life * 2 + 1,
                        });
                        named.given.insert(holder, lease);
                    }
                }
            }
            Command::Renew { name, holder, life } => {
                let named = model.entry(name).or_default();
                let Some(lease) = named.given.get(&holder) else {
                    continue;
                };
                let ttl = time.units_and_half(life);
                let answer = leases.renew(lease, ttl).await;
                let is_held = named.holding.is_some_and(|holding| holding.fence == lease.fence);
                if !is_held {
                    assert_eq!(answer, Err(LeaseError::Lost));
                    continue;
                }
                let renewed = answer.unwrap();
                assert_eq!(renewed.fence, lease.fence);
                check(&renewed, &name_of(name), &holder_of(holder), &time, ttl);
                named.holding = Some(Holding {
                    holder,
                    fence: renewed.fence,
                    until: now + life * 2 + 1,
                });
                named.given.insert(holder, renewed);
            }
            Command::Release { name, holder } => {
                let named = model.entry(name).or_default();
                let Some(lease) = named.given.get(&holder) else {
                    continue;
                };
                leases.release(lease).await.unwrap();
                named.holding = named.holding.filter(|holding| holding.fence != lease.fence);
            }
            Command::Current { name } => {
                let answer = leases.current(&name_of(name)).await.unwrap();
                let holding = model.get(&name).and_then(|named| named.holding);
                assert_eq!(
                    answer.map(|lease| (lease.holder, lease.fence)),
                    holding.map(|holding| (holder_of(holding.holder), holding.fence))
                );
            }
            Command::Pass { units } => {
                time.pass(time.units(units)).await;
                now += units * 2;
            }
        }
    }
}

fn check(lease: &Lease, name: &str, holder: &str, time: &Time, ttl: Duration) {
    assert_eq!((lease.name.as_str(), lease.holder.as_str()), (name, holder));
    if time.is_exact() {
        assert_eq!(lease.expires, time.now().plus(ttl));
    }
}

async fn one_of_many_gets_it(Subject { leases, time, prefix }: Subject) {
    let life = time.units(1_000);
    let rivals = (0..32).map(|rival| {
        let (leases, name) = (Arc::clone(&leases), prefix.clone());
        tokio::spawn(async move { leases.acquire(&name, &format!("node-{rival}"), life).await })
    });
    let answers = soon("all answers", join_all(rivals)).await;
    let mut given = 0;
    for answer in answers {
        match answer.unwrap() {
            Ok(_) => given += 1,
            Err(LeaseError::Held { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(given, 1);
}

async fn no_two_ever_hold_it(Subject { leases, time, prefix }: Subject) {
    let life = time.units(1_000);
    let is_held = Arc::new(AtomicBool::new(false));
    let fences = Arc::new(Mutex::new(Vec::new()));
    let rivals = (0..8).map(|rival| {
        let (leases, name) = (Arc::clone(&leases), prefix.clone());
        let (is_held, fences) = (Arc::clone(&is_held), Arc::clone(&fences));
        tokio::spawn(async move {
            let mut turns = 0;
            while turns < 5 {
                let lease = match leases.acquire(&name, &format!("node-{rival}"), life).await {
                    Ok(lease) => lease,
                    Err(LeaseError::Held { .. }) => {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                assert!(!is_held.swap(true, Ordering::SeqCst), "two hold it");
                fences.lock().unwrap().push(lease.fence);
                tokio::task::yield_now().await;
                is_held.store(false, Ordering::SeqCst);
                leases.release(&lease).await.unwrap();
                turns += 1;
            }
        })
    });
    for rival in soon("all turns", join_all(rivals)).await {
        rival.unwrap();
    }
    let fences = fences.lock().unwrap();
    assert_eq!(fences.len(), 40);
    assert!(fences.is_sorted_by(|a, b| a < b), "{fences:?}");
}

async fn what_makes_no_sense_is_refused(Subject { leases, time, prefix }: Subject) {
    let life = time.units(1);
    for (name, holder, life) in [
        ("", "a", life),
        (&prefix, "", life),
        (&prefix, "a", Duration::ZERO),
    ] {
        let answer = leases.acquire(name, holder, life).await;
        assert!(
            matches!(answer, Err(LeaseError::Invalid(_))),
            "{name:?} {holder:?}"
        );
    }
    assert_eq!(leases.current(&prefix).await, Ok(None));
}
