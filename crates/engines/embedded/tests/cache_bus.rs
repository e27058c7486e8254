//! The cache and the bus of one process: the suites, and what the suites cannot know.

use bytes::Bytes;
use holon_base::{ManualClock, Timestamp};
use holon_embedded::bus::EmbeddedBus;
use holon_embedded::cache::{CacheOptions, EmbeddedCache};
use holon_ports::bus::QueueOptions;
use holon_ports::conformance::{self, drive::Time};
use holon_ports::{Bus, BusError, Cache};
use std::{sync::Arc, time::Duration};
use tokio::runtime::Runtime;

const LONG: Duration = Duration::from_secs(3_600);

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_millis(1_800_000_000_000))
}

fn cache(bytes: u64) -> EmbeddedCache {
    let options = CacheOptions {
        bytes,
        ..CacheOptions::default()
    };
    EmbeddedCache::new(options, Arc::new(clock()))
}

#[test]
fn the_cache_keeps_its_promises() {
    let runtime = Runtime::new().unwrap();
    conformance::cache::run(&runtime, || async {
        let clock = clock();
        let cache = EmbeddedCache::new(CacheOptions::default(), Arc::new(clock.clone()));
        (Arc::new(cache) as Arc<dyn Cache>, Time::Manual(clock))
    });
}

#[test]
fn the_bus_keeps_its_promises() {
    let runtime = Runtime::new().unwrap();
    conformance::bus::run(&runtime, || async {
        Arc::new(EmbeddedBus::default()) as Arc<dyn Bus>
    });
}

#[tokio::test]
async fn the_cache_stays_within_its_bytes() {
    let cache = cache(4 << 20);
    let value = Bytes::from(vec![7; 1_000]);
    for i in 0..40_000 {
        cache.set(&format!("key-{i}"), value.clone(), LONG).await.unwrap();
        cache.incr(&format!("number-{i}"), 1, LONG).await.unwrap();
        cache
            .zadd(
                &format!("set-{}", i % 50),
                &format!("member-{i}"),
                1.0,
                10_000,
                LONG,
            )
            .await
            .unwrap();
        let stats = cache.stats();
        assert!(stats.bytes <= stats.capacity, "{stats:?} after {i}");
    }
    let stats = cache.stats();
    assert!(stats.bytes * 10 > stats.capacity * 8, "room is used: {stats:?}");
}

#[tokio::test]
async fn what_is_in_use_survives_a_scan() {
    let cache = cache(4 << 20);
    let value = Bytes::from(vec![7; 1_000]);
    let hot: Vec<String> = (0..500).map(|i| format!("hot-{i}")).collect();
    for key in &hot {
        cache.set(key, value.clone(), LONG).await.unwrap();
    }
    for _ in 0..3 {
        cache.get_many(&hot).await.unwrap();
    }
    // Ten times what there is room for, each seen once, while the hot keys are read now and then.
    for i in 0..40_000 {
        cache
            .set(&format!("scan-{i}"), value.clone(), LONG)
            .await
            .unwrap();
        if i % 1_000 == 0 {
            cache.get_many(&hot).await.unwrap();
        }
    }
    let left = cache.get_many(&hot).await.unwrap().into_iter().flatten().count();
    assert!(left >= 475, "{left} of 500 survived");
}

#[tokio::test]
async fn what_is_too_large_is_not_kept_and_replaces_nothing_old() {
    let cache = cache(8 << 20);
    let small = Bytes::from_static(b"small");
    cache.set("key", small, LONG).await.unwrap();
    cache
        .set("key", Bytes::from(vec![7; (1 << 20) + 1]), LONG)
        .await
        .unwrap();
    assert_eq!(
        cache.get("key").await,
        Ok(None),
        "neither the new value nor the old one"
    );
    cache
        .set("key", Bytes::from(vec![7; 1 << 19]), LONG)
        .await
        .unwrap();
    assert!(cache.get("key").await.unwrap().is_some());
}

#[tokio::test]
async fn a_bus_that_is_closed_ends_its_subscriptions_after_what_waits() {
    let bus = EmbeddedBus::default();
    let mut subscription = bus.subscribe("room.>").await.unwrap();
    bus.publish("room.1", Bytes::from_static(b"last")).await.unwrap();
    bus.close();
    assert_eq!(subscription.next().await.unwrap().payload, "last");
    assert_eq!(subscription.next().await, Err(BusError::Closed));
    assert_eq!(bus.publish("room.1", Bytes::new()).await, Err(BusError::Closed));
}

#[tokio::test]
async fn a_queue_is_bounded_by_bytes_too() {
    let options = QueueOptions {
        messages: 100,
        bytes: 1_000,
    };
    let bus = EmbeddedBus::new(options);
    let mut subscription = bus.subscribe("room").await.unwrap();
    for size in [400, 400, 400, 5_000] {
        bus.publish("room", Bytes::from(vec![0; size])).await.unwrap();
    }
    assert_eq!(subscription.next().await, Err(BusError::Lagged(3)));
    assert_eq!(subscription.next().await.unwrap().payload.len(), 5_000);
    assert_eq!(bus.stats().lost, 3);
    drop(subscription);
    assert_eq!(bus.stats().listeners, 0);
}
