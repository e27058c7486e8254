//! People who signed in by password before anything happened, and must still be signed in after everything.

use crate::{
    client::Clients,
    http::{Answer, Request},
};
use http::Method;
use serde_json::json;
use std::time::{Duration, Instant};

/// Access tokens live for a quarter of an hour.
const REFRESH_AFTER: Duration = Duration::from_secs(10 * 60);
const PATIENCE: Duration = Duration::from_secs(30);
const PASSWORD: &str = "seven-quiet-otters-juggle";

struct Session {
    handle: String,
    access: String,
    refresh: String,
    refreshed: Instant,
}

/// The sessions of some people.
pub struct Sessions(Vec<Session>);

impl Sessions {
    /// Signs up and in.
    ///
    /// # Errors
    /// What was refused.
    pub async fn begin(clients: &Clients, name: &str, count: usize) -> Result<Self, String> {
        let mut sessions = Vec::new();
        for number in 0..count {
            let handle = format!("{name}_{number}");
            let who = json!({ "handle": handle, "password": PASSWORD });
            let sign_up = Request::new(Method::POST, "/v1/identity/accounts").body(who.clone());
            ask(clients, number, "", &sign_up).await?;
            let login = Request::new(Method::POST, "/v1/identity/login").body(who);
            let tokens = ask(clients, number, "", &login).await?;
            sessions.push(Session::of(handle, &tokens));
        }
        Ok(Self(sessions))
    }

    /// Uses every session on every node, and refreshes those that are due, and one at least.
    pub async fn complaints(&mut self, clients: &Clients) -> Vec<String> {
        let mut complaints = Vec::new();
        for (number, session) in self.0.iter_mut().enumerate() {
            if number == 0 || session.refreshed.elapsed() > REFRESH_AFTER {
                let refresh = Request::new(Method::POST, "/v1/identity/tokens/refresh")
                    .body(json!({ "refreshToken": session.refresh }));
                match ask(clients, number, "", &refresh).await {
                    Ok(tokens) => *session = Session::of(session.handle.clone(), &tokens),
                    Err(error) => complaints.push(format!(
                        "{} cannot refresh their session: {error}",
                        session.handle
                    )),
                }
            }
            for node in 0..clients.nodes.len() {
                let me = Request::get("/v1/identity/me");
                if let Err(error) = ask(clients, node, &session.access, &me).await {
                    complaints.push(format!("{} is signed in no more: {error}", session.handle));
                }
            }
        }
        complaints
    }
}

impl Session {
    fn of(handle: String, tokens: &Answer) -> Self {
        let document = tokens.json();
        let token = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
        Self {
            handle,
            access: token("accessToken"),
            refresh: token("refreshToken"),
            refreshed: Instant::now(),
        }
    }
}

async fn ask(clients: &Clients, node: usize, token: &str, request: &Request) -> Result<Answer, String> {
    let server = &clients.nodes[node % clients.nodes.len()];
    let answer = clients.http.send(server, token, request, PATIENCE).await;
    let at = |said: String| format!("{server}{}: {said}", request.path);
    let answer = answer.map_err(at)?;
    if !answer.is_success() {
        return Err(at(format!(
            "{} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        )));
    }
    Ok(answer)
}
