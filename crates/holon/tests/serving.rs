//! A node from its first line to its last.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod support;

use http::Method;
use serde_json::json;
use std::{
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};
use support::{Api, Server, fails, holon, succeeds, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_where_it_is_and_hands_its_token_over_once() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let server = Server::start(&data);
    let api = server.api();
    assert_eq!(api.get("/livez").await.status, 200);
    assert_eq!(api.get("/readyz").await.status, 200);
    let token = server.admin_token();
    server.until_printed(&token, support::PATIENCE);
    assert_eq!(
        std::fs::metadata(data.join("admin.token"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );

    let overview = api.read("/v1/admin/overview").await;
    let systems: Vec<&str> = overview["systems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|system| system["name"].as_str().unwrap())
        .collect();
    assert_eq!(systems, ["identity", "feed"]);
    assert!(overview["memoryBytes"].as_u64().unwrap() > 0);
    assert_eq!(
        Api::new(&server.url, None).get("/v1/admin/overview").await.status,
        401
    );
    assert!(text(&api.get("/metrics").await.body).contains("holon_"));
    server.stop();

    let again = Server::start(&data);
    assert_eq!(again.admin_token(), token);
    assert!(!again.printed().contains(&token));
    assert_eq!(again.api().get("/v1/admin/overview").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_go_before_the_environment_and_that_before_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("holon.toml");
    let wrong = directory.path().join("wrong");
    std::fs::write(
        &file,
        format!("data = {wrong:?}\nlisten = '127.0.0.1:1'\nsystems = ['identity']\nnode = 7\n"),
    )
    .unwrap();
    let data = directory.path().join("data");
    let server = Server::start_with(&data, "127.0.0.1:0", |command| {
        command
            .arg("--config")
            .arg(&file)
            .env("HOLON_NODE", "9")
            .env("HOLON_DATA", &wrong);
    });
    let overview = server.api().read("/v1/admin/overview").await;
    assert_eq!(overview["node"], 9);
    assert_eq!(overview["systems"].as_array().unwrap().len(), 1);
    assert!(data.is_dir() && !wrong.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_and_a_port_in_use_are_said_clearly() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let error = fails(
        holon()
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(directory.path()),
    );
    assert!(error.contains("in use"), "{error}");
    let error = fails(holon().args(["check", "--data"]).arg(directory.path()));
    assert!(error.contains("in use"), "{error}");
    let other = tempfile::tempdir().unwrap();
    let error = fails(
        holon()
            .args(["serve", "--listen", &server.address(), "--data"])
            .arg(other.path()),
    );
    assert!(error.contains("--listen"), "{error}");
    assert_eq!(server.api().get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_requests_in_hand_finish() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path());
    let api = server.api();
    let since = api.read("/v1/feed/home").await["since"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let waiting = api.clone();
    let request =
        tokio::spawn(async move { waiting.get(&format!("/v1/feed/home?since={since}&wait=20")).await });
    // In hand once it is counted.
    let counted = "holon_http_requests_in_flight{scope=\"process\"} 2";
    while !text(&api.get("/metrics").await.body).contains(counted) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let began = Instant::now();
    server.signal("-TERM");
    let answer = request.await.unwrap();
    assert!(
        answer.status.is_success() || answer.status == 503,
        "{}",
        answer.status
    );
    assert!(server.ended().success());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_is_rebuilt_by_command_and_the_directory_checks_out() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let api = server.api();
    for handle in ["ada", "bob"] {
        let body = json!({"handle": handle, "name": handle});
        assert_eq!(
            api.send(Method::POST, "/v1/identity/accounts", &[], Some(&body))
                .await
                .status,
            201
        );
    }
    let (ada, bob) = (api.as_account("ada").await, api.as_account("bob").await);
    assert_eq!(
        ada.send(Method::PUT, "/v1/feed/follows/bob", &[], None)
            .await
            .status,
        200
    );
    let post = json!({"text": "hello from bob"});
    assert_eq!(
        bob.send(Method::POST, "/v1/feed/posts", &[], Some(&post))
            .await
            .status,
        201
    );

    let token = server.admin_token();
    let mut command = holon();
    command
        .args(["rebuild", "feed.home", "--server", &server.url])
        .env("HOLON_TOKEN", &token);
    assert!(succeeds(&mut command).contains("feed.home: done"));
    let mut command = holon();
    command
        .args(["rebuild", "feed.hom", "--server", &server.url])
        .env("HOLON_TOKEN", &token);
    assert!(fails(&mut command).contains("feed.home"));
    let error = fails(holon().args(["rebuild", "feed.home", "--server", &server.url]));
    assert!(error.contains("HOLON_TOKEN"), "{error}");

    let shards = |arguments: &[&str]| {
        let mut command = holon();
        command
            .arg("shards")
            .args(arguments)
            .args(["--server", &server.url]);
        command.env("HOLON_TOKEN", &token);
        command
    };
    assert!(succeeds(&mut shards(&["list"])).contains("no shards"));
    for change in [
        &["drain", "a"][..],
        &["move", "--to", "a"],
        &["pin", "a", "--tenant", "main"],
        &["add", "a", "postgres://a/a"],
    ] {
        let error = fails(&mut shards(change));
        assert!(error.contains("data directory"), "{error}");
    }

    let home = ada.read("/v1/feed/home").await;
    assert_eq!(home["items"][0]["text"], "hello from bob");
    server.stop();
    let report = succeeds(holon().args(["check", "--data"]).arg(directory.path()));
    assert!(report.contains("all in order"), "{report}");
}
