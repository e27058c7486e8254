//! What administrators do: roles, tenants, minted tokens, the audit log, the first administrator.

use super::{Client, Identity, accounts::Versioned, require, sign_in::put_session};
use crate::{
    api_keys,
    audit::{Action, Month, month_partition},
    error::IdentityError,
    lockout::Slowed,
    model::{
        self, ACCOUNT_COUNT_ROW, ACCOUNT_ROW, ACCOUNTS, ADMINISTRATOR_ROW, AUDIT, AUDIT_OF, AccountRecord,
        AdministratorRecord, AuditEntry, COUNTS, KEYS, KeyRecord, ROLES, SETTINGS, SessionRecord, TENANTS,
        TenantRecord, account_partition, id_sort,
    },
    roles::{ACCOUNT_ROLES_MAX, ADMINISTRATOR, MEMBER, PERMISSIONS_MAX, Role, is_permission, is_role_name},
    tokens::Claims,
};
use holon_base::{Id, Tenant};
use holon_ports::{Batch, Condition, Consistency, RowKey, Scan, StoreError};
use holon_web::{Caller, CallerKind};
use std::{collections::BTreeSet, path::Path, time::Duration};

pub const MINT_PERMISSION: &str = "identity.tokens.mint";
pub const ASSIGN_PERMISSION: &str = "identity.roles.assign";
pub const DEFINE_PERMISSION: &str = "identity.roles.define";
pub const READ_ROLES_PERMISSION: &str = "identity.roles.read";
pub const READ_AUDIT_PERMISSION: &str = "identity.audit.read";
pub const CREATE_TENANTS_PERMISSION: &str = "identity.tenants.create";
/// The most roles that a tenant defines.
pub const ROLES_MAX: usize = 200;
/// The handle of the administrator that is made at first start.
pub const ADMINISTRATOR_HANDLE: &str = "admin";

/// A first administrator and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    pub handle: String,
    /// `hk_…`, with the scope `*`.
    pub token: String,
}

/// A page of the audit log, and the entry to go on after.
pub type AuditPage = (Vec<AuditEntry>, Option<Id>);

/// For the glass box.
#[derive(Debug, Clone)]
pub struct Inside {
    pub accounts: u64,
    pub sessions: usize,
    pub keys: Vec<(crate::tokens::KeyRecord, bool)>,
    pub lockouts: Vec<Slowed>,
    pub passwords_in_hand: usize,
}

impl Identity {
    /// Makes an access token for an account, without its password. It belongs to a session of its own, which the
    /// account's owner sees and can end. One commit and a signature.
    ///
    /// # Errors
    /// [`IdentityError::Forbidden`] if the account may do something that the caller may not.
    pub async fn mint_token(
        &self,
        caller: &Caller,
        handle: &str,
        life: Duration,
        client: &Client,
    ) -> Result<String, IdentityError> {
        require(caller, MINT_PERMISSION)?;
        let tenant = &caller.tenant;
        for _attempt in 0..3 {
            let known = self
                .known_by_handle(tenant, handle)
                .await?
                .ok_or(IdentityError::NotFound("account"))?;
            let account = known.record.id;
            let authority = self
                .authority(tenant, account)
                .await?
                .ok_or(IdentityError::NotFound("account"))?;
            require_all(caller, &authority.permissions)?;
            let now = self.now();
            let session = SessionRecord {
                id: self.ctx.ids.next(),
                created: now,
                last_used: now,
                expires: now.plus(life),
                user_agent: String::new(),
                address: String::new(),
                generation: 0,
                salt: String::new(),
                minted_by: Some(caller.account),
            };
            let entry = self
                .audit(Action::TokenMinted)
                .by(caller.account)
                .of_account(account);
            let entry = entry
                .detail(format!("session:{} seconds:{}", session.id, life.as_secs()))
                .from(client.address);
            let batch = put_session(Batch::new(), &session)
                .check(ACCOUNTS, ACCOUNT_ROW, Condition::Version(known.version))
                .event(entry.event(tenant));
            match self.commit(&account_partition(tenant, account), batch).await {
                Ok(_) => {
                    let claims = Claims::new(&self.options.issuer, tenant, account, session.id, now, life);
                    return self.sign(&claims).await;
                }
                // What is remembered of the account is old, or it is being erased.
                Err(StoreError::ConditionFailed { .. }) => self.account_changed(account).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(IdentityError::NotFound("account"))
    }

    /// The roles of the caller's tenant.
    pub async fn roles(&self, caller: &Caller) -> Result<Vec<Role>, IdentityError> {
        require(caller, READ_ROLES_PERMISSION)?;
        Ok(self.role_book(&caller.tenant).await?.roles())
    }

    /// Defines a role or changes it; at once for all who have it.
    pub async fn define_role(
        &self,
        caller: &Caller,
        role: Role,
        client: &Client,
    ) -> Result<Role, IdentityError> {
        require(caller, DEFINE_PERMISSION)?;
        if !is_role_name(&role.name) {
            return Err(IdentityError::Invalid(
                "name",
                "a role's name is 1 to 32 of a-z, 0-9 and -, a letter first",
            ));
        }
        if role.permissions.len() > PERMISSIONS_MAX
            || !role.permissions.iter().all(|name| is_permission(name))
        {
            let hint = "name up to 100 permissions, such as identity.audit.read";
            return Err(IdentityError::Invalid("/permissions", hint));
        }
        if role.name == ADMINISTRATOR {
            return Err(IdentityError::Conflict(
                "built-in-role",
                "the role administrator cannot be changed",
            ));
        }
        require_all(caller, &role.permissions)?;
        let book = self.role_book(&caller.tenant).await?;
        if !book.contains(&role.name) && book.roles().len() >= ROLES_MAX {
            return Err(IdentityError::Conflict(
                "too-many-roles",
                "a tenant has at most 200 roles",
            ));
        }
        // What it permits now must be the caller's to take away, too.
        require_all(caller, &book.permissions(std::slice::from_ref(&role.name)))?;
        let permissions: Vec<&str> = role.permissions.iter().map(String::as_str).collect();
        let entry = self
            .audit(Action::RoleDefined)
            .by(caller.account)
            .of(format!("role:{}", role.name));
        let entry = entry.detail(permissions.join(",")).from(client.address);
        let batch = Batch::new()
            .put(ROLES, role.name.clone().into_bytes(), &role)
            .event(entry.event(&caller.tenant));
        self.commit(&model::roles_partition(&caller.tenant), batch)
            .await?;
        self.roles_changed(&caller.tenant).await;
        Ok(role)
    }

    /// Gives an account these roles and no others; at once.
    ///
    /// # Errors
    /// [`IdentityError::Forbidden`] if the roles given or taken permit what the caller may not do.
    pub async fn assign_roles(
        &self,
        caller: &Caller,
        handle: &str,
        roles: BTreeSet<String>,
        client: &Client,
    ) -> Result<Vec<String>, IdentityError> {
        require(caller, ASSIGN_PERMISSION)?;
        if roles.len() > ACCOUNT_ROLES_MAX {
            return Err(IdentityError::Invalid(
                "/roles",
                "an account has at most 20 roles",
            ));
        }
        let tenant = &caller.tenant;
        let known = self
            .known_by_handle(tenant, handle)
            .await?
            .ok_or(IdentityError::NotFound("account"))?;
        let book = self.role_book(tenant).await?;
        let roles: Vec<String> = roles.into_iter().collect();
        if !roles.iter().all(|role| book.contains(role)) {
            return Err(IdentityError::Invalid(
                "/roles",
                "one of these roles is not defined; see GET /v1/identity/roles",
            ));
        }
        require_all(caller, &book.permissions(&roles))?;
        let own = known.record.id == caller.account;
        let loses_all = own && caller.may("*") && !book.permissions(&roles).contains("*");
        if loses_all {
            let hint = "an administrator cannot take the role from itself; another one can";
            return Err(IdentityError::Conflict("own-role", hint));
        }
        let changed = self
            .change_account(tenant, known.record.id, None, |account| {
                require_all(caller, &book.permissions(&account.roles))?;
                account.roles.clone_from(&roles);
                let entry = self
                    .audit(Action::RolesAssigned)
                    .by(caller.account)
                    .of_account(account.id);
                Ok(vec![
                    entry.detail(roles.join(",")).from(client.address).event(tenant),
                ])
            })
            .await?;
        Ok(changed.account.roles)
    }

    /// Makes a tenant with an administrator of its own; answers the administrator's key if the tenant is new.
    pub async fn create_tenant(
        &self,
        caller: &Caller,
        name: &Tenant,
        client: &Client,
    ) -> Result<(TenantRecord, Option<AdminToken>), IdentityError> {
        require(caller, CREATE_TENANTS_PERMISSION)?;
        if caller.tenant != Tenant::default() {
            return Err(IdentityError::NotThisWay("tenants are made from the tenant main"));
        }
        let partition = model::deployment_partition("tenants");
        let sort = name.as_str().as_bytes();
        let record = TenantRecord {
            name: name.clone(),
            created: self.now(),
            by: caller.account,
        };
        let entry = self
            .audit(Action::TenantCreated)
            .by(caller.account)
            .of(format!("tenant:{name}"));
        let batch = Batch::new()
            .put_if_absent(TENANTS, sort.to_vec(), &record)
            .event(entry.from(client.address).event(&caller.tenant));
        let made = if *name == Tenant::default() {
            Err(StoreError::ConditionFailed { op: 0 })
        } else {
            self.commit(&partition, batch).await
        };
        match made {
            Ok(_) | Err(StoreError::ConditionFailed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let record = match self.get(TENANTS, &partition, sort).await? {
            Some(row) => row.json()?,
            None => record,
        };
        // Also when the tenant was there: its administrator may be missing if the process died in between.
        let token = if made.is_ok() || *name != Tenant::default() {
            self.first_administrator(name).await?
        } else {
            None
        };
        if token.is_some() {
            self.administrator_token_delivered_of(name).await?;
        }
        Ok((record, token))
    }

    /// Makes the administrator of `main` if there is none. Answers its token until
    /// [`Identity::administrator_token_delivered`] is called: a process that dies before it has written the token
    /// down gets the same one at its next start.
    pub async fn ensure_administrator(&self) -> Result<Option<AdminToken>, IdentityError> {
        self.first_administrator(&Tenant::default()).await
    }

    /// Makes the administrator of `main` if there is none, writes its token to `admin.token` in a directory and
    /// answers it, once.
    pub async fn hand_over_administrator_token(
        &self,
        dir: &Path,
    ) -> Result<Option<AdminToken>, IdentityError> {
        let token = self.ensure_administrator().await?;
        if let Some(token) = &token {
            let (dir, text) = (dir.to_owned(), token.token.clone());
            let written = tokio::task::spawn_blocking(move || crate::write_admin_token(&dir, &text)).await;
            let written = written.map_err(|error| IdentityError::Broken(error.to_string()))?;
            written
                .map_err(|error| IdentityError::Broken(format!("admin.token cannot be written: {error}")))?;
            self.administrator_token_delivered().await?;
        }
        Ok(token)
    }

    /// Says that somebody has the first administrator's token; it is not given out again.
    pub async fn administrator_token_delivered(&self) -> Result<(), IdentityError> {
        self.administrator_token_delivered_of(&Tenant::default()).await
    }

    async fn administrator_token_delivered_of(&self, tenant: &Tenant) -> Result<(), IdentityError> {
        let partition = model::settings_partition(tenant);
        let Some(row) = self.get(SETTINGS, &partition, ADMINISTRATOR_ROW).await? else {
            return Ok(());
        };
        let record = AdministratorRecord {
            delivered: true,
            ..row.json()?
        };
        self.commit(&partition, Batch::new().put(SETTINGS, ADMINISTRATOR_ROW, &record))
            .await?;
        Ok(())
    }

    /// First which ids the administrator and its key will have, then the account with that key: whatever dies in
    /// between, the next start goes on with the same ids. The key's secret is derived from its id, so that it can be
    /// told again until it was delivered.
    async fn first_administrator(&self, tenant: &Tenant) -> Result<Option<AdminToken>, IdentityError> {
        let partition = model::settings_partition(tenant);
        let planned = AdministratorRecord {
            account: self.ctx.ids.next(),
            key: self.ctx.ids.next(),
            delivered: false,
        };
        let record = match self.get(SETTINGS, &partition, ADMINISTRATOR_ROW).await? {
            Some(row) => row.json()?,
            None => {
                let batch = Batch::new().put_if_absent(SETTINGS, ADMINISTRATOR_ROW, &planned);
                match self.commit(&partition, batch).await {
                    Ok(_) => planned,
                    Err(StoreError::ConditionFailed { .. }) => {
                        let row = self.get(SETTINGS, &partition, ADMINISTRATOR_ROW).await?;
                        row.ok_or_else(|| IdentityError::Broken("administrator's record is gone".into()))?
                            .json()?
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        };
        if record.delivered {
            return Ok(None);
        }
        let (id, key) = (record.account, record.key);
        let secret = self.secret.derive(
            "administrator",
            &[&id.as_u64().to_be_bytes(), &key.as_u64().to_be_bytes()],
        );
        let (token, hash) = api_keys::make(tenant, id, key, secret);
        let handle = ADMINISTRATOR_HANDLE.to_owned();
        if self.read_account(tenant, id).await?.is_none() {
            let now = self.now();
            let account = AccountRecord {
                id,
                handle: handle.clone(),
                name: "Administrator".into(),
                bio: String::new(),
                created: now,
                roles: vec![ADMINISTRATOR.to_owned(), MEMBER.to_owned()],
                erased: None,
            };
            let key = KeyRecord {
                id: key,
                name: "made at first start".into(),
                hash,
                scopes: vec!["*".into()],
                created: now,
                last_used: None,
            };
            let audited = self.audit(Action::AdministratorMade).of_account(id);
            let more = Batch::new()
                .put_if_absent(KEYS, id_sort(key.id), &key)
                .event(audited.event(tenant));
            self.make_administrator(tenant, &account, more).await?;
        }
        Ok(Some(AdminToken { handle, token }))
    }

    async fn make_administrator(
        &self,
        tenant: &Tenant,
        account: &AccountRecord,
        more: Batch,
    ) -> Result<(), IdentityError> {
        match self.make_account(tenant, account, more.clone()).await {
            Err(IdentityError::HandleTaken) => {}
            made => return made.map(|_| ()),
        }
        // The claim of an earlier start stands for this very account, but the account was not made: make it.
        let held = self
            .get(
                model::HANDLES,
                &self.handle_partition(tenant, &account.handle),
                model::HANDLE_ROW,
            )
            .await?;
        let held: Option<model::HandleRecord> = held.map(|row| row.json()).transpose()?;
        if held.and_then(|held| held.account) != Some(account.id) {
            return Err(IdentityError::HandleTaken);
        }
        let told = holon_contracts::identity::AccountChanged {
            id: account.id,
            handle: account.handle.clone(),
            name: account.name.clone(),
        };
        let created = holon_contracts::identity::ACCOUNT_CREATED;
        let batch = Batch {
            ops: Batch::new()
                .put_if_absent(ACCOUNTS, ACCOUNT_ROW, account)
                .event(super::accounts::account_event(tenant, account.id, created, &told))
                .ops
                .into_iter()
                .chain(more.ops)
                .collect(),
        };
        match self.commit(&account_partition(tenant, account.id), batch).await {
            // Another node was faster.
            Ok(_) | Err(StoreError::ConditionFailed { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The audit log, newest first: all of it, or what an account did or had done to it.
    pub async fn audit_log(
        &self,
        caller: &Caller,
        account: Option<Id>,
        after: Option<Id>,
        limit: usize,
    ) -> Result<AuditPage, IdentityError> {
        require(caller, READ_AUDIT_PERMISSION)?;
        match account {
            Some(account) => self.audit_of(&caller.tenant, account, after, limit).await,
            None => self.audit_of_all(&caller.tenant, after, limit).await,
        }
    }

    async fn audit_of_all(
        &self,
        tenant: &Tenant,
        after: Option<Id>,
        limit: usize,
    ) -> Result<AuditPage, IdentityError> {
        let start = after.map_or_else(|| self.now(), Id::time);
        let mut month = Month::of(start.max(self.now().minus(crate::audit::KEPT_FOR)));
        let last = Month::of(self.now().minus(crate::audit::KEPT_FOR));
        let mut entries: Vec<AuditEntry> = Vec::new();
        while month >= last {
            let mut scan = Scan::all(AUDIT, month_partition(tenant, month), limit + 1 - entries.len());
            if let Some(after) = after {
                scan = scan.after(model::id_desc_sort(after));
            }
            for row in self.ctx.ports.store.scan(&scan).await?.rows {
                entries.push(row.json()?);
            }
            if entries.len() > limit {
                entries.truncate(limit);
                let next = entries.last().map(|entry| entry.id);
                return Ok((entries, next));
            }
            month = month.before();
        }
        Ok((entries, None))
    }

    pub(crate) async fn audit_of(
        &self,
        tenant: &Tenant,
        account: Id,
        after: Option<Id>,
        limit: usize,
    ) -> Result<AuditPage, IdentityError> {
        let mut scan = Scan::all(AUDIT_OF, account_partition(tenant, account), limit);
        if let Some(after) = after {
            scan = scan.after(model::id_desc_sort(after));
        }
        let page = self.ctx.ports.store.scan(&scan).await?;
        let copies: Vec<AuditEntry> = page
            .rows
            .iter()
            .map(holon_ports::Row::json)
            .collect::<Result<_, _>>()?;
        let keys: Vec<RowKey> = copies
            .iter()
            .map(|entry| RowKey::new(AUDIT, entry.partition(tenant), model::id_desc_sort(entry.id)))
            .collect();
        let whole = self.ctx.ports.store.get_many(&keys, Consistency::Strong).await?;
        let next = copies.last().map(|entry| entry.id).filter(|_| page.more);
        let entries = copies
            .into_iter()
            .zip(whole)
            .map(|(copy, whole)| whole.map_or(Ok(copy), |row| row.json()))
            .collect::<Result<_, _>>()?;
        Ok((entries, next))
    }

    /// What is going on inside.
    pub async fn inspect(&self, caller: &Caller) -> Result<Inside, IdentityError> {
        require(caller, "admin.inspect")?;
        let count = self
            .get(
                COUNTS,
                &model::directory_partition(&caller.tenant),
                ACCOUNT_COUNT_ROW,
            )
            .await?;
        let now = self.now();
        let ring = self.key_ring().await?;
        let active = ring.active_kid(now).unwrap_or_default();
        Ok(Inside {
            accounts: count.map_or(0, |row| u64::try_from(row.counter()).unwrap_or(0)),
            sessions: self.grants_in_use(),
            keys: ring
                .records()
                .map(|record| (record.clone(), record.kid == active))
                .collect(),
            lockouts: self.lockout.slowed(now, 100),
            passwords_in_hand: self.passwords.in_hand(),
        })
    }

    /// The session that a caller uses; `None` for an API key.
    pub fn current_session(caller: &Caller) -> Option<Id> {
        match caller.kind {
            CallerKind::Session { session } | CallerKind::Minted { session, .. } => Some(session),
            CallerKind::ApiKey { .. } | CallerKind::System => None,
        }
    }

    /// What the caller's roles are.
    pub async fn me(&self, caller: &Caller) -> Result<Versioned, IdentityError> {
        self.own_account(caller).await
    }
}

/// Nobody passes on what they do not have.
fn require_all(caller: &Caller, permissions: &BTreeSet<String>) -> Result<(), IdentityError> {
    match permissions.iter().find(|permission| !caller.may(permission)) {
        Some(missing) => Err(IdentityError::Forbidden(missing.clone())),
        None => Ok(()),
    }
}
