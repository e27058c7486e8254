//! `holon serve` on servers of which one is away for a while: what goes on without it, what does not and says so, and
//! that all is well once it is back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

#[path = "support/files.rs"]
mod files;
#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/servers.rs"]
mod servers;
mod support;

use files::Files;
use futures::future::join_all;
use holon_testkit::{PATIENCE, eventually};
use http::Method;
use serde_json::{Value, json};
use servers::Servers;
use std::time::{Duration, Instant};
use support::{Answer, Api, Server, text};

const PEOPLE: usize = 40;
/// So few that a test can run out of them, and enough for who only goes on.
const LIMITS: [&str; 3] = [
    "rate_limit.enabled=true",
    "rate_limit.burst=600",
    "rate_limit.per_second=20",
];
/// More calls in a row than the limits let through.
const TOO_MANY: usize = 3_000;
/// No request may take longer, whatever is away: the store's patience and what a starved machine adds to it.
const LONGEST: Duration = Duration::from_secs(20);

struct Deployment {
    servers: Servers,
    a: Server,
    b: Server,
    directory: tempfile::TempDir,
}

impl Deployment {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let servers = Servers::start().await;
        let a = servers.node_with(0, &directory.path().join("a"), &LIMITS);
        let b = servers.node_with(1, &directory.path().join("b"), &LIMITS);
        Files::write(directory.path(), PEOPLE, 60).import(&a);
        Self {
            servers,
            a,
            b,
            directory,
        }
    }

    /// The same caller on both nodes.
    fn on_both(&self, token: &str) -> [Api; 2] {
        [&self.a, &self.b].map(|node| Api::new(&node.url, Some(token.to_owned())))
    }

    async fn administrator(&self) -> [Api; 2] {
        self.on_both(&self.a.admin_token())
    }
}

async fn post(api: &Api, path: &str, body: Value) -> Answer {
    api.send(Method::POST, path, &[], Some(&body)).await
}

/// The value of a metric without labels.
async fn metric(api: &Api, name: &str) -> f64 {
    let all = text(&api.get("/metrics").await.body);
    let line = all
        .lines()
        .find(|line| line.split(' ').next() == Some(name))
        .unwrap_or_else(|| panic!("no {name} in {all}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn until_metric(api: &Api, name: &str, is_right: impl Fn(f64) -> bool) {
    eventually(name, PATIENCE, || async {
        is_right(metric(api, name).await).then_some(())
    })
    .await;
}

/// The status of `/readyz`, and what it says of the store.
async fn readiness(api: &Api) -> (u16, String) {
    let answer = api.get("/readyz").await;
    let said = answer.json();
    let systems = said["systems"].as_array().unwrap();
    let store = systems.iter().find(|system| system["name"] == "store").unwrap();
    (
        answer.status.as_u16(),
        store["detail"].as_str().unwrap_or_default().to_owned(),
    )
}

/// Signs in and answers the access and the refresh token.
async fn sign_in(api: &Api) -> [String; 2] {
    let login = json!({"handle": "ada", "password": "correct horse battery"});
    let answer = post(api, "/v1/identity/login", login).await;
    assert_eq!(answer.status, 200, "{}", text(&answer.body));
    tokens(&answer)
}

fn tokens(answer: &Answer) -> [String; 2] {
    let body = answer.json();
    ["accessToken", "refreshToken"].map(|name| body[name].as_str().unwrap().to_owned())
}

async fn refresh(api: &Api, token: &str) -> Answer {
    post(
        api,
        "/v1/identity/tokens/refresh",
        json!({ "refreshToken": token }),
    )
    .await
}

async fn is_signed_in(api: &Api) -> bool {
    let answer = api.get("/v1/identity/me").await;
    assert!(
        matches!(answer.status.as_u16(), 200 | 401),
        "{}: {}",
        answer.status,
        text(&answer.body)
    );
    answer.status == 200
}

async fn until_signed_out(api: &Api) {
    eventually("a session that was ended to be refused", PATIENCE, || async {
        (!is_signed_in(api).await).then_some(())
    })
    .await;
}

/// Whatever a session goes through, on two nodes.
async fn sessions_are_right(deployment: &Deployment) {
    let [a, b] = deployment.on_both("").map(|api| api.with_token(None));
    let [access, first] = sign_in(&a).await;
    let [other_access, _] = sign_in(&b).await;
    for api in deployment.on_both(&access) {
        assert!(is_signed_in(&api).await);
    }
    let refreshed = refresh(&b, &first).await;
    assert_eq!(refreshed.status, 200, "{}", text(&refreshed.body));
    let [second_access, second] = tokens(&refreshed);
    let [third_access, _] = tokens(&refresh(&a, &second).await);
    // The first was used before its successor was: somebody has stolen it, and the whole session ends.
    assert_eq!(refresh(&b, &first).await.status, 401);
    for token in [access, second_access, third_access] {
        for api in deployment.on_both(&token) {
            until_signed_out(&api).await;
        }
    }
    let [on_a, on_b] = deployment.on_both(&other_access);
    assert!(is_signed_in(&on_a).await && is_signed_in(&on_b).await);
    assert_eq!(post(&on_a, "/v1/identity/logout", json!({})).await.status, 204);
    assert!(!is_signed_in(&on_a).await, "at once where it was ended");
    until_signed_out(&on_b).await;
}

/// Calls until one is held back; answers how many passed.
async fn passed(api: &Api, most: usize) -> usize {
    for call in 0..most {
        let answer = api.get("/v1/identity/me").await;
        if answer.status == 429 {
            return call;
        }
        assert_eq!(answer.status, 200, "{}", text(&answer.body));
    }
    most
}

async fn without_redis(deployment: &mut Deployment) {
    let [a, b] = deployment.administrator().await;
    let user = a.as_account("u39").await;
    assert!(passed(&user, TOO_MANY).await < TOO_MANY, "limits are in force");

    deployment.servers.redis.kill().await;
    sessions_are_right(deployment).await;
    // Limits fail open, also for whom they held back; behind the breaker they cost no time.
    let since = Instant::now();
    assert_eq!(passed(&user, 500).await, 500);
    assert!(since.elapsed() < LONGEST, "{:?}", since.elapsed());
    until_metric(&a, "holon_limit_uncounted", |calls| calls >= 500.0).await;
    for node in [&a, &b] {
        until_metric(node, "holon_cache_breakers_open", |open| open == 1.0).await;
        assert_eq!(readiness(node).await, (200, "ready".to_owned()));
    }

    deployment.servers.redis.restart().await;
    for node in [&a, &b] {
        until_metric(node, "holon_cache_breakers_open", |open| open == 0.0).await;
    }
    assert!(
        passed(&user, TOO_MANY).await < TOO_MANY,
        "limits are in force again"
    );
    let counted = metric(&a, "holon_limit_uncounted").await;
    passed(&user, 50).await;
    assert_eq!(metric(&a, "holon_limit_uncounted").await, counted);
    sessions_are_right(deployment).await;
}

async fn without_nats(deployment: &mut Deployment) {
    let [a, b] = deployment.administrator().await;
    let [u0, u1] = [a.as_account("u0").await, b.as_account("u1").await];
    deployment.servers.nats.kill().await;
    // Acknowledged, and there for everybody who asks the store.
    let mut posts = Vec::new();
    for n in 0..10 {
        let text = format!("while nobody hears it {n}, @u1");
        let made = post(&u0, "/v1/feed/posts", json!({ "text": text })).await;
        assert_eq!(made.status, 201, "{}", support::text(&made.body));
        posts.push(made.json()["id"].clone());
    }
    for id in &posts {
        let path = format!("/v1/feed/posts/{}", id.as_str().unwrap());
        assert_eq!(u1.read(&path).await["id"], *id);
    }
    sessions_are_right(deployment).await;
    for node in [&a, &b] {
        assert_eq!(readiness(node).await, (200, "ready".to_owned()));
    }
    deployment.servers.nats.restart().await;
    // Each is told once: it is in the follower's home and among the notifications, no more often than that.
    eventually("what was posted to be told", PATIENCE, || async {
        (mentions(&u1, &posts).await >= posts.len()).then_some(())
    })
    .await;
    let home = u1.list("/v1/feed/home?order=latest").await;
    let of_them: Vec<&Value> = home
        .iter()
        .map(|post| &post["id"])
        .filter(|id| posts.contains(id))
        .collect();
    let newest_first: Vec<&Value> = posts.iter().rev().collect();
    assert_eq!(of_them, newest_first);
    assert_eq!(mentions(&u1, &posts).await, posts.len());
}

/// How many notifications tell of these posts.
async fn mentions(api: &Api, posts: &[Value]) -> usize {
    let notifications = api.list("/v1/feed/notifications").await;
    let said: Vec<String> = notifications.iter().map(Value::to_string).collect();
    let tells = |said: &&String| posts.iter().any(|id| said.contains(id.as_str().unwrap()));
    said.iter().filter(tells).count()
}

async fn without_s3(deployment: &mut Deployment) {
    let [a, _] = deployment.administrator().await;
    deployment.servers.s3.kill().await;
    assert_eq!(readiness(&a).await, (200, "ready".to_owned()));
    assert_eq!(a.get("/v1/feed/home").await.status, 200);
    let u0 = a.as_account("u0").await;
    let made = post(&u0, "/v1/feed/posts", json!({"text": "without blobs"})).await;
    assert_eq!(made.status, 201, "{}", text(&made.body));
    deployment.servers.s3.restart().await;
    // A node that starts looks whether it may use the bucket.
    let data = deployment.directory.path().join("c");
    let c = deployment.servers.node_with(2, &data, &LIMITS);
    assert_eq!(Api::new(&c.url, None).get("/readyz").await.status, 200);
}

/// Everybody posts at once; answers the ids of what was acknowledged, and how many were refused.
async fn everybody_posts(people: &[Api]) -> (Vec<String>, usize) {
    let posting = people.iter().map(|api| async move {
        let since = Instant::now();
        let answer = post(api, "/v1/feed/posts", json!({"text": "is anybody there?"})).await;
        assert!(since.elapsed() < LONGEST, "{:?}", since.elapsed());
        match answer.status.as_u16() {
            201 => Some(answer.json()["id"].as_str().unwrap().to_owned()),
            503 => None,
            status => panic!("{status}: {}", text(&answer.body)),
        }
    });
    let answers = join_all(posting).await;
    let refused = answers.iter().filter(|answer| answer.is_none()).count();
    (answers.into_iter().flatten().collect(), refused)
}

async fn until_ready(nodes: &[Api], expected: (u16, &str)) {
    for node in nodes {
        eventually(&format!("a node to be {expected:?}"), PATIENCE, || async {
            let (status, said) = readiness(node).await;
            ((status, said.as_str()) == expected).then_some(())
        })
        .await;
    }
}

/// First one shard, the one that has the directory and the leases, then the other too, then both are back.
async fn without_shards(deployment: &mut Deployment) {
    let nodes = deployment.administrator().await;
    let [a, b] = &nodes;
    let handles: Vec<String> = (0..PEOPLE).map(|number| format!("u{number}")).collect();
    let people = join_all(handles.iter().map(|handle| a.as_account(handle))).await;
    let (acknowledged, refused) = everybody_posts(&people).await;
    assert_eq!((acknowledged.len(), refused), (PEOPLE, 0));

    deployment.servers.postgres[0].kill().await;
    let (more, refused) = everybody_posts(&people).await;
    assert!(!more.is_empty() && refused > 0, "{} and {refused}", more.len());
    until_ready(&nodes, (200, "of 2 shards these do not answer: a")).await;
    deployment.servers.postgres[1].kill().await;
    until_ready(&nodes, (503, "the database does not answer")).await;

    for shard in &mut deployment.servers.postgres {
        shard.start_again().await;
    }
    until_ready(&nodes, (200, "ready")).await;
    // Whose a post is lies in another partition. If that one was away, the fan-out has still to write it.
    for id in acknowledged.iter().chain(&more) {
        let path = format!("/v1/feed/posts/{id}");
        eventually("an acknowledged post to be found", PATIENCE, || async {
            (b.get(&path).await.status == 200).then_some(())
        })
        .await;
    }
    let (acknowledged, refused) = everybody_posts(&people).await;
    assert_eq!((acknowledged.len(), refused), (PEOPLE, 0));
    sessions_are_right(deployment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_away_for_a_while_takes_nothing_with_it() {
    let began = Instant::now();
    let say = |what: &str| eprintln!("{what} after {:.1} s", began.elapsed().as_secs_f64());
    let mut deployment = Deployment::start().await;
    let [a, _] = deployment.administrator().await;
    let ada = json!({"handle": "ada", "password": "correct horse battery"});
    assert_eq!(post(&a, "/v1/identity/accounts", ada).await.status, 201);
    say("a deployment runs");
    without_redis(&mut deployment).await;
    say("Redis was away");
    without_nats(&mut deployment).await;
    say("NATS was away");
    without_s3(&mut deployment).await;
    say("S3 was away");
    without_shards(&mut deployment).await;
    say("shards were away");
    let Deployment { a, b, .. } = deployment;
    b.stop();
    a.stop();
    say("stopped");
}
