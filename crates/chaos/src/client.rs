//! A good client: it names each write by an `Idempotency-Key`, sends it again where that may help, to another node, and
//! gives up only after a while.

use crate::{
    http::{Answer, Http, Request},
    journal::{Action, Attempt, Entry, Journal, Outcome},
};
use http::Method;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long a client goes on trying: longer than the server may keep a key whose request died with its node.
const PATIENCE_MICROS: u64 = 75_000_000;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The page of a home that a client looks at.
const PAGE: usize = 30;

/// Somebody with an account.
#[derive(Debug, Clone)]
pub struct Person {
    pub handle: String,
    pub token: String,
}

/// What all clients share.
pub struct Clients {
    pub http: Http,
    /// `http://host:port` of each node.
    pub nodes: Vec<String>,
    pub journal: Arc<Journal>,
}

impl Clients {
    /// Does something for somebody, writes it into the journal, and says how it ended.
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub async fn perform(
        &self,
        person: &Person,
        action: Action,
        first_node: usize,
    ) -> std::io::Result<Outcome> {
        let request = request_for(&action);
        let mut attempts: Vec<Attempt> = Vec::new();
        let outcome = loop {
            let number = attempts.len();
            let node = (first_node + number) % self.nodes.len();
            let started = self.journal.now();
            let answer = self
                .http
                .send(&self.nodes[node], &person.token, &request, ATTEMPT)
                .await;
            attempts.push(Attempt {
                node,
                started,
                ended: self.journal.now(),
                status: answer.as_ref().ok().map(|answer| answer.status),
                error: match &answer {
                    Ok(answer) => answer.problem(),
                    Err(error) => error.clone(),
                },
            });
            match &answer {
                Ok(answer) if answer.is_success() => break done(&action, answer),
                Ok(answer) if !answer.is_passing() => {
                    break Outcome::Refused {
                        status: answer.status,
                        problem: answer.problem(),
                    };
                }
                _ => {}
            }
            if self.journal.now() - attempts[0].started > PATIENCE_MICROS {
                break Outcome::Unknown;
            }
            let asked = answer.ok().and_then(|answer| answer.retry_after());
            tokio::time::sleep(pause(number, asked)).await;
        };
        self.journal.write(&Entry {
            person: person.handle.clone(),
            action,
            attempts,
            outcome: outcome.clone(),
        })?;
        Ok(outcome)
    }
}

/// As long as the server asks for, within reason, or longer each time; spread out, so that not all come back at once.
fn pause(attempt: usize, asked: Option<Duration>) -> Duration {
    let backed_off = FIRST_PAUSE * (1 << attempt.min(5));
    let pause = asked.unwrap_or(backed_off).min(LONGEST_PAUSE);
    pause.mul_f64(rand::random_range(0.7..1.3))
}

fn request_for(action: &Action) -> Request {
    let mut request = match action {
        Action::Post { text } => Request::new(Method::POST, "/v1/feed/posts").body(json!({ "text": text })),
        Action::Delete { post } => Request::new(Method::DELETE, format!("/v1/feed/posts/{post}")),
        Action::Like { post, .. } => Request::new(Method::PUT, format!("/v1/feed/posts/{post}/like")),
        Action::Unlike { post, .. } => Request::new(Method::DELETE, format!("/v1/feed/posts/{post}/like")),
        Action::Follow { handle } => Request::new(Method::PUT, format!("/v1/feed/follows/{handle}")),
        Action::Unfollow { handle } => Request::new(Method::DELETE, format!("/v1/feed/follows/{handle}")),
        Action::Home => Request::get(format!("/v1/feed/home?order=latest&limit={PAGE}")),
    };
    if action.is_write() {
        request.idempotency_key = Some(format!("{:032x}", rand::random::<u128>()));
    }
    request
}

fn done(action: &Action, answer: &Answer) -> Outcome {
    let document = answer.json();
    match action {
        Action::Post { .. } => id_of(&document).map_or(Outcome::Unknown, |post| Outcome::Posted { post }),
        Action::Home => {
            let items = document["items"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let seen = items.iter().filter_map(|item| {
                let author = item["author"]["handle"].as_str()?.to_owned();
                Some((id_of(item)?, author))
            });
            Outcome::Seen {
                posts: seen.collect(),
                is_all: document["next"].is_null(),
            }
        }
        _ => Outcome::Done,
    }
}

/// The id of a post as the API writes it.
pub fn id_of(document: &Value) -> Option<u64> {
    document["id"].as_str()?.parse().ok()
}
