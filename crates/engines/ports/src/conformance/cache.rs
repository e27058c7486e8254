//! The suite of [`Cache`].
//!
//! A cache may forget, so wherever the model has a value, "not there" is right as well, and the model forgets with
//! the engine. That a cache keeps anything at all is asked at the end: of what could be there, nearly all was.

use super::drive::{Time, eventually, for_all, soon};
use crate::cache::{BucketState, LoadPolicy, Loaded, Loader};
use crate::{Cache, CacheError};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use holon_base::ErrorKind;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

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
    suite.test(one_caller_loads_and_the_others_wait);
    suite.test(a_load_goes_on_when_its_caller_goes_away);
    suite.test(what_was_deleted_does_not_come_back);
    suite.test(what_was_set_is_not_replaced_by_an_older_load);
    suite.test(a_failed_load_is_told_to_all_and_not_kept);
    suite.test(a_loader_that_panics_is_an_error);
    suite.test(expiry_is_spread_within_its_bounds);
    suite.test(increments_at_once_all_count);
    suite.test(tokens_are_given_out_once);
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
            prop::collection::vec(command(), 1..60),
            |commands| {
                let mut model = Model::new(self.subject());
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
            self.runtime.block_on(takes_answer_as_arithmetic_does(
                self.subject(),
                capacity,
                per_second,
                steps,
            ));
        });
    }
}

// ---- the model of values, numbers and sorted sets

#[derive(Debug, Clone)]
enum Command {
    Set {
        key: u8,
        value: u16,
        life: u32,
    },
    Get {
        key: u8,
    },
    GetMany {
        keys: Vec<u8>,
    },
    Delete {
        key: u8,
    },
    Load {
        key: u8,
        value: Option<u16>,
        fresh: u32,
        stale: u32,
        negative: u32,
    },
    Increment {
        key: u8,
        delta: i64,
        life: u32,
    },
    Rank {
        key: u8,
        member: u8,
        score: i8,
        keep: usize,
        life: u32,
    },
    Unrank {
        key: u8,
        member: u8,
    },
    Range {
        key: u8,
        offset: usize,
        limit: usize,
    },
    Pass {
        units: u32,
    },
}

fn command() -> impl Strategy<Value = Command> {
    let key = 0_u8..4;
    let life = 0_u32..6;
    prop_oneof![
        3 => (key.clone(), any::<u16>(), life.clone())
            .prop_map(|(key, value, life)| Command::Set { key, value, life }),
        3 => key.clone().prop_map(|key| Command::Get { key }),
        1 => prop::collection::vec(key.clone(), 0..6).prop_map(|keys| Command::GetMany { keys }),
        1 => key.clone().prop_map(|key| Command::Delete { key }),
        4 => (key.clone(), any::<Option<u16>>(), life.clone(), 0_u32..3, 0_u32..3).prop_map(
            |(key, value, fresh, stale, negative)| Command::Load { key, value, fresh, stale, negative }
        ),
        2 => (key.clone(), -9_i64..10, life.clone())
            .prop_map(|(key, delta, life)| Command::Increment { key, delta, life }),
        4 => (key.clone(), 0_u8..6, -3_i8..4, 1_usize..5, life)
            .prop_map(|(key, member, score, keep, life)| Command::Rank { key, member, score, keep, life }),
        1 => (key.clone(), 0_u8..6).prop_map(|(key, member)| Command::Unrank { key, member }),
        3 => (key, 0_usize..4, 0_usize..5)
            .prop_map(|(key, offset, limit)| Command::Range { key, offset, limit }),
        3 => (1_u32..4).prop_map(|units| Command::Pass { units }),
    ]
}

#[derive(Debug, Clone, PartialEq)]
enum Held {
    Value(Bytes),
    /// "There is none", remembered.
    Nothing,
    Number(i64),
    Ranked(BTreeMap<String, f64>),
}

struct Entry {
    held: Held,
    /// In half units since the start.
    fresh_until: u32,
    expires: u32,
}

struct Model {
    subject: Subject,
    /// In half units since the start.
    now: u32,
    entries: HashMap<String, Entry>,
    /// Makes every loaded value another.
    serial: u32,
    could_be_there: usize,
    was_there: usize,
}

impl Model {
    fn new(subject: Subject) -> Self {
        Self {
            subject,
            now: 0,
            entries: HashMap::new(),
            serial: 0,
            could_be_there: 0,
            was_there: 0,
        }
    }

    fn live(&mut self, key: &str) -> Option<&Entry> {
        let now = self.now;
        self.entries.retain(|_, entry| entry.expires > now);
        self.entries.get(key)
    }

    fn value(&mut self, key: &str) -> Option<Bytes> {
        match self.live(key).map(|entry| &entry.held) {
            Some(Held::Value(bytes)) => Some(bytes.clone()),
            _ => None,
        }
    }

    fn hold(&mut self, key: &str, held: Held, life: u32) {
        let expires = self.now + life * 2 + 1;
        let entry = Entry {
            held,
            fresh_until: expires,
            expires,
        };
        self.entries.insert(key.to_owned(), entry);
    }

    /// Compares an answer with what the model has; an engine that forgot makes the model forget.
    fn agree<T: PartialEq + std::fmt::Debug>(
        &mut self,
        key: &str,
        answer: &T,
        remembered: &T,
        forgotten: &T,
    ) {
        if remembered == forgotten {
            assert_eq!(answer, remembered, "{key}");
            return;
        }
        self.could_be_there += 1;
        if answer == remembered {
            self.was_there += 1;
            return;
        }
        assert_eq!(answer, forgotten, "{key}, where {remembered:?} was kept");
        self.entries.remove(key);
    }

    async fn run(&mut self, command: Command) {
        let cache = Arc::clone(&self.subject.cache);
        let time = self.subject.time.clone();
        let name = |kind: &str, key: u8| self.subject.key(&format!("{kind}{key}"));
        match command {
            Command::Set { key, value, life } => {
                let key = name("value", key);
                let value = Bytes::from(value.to_string());
                let ttl = time.units_and_half(life);
                cache.set(&key, value.clone(), ttl).await.unwrap();
                self.hold(&key, Held::Value(value), life);
            }
            Command::Get { key } => {
                let key = name("value", key);
                let answer = cache.get(&key).await.unwrap();
                let expected = self.value(&key);
                self.agree(&key, &answer, &expected, &None);
            }
            Command::GetMany { keys } => {
                let keys: Vec<String> = keys.into_iter().map(|key| name("value", key)).collect();
                let answers = cache.get_many(&keys).await.unwrap();
                assert_eq!(answers.len(), keys.len());
                for (key, answer) in keys.iter().zip(answers) {
                    let expected = self.value(key);
                    self.agree(key, &answer, &expected, &None);
                }
            }
            Command::Delete { key } => {
                let key = name("value", key);
                cache.delete(&key).await.unwrap();
                self.entries.remove(&key);
            }
            Command::Load {
                key,
                value,
                fresh,
                stale,
                negative,
            } => {
                let key = name("value", key);
                let policy = LoadPolicy {
                    fresh: time.units_and_half(fresh),
                    stale: time.units(stale),
                    negative: if negative == 0 {
                        Duration::ZERO
                    } else {
                        time.units_and_half(negative)
                    },
                    jitter: 0.0,
                };
                self.load(&key, value, policy, (fresh, stale, negative)).await;
            }
            Command::Increment { key, delta, life } => {
                let key = name("number", key);
                let answer = cache.incr(&key, delta, time.units_and_half(life)).await.unwrap();
                let before = match self.live(&key).map(|entry| &entry.held) {
                    Some(Held::Number(number)) => *number,
                    _ => 0,
                };
                self.agree(&key, &answer, &(before + delta), &delta);
                match self.entries.get_mut(&key) {
                    Some(entry) => entry.held = Held::Number(answer),
                    None => self.hold(&key, Held::Number(answer), life),
                }
            }
            Command::Rank {
                key,
                member,
                score,
                keep,
                life,
            } => {
                let key = name("ranked", key);
                // The answer to this says nothing of what was kept, so it is asked first.
                let before = self.ranked(&key).await;
                let (member, score) = (format!("member{member}"), f64::from(score) / 2.0);
                let ttl = time.units_and_half(life);
                cache.zadd(&key, &member, score, keep, ttl).await.unwrap();
                let mut scores = before;
                scores.insert(member, score);
                let kept = highest_first(&scores).into_iter().take(keep).collect();
                self.hold(&key, Held::Ranked(kept), life);
            }
            Command::Unrank { key, member } => {
                let key = name("ranked", key);
                let member = format!("member{member}");
                let mut scores = self.ranked(&key).await;
                let answer = cache.zrem(&key, &member).await.unwrap();
                assert_eq!(answer, scores.remove(&member).is_some());
                if scores.is_empty() {
                    self.entries.remove(&key);
                } else if let Some(entry) = self.entries.get_mut(&key) {
                    entry.held = Held::Ranked(scores);
                }
            }
            Command::Range { key, offset, limit } => {
                let key = name("ranked", key);
                let scores = self.ranked(&key).await;
                let answer = cache.zrange(&key, offset, limit).await.unwrap();
                let expected: Vec<_> = highest_first(&scores)
                    .into_iter()
                    .skip(offset)
                    .take(limit)
                    .collect();
                self.agree(&key, &answer, &expected, &Vec::new());
            }
            Command::Pass { units } => {
                time.pass(time.units(units)).await;
                self.now += units * 2;
            }
        }
    }

    /// What a sorted set holds, in the model and in the engine.
    async fn ranked(&mut self, key: &str) -> BTreeMap<String, f64> {
        let expected = match self.live(key).map(|entry| &entry.held) {
            Some(Held::Ranked(scores)) => scores.clone(),
            _ => BTreeMap::new(),
        };
        let answer = self.subject.cache.zrange(key, 0, usize::MAX >> 1).await.unwrap();
        self.agree(key, &answer, &highest_first(&expected), &Vec::new());
        answer.into_iter().collect()
    }

    async fn load(
        &mut self,
        key: &str,
        value: Option<u16>,
        policy: LoadPolicy,
        (fresh, stale, negative): (u32, u32, u32),
    ) {
        self.serial += 1;
        let loaded = value.map(|value| Bytes::from(format!("loaded-{value}-{}", self.serial)));
        let runs = Arc::new(AtomicUsize::new(0));
        let cache = Arc::clone(&self.subject.cache);
        let answer = cache
            .load(key, policy, counted(&runs, Ok(loaded.clone())))
            .await
            .unwrap();
        let now = self.now;
        let before = self
            .live(key)
            .map(|entry| (entry.held.clone(), entry.fresh_until <= now));
        match before {
            Some((Held::Value(kept), false)) if answer.as_ref() == Some(&kept) => {
                assert_eq!(runs.load(Ordering::SeqCst), 0, "{key} was fresh");
                return;
            }
            Some((Held::Nothing, false)) if answer.is_none() && runs.load(Ordering::SeqCst) == 0 => return,
            Some((Held::Value(kept), true)) if answer.as_ref() == Some(&kept) => {
                // Served stale while it is loaded anew: wait until the new one is there.
                eventually("a stale value to be replaced", || async {
                    cache.get(key).await.unwrap() == loaded
                })
                .await;
            }
            _ => {
                assert_eq!(answer, loaded, "{key} was not there");
                assert_eq!(runs.load(Ordering::SeqCst), 1);
            }
        }
        match loaded {
            Some(bytes) => {
                let fresh_until = self.now + fresh * 2 + 1;
                let entry = Entry {
                    held: Held::Value(bytes),
                    fresh_until,
                    expires: fresh_until + stale * 2,
                };
                self.entries.insert(key.to_owned(), entry);
            }
            None if negative > 0 => self.hold(key, Held::Nothing, negative),
            None => {
                self.entries.remove(key);
            }
        }
    }
}

fn highest_first(scores: &BTreeMap<String, f64>) -> Vec<(String, f64)> {
    let mut ranked: Vec<(String, f64)> = scores.clone().into_iter().collect();
    ranked.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
    ranked
}

/// A loader that counts its runs.
fn counted(runs: &Arc<AtomicUsize>, answer: Loaded) -> Loader {
    let runs = Arc::clone(runs);
    Box::new(move || {
        runs.fetch_add(1, Ordering::SeqCst);
        futures::future::ready(answer).boxed()
    })
}

/// A loader that says when it began and goes on when it is let.
fn gated(began: &Arc<Semaphore>, gate: &Arc<Semaphore>, answer: Loaded) -> Loader {
    let (began, gate) = (Arc::clone(began), Arc::clone(gate));
    Box::new(move || -> BoxFuture<'static, Loaded> {
        async move {
            began.add_permits(1);
            gate.acquire().await.unwrap().forget();
            answer
        }
        .boxed()
    })
}

fn closed() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

fn some(text: &'static str) -> Loaded {
    Ok(Some(Bytes::from_static(text.as_bytes())))
}

// ---- token buckets

async fn takes_answer_as_arithmetic_does(
    Subject { cache, time, prefix }: Subject,
    capacity: u64,
    per_second: f64,
    steps: Vec<(u64, u64)>,
) {
    let mut level = capacity as f64;
    for (tokens, wait_ms) in steps {
        let tokens = tokens.min(capacity);
        let answer = cache.take(&prefix, tokens, capacity, per_second).await.unwrap();
        // Where the level is a token's billionth from enough, arithmetic in floating point cannot tell.
        if (level - tokens as f64).abs() > 1e-9 {
            assert_eq!(answer.allowed, level >= tokens as f64, "{tokens} of {level}");
        }
        if answer.allowed {
            level -= tokens as f64;
        }
        assert!((answer.remaining as f64 - level.floor()).abs() <= 1.0);
        assert!(answer.remaining as f64 <= level + 1e-9);
        let until = |needed: f64| ((needed - level) / per_second).max(0.0);
        if answer.allowed {
            assert_eq!(answer.retry_after, Duration::ZERO);
        } else {
            assert_near(answer.retry_after, until(tokens as f64));
        }
        assert_near(answer.reset_after, until(capacity as f64));
        time.pass(Duration::from_millis(wait_ms)).await;
        level = (level + per_second * wait_ms as f64 / 1_000.0).min(capacity as f64);
    }
    // Waiting as long as one is told to is enough, and half of it is not.
    let emptied = cache
        .take(&prefix, 0, capacity, per_second)
        .await
        .unwrap()
        .remaining;
    cache.take(&prefix, emptied, capacity, per_second).await.unwrap();
    let refused: BucketState = cache.take(&prefix, 1, capacity, per_second).await.unwrap();
    assert!(!refused.allowed);
    time.pass(refused.retry_after / 2).await;
    let half_way = cache.take(&prefix, 1, capacity, per_second).await.unwrap();
    assert!(!half_way.allowed || refused.retry_after <= Duration::from_millis(1));
    if !half_way.allowed {
        time.pass(half_way.retry_after).await;
        assert!(
            cache
                .take(&prefix, 1, capacity, per_second)
                .await
                .unwrap()
                .allowed
        );
    }
}

/// Times are told in whole milliseconds, rounded up.
fn assert_near(answer: Duration, seconds: f64) {
    let ms = answer.as_secs_f64() * 1_000.0;
    let expected = seconds * 1_000.0;
    let slack = 1e-6 * expected + 1e-3;
    assert!(
        ms >= expected - slack && ms <= expected + 1.0 + slack,
        "{ms} ms where {expected} ms were expected"
    );
}

async fn tokens_are_given_out_once(Subject { cache, prefix, .. }: Subject) {
    let takes = (0..100).map(|_| {
        let (cache, key) = (Arc::clone(&cache), prefix.clone());
        tokio::spawn(async move { cache.take(&key, 1, 10, 1e-6).await.unwrap().allowed })
    });
    let allowed = join_all(takes)
        .await
        .into_iter()
        .filter(|taken| *taken.as_ref().unwrap())
        .count();
    assert_eq!(allowed, 10);
}

// ---- loads

async fn one_caller_loads_and_the_others_wait(Subject { cache, time, prefix }: Subject) {
    let runs = Arc::new(AtomicUsize::new(0));
    let asked = Arc::new(AtomicUsize::new(0));
    let gate = closed();
    let policy = LoadPolicy::fresh(time.units(100));
    let callers = (0..100).map(|_| {
        let (cache, key) = (Arc::clone(&cache), prefix.clone());
        let (runs, asked, gate) = (Arc::clone(&runs), Arc::clone(&asked), Arc::clone(&gate));
        tokio::spawn(async move {
            let loader: Loader = Box::new(move || {
                async move {
                    let run = runs.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    Ok(Some(Bytes::from(run.to_string())))
                }
                .boxed()
            });
            asked.fetch_add(1, Ordering::SeqCst);
            cache.load(&key, policy, loader).await.unwrap()
        })
    });
    let callers: Vec<_> = callers.collect();
    eventually("all to ask", || async { asked.load(Ordering::SeqCst) == 100 }).await;
    eventually("the loader to run", || async { runs.load(Ordering::SeqCst) == 1 }).await;
    gate.add_permits(100);
    for answer in soon("all answers", join_all(callers)).await {
        assert_eq!(answer.unwrap(), Some(Bytes::from_static(b"0")));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

async fn a_load_goes_on_when_its_caller_goes_away(Subject { cache, time, prefix }: Subject) {
    let (began, gate) = (closed(), closed());
    let policy = LoadPolicy::fresh(time.units(100));
    let caller = tokio::spawn({
        let (cache, key) = (Arc::clone(&cache), prefix.clone());
        let loader = gated(&began, &gate, some("first"));
        async move { cache.load(&key, policy, loader).await }
    });
    soon("the loader to run", began.acquire()).await.unwrap().forget();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    let runs = Arc::new(AtomicUsize::new(0));
    let second = tokio::spawn({
        let (cache, key) = (Arc::clone(&cache), prefix.clone());
        let loader = counted(&runs, some("second"));
        async move { cache.load(&key, policy, loader).await }
    });
    gate.add_permits(1);
    assert_eq!(soon("the answer", second).await.unwrap(), some("first"));
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

async fn what_was_deleted_does_not_come_back(
    Subject {
        cache,
        time,
        prefix: key,
    }: Subject,
) {
    let (began, gate) = (closed(), closed());
    let policy = LoadPolicy::fresh(time.units(100));
    let early = tokio::spawn({
        let (cache, key) = (Arc::clone(&cache), key.clone());
        let loader = gated(&began, &gate, some("old"));
        async move { cache.load(&key, policy, loader).await }
    });
    soon("the loader to run", began.acquire()).await.unwrap().forget();
    cache.delete(&key).await.unwrap();
    // Who asks after the deletion is not answered by the load from before it.
    let runs = Arc::new(AtomicUsize::new(0));
    let late = soon(
        "a load anew",
        cache.load(&key, policy, counted(&runs, some("new"))),
    )
    .await;
    assert_eq!(late, some("new"));
    gate.add_permits(1);
    soon("the early caller", early).await.unwrap().unwrap();
    assert_ne!(cache.get(&key).await, some("old"));

    // The same without anybody asking in between.
    let early = tokio::spawn({
        let (cache, key) = (Arc::clone(&cache), format!("{key}:alone"));
        let loader = gated(&began, &gate, some("old"));
        async move { cache.load(&key, policy, loader).await }
    });
    soon("the loader to run", began.acquire()).await.unwrap().forget();
    cache.delete(&format!("{key}:alone")).await.unwrap();
    gate.add_permits(1);
    soon("the early caller", early).await.unwrap().unwrap();
    assert_eq!(cache.get(&format!("{key}:alone")).await, Ok(None));
}

async fn what_was_set_is_not_replaced_by_an_older_load(
    Subject {
        cache,
        time,
        prefix: key,
    }: Subject,
) {
    let (began, gate) = (closed(), closed());
    let policy = LoadPolicy::fresh(time.units(100));
    let early = tokio::spawn({
        let (cache, key) = (Arc::clone(&cache), key.clone());
        let loader = gated(&began, &gate, some("old"));
        async move { cache.load(&key, policy, loader).await }
    });
    soon("the loader to run", began.acquire()).await.unwrap().forget();
    cache
        .set(&key, Bytes::from_static(b"new"), time.units(100))
        .await
        .unwrap();
    gate.add_permits(1);
    soon("the early caller", early).await.unwrap().unwrap();
    assert_ne!(cache.get(&key).await, some("old"));
}

async fn a_failed_load_is_told_to_all_and_not_kept(
    Subject {
        cache,
        time,
        prefix: key,
    }: Subject,
) {
    let (began, gate) = (closed(), closed());
    let policy = LoadPolicy {
        negative: time.units(100),
        ..LoadPolicy::fresh(time.units(100))
    };
    let failure = CacheError::Load {
        kind: ErrorKind::NotFound,
        message: "no such thing".into(),
    };
    let first = tokio::spawn({
        let (cache, key) = (Arc::clone(&cache), key.clone());
        let loader = gated(&began, &gate, Err(failure.clone()));
        async move { cache.load(&key, policy, loader).await }
    });
    soon("the loader to run", began.acquire()).await.unwrap().forget();
    gate.add_permits(1);
    assert_eq!(soon("the error", first).await.unwrap(), Err(failure));
    let runs = Arc::new(AtomicUsize::new(0));
    let again = cache.load(&key, policy, counted(&runs, some("there now"))).await;
    assert_eq!(again, some("there now"));
}

async fn a_loader_that_panics_is_an_error(
    Subject {
        cache,
        time,
        prefix: key,
    }: Subject,
) {
    let policy = LoadPolicy::fresh(time.units(100));
    let loader: Loader = Box::new(|| async { panic!("a loader that panics, on purpose") }.boxed());
    let answer = soon("an answer", cache.load(&key, policy, loader)).await;
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Internal);
    let runs = Arc::new(AtomicUsize::new(0));
    assert_eq!(
        cache.load(&key, policy, counted(&runs, some("well"))).await,
        some("well")
    );
}

async fn expiry_is_spread_within_its_bounds(subject: Subject) {
    let Subject { cache, time, .. } = &subject;
    let policy = LoadPolicy {
        jitter: 0.5,
        ..LoadPolicy::fresh(time.units(20))
    };
    let keys: Vec<String> = (0..64).map(|i| subject.key(&i.to_string())).collect();
    let runs = Arc::new(AtomicUsize::new(0));
    for key in &keys {
        cache
            .load(key, policy, counted(&runs, some("kept")))
            .await
            .unwrap();
    }
    let left = async || {
        let kept = cache.get_many(&keys).await.unwrap();
        kept.into_iter().flatten().count()
    };
    time.pass(time.units(9)).await;
    assert!(left().await >= 58, "nothing dies before half its time");
    time.pass(time.units(6)).await;
    let half_way = left().await;
    assert!(
        (8..=56).contains(&half_way),
        "{half_way} of 64 half-way through the jitter"
    );
    time.pass(time.units(5)).await;
    assert_eq!(left().await, 0);
}

// ---- the rest

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
