//! Unique counters: a member counts once, whatever grows, dies or happens at the same time.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use holon_base::Tenant;
use holon_counter::{CounterOptions, UniqueCounters, tables};
use holon_ports::{NewEvent, TopicSpec};
use holon_testkit::TestHome;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use support::history::{Change, Operation, is_linearisable};
use support::limited::LimitedStore;

const TOPIC: TopicSpec = TopicSpec {
    name: "test.likes",
    partitions: 1,
    max_age: None,
    max_bytes: None,
};

async fn home() -> TestHome {
    let home = TestHome::start().await;
    home.create(&tables(), &[TOPIC]).await;
    home
}

/// A node of its own: what it knows of counters is its own.
fn node(home: &TestHome) -> UniqueCounters {
    let context = home.context();
    UniqueCounters::new(context.ports.store, context.clock, CounterOptions::default())
        .with_cache(context.ports.cache)
}

fn liked(tenant: &Tenant, member: &str) -> Vec<NewEvent> {
    vec![NewEvent::new(
        TOPIC.name,
        tenant,
        "post:1",
        "test.liked.v1",
        "post:1",
        member,
    )]
}

#[tokio::test]
async fn a_member_counts_once_and_is_told_once() {
    let home = home().await;
    let likes = node(&home);
    let tenant = Tenant::default();
    for (member, changed) in [("ann", true), ("bob", true), ("ann", false)] {
        let change = likes
            .add(&tenant, "likes:1", member, liked(&tenant, member))
            .await;
        assert_eq!(change.unwrap().changed, changed);
    }
    assert_eq!(likes.count_exact(&tenant, "likes:1").await, Ok(2));
    assert_eq!(likes.count_approximate(&tenant, "likes:1").await, Ok(2));
    for changed in [true, false] {
        let change = likes.remove(&tenant, "likes:1", "ann", Vec::new()).await;
        assert_eq!(change.unwrap().changed, changed);
    }
    assert_eq!(likes.contains(&tenant, "likes:1", "ann").await, Ok(false));
    assert_eq!(likes.contains(&tenant, "likes:1", "bob").await, Ok(true));
    assert_eq!(likes.count_exact(&tenant, "likes:1").await, Ok(1));
    home.all_told().await;
    let told = home.context().ports.log.read(TOPIC.name, 0, 0, 10).await.unwrap();
    let told: Vec<String> = told.iter().map(|event| event.json().unwrap()).collect();
    assert_eq!(told, ["ann", "bob"]);
}

#[derive(Debug, Clone)]
enum Command {
    Add { counter: u8, member: u8 },
    Remove { counter: u8, member: u8 },
    Contains { member: u8 },
    Count,
    Members { counter: u8, limit: usize },
    Grow { counter: u8 },
}

fn command() -> impl Strategy<Value = Command> {
    let (counter, member) = (0_u8..3, 0_u8..24);
    prop_oneof![
        6 => (counter.clone(), member.clone()).prop_map(|(counter, member)| Command::Add { counter, member }),
        3 => (counter.clone(), member.clone()).prop_map(|(counter, member)| Command::Remove { counter, member }),
        1 => member.prop_map(|member| Command::Contains { member }),
        1 => Just(Command::Count),
        1 => (counter.clone(), 1_usize..6).prop_map(|(counter, limit)| Command::Members { counter, limit }),
        1 => counter.prop_map(|counter| Command::Grow { counter }),
    ]
}

/// Runs commands on two nodes in turn and compares each answer with plain sets.
async fn agrees_with_sets(home: &TestHome, case: u64, commands: &[Command]) {
    let nodes = [node(home), node(home)];
    let tenant = Tenant::default();
    let name = |counter: u8| format!("case-{case}:{counter}");
    let names: Vec<String> = (0..3).map(name).collect();
    let mut model: BTreeMap<String, BTreeSet<String>> =
        names.iter().map(|name| (name.clone(), BTreeSet::new())).collect();
    for (step, command) in commands.iter().enumerate() {
        let likes = &nodes[step % 2];
        match command {
            Command::Add { counter, member } => {
                let (counter, member) = (name(*counter), format!("m{member:02}"));
                let change = likes.add(&tenant, &counter, &member, Vec::new()).await.unwrap();
                assert_eq!(change.changed, model.get_mut(&counter).unwrap().insert(member));
            }
            Command::Remove { counter, member } => {
                let (counter, member) = (name(*counter), format!("m{member:02}"));
                let change = likes
                    .remove(&tenant, &counter, &member, Vec::new())
                    .await
                    .unwrap();
                assert_eq!(change.changed, model.get_mut(&counter).unwrap().remove(&member));
            }
            Command::Contains { member } => {
                let member = format!("m{member:02}");
                let found = likes.contains_many(&tenant, &names, &member).await.unwrap();
                let expected: Vec<bool> = names.iter().map(|name| model[name].contains(&member)).collect();
                assert_eq!(found, expected);
            }
            Command::Count => {
                let counts = likes.counts(&tenant, &names).await.unwrap();
                let expected: Vec<i64> = names.iter().map(|name| model[name].len() as i64).collect();
                assert_eq!(counts, expected);
            }
            Command::Members { counter, limit } => {
                let counter = name(*counter);
                let mut read = Vec::new();
                let mut after: Option<String> = None;
                loop {
                    let page = likes
                        .members(&tenant, &counter, after.as_deref(), *limit)
                        .await
                        .unwrap();
                    assert!(page.items.len() <= *limit);
                    read.extend(page.items.into_iter().map(|member| member.name));
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                let expected: Vec<String> = model[&counter].iter().cloned().collect();
                assert_eq!(read, expected);
            }
            Command::Grow { counter } => {
                likes.grow(&tenant, &name(*counter)).await.unwrap();
            }
        }
    }
}

#[test]
fn any_commands_on_two_nodes_answer_as_sets_do() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = runtime.block_on(home());
    let cases = AtomicU64::new(0);
    let config = ProptestConfig {
        cases: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(commands in prop::collection::vec(command(), 1..80))| {
        let case = cases.fetch_add(1, Ordering::Relaxed);
        runtime.block_on(agrees_with_sets(&home, case, &commands));
    });
}

/// Tasks on three nodes add and remove the same few members while the counter grows from 1 shard to 64.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_are_linearisable_while_the_counter_grows() {
    const TASKS: usize = 4;
    const ROUNDS: usize = 25;
    const MEMBERS: usize = 12;
    let home = home().await;
    let tenant = Tenant::default();
    let nodes = [node(&home), node(&home), node(&home)];
    let time = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let likes = nodes[task % nodes.len()].clone();
        let (tenant, time) = (tenant.clone(), Arc::clone(&time));
        tasks.spawn(async move {
            let mut operations = Vec::new();
            for round in 0..ROUNDS {
                for step in 0..MEMBERS {
                    let member = (step + task * 5) % MEMBERS;
                    let name = format!("m{member}");
                    let adds = (round + task + member).is_multiple_of(2);
                    let began = time.fetch_add(1, Ordering::SeqCst);
                    let change = if adds {
                        likes.add(&tenant, "likes:1", &name, Vec::new()).await
                    } else {
                        likes.remove(&tenant, "likes:1", &name, Vec::new()).await
                    };
                    let ended = time.fetch_add(1, Ordering::SeqCst);
                    let changed = change.unwrap().changed;
                    let what = if adds { Change::Add } else { Change::Remove };
                    operations.push((
                        member,
                        Operation {
                            what,
                            changed,
                            began,
                            ended,
                        },
                    ));
                }
                if task == 0 && round % 4 == 3 {
                    likes.grow(&tenant, "likes:1").await.unwrap();
                }
            }
            operations
        });
    }
    let histories = tasks.join_all().await;
    assert_eq!(nodes[1].shards(&tenant, "likes:1").await, Ok(64));
    let mut expected = 0;
    for member in 0..MEMBERS {
        let history: Vec<Vec<Operation>> = histories
            .iter()
            .map(|task| {
                let of_member = task.iter().filter(|(of, _)| *of == member);
                of_member.map(|(_, operation)| *operation).collect()
            })
            .collect();
        let present = nodes[2]
            .contains(&tenant, "likes:1", &format!("m{member}"))
            .await
            .unwrap();
        assert!(
            is_linearisable(&history, present),
            "member {member} ends {present}: {history:#?}"
        );
        expected += i64::from(present);
    }
    for likes in &nodes {
        assert_eq!(likes.count_exact(&tenant, "likes:1").await, Ok(expected));
    }
    let members = nodes[0].members(&tenant, "likes:1", None, 100).await.unwrap();
    assert_eq!(members.items.len() as i64, expected);
}

/// Whatever step of a growth is the last one that its node takes, the others go on and nothing counts twice.
#[tokio::test]
async fn a_growth_that_was_cut_off_is_finished_by_others() {
    let home = home().await;
    let tenant = Tenant::default();
    let names: Vec<String> = (0..32).map(|i| format!("m{i}")).collect();
    // Growing from four shards to eight is four seals and one publication.
    for steps in 0..=5 {
        let counter = format!("likes:{steps}");
        let others = node(&home);
        for name in &names {
            others.add(&tenant, &counter, name, Vec::new()).await.unwrap();
        }
        others.grow(&tenant, &counter).await.unwrap();
        others.grow(&tenant, &counter).await.unwrap();
        let context = home.context();
        let limited = LimitedStore::new(context.ports.store, steps);
        let dying = UniqueCounters::new(Arc::new(limited), context.clock, CounterOptions::default());
        assert_eq!(dying.grow(&tenant, &counter).await.is_ok(), steps == 5);
        for name in &names {
            let again = others.add(&tenant, &counter, name, Vec::new()).await.unwrap();
            assert!(!again.changed, "{name} after {steps} steps");
        }
        let count = names.len() as i64;
        assert_eq!(others.count_exact(&tenant, &counter).await, Ok(count));
        for name in names.iter().take(7) {
            assert!(
                others
                    .remove(&tenant, &counter, name, Vec::new())
                    .await
                    .unwrap()
                    .changed
            );
            assert!(
                !others
                    .remove(&tenant, &counter, name, Vec::new())
                    .await
                    .unwrap()
                    .changed
            );
        }
        assert_eq!(node(&home).count_exact(&tenant, &counter).await, Ok(count - 7));
    }
}

#[test]
fn all_of_this_on_servers() {
    holon_testkit::again_on_servers(&[]);
}
