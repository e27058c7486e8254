//! Plain counters: every acknowledged increment is counted, however many shards there are and become.

use holon_base::{ManualClock, Tenant, Timestamp};
use holon_counter::{CounterOptions, Counters, tables};
use holon_testkit::TestHome;
use std::{sync::Arc, time::Duration};

async fn home(clock: &ManualClock) -> TestHome {
    let home = TestHome::with_clock(clock.clone()).await;
    home.create(&tables(), &[]).await;
    home
}

/// A node of its own: what it knows of counters is its own.
fn node(home: &TestHome, options: CounterOptions) -> Counters {
    let context = home.context();
    Counters::new(context.ports.store, context.clock, options).with_cache(context.ports.cache)
}

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_millis(1_800_000_000_000))
}

#[tokio::test]
async fn a_counter_that_was_never_counted_is_zero() {
    let home = home(&clock()).await;
    let counters = node(&home, CounterOptions::default());
    let tenant = Tenant::default();
    assert_eq!(counters.read_exact(&tenant, "views:1").await, Ok(0));
    assert_eq!(counters.read_approximate(&tenant, "views:1").await, Ok(0));
    assert_eq!(counters.shards(&tenant, "views:1").await, Ok(1));
}

#[tokio::test]
async fn what_many_count_on_two_nodes_while_it_grows_adds_up() {
    let home = home(&clock()).await;
    let tenant = Tenant::default();
    let nodes = [
        node(&home, CounterOptions::default()),
        node(&home, CounterOptions::default()),
    ];
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16_i64 {
        let (counters, tenant) = (nodes[task as usize % 2].clone(), tenant.clone());
        tasks.spawn(async move {
            for step in 0..50 {
                counters.increment(&tenant, "views:1", task - 3).await.unwrap();
                if task == 0 && step % 10 == 0 {
                    counters.grow(&tenant, "views:1").await.unwrap();
                }
            }
        });
    }
    tasks.join_all().await;
    let expected: i64 = (0..16).map(|task| (task - 3) * 50).sum();
    for counters in &nodes {
        assert_eq!(counters.read_exact(&tenant, "views:1").await, Ok(expected));
        assert_eq!(counters.shards(&tenant, "views:1").await, Ok(32));
    }
    // One that has never heard of the counter reads it right at once.
    let stranger = node(&home, CounterOptions::default());
    assert_eq!(
        stranger.counts(&tenant, &["views:1", "views:2"]).await,
        Ok(vec![expected, 0])
    );
}

#[tokio::test]
async fn counts_survive_a_restart() {
    let clock = clock();
    let home = home(&clock).await;
    let tenant = Tenant::default();
    let counters = node(&home, CounterOptions::default());
    counters.increment(&tenant, "views:1", 5).await.unwrap();
    counters.grow(&tenant, "views:1").await.unwrap();
    for _ in 0..20 {
        counters.increment(&tenant, "views:1", 1).await.unwrap();
    }
    let home = home.restart().await;
    home.create(&tables(), &[]).await;
    assert_eq!(
        node(&home, CounterOptions::default())
            .read_exact(&tenant, "views:1")
            .await,
        Ok(25)
    );
}

#[tokio::test]
async fn a_busy_counter_doubles_up_to_its_limit_and_a_calm_one_does_not() {
    let clock = clock();
    let home = home(&clock).await;
    let tenant = Tenant::default();
    let options = CounterOptions {
        rate_per_shard: 10.0,
        max_shards: 4,
        ..CounterOptions::default()
    };
    let counters = node(&home, options);
    let second_with = async |counter: &str, increments: usize| {
        for _ in 0..increments {
            counters.increment(&tenant, counter, 1).await.unwrap();
        }
        clock.advance(Duration::from_secs(1));
        counters.increment(&tenant, counter, 1).await.unwrap();
        counters.shards(&tenant, counter).await.unwrap()
    };
    assert_eq!(second_with("calm", 5).await, 1);
    assert_eq!(second_with("calm", 5).await, 1);
    assert_eq!(second_with("busy", 15).await, 2);
    // Two shards take twice as much before they count as busy.
    assert_eq!(second_with("busy", 15).await, 2);
    assert_eq!(second_with("busy", 25).await, 4);
    assert_eq!(second_with("busy", 60).await, 4);
    assert_eq!(
        counters.read_exact(&tenant, "busy").await,
        Ok(15 + 15 + 25 + 60 + 4)
    );
}

#[tokio::test]
async fn an_approximate_count_is_never_older_than_its_staleness() {
    let clock = clock();
    let home = home(&clock).await;
    let tenant = Tenant::default();
    let counters = node(&home, CounterOptions::default());
    counters.increment(&tenant, "views:1", 1).await.unwrap();
    assert_eq!(counters.read_approximate(&tenant, "views:1").await, Ok(1));
    counters.increment(&tenant, "views:1", 1).await.unwrap();
    clock.advance(Duration::from_millis(4_999));
    assert_eq!(counters.read_approximate(&tenant, "views:1").await, Ok(1));
    clock.advance(Duration::from_millis(1));
    assert_eq!(counters.read_approximate(&tenant, "views:1").await, Ok(2));
    assert_eq!(counters.read_exact(&tenant, "views:1").await, Ok(2));
}

#[tokio::test]
async fn counters_of_other_tenants_and_kinds_are_other_counters() {
    let home = home(&clock()).await;
    let counters = node(&home, CounterOptions::default());
    let (main, shop) = (Tenant::default(), Tenant::new("shop").unwrap());
    counters.increment(&main, "views:1", 1).await.unwrap();
    counters.increment(&shop, "views:1", 10).await.unwrap();
    let context = home.context();
    let unique = holon_counter::UniqueCounters::new(
        Arc::clone(&context.ports.store),
        context.clock,
        CounterOptions::default(),
    );
    unique.add(&main, "views:1", "ann", Vec::new()).await.unwrap();
    unique.add(&main, "views:1", "bob", Vec::new()).await.unwrap();
    assert_eq!(counters.read_exact(&main, "views:1").await, Ok(1));
    assert_eq!(counters.read_exact(&shop, "views:1").await, Ok(10));
    assert_eq!(unique.count_exact(&main, "views:1").await, Ok(2));
    assert_eq!(unique.count_exact(&shop, "views:1").await, Ok(0));
}

#[test]
fn all_of_this_on_servers() {
    holon_testkit::again_on_servers(&[(
        "an_approximate_count_is_never_older_than_its_staleness",
        "Redis lives by a clock of its own; its suite tries how long a load is fresh",
    )]);
}
