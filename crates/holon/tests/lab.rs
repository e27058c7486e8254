//! Three nodes in the lab, one of which is asked to kill another, and is told so by the page that the console shows.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod support;

use holon_lab::{Cluster, ClusterOptions};
use holon_testkit::eventually;
use serde_json::{Value, json};
use std::time::Duration;
use support::{Api, BINARY, text};

/// Longer than a dead node's silence must be, on a machine that is busy.
const LONG: Duration = Duration::from_secs(90);

async fn alive(api: &Api) -> Vec<u64> {
    let cluster = api.read("/v1/admin/cluster").await;
    let nodes = cluster["nodes"].as_array().unwrap().iter();
    nodes
        .filter(|node| node["state"] == "alive")
        .map(|node| node["node"].as_u64().unwrap())
        .collect()
}

async fn part(api: &Api, name: &str) -> Value {
    let parts = api.read("/v1/admin/chaos").await;
    let mut parts = parts["items"].as_array().unwrap().iter();
    parts.find(|part| part["name"] == name).unwrap().clone()
}

async fn tell(api: &Api, part: &str, action: &str) -> (u16, Value) {
    let path = format!("/v1/admin/chaos/{part}");
    let answer = api
        .send(http::Method::POST, &path, &[], Some(&json!({"action": action})))
        .await;
    (answer.status.as_u16(), answer.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_the_lab_kills_another_and_itself_and_the_cluster_shows_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = ClusterOptions::new(BINARY);
    options.chaos = true;
    // What is not looked at here would only take time.
    (options.shards, options.standbys) = (1, false);
    (options.nats, options.redis_primaries) = (1, 1);
    let cluster = Cluster::start(&options, directory.path()).await.unwrap();
    let token = cluster.admin_token().unwrap();
    let on = |node: u16| Api::new(&cluster.node(node).unwrap().url(), Some(token.clone()));
    let (first, second) = (on(1), on(2));

    eventually("three nodes to know each other", LONG, || async {
        (alive(&first).await == [1, 2, 3]).then_some(())
    })
    .await;
    assert_eq!(part(&first, "node-1").await["isSelf"], true);

    // Through one node another dies, and comes back.
    assert_eq!(tell(&first, "node-3", "kill").await.0, 202);
    eventually("two nodes to be left", LONG, || async {
        (alive(&first).await == [1, 2]).then_some(())
    })
    .await;
    assert_eq!(part(&first, "node-3").await["state"], "stopped");
    let (status, problem) = tell(&first, "node-3", "freeze").await;
    assert_eq!(status, 409, "{problem}");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("it can be told to start"),
        "{problem}"
    );
    assert_eq!(tell(&first, "node-9", "kill").await.0, 404);
    assert_eq!(tell(&first, "node-3", "start").await.0, 202);
    eventually("three nodes again", LONG, || async {
        (alive(&first).await == [1, 2, 3]).then_some(())
    })
    .await;

    // One that is cut off is gone for the others, and is back when it is healed.
    assert_eq!(tell(&first, "node-3", "cut").await.0, 202);
    eventually("two nodes to be left", LONG, || async {
        (alive(&first).await == [1, 2]).then_some(())
    })
    .await;
    assert_eq!(tell(&first, "node-3", "heal").await.0, 202);
    eventually("three nodes again", LONG, || async {
        (alive(&second).await == [1, 2, 3]).then_some(())
    })
    .await;

    // A node passes its own death on, and answers that it did.
    let (status, said) = tell(&first, "node-1", "kill").await;
    assert_eq!((status, &said["isSelf"]), (202, &json!(true)), "{said}");
    eventually("the first to be gone", LONG, || async {
        (alive(&second).await == [2, 3]).then_some(())
    })
    .await;
    assert_eq!(part(&second, "node-1").await["state"], "stopped");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_node_that_no_lab_runs_has_no_chaos() {
    let directory = tempfile::tempdir().unwrap();
    let server = support::Server::start(&directory.path().join("data"));
    let answer = server.api().get("/v1/admin/chaos").await;
    assert_eq!(answer.status, 404);
    assert!(
        text(&answer.body).contains("chaos.control"),
        "{}",
        text(&answer.body)
    );
    let (status, _) = tell(&server.api(), "node-1", "kill").await;
    assert_eq!(status, 404);
}
