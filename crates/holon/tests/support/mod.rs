//! The real binary, started by a test on a port that the system chose, and a client for it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses a part of this; a failing test should fail"
)]

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

pub const BINARY: &str = env!("CARGO_BIN_EXE_holon");
/// How long a test waits for what should take moments.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The binary with nothing of this process's environment that it would read.
pub fn holon() -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars() {
        if name.starts_with("HOLON_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

pub fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// What a command printed, if it succeeded.
pub fn succeeds(command: &mut Command) -> String {
    let output = output(command);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?} failed\n{out}\n{err}");
    out
}

/// What a command printed to standard error, if it failed.
pub fn fails(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        !output.status.success(),
        "{command:?} succeeded\n{}",
        text(&output.stdout)
    );
    text(&output.stderr)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running `holon serve`, killed when this is dropped.
pub struct Server {
    child: Child,
    pub url: String,
    pub data: PathBuf,
    /// What it printed so far.
    printed: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
}

impl Server {
    /// Starts on a data directory and waits for the line that says where it listens.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, "127.0.0.1:0", |_| ())
    }

    pub fn start_with(data: &Path, listen: &str, more: impl FnOnce(&mut Command)) -> Self {
        let mut command = holon();
        command.args([OsStr::new("serve"), OsStr::new("--data"), data.as_os_str()]);
        command.args(["--listen", listen]);
        more(&mut command);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let printed = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
        let (first, firsts) = mpsc::channel();
        let keeping = printed.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(url) = line.strip_prefix("listening on ") {
                    let _ = first.send(url.to_owned());
                }
                keeping.lock().unwrap().push(line);
            }
        });
        let Ok(url) = firsts.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            panic!(
                "the server does not say where it listens; it printed {:?}",
                printed.lock().unwrap()
            );
        };
        Self {
            child,
            url,
            data: data.into(),
            printed,
        }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.url.trim_start_matches("http://").to_owned()
    }

    pub fn printed(&self) -> String {
        self.printed.lock().unwrap().join("\n")
    }

    /// Waits until a line was printed that holds this.
    pub fn until_printed(&self, wanted: &str, patience: Duration) {
        let end = Instant::now() + patience;
        while !self.printed().contains(wanted) {
            assert!(
                Instant::now() < end,
                "{wanted:?} is not printed:\n{}",
                self.printed()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn admin_token(&self) -> String {
        let token = std::fs::read_to_string(self.data.join("admin.token")).unwrap();
        token.trim().to_owned()
    }

    pub fn api(&self) -> Api {
        Api::new(&self.url, Some(self.admin_token()))
    }

    /// SIGKILL: no time for anything.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, and its end in good order.
    pub fn stop(mut self) {
        self.signal("-TERM");
        assert!(self.ended().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", text(&self.body)))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A client, as somebody or nobody.
#[derive(Clone)]
pub struct Api {
    pool: Client<HttpConnector, Full<Bytes>>,
    url: String,
    token: Option<String>,
}

impl Api {
    pub fn new(url: &str, token: Option<String>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            pool: Client::builder(TokioExecutor::new()).build(connector),
            url: url.to_owned(),
            token,
        }
    }

    pub fn with_token(&self, token: Option<String>) -> Self {
        Self {
            token,
            ..self.clone()
        }
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let response = self
            .pool
            .request(request.body(Full::new(bytes)).unwrap())
            .await
            .unwrap();
        let (head, body) = response.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None).await
    }

    /// A document that must be there.
    pub async fn read(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", text(&answer.body));
        answer.json()
    }

    /// All items of a list.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.read(&format!("{path}{joint}limit=200{cursor}")).await;
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }

    /// The same caller at another server.
    pub fn at(&self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..self.clone()
        }
    }

    /// The same as another account, with a token that the administrator minted.
    pub async fn as_account(&self, handle: &str) -> Self {
        let path = format!("/v1/identity/accounts/{handle}/tokens");
        let answer = self
            .send(Method::POST, &path, &[], Some(&json!({"expiresIn": 3600})))
            .await;
        assert!(answer.status.is_success(), "{path}: {}", text(&answer.body));
        let token = answer.json()["accessToken"].as_str().unwrap().to_owned();
        self.with_token(Some(token))
    }
}
