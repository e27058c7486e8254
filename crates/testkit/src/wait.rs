//! Waiting for a condition.

use std::{future::Future, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

/// How long a test waits for what should take moments, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until the answer is `Some`.
///
/// # Panics
/// When the deadline has passed, saying what was waited for.
pub async fn eventually<T, F>(what: &str, deadline: Duration, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "waited {deadline:?} in vain for: {what}");
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Sends a `GET` to a server of this machine and answers all that it says, head first.
///
/// # Errors
/// Those of connecting, sending and reading.
pub async fn ask(port: u16, path: &str) -> std::io::Result<String> {
    exchange(port, "GET", path).await
}

/// Sends a request without a body to a server of this machine and answers all that it says, head first.
///
/// # Errors
/// Those of connecting, sending and reading.
pub async fn exchange(port: u16, method: &str, path: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}
