//! Serving a router on a port that the system chooses.

use axum::Router;
use std::net::SocketAddr;
use tokio::{net::TcpListener, task::JoinHandle};

/// A server that stops when this is dropped.
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Such as `http://127.0.0.1:40123`, with a path appended.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a router on the loopback interface; it accepts connections on return.
pub async fn serve(router: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port of the loopback interface");
    let address = listener.local_addr().expect("a bound socket has an address");
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let task = tokio::spawn(async move {
        axum::serve(listener, service)
            .await
            .expect("a server that runs until it is stopped");
    });
    Server { address, task }
}
