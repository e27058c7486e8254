//! A lean HTTP/1.1 client and load generator: keep-alive connections, each with one request under way at a time.
//!
//! It does as little as it can, since it shares the machine with what it measures: requests are bytes made before,
//! and of an answer only the head is looked at.

use crate::rows::Times;
use anyhow::{Context as _, Result, bail, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use serde_json::Value;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

/// A request as it goes over the wire.
pub fn request(method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: bench\r\n");
    if let Some(token) = token {
        text.push_str(&format!("authorization: Bearer {token}\r\n"));
    }
    let body = body.map(Value::to_string).unwrap_or_default();
    if !body.is_empty() {
        text.push_str("content-type: application/json\r\n");
    }
    if method != "GET" {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(&body);
    text.into_bytes()
}

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// An answer, until the next request.
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

/// How the end of a body is known.
struct Head {
    status: u16,
    length: usize,
    body: usize,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::with_capacity(64 << 10),
        })
    }

    /// Sends a request and reads its answer whole.
    ///
    /// # Errors
    /// If the connection breaks or the answer does not tell its length (`Content-Length`).
    pub async fn call(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.received.clear();
        let head = loop {
            self.receive().await?;
            if let Some(head) = head(&self.received)? {
                break head;
            }
        };
        while self.received.len() < head.length {
            self.receive().await?;
        }
        ensure!(self.received.len() == head.length, "more was answered than asked");
        Ok(Answer {
            status: head.status,
            body: &self.received[head.body..],
        })
    }

    /// Sends a request and reads its answer as JSON; `Null` if it is empty.
    ///
    /// # Errors
    /// As [`Connection::call`], and if the answer is no success.
    pub async fn json(
        &mut self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let answer = self.call(&request(method, path, Some(token), body)).await?;
        if !(200..300).contains(&answer.status) {
            let text = String::from_utf8_lossy(answer.body);
            bail!("{method} {path} answers {}: {text}", answer.status);
        }
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(answer.body)?)
    }

    async fn receive(&mut self) -> Result<()> {
        let count = self.stream.read_buf(&mut self.received).await?;
        ensure!(count > 0, "the server closed the connection");
        Ok(())
    }
}

/// The head of an answer once it is there whole.
fn head(received: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body) = response.parse(received)? else {
        return Ok(None);
    };
    let status = response.code.context("an answer without a status")?;
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length: usize = match length {
        Some(header) => std::str::from_utf8(header.value)?.parse()?,
        None if status == 204 || status == 304 => 0,
        None => bail!("an answer of status {status} without content-length"),
    };
    Ok(Some(Head {
        status,
        length: body + length,
        body,
    }))
}

/// What a load saw.
pub struct Load {
    pub times: Times,
    pub elapsed: Duration,
    /// Of all bodies.
    pub bytes: u64,
}

impl Load {
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Sends requests chosen at random, over some connections at a time, until time is up.
///
/// # Errors
/// If any answer is not 200.
pub async fn random(
    addresses: &[SocketAddr],
    requests: &Arc<[Vec<u8>]>,
    connections: usize,
    duration: Duration,
) -> Result<Load> {
    let mut clients = Vec::new();
    for address in addresses.iter().cycle().take(connections) {
        clients.push(Connection::open(*address).await?);
    }
    let start = Instant::now();
    let deadline = start + duration;
    let mut tasks = JoinSet::new();
    for (seed, mut client) in (0..).zip(clients) {
        let requests = requests.clone();
        tasks.spawn(async move {
            let mut random = SmallRng::seed_from_u64(seed);
            let mut times = Times::default();
            let mut bytes = 0;
            loop {
                let start = Instant::now();
                if start >= deadline {
                    return anyhow::Ok((times, bytes));
                }
                let request = &requests[random.random_range(0..requests.len())];
                bytes += expect(client.call(request).await?, 200)?;
                times.add(start);
            }
        });
    }
    gather(start, tasks).await
}

/// Sends each request once, over some connections at a time.
///
/// # Errors
/// If any answer is not of the expected status.
pub async fn each(
    addresses: &[SocketAddr],
    requests: Vec<Vec<u8>>,
    connections: usize,
    status: u16,
) -> Result<Load> {
    let mut clients = Vec::new();
    for address in addresses.iter().cycle().take(connections) {
        clients.push(Connection::open(*address).await?);
    }
    let requests = Arc::new(parking_lot::Mutex::new(requests.into_iter()));
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let requests = requests.clone();
        tasks.spawn(async move {
            let mut times = Times::default();
            let mut bytes = 0;
            loop {
                let request = requests.lock().next();
                let Some(request) = request else {
                    return anyhow::Ok((times, bytes));
                };
                let start = Instant::now();
                bytes += expect(client.call(&request).await?, status)?;
                times.add(start);
            }
        });
    }
    gather(start, tasks).await
}

fn expect(answer: Answer<'_>, status: u16) -> Result<u64> {
    if answer.status != status {
        let text = String::from_utf8_lossy(answer.body);
        bail!("answered {} where {status} was expected: {text}", answer.status);
    }
    Ok(answer.body.len() as u64)
}

async fn gather(start: Instant, mut tasks: JoinSet<Result<(Times, u64)>>) -> Result<Load> {
    let mut all = Times::default();
    let mut all_bytes = 0;
    while let Some(task) = tasks.join_next().await {
        let (times, bytes) = task??;
        all.merge(times);
        all_bytes += bytes;
    }
    Ok(Load {
        times: all,
        elapsed: start.elapsed(),
        bytes: all_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert!(head(&whole[..30]).unwrap().is_none());
        let head = head(whole).unwrap().unwrap();
        assert_eq!(
            (head.status, head.length, &whole[head.body..]),
            (200, whole.len(), &b"{}"[..])
        );
    }

    #[test]
    fn requests_are_plain_http() {
        let body = serde_json::json!({"text": "hi"});
        let post = String::from_utf8(request("POST", "/posts", Some("t"), Some(&body))).unwrap();
        assert_eq!(
            post,
            "POST /posts HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer t\r\ncontent-type: application/json\r\n\
             content-length: 13\r\n\r\n{\"text\":\"hi\"}"
        );
        assert!(
            String::from_utf8(request("GET", "/", None, None))
                .unwrap()
                .ends_with("bench\r\n\r\n")
        );
    }
}
