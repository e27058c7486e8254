//! `holon migrate` to two shards, NATS and S3, and back, killed on the way in both directions.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

#[path = "support/files.rs"]
mod files;
#[path = "support/oracle.rs"]
mod oracle;
mod support;

use files::Files;
use futures::{StreamExt as _, TryStreamExt as _};
use holon_base::Tenant;
use holon_embedded::{Engine, EngineOptions};
use holon_ports::{BlobId, log::Progress};
use holon_testkit::{NatsServer, PostgresServer, RedisServer, S3Server};
use http::Method;
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use support::{Api, Server, fails, holon, succeeds};

const TEXTS: usize = 700;
const PEOPLE: usize = 120;
const PASSWORD: &str = "a long enough passphrase 7";
const TIERS: [&str; 3] = [
    "rate_limit.enabled=false",
    "feed.push_below=4",
    "feed.active_below=60",
];

struct Servers {
    postgres: [PostgresServer; 2],
    nats: NatsServer,
    redis: RedisServer,
    s3: S3Server,
}

impl Servers {
    async fn start() -> Self {
        let (one, two, nats, redis, s3) = tokio::join!(
            PostgresServer::start(),
            PostgresServer::start(),
            NatsServer::start(),
            RedisServer::start(),
            S3Server::start()
        );
        Self {
            postgres: [one, two],
            nats,
            redis,
            s3,
        }
    }

    fn configure(&self, command: &mut Command) {
        let [one, two] = &self.postgres;
        let settings = [
            format!("engines.postgres=a={},b={}", one.url(), two.url()),
            format!("engines.nats={}", self.nats.url()),
            format!("engines.redis={}", self.redis.url()),
            format!("engines.s3_endpoint={}", self.s3.endpoint()),
            format!("engines.s3_bucket={}", self.s3.bucket()),
            format!("engines.s3_access_key={}", self.s3.access_key_id()),
            format!("engines.s3_secret_key={}", self.s3.secret_access_key()),
            "engines.secret=a-secret-of-the-test-that-has-32-bytes".into(),
        ];
        for setting in settings {
            command.args(["--set", &setting]);
        }
    }

    fn node(&self, data: &Path) -> Server {
        Server::start_with(data, "127.0.0.1:0", |command| {
            self.configure(command);
            with_tiers(command);
        })
    }

    fn migrate(&self, direction: &str, directory: &Path, node: &Path) -> Command {
        let mut command = holon();
        command.arg("migrate").arg(direction).arg(directory);
        command.arg("--data").arg(node);
        self.configure(&mut command);
        command
    }

    /// The table at which an unfinished copy into the servers is; empty before the first page of one is there.
    async fn reached(&self) -> String {
        let mut reached = String::new();
        for shard in &self.postgres {
            let is_there = shard
                .query("SELECT to_regclass('holon.\"deployment.facts\"') IS NOT NULL")
                .await;
            if is_there == "t" {
                reached += &shard
                    .query("SELECT json->>'table' FROM holon.\"deployment.facts\" WHERE sort = 'copy'")
                    .await;
            }
        }
        reached
    }
}

fn with_tiers(command: &mut Command) {
    for tier in TIERS {
        command.args(["--set", tier]);
    }
}

fn serve(data: &Path) -> Server {
    Server::start_with(data, "127.0.0.1:0", with_tiers)
}

async fn engine(data: &Path) -> Engine {
    Engine::open(EngineOptions::new(data)).await.unwrap()
}

/// How far every group is, as the directory says.
async fn groups(engine: &Engine) -> BTreeMap<(String, String), Vec<Progress>> {
    let log = engine.ports().log;
    let mut groups = BTreeMap::new();
    for (group, topic) in log.groups().await.unwrap() {
        let progress = log.progress(&group, &topic).await.unwrap();
        groups.insert((group, topic), progress);
    }
    groups
}

fn blob() -> Vec<u8> {
    (0..3_000_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

/// Starts a command and kills it once a condition holds.
async fn killed_when<F: Future<Output = bool>>(command: &mut Command, mut holds: impl FnMut() -> F) {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + support::PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "the copy does not get on");
        assert!(child.try_wait().unwrap().is_none(), "the copy is over already");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
}

async fn sign_in(api: &Api) {
    let body = json!({ "handle": "keeper", "password": PASSWORD });
    let nobody = api.with_token(None);
    let login = nobody
        .send(Method::POST, "/v1/identity/login", &[], Some(&body))
        .await;
    assert_eq!(login.status, 200);
}

/// What people held before is still good.
struct Held {
    token: Api,
    cursor: String,
    post: String,
    etag: String,
}

impl Held {
    async fn take(api: &Api) -> Self {
        let body = json!({ "handle": "keeper", "password": PASSWORD });
        let made = api
            .send(Method::POST, "/v1/identity/accounts", &[], Some(&body))
            .await;
        assert_eq!(made.status, 201);
        let token = api.as_account("u5").await;
        let page = token.read("/v1/feed/home?order=latest&limit=3").await;
        let mine = token.read("/v1/feed/users/u5/posts?limit=1").await;
        let post = mine["items"][0]["id"].as_str().unwrap().to_owned();
        let etag = token.get(&format!("/v1/feed/posts/{post}")).await;
        Self {
            cursor: page["next"].as_str().unwrap().to_owned(),
            etag: etag.header("etag").to_owned(),
            token,
            post,
        }
    }

    async fn is_good(&self, server: &Server) {
        let token = self.token.at(&server.url);
        let path = format!("/v1/feed/home?order=latest&limit=3&cursor={}", self.cursor);
        assert_eq!(token.read(&path).await["items"].as_array().unwrap().len(), 3);
        let post = token.get(&format!("/v1/feed/posts/{}", self.post)).await;
        assert_eq!(post.header("etag"), self.etag);
        sign_in(&token).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_moves_to_servers_and_back() {
    let began = Instant::now();
    let say = |what: &str| eprintln!("{what} after {:.1} s", began.elapsed().as_secs_f64());
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let files = Files::write(directory.path(), PEOPLE, TEXTS);
    let starting = tokio::spawn(Servers::start());
    let server = serve(&at("data"));
    files.import(&server);
    let held = Held::take(&server.api()).await;
    server.stop();
    let servers = starting.await.unwrap();
    say("imported");

    // What no route makes yet: a blob, and an event that a group gave up on.
    let before = engine(&at("data")).await;
    let ports = before.ports();
    let tenant = Tenant::default();
    let content = futures::stream::iter([Ok(blob().into())]).boxed();
    let id = ports.blobs.put(&tenant, content).await.unwrap().id;
    ports.blobs.hold(&tenant, &id, "photo:1").await.unwrap();
    let at_first = groups(&before).await;
    let (group, topic) = at_first
        .keys()
        .find(|(_, topic)| topic.starts_with("feed"))
        .unwrap();
    let partition = at_first[&(group.clone(), topic.clone())]
        .iter()
        .find(|progress| progress.next > 0)
        .unwrap()
        .partition;
    let event = ports.log.read(topic, partition, 0, 1).await.unwrap().remove(0);
    ports
        .log
        .bury(group, topic, &event, "it was too much", 5)
        .await
        .unwrap();
    before.close().await;

    // There, killed twice; what is not finished is not served.
    killed_when(
        &mut servers.migrate("--from", &at("data"), &at("node")),
        || async { !servers.reached().await.is_empty() },
    )
    .await;
    let mut node = holon();
    node.args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(at("node"));
    servers.configure(&mut node);
    let said = fails(&mut node);
    assert!(
        said.contains("being copied") || said.contains("unfinished copy"),
        "{said}"
    );
    killed_when(
        &mut servers.migrate("--from", &at("data"), &at("node")),
        || async { servers.reached().await.as_str() > "feed.h" },
    )
    .await;
    let said = succeeds(&mut servers.migrate("--from", &at("data"), &at("node")));
    assert!(said.contains("the same on both sides"), "{said}");
    assert!(
        said.contains("table feed.posts") && said.contains("chunks of blobs"),
        "{said}"
    );
    say("copied to servers");
    let said = fails(&mut servers.migrate("--from", &at("data"), &at("node")));
    assert!(said.contains("not empty"), "{said}");

    let node = servers.node(&at("node"));
    files.all_is_right(&node.api()).await;
    held.is_good(&node).await;
    let said = fails(&mut servers.migrate("--to", &at("back"), &at("node")));
    assert!(said.contains("node 0 runs"), "{said}");
    let body = json!({ "text": "said on servers" });
    let posted = held.token.at(&node.url);
    let posted = posted
        .send(Method::POST, "/v1/feed/posts", &[], Some(&body))
        .await;
    assert_eq!(posted.status, 201);
    node.stop();
    say("every home compared on servers");

    // And back, killed once.
    let partial = at("back.partial/copy.json");
    killed_when(&mut servers.migrate("--to", &at("back"), &at("node")), || async {
        std::fs::read_to_string(&partial).is_ok_and(|text| text.contains("\"table\":\"feed"))
    })
    .await;
    assert!(!at("back").exists());
    let said = succeeds(&mut servers.migrate("--to", &at("back"), &at("node")));
    assert!(said.contains("the same on both sides"), "{said}");
    say("copied back");

    let after = engine(&at("back")).await;
    let ports = after.ports();
    for (key, progress) in groups(&after).await {
        let before = at_first.get(&key).unwrap_or_else(|| panic!("{key:?}"));
        for (now, then) in progress.iter().zip(before) {
            assert!(
                now.committed >= then.committed && now.next >= then.next,
                "{key:?}"
            );
        }
    }
    let letters = ports.log.dead_letters(group, topic, 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].event.id, letters[0].attempts), (event.id, 5));
    assert_eq!(letters[0].error, "it was too much");
    assert_eq!(content_of(&after, id).await, blob());
    after.close().await;
    let server = serve(&at("back"));
    files.all_is_right_beside(1, &server.api()).await;
    held.is_good(&server).await;
    server.stop();
    let said = succeeds(holon().arg("check").arg("--data").arg(at("back")));
    assert!(said.contains("all in order"), "{said}");
    say("every home compared in the directory");
}

async fn content_of(engine: &Engine, id: BlobId) -> Vec<u8> {
    let read = engine.ports().blobs.read(&Tenant::default(), &id, None).await;
    let pieces: Vec<_> = read.unwrap().try_collect().await.unwrap();
    pieces.concat()
}
