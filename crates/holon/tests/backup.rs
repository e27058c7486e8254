//! `holon backup` under load and `holon restore`, undisturbed, killed, and from files that were cut or altered.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

#[path = "support/files.rs"]
mod files;
#[path = "support/oracle.rs"]
mod oracle;
mod support;

use files::Files;
use http::Method;
use oracle::{every_home_is_right, read};
use serde_json::json;
use std::{
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use support::{Api, Server, fails, holon, succeeds};

const PEOPLE: usize = 40;
const PASSWORD: &str = "a long enough passphrase 7";

fn serve(data: &Path) -> Server {
    Server::start_with(data, "127.0.0.1:0", |command| {
        command.args(["--set", "rate_limit.enabled=false"]);
        command.args(["--set", "feed.push_below=4", "--set", "feed.active_below=60"]);
    })
}

/// People who post without a pause until they are told to stop; what was acknowledged so far.
struct Writers {
    stop: Arc<AtomicBool>,
    said: Arc<Mutex<Vec<(String, String)>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    async fn start(api: &Api) -> Self {
        let (stop, said) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default());
        let mut tasks = Vec::new();
        for writer in 0..4 {
            let own = api.as_account(&format!("u{writer}")).await;
            let (stop, said) = (Arc::clone(&stop), Arc::clone(&said));
            tasks.push(tokio::spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let text = format!("number {number} of writer {writer}");
                    let body = json!({ "text": text });
                    let answer = own.send(Method::POST, "/v1/feed/posts", &[], Some(&body)).await;
                    assert_eq!(answer.status, 201);
                    let id = answer.json()["id"].as_str().unwrap().to_owned();
                    said.lock().unwrap().push((id, text));
                }
            }));
        }
        Self { stop, said, tasks }
    }

    fn acknowledged(&self) -> Vec<(String, String)> {
        self.said.lock().unwrap().clone()
    }

    async fn until_acknowledged(&self, count: usize) {
        let end = Instant::now() + support::PATIENCE;
        while self.acknowledged().len() < count {
            assert!(Instant::now() < end, "the writers do not get on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.said.lock().unwrap().len()
    }
}

async fn sign_in(api: &Api) -> http::StatusCode {
    let body = json!({ "handle": "keeper", "password": PASSWORD });
    let login = api.with_token(None);
    login
        .send(Method::POST, "/v1/identity/login", &[], Some(&body))
        .await
        .status
}

/// Waits until every consumer of the feed has handled everything.
async fn caught_up(api: &Api) {
    let end = Instant::now() + support::PATIENCE;
    loop {
        let inside = api.read("/v1/feed/inspect").await;
        let consumers = inside["consumers"].as_array().unwrap();
        assert!(!consumers.is_empty(), "{inside}");
        if consumers.iter().all(|consumer| consumer["lag"] == 0) {
            return;
        }
        assert!(Instant::now() < end, "{inside}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn homes_are_right(api: &Api) {
    let handles: Vec<String> = (0..PEOPLE).map(|number| format!("u{number}")).collect();
    let world = Arc::new(read(api, &handles).await);
    every_home_is_right(api, &world, &handles).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_holds_what_was_acknowledged_and_is_restored() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let files = Files::write(directory.path(), PEOPLE, 130);
    let server = serve(&at("data"));
    files.import(&server);
    let api = server.api();
    let body = json!({ "handle": "keeper", "password": PASSWORD });
    let made = api
        .send(Method::POST, "/v1/identity/accounts", &[], Some(&body))
        .await;
    assert_eq!(made.status, 201);
    let token_of_before = api.as_account("u5").await;

    let writers = Writers::start(&api).await;
    writers.until_acknowledged(60).await;
    let before = writers.acknowledged();
    // One that is killed leaves nothing under its name.
    let mut killed = backup(&server, &at("killed.holon"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    killed.kill().unwrap();
    assert!(!killed.wait().unwrap().success() && !at("killed.holon").exists());
    let said = succeeds(&mut backup(&server, &at("a.holon")));
    assert!(said.contains("a data directory, as it was at"), "{said}");
    let after = writers.stop().await;
    assert!(after > before.len(), "nobody wrote meanwhile");
    let url = server.url.clone();
    server.kill();

    // The restored server has everything that was acknowledged before, and people are who they were.
    succeeds(&mut restore(&at("a.holon"), &at("b")));
    let server = serve(&at("b"));
    let api = server.api();
    for (id, text) in &before {
        let post = api.read(&format!("/v1/feed/posts/{id}")).await;
        assert_eq!(post["text"], *text);
    }
    caught_up(&api).await;
    homes_are_right(&api).await;
    assert_eq!(sign_in(&api).await, 200);
    assert_ne!(url, server.url);
    let moved = token_of_before.at(&server.url);
    assert_eq!(moved.get("/v1/feed/home").await.status, 200);
    let after_restore = json!({ "text": "after the restore" });
    let answer = moved
        .send(Method::POST, "/v1/feed/posts", &[], Some(&after_restore))
        .await;
    assert_eq!(answer.status, 201);
    caught_up(&api).await;
    homes_are_right(&api).await;
    server.stop();
    let said = succeeds(holon().arg("check").arg("--data").arg(at("b")));
    assert!(said.contains("all in order"), "{said}");

    // The same of a directory that nobody uses, and once more.
    succeeds(
        holon()
            .arg("backup")
            .arg(at("b.holon"))
            .arg("--data")
            .arg(at("b")),
    );
    let said = fails(
        holon()
            .arg("backup")
            .arg(at("b.holon"))
            .arg("--data")
            .arg(at("b")),
    );
    assert!(said.contains("overwrites nothing"), "{said}");
    let said = fails(&mut restore(&at("b.holon"), &at("b")));
    assert!(said.contains("is not empty"), "{said}");
    killed_restores_leave_nothing_whole(&at("b.holon"), &at("c"));
    damaged_backups_are_refused(&at("b.holon"), directory.path());
}

fn backup(server: &Server, file: &Path) -> std::process::Command {
    let mut command = holon();
    command.arg("backup").arg(file).args(["--server", &server.url]);
    command.arg("--token-file").arg(server.data.join("admin.token"));
    command
}

fn restore(file: &Path, data: &Path) -> std::process::Command {
    let mut command = holon();
    command.arg("restore").arg(file).arg("--data").arg(data);
    command
}

fn killed_restores_leave_nothing_whole(file: &Path, data: &Path) {
    let partial = data.with_extension("partial");
    let mut killed = 0;
    // Later each time, until it is done before it is killed.
    for pause in (0..16).map(|step| Duration::from_millis(25 << step)) {
        let mut running = restore(file, data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + support::PATIENCE;
        while !partial.join("copy.json").exists() && running.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "the restore does not begin");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(pause);
        running.kill().unwrap();
        if running.wait().unwrap().success() {
            break;
        }
        killed += 1;
        assert!(!data.exists(), "killed after {pause:?}");
        if killed == 2 {
            let said = fails(holon().arg("serve").arg("--data").arg(&partial));
            assert!(said.contains("unfinished copy"), "{said}");
        }
    }
    assert!(killed > 0);
    assert!(!partial.exists());
    let said = succeeds(holon().arg("check").arg("--data").arg(data));
    assert!(said.contains("all in order"), "{said}");
}

fn damaged_backups_are_refused(file: &Path, directory: &Path) {
    let whole = std::fs::read(file).unwrap();
    let damaged = directory.join("damaged.holon");
    let data = directory.join("never");
    let refused = |bytes: &[u8], why: &str| {
        std::fs::write(&damaged, bytes).unwrap();
        let said = fails(&mut restore(&damaged, &data));
        assert!(
            said.contains(why) && said.contains("nothing was restored"),
            "{said}"
        );
        assert!(!data.exists() && !directory.join("never.partial").exists());
    };
    refused(&whole[..whole.len() / 2], "cut off");
    refused(&whole[..whole.len() - 1], "cut off");
    let mut altered = whole.clone();
    altered[whole.len() / 3] ^= 1;
    refused(&altered, "was altered");
    refused(b"something else altogether", "does not begin as a backup does");
    let said = succeeds(holon().arg("restore").arg(file).arg("--verify"));
    assert!(said.contains("all in order"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_for_whom_may_have_all_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let server = serve(&directory.path().join("data"));
    let file = directory.path().join("a.holon");
    let token = directory.path().join("token");
    std::fs::write(&token, "none").unwrap();
    let mut command = holon();
    command.arg("backup").arg(&file).args(["--server", &server.url]);
    command.arg("--token-file").arg(&token);
    let said = fails(&mut command);
    assert!(said.contains("401"), "{said}");
    let said = fails(holon().arg("backup").arg(&file).arg("--data").arg(&server.data));
    assert!(said.contains("is in use by process"), "{said}");
    let entries: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(entries.len(), 2, "{entries:?}");
}
