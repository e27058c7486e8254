//! The suite of [`Cache`].
//!
//! A cache may forget, so wherever the model has a value, "not there" is right as well, and the model forgets with
//! the engine. That a cache keeps anything at all is asked at the end: of what could be there, nearly all was.

mod buckets;
mod loads;
mod model;

use super::drive::{Time, for_all};
use crate::{Cache, CacheError};
use bytes::Bytes;
use futures::future::join_all;
use loads::some;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};
use tokio::runtime::Runtime;

/// Runs the whole suite. `make` makes a cache that is empty, or in which only other tests' keys are: each test and
/// each random case uses keys of its own.
pub fn run<F>(runtime: &Runtime, make: impl Fn() -> F)
where
    F: Future<Output = (Arc<dyn Cache>, Time)>,
{
    let suite = Suite {
        runtime,
        made: runtime.block_on(make()),
        cases: AtomicU64::new(0),
    };
    suite.any_commands_answer_as_a_map_does();
    suite.any_takes_answer_as_arithmetic_does();
    suite.test(loads::one_caller_loads_and_the_others_wait);
    suite.test(loads::a_load_goes_on_when_its_caller_goes_away);
    suite.test(loads::what_was_deleted_does_not_come_back);
    suite.test(loads::what_was_set_is_not_replaced_by_an_older_load);
    suite.test(loads::a_failed_load_is_told_to_all_and_not_kept);
    suite.test(loads::a_loader_that_panics_is_an_error);
    suite.test(loads::expiry_is_spread_within_its_bounds);
    suite.test(increments_at_once_all_count);
    suite.test(buckets::tokens_are_given_out_once);
    suite.test(a_key_has_one_shape);
    suite.test(what_makes_no_sense_is_refused);
}

struct Suite<'a> {
    runtime: &'a Runtime,
    made: (Arc<dyn Cache>, Time),
    cases: AtomicU64,
}

/// A cache and keys that no other test has.
#[derive(Clone)]
struct Subject {
    cache: Arc<dyn Cache>,
    time: Time,
    prefix: String,
}

impl Subject {
    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }
}

impl Suite<'_> {
    fn subject(&self) -> Subject {
        let (cache, time) = self.made.clone();
        let case = self.cases.fetch_add(1, Ordering::Relaxed);
        Subject {
            cache,
            time,
            prefix: format!("suite-{:016x}-{case}", rand::random::<u64>()),
        }
    }

    fn test<F: Future<Output = ()>>(&self, test: impl Fn(Subject) -> F) {
        self.runtime.block_on(test(self.subject()));
    }

    fn cases(&self, manual: u32) -> u32 {
        if self.made.1.is_exact() { manual } else { 4 }
    }

    fn any_commands_answer_as_a_map_does(&self) {
        let (could, was) = (AtomicUsize::new(0), AtomicUsize::new(0));
        for_all(
            self.cases(192),
            prop::collection::vec(model::command(), 1..60),
            |commands| {
                let mut model = model::Model::new(self.subject());
                self.runtime.block_on(async {
                    for command in commands {
                        model.run(command).await;
                    }
                });
                could.fetch_add(model.could_be_there, Ordering::Relaxed);
                was.fetch_add(model.was_there, Ordering::Relaxed);
            },
        );
        let (could, was) = (could.into_inner(), was.into_inner());
        assert!(
            was * 10 >= could * 9,
            "of {could} that could be there, {was} were"
        );
    }

    fn any_takes_answer_as_arithmetic_does(&self) {
        // Answers to the millisecond make sense only if time stands still while a test computes.
        if !self.made.1.is_exact() {
            return;
        }
        let step = (0_u64..5, 0_u64..4_000);
        let rates = prop::sample::select(vec![0.001, 0.5, 1.0, 3.0, 1_000.0 / 7.0, 5_000.0]);
        let inputs = (1_u64..8, rates, prop::collection::vec(step, 1..60));
        for_all(256, inputs, |(capacity, per_second, steps)| {
            self.runtime.block_on(buckets::takes_answer_as_arithmetic_does(
                self.subject(),
                capacity,
                per_second,
                steps,
            ));
        });
    }
}

async fn increments_at_once_all_count(Subject { cache, time, prefix }: Subject) {
    let life = time.units(100);
    let tasks = (0..20).map(|_| {
        let (cache, key) = (Arc::clone(&cache), prefix.clone());
        tokio::spawn(async move {
            let mut sums = Vec::new();
            for _ in 0..50 {
                sums.push(cache.incr(&key, 1, life).await.unwrap());
            }
            sums
        })
    });
    let sums: BTreeSet<i64> = join_all(tasks)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    assert_eq!(sums, (1..=1_000).collect());
}

async fn a_key_has_one_shape(subject: Subject) {
    let Subject { cache, time, .. } = &subject;
    let life = time.units(100);
    let key = subject.key("text");
    cache.set(&key, Bytes::from_static(b"text"), life).await.unwrap();
    let wrong = Err(CacheError::WrongShape(key.clone()));
    assert_eq!(cache.incr(&key, 1, life).await, wrong.clone());
    assert_eq!(
        cache.zadd(&key, "a", 1.0, 3, life).await,
        wrong.clone().map(|_: i64| ())
    );
    assert_eq!(cache.get(&key).await, some("text"));
    // Setting does not ask what was there.
    let key = subject.key("ranked");
    cache.zadd(&key, "a", 1.0, 3, life).await.unwrap();
    cache.set(&key, Bytes::from_static(b"text"), life).await.unwrap();
    assert_eq!(cache.get(&key).await, some("text"));
}

async fn what_makes_no_sense_is_refused(
    Subject {
        cache,
        time,
        prefix: key,
    }: Subject,
) {
    let life = time.units(1);
    for per_second in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(
            cache.take(&key, 1, 1, per_second).await,
            Err(CacheError::Invalid(_))
        ));
    }
    assert!(matches!(
        cache.take(&key, 2, 1, 1.0).await,
        Err(CacheError::Invalid(_))
    ));
    assert!(matches!(
        cache.zadd(&key, "a", f64::NAN, 1, life).await,
        Err(CacheError::Invalid(_))
    ));
    assert!(matches!(
        cache.zadd(&key, "a", 1.0, 0, life).await,
        Err(CacheError::Invalid(_))
    ));
    assert!(matches!(
        cache.set("", Bytes::new(), life).await,
        Err(CacheError::Invalid(_))
    ));
    assert_eq!(cache.get("").await, Ok(None));
}
