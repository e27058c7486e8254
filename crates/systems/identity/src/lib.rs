//! Identity: who there is, who is asking, and what they may do.
//!
//! | idea | where |
//! |---|---|
//! | a handle has one account, over commits that cover one partition | [`service::accounts`] |
//! | passwords: argon2id, bounded, a deny list | [`passwords`] |
//! | access tokens: EdDSA JWTs, rotating keys | [`tokens`] |
//! | refresh tokens: one use each, a second one ends the family | [`sessions`] |
//! | API keys | [`api_keys`] |
//! | roles and permissions | [`roles`] |
//! | guessing gets slow and no stranger locks you out | [`lockout`] |
//! | the audit log | [`audit`] |
//! | export and erasure | [`privacy`] |
//! | what a request costs: nothing but memory | [`service::access`] |
//!
//! An account's rows (profile, password, sessions, keys) share one partition, so that a login, a change of password
//! and an erasure cannot pass each other by. [`model`] lists the tables.
//!
//! What it promises: an account that was made is there after a crash, and its handle is nobody else's, ever. A session
//! that ended, a key that was deleted and a permission that was taken are refused from the answer on by the node that
//! did it, by the others as soon as the bus tells them, and by all within [`IdentityOptions::staleness`]. Lists of
//! accounts and the audit log are projections and a moment behind.

pub mod api;
pub mod api_keys;
pub mod audit;
mod caches;
mod check;
mod error;
pub mod lockout;
pub mod model;
pub mod passwords;
pub mod privacy;
mod projections;
pub mod roles;
mod secret;
pub mod service;
pub mod sessions;
pub mod tokens;

pub use error::IdentityError;
pub use passwords::PasswordCost;
pub use service::{
    Client, Identity, SESSIONS_SUBJECT, SessionsGone,
    administration::{ADMINISTRATOR_HANDLE, AdminToken},
};

use async_trait::async_trait;
use axum::Router;
use holon_contracts::{identity::ACCOUNTS_TOPIC, person::PersonalData};
use holon_ports::{Consumer, Table, TopicSpec};
use holon_web::{Health, Job, Projection, System};
use std::{io::Write, path::Path, sync::Arc, time::Duration};
use utoipa::openapi::OpenApi;

/// The system's name.
pub const NAME: &str = "identity";
/// The file that the first administrator's token is written to.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

/// How identity behaves.
#[derive(Clone)]
pub struct IdentityOptions {
    /// The deployment's secret, the same on all its nodes and ever after: signing keys, refresh tokens and handles
    /// hang on it.
    pub secret: [u8; 32],
    /// Issuer and audience of access tokens.
    pub issuer: String,
    pub access_token_lifetime: Duration,
    pub rotate_keys_every: Duration,
    /// A session ends when it was not refreshed for so long.
    pub session_idle: Duration,
    pub password_cost: PasswordCost,
    /// Password hashes at once.
    pub passwords_at_once: usize,
    /// Password hashes at once and waiting; more are told to come back.
    pub passwords_waiting: usize,
    /// Whether anybody may sign up.
    pub open_sign_up: bool,
    /// How long a node may believe what it remembers when the bus is silent.
    pub staleness: Duration,
    /// Whether the device cookie is for HTTPS alone.
    pub secure_cookies: bool,
}

impl IdentityOptions {
    pub fn new(secret: [u8; 32]) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            secret,
            issuer: "holon".into(),
            access_token_lifetime: Duration::from_secs(15 * 60),
            rotate_keys_every: Duration::from_secs(30 * 24 * 60 * 60),
            session_idle: Duration::from_secs(30 * 24 * 60 * 60),
            password_cost: PasswordCost::OWASP,
            passwords_at_once: cores,
            passwords_waiting: cores * 64,
            open_sign_up: true,
            staleness: Duration::from_secs(5),
            secure_cookies: false,
        }
    }
}

impl std::fmt::Debug for IdentityOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdentityOptions")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// Writes the administrator's token to `admin.token` in a directory, readable by its owner alone, whole or not at all.
///
/// # Errors
/// What the file system says.
pub fn write_admin_token(dir: &Path, token: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let temporary = dir.join(".admin.token.new");
    let _left_behind = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, dir.join(ADMIN_TOKEN_FILE))?;
    std::fs::File::open(dir)?.sync_all()
}

#[async_trait]
impl System for Identity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "Accounts, sessions, keys and permissions"
    }

    fn tables(&self) -> Vec<Table> {
        model::TABLES.to_vec()
    }

    fn topics(&self) -> Vec<TopicSpec> {
        [(ACCOUNTS_TOPIC, 8), (audit::AUDIT_TOPIC, 4)]
            .map(|(name, partitions)| TopicSpec {
                name,
                partitions,
                max_age: Some(privacy::EVENTS_KEPT_FOR),
                max_bytes: None,
            })
            .to_vec()
    }

    fn routes(self: Arc<Self>) -> (Router, OpenApi) {
        api::routes(self)
    }

    fn consumers(self: Arc<Self>) -> Vec<Consumer> {
        // An erasure is owed to somebody: it is tried for minutes before it is put aside for an operator.
        let mut erasures = Consumer::new(
            "identity.erasures",
            ACCOUNTS_TOPIC,
            Arc::new(projections::Erasures(self.clone())),
        );
        erasures.attempts = 12;
        vec![
            Consumer::new(
                "identity.directory",
                ACCOUNTS_TOPIC,
                Arc::new(projections::Directory(self.clone())),
            )
            .max_batch(256),
            Consumer::new(
                "identity.audit",
                audit::AUDIT_TOPIC,
                Arc::new(projections::AuditLog(self.clone())),
            )
            .max_batch(256),
            erasures,
        ]
    }

    fn jobs(self: Arc<Self>) -> Vec<Job> {
        vec![Job {
            name: "identity.keys",
            every: Duration::from_secs(10 * 60),
            run: Arc::new(move || {
                let identity = self.clone();
                Box::pin(async move {
                    identity
                        .key_ring()
                        .await
                        .map(|_| ())
                        .map_err(|error| error.to_string())
                })
            }),
        }]
    }

    fn projections(self: Arc<Self>) -> Vec<Projection> {
        vec![Projection {
            name: "identity.directory",
            rebuild: Arc::new(move || {
                let identity = self.clone();
                Box::pin(async move {
                    identity
                        .rebuild_directory()
                        .await
                        .map_err(|error| error.to_string())
                })
            }),
        }]
    }

    fn personal_data(self: Arc<Self>) -> Arc<dyn PersonalData> {
        Arc::new(privacy::OwnPart(self))
    }

    async fn health(&self) -> Health {
        match self.key_ring().await {
            Ok(_) => Health::ready(),
            Err(error) => {
                tracing::warn!(%error, "no key to sign with");
                Health {
                    ready: false,
                    detail: "there is no key to sign tokens with".into(),
                }
            }
        }
    }

    async fn check(&self) -> Result<Vec<String>, String> {
        self.check_rows().await.map_err(|error| error.to_string())
    }
}
