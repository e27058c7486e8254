//! A person's own data: exported and erased.
//!
//! Erasing takes one commit and then time. The commit marks the account, deletes its password, sessions and keys and
//! tells [`ACCOUNT_ERASED`]: from then on nobody signs in as it, no token of it is accepted and nobody finds it. A
//! consumer then asks every system that keeps something to erase its part, again and again until each has, and
//! last takes away what identity keeps. What stays is an empty row under a keyed hash of the handle, so that the
//! handle is never given to another, and audit entries with ids alone. An id is never made twice.
//!
//! Events that were told before hold handle and name until the log drops them, [`EVENTS_KEPT_FOR`] after they were told.

use crate::{
    audit::Action,
    error::IdentityError,
    model::{
        self, ABANDONED_ROW, ACCOUNT_ROW, ACCOUNTS, AUDIT, AUDIT_OF, AccountRecord, AuditEntry, CREDENTIALS,
        HANDLE_ROW, HANDLES, HandleRecord, KEYS, PASSWORD_ROW, SESSIONS, account_partition,
    },
    projections::unlisted,
    roles::ADMINISTRATOR,
    service::{
        Client, Identity, SessionsGone, accounts::account_event, require_person, sign_in::ended_event,
    },
};
use async_trait::async_trait;
use holon_base::{Id, Tenant};
use holon_contracts::{
    identity::{ACCOUNT_ERASED, AccountErased},
    person::{Person, PersonalData, PersonalDataError},
};
use holon_ports::{Batch, Condition, Row, Scan, StoreError};
use holon_web::{Caller, CallerKind};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};

/// How long events of identity are kept: within the month that the GDPR gives an erasure.
pub const EVENTS_KEPT_FOR: Duration = Duration::from_secs(28 * 24 * 60 * 60);

impl Identity {
    fn systems(&self) -> Vec<Arc<dyn PersonalData>> {
        self.people.read().clone()
    }

    /// Everything that every system keeps of the caller, by system.
    pub async fn export(
        &self,
        caller: &Caller,
        client: &Client,
    ) -> Result<(AccountRecord, Map<String, Value>), IdentityError> {
        require_owner(caller)?;
        let account = self.own_account(caller).await?.account;
        let person = Person {
            tenant: caller.tenant.clone(),
            id: account.id,
            handle: account.handle.clone(),
        };
        let mut systems = Map::new();
        systems.insert(crate::NAME.to_owned(), self.own_part(&person).await?);
        for system in self.systems() {
            let part = system.export(&person).await;
            let part = part.map_err(|error| IdentityError::Broken(error.to_string()))?;
            systems.insert(system.system().to_owned(), part);
        }
        let entry = self
            .audit(Action::Exported)
            .by(account.id)
            .of_account(account.id)
            .from(client.address);
        self.ctx
            .ports
            .log
            .append(vec![entry.event(&caller.tenant)])
            .await?;
        Ok((account, systems))
    }

    /// What identity keeps, without what is secret from the person too: hashes and salts.
    async fn own_part(&self, person: &Person) -> Result<Value, IdentityError> {
        let read = self.read_account(&person.tenant, person.id).await?;
        let sessions: Vec<Value> = self
            .sessions(&person.tenant, person.id)
            .await?
            .into_iter()
            .map(|session| {
                json!({
                    "id": session.id, "created": session.created, "lastUsed": session.last_used,
                    "expires": session.expires, "userAgent": session.user_agent, "address": session.address,
                    "mintedBy": session.minted_by,
                })
            })
            .collect();
        let rows = self
            .rows(KEYS, &account_partition(&person.tenant, person.id))
            .await?;
        let mut keys = Vec::new();
        for row in rows {
            let key: model::KeyRecord = row.json()?;
            keys.push(json!({
                "id": key.id, "name": key.name, "scopes": key.scopes, "created": key.created, "lastUsed": key.last_used,
            }));
        }
        let mut audit = Vec::new();
        let mut after = None;
        loop {
            let (entries, next) = self.audit_of(&person.tenant, person.id, after, 500).await?;
            audit.extend(entries);
            after = next;
            if after.is_none() {
                break;
            }
        }
        Ok(json!({
            "account": read.map(|read| read.account),
            "sessions": sessions,
            "keys": keys,
            "audit": audit,
        }))
    }

    /// Begins the erasure of the caller's account: at once for everybody who looks, behind it in every system.
    ///
    /// # Errors
    /// [`IdentityError::Conflict`] for an administrator, who has to give the role back first, so that a deployment is
    /// not left without one by accident.
    pub async fn erase_account(
        &self,
        caller: &Caller,
        password: Option<&str>,
        client: &Client,
    ) -> Result<(), IdentityError> {
        require_owner(caller)?;
        let (tenant, id) = (&caller.tenant, caller.account);
        let account = self.own_account(caller).await?.account;
        self.confirm_owner(caller, &account, password, client).await?;
        for _attempt in 0..10 {
            let read = self.read_account(tenant, id).await?;
            let read = read.filter(|read| read.account.erased.is_none());
            let Some(read) = read else { return Ok(()) };
            let mut account = read.account;
            if account.roles.iter().any(|role| role == ADMINISTRATOR) {
                let hint = "an administrator is not erased; have the role taken away first";
                return Err(IdentityError::Conflict("administrator", hint));
            }
            account.erased = Some(self.now());
            account.name.clear();
            account.bio.clear();
            let told = AccountErased {
                id,
                handle: account.handle.clone(),
            };
            let entry = self.audit(Action::AccountErased).by(id).of_account(id);
            let mut batch = Batch::new()
                .put_if(ACCOUNTS, ACCOUNT_ROW, &account, Condition::Version(read.version))
                .delete(CREDENTIALS, PASSWORD_ROW)
                .event(account_event(tenant, id, ACCOUNT_ERASED, &told))
                .event(ended_event(tenant, id, None))
                .event(entry.event(tenant));
            for table in [SESSIONS, KEYS] {
                for row in self
                    .rows(table, &account_partition(tenant, id))
                    .await?
                    .into_iter()
                    .take(5_000)
                {
                    batch = batch.delete(table, row.sort);
                }
            }
            match self.commit(&account_partition(tenant, id), batch).await {
                Ok(_) => {
                    self.account_changed(id).await;
                    self.sessions_gone(SessionsGone {
                        tenant: tenant.clone(),
                        account: id,
                        session: None,
                    })
                    .await;
                    return Ok(());
                }
                Err(StoreError::ConditionFailed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(IdentityError::Busy)
    }

    /// Has every system erase its part, then takes away the rest. Safe to repeat.
    pub(crate) async fn finish_erasure(
        &self,
        tenant: &Tenant,
        erased: AccountErased,
    ) -> Result<(), PersonalDataError> {
        let person = Person {
            tenant: tenant.clone(),
            id: erased.id,
            handle: erased.handle,
        };
        let mut failed = None;
        for system in self.systems() {
            // One system that cannot now does not keep the others from it.
            if let Err(error) = system.erase(&person).await {
                tracing::warn!(%error, account = %person.id, "a system has not erased its part yet");
                failed = Some(error);
            }
        }
        match failed {
            Some(error) => Err(error),
            None => self.erase_own_part(&person).await.map_err(own_error),
        }
    }

    async fn erase_own_part(&self, person: &Person) -> Result<(), IdentityError> {
        let (tenant, id) = (&person.tenant, person.id);
        let partition = account_partition(tenant, id);
        self.scrub_audit(tenant, id).await?;
        match self
            .commit(&model::directory_partition(tenant), unlisted(id))
            .await
        {
            Ok(_) | Err(StoreError::ConditionFailed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let handles = self.handle_partition(tenant, &person.handle);
        if let Some(row) = self.get(HANDLES, &handles, HANDLE_ROW).await? {
            let held: HandleRecord = row.json()?;
            if held.account == Some(id) {
                let nobodys = HandleRecord {
                    account: None,
                    ..held
                };
                self.commit(&handles, Batch::new().put(HANDLES, HANDLE_ROW, &nobodys))
                    .await?;
            }
        }
        let mut rest = Batch::new()
            .delete(ACCOUNTS, ACCOUNT_ROW)
            .delete(ACCOUNTS, ABANDONED_ROW)
            .delete(CREDENTIALS, PASSWORD_ROW);
        for table in [SESSIONS, KEYS] {
            for row in self.rows(table, &partition).await? {
                rest = rest.delete(table, row.sort);
            }
        }
        self.commit(&partition, rest).await?;
        self.account_changed(id).await;
        Ok(())
    }

    /// Takes the addresses out of the account's audit entries: see [`crate::audit`].
    async fn scrub_audit(&self, tenant: &Tenant, account: Id) -> Result<(), IdentityError> {
        let mut after: Option<Row> = None;
        loop {
            let mut scan = Scan::all(AUDIT_OF, account_partition(tenant, account), 500);
            if let Some(row) = &after {
                scan = scan.after(row.sort.clone());
            }
            let page = self.ctx.ports.store.scan(&scan).await?;
            let mut commits = Vec::new();
            for row in &page.rows {
                let entry: AuditEntry = row.json()?;
                let place = entry.partition(tenant);
                let until = entry.time.plus(crate::audit::KEPT_FOR);
                let batch =
                    Batch::new().put_until(AUDIT, row.sort.clone(), &entry.scrubbed(), Condition::Any, until);
                commits.push((place, batch));
            }
            for done in self.ctx.ports.store.commit_many(commits).await {
                done?;
            }
            if !page.more {
                return Ok(());
            }
            after = page.rows.last().cloned();
        }
    }
}

/// The owner, also by a token that an administrator minted for them, but never by a key with few scopes.
fn require_owner(caller: &Caller) -> Result<(), IdentityError> {
    match caller.kind {
        CallerKind::Minted { .. } => Ok(()),
        _ => require_person(caller),
    }
}

fn own_error(error: IdentityError) -> PersonalDataError {
    PersonalDataError {
        system: crate::NAME,
        message: error.to_string(),
    }
}

/// Identity's own part, as other systems answer for theirs.
pub(crate) struct OwnPart(pub Arc<Identity>);

#[async_trait]
impl PersonalData for OwnPart {
    fn system(&self) -> &'static str {
        crate::NAME
    }

    async fn export(&self, person: &Person) -> Result<Value, PersonalDataError> {
        self.0.own_part(person).await.map_err(own_error)
    }

    async fn erase(&self, person: &Person) -> Result<(), PersonalDataError> {
        self.0.erase_own_part(person).await.map_err(own_error)
    }
}
