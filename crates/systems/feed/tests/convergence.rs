//! Whatever happens in whatever order, with all tiers in play: a home is what its definition says.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected must fail")]

mod common;

use common::{World, call, handle_of, id_of, pages};
use holon_base::{Id, Tenant};
use holon_feed::FeedOptions;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use std::{sync::Arc, time::Duration};

const PEOPLE: u64 = 40;

fn tiny_tiers() -> FeedOptions {
    FeedOptions {
        push_below: 5,
        active_below: 12,
        timeline_entries: 20,
        timeline_slack: 5,
        post_partitions: 4,
        consumers: 2,
        ..FeedOptions::default()
    }
}

/// One random act of one person; whatever it answers, it is no server error.
async fn act(router: &axum::Router, random: &mut StdRng, posts: &Mutex<Vec<String>>) {
    // The first few are followed by many and the last by few, so that all tiers are in play.
    let somebody = |random: &mut StdRng| {
        let among = [5, 5, 20, 20, 20, 20, 20, PEOPLE][random.random_range(0..8)];
        format!("u{}", random.random_range(0..among))
    };
    let user = format!("u{}", random.random_range(0..PEOPLE));
    let other = somebody(random);
    let known = {
        let posts = posts.lock();
        (!posts.is_empty()).then(|| posts[random.random_range(0..posts.len())].clone())
    };
    let (method, path, body) = match (random.random_range(0..100), known) {
        (0..26, _) | (_, None) => {
            let author = somebody(random);
            let body = json!({ "text": format!("words {}", random.random::<u32>()) });
            let (status, made) = call(router, &author, "POST", "/v1/feed/posts", Some(body), &[]).await;
            assert_eq!(status, 201, "{made}");
            posts.lock().push(made["id"].as_str().unwrap().to_owned());
            return;
        }
        (26..32, Some(post)) => (
            "POST",
            "/v1/feed/posts".into(),
            Some(json!({ "text": "a reply", "replyTo": post })),
        ),
        (32..36, Some(post)) => (
            "POST",
            "/v1/feed/posts".into(),
            Some(json!({ "text": "a quote", "quoteOf": post })),
        ),
        (36..44, Some(post)) => ("PUT", format!("/v1/feed/posts/{post}/repost"), None),
        (44..46, Some(post)) => ("DELETE", format!("/v1/feed/posts/{post}/repost"), None),
        (46..52, Some(post)) => {
            // Whoever wrote it takes it back.
            let (status, found) = call(
                router,
                "admin",
                "GET",
                &format!("/v1/feed/posts/{post}"),
                None,
                &[],
            )
            .await;
            assert!(status == 200 || status == 404, "{found}");
            let Some(author) = found["author"]["handle"].as_str() else {
                return;
            };
            let path = format!("/v1/feed/posts/{post}");
            let (status, answer) = call(router, author, "DELETE", &path, None, &[]).await;
            assert!(status == 204 || status == 404, "{answer}");
            return;
        }
        (52..76, _) => ("PUT", format!("/v1/feed/follows/{other}"), None),
        (76..86, _) => ("DELETE", format!("/v1/feed/follows/{other}"), None),
        (86..88, _) => ("PUT", format!("/v1/feed/blocks/{other}"), None),
        (88..91, _) => ("DELETE", format!("/v1/feed/blocks/{other}"), None),
        (91..93, _) => ("PUT", format!("/v1/feed/mutes/{other}"), None),
        (93..95, _) => ("DELETE", format!("/v1/feed/mutes/{other}"), None),
        (95..97, Some(post)) => ("PUT", format!("/v1/feed/posts/{post}/like"), None),
        (_, Some(_)) => ("GET", "/v1/feed/home?limit=7".into(), None),
    };
    let (status, answer) = call(router, &user, method, &path, body, &[]).await;
    assert!(!status.is_server_error(), "{user} {method} {path}: {answer}");
    if method == "POST"
        && let Some(id) = answer["id"].as_str()
    {
        posts.lock().push(id.to_owned());
    }
}

async fn busy_round(world: &World, seed: u64, acts: usize, posts: &Arc<Mutex<Vec<String>>>) {
    let workers: Vec<_> = (0..4_u64)
        .map(|worker| {
            let (router, posts) = (world.router.clone(), posts.clone());
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed * 10 + worker);
                for _ in 0..acts {
                    act(&router, &mut random, &posts).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

/// Every home, read with pages of some size, is what the rows say it should be.
async fn assert_homes(world: &World, limit: usize, when: &str) {
    let oracles = world.feed.oracles().await.unwrap();
    let oracle = &oracles[&Tenant::default()];
    for person in 0..PEOPLE {
        let user = format!("u{person}");
        let served = world.home_of(&user, limit).await;
        let expected: Vec<String> = oracle
            .home(id_of(&user).unwrap())
            .iter()
            .map(Id::to_string)
            .collect();
        assert_eq!(served, expected, "home of {user}, {when}, pages of {limit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_home_is_what_the_definition_says_whatever_went_on() {
    let mut world = World::new(PEOPLE, tiny_tiers()).await;
    let posts = Arc::new(Mutex::new(Vec::new()));
    for round in 0..6 {
        busy_round(&world, round, 120, &posts).await;
        world.caught_up().await;
        let limit = [1, 7, 50, 200, 13, 33][round as usize];
        assert_homes(&world, limit, &format!("round {round}")).await;
        let faults = holon_web::System::check(&*world.feed).await.unwrap();
        assert_eq!(faults, Vec::<String>::new());
        // Some look at their homes and are active; some do not for days.
        world.clock.advance(Duration::from_secs(match round {
            2 => 8 * 86_400,
            _ => 5 * 3_600,
        }));
        if round == 3 {
            // The process dies with events in hand.
            busy_round(&world, 100, 30, &posts).await;
            world = world.restart().await;
            world.caught_up().await;
            assert_homes(&world, 20, "after a restart").await;
        }
    }
    let inspection = world.get("admin", "/v1/feed/inspect").await;
    for tier in ["push", "active", "pull"] {
        let authors = inspection["authorsByTier"][tier].as_u64().unwrap();
        assert!(authors > 0, "no author in tier {tier}: {inspection}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_reader_changes_is_so_on_the_next_read_with_the_fan_out_standing_still() {
    let mut world = World::new(PEOPLE, tiny_tiers()).await;
    let posts = Arc::new(Mutex::new(Vec::new()));
    busy_round(&world, 7, 150, &posts).await;
    world.caught_up().await;
    world.home.stop().await;
    let oracles = world.feed.oracles().await.unwrap();
    let oracle = &oracles[&Tenant::default()];
    let mut changed = 0;
    for person in 0..PEOPLE {
        let user = format!("u{person}");
        let home = oracle.home(id_of(&user).unwrap());
        let page = world.get(&user, "/v1/feed/home?limit=50").await;
        let Some(first) = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|item| item["author"]["handle"] != user.as_str())
        else {
            continue;
        };
        let author = first["author"]["handle"].as_str().unwrap().to_owned();
        match person % 4 {
            0 => drop(world.delete(&user, &format!("/v1/feed/follows/{author}")).await),
            1 => drop(world.put(&user, &format!("/v1/feed/blocks/{author}")).await),
            2 => drop(world.put(&user, &format!("/v1/feed/mutes/{author}")).await),
            // Blocked by the other.
            _ => drop(world.put(&author, &format!("/v1/feed/blocks/{user}")).await),
        }
        let served = world.home_of(&user, 11).await;
        let expected: Vec<String> = world.feed.oracles().await.unwrap()[&Tenant::default()]
            .home(id_of(&user).unwrap())
            .iter()
            .map(Id::to_string)
            .collect();
        assert_eq!(served, expected, "home of {user} right after a change");
        assert!(served.len() < home.len());
        changed += 1;
    }
    assert!(changed > PEOPLE / 2);
    // One's own post and its deletion, too.
    let mine = world.post("u9", "mine").await;
    assert_eq!(world.home_of("u9", 50).await.first(), Some(&mine));
    world.delete("u9", &format!("/v1/feed/posts/{mine}")).await;
    assert!(!world.home_of("u9", 50).await.contains(&mine));
    world.start_consumers();
    world.caught_up().await;
    assert_homes(&world, 50, "after the fan-out went on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeline_keeps_its_size_and_deep_pages_are_complete() {
    let options = FeedOptions {
        push_below: 1_000,
        active_below: 2_000,
        timeline_entries: 20,
        timeline_slack: 5,
        ..FeedOptions::default()
    };
    let world = World::new(PEOPLE, options).await;
    for author in 1..6 {
        for n in 0..15 {
            world.post(&format!("u{author}"), &format!("early {n}")).await;
        }
        world.put("u0", &format!("/v1/feed/follows/u{author}")).await;
    }
    for n in 0..30 {
        world.post(&format!("u{}", 1 + n % 5), &format!("late {n}")).await;
    }
    world.caught_up().await;
    let home = world.home_of("u0", 10).await;
    assert_eq!(home.len(), 5 * 15 + 30);
    let inspection = world
        .get("admin", "/v1/feed/inspect/users/u0/home?limit=200")
        .await;
    let entries = inspection["entries"].as_array().unwrap();
    let pushed = entries.iter().filter(|entry| entry["source"] == "pushed").count();
    assert!((1..=25).contains(&pushed), "{pushed} entries are pushed");
    assert_ne!(inspection["floor"], "0");
    assert_eq!(entries.len(), home.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn homes_are_right_while_they_are_built_anew_and_after() {
    let world = World::new(PEOPLE, tiny_tiers()).await;
    let posts = Arc::new(Mutex::new(Vec::new()));
    busy_round(&world, 21, 150, &posts).await;
    world.caught_up().await;
    let rebuild = holon_web::System::projections(world.feed.clone())
        .into_iter()
        .find(|projection| projection.name == "feed.home")
        .unwrap();
    let router = world.router.clone();
    let before = pages(&router, "u1", "/v1/feed/home?limit=5").await;
    let (built, reads) = tokio::join!((rebuild.rebuild)(), async {
        let mut reads = Vec::new();
        for _ in 0..10 {
            reads.push(pages(&router, "u1", "/v1/feed/home?limit=5").await);
        }
        reads
    });
    built.unwrap();
    assert!(reads.iter().all(|read| *read == before));
    // And again with people acting meanwhile.
    let (built, ()) = tokio::join!((rebuild.rebuild)(), busy_round(&world, 22, 60, &posts));
    built.unwrap();
    world.caught_up().await;
    assert_homes(&world, 9, "after a rebuild").await;
}

#[test]
fn handles_and_ids_go_both_ways() {
    assert_eq!(id_of(&handle_of(Id::from_u64(7))), Some(Id::from_u64(7)));
}

#[test]
fn all_of_this_on_servers() {
    holon_testkit::again_on_servers(&[]);
}
