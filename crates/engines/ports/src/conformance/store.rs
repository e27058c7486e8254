//! What a [`Store`] promises, tried. A test of an engine calls [`check_all`].

pub mod concurrency;

use super::{Fixture, Make, block_on, model::Rows};
use crate::{
    Batch, Condition, Consistency, NewEvent, Op, Partition, RowKey, Scan, StoreError, Table, TopicSpec, Value,
};
use bytes::Bytes;
use holon_base::{Clock, Tenant, Timestamp, limits};
use proptest::{prelude::*, test_runner::TestRunner};
use std::{
    collections::{HashMap, HashSet},
    ops::Bound,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

const NOTES: Table = Table("conformance.notes");
const TAGS: Table = Table("conformance.tags");
const TABLES: [Table; 2] = [NOTES, TAGS];
const TOLD: TopicSpec = TopicSpec {
    name: "conformance.told",
    partitions: 3,
    max_age: None,
    max_bytes: None,
};

/// Tries every promise on fresh engines.
///
/// # Panics
/// When a promise is broken; the message says which, with the shortest script that shows it.
pub fn check_all(make: &Make<'_>) {
    random_scripts_agree_with_the_model(make, 64);
    concurrency::concurrent_increments_are_all_counted(make);
    concurrency::a_condition_lets_one_of_many_through(make);
    sizes_at_the_limits_are_taken_and_above_them_refused(make);
    a_row_is_written_once_in_a_commit(make);
    what_was_not_created_is_an_error(make);
    concurrency::concurrent_readers_see_whole_scans(make);
    concurrency::what_one_read_saw_later_reads_see(make);
    concurrency::a_large_fan_out_is_all_there(make);
}

async fn prepare(fixture: &Fixture) {
    fixture.store.create_tables(&TABLES).await.unwrap();
    fixture.store.create_tables(&TABLES).await.unwrap();
    if let Some(log) = &fixture.log {
        log.create_topics(&[TOLD]).await.unwrap();
    }
}

#[derive(Debug, Clone)]
enum Command {
    Commit(usize, Vec<Step>),
    CommitMany(Vec<(usize, Vec<Step>)>),
    Get(usize, usize, usize),
    GetMany(Vec<(usize, usize, usize)>),
    Scan {
        table: usize,
        entity: usize,
        start: Bound<usize>,
        end: Bound<usize>,
        reverse: bool,
        limit: usize,
    },
    Pages {
        table: usize,
        entity: usize,
        reverse: bool,
        limit: usize,
    },
    Walk(usize, usize),
    Advance(u64),
}

#[derive(Debug, Clone)]
enum Step {
    Put(usize, usize, Value, When, Option<i64>),
    Delete(usize, usize, When),
    Add(usize, usize, i64, Option<i64>),
    Check(usize, usize, When),
    Event(usize),
}

/// A condition, by what it comes to on the row as it is.
#[derive(Debug, Clone, Copy)]
enum When {
    Any,
    Absent,
    Present,
    ThisVersion,
    OtherVersion,
}

// Few and awkward, so that rows meet, are prefixes of each other, and try the encoding's separators.
const SORTS: [&[u8]; 6] = [b"", b"a", b"a\0", b"a\0\xff", b"ab", b"\xff\xff"];
const ENTITIES: [&str; 4] = ["user:1", "user:10", "user:1\0", ""];

fn any_step() -> impl Strategy<Value = Step> {
    let table = 0..TABLES.len();
    let sort = 0..SORTS.len();
    let when = prop_oneof![
        6 => Just(When::Any),
        1 => Just(When::Absent),
        1 => Just(When::Present),
        2 => Just(When::ThisVersion),
        1 => Just(When::OtherVersion),
    ];
    let value = prop_oneof![
        Just(Value::Json(Bytes::from_static(b"{\"a\": 1 }"))),
        any::<u16>().prop_map(|n| Value::Json(n.to_string().into())),
        prop::collection::vec(any::<u8>(), 0..8).prop_map(|bytes| Value::Binary(bytes.into())),
        prop_oneof![any::<i64>(), -3..3_i64].prop_map(Value::Counter),
    ];
    let expires = prop_oneof![3 => Just(None), 1 => (-20..60_i64).prop_map(Some)];
    let delta = prop_oneof![-3..4_i64, Just(i64::MAX), Just(i64::MIN)];
    prop_oneof![
        5 => (table.clone(), sort.clone(), value, when.clone(), expires.clone())
            .prop_map(|(t, s, v, w, e)| Step::Put(t, s, v, w, e)),
        2 => (table.clone(), sort.clone(), when.clone()).prop_map(|(t, s, w)| Step::Delete(t, s, w)),
        3 => (table.clone(), sort.clone(), delta, expires).prop_map(|(t, s, d, e)| Step::Add(t, s, d, e)),
        1 => (table, sort, when).prop_map(|(t, s, w)| Step::Check(t, s, w)),
        1 => (0..3_usize).prop_map(Step::Event),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let entity = 0..ENTITIES.len();
    let table = 0..TABLES.len();
    let sort = 0..SORTS.len();
    let address = (table.clone(), entity.clone(), sort.clone());
    let steps = prop::collection::vec(any_step(), 0..4).boxed();
    let bound = prop_oneof![
        Just(Bound::Unbounded),
        sort.clone().prop_map(Bound::Included),
        sort.prop_map(Bound::Excluded),
    ];
    prop_oneof![
        8 => (entity.clone(), steps.clone()).prop_map(|(e, s)| Command::Commit(e, s)),
        2 => prop::collection::vec((entity.clone(), steps), 0..6).prop_map(Command::CommitMany),
        2 => address.clone().prop_map(|(t, e, s)| Command::Get(t, e, s)),
        1 => prop::collection::vec(address, 0..6).prop_map(Command::GetMany),
        4 => (table.clone(), entity.clone(), bound.clone(), bound, any::<bool>(), 1..8_usize).prop_map(
            |(table, entity, start, end, reverse, limit)| Command::Scan { table, entity, start, end, reverse, limit }
        ),
        1 => (table.clone(), entity, any::<bool>(), 1..4_usize)
            .prop_map(|(table, entity, reverse, limit)| Command::Pages { table, entity, reverse, limit }),
        1 => (table, 1..5_usize).prop_map(|(t, limit)| Command::Walk(t, limit)),
        2 => (1..40_u64).prop_map(Command::Advance),
    ]
}

fn sort(index: usize) -> Bytes {
    Bytes::from_static(SORTS[index])
}

/// One script: the engine, the model, and the tenant that is its own.
struct Script<'a> {
    fixture: &'a Fixture,
    tenant: Tenant,
    rows: Rows,
    /// The highest version that each row ever had.
    versions: HashMap<RowKey, u64>,
    told: Vec<NewEvent>,
}

impl Script<'_> {
    fn partition(&self, entity: usize) -> Partition {
        Partition::new(&self.tenant, ENTITIES[entity])
    }

    fn now(&self) -> Timestamp {
        self.fixture.clock.now()
    }

    fn condition(&self, partition: &Partition, table: usize, index: usize, when: When) -> Condition {
        let row = self.rows.get(TABLES[table], partition, &sort(index), self.now());
        let version = row.map_or(0, |row| row.version);
        match when {
            When::Any => Condition::Any,
            When::Absent => Condition::Absent,
            When::Present => Condition::Present,
            When::ThisVersion => Condition::Version(version),
            When::OtherVersion => Condition::Version(version + 1),
        }
    }

    fn batch(&self, partition: &Partition, steps: &[Step]) -> Batch {
        let at =
            |offset: &Option<i64>| offset.map(|offset| Timestamp::from_millis(self.now().millis() + offset));
        let ops = steps.iter().map(|step| match step {
            Step::Put(table, index, value, when, expires) => Op::Put {
                table: TABLES[*table],
                sort: sort(*index),
                value: value.clone(),
                condition: self.condition(partition, *table, *index, *when),
                expires: at(expires),
            },
            Step::Delete(table, index, when) => Op::Delete {
                table: TABLES[*table],
                sort: sort(*index),
                condition: self.condition(partition, *table, *index, *when),
            },
            Step::Add(table, index, delta, expires) => Op::Add {
                table: TABLES[*table],
                sort: sort(*index),
                delta: *delta,
                expires: at(expires),
            },
            Step::Check(table, index, when) => Op::Check {
                table: TABLES[*table],
                sort: sort(*index),
                condition: self.condition(partition, *table, *index, *when),
            },
            Step::Event(key) => Op::Event(NewEvent {
                topic: TOLD.name,
                tenant: self.tenant.clone(),
                key: format!("key:{key}"),
                kind: "conformance.told.v1",
                subject: format!("script:{}", self.tenant),
                data: Bytes::from_static(b"{\"told\":true}"),
                traceparent: None,
            }),
        });
        let mut ops: Vec<Op> = ops.collect();
        if self.fixture.log.is_none() {
            ops.retain(|op| !matches!(op, Op::Event(_)));
        }
        Batch { ops }
    }

    /// Applies to the model what the engine was given, and compares what came of it.
    fn compare(
        &mut self,
        partition: &Partition,
        batch: &Batch,
        answer: Result<crate::Committed, StoreError>,
    ) -> Result<(), TestCaseError> {
        let version = answer.as_ref().map_or(0, |committed| committed.version);
        let expected = self.rows.commit(partition, batch, version, self.now());
        match (expected, answer) {
            (Ok(events), Ok(committed)) => {
                if !committed.positions.is_empty() {
                    prop_assert_eq!(committed.positions.len(), events.len());
                }
                self.told.extend(events);
                let written = batch.ops.iter().filter_map(|op| match op {
                    Op::Put { table, sort, .. } | Op::Add { table, sort, .. } => {
                        Some(RowKey::new(*table, partition.clone(), sort.clone()))
                    }
                    _ => None,
                });
                // A row that one commit adds to twice is written once.
                for key in written.collect::<HashSet<_>>() {
                    let before = self.versions.insert(key, version).unwrap_or(0);
                    prop_assert!(
                        version > before,
                        "a row's version went from {before} to {version}"
                    );
                }
            }
            (Err(StoreError::Invalid(_)), Err(StoreError::Invalid(_))) => {}
            (Err(expected), Err(answer)) => prop_assert_eq!(answer, expected),
            (expected, answer) => prop_assert!(false, "answered {answer:?}, should be {expected:?}"),
        }
        Ok(())
    }

    async fn run(&mut self, command: &Command) -> Result<(), TestCaseError> {
        let store = &self.fixture.store;
        match command {
            Command::Commit(entity, steps) => {
                let partition = self.partition(*entity);
                let batch = self.batch(&partition, steps);
                let answer = store.commit(&partition, batch.clone()).await;
                self.compare(&partition, &batch, answer)?;
            }
            Command::CommitMany(commits) => {
                let commits: Vec<_> = commits
                    .iter()
                    .map(|(entity, steps)| {
                        let partition = self.partition(*entity);
                        let batch = self.batch(&partition, steps);
                        (partition, batch)
                    })
                    .collect();
                let answers = store.commit_many(commits.clone()).await;
                prop_assert_eq!(answers.len(), commits.len());
                for ((partition, batch), answer) in commits.iter().zip(answers) {
                    self.compare(partition, batch, answer)?;
                }
            }
            Command::Get(table, entity, index) => {
                self.get_many(&[(*table, *entity, *index)]).await?;
            }
            Command::GetMany(addresses) => self.get_many(addresses).await?,
            Command::Scan {
                table,
                entity,
                start,
                end,
                reverse,
                limit,
            } => {
                let bound = |bound: &Bound<usize>| match bound {
                    Bound::Included(index) => Bound::Included(sort(*index)),
                    Bound::Excluded(index) => Bound::Excluded(sort(*index)),
                    Bound::Unbounded => Bound::Unbounded,
                };
                let scan = Scan {
                    table: TABLES[*table],
                    partition: self.partition(*entity),
                    start: bound(start),
                    end: bound(end),
                    reverse: *reverse,
                    limit: *limit,
                    consistency: Consistency::Strong,
                };
                let page = store.scan(&scan).await;
                let expected = self.rows.scan(&scan, self.now());
                // "There may be more" may be said in vain, but never withheld.
                let page = page.map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(&page.rows, &expected.rows);
                prop_assert!(page.more || !expected.more, "a scan hid that there is more");
                prop_assert!(
                    !page.more || page.rows.len() == *limit,
                    "a scan stopped short of its limit"
                );
            }
            Command::Pages {
                table,
                entity,
                reverse,
                limit,
            } => self.read_by_pages(*table, *entity, *reverse, *limit).await?,
            Command::Walk(table, limit) => {
                let mut seen = Vec::new();
                let mut cursor = None;
                loop {
                    let walked = store.walk(TABLES[*table], cursor, *limit).await;
                    let (rows, next) = walked.map_err(|error| TestCaseError::fail(error.to_string()))?;
                    prop_assert!(rows.len() <= *limit);
                    seen.extend(rows.into_iter().filter(|(p, _)| p.tenant == self.tenant));
                    cursor = next;
                    if cursor.is_none() {
                        break;
                    }
                }
                seen.sort_by(|a, b| (&a.0, &a.1.sort).cmp(&(&b.0, &b.1.sort)));
                prop_assert_eq!(seen, self.rows.table(TABLES[*table], self.now()));
            }
            Command::Advance(ms) => self.fixture.clock.advance(Duration::from_millis(*ms)),
        }
        Ok(())
    }

    async fn get_many(&self, addresses: &[(usize, usize, usize)]) -> Result<(), TestCaseError> {
        let keys: Vec<RowKey> = addresses
            .iter()
            .map(|(table, entity, index)| RowKey::new(TABLES[*table], self.partition(*entity), sort(*index)))
            .collect();
        let expected: Vec<_> = keys
            .iter()
            .map(|key| {
                self.rows
                    .get(key.table, &key.partition, &key.sort, self.now())
                    .cloned()
            })
            .collect();
        let store = &self.fixture.store;
        let together = store.get_many(&keys, Consistency::Strong).await;
        prop_assert_eq!(together.as_ref(), Ok(&expected));
        for (key, expected) in keys.iter().zip(expected) {
            prop_assert_eq!(store.get(key, Consistency::Strong).await, Ok(expected));
        }
        Ok(())
    }

    async fn read_by_pages(
        &self,
        table: usize,
        entity: usize,
        reverse: bool,
        limit: usize,
    ) -> Result<(), TestCaseError> {
        let mut scan = Scan::all(TABLES[table], self.partition(entity), limit);
        scan.reverse = reverse;
        let mut whole = scan.clone();
        whole.limit = usize::MAX;
        let expected = self.rows.scan(&whole, self.now()).rows;
        let mut read = Vec::new();
        loop {
            let page = self.fixture.store.scan(&scan).await;
            let page = page.map_err(|error| TestCaseError::fail(error.to_string()))?;
            let last = page.rows.last().map(|row| row.sort.clone());
            read.extend(page.rows);
            match last {
                Some(last) if page.more => scan = scan.after(last),
                _ => break,
            }
        }
        prop_assert_eq!(read, expected);
        Ok(())
    }

    /// Every event of the script is in the log once, in the order in which its key was told of.
    async fn check_events(&self) -> Result<(), TestCaseError> {
        let Some(log) = &self.fixture.log else {
            return Ok(());
        };
        for partition in 0..TOLD.partitions {
            let read = log.read(TOLD.name, partition, 0, usize::MAX).await;
            let read = read.map_err(|error| TestCaseError::fail(error.to_string()))?;
            for (event, offset) in read.iter().zip(0..) {
                prop_assert_eq!(event.position.offset, offset, "offsets have a gap");
            }
            let keys = |key: &str| crate::log::partition_of(&self.tenant, key, TOLD.partitions) == partition;
            let expected: Vec<&str> = self
                .told
                .iter()
                .map(|event| event.key.as_str())
                .filter(|key| keys(key))
                .collect();
            let mine = read.iter().filter(|event| event.tenant == self.tenant);
            let told: Vec<&str> = mine.map(|event| event.key.as_str()).collect();
            prop_assert_eq!(told, expected, "events of partition {}", partition);
        }
        Ok(())
    }
}

/// Random commands against an engine and the model: every answer is the same.
pub fn random_scripts_agree_with_the_model(make: &Make<'_>, scripts: u32) {
    let runtime = block_on();
    let fixture = runtime.block_on(make());
    runtime.block_on(prepare(&fixture));
    let count = AtomicU64::new(0);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: scripts,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    });
    let tried = runner.run(&prop::collection::vec(any_command(), 1..60), |commands| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let mut script = Script {
            fixture: &fixture,
            tenant: Tenant::new(&format!("script-{number}")).unwrap(),
            rows: Rows::default(),
            versions: HashMap::new(),
            told: Vec::new(),
        };
        runtime.block_on(async {
            for command in &commands {
                script.run(command).await?;
            }
            script.check_events().await
        })
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
}

fn partition(entity: &str) -> Partition {
    Partition::new(&Tenant::default(), entity)
}

/// The limits of `holon_base::limits` to the byte.
pub fn sizes_at_the_limits_are_taken_and_above_them_refused(make: &Make<'_>) {
    block_on().block_on(async {
        let fixture = make().await;
        prepare(&fixture).await;
        let store = &fixture.store;
        let row = |bytes: usize| Batch::new().put_binary(NOTES, "k", vec![7; bytes]);
        let limit = limits::ROW_BYTES;
        store.commit(&partition("row"), row(limit)).await.unwrap();
        let key = RowKey::new(NOTES, partition("row"), "k");
        let read = store.get(&key, Consistency::Strong).await.unwrap().unwrap();
        assert_eq!(read.bytes().len(), limit);
        let refused = store.commit(&partition("row"), row(limit + 1)).await;
        assert_eq!(
            refused,
            Err(StoreError::TooLarge {
                what: "row",
                size: limit + 1,
                limit
            })
        );

        // Sort keys of one byte, values that fill the commit.
        let commit = |last: usize| {
            (0..5_u8).fold(Batch::new(), |batch, i| {
                let size = if i < 4 { limits::ROW_BYTES - 1 } else { last };
                batch.put_binary(NOTES, vec![i], vec![i; size])
            })
        };
        let full = limits::COMMIT_BYTES - 4 * limits::ROW_BYTES;
        assert_eq!(
            full, 0,
            "the fifth row has room for nothing but a part of its key"
        );
        let four = |last: usize| {
            let batch = (0..3_u8).fold(Batch::new(), |batch, i| {
                batch.put_binary(NOTES, vec![i], vec![i; limits::ROW_BYTES - 1])
            });
            batch.put_binary(NOTES, [3_u8].to_vec(), vec![3; last])
        };
        let exact = four(limits::ROW_BYTES - 1);
        assert_eq!(exact.size(), limits::COMMIT_BYTES);
        store.commit(&partition("commit"), exact).await.unwrap();
        let refused = store.commit(&partition("commit"), four(limits::ROW_BYTES)).await;
        let size = limits::COMMIT_BYTES + 1;
        let limit = limits::COMMIT_BYTES;
        assert_eq!(
            refused,
            Err(StoreError::TooLarge {
                what: "commit",
                size,
                limit
            })
        );
        assert!(matches!(
            store.commit(&partition("commit"), commit(0)).await,
            Err(StoreError::TooLarge { what: "commit", .. })
        ));

        let limit = limits::KEY_BYTES;
        let size = limit + 1;
        let long = |bytes: usize| Batch::new().put(NOTES, vec![b'k'; bytes], &1);
        store.commit(&partition("key"), long(limit)).await.unwrap();
        let refused = store.commit(&partition("key"), long(size)).await;
        assert_eq!(
            refused,
            Err(StoreError::TooLarge {
                what: "sort key",
                size,
                limit
            })
        );
        let name = |bytes: usize| partition(&"p".repeat(bytes));
        store.commit(&name(limit), row(1)).await.unwrap();
        let refused = store.commit(&name(size), row(1)).await;
        assert_eq!(
            refused,
            Err(StoreError::TooLarge {
                what: "partition key",
                size,
                limit
            })
        );
        // Zeros are what an encoding may have to write twice.
        let zeros = Partition::new(&Tenant::default(), "\0".repeat(limit));
        store
            .commit(&zeros, Batch::new().put(NOTES, vec![0; limit], &1))
            .await
            .unwrap();
        assert_eq!(
            store.scan(&Scan::all(NOTES, zeros, 9)).await.unwrap().rows.len(),
            1
        );
    });
}

/// A commit names each row at most once, but for repeated adds.
pub fn a_row_is_written_once_in_a_commit(make: &Make<'_>) {
    block_on().block_on(async {
        let fixture = make().await;
        prepare(&fixture).await;
        for twice in [
            Batch::new().put(NOTES, "k", &1).put(NOTES, "k", &2),
            Batch::new().put(NOTES, "k", &1).delete(NOTES, "k"),
            Batch::new().add(NOTES, "k", 1).delete(NOTES, "k"),
            Batch::new().put(NOTES, "k", &1).add(NOTES, "k", 2),
        ] {
            let refused = fixture.store.commit(&partition("twice"), twice.clone()).await;
            assert!(
                matches!(refused, Err(StoreError::Invalid(_))),
                "{twice:?}: {refused:?}"
            );
        }
        let fine = Batch::new()
            .put(NOTES, "k", &1)
            .put(TAGS, "k", &1)
            .check(NOTES, "k", Condition::Absent);
        fixture.store.commit(&partition("once"), fine).await.unwrap();
    });
}

/// A table that nobody created is a mistake that is told.
pub fn what_was_not_created_is_an_error(make: &Make<'_>) {
    block_on().block_on(async {
        let fixture = make().await;
        prepare(&fixture).await;
        let nowhere = Table("conformance.nowhere");
        let missing = StoreError::NoSuchTable(nowhere.0.to_owned());
        let store = &fixture.store;
        let key = RowKey::new(nowhere, partition("p"), "k");
        assert_eq!(store.get(&key, Consistency::Strong).await, Err(missing.clone()));
        let scan = Scan::all(nowhere, partition("p"), 1);
        assert_eq!(store.scan(&scan).await, Err(missing.clone()));
        let batch = Batch::new().put(NOTES, "k", &1).put(nowhere, "k", &1);
        assert_eq!(store.commit(&partition("p"), batch).await, Err(missing));
        let there = RowKey::new(NOTES, partition("p"), "k");
        assert_eq!(store.get(&there, Consistency::Strong).await, Ok(None));
        let none = Scan::all(NOTES, partition("p"), 0);
        assert!(matches!(store.scan(&none).await, Err(StoreError::Invalid(_))));
    });
}
