//! Rooms over a real server on the loopback interface, with a WebSocket client, raw server-sent events, and long polls.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use axum::{
    Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{SinkExt as _, StreamExt as _};
use holon_base::{Id, Tenant};
use holon_realtime::{End, Hub, HubOptions, LiveRequest, Outgoing};
use holon_testkit::{PATIENCE, Server, TestHome, eventually, serve};
use holon_web::{ApiError, Caller, CallerKind, caller::Authentication};
use serde_json::{Value, json};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite};

/// A room over numbers: row `n` has the cursor `n`.
#[derive(Clone)]
struct Numbers {
    hub: Arc<Hub>,
    rows: Arc<Mutex<Vec<u64>>>,
}

fn message(number: u64) -> Outgoing {
    Outgoing {
        kind: "number",
        id: number.to_string(),
        data: json!({ "number": number }).to_string().into(),
    }
}

impl Numbers {
    /// A row first, then word of it: as every system does.
    async fn add(&self, number: u64) {
        self.rows.lock().unwrap().push(number);
        self.hub.publish("numbers", message(number)).await.unwrap();
    }

    fn after(&self, cursor: u64) -> Vec<u64> {
        let rows = self.rows.lock().unwrap();
        rows.iter().copied().filter(|number| *number > cursor).collect()
    }
}

fn caller(account: u64, session: u64) -> Caller {
    Caller {
        tenant: Tenant::default(),
        account: Id::from_u64(account),
        handle: "somebody".into(),
        kind: CallerKind::Session {
            session: Id::from_u64(session),
        },
        permissions: Arc::new(BTreeSet::new()),
    }
}

type Parameters = Query<HashMap<String, String>>;

async fn live(
    State(numbers): State<Numbers>,
    Query(parameters): Parameters,
    request: LiveRequest,
) -> Response {
    let since = parameters.get("since").cloned();
    if parameters.contains_key("forbidden") {
        return ApiError::forbidden("numbers.read").into_response();
    }
    let rows = numbers.clone();
    let backfill = move |since: Option<String>| async move {
        let Some(since) = since else { return Ok(vec![]) };
        let cursor = since
            .parse()
            .map_err(|_| ApiError::invalid("since", "a cursor is a number"))?;
        Ok(rows.after(cursor).into_iter().map(message).collect())
    };
    numbers.hub.serve(request, "numbers", since, backfill).await
}

async fn poll(State(numbers): State<Numbers>, Query(parameters): Parameters) -> Response {
    let number = |name: &str| {
        parameters
            .get(name)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let (since, wait) = (number("since"), Duration::from_millis(number("waitMs")));
    let load = || async {
        let found = numbers.after(since);
        Ok((!found.is_empty()).then_some(found))
    };
    let who = caller(1, 1);
    match numbers.hub.long_poll("numbers", Some(&who), wait, load).await {
        Ok(found) => axum::Json(found.unwrap_or_default()).into_response(),
        Err(error) => error.into_response(),
    }
}

struct World {
    _home: TestHome,
    numbers: Numbers,
    server: Server,
}

impl World {
    async fn start(options: HubOptions) -> Self {
        let home = TestHome::start().await;
        let hub = Hub::start(Arc::clone(&home.context().ports.bus), options);
        let numbers = Numbers {
            hub,
            rows: Arc::default(),
        };
        let who = axum::middleware::from_fn(
            |mut request: axum::extract::Request, next: axum::middleware::Next| {
                let number = |name: &str| {
                    request
                        .headers()
                        .get(name)
                        .and_then(|value| value.to_str().ok()?.parse().ok())
                };
                if let Some(account) = number("x-account") {
                    let caller = caller(account, number("x-session").unwrap_or(0));
                    request.extensions_mut().insert(Authentication(Ok(Some(caller))));
                }
                next.run(request)
            },
        );
        let router = Router::new()
            .route("/live", get(live))
            .route("/poll", get(poll))
            .layer(who)
            .with_state(numbers.clone());
        Self {
            _home: home,
            numbers,
            server: serve(router).await,
        }
    }

    async fn connect(&self, path: &str, headers: &[(&str, &str)]) -> Result<Socket, StatusCode> {
        use tungstenite::client::IntoClientRequest as _;
        let address = self.server.address();
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            let name = axum::http::HeaderName::try_from(*name).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(address).await.unwrap();
        match client_async(request, stream).await {
            Ok((socket, _)) => Ok(Socket(socket)),
            Err(tungstenite::Error::Http(response)) => Err(response.status()),
            Err(error) => panic!("{error}"),
        }
    }

    async fn events(&self, path: &str, headers: &str) -> Events {
        let mut stream = TcpStream::connect(self.server.address()).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nconnection: close\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        Events {
            stream,
            text: String::new(),
        }
    }

    async fn occupied_by(&self, connections: usize) {
        eventually("connections to be counted", PATIENCE, || async {
            let stats = self.numbers.hub.stats();
            (stats.websockets + stats.event_streams + stats.long_polls == connections).then_some(())
        })
        .await;
    }
}

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// The next JSON message.
    async fn next(&mut self) -> Value {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap() {
                Some(Ok(tungstenite::Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(tungstenite::Message::Ping(_))) => {}
                other => panic!("no text: {other:?}"),
            }
        }
    }

    async fn close_code(&mut self) -> u16 {
        loop {
            match tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap() {
                Some(Ok(tungstenite::Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("no close: {other:?}"),
            }
        }
    }
}

/// Server-sent events over a bare connection. The server writes each event into one chunk or several into one; chunk
/// sizes are lines of their own that start with no field name, so that they are skipped like anything unknown.
struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    /// (event, id, data) of the next event; `None` at the end.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            while let Some(at) = self.text.find("\n\n") {
                let block: String = self.text.drain(..at + 2).collect();
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(str::to_owned)
                };
                if let (Some(event), Some(data)) = (field("event: "), field("data: ")) {
                    let id = field("id: ").unwrap_or_default();
                    return Some((event, id, serde_json::from_str(&data).unwrap()));
                }
            }
            let mut bytes = Vec::new();
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut bytes));
            if read.await.unwrap().unwrap() == 0 {
                return None;
            }
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }
}

#[tokio::test]
async fn every_transport_brings_what_is_published() {
    let world = World::start(HubOptions::default()).await;
    let mut socket = world.connect("/live", &[]).await.unwrap();
    let mut events = world.events("/live", "").await;
    let poll = tokio::spawn(get_json(world.server.address(), "/poll?since=0&waitMs=60000"));
    world.occupied_by(3).await;
    assert!(world.numbers.hub.is_occupied("numbers"));
    world.numbers.add(1).await;
    let expected = json!({"type": "number", "since": "1", "number": 1});
    assert_eq!(socket.next().await, expected);
    assert_eq!(events.next().await, Some(("number".into(), "1".into(), expected)));
    assert_eq!(poll.await.unwrap(), json!([1]));
    drop((socket, events));
    world.occupied_by(0).await;
    assert!(!world.numbers.hub.is_occupied("numbers"));
    assert_eq!(world.numbers.hub.occupied_rooms(), 0);
}

async fn get_json(address: std::net::SocketAddr, path: &str) -> Value {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Connects, reads a little, goes away and comes back, again and again, while numbers are added all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_resumes_gets_everything_once_and_in_order() {
    const LAST: u64 = 2_000;
    let world = World::start(HubOptions {
        queue_length: 16,
        retry_after: Duration::ZERO..Duration::from_millis(1),
        ..HubOptions::default()
    })
    .await;
    let numbers = world.numbers.clone();
    let writer = tokio::spawn(async move {
        for number in 1..=LAST {
            numbers.add(number).await;
            if number % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let mut seen = Vec::new();
    let mut turn = 0;
    while seen.len() < LAST as usize {
        turn += 1;
        let cursor = seen.last().copied().unwrap_or(0_u64);
        if turn % 2 == 0 {
            let mut socket = world
                .connect(&format!("/live?since={cursor}"), &[])
                .await
                .unwrap();
            for _ in 0..turn * 7 {
                let message = socket.next().await;
                match message["type"].as_str() {
                    Some("number") => seen.push(message["number"].as_u64().unwrap()),
                    _ => break,
                }
                if seen.len() == LAST as usize {
                    break;
                }
            }
        } else {
            let header = format!("last-event-id: {cursor}\r\n");
            let mut events = world.events("/live?since=0", &header).await;
            for _ in 0..turn * 7 {
                match events.next().await {
                    Some((event, id, data)) if event == "number" => {
                        assert_eq!(id, data["number"].to_string());
                        seen.push(data["number"].as_u64().unwrap());
                    }
                    _ => break,
                }
                if seen.len() == LAST as usize {
                    break;
                }
            }
        }
    }
    writer.await.unwrap();
    assert_eq!(seen, (1..=LAST).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_slow_reader_is_told_where_to_resume() {
    let world = World::start(HubOptions {
        queue_length: 8,
        ..HubOptions::default()
    })
    .await;
    let mut socket = world.connect("/live", &[]).await.unwrap();
    let mut events = world.events("/live", "").await;
    world.occupied_by(2).await;
    world.numbers.add(1).await;
    assert_eq!(socket.next().await["since"], "1");
    assert_eq!(events.next().await.unwrap().1, "1");
    // More in one go than a queue holds: no reader runs in between.
    world.numbers.rows.lock().unwrap().extend(2..=40);
    let flood = ["numbers"; 20];
    world.numbers.hub.publish_many(&flood, message(2)).await.unwrap();
    let bye = loop {
        let next = socket.next().await;
        if next["type"] == "bye" {
            break next;
        }
    };
    assert_eq!(bye["reason"], "slow");
    let resume: u64 = bye["since"].as_str().unwrap().parse().unwrap();
    assert!(bye["retryAfterMs"].as_u64().is_some());
    assert_eq!(socket.close_code().await, 1013);
    let bye = loop {
        let (event, _, data) = events.next().await.unwrap();
        if event == "bye" {
            break data;
        }
    };
    assert_eq!(bye["reason"], "slow");
    assert_eq!(events.next().await, None, "the stream ends");
    assert_eq!(world.numbers.hub.stats().slow, 2);
    assert_eq!(resume, 1);
    let mut again = world
        .connect(&format!("/live?since={resume}"), &[])
        .await
        .unwrap();
    for number in resume + 1..=40 {
        assert_eq!(again.next().await["number"], number);
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_before_the_upgrade() {
    let world = World::start(HubOptions {
        connections_per_caller: 2,
        ..HubOptions::default()
    })
    .await;
    let status = async |path: &str, headers: &[(&str, &str)]| match world.connect(path, headers).await {
        Ok(_) => panic!("{path} was let in"),
        Err(status) => status.as_u16(),
    };
    assert_eq!(status("/live?since=x", &[]).await, 400);
    assert_eq!(status("/live?forbidden=1", &[]).await, 403);
    let problem = get_json(world.server.address(), "/live").await;
    assert_eq!(problem["status"], 406, "neither transport was asked for");
    let _first = world.connect("/live", &[("x-account", "1")]).await.unwrap();
    let second = world.connect("/live", &[("x-account", "1")]).await.unwrap();
    assert_eq!(status("/live", &[("x-account", "1")]).await, 429);
    let _other = world.connect("/live", &[("x-account", "2")]).await.unwrap();
    drop(second);
    world.occupied_by(2).await;
    assert!(
        world.connect("/live", &[("x-account", "1")]).await.is_ok(),
        "there is room again"
    );
}

#[tokio::test]
async fn connections_end_with_their_session_on_every_node() {
    let world = World::start(HubOptions::default()).await;
    // Another node on the same bus.
    let elsewhere = Hub::start(
        Arc::clone(&world._home.context().ports.bus),
        HubOptions::default(),
    );
    elsewhere.ready().await;
    let headers = |session| [("x-account", "1"), ("x-session", session)];
    let mut first = world.connect("/live", &headers("11")).await.unwrap();
    let mut second = world.connect("/live", &headers("12")).await.unwrap();
    let mut stranger = world.connect("/live", &[("x-account", "2")]).await.unwrap();
    world.occupied_by(3).await;
    let tenant = Tenant::default();
    let account = Id::from_u64(1);
    elsewhere
        .end_sessions(&tenant, account, Some(Id::from_u64(11)))
        .await
        .unwrap();
    let bye = first.next().await;
    assert_eq!(
        (&bye["type"], &bye["reason"]),
        (&json!("bye"), &json!("signed-out"))
    );
    assert!(bye["retryAfterMs"].is_null());
    assert_eq!(first.close_code().await, 4401);
    world.numbers.add(1).await;
    assert_eq!(second.next().await["number"], 1);
    elsewhere.end_sessions(&tenant, account, None).await.unwrap();
    assert_eq!(second.next().await["reason"], "signed-out");
    assert_eq!(stranger.next().await["number"], 1);
    world.numbers.add(2).await;
    assert_eq!(stranger.next().await["number"], 2);
}

#[tokio::test]
async fn draining_says_bye_to_all_and_lets_nobody_in() {
    let world = World::start(HubOptions {
        retry_after: Duration::from_millis(100)..Duration::from_millis(900),
        ..HubOptions::default()
    })
    .await;
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(world.connect("/live", &[]).await.unwrap());
    }
    let mut events = world.events("/live", "").await;
    let poll = tokio::spawn(get_json(world.server.address(), "/poll?waitMs=60000"));
    world.occupied_by(10).await;
    let hub = Arc::clone(&world.numbers.hub);
    let drained = tokio::spawn(async move { hub.drain().await });
    let mut waits = BTreeSet::new();
    for socket in &mut sockets {
        let bye = socket.next().await;
        assert_eq!(bye["reason"], "draining");
        let wait = bye["retryAfterMs"].as_u64().unwrap();
        assert!((100..900).contains(&wait), "{wait}");
        waits.insert(wait);
        assert_eq!(socket.close_code().await, 1012);
        let _ = socket.0.flush().await;
    }
    assert!(waits.len() > 1, "not all at once: {waits:?}");
    assert_eq!(events.next().await.unwrap().0, "bye");
    assert_eq!(poll.await.unwrap(), json!([]));
    assert_eq!(drained.await.unwrap(), 0, "all have left");
    assert_eq!(
        world.connect("/live", &[]).await.err(),
        Some(StatusCode::SERVICE_UNAVAILABLE)
    );
}

#[tokio::test]
async fn silence_is_broken_by_heartbeats_and_the_dead_are_found() {
    let world = World::start(HubOptions {
        heartbeat: Duration::from_millis(250),
        ..HubOptions::default()
    })
    .await;
    // Reads nothing and so answers no ping; the other one reads and stays, through more heartbeats than the first has.
    let dead = world.connect("/live", &[]).await.unwrap();
    let mut alive = world.connect("/live", &[]).await.unwrap();
    for _ in 0..5 {
        assert_eq!(alive.next().await, json!({"type": "heartbeat"}));
    }
    world.occupied_by(1).await;
    assert_eq!(alive.next().await, json!({"type": "heartbeat"}));
    drop((dead, alive));
    let mut events = world.events("/live", "").await;
    for _ in 0..2 {
        assert_eq!(events.next().await.unwrap().0, "heartbeat");
    }
}

#[tokio::test]
async fn a_client_that_shouts_is_cut_off() {
    let world = World::start(HubOptions::default()).await;
    let mut socket = world.connect("/live", &[]).await.unwrap();
    socket
        .0
        .send(tungstenite::Message::text("ignored"))
        .await
        .unwrap();
    world.occupied_by(1).await;
    let _ = socket
        .0
        .send(tungstenite::Message::text("x".repeat(1 << 20)))
        .await;
    world.occupied_by(0).await;
}

#[tokio::test]
async fn a_long_poll_ends_with_its_time() {
    let world = World::start(HubOptions::default()).await;
    let address = world.server.address();
    assert_eq!(get_json(address, "/poll?since=0&waitMs=20").await, json!([]));
    world.numbers.add(5).await;
    assert_eq!(get_json(address, "/poll?since=4&waitMs=60000").await, json!([5]));
    assert_eq!(get_json(address, "/poll?since=4").await, json!([5]));
}

#[tokio::test]
async fn code_of_the_process_can_listen_too() {
    let world = World::start(HubOptions::default()).await;
    let hub = &world.numbers.hub;
    hub.ready().await;
    let mut listener = hub.listen("numbers");
    let mut other = hub.listen("others");
    hub.publish_many(&["numbers", "others"], message(3))
        .await
        .unwrap();
    for listener in [&mut listener, &mut other] {
        let frame = listener.next().await.unwrap();
        assert_eq!((frame.kind(), frame.id()), ("number", "3"));
    }
    assert_eq!(
        hub.close_where(End::Resync, |connection| connection.room() == "others"),
        1
    );
    assert_eq!(other.next().await, Err(End::Resync));
    let bad = Outgoing {
        kind: "number",
        id: "line\nbreak".into(),
        data: "{}".into(),
    };
    assert!(hub.publish("numbers", bad).await.is_err());
}

#[test]
fn all_of_this_on_servers() {
    holon_testkit::again_on_servers(&[]);
}
