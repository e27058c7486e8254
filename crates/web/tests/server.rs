//! The listener: real connections, and leaving without dropping anybody's request.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{Toy, options, toy_routes};
use holon_testkit::{PATIENCE, eventually};
use holon_web::{AppBuilder, AppOptions};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

struct Served {
    address: SocketAddr,
    toy: Arc<Toy>,
    stop: oneshot::Sender<()>,
    told: Arc<AtomicBool>,
    server: JoinHandle<usize>,
}

async fn serve(options: AppOptions) -> Served {
    let toy = Arc::<Toy>::default();
    let told = Arc::new(AtomicBool::new(false));
    let hook = Arc::clone(&told);
    let app = AppBuilder::new(options)
        .routes("toy", "A system to test with.", toy_routes(&toy))
        .on_drain(move || {
            hook.store(true, SeqCst);
            async {}
        })
        .build()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(app.serve(listener, async {
        let _ = stopped.await;
    }));
    Served {
        address,
        toy,
        stop,
        told,
        server,
    }
}

async fn send(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The head and what came with it.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut text).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn draining_ends_requests_and_then_connections() {
    let notice = Duration::from_millis(200);
    let served = serve(AppOptions {
        drain_notice: notice,
        ..options()
    })
    .await;
    let mut idle = send(served.address, "/livez").await;
    assert!(read_head(&mut idle).await.starts_with("HTTP/1.1 200"));
    let mut waiting = send(served.address, "/v1/toy/gate").await;
    served.toy.entered.notified().await;

    served.stop.send(()).unwrap();
    eventually("readyz to turn", PATIENCE, || async {
        let mut probe = send(served.address, "/readyz").await;
        read_head(&mut probe)
            .await
            .starts_with("HTTP/1.1 503")
            .then_some(())
    })
    .await;
    eventually("the listener to close", PATIENCE, || async {
        TcpStream::connect(served.address).await.is_err().then_some(())
    })
    .await;
    assert!(served.told.load(SeqCst), "live connections are told to go");
    assert_eq!(idle.read(&mut [0; 64]).await.unwrap(), 0, "idle connections end");
    assert!(!served.server.is_finished(), "a request is still under way");
    served.toy.gate.notify_one();
    let answer = read_head(&mut waiting).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(served.server.await.unwrap(), 0, "nobody was cut off");
}

#[tokio::test]
async fn draining_ends_by_its_deadline() {
    let served = serve(AppOptions {
        drain_time: Duration::from_millis(50),
        ..options()
    })
    .await;
    let mut waiting = send(served.address, "/v1/toy/gate").await;
    served.toy.entered.notified().await;
    served.stop.send(()).unwrap();
    assert_eq!(served.server.await.unwrap(), 1, "one was cut off");
    assert_eq!(waiting.read(&mut [0; 64]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_let_go() {
    let served = serve(AppOptions {
        head_time: Duration::from_millis(50),
        ..options()
    })
    .await;
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.unwrap();
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn rubbish_on_a_connection_hurts_nobody_else() {
    let served = serve(options()).await;
    for rubbish in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/toy/things HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(rubbish).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 5"), "{rubbish:?}");
    }
    let mut well = send(served.address, "/livez").await;
    assert!(read_head(&mut well).await.starts_with("HTTP/1.1 200"));
}
