//! The routes, as a client uses them.
#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected must fail")]

mod common;

use common::{World, call, pages, respond};
use holon_base::{Id, Tenant};
use holon_contracts::person::Person;
use holon_feed::FeedOptions;
use holon_ports::{AroundStore, Consistency, Row, RowKey, Store, StoreError};
use holon_web::System;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

async fn world() -> World {
    World::new(12, FeedOptions::default()).await
}

fn ids(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_written_read_changed_and_taken_back() {
    let world = world().await;
    let body = json!({ "text": "Hello @u2 and @nobody_here #Rust #rust https://example.org" });
    let (status, made) = world.call("u1", "POST", "/v1/feed/posts", Some(body)).await;
    assert_eq!(status, 201);
    assert_eq!(made["hashtags"], json!(["rust"]));
    assert_eq!(made["mentions"], json!([{ "id": "3", "handle": "u2" }]));
    assert_eq!(made["kind"], "post");
    assert_eq!(
        made["author"],
        json!({ "id": "2", "handle": "u1", "name": "Person 2" })
    );
    assert_eq!(
        made["viewer"],
        json!({ "liked": false, "reposted": false, "bookmarked": false })
    );
    let path = format!("/v1/feed/posts/{}", made["id"].as_str().unwrap());

    let response = respond(&world.router, "nobody", "GET", &path, None, &[]).await;
    assert_eq!(response.status(), 200);
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    let read: Value =
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(read["text"], made["text"]);
    assert!(read.get("viewer").is_none());

    world.clock.advance(Duration::from_secs(60));
    let edit = |text: &str| Some(json!({ "text": text }));
    let (status, _) = world.call("u2", "PATCH", &path, edit("not mine")).await;
    assert_eq!(status, 403);
    let matching = [("if-match", tag.as_str())];
    let (status, edited) = call(&world.router, "u1", "PATCH", &path, edit("changed"), &matching).await;
    assert_eq!(status, 200, "{edited}");
    assert_eq!(edited["text"], "changed");
    assert!(edited["edited"].is_string());
    let (status, problem) = call(&world.router, "u1", "PATCH", &path, edit("again"), &matching).await;
    assert_eq!(status, 412, "{problem}");
    world.ok("u1", "PATCH", &path, edit("third")).await;
    let history = world.get("u3", &format!("{path}/history")).await;
    let texts: Vec<&str> = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|past| past["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["third", "changed", made["text"].as_str().unwrap()]);
    world.clock.advance(Duration::from_secs(300));
    let (status, _) = world.call("u1", "PATCH", &path, edit("too late")).await;
    assert_eq!(status, 403);

    assert_eq!(world.call("u2", "DELETE", &path, None).await.0, 403);
    assert_eq!(world.call("u1", "DELETE", &path, None).await.0, 204);
    assert_eq!(world.call("u1", "DELETE", &path, None).await.0, 404);
    assert_eq!(world.call("u1", "GET", &path, None).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_posted_is_refused_with_a_reason() {
    let world = world().await;
    let too_long = "x".repeat(281);
    for (body, field) in [
        (json!({ "text": " " }), "/text"),
        (json!({ "text": too_long }), "/text"),
        (json!({ "text": "a\u{0}" }), "/text"),
        (json!({ "text": "a", "replyTo": "5" }), "replyTo"),
        (json!({ "text": "a", "quoteOf": "x" }), "/quoteOf"),
        (json!({ "text": "a", "other": 1 }), "/other"),
    ] {
        let (status, problem) = world
            .call("u1", "POST", "/v1/feed/posts", Some(body.clone()))
            .await;
        assert_eq!(status, 400, "{body}: {problem}");
        assert_eq!(problem["field"], field, "{problem}");
    }
    let (status, _) = world
        .call("nobody", "POST", "/v1/feed/posts", Some(json!({ "text": "a" })))
        .await;
    assert_eq!(status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_makes_one_post() {
    let world = world().await;
    let body = Some(json!({ "text": "once" }));
    let key = [("idempotency-key", "k1")];
    let send = || call(&world.router, "u1", "POST", "/v1/feed/posts", body.clone(), &key);
    let answers = futures::future::join_all((0..8).map(|_| send())).await;
    let made: BTreeSet<&str> = answers
        .iter()
        .map(|(status, post)| {
            assert_eq!(*status, 201);
            post["id"].as_str().unwrap()
        })
        .collect();
    assert_eq!(made.len(), 1);
    let world = world.restart().await;
    let (status, again) = call(&world.router, "u1", "POST", "/v1/feed/posts", body.clone(), &key).await;
    assert_eq!(
        (status.as_u16(), again["id"].as_str().unwrap()),
        (201, *made.first().unwrap())
    );
    let other = Some(json!({ "text": "another" }));
    assert_eq!(
        call(&world.router, "u1", "POST", "/v1/feed/posts", other.clone(), &key)
            .await
            .0,
        422
    );
    // Another person's key is another key, and a day later it is forgotten.
    assert_eq!(
        call(&world.router, "u2", "POST", "/v1/feed/posts", other.clone(), &key)
            .await
            .0,
        201
    );
    world.clock.advance(Duration::from_secs(25 * 3_600));
    assert_eq!(
        call(&world.router, "u1", "POST", "/v1/feed/posts", other, &key)
            .await
            .0,
        201
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_make_a_thread_and_quotes_and_reposts_show_the_original() {
    let world = world().await;
    let root = world.post("u1", "root").await;
    let middle = world
        .post_with("u2", json!({ "text": "middle", "replyTo": root }))
        .await;
    let mut below = Vec::new();
    for n in 0..5 {
        below.push(
            world
                .post_with("u3", json!({ "text": format!("reply {n}"), "replyTo": middle }))
                .await,
        );
    }
    let thread = world
        .get("u4", &format!("/v1/feed/posts/{middle}/thread?limit=3"))
        .await;
    assert_eq!(thread["ancestors"][0]["id"], *root);
    assert_eq!(thread["post"]["counts"]["replies"], 5);
    let first: Vec<&str> = thread["replies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reply| reply["id"].as_str().unwrap())
        .collect();
    assert_eq!(first, &below[..3]);
    let next = thread["next"].as_str().unwrap();
    let rest = world
        .get(
            "u4",
            &format!("/v1/feed/posts/{middle}/thread?limit=3&cursor={next}"),
        )
        .await;
    assert_eq!(rest["replies"].as_array().unwrap().len(), 2);
    assert!(rest.get("next").is_none());

    let quote = world
        .post_with("u5", json!({ "text": "see this", "quoteOf": root }))
        .await;
    let shown = world.get("u4", &format!("/v1/feed/posts/{quote}")).await;
    assert_eq!(shown["quoteOf"]["text"], "root");
    assert_eq!(
        world.put("u6", &format!("/v1/feed/posts/{root}/repost")).await,
        json!({ "reposted": true, "reposts": 1 })
    );
    world.put("u6", &format!("/v1/feed/posts/{root}/repost")).await;
    let posts = world.get("u4", "/v1/feed/users/u6/posts").await;
    let repost = &posts["items"][0];
    assert_eq!(posts["items"].as_array().unwrap().len(), 1);
    assert_eq!((&repost["kind"], &repost["text"]), (&json!("repost"), &json!("")));
    assert_eq!(
        repost["repostOf"]["counts"],
        json!({ "likes": 0, "reposts": 1, "replies": 1, "quotes": 1 })
    );
    // What is done to a repost is done to the original.
    let repost_path = format!("/v1/feed/posts/{}/like", repost["id"].as_str().unwrap());
    assert_eq!(
        world.put("u7", &repost_path).await,
        json!({ "liked": true, "likes": 1 })
    );
    assert_eq!(
        world.get("u7", &format!("/v1/feed/posts/{root}")).await["viewer"]["liked"],
        true
    );

    world.delete("u1", &format!("/v1/feed/posts/{root}")).await;
    let shown = world.get("u4", &format!("/v1/feed/posts/{quote}")).await;
    assert_eq!(shown["quoteGone"], true);
    assert!(shown.get("quoteOf").is_none());
    assert_eq!(
        ids(&world.get("u4", "/v1/feed/users/u6/posts").await),
        Vec::<&str>::new()
    );
    let replies = pages(
        &world.router,
        "u4",
        "/v1/feed/users/u3/posts?replies=true&limit=2",
    )
    .await;
    assert_eq!(replies.len(), 5);
    assert!(
        pages(&world.router, "u4", "/v1/feed/users/u3/posts?limit=2")
            .await
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn likes_count_each_person_once_and_show_at_once() {
    let world = world().await;
    let post = world.post("u1", "like me").await;
    let path = format!("/v1/feed/posts/{post}");
    let like = format!("{path}/like");
    // Many at once, each several times, to and fro.
    let mut calls = Vec::new();
    for person in 2..10 {
        let (router, like) = (world.router.clone(), like.clone());
        calls.push(tokio::spawn(async move {
            let user = format!("u{person}");
            for method in ["PUT", "PUT", "DELETE", "PUT"] {
                let (status, answer) = call(&router, &user, method, &like, None, &[]).await;
                assert_eq!(status, 200, "{answer}");
            }
        }));
    }
    for call in calls {
        call.await.unwrap();
    }
    let shown = world.get("u2", &path).await;
    assert_eq!(shown["counts"]["likes"], 8);
    assert_eq!(shown["viewer"]["liked"], true);
    assert_eq!(
        world.delete("u2", &like).await,
        json!({ "liked": false, "likes": 7 })
    );
    assert_eq!(world.get("u2", &path).await["viewer"]["liked"], false);
    world.caught_up().await;
    let world = world.restart().await;
    assert_eq!(world.get("u3", &path).await["counts"]["likes"], 7);
    let people = pages(&world.router, "nobody", &format!("{like}s?limit=3")).await;
    assert_eq!(people.len(), 7);
    assert!(!people.contains(&"3".to_owned()));

    world.put("u3", &format!("{path}/bookmark")).await;
    assert_eq!(ids(&world.get("u3", "/v1/feed/bookmarks").await), [post.as_str()]);
    world.delete("u3", &format!("{path}/bookmark")).await;
    assert!(ids(&world.get("u3", "/v1/feed/bookmarks").await).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_blocks_and_mutes_show_in_lists_and_profiles() {
    let world = world().await;
    for user in ["u2", "u3"] {
        world.put(user, "/v1/feed/follows/u1").await;
    }
    world.put("u1", "/v1/feed/follows/u2").await;
    world.put("u1", "/v1/feed/follows/U2").await;
    world.caught_up().await;
    assert_eq!(world.call("u1", "PUT", "/v1/feed/follows/u1", None).await.0, 400);
    assert_eq!(world.call("u1", "PUT", "/v1/feed/follows/u99", None).await.0, 404);
    let profile = world.get("u2", "/v1/feed/users/u1").await;
    assert_eq!(
        profile["counts"],
        json!({ "posts": 0, "followers": 2, "following": 1 })
    );
    let expected = json!({ "following": true, "followedBy": true, "blocking": false, "blockedBy": false, "muting": false });
    assert_eq!(profile["viewer"], expected);
    let followers = world.get("u1", "/v1/feed/users/u1/followers?limit=1").await;
    assert_eq!(
        followers["items"][0],
        json!({ "id": "3", "handle": "u2", "name": "Person 3", "following": true })
    );
    assert_eq!(
        pages(&world.router, "u1", "/v1/feed/users/u1/followers?limit=1").await,
        ["3", "4"]
    );

    let post = world.post("u1", "for all but one").await;
    assert_eq!(
        world.put("u1", "/v1/feed/blocks/u2").await,
        json!({ "blocking": true })
    );
    assert_eq!(
        world
            .call("u2", "GET", &format!("/v1/feed/posts/{post}"), None)
            .await
            .0,
        404
    );
    assert_eq!(world.call("u2", "PUT", "/v1/feed/follows/u1", None).await.0, 403);
    assert_eq!(world.call("u1", "PUT", "/v1/feed/follows/u2", None).await.0, 403);
    assert_eq!(ids(&world.get("u1", "/v1/feed/blocks").await), ["3"]);
    assert!(ids(&world.get("u2", "/v1/feed/users/u1/posts").await).is_empty());
    world.caught_up().await;
    assert_eq!(
        world.get("u3", "/v1/feed/users/u1").await["counts"],
        json!({ "posts": 1, "followers": 1, "following": 0 })
    );
    world.delete("u1", "/v1/feed/blocks/u2").await;
    assert!(ids(&world.get("u1", "/v1/feed/blocks").await).is_empty());
    world.put("u2", "/v1/feed/follows/u1").await;
    world.put("u2", "/v1/feed/mutes/u1").await;
    assert_eq!(ids(&world.get("u2", "/v1/feed/mutes").await), ["2"]);
    assert!(world.home_of("u2", 10).await.is_empty());
    world.delete("u2", "/v1/feed/mutes/u1").await;
    world.caught_up().await;
    assert_eq!(world.home_of("u2", 10).await, [post]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_thing_that_happens_is_told_once() {
    let world = world().await;
    let post = world.post("u1", "mine").await;
    world.put("u2", "/v1/feed/follows/u1").await;
    for method in ["PUT", "DELETE", "PUT"] {
        world
            .ok("u2", method, &format!("/v1/feed/posts/{post}/like"), None)
            .await;
        world.caught_up().await;
    }
    world
        .post_with("u3", json!({ "text": "hey @u1, yes", "replyTo": post }))
        .await;
    world
        .post_with("u4", json!({ "text": "this", "quoteOf": post }))
        .await;
    world.put("u5", &format!("/v1/feed/posts/{post}/repost")).await;
    world.post("u6", "hi @u1").await;
    world.put("u1", &format!("/v1/feed/posts/{post}/like")).await;
    world.caught_up().await;
    let list = world.get("u1", "/v1/feed/notifications").await;
    let mut kinds: Vec<(&str, &str)> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (
                item["actor"]["handle"].as_str().unwrap(),
                item["kind"].as_str().unwrap(),
            )
        })
        .collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [
            ("u2", "follow"),
            ("u2", "like"),
            ("u3", "reply"),
            ("u4", "quote"),
            ("u5", "repost"),
            ("u6", "mention")
        ]
    );
    assert_eq!(list["unread"], 6);
    let newest = ids(&list)[0].to_owned();
    let read = world
        .ok(
            "u1",
            "PUT",
            "/v1/feed/notifications/read",
            Some(json!({ "upTo": newest })),
        )
        .await;
    assert_eq!(read, json!({ "unread": 0 }));
    assert_eq!(
        pages(&world.router, "u1", "/v1/feed/notifications?limit=2")
            .await
            .len(),
        6
    );
    world.put("u1", "/v1/feed/blocks/u6").await;
    assert_eq!(
        pages(&world.router, "u1", "/v1/feed/notifications?limit=2")
            .await
            .len(),
        5
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn trends_fade_and_tags_list_their_posts() {
    let world = world().await;
    for n in 0..6 {
        world.post("u1", &format!("old #early {n}")).await;
    }
    world.clock.advance(Duration::from_secs(50 * 60));
    let mut late = Vec::new();
    for n in 0..4 {
        late.push(world.post("u2", &format!("new #Late {n}")).await);
    }
    world.caught_up().await;
    let trends = world.get("nobody", "/v1/feed/trends?window=1h").await;
    let tags: Vec<&str> = trends["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|trend| trend["tag"].as_str().unwrap())
        .collect();
    assert_eq!(tags, ["late", "early"]);
    assert_eq!(trends["items"][1]["posts"], 6);
    let day = world.get("nobody", "/v1/feed/trends?window=24h").await;
    assert_eq!(day["items"][0]["tag"], "early");
    late.reverse();
    assert_eq!(
        pages(&world.router, "u3", "/v1/feed/tags/late/posts?limit=3").await,
        late
    );
    world.clock.advance(Duration::from_secs(2 * 3_600));
    let trends = world.get("nobody", "/v1/feed/trends?window=1h").await;
    assert!(trends["items"].as_array().unwrap().is_empty());
    assert_eq!(
        world
            .call("nobody", "GET", "/v1/feed/trends?window=2h", None)
            .await
            .0,
        400
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ranked_home_is_stable_diverse_explained_and_has_ones_own_post_on_top() {
    let world = world().await;
    for author in 1..9 {
        world.put("u0", &format!("/v1/feed/follows/u{author}")).await;
        for n in 0..8 {
            world.post(&format!("u{author}"), &format!("post {n}")).await;
        }
    }
    world.caught_up().await;
    world.clock.advance(Duration::from_secs(3_600));
    let liked = world.home_of("u0", 50).await[17].clone();
    for person in 1..12 {
        world
            .put(&format!("u{person}"), &format!("/v1/feed/posts/{liked}/like"))
            .await;
    }
    let path = "/v1/feed/home?order=ranked&explain=true&limit=9";
    let first = world.get("u0", path).await;
    assert_eq!(first, world.get("u0", path).await);
    assert_eq!(ids(&first)[0], liked);
    for item in first["items"].as_array().unwrap() {
        let features = item["explain"]["features"].as_array().unwrap();
        let sum: f64 = features
            .iter()
            .map(|feature| feature["share"].as_f64().unwrap())
            .sum();
        assert!((sum - 1.0).abs() < 1e-6, "{item}");
        assert_eq!(item["explain"]["source"], "pushed");
    }
    let all = pages(&world.router, "u0", "/v1/feed/home?order=ranked&limit=9").await;
    assert_eq!(
        all.iter().collect::<BTreeSet<_>>().len(),
        all.len(),
        "no post twice"
    );
    let mut authors = Vec::new();
    for id in &all {
        let post = world.get("u0", &format!("/v1/feed/posts/{id}")).await;
        authors.push(post["author"]["handle"].as_str().unwrap().to_owned());
    }
    for window in authors.windows(10) {
        for author in window {
            assert!(
                window.iter().filter(|other| *other == author).count() <= 2,
                "{window:?}"
            );
        }
    }
    let mine = world.post("u0", "mine").await;
    assert_eq!(ids(&world.get("u0", path).await)[0], mine);
    // What is unfollowed since is gone from the order that is being paged through.
    let page = world.get("u0", path).await;
    world.delete("u0", "/v1/feed/follows/u3").await;
    let next = page["next"].as_str().unwrap();
    let rest = pages(
        &world.router,
        "u0",
        &format!("/v1/feed/home?order=ranked&limit=50&cursor={next}"),
    )
    .await;
    for id in rest {
        assert_ne!(
            world.get("u0", &format!("/v1/feed/posts/{id}")).await["author"]["handle"],
            "u3"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_home_is_told_of_posts_and_deletions_by_every_transport() {
    let world = world().await;
    for follower in ["u1", "u2", "u3"] {
        world.put(follower, "/v1/feed/follows/u0").await;
    }
    world.caught_up().await;
    let since = world.get("u1", "/v1/feed/home").await["since"]
        .as_str()
        .unwrap()
        .to_owned();
    let router = world.router.clone();
    let poll_path = format!("/v1/feed/home?since={since}&wait=20");
    let poll = tokio::spawn(async move { call(&router, "u1", "GET", &poll_path, None, &[]).await });
    let accept = [("accept", "text/event-stream")];
    let events = respond(&world.router, "u2", "GET", "/v1/feed/home/live", None, &accept).await;
    let muting = respond(&world.router, "u3", "GET", "/v1/feed/home/live", None, &accept).await;
    assert_eq!(
        (events.status(), muting.status()),
        (http::StatusCode::OK, http::StatusCode::OK)
    );
    world.put("u3", "/v1/feed/mutes/u0").await;
    let (mut events, mut muting) = (events.into_body(), muting.into_body());

    let post = world.post("u0", "live!").await;
    let (status, polled) = poll.await.unwrap();
    assert_eq!((status.as_u16(), ids(&polled)), (200, vec![post.as_str()]));
    let told = next_event(&mut events, "post").await;
    assert_eq!(
        (&told["id"], &told["post"]["text"], &told["author"]["handle"]),
        (&json!(post), &json!("live!"), &json!("u0"))
    );
    world.delete("u0", &format!("/v1/feed/posts/{post}")).await;
    assert_eq!(next_event(&mut events, "deleted").await["id"], json!(post));
    // Who mutes hears of the deletion only.
    assert_eq!(next_event(&mut muting, "post|deleted").await["type"], "deleted");

    // Going on from a cursor: first what was missed.
    let missed = world.post("u0", "missed").await;
    world.caught_up().await;
    let path = format!("/v1/feed/home/live?since={}", told["since"].as_str().unwrap());
    let mut resumed = respond(&world.router, "u2", "GET", &path, None, &accept)
        .await
        .into_body();
    assert_eq!(next_event(&mut resumed, "post").await["id"], json!(missed));
    world.put("u4", "/v1/feed/follows/u2").await;
    assert_eq!(next_event(&mut resumed, "notification").await["unread"], 1);
    // Nothing new, no waiting.
    let since = polled["since"].as_str().unwrap();
    let after = world.get("u1", &format!("/v1/feed/home?since={since}")).await;
    assert_eq!(ids(&after), [missed.as_str()]);
    assert_eq!(
        world
            .call("u1", "GET", "/v1/feed/home?since=rubbish", None)
            .await
            .0,
        400
    );
}

/// The data of the next event of one of these kinds.
async fn next_event(body: &mut axum::body::Body, kinds: &str) -> Value {
    let mut text = String::new();
    let wanted = async {
        loop {
            let frame = body.frame().await.expect("the stream goes on").unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            while let Some((event, rest)) = text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data:"));
                let found = data.and_then(|data| serde_json::from_str::<Value>(data.trim()).ok());
                let rest = rest.to_owned();
                if let Some(found) = found
                    && kinds.split('|').any(|kind| found["type"] == kind)
                {
                    return found;
                }
                text = rest;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wanted)
        .await
        .expect("an event in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_exported_and_erased() {
    let world = world().await;
    let theirs = world.post("u1", "a private thought #thought").await;
    let other = world.post("u2", "somebody else's").await;
    world.put("u1", &format!("/v1/feed/posts/{other}/like")).await;
    world.put("u1", &format!("/v1/feed/posts/{other}/repost")).await;
    world.put("u1", "/v1/feed/follows/u2").await;
    world.put("u2", "/v1/feed/follows/u1").await;
    world.put("u3", "/v1/feed/mutes/u1").await;
    world.put("u1", "/v1/feed/blocks/u4").await;
    world.caught_up().await;
    assert_eq!(world.home_of("u2", 10).await.len(), 3);
    let person = Person {
        tenant: Tenant::default(),
        id: Id::from_u64(2),
        handle: "u1".into(),
    };
    let data = world.feed.clone().personal_data();
    let export = data.export(&person).await.unwrap();
    assert_eq!(export["posts"].as_array().unwrap().len(), 2);
    assert_eq!(export["likes"][0]["id"], *other);

    for _ in 0..2 {
        data.erase(&person).await.unwrap();
        world.caught_up().await;
    }
    assert_eq!(
        world
            .call("u2", "GET", &format!("/v1/feed/posts/{theirs}"), None)
            .await
            .0,
        404
    );
    let counts = &world.get("u2", &format!("/v1/feed/posts/{other}")).await["counts"];
    assert_eq!(
        *counts,
        json!({ "likes": 0, "reposts": 0, "replies": 0, "quotes": 0 })
    );
    assert_eq!(world.home_of("u2", 10).await, [other]);
    assert!(ids(&world.get("u2", "/v1/feed/notifications").await).is_empty());
    assert!(
        pages(&world.router, "u2", "/v1/feed/tags/thought/posts?limit=5")
            .await
            .is_empty()
    );
    assert_eq!(world.feed.check().await.unwrap(), Vec::<String>::new());
    // What is left of them: nothing that names them, in any table of the feed.
    let store = &world.home.context().ports.store;
    for table in world.feed.tables() {
        let (rows, _) = store.walk(table, None, 10_000).await.unwrap();
        for (partition, row) in rows {
            let is_theirs = ["user:2", "timeline:2"].contains(&partition.entity.as_str());
            assert!(
                !is_theirs || row.counter() != 0 || row.bytes().is_empty(),
                "{table:?} {partition:?} {row:?}"
            );
            let text = String::from_utf8_lossy(&row.bytes()).into_owned();
            assert!(
                !text.contains("private thought") && !text.contains("\"author\":\"2\""),
                "{table:?} {text}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_glass_box_shows_where_a_post_went() {
    let world = World::new(
        12,
        FeedOptions {
            push_below: 2,
            active_below: 100,
            ..FeedOptions::default()
        },
    )
    .await;
    for follower in 1..5 {
        world.put(&format!("u{follower}"), "/v1/feed/follows/u0").await;
    }
    world.put("u0", "/v1/feed/follows/u5").await;
    world.caught_up().await;
    world.get("u1", "/v1/feed/home").await;
    let post = world.post("u0", "see me").await;
    world.caught_up().await;
    let seen = world
        .get("admin", &format!("/v1/feed/inspect/posts/{post}"))
        .await;
    assert_eq!(
        (&seen["tier"], &seen["followers"], &seen["pending"]),
        (&json!("active"), &json!(4), &json!(false))
    );
    assert_eq!(seen["sample"].as_array().unwrap().len(), 4);
    assert_eq!(world.call("u1", "GET", "/v1/feed/inspect", None).await.0, 403);
    let home = world.get("admin", "/v1/feed/inspect/users/u2/home").await;
    assert_eq!(home["entries"][0]["source"], "pulled");
    assert_eq!(home["entries"][0]["rank"], 1);
    assert_eq!(home["pulledAuthors"], json!(["1"]));
    world.put("u2", "/v1/feed/mutes/u0").await;
    let home = world.get("admin", "/v1/feed/inspect/users/u2/home").await;
    assert_eq!(home["entries"][0]["hidden"], "muted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_describes_every_answer_that_was_given() {
    let world = world().await;
    let (_, document) = world.feed.clone().routes();
    let document = serde_json::to_value(&document).unwrap();
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(path.starts_with("/v1/feed/"), "{path}");
        for operation in item.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(operations.insert(id.to_owned()), "{id} twice");
            assert_eq!(operation["tags"], json!(["feed"]));
        }
    }
    assert_eq!(operations.len(), 35);
}

/// A store that counts how often each row was read, so slow that all have asked before the first is answered.
struct Reads {
    store: Arc<dyn Store>,
    of: Mutex<HashMap<RowKey, usize>>,
}

#[async_trait::async_trait]
impl AroundStore for Reads {
    fn inner(&self) -> &dyn Store {
        &*self.store
    }

    async fn get(&self, key: &RowKey, consistency: Consistency) -> Result<Option<Row>, StoreError> {
        let rows = AroundStore::get_many(self, std::slice::from_ref(key), consistency).await?;
        Ok(rows.into_iter().next().flatten())
    }

    async fn get_many(
        &self,
        keys: &[RowKey],
        consistency: Consistency,
    ) -> Result<Vec<Option<Row>>, StoreError> {
        for key in keys {
            *self.of.lock().entry(key.clone()).or_default() += 1;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.store.get_many(keys, consistency).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stampede_on_a_cold_post_reads_each_row_once_a_node() {
    let world = world().await;
    let post = world.post("u1", "everybody wants to see this").await;
    world.caught_up().await;
    // Nodes that have seen nothing yet.
    for nodes in [1, 2] {
        let reads = Arc::new(Reads {
            store: world.home.context().ports.store,
            of: Mutex::default(),
        });
        let routers: Vec<_> = (0..nodes).map(|_| world.node_on(reads.clone())).collect();
        let path = format!("/v1/feed/posts/{post}");
        let readers = (0..300).map(|n| call(&routers[n % nodes], "nobody", "GET", &path, None, &[]));
        for (status, shown) in futures::future::join_all(readers).await {
            assert_eq!((status.as_u16(), &shown["id"]), (200, &json!(post)));
        }
        let of = reads.of.lock();
        assert!(of.len() >= 2, "its author and itself at least: {of:?}");
        let often: Vec<_> = of.iter().filter(|(_, times)| **times > nodes).collect();
        assert!(often.is_empty(), "on {nodes} nodes: {often:?}");
    }
}

#[test]
fn all_of_this_on_servers() {
    holon_testkit::again_on_servers(&[]);
}
