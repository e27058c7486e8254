//! Making, finding and changing accounts.
//!
//! # One handle, one account
//!
//! A handle must be unique in its tenant, and a commit covers one partition only. So making an account takes two: the
//! handle's row is claimed for the new id, then the account is made. Whether a claim stands is not written in it: it
//! stands when its account is there.
//!
//! - Dead before the claim: nothing happened.
//! - Dead between the two: a claim without its account. After [`CLAIM_GRACE`] whoever wants the handle first *fences*
//!   the missing account (a row in its partition that forbids making it), then takes the claim over under the version
//!   that was read. If the first one only slept, its second commit fails on the fence. So the outcome never hangs on a clock.
//! - Dead after the second: the account is there and so the claim stands.

use super::{Client, Identity, KnownAccount, require};
use crate::{
    audit::Action,
    error::IdentityError,
    model::{
        self, ABANDONED_ROW, ACCOUNT_ROW, ACCOUNTS, AccountRecord, CREDENTIALS, CredentialRecord, DIRECTORY,
        HANDLE_ROW, HANDLES, HandleRecord, PASSWORD_ROW, account_partition, normal_handle, normal_text,
    },
    passwords::check_strength,
    roles::MEMBER,
    secret::encode,
};
use async_trait::async_trait;
use holon_base::{ErrorKind, Id, Tenant};
use holon_contracts::identity::{
    ACCOUNT_CREATED, ACCOUNT_UPDATED, ACCOUNTS_TOPIC, AccountChanged, AccountSummary, Accounts, AccountsError,
};
use holon_ports::{Batch, Condition, Consistency, NewEvent, Partition, Row, Scan, StoreError};
use holon_web::Caller;
use std::{sync::Arc, time::Duration};

/// How old a claim without an account is before somebody else may take it over: longer than a request takes.
pub const CLAIM_GRACE: Duration = Duration::from_secs(60);
/// May make accounts without a password, and accounts where sign-up is closed.
pub const CREATE_PERMISSION: &str = "identity.accounts.create";
pub const LIST_PERMISSION: &str = "identity.accounts.list";

/// What a new account is made of.
#[derive(Debug, Clone, Default)]
pub struct NewAccount {
    pub handle: String,
    pub name: Option<String>,
    pub bio: Option<String>,
    pub password: Option<String>,
}

/// An account with the version of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    pub account: AccountRecord,
    pub version: u64,
}

impl Identity {
    /// Makes an account: two commits, and an argon2 hash if it has a password.
    ///
    /// # Errors
    /// [`IdentityError::HandleTaken`], also for a handle that an erased account had.
    pub async fn create_account(
        &self,
        caller: Option<&Caller>,
        tenant: &Tenant,
        new: NewAccount,
        client: &Client,
    ) -> Result<Versioned, IdentityError> {
        self.require_tenant(tenant).await?;
        let is_privileged = caller.is_some_and(|caller| caller.may(CREATE_PERMISSION));
        if !self.options.open_sign_up && !is_privileged {
            return Err(IdentityError::Forbidden(CREATE_PERMISSION.to_owned()));
        }
        let handle = normal_handle(&new.handle).ok_or(IdentityError::Invalid(
            "/handle",
            "a handle is 1 to 32 of a-z, 0-9 and _",
        ))?;
        let name = normal_name(new.name.as_deref().unwrap_or_default(), &handle)?;
        let bio = normal_bio(new.bio.as_deref().unwrap_or_default())?;
        let now = self.now();
        let account = AccountRecord {
            id: self.ctx.ids.next(),
            handle,
            name,
            bio,
            created: now,
            roles: vec![MEMBER.to_owned()],
            erased: None,
        };
        let mut rows = Batch::new();
        match new.password {
            Some(password) => {
                check_strength(&password, &account.handle, &account.name)?;
                // A hash is dear; a taken handle is seen before it is spent.
                if self.holder_of(tenant, &account.handle).await?.is_some() {
                    return Err(IdentityError::HandleTaken);
                }
                let password = self.passwords.hash(&password).await?;
                rows = rows.put(
                    CREDENTIALS,
                    PASSWORD_ROW,
                    &CredentialRecord {
                        password,
                        changed: now,
                    },
                );
            }
            None if is_privileged => {}
            None => {
                return Err(IdentityError::Invalid(
                    "/password",
                    "send a password: only an administrator makes accounts without one",
                ));
            }
        }
        let actor = caller.map_or(account.id, |caller| caller.account);
        let audited = self
            .audit(Action::AccountCreated)
            .by(actor)
            .of_account(account.id)
            .from(client.address);
        let version = self
            .make_account(tenant, &account, rows.event(audited.event(tenant)))
            .await?;
        Ok(Versioned { account, version })
    }

    /// Claims the handle, then makes the account together with more rows and events of its partition.
    pub(crate) async fn make_account(
        &self,
        tenant: &Tenant,
        account: &AccountRecord,
        more: Batch,
    ) -> Result<u64, IdentityError> {
        let claim = self.claim_handle(tenant, &account.handle, account.id).await?;
        let told = AccountChanged {
            id: account.id,
            handle: account.handle.clone(),
            name: account.name.clone(),
        };
        let mut batch = Batch::new()
            .put_if_absent(ACCOUNTS, ACCOUNT_ROW, account)
            .check(ACCOUNTS, ABANDONED_ROW, Condition::Absent)
            .event(account_event(tenant, account.id, ACCOUNT_CREATED, &told));
        batch.ops.extend(more.ops);
        match self.commit(&account_partition(tenant, account.id), batch).await {
            Ok(committed) => {
                self.handles
                    .insert((tenant.clone(), account.handle.as_str().into()), account.id);
                Ok(committed.version)
            }
            // Somebody fenced this account: the handle is theirs.
            Err(StoreError::ConditionFailed { .. }) => Err(IdentityError::HandleTaken),
            Err(StoreError::Unknown(text)) => Err(StoreError::Unknown(text).into()),
            Err(error) => {
                let undo = Batch::new().delete_if(HANDLES, HANDLE_ROW, Condition::Version(claim));
                let _kept_until_taken_over = self
                    .commit(&self.handle_partition(tenant, &account.handle), undo)
                    .await;
                Err(error.into())
            }
        }
    }

    /// Claims a handle for an account that is about to be made; answers the version of the claim.
    pub(crate) async fn claim_handle(
        &self,
        tenant: &Tenant,
        handle: &str,
        account: Id,
    ) -> Result<u64, IdentityError> {
        let partition = self.handle_partition(tenant, handle);
        let claim = HandleRecord {
            account: Some(account),
            claimed: self.now(),
        };
        let mut expected = Condition::Absent;
        for _attempt in 0..3 {
            let batch = Batch::new().put_if(HANDLES, HANDLE_ROW, &claim, expected);
            match self.commit(&partition, batch).await {
                Ok(committed) => return Ok(committed.version),
                Err(StoreError::ConditionFailed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let Some(row) = self.get(HANDLES, &partition, HANDLE_ROW).await? else {
                expected = Condition::Absent;
                continue;
            };
            let held: HandleRecord = row.json()?;
            let Some(holder) = held.account else {
                return Err(IdentityError::HandleTaken);
            };
            let is_young = self.now().since(held.claimed) < CLAIM_GRACE;
            if is_young || !self.fence_missing_account(tenant, holder).await? {
                return Err(IdentityError::HandleTaken);
            }
            expected = Condition::Version(row.version);
        }
        Err(IdentityError::HandleTaken)
    }

    /// Makes sure that an account which is not there never will be; false if it is there.
    async fn fence_missing_account(&self, tenant: &Tenant, account: Id) -> Result<bool, IdentityError> {
        let until = self.now().plus(Duration::from_secs(24 * 60 * 60));
        let fence = Batch::new()
            .check(ACCOUNTS, ACCOUNT_ROW, Condition::Absent)
            .put_until(
                ACCOUNTS,
                ABANDONED_ROW,
                &serde_json::json!({}),
                Condition::Any,
                until,
            );
        match self.commit(&account_partition(tenant, account), fence).await {
            Ok(_) => Ok(true),
            Err(StoreError::ConditionFailed { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The partition of a handle: by a keyed hash, so that a key tells nobody whose it was.
    pub(crate) fn handle_partition(&self, tenant: &Tenant, handle: &str) -> Partition {
        let hash = self
            .secret
            .derive("handle", &[tenant.as_str().as_bytes(), handle.as_bytes()]);
        Partition::new(tenant, format!("handle:{}", encode(&hash[..24])))
    }

    /// Whose claim is on a handle, whether the account is there or not. One read.
    async fn holder_of(&self, tenant: &Tenant, handle: &str) -> Result<Option<HandleRecord>, StoreError> {
        let row = self
            .get(HANDLES, &self.handle_partition(tenant, handle), HANDLE_ROW)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let held: HandleRecord = row.json()?;
        let Some(holder) = held.account else {
            return Ok(Some(held));
        };
        let is_young = self.now().since(held.claimed) < CLAIM_GRACE;
        let is_there = is_young || self.read_account(tenant, holder).await?.is_some();
        Ok(is_there.then_some(held))
    }

    /// The account row as it is, also of one that is being erased. Not from memory.
    pub(crate) async fn read_account(
        &self,
        tenant: &Tenant,
        id: Id,
    ) -> Result<Option<Versioned>, StoreError> {
        let row = self
            .get(ACCOUNTS, &account_partition(tenant, id), ACCOUNT_ROW)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Versioned {
            account: row.json()?,
            version: row.version,
        }))
    }

    /// The account with this id, unless it was erased; may be a few seconds old.
    pub(crate) async fn known_account(
        &self,
        tenant: &Tenant,
        id: Id,
    ) -> Result<Option<Arc<KnownAccount>>, StoreError> {
        if let Some(known) = self.accounts.get(&id, self.now()) {
            return Ok((known.tenant == *tenant).then_some(known));
        }
        let mut loaded = self.load_accounts(tenant, &[id]).await?;
        Ok(loaded.pop().flatten())
    }

    async fn load_accounts(
        &self,
        tenant: &Tenant,
        ids: &[Id],
    ) -> Result<Vec<Option<Arc<KnownAccount>>>, StoreError> {
        let since = self.accounts.before_load();
        let now = self.now();
        let keys: Vec<_> = ids.iter().map(|id| model::account_key(tenant, *id)).collect();
        let rows = self.ctx.ports.store.get_many(&keys, Consistency::Strong).await?;
        let remember = |row: Row| -> Result<Option<Arc<KnownAccount>>, StoreError> {
            let record: AccountRecord = row.json()?;
            if record.erased.is_some() {
                return Ok(None);
            }
            let known = Arc::new(KnownAccount {
                tenant: tenant.clone(),
                summary: record.summary(),
                version: row.version,
                record,
            });
            self.accounts.remember(since, known.record.id, known.clone(), now);
            Ok(Some(known))
        };
        rows.into_iter()
            .map(|row| row.map_or(Ok(None), remember))
            .collect()
    }

    /// The account with this handle, unless it was erased.
    pub(crate) async fn known_by_handle(
        &self,
        tenant: &Tenant,
        handle: &str,
    ) -> Result<Option<Arc<KnownAccount>>, StoreError> {
        let Some(handle) = normal_handle(handle) else {
            return Ok(None);
        };
        let key = (tenant.clone(), Box::from(handle.as_str()));
        if let Some(id) = self.handles.get(&key) {
            return self.known_account(tenant, id).await;
        }
        let row = self
            .get(HANDLES, &self.handle_partition(tenant, &handle), HANDLE_ROW)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let Some(id) = row.json::<HandleRecord>()?.account else {
            return Ok(None);
        };
        let known = self.known_account(tenant, id).await?;
        if known.is_some() {
            self.handles.insert(key, id);
        }
        Ok(known)
    }

    /// The public view of an account, for anybody.
    pub async fn account(&self, tenant: &Tenant, handle: &str) -> Result<Versioned, IdentityError> {
        self.require_tenant(tenant).await?;
        let known = self.known_by_handle(tenant, handle).await?;
        let known = known.ok_or(IdentityError::NotFound("account"))?;
        // The version goes into an ETag, so it must not be a few seconds old where this node changed it itself; it
        // is not, since changes forget what is remembered.
        Ok(Versioned {
            account: known.record.clone(),
            version: known.version,
        })
    }

    /// The caller's own account.
    pub async fn own_account(&self, caller: &Caller) -> Result<Versioned, IdentityError> {
        let known = self.known_account(&caller.tenant, caller.account).await?;
        let known = known.ok_or(IdentityError::NotFound("account"))?;
        Ok(Versioned {
            account: known.record.clone(),
            version: known.version,
        })
    }

    /// Changes name or bio of the caller's account; what is `None` stays.
    pub async fn update_account(
        &self,
        caller: &Caller,
        name: Option<&str>,
        bio: Option<&str>,
        if_version: Option<u64>,
    ) -> Result<Versioned, IdentityError> {
        self.change_account(&caller.tenant, caller.account, if_version, |account| {
            if let Some(name) = name {
                account.name = normal_name(name, &account.handle)?;
            }
            if let Some(bio) = bio {
                account.bio = normal_bio(bio)?;
            }
            let told = AccountChanged {
                id: account.id,
                handle: account.handle.clone(),
                name: account.name.clone(),
            };
            Ok(vec![account_event(
                &caller.tenant,
                account.id,
                ACCOUNT_UPDATED,
                &told,
            )])
        })
        .await
    }

    /// Reads, changes and writes an account under its version; again when somebody else was faster, unless the
    /// caller named a version. The closure answers the events that belong to the change.
    pub(crate) async fn change_account(
        &self,
        tenant: &Tenant,
        id: Id,
        if_version: Option<u64>,
        mut change: impl FnMut(&mut AccountRecord) -> Result<Vec<NewEvent>, IdentityError>,
    ) -> Result<Versioned, IdentityError> {
        for _attempt in 0..10 {
            let read = self.read_account(tenant, id).await?;
            let read = read.filter(|read| read.account.erased.is_none());
            let Versioned { mut account, version } = read.ok_or(IdentityError::NotFound("account"))?;
            if if_version.is_some_and(|expected| expected != version) {
                return Err(IdentityError::Changed);
            }
            let events = change(&mut account)?;
            let mut batch = Batch::new().put_if(ACCOUNTS, ACCOUNT_ROW, &account, Condition::Version(version));
            for event in events {
                batch = batch.event(event);
            }
            match self.commit(&account_partition(tenant, id), batch).await {
                Ok(committed) => {
                    self.account_changed(id).await;
                    return Ok(Versioned {
                        account,
                        version: committed.version,
                    });
                }
                Err(StoreError::ConditionFailed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(IdentityError::Store(StoreError::ConditionFailed { op: 0 }))
    }

    /// Accounts, newest first, after an id; and the id to go on after, if there are more.
    pub async fn list_accounts(
        &self,
        caller: &Caller,
        after: Option<Id>,
        limit: usize,
    ) -> Result<(Vec<AccountRecord>, Option<Id>), IdentityError> {
        require(caller, LIST_PERMISSION)?;
        let mut scan = Scan::all(DIRECTORY, model::directory_partition(&caller.tenant), limit);
        if let Some(after) = after {
            scan = scan.after(model::id_desc_sort(after));
        }
        let page = self.ctx.ports.store.scan(&scan).await?;
        let ids: Vec<Id> = page
            .rows
            .iter()
            .filter_map(|row| model::id_of_desc(&row.sort))
            .collect();
        let accounts = self.load_accounts(&caller.tenant, &ids).await?;
        let accounts = accounts
            .into_iter()
            .flatten()
            .map(|known| known.record.clone())
            .collect();
        Ok((accounts, ids.last().copied().filter(|_| page.more)))
    }
}

/// A name as it is kept; an empty one is the handle.
fn normal_name(name: &str, handle: &str) -> Result<String, IdentityError> {
    let name = normal_text(name, model::NAME_GRAPHEMES, false).ok_or(IdentityError::Invalid(
        "/name",
        "a name has at most 64 characters, on one line",
    ))?;
    Ok(if name.is_empty() { handle.to_owned() } else { name })
}

fn normal_bio(bio: &str) -> Result<String, IdentityError> {
    normal_text(bio, model::BIO_GRAPHEMES, true)
        .ok_or(IdentityError::Invalid("/bio", "a bio has at most 280 characters"))
}

pub(crate) fn account_event<T: serde::Serialize>(
    tenant: &Tenant,
    id: Id,
    kind: &'static str,
    data: &T,
) -> NewEvent {
    NewEvent::new(
        ACCOUNTS_TOPIC,
        tenant,
        id.to_string(),
        kind,
        format!("account:{id}"),
        data,
    )
}

#[async_trait]
impl Accounts for Identity {
    async fn by_handle(
        &self,
        tenant: &Tenant,
        handle: &str,
    ) -> Result<Option<AccountSummary>, AccountsError> {
        let known = self
            .known_by_handle(tenant, handle)
            .await
            .map_err(lookup_failed)?;
        Ok(known.map(|known| known.summary.clone()))
    }

    async fn by_ids(
        &self,
        tenant: &Tenant,
        ids: &[Id],
    ) -> Result<Vec<Option<AccountSummary>>, AccountsError> {
        let now = self.now();
        let mut found: Vec<Option<AccountSummary>> = Vec::with_capacity(ids.len());
        let mut missing: Vec<usize> = Vec::new();
        for id in ids {
            let known = self.accounts.get(id, now);
            if known.is_none() {
                missing.push(found.len());
            }
            let known = known.filter(|known| known.tenant == *tenant);
            found.push(known.map(|known| known.summary.clone()));
        }
        for some in missing.chunks(500) {
            let ids: Vec<Id> = some.iter().map(|at| ids[*at]).collect();
            let loaded = self.load_accounts(tenant, &ids).await.map_err(lookup_failed)?;
            for (at, known) in some.iter().zip(loaded) {
                found[*at] = known.map(|known| known.summary.clone());
            }
        }
        Ok(found)
    }
}

fn lookup_failed(error: StoreError) -> AccountsError {
    let kind = match error.kind() {
        ErrorKind::Unavailable => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    AccountsError {
        kind,
        message: error.to_string(),
    }
}
