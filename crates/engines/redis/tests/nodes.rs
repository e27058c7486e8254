//! Two nodes on one Redis, and Redis going away: what the suite cannot know.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use holon_embedded::bus::EmbeddedBus;
use holon_ports::CacheError;
use holon_ports::cache::{LoadPolicy, Loaded, Loader};
use holon_redis::{BreakerState, RedisCache, RedisError, RedisOptions};
use holon_testkit::{PATIENCE, RedisCluster, RedisServer, eventually, signal};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(3_600);

fn options(urls: Vec<String>) -> RedisOptions {
    RedisOptions {
        cluster: urls.len() > 1,
        probe_every: Duration::from_millis(100),
        ..RedisOptions::new(urls, Arc::new(EmbeddedBus::default()))
    }
}

/// Nodes that share a bus, as those of one deployment do.
async fn nodes<const N: usize>(options: &RedisOptions) -> [RedisCache; N] {
    let nodes = join_all((0..N).map(|_| RedisCache::connect(options.clone()))).await;
    let nodes: Vec<RedisCache> = nodes.into_iter().map(Result::unwrap).collect();
    nodes.try_into().unwrap_or_else(|_| panic!("{N} nodes"))
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A loader that takes a while, and counts its runs.
fn slow(runs: &Arc<AtomicUsize>, takes: Duration, answer: Loaded) -> Loader {
    let runs = Arc::clone(runs);
    Box::new(move || {
        async move {
            runs.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(takes).await;
            answer
        }
        .boxed()
    })
}

async fn closes(cache: &RedisCache) {
    eventually("the breakers to close", PATIENCE, || async {
        (cache.stats().breakers_open == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_one_node_writes_the_others_forget_at_once() {
    let server = RedisServer::start().await;
    let options = RedisOptions {
        // Long enough that only a message can explain what the other node sees.
        local_fresh: LONG,
        ..options(vec![server.url()])
    };
    let [one, two] = nodes(&options).await;
    let (a, b) = (one.cache(), two.cache());
    a.set("key", text("first"), LONG).await.unwrap();
    eventually("the message of it", PATIENCE, || async {
        (two.stats().invalidations_received == 1).then_some(())
    })
    .await;
    assert_eq!(b.get("key").await, Ok(Some(text("first"))));
    let asked = two.stats().commands;
    assert_eq!(b.get("key").await, Ok(Some(text("first"))));
    assert_eq!(two.stats().commands, asked, "answered from its own memory");
    a.set("key", text("second"), LONG).await.unwrap();
    eventually("the second value", PATIENCE, || async {
        (b.get("key").await.unwrap() == Some(text("second"))).then_some(())
    })
    .await;
    a.delete("key").await.unwrap();
    eventually("the deletion", PATIENCE, || async {
        b.get("key").await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_messages_a_value_is_old_for_a_moment_only() {
    let server = RedisServer::start().await;
    let fresh = Duration::from_millis(200);
    let node = || RedisOptions {
        local_fresh: fresh,
        ..options(vec![server.url()])
    };
    // Each has a bus of its own, so neither hears the other.
    let [one] = nodes(&node()).await;
    let [two] = nodes(&node()).await;
    one.cache().set("key", text("first"), LONG).await.unwrap();
    assert_eq!(two.cache().get("key").await, Ok(Some(text("first"))));
    one.cache().set("key", text("second"), LONG).await.unwrap();
    let since = Instant::now();
    eventually("the second value", PATIENCE, || async {
        (two.cache().get("key").await.unwrap() == Some(text("second"))).then_some(())
    })
    .await;
    assert!(since.elapsed() < fresh * 5, "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stampede_on_many_nodes_loads_once() {
    let server = RedisServer::start().await;
    let stampede = RedisOptions {
        timeout: Duration::from_secs(5),
        // Shorter than the loader takes: it must be renewed.
        lease: Duration::from_millis(300),
        ..options(vec![server.url()])
    };
    let nodes: [RedisCache; 4] = nodes(&stampede).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let callers = (0..200).map(|i| {
        let cache = nodes[i % nodes.len()].cache();
        let loader = slow(&runs, Duration::from_millis(800), Ok(Some(text("loaded"))));
        tokio::spawn(async move { cache.load("cold", LoadPolicy::fresh(LONG), loader).await })
    });
    for answer in join_all(callers).await {
        assert_eq!(answer.unwrap(), Ok(Some(text("loaded"))));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let loads: u64 = nodes.iter().map(|node| node.stats().loads).sum();
    assert_eq!(loads, 1);
}

#[tokio::test]
async fn a_node_that_dies_while_loading_holds_up_nobody_for_long() {
    let server = RedisServer::start().await;
    let options = RedisOptions {
        lease: Duration::from_millis(300),
        ..options(vec![server.url()])
    };
    // A process that dies takes its runtime with it.
    let dying = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let (its_options, its_runs) = (options.clone(), Arc::clone(&runs));
    dying.spawn(async move {
        let [node] = nodes(&its_options).await;
        let loader = slow(&its_runs, LONG, Ok(None));
        node.cache().load("key", LoadPolicy::fresh(LONG), loader).await
    });
    eventually("the load to begin", PATIENCE, || async {
        (runs.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    dying.shutdown_background();
    let [heir] = nodes(&options).await;
    let since = Instant::now();
    let loader = slow(&runs, Duration::ZERO, Ok(Some(text("loaded"))));
    let answer = heir.cache().load("key", LoadPolicy::fresh(LONG), loader).await;
    assert_eq!(answer, Ok(Some(text("loaded"))));
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[tokio::test]
async fn what_another_node_deletes_or_sets_is_not_brought_back_by_a_load() {
    let server = RedisServer::start().await;
    let [one, two] = nodes(&options(vec![server.url()])).await;
    let policy = LoadPolicy::fresh(LONG);
    for written in [None, Some(text("new"))] {
        let key = format!("key-{}", written.is_some());
        let runs = Arc::new(AtomicUsize::new(0));
        let loading = {
            let loader = slow(&runs, Duration::from_millis(300), Ok(Some(text("old"))));
            let (cache, key) = (one.cache(), key.clone());
            tokio::spawn(async move { cache.load(&key, policy, loader).await })
        };
        eventually("the loader to run", PATIENCE, || async {
            (runs.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
        match &written {
            None => two.cache().delete(&key).await.unwrap(),
            Some(value) => two.cache().set(&key, value.clone(), LONG).await.unwrap(),
        }
        assert_eq!(loading.await.unwrap(), Ok(Some(text("old"))), "who asked before");
        for node in [&one, &two] {
            assert_eq!(node.cache().get(&key).await, Ok(written.clone()));
        }
    }
}

#[tokio::test]
async fn a_redis_that_is_killed_costs_no_answer_and_comes_back() {
    let mut server = RedisServer::start().await;
    let [node] = nodes(&options(vec![server.url()])).await;
    let cache = node.cache();
    cache.set("kept", text("before"), LONG).await.unwrap();
    assert!(cache.take("bucket", 1, 10, 1.0).await.unwrap().allowed);
    server.kill().await;
    // Limits hear of it quickly, and at once when the breaker is open.
    let since = Instant::now();
    for _ in 0..100 {
        let answer = cache.take("bucket", 1, 10, 1.0).await;
        assert!(matches!(answer, Err(CacheError::Unavailable(_))), "{answer:?}");
    }
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    assert_ne!(node.stats().breaker, BreakerState::Closed);
    // Reads fall through to the truth, once for all who ask at the same time.
    let runs = Arc::new(AtomicUsize::new(0));
    let callers = (0..50).map(|_| {
        let loader = slow(&runs, Duration::from_millis(50), Ok(Some(text("truth"))));
        let cache = node.cache();
        async move { cache.load("away", LoadPolicy::fresh(LONG), loader).await }
    });
    for answer in join_all(callers).await {
        assert_eq!(answer, Ok(Some(text("truth"))));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    let refused = cache.delete("kept").await;
    assert!(matches!(refused, Err(CacheError::Unavailable(_))), "{refused:?}");
    assert_eq!(node.stats().owed, 1);
    // It comes back empty and without the functions.
    server.restart().await;
    closes(&node).await;
    assert!(cache.take("bucket", 10, 10, 1.0).await.unwrap().allowed);
    assert_eq!(node.stats().owed, 0);
    // The functions can go away under a connection that stays.
    assert_eq!(server.command(&["FUNCTION", "FLUSH"]).await, "OK");
    assert!(!cache.take("bucket", 10, 10, 1.0).await.unwrap().allowed);
}

#[tokio::test]
async fn a_redis_that_is_frozen_costs_a_timeout_and_then_nothing() {
    let server = RedisServer::start().await;
    let [node, other] = nodes(&options(vec![server.url()])).await;
    let cache = node.cache();
    cache.set("kept", text("old"), LONG).await.unwrap();
    signal(server.id(), "STOP").await;
    let since = Instant::now();
    let answer = cache.get("other").await;
    assert!(matches!(answer, Err(CacheError::Unavailable(_))), "{answer:?}");
    assert!(
        since.elapsed() < Duration::from_millis(750),
        "{:?}",
        since.elapsed()
    );
    let answers = join_all((0..10).map(|_| cache.take("bucket", 1, 1, 1.0))).await;
    assert!(answers.iter().all(Result::is_err));
    assert_ne!(node.stats().breaker, BreakerState::Closed);
    let since = Instant::now();
    for _ in 0..100 {
        assert!(cache.take("bucket", 1, 1, 1.0).await.is_err());
    }
    assert!(
        since.elapsed() < Duration::from_millis(200),
        "{:?}",
        since.elapsed()
    );
    // What cannot be deleted now is deleted before it is read again.
    cache.delete("kept").await.unwrap_err();
    signal(server.id(), "CONT").await;
    closes(&node).await;
    assert_eq!(cache.get("kept").await, Ok(None));
    assert_eq!(other.cache().get("kept").await, Ok(None));
}

#[tokio::test]
async fn a_redis_that_comes_later_is_used_then() {
    let mut server = RedisServer::start().await;
    server.kill().await;
    let [node] = nodes(&options(vec![server.url()])).await;
    assert_ne!(node.stats().breaker, BreakerState::Closed);
    assert!(node.cache().get("key").await.is_err());
    server.restart().await;
    closes(&node).await;
    node.cache().set("key", text("value"), LONG).await.unwrap();
    assert_eq!(node.cache().get("key").await, Ok(Some(text("value"))));
}

#[tokio::test]
async fn a_cluster_that_loses_a_primary_loses_its_keys_for_a_moment_only() {
    let mut cluster = RedisCluster::start(3, 1).await;
    let options = RedisOptions {
        local_fresh: Duration::ZERO,
        ..options(cluster.urls())
    };
    let [node] = nodes(&options).await;
    let cache = node.cache();
    let keys: Vec<String> = (0..300).map(|i| format!("key-{i}")).collect();
    for key in &keys {
        cache.set(key, text(key), LONG).await.unwrap();
        assert!(
            cache
                .take(&format!("bucket-{key}"), 1, 2, 1.0)
                .await
                .unwrap()
                .allowed
        );
    }
    let all = cache.get_many(&keys).await.unwrap();
    assert!(
        all.iter()
            .zip(&keys)
            .all(|(value, key)| *value == Some(text(key)))
    );
    cluster.servers[0].kill().await;
    // While its slots are away, those of the other primaries answer, all the time.
    let (mut answered, mut failed) = (0, 0);
    for key in &keys {
        match cache.get(key).await {
            Ok(value) => {
                assert_eq!(value, Some(text(key)));
                answered += 1;
            }
            Err(CacheError::Unavailable(_)) => failed += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(answered >= 150, "{answered} answered, {failed} failed");
    let stats = node.stats();
    assert!(stats.breakers_open < stats.breakers, "{stats:?}");
    // Its replica takes over, with the functions.
    eventually("all keys to be back", PATIENCE, || async {
        let all = cache.get_many(&keys).await.ok()?;
        (all.iter().flatten().count() == keys.len()).then_some(())
    })
    .await;
    for key in &keys {
        cache.take(&format!("new-{key}"), 1, 2, 1.0).await.unwrap();
    }
    // One that freezes looks connected, and is left all the same.
    signal(cluster.servers[1].id(), "STOP").await;
    eventually("all keys to be back again", PATIENCE, || async {
        let all = cache.get_many(&keys).await.ok()?;
        (all.iter().flatten().count() == keys.len()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_gives_no_more_than_it_gains_on_all_nodes_together() {
    let server = RedisServer::start().await;
    let patient = RedisOptions {
        timeout: Duration::from_secs(5),
        ..options(vec![server.url()])
    };
    let nodes: [RedisCache; 2] = nodes(&patient).await;
    let (capacity, per_second) = (20, 100.0);
    let since = Instant::now();
    let takers = (0..8).map(|i| {
        let cache = nodes[i % 2].cache();
        tokio::spawn(async move {
            let (mut taken, mut refused) = (0_u64, 0_u64);
            while since.elapsed() < Duration::from_secs(2) {
                let state = cache.take("bucket", 1, capacity, per_second).await.unwrap();
                assert_eq!(state.allowed, state.retry_after.is_zero());
                assert!(state.remaining <= capacity);
                if state.allowed {
                    taken += 1;
                } else {
                    refused += 1;
                    tokio::time::sleep(state.retry_after).await;
                }
            }
            (taken, refused)
        })
    });
    let taken: Vec<(u64, u64)> = join_all(takers).await.into_iter().map(Result::unwrap).collect();
    let gained = capacity as f64 + per_second * since.elapsed().as_secs_f64();
    let all: u64 = taken.iter().map(|(taken, _)| taken).sum();
    assert!(all as f64 <= gained, "{all} of {gained}");
    assert!(
        all as f64 >= gained * 0.7,
        "{all} of {gained}: who waits as told gets what there is"
    );
    assert!(taken.iter().all(|(_, refused)| *refused > 0));
    // Alone, who waits as long as told is let in, and half of it is too soon.
    let cache = nodes[0].cache();
    assert!(cache.take("slow", 1, 1, 5.0).await.unwrap().allowed);
    let refused = cache.take("slow", 1, 1, 5.0).await.unwrap();
    assert!(!refused.allowed && refused.retry_after <= Duration::from_millis(200));
    tokio::time::sleep(refused.retry_after).await;
    let state = cache.take("slow", 1, 1, 5.0).await.unwrap();
    assert!(state.allowed, "{state:?}");
    assert!(state.reset_after <= Duration::from_millis(200));
}

#[tokio::test]
async fn values_stay_within_their_bounds() {
    let server = RedisServer::start().await;
    let options = RedisOptions {
        bytes: 1 << 20,
        local_bytes: 1 << 20,
        ..options(vec![server.url()])
    };
    let [node] = nodes(&options).await;
    let cache = node.cache();
    cache.set("key", text("small"), LONG).await.unwrap();
    let large = Bytes::from(vec![7; (1 << 17) + 1]);
    cache.set("key", large.clone(), LONG).await.unwrap();
    assert_eq!(
        cache.get("key").await,
        Ok(None),
        "neither the new value nor the old"
    );
    let loader: Loader = Box::new(move || async move { Ok(Some(large)) }.boxed());
    let loaded = cache.load("large", LoadPolicy::fresh(LONG), loader).await;
    assert_eq!(loaded.unwrap().unwrap().len(), (1 << 17) + 1);
    assert_eq!(cache.get("large").await, Ok(None));
    for i in 0..3_000 {
        cache
            .set(&format!("key-{i}"), Bytes::from(vec![7; 1_000]), LONG)
            .await
            .unwrap();
    }
    let stats = node.stats();
    assert!((800 << 10..=1 << 20).contains(&stats.local_bytes), "{stats:?}");
    // Numbers end where 64 bits do, and are exact there.
    assert_eq!(cache.incr("number", i64::MAX - 1, LONG).await, Ok(i64::MAX - 1));
    assert_eq!(cache.incr("number", 7, LONG).await, Ok(i64::MAX));
    assert_eq!(cache.incr("low", i64::MIN, LONG).await, Ok(i64::MIN));
    assert_eq!(cache.incr("low", -1, LONG).await, Ok(i64::MIN));
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused_without_their_secrets() {
    for urls in [
        vec![],
        vec!["http://user:secret@host".to_owned()],
        vec![":".into()],
    ] {
        let refused = RedisCache::connect(options(urls)).await.err().unwrap();
        assert_eq!(refused, RedisError::Url);
        assert!(!refused.to_string().contains("secret"));
    }
    let two = RedisOptions {
        cluster: false,
        ..options(vec!["redis://a".into(), "redis://b".into()])
    };
    assert_eq!(RedisCache::connect(two).await.err(), Some(RedisError::ManyUrls));
}
