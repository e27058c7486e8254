//! The use cases: validate, authorise, commit, read. One file for each group of them.

pub mod access;
pub mod accounts;
pub mod administration;
pub mod keys;
pub mod sign_in;
pub mod signing;

use crate::{
    IdentityOptions,
    audit::Action,
    caches::Remembered,
    error::IdentityError,
    lockout::Lockout,
    model::{self, AccountRecord, AuditEntry, TENANTS, TenantRecord},
    passwords::Passwords,
    roles::{Role, RoleBook},
    secret::Secret,
};
use access::{Authority, Grant, VerifiedToken};
use holon_base::{Id, Tenant, Timestamp};
use holon_contracts::{identity::AccountSummary, person::PersonalData};
use holon_ports::{Batch, BusError, Committed, Consistency, Partition, Row, RowKey, Scan, StoreError, Table};
use holon_web::{Caller, CallerKind, Context};
use parking_lot::RwLock;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// The bus subject that says which sessions ended. Payload: [`SessionsGone`].
pub const SESSIONS_SUBJECT: &str = "identity.sessions";
const CHANGES_SUBJECT: &str = "identity.changes";

/// Tells every node, at once, that one session (or key) of an account ended, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionsGone {
    pub tenant: Tenant,
    pub account: Id,
    /// `None` for all.
    #[serde(default)]
    pub session: Option<Id>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Change {
    Account(Id),
    Roles(Tenant),
}

/// Where a request comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    pub address: Option<IpAddr>,
    pub user_agent: String,
    /// What an earlier login on this device was given: see [`crate::lockout`].
    pub device: Option<String>,
}

/// An account as it is remembered.
pub(crate) struct KnownAccount {
    pub tenant: Tenant,
    pub record: AccountRecord,
    pub summary: AccountSummary,
    pub version: u64,
}

/// Accounts, sessions, keys and permissions. See the crate's documentation.
pub struct Identity {
    pub(crate) ctx: Context,
    pub(crate) options: IdentityOptions,
    pub(crate) secret: Secret,
    pub(crate) passwords: Passwords,
    pub(crate) lockout: Lockout,
    pub(crate) signer: signing::Signer,
    pub(crate) people: RwLock<Vec<Arc<dyn PersonalData>>>,
    accounts: Remembered<Id, Arc<KnownAccount>>,
    /// A handle never changes its owner, so these are believed until the owner is gone.
    handles: Cache<(Tenant, Box<str>), Id>,
    tenants: Remembered<Tenant, ()>,
    books: Remembered<Tenant, Arc<RoleBook>>,
    authorities: Remembered<Id, Arc<Authority>>,
    grants: Remembered<Id, Arc<Grant>>,
    tokens: Cache<[u8; 32], Arc<VerifiedToken>>,
}

impl Identity {
    /// Makes the system. Its tables and topics must be there before anything is asked of it. Call it on a tokio
    /// runtime: it listens to what other nodes change, until it is dropped.
    ///
    /// # Errors
    /// If argon2 does not allow the configured cost.
    pub fn new(ctx: Context, options: IdentityOptions) -> Result<Arc<Self>, IdentityError> {
        let passwords = Passwords::new(
            options.password_cost,
            options.passwords_at_once,
            options.passwords_waiting,
        )?;
        let secret = Secret::new(options.secret);
        let fresh = options.staleness;
        let identity = Arc::new(Self {
            passwords,
            lockout: Lockout::default(),
            signer: signing::Signer::default(),
            people: RwLock::default(),
            accounts: Remembered::new(50_000, fresh),
            handles: Cache::new(50_000),
            tenants: Remembered::new(1_000, fresh),
            books: Remembered::new(1_000, fresh),
            authorities: Remembered::new(20_000, fresh),
            grants: Remembered::new(20_000, fresh),
            tokens: Cache::new(20_000),
            secret,
            options,
            ctx,
        });
        identity.listen();
        Ok(identity)
    }

    /// Adds a system to those that are asked when a person exports or erases. Call it for every system before
    /// requests and consumers start; identity's own part is always there.
    pub fn register_personal_data(&self, system: Arc<dyn PersonalData>) {
        let mut people = self.people.write();
        let is_there = people.iter().any(|known| known.system() == system.system());
        if system.system() != crate::NAME && !is_there {
            people.push(system);
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.ctx.clock.now()
    }

    pub(crate) fn audit(&self, action: Action) -> AuditEntry {
        let id = self.ctx.ids.next();
        AuditEntry::new(id, id.time(), action)
    }

    pub(crate) async fn get(
        &self,
        table: Table,
        partition: &Partition,
        sort: &[u8],
    ) -> Result<Option<Row>, StoreError> {
        let key = RowKey::new(table, partition.clone(), sort.to_vec());
        self.ctx.ports.store.get(&key, Consistency::Strong).await
    }

    pub(crate) async fn commit(&self, partition: &Partition, batch: Batch) -> Result<Committed, StoreError> {
        self.ctx.ports.store.commit(partition, batch).await
    }

    /// All rows of a partition of a table, or of those with a prefix; for what is small by its own limits.
    pub(crate) async fn rows(&self, table: Table, partition: &Partition) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        loop {
            let mut scan = Scan::all(table, partition.clone(), 500);
            if let Some(Row { sort, .. }) = rows.last() {
                scan = scan.after(sort.clone());
            }
            let page = self.ctx.ports.store.scan(&scan).await?;
            rows.extend(page.rows);
            if !page.more {
                return Ok(rows);
            }
        }
    }

    /// Whether a tenant is there. `main` always is.
    pub(crate) async fn require_tenant(&self, tenant: &Tenant) -> Result<(), IdentityError> {
        if *tenant == Tenant::default() || self.tenants.get(tenant, self.now()).is_some() {
            return Ok(());
        }
        let since = self.tenants.before_load();
        let partition = model::deployment_partition("tenants");
        let row = self.get(TENANTS, &partition, tenant.as_str().as_bytes()).await?;
        let record: TenantRecord = row.ok_or(IdentityError::NotFound("tenant"))?.json()?;
        self.tenants.remember(since, record.name, (), self.now());
        Ok(())
    }

    /// The roles of a tenant.
    pub(crate) async fn role_book(&self, tenant: &Tenant) -> Result<Arc<RoleBook>, IdentityError> {
        if let Some(book) = self.books.get(tenant, self.now()) {
            return Ok(book);
        }
        let since = self.books.before_load();
        let rows = self.rows(model::ROLES, &model::roles_partition(tenant)).await?;
        let defined: Vec<Role> = rows.iter().map(Row::json).collect::<Result<_, _>>()?;
        let book = Arc::new(RoleBook::new(defined));
        self.books
            .remember(since, tenant.clone(), book.clone(), self.now());
        Ok(book)
    }

    /// Forgets an account here and tells the other nodes.
    pub(crate) async fn account_changed(&self, account: Id) {
        self.forget_account(account);
        self.publish(CHANGES_SUBJECT, &Change::Account(account)).await;
    }

    pub(crate) async fn roles_changed(&self, tenant: &Tenant) {
        self.forget_roles(tenant);
        self.publish(CHANGES_SUBJECT, &Change::Roles(tenant.clone()))
            .await;
    }

    /// Ends what is remembered of a session, or of all, here and on every node.
    pub(crate) async fn sessions_gone(&self, gone: SessionsGone) {
        self.forget_sessions(&gone);
        self.publish(SESSIONS_SUBJECT, &gone).await;
    }

    fn forget_account(&self, account: Id) {
        self.accounts.forget(&account);
        self.authorities.forget(&account);
    }

    fn forget_roles(&self, tenant: &Tenant) {
        self.books.forget(tenant);
        self.authorities.forget_all();
    }

    fn forget_sessions(&self, gone: &SessionsGone) {
        match gone.session {
            Some(session) => self.grants.forget(&session),
            // Which ones is not known here; all are read again when they are next used.
            None => self.grants.forget_all(),
        }
    }

    async fn publish<T: Serialize>(&self, subject: &str, message: &T) {
        let Ok(payload) = serde_json::to_vec(message) else {
            return;
        };
        if let Err(error) = self.ctx.ports.bus.publish(subject, payload.into()).await {
            tracing::warn!(%error, subject, "other nodes will see this change in a few seconds");
        }
    }

    /// Follows what other nodes change. What this node published comes back too and does no harm.
    fn listen(self: &Arc<Self>) {
        let identity = Arc::downgrade(self);
        let bus = self.ctx.ports.bus.clone();
        tokio::spawn(async move {
            while identity.strong_count() > 0 {
                let mut subscription = match bus.subscribe("identity.>").await {
                    Ok(subscription) => subscription,
                    // Closed for good: the process is ending.
                    Err(BusError::Closed) => return,
                    Err(error) => {
                        tracing::warn!(%error, "cannot follow the changes of other nodes, will try again");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        continue;
                    }
                };
                loop {
                    let message = tokio::time::timeout(Duration::from_secs(5), subscription.next()).await;
                    let Some(identity) = identity.upgrade() else {
                        return;
                    };
                    match message {
                        Ok(Ok(message)) => identity.heard(&message.subject, &message.payload),
                        Ok(Err(BusError::Lagged(_))) => identity.forget_everything(),
                        Ok(Err(_)) => break,
                        Err(_no_message) => {}
                    }
                }
                if let Some(identity) = identity.upgrade() {
                    identity.forget_everything();
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }

    fn heard(&self, subject: &str, payload: &[u8]) {
        if subject == SESSIONS_SUBJECT {
            if let Ok(gone) = serde_json::from_slice(payload) {
                self.forget_sessions(&gone);
            }
            return;
        }
        match serde_json::from_slice(payload) {
            Ok(Change::Account(account)) => self.forget_account(account),
            Ok(Change::Roles(tenant)) => self.forget_roles(&tenant),
            Err(_unknown) => {}
        }
    }

    fn forget_everything(&self) {
        self.accounts.forget_all();
        self.tenants.forget_all();
        self.books.forget_all();
        self.authorities.forget_all();
        self.grants.forget_all();
    }
}

/// A permission, or a refusal that names it.
pub(crate) fn require(caller: &Caller, permission: &str) -> Result<(), IdentityError> {
    if caller.may(permission) {
        Ok(())
    } else {
        Err(IdentityError::Forbidden(permission.to_owned()))
    }
}

/// What only the person themselves may do: signed in, or with a key that may do everything.
pub(crate) fn require_person(caller: &Caller) -> Result<(), IdentityError> {
    match caller.kind {
        CallerKind::Session { .. } | CallerKind::System => Ok(()),
        CallerKind::ApiKey { .. } if caller.may("*") => Ok(()),
        CallerKind::ApiKey { .. } => Err(IdentityError::NotThisWay("an API key cannot do this; sign in")),
        CallerKind::Minted { .. } => Err(IdentityError::NotThisWay(
            "a minted token cannot do this; sign in",
        )),
    }
}
