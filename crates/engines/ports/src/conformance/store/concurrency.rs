//! What a store promises to many callers at once.

use super::{NOTES, TAGS, partition, prepare};
use crate::{
    Batch, Condition, Consistency, RowKey, Scan, Store, StoreError,
    conformance::{Make, block_on},
};
use std::sync::Arc;

async fn counter_of(store: &dyn Store, key: &RowKey) -> i64 {
    let row = store.get(key, Consistency::Strong).await.unwrap();
    row.map_or(0, |row| row.counter())
}

/// Read, then write on the condition that nothing changed, from many tasks: no update is lost. The same by `add`.
pub fn concurrent_increments_are_all_counted(make: &Make<'_>) {
    const TASKS: i64 = 8;
    const INCREMENTS: i64 = 25;
    block_on().block_on(async {
        let fixture = make().await;
        prepare(&fixture).await;
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let store = Arc::clone(&fixture.store);
                tokio::spawn(async move {
                    let partition = partition("counter");
                    let key = RowKey::new(NOTES, partition.clone(), "checked");
                    for _ in 0..INCREMENTS {
                        loop {
                            let row = store.get(&key, Consistency::Strong).await.unwrap();
                            let count = row.as_ref().map_or(0, |row| row.json::<i64>().unwrap());
                            let condition =
                                row.map_or(Condition::Absent, |row| Condition::Version(row.version));
                            let batch = Batch::new()
                                .put_if(NOTES, "checked", &(count + 1), condition)
                                .add(NOTES, "added", 1)
                                .add(TAGS, "added twice", 1)
                                .add(TAGS, "added twice", 1);
                            match store.commit(&partition, batch).await {
                                Ok(_) => break,
                                Err(error) => assert!(error.is_condition_failed(), "{error}"),
                            }
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let at = |table, sort: &'static str| RowKey::new(table, partition("counter"), sort);
        let checked = fixture
            .store
            .get(&at(NOTES, "checked"), Consistency::Strong)
            .await
            .unwrap();
        let checked: i64 = checked.unwrap().json().unwrap();
        assert_eq!(checked, TASKS * INCREMENTS, "updates were lost");
        assert_eq!(
            counter_of(&*fixture.store, &at(NOTES, "added")).await,
            TASKS * INCREMENTS
        );
        assert_eq!(
            counter_of(&*fixture.store, &at(TAGS, "added twice")).await,
            2 * TASKS * INCREMENTS
        );
    });
}

/// Of many who want the same name at once, one gets it, and only what that one wrote is there.
pub fn a_condition_lets_one_of_many_through(make: &Make<'_>) {
    block_on().block_on(async {
        let fixture = make().await;
        prepare(&fixture).await;
        for round in 0..10 {
            let tasks: Vec<_> = (0..16_i32)
                .map(|task| {
                    let store = Arc::clone(&fixture.store);
                    tokio::spawn(async move {
                        let batch = Batch::new()
                            .put(TAGS, task.to_be_bytes().to_vec(), &task)
                            .put_if_absent(NOTES, "name", &task);
                        store.commit(&partition(&format!("name:{round}")), batch).await
                    })
                })
                .collect();
            let mut winners = 0;
            for task in tasks {
                match task.await.unwrap() {
                    Ok(_) => winners += 1,
                    Err(error) => assert_eq!(error, StoreError::ConditionFailed { op: 1 }),
                }
            }
            assert_eq!(winners, 1);
            let partition = partition(&format!("name:{round}"));
            let tags = fixture
                .store
                .scan(&Scan::all(TAGS, partition.clone(), 100))
                .await
                .unwrap();
            let name = RowKey::new(NOTES, partition, "name");
            let name = fixture
                .store
                .get(&name, Consistency::Strong)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(tags.rows.len(), 1, "a commit that failed left something");
            assert_eq!(tags.rows[0].bytes(), name.bytes());
        }
    });
}

/// A scan is one snapshot: rows that always change together are never seen apart.
pub fn concurrent_readers_see_whole_scans(make: &Make<'_>) {
    block_on().block_on(async {
        let fixture = make().await;
        prepare(&fixture).await;
        let store = Arc::clone(&fixture.store);
        let write = |n: u64| (0..20_u8).fold(Batch::new(), |batch, i| batch.put(NOTES, vec![i], &n));
        store.commit(&partition("whole"), write(0)).await.unwrap();
        let writer = {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 1..100 {
                    store.commit(&partition("whole"), write(n)).await.unwrap();
                }
            })
        };
        let mut newest = 0;
        while !writer.is_finished() {
            let page = store
                .scan(&Scan::all(NOTES, partition("whole"), 50))
                .await
                .unwrap();
            let seen: Vec<u64> = page.rows.iter().map(|row| row.json().unwrap()).collect();
            assert_eq!(seen.len(), 20);
            assert!(
                seen.iter().all(|n| *n == seen[0]),
                "a scan saw half a commit: {seen:?}"
            );
            assert!(seen[0] >= newest, "a scan went back in time");
            newest = seen[0];
            tokio::task::yield_now().await;
        }
        writer.await.unwrap();
    });
}

/// Reads never go back in time: what a read saw of a commit, reads that begin after it see too, be they of other
/// rows, of other tables or scans.
pub fn what_one_read_saw_later_reads_see(make: &Make<'_>) {
    const COMMITS: u32 = 300;
    /// Other partitions written in the same call, which takes the engine a while.
    const BESIDE: u32 = 100;
    let lamp = |n: u32| RowKey::new(NOTES, partition("order"), format!("lamp:{n:05}"));
    block_on().block_on(async {
        let fixture = make().await;
        prepare(&fixture).await;
        let store = Arc::clone(&fixture.store);
        let lamps = (0..COMMITS).fold(Batch::new(), |batch, n| batch.put(NOTES, lamp(n).sort, &n));
        store.commit(&partition("order"), lamps).await.unwrap();
        let writer = {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..COMMITS {
                    let batch = Batch::new()
                        .add(NOTES, "count", 1)
                        .delete(NOTES, lamp(n).sort)
                        .put(TAGS, n.to_be_bytes().to_vec(), &n);
                    let mut commits = vec![(partition("order"), batch)];
                    commits.extend((0..BESIDE).map(|i| {
                        let batch = Batch::new().put(NOTES, "beside", &n).put(TAGS, "beside", &n);
                        (partition(&format!("order beside:{i}")), batch)
                    }));
                    for answer in store.commit_many(commits).await {
                        answer.unwrap();
                    }
                }
            })
        };
        let count = RowKey::new(NOTES, partition("order"), "count");
        while !writer.is_finished() {
            let counted = counter_of(&*store, &count).await as u32;
            let next = lamp(counted.min(COMMITS - 1));
            let is_out = store.get(&next, Consistency::Strong).await.unwrap().is_none();
            let scan = Scan::all(TAGS, partition("order"), COMMITS as usize);
            let tags = store.scan(&scan).await.unwrap().rows.len() as u32;
            assert!(
                tags >= counted,
                "a read saw {counted} commits, then a scan saw {tags}"
            );
            assert!(
                !is_out || tags > counted || counted == COMMITS,
                "a read saw what commit {counted} had deleted, then a scan saw {tags} commits"
            );
            tokio::task::yield_now().await;
        }
        writer.await.unwrap();
    });
}

/// Many partitions in one call; one of them fails alone.
pub fn a_large_fan_out_is_all_there(make: &Make<'_>) {
    const FOLLOWERS: usize = 3_000;
    block_on().block_on(async {
        let fixture = make().await;
        prepare(&fixture).await;
        let commits: Vec<_> = (0..FOLLOWERS)
            .map(|follower| {
                let condition = if follower == 1_234 {
                    Condition::Present
                } else {
                    Condition::Any
                };
                let batch = Batch::new().put_if(NOTES, "post:1", &follower, condition);
                (partition(&format!("timeline:{follower}")), batch)
            })
            .collect();
        let answers = fixture.store.commit_many(commits).await;
        for (follower, answer) in answers.iter().enumerate() {
            if follower == 1_234 {
                assert_eq!(*answer, Err(StoreError::ConditionFailed { op: 0 }));
            } else {
                assert!(answer.is_ok(), "{follower}: {answer:?}");
            }
        }
        let mut walked = 0;
        let mut cursor = None;
        loop {
            let (rows, next) = fixture.store.walk(NOTES, cursor, 500).await.unwrap();
            walked += rows.len();
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(walked, FOLLOWERS - 1);
    });
}
