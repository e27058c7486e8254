//! Random commands on values, numbers and sorted sets, against maps.

use super::super::drive::eventually;
use super::Subject;
use super::loads::counted;
use crate::cache::LoadPolicy;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

#[derive(Debug, Clone)]
pub(super) enum Command {
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

pub(super) fn command() -> impl Strategy<Value = Command> {
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

pub(super) struct Model {
    subject: Subject,
    /// In half units since the start.
    now: u32,
    entries: HashMap<String, Entry>,
    /// Makes every loaded value another.
    serial: u32,
    pub(super) could_be_there: usize,
    pub(super) was_there: usize,
}

impl Model {
    pub(super) fn new(subject: Subject) -> Self {
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

    pub(super) async fn run(&mut self, command: Command) {
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
