//! Servers that are set back to a moment: PostgreSQL by its own tools, Holon on what they restored.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod support;

use holon_testkit::{NatsServer, PATIENCE, PostgresServer, RedisServer, eventually, recovery::Archive};
use http::Method;
use serde_json::json;
use std::path::Path;
use support::{Api, Server, holon, succeeds};

const PASSWORD: &str = "a long enough passphrase 7";

struct Servers {
    nats: NatsServer,
    redis: RedisServer,
}

impl Servers {
    /// A node on a database. Each has a log of its own, by its prefix.
    fn node(&self, number: u16, prefix: &str, postgres: &PostgresServer, data: &Path) -> Server {
        let settings = [
            format!("node={number}"),
            format!("engines.prefix={prefix}"),
            format!("engines.postgres={}", postgres.url()),
            format!("engines.nats={}", self.nats.url()),
            format!("engines.redis={}", self.redis.url()),
            "engines.secret=a-secret-of-the-test-that-has-32-bytes".into(),
            "rate_limit.enabled=false".into(),
        ];
        Server::start_with(data, "127.0.0.1:0", |command| {
            for setting in settings {
                command.args(["--set", &setting]);
            }
        })
    }
}

async fn say(api: &Api, text: &str) -> String {
    let body = json!({ "text": text });
    let answer = api.send(Method::POST, "/v1/feed/posts", &[], Some(&body)).await;
    assert_eq!(answer.status, 201);
    format!("/v1/feed/posts/{}", answer.json()["id"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_set_back_between_two_acknowledged_writes() {
    let directory = tempfile::tempdir().unwrap();
    let archive = Archive::new();
    let (postgres, nats, redis) = tokio::join!(
        PostgresServer::start_with(archive.options()),
        NatsServer::start(),
        RedisServer::start()
    );
    let servers = Servers { nats, redis };
    let data = directory.path().join("data");
    let node = servers.node(0, "before", &postgres, &data);
    let api = node.api();
    let body = json!({ "handle": "keeper", "password": PASSWORD });
    let made = api
        .send(Method::POST, "/v1/identity/accounts", &[], Some(&body))
        .await;
    assert_eq!(made.status, 201);
    let keeper = api.as_account("keeper").await;
    let base = archive.base_backup(&postgres).await;

    let first = say(&keeper, "the first").await;
    let between = postgres.query("SELECT clock_timestamp()").await;
    let second = say(&keeper, "the second").await;
    let last = postgres.query("SELECT pg_walfile_name(pg_switch_wal())").await;
    eventually("the log to be archived", PATIENCE, || async {
        let archived = postgres
            .query("SELECT last_archived_wal FROM pg_stat_archiver")
            .await;
        (archived >= last).then_some(())
    })
    .await;
    node.kill();
    drop(postgres);

    let restored = archive.restore(base, &between).await;
    // For ten seconds it looks as if the nodes of that moment still ran, and they had another log.
    let gone = "SELECT NOT EXISTS (SELECT FROM holon.leases WHERE name LIKE 'node.%' \
                AND expires > extract(epoch FROM clock_timestamp()) * 1000)";
    eventually("the nodes of that moment to be gone", PATIENCE, || async {
        (restored.query(gone).await == "t").then_some(())
    })
    .await;
    let node = servers.node(1, "after", &restored, &data);
    let (api, keeper) = (node.api(), keeper.at(&node.url));
    assert_eq!(keeper.read(&first).await["text"], "the first");
    assert_eq!(keeper.get(&second).await.status, 404);
    let login = api.with_token(None);
    let login = login
        .send(Method::POST, "/v1/identity/login", &[], Some(&body))
        .await;
    assert_eq!(login.status, 200);

    // Read models are made anew from the rows, and what comes next goes through the new log.
    let mut rebuild = holon();
    rebuild.args(["rebuild", "feed.home", "--server", &node.url]);
    rebuild.arg("--token-file").arg(data.join("admin.token"));
    let said = tokio::task::spawn_blocking(move || succeeds(&mut rebuild));
    assert!(said.await.unwrap().contains("done"));
    say(&keeper, "the third").await;
    eventually("the home to be as it must be", PATIENCE, || async {
        let home = keeper.list("/v1/feed/home?order=latest").await;
        let texts: Vec<_> = home.iter().map(|post| post["text"].as_str().unwrap()).collect();
        (texts == ["the third", "the first"]).then_some(())
    })
    .await;
    node.stop();
}
