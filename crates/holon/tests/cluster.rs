//! `holon serve` as several nodes: roles, one list of them, the view of another, and who may not join.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod support;

use holon_testkit::{NatsServer, PostgresServer, RedisServer, eventually};
use http::Method;
use serde_json::{Value, json};
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};
use support::{Api, Server, fails, holon};

const SECRET: &str = "engines.secret=a-secret-of-the-test-that-has-32-bytes";

/// What the nodes share.
struct Servers {
    postgres: PostgresServer,
    nats: NatsServer,
    redis: RedisServer,
}

impl Servers {
    async fn start() -> Self {
        let (postgres, nats, redis) =
            tokio::join!(PostgresServer::start(), NatsServer::start(), RedisServer::start());
        Self {
            postgres,
            nats,
            redis,
        }
    }

    fn configure(&self, node: u16, more: &[&str], command: &mut Command) {
        let settings = [
            format!("node={node}"),
            format!("engines.postgres={}", self.postgres.url()),
            format!("engines.nats={}", self.nats.url()),
            format!("engines.redis={}", self.redis.url()),
            SECRET.into(),
        ];
        for setting in settings.iter().map(String::as_str).chain(more.iter().copied()) {
            command.args(["--set", setting]);
        }
    }

    fn node(&self, node: u16, more: &[&str], directory: &Path) -> Server {
        let data = directory.join(node.to_string());
        Server::start_with(&data, "127.0.0.1:0", |command| {
            self.configure(node, more, command);
        })
    }

    /// What a node that may not join says; it runs beside what follows.
    fn refused(&self, node: u16, more: &[&str], directory: &Path) -> impl Future<Output = String> + use<> {
        // Should it join, it ends by itself, and the test fails.
        let mut command = Command::new("timeout");
        command
            .arg(support::PATIENCE.as_secs().to_string())
            .arg(support::BINARY);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(directory.join(format!("refused-{node}-{}", more.concat())));
        self.configure(node, more, &mut command);
        let said = tokio::task::spawn_blocking(move || fails(&mut command));
        async {
            let said = tokio::time::timeout(support::PATIENCE, said).await;
            said.expect("a node that may not join ends").unwrap()
        }
    }
}

/// Asks until the answer is as it should be.
async fn until(what: &str, api: &Api, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + support::PATIENCE;
    loop {
        let answer = api.get(path).await;
        if answer.status == 200 && is_so(&answer.json()) {
            return answer.json();
        }
        assert!(
            Instant::now() < end,
            "{what}: {} {}",
            answer.status,
            support::text(&answer.body)
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Each node with its state.
fn states(cluster: &Value) -> Vec<(u64, String)> {
    let nodes = cluster["nodes"].as_array().unwrap().iter();
    nodes
        .map(|node| {
            (
                node["node"].as_u64().unwrap(),
                node["state"].as_str().unwrap().to_owned(),
            )
        })
        // For a moment, on a machine that is busy.
        .map(|(node, state)| (node, if state == "suspect" { "alive".into() } else { state }))
        .collect()
}

fn are(expected: &[(u64, &str)]) -> impl Fn(&Value) -> bool {
    let expected: Vec<(u64, String)> = expected
        .iter()
        .map(|(node, state)| (*node, (*state).to_owned()))
        .collect();
    move |cluster| states(cluster) == expected
}

/// The node that relays the outbox.
fn relays(cluster: &Value) -> Option<u64> {
    let leaders = cluster["leaders"].as_array().unwrap();
    let relay = leaders
        .iter()
        .find(|leader| leader["name"].as_str().unwrap().starts_with("relay:"))?;
    relay["node"].as_u64()
}

const CLUSTER: &str = "/v1/admin/cluster";

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_roles_know_each_other_and_whoever_may_not_join_is_told_why() {
    let began = Instant::now();
    let say = |what: &str| eprintln!("{what} after {:.1} s", began.elapsed().as_secs_f64());
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let servers = Servers::start().await;
    say("servers run");

    let front = servers.node(0, &["roles=api"], directory);
    let back = servers.node(1, &["roles=workers,relay"], directory);
    let api = front.api();
    let both = until(
        "both to be there",
        &api,
        CLUSTER,
        are(&[(0, "alive"), (1, "alive")]),
    )
    .await;
    let [own, other] = both["nodes"].as_array().unwrap().as_slice() else {
        panic!("{both}");
    };
    assert_eq!(both["node"], 0);
    assert_eq!((&own["isSelf"], &own["roles"]), (&json!(true), &json!(["api"])));
    assert_eq!(
        (&other["isSelf"], &other["roles"]),
        (&json!(false), &json!(["workers", "relay"]))
    );
    assert_eq!(other["http"].as_str(), Some(back.address().as_str()));
    assert_eq!(other["schema"], own["schema"]);
    assert!(other["generation"].as_u64().unwrap() > 0, "{other}");
    say("two nodes know each other");

    // One has no routes but says how it is, and is seen through the other.
    let on_back = Api::new(&back.url, Some(front.admin_token()));
    assert_eq!(on_back.get("/livez").await.status, 200);
    assert_eq!(on_back.get("/readyz").await.status, 200);
    assert_eq!(on_back.get("/v1/admin/overview").await.status, 404);
    let seen = api.read("/v1/admin/overview?node=1").await;
    assert_eq!((&seen["node"], &seen["version"]), (&json!(1), &other["version"]));
    assert_eq!(api.read("/v1/admin/overview?node=0").await["node"], 0);
    assert_eq!(api.get("/v1/admin/overview?node=7").await.status, 404);
    assert_eq!(
        Api::new(&front.url, None)
            .get("/v1/admin/overview?node=1")
            .await
            .status,
        401
    );

    // What one takes in, the other works on.
    for handle in ["ann", "bob"] {
        let account = json!({"handle": handle, "name": handle, "password": "a long enough passphrase 7"});
        let made = api
            .send(Method::POST, "/v1/identity/accounts", &[], Some(&account))
            .await;
        assert!(made.status.is_success(), "{}", support::text(&made.body));
    }
    let (ann, bob) = (api.as_account("ann").await, api.as_account("bob").await);
    let post = json!({"text": "Hello @bob, I am on another node"});
    let posted = ann.send(Method::POST, "/v1/feed/posts", &[], Some(&post)).await;
    assert!(posted.status.is_success(), "{}", support::text(&posted.body));
    until("bob to be told", &bob, "/v1/feed/notifications", |list| {
        list["items"].as_array().is_some_and(|items| !items.is_empty())
    })
    .await;
    let led = until("the relay", &api, CLUSTER, |cluster| relays(cluster).is_some()).await;
    assert_eq!(relays(&led), Some(1), "{led}");
    let jobs = led["leaders"].as_array().unwrap().iter();
    let jobs: Vec<&Value> = jobs
        .filter(|leader| leader["name"].as_str().unwrap().starts_with("job."))
        .collect();
    assert!(
        !jobs.is_empty()
            && jobs
                .iter()
                .all(|job| job["node"] == 1 && job["fence"].as_u64() > Some(0)),
        "{led}"
    );
    say("one works on what the other takes in");

    // Who may not join. The first waits for longer than a node that died keeps its number.
    let twin = servers.refused(0, &[], directory);
    let third = servers.node(2, &[], directory);
    let stranger = servers.refused(3, &["feed.edit_window=1m"], directory).await;
    assert!(
        stranger.contains("feed.edit_window is \"1m\" here and \"5m\" on the nodes that run (")
            && stranger.contains("--set feed.edit_window=5m"),
        "{stranger}"
    );
    let lost = servers.refused(3, &["cluster.listen=0.0.0.0:0"], directory).await;
    assert!(lost.contains("cluster.advertise"), "{lost}");
    until(
        "three to be there",
        &api,
        CLUSTER,
        are(&[(0, "alive"), (1, "alive"), (2, "alive")]),
    )
    .await;
    say("a third joined, a stranger did not");

    // Frozen: the others take over what it did, and it is not waited for.
    back.signal("-STOP");
    until(
        "it to be dead",
        &api,
        CLUSTER,
        are(&[(0, "alive"), (1, "dead"), (2, "alive")]),
    )
    .await;
    let asked = Instant::now();
    let silent = api.get("/v1/admin/overview?node=1").await;
    assert_eq!(silent.status, 503, "{}", support::text(&silent.body));
    assert!(silent.json()["detail"].as_str().unwrap().contains("dead since"));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    until("another to relay", &api, CLUSTER, |cluster| {
        relays(cluster) == Some(2)
    })
    .await;
    say("a frozen node's relay taken over");
    back.signal("-CONT");
    until(
        "all to be back",
        &api,
        CLUSTER,
        are(&[(0, "alive"), (1, "alive"), (2, "alive")]),
    )
    .await;
    // It comes back to find that it relays no more.
    let led = api.read(CLUSTER).await;
    assert_eq!(relays(&led), Some(2), "{led}");
    say("it woke");
    let twin = twin.await;
    assert!(twin.contains("another process runs as node 0"), "{twin}");

    // Killed, and left in good order.
    back.kill();
    until(
        "it to be dead",
        &api,
        CLUSTER,
        are(&[(0, "alive"), (1, "dead"), (2, "alive")]),
    )
    .await;
    third.stop();
    until(
        "it to have left",
        &api,
        CLUSTER,
        are(&[(0, "alive"), (1, "dead"), (2, "left")]),
    )
    .await;
    front.stop();
    say("all gone");

    // With no node left, which takes as long as the number of one that was killed is kept, the deployment takes the
    // settings of whoever starts.
    let held = "SELECT count(*) FROM holon.leases WHERE name LIKE 'node.%' \
                AND expires > extract(epoch FROM clock_timestamp()) * 1000";
    eventually("the numbers to be free", support::PATIENCE, || async {
        (servers.postgres.query(held).await == "0").then_some(())
    })
    .await;
    let other = servers.node(4, &["feed.edit_window=1m"], directory);
    let stale = servers.refused(3, &[], directory).await;
    assert!(
        stale.contains("feed.edit_window is \"5m\" here and \"1m\""),
        "{stale}"
    );
    other.stop();
    say("settings changed");

    // A database whose clock is late, by a function that stands before its own.
    let late = "SET allow_system_table_mods = on; \
                ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO true_clock_timestamp; \
                CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql \
                AS $$ SELECT pg_catalog.true_clock_timestamp() - interval '4 seconds' $$";
    servers.postgres.query(late).await;
    let off = servers.refused(3, &[], directory).await;
    let (_, ahead) = off.split_once("the clock of this machine is ").expect(&off);
    assert!(
        ahead.starts_with("4.0 s ahead of") || ahead.starts_with("3.9 s ahead of"),
        "{off}"
    );
    let true_again = "SET allow_system_table_mods = on; DROP FUNCTION pg_catalog.clock_timestamp(); \
                      ALTER FUNCTION pg_catalog.true_clock_timestamp() RENAME TO clock_timestamp";
    servers.postgres.query(true_again).await;
    say("refused a clock");

    let newer = "INSERT INTO holon.migrations (version) VALUES (9999)";
    servers.postgres.query(newer).await;
    let old = servers.refused(3, &[], directory).await;
    assert!(old.contains("9999"), "{old}");
    say("refused what was off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_a_deployment_of_one() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let api = server.api();
    let cluster = api.read(CLUSTER).await;
    assert_eq!(states(&cluster), [(0, "alive".to_owned())]);
    assert_eq!(cluster["nodes"][0]["roles"], json!(["api", "workers", "relay"]));
    assert_eq!(
        cluster["nodes"][0]["http"].as_str(),
        Some(server.address().as_str())
    );
    assert_eq!(api.get("/v1/admin/overview?node=1").await.status, 404);
    until("its jobs to be led", &api, CLUSTER, |cluster| {
        let leaders = cluster["leaders"].as_array().unwrap();
        !leaders.is_empty() && leaders.iter().all(|leader| leader["node"] == 0)
    })
    .await;
    server.stop();

    let refused = fails(
        holon()
            .args(["serve", "--roles", "api", "--data"])
            .arg(directory.path()),
    );
    assert!(
        refused.contains("expected every role in a data directory"),
        "{refused}"
    );
}
