//! `holon import social`, on a small graph and on the real one, undisturbed and killed on the way.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

#[path = "support/files.rs"]
mod files;
#[path = "support/oracle.rs"]
mod oracle;
mod support;

use files::Files;
use std::{
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};
use support::{Server, fails};

/// What an import may take on a machine that has much else to do.
const LONG: Duration = Duration::from_secs(600);

/// A server without limits on callers, and with tiers so low that all of them are in play.
fn serve(data: &Path, listen: &str) -> Server {
    Server::start_with(data, listen, |command| {
        command.args(["--set", "rate_limit.enabled=false"]);
        command.args(["--set", "feed.push_below=4", "--set", "feed.active_below=60"]);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_complete_and_a_second_one_doubles_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let files = Files::write(directory.path(), 40, 130);
    let server = serve(&directory.path().join("data"), "127.0.0.1:0");
    let said = files.import(&server);
    assert!(
        said.contains("imported 40 accounts, 240 follows and 130 posts"),
        "{said}"
    );
    files.all_is_right(&server.api()).await;
    let said = files.import(&server);
    assert!(
        said.contains("imported 0 accounts, 0 follows and 0 posts"),
        "{said}"
    );
    assert!(
        said.contains("40 accounts, 240 follows and 130 posts were there"),
        "{said}"
    );
    files.all_is_right(&server.api()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_waits_for_a_server_that_is_killed_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let files = Files::write(directory.path(), 300, 900);
    let data = directory.path().join("data");
    let mut server = serve(&data, "127.0.0.1:0");
    let (url, address) = (server.url.clone(), server.address());
    let mut import = files.start(&url, &data);
    for somewhere in [
        "/v1/identity/accounts?limit=1",
        "/v1/feed/users/u299/following?limit=1",
        "/v1/feed/users/u150/following?limit=1",
        "/v1/feed/users/u7/posts?limit=1",
    ] {
        until_listed(&server.api(), somewhere).await;
        server.kill();
        server = serve(&data, &address);
    }
    succeeded(&mut import).await;
    files.all_is_right(&server.api()).await;
}

/// Waits for an import to end well.
async fn succeeded(import: &mut Child) {
    let end = Instant::now() + LONG;
    let status = loop {
        if let Some(status) = import.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end, "the import does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(status.success());
}

/// Waits until a list is there and has something in it.
async fn until_listed(api: &support::Api, path: &str) {
    let end = Instant::now() + LONG;
    loop {
        let answer = api.get(path).await;
        if answer.status == 200 && !answer.json()["items"].as_array().unwrap().is_empty() {
            return;
        }
        assert!(Instant::now() < end, "nothing at {path}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_gave_up_is_finished_by_another() {
    let directory = tempfile::tempdir().unwrap();
    let files = Files::write(directory.path(), 60, 600);
    let data = directory.path().join("data");
    let server = serve(&data, "127.0.0.1:0");
    let url = server.url.clone();
    let mut import = files
        .command(&url, &data.join("admin.token"))
        .args(["--patience", "500ms"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let api = server.api();
    until_listed(&api, "/v1/feed/users/u7/posts?replies=true&limit=1").await;
    server.kill();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut import.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!(import.wait().unwrap().code(), Some(1));
    assert!(
        said.contains("has not answered") && said.contains("run the same command again"),
        "{said}"
    );
    let server = serve(&data, "127.0.0.1:0");
    files.import(&server);
    files.all_is_right(&server.api()).await;
}

#[test]
fn what_cannot_be_imported_is_said_before_anything_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let files = Files::write(directory.path(), 10, 5);
    let token = directory.path().join("token");
    std::fs::write(&token, "none").unwrap();
    std::fs::write(&files.edges, "0 1\nnonsense\n").unwrap();
    let error = fails(&mut files.command("http://127.0.0.1:1", &token));
    assert!(error.contains("edges.txt, line 2"), "{error}");
    let error = fails(&mut files.command("https://127.0.0.1:1", &token));
    assert!(error.contains("https"), "{error}");
}

/// The real graph, with all three tiers in play; the server is killed while people follow and while they post.
#[tokio::test(flavor = "multi_thread")]
async fn every_home_of_the_real_graph_is_right() {
    let directory = tempfile::tempdir().unwrap();
    let files = Files::demo();
    let data = directory.path().join("data");
    let mut server = serve(&data, "127.0.0.1:0");
    let (url, address) = (server.url.clone(), server.address());
    let began = Instant::now();
    let mut import = files.start(&url, &data);
    for somewhere in [
        // Those with many friends follow first.
        "/v1/feed/users/u107/following?limit=1",
        "/v1/feed/users/u4000/following?limit=1",
        "/v1/feed/users/u7/posts?limit=1",
    ] {
        until_listed(&server.api(), somewhere).await;
        eprintln!("killed after {:.1} s", began.elapsed().as_secs_f64());
        server.kill();
        server = serve(&data, &address);
    }
    succeeded(&mut import).await;
    eprintln!("imported after {:.1} s", began.elapsed().as_secs_f64());
    files.all_is_right(&server.api()).await;
    eprintln!("every home compared after {:.1} s", began.elapsed().as_secs_f64());
    let summary = server.api().read("/v1/feed/inspect").await;
    let tiers = &summary["authorsByTier"];
    for tier in ["push", "active", "pull"] {
        assert!(tiers[tier].as_u64().unwrap() > 0, "{tiers}");
    }
}
