//! `holon serve` on PostgreSQL, NATS, Redis and S3: two nodes, of which one is killed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

#[path = "support/files.rs"]
mod files;
#[path = "support/oracle.rs"]
mod oracle;
#[path = "support/servers.rs"]
mod servers;
mod support;

use files::Files;
use servers::{SECRET, Servers};
use std::time::Instant;
use support::{Api, fails, holon, succeeds};

/// Waits until somebody has posted something that ends so.
async fn until_posted(api: &Api, end: &str) {
    let patience = Instant::now() + support::PATIENCE;
    loop {
        let posts = api.list("/v1/feed/users/u7/posts?replies=true").await;
        if posts
            .iter()
            .any(|post| post["text"].as_str().unwrap().ends_with(end))
        {
            return;
        }
        assert!(Instant::now() < patience, "u7 posts nothing that ends in {end}");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_on_servers_are_one_and_outlive_each_other() {
    let began = Instant::now();
    let say = |what: &str| eprintln!("{what} after {:.1} s", began.elapsed().as_secs_f64());
    let directory = tempfile::tempdir().unwrap();
    let data = |name: &str| directory.path().join(name);
    for name in ["few", "many"] {
        std::fs::create_dir(data(name)).unwrap();
    }
    let servers = Servers::start().await;
    say("servers run");

    let a = servers.node(0, &data("a"));
    let b = servers.node(1, &data("b"));
    assert!(
        a.printed().contains("PostgreSQL (2 shards), NATS, Redis, S3"),
        "{}",
        a.printed()
    );
    // The first to start made the administrator; its token is good everywhere.
    assert!(!b.data.join("admin.token").exists());
    let a_token = a.admin_token();
    let (on_a, on_b) = (a.api(), Api::new(&b.url, Some(a_token.clone())));
    say("nodes run");

    let few = Files::write(&data("few"), 40, 130);
    let said = few.import(&a);
    assert!(
        said.contains("imported 40 accounts, 240 follows and 130 posts"),
        "{said}"
    );
    say("imported through one node");
    few.all_is_right(&on_b).await;
    few.all_is_right(&on_a).await;
    say("every home compared on both");

    let mut command = servers.command(
        2,
        &data("c"),
        "engines.secret=another-secret-that-has-32-bytes-too",
    );
    let stranger = fails(&mut command);
    assert!(stranger.contains("engines.secret is not the one"), "{stranger}");

    // It waits for longer than a node that died keeps its number, so it runs beside what follows.
    let mut command = servers.command(1, &data("d"), SECRET);
    let twin = tokio::task::spawn_blocking(move || fails(&mut command));

    // A shard is added, and slots move there while the rest happens, also to the node that moves them.
    let shards = async |arguments: &[&str], of: &str| {
        let mut command = holon();
        command.arg("shards").args(arguments).args(["--server", of]);
        command.env("HOLON_TOKEN", a_token.clone());
        tokio::task::spawn_blocking(move || succeeds(&mut command))
            .await
            .unwrap()
    };
    let listed = shards(&["list"], &b.url).await;
    assert!(listed.contains("a ") && listed.contains("2048"), "{listed}");
    let third = servers.postgres[1].create_database("third").await;
    shards(&["add", "c", &third], &a.url).await;
    let asked = shards(&["move", "--to", "c", "--count", "200"], &b.url).await;
    assert!(asked.contains("200 slots will move to c"), "{asked}");

    // The same people, with more to say.
    let many = Files::write(&data("many"), 40, 900);
    let mut import = many.start(&b.url, &a.data);
    until_posted(&on_b, "of 900").await;
    assert!(import.try_wait().unwrap().is_none(), "the import is over already");
    let a_data = a.data.clone();
    a.kill();
    say("a node killed");
    let status = tokio::task::spawn_blocking(move || import.wait().unwrap());
    assert!(status.await.unwrap().success());
    say("imported through the other");
    many.all_is_right_beside(130, &on_b).await;
    say("every home compared");
    let twin = twin.await.unwrap();
    assert!(twin.contains("another process runs as node 1"), "{twin}");

    let a = servers.node(0, &a_data);
    let pinned = shards(&["pin", "a", "--prefix", "user:", "--wait"], &a.url).await;
    assert!(pinned.contains("moved to a"), "{pinned}");
    let listed = shards(&["list"], &b.url).await;
    let row = listed.lines().find(|line| line.starts_with("c ")).unwrap();
    assert!(
        row.contains(" 200 ") && listed.contains("pinned: prefix user: on a"),
        "{listed}"
    );
    say("slots moved, and users pinned");
    many.all_is_right_beside(130, &a.api()).await;
    say("every home compared on the node that came back");
    b.stop();
    a.stop();
    say("stopped");
}
