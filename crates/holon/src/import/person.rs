//! One account of the import: its token, and what it has on the server already.

use super::handle;
use crate::client::{Answer, Client, ClientError, Sending};
use http::{Method, StatusCode};
use serde::Deserialize;
use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// How long a minted token is asked to hold, the longest there is.
const TOKEN_SECONDS: u64 = 3_600;
/// A token with less time left than this is not used any more.
const TOKEN_RESERVE: Duration = Duration::from_secs(60);

/// An account to act as.
pub struct Person {
    pub number: usize,
    pub handle: String,
    /// It was there before this run, so what it has must be read before anything is added.
    pub existed: AtomicBool,
    token: tokio::sync::Mutex<Option<Minted>>,
    /// What it has posted, by the text that counts for comparison; `None` until that is known. The lock is held
    /// while it posts, so that an account's posts have one order.
    pub posted: tokio::sync::Mutex<Option<Posted>>,
}

#[derive(Clone)]
struct Minted {
    token: String,
    until: Instant,
}

/// Ids of posts by text. Two posts may have the same text.
pub type Posted = HashMap<String, Vec<String>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenAnswer {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
struct ListAnswer<T> {
    items: Vec<T>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct FolloweeAnswer {
    handle: String,
}

#[derive(Deserialize)]
struct PostAnswer {
    id: String,
    text: String,
    kind: String,
}

impl Person {
    pub fn new(number: usize) -> Self {
        Self {
            number,
            handle: handle(number),
            existed: AtomicBool::new(false),
            token: tokio::sync::Mutex::default(),
            posted: tokio::sync::Mutex::default(),
        }
    }

    pub fn existed(&self) -> bool {
        self.existed.load(Ordering::Relaxed)
    }

    /// A token of this account: the one in hand while it holds, or a new one from the administrator.
    async fn token(&self, client: &Client, administrator: &str) -> Result<String, ClientError> {
        let mut token = self.token.lock().await;
        if let Some(minted) = token.as_ref().filter(|minted| minted.until > Instant::now()) {
            return Ok(minted.token.clone());
        }
        let path = format!("/v1/identity/accounts/{}/tokens", self.handle);
        let body = serde_json::json!({ "expiresIn": TOKEN_SECONDS });
        let sending = Sending {
            token: Some(administrator),
            body: Some(&body),
            ..Sending::default()
        };
        let asked = Instant::now();
        let answer = client.call(Method::POST, &path, sending).await?;
        let minted: TokenAnswer = answer.ok(&format!("token for {}", self.handle))?.json()?;
        let holds = Duration::from_secs(minted.expires_in).saturating_sub(TOKEN_RESERVE);
        *token = Some(Minted {
            token: minted.access_token.clone(),
            until: asked + holds,
        });
        Ok(minted.access_token)
    }

    /// Sends a request as this account, once more with a new token if the old one was not taken. `send` is how.
    async fn authorised<F, Sent>(
        &self,
        client: &Client,
        administrator: &str,
        send: F,
    ) -> Result<Answer, ClientError>
    where
        F: Fn(String) -> Sent,
        Sent: Future<Output = Result<Answer, ClientError>>,
    {
        let answer = send(self.token(client, administrator).await?).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        *self.token.lock().await = None;
        send(self.token(client, administrator).await?).await
    }

    /// A request that may be sent twice, seen through.
    pub async fn call(
        &self,
        client: &Client,
        administrator: &str,
        method: Method,
        path: &str,
    ) -> Result<Answer, ClientError> {
        let send = |token: String| {
            let method = method.clone();
            async move {
                let sending = Sending {
                    token: Some(&token),
                    ..Sending::default()
                };
                client.call(method, path, sending).await
            }
        };
        self.authorised(client, administrator, send).await
    }

    /// One attempt to post a text.
    pub async fn post_once(
        &self,
        client: &Client,
        administrator: &str,
        text: &str,
        key: &str,
    ) -> Result<Answer, ClientError> {
        let body = serde_json::json!({ "text": text });
        let body = &body;
        let send = |token: String| async move {
            let sending = Sending {
                token: Some(&token),
                idempotency_key: Some(key),
                body: Some(body),
            };
            client.once(Method::POST, "/v1/feed/posts", sending).await
        };
        self.authorised(client, administrator, send).await
    }

    async fn list<T: serde::de::DeserializeOwned>(
        &self,
        client: &Client,
        administrator: &str,
        path: &str,
    ) -> Result<Vec<T>, ClientError> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = format!(
                "{path}{}limit=200{cursor}",
                if path.contains('?') { '&' } else { '?' }
            );
            let answer = self.call(client, administrator, Method::GET, &page).await?;
            let page: ListAnswer<T> = answer.ok(path)?.json()?;
            items.extend(page.items);
            match page.next {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// The handles that this account follows.
    pub async fn following(
        &self,
        client: &Client,
        administrator: &str,
    ) -> Result<HashSet<String>, ClientError> {
        let path = format!("/v1/feed/users/{}/following", self.handle);
        let list: Vec<FolloweeAnswer> = self.list(client, administrator, &path).await?;
        Ok(list.into_iter().map(|followee| followee.handle).collect())
    }

    /// What this account has posted itself. `comparable` gives the form in which texts are compared.
    pub async fn posts(
        &self,
        client: &Client,
        administrator: &str,
        comparable: impl Fn(&str) -> String,
    ) -> Result<Posted, ClientError> {
        let path = format!("/v1/feed/users/{}/posts?replies=true", self.handle);
        let list: Vec<PostAnswer> = self.list(client, administrator, &path).await?;
        let mut posted = Posted::new();
        // Newest first; the oldest of the same text is taken first.
        for post in list.into_iter().filter(|post| post.kind == "post") {
            posted.entry(comparable(&post.text)).or_default().push(post.id);
        }
        Ok(posted)
    }
}
