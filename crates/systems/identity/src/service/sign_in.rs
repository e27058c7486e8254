//! Signing in and out: logins, refresh tokens, sessions, passwords.

use super::{Client, Identity, SessionsGone, accounts::account_event, require_person};
use crate::{
    audit::Action,
    error::IdentityError,
    lockout::{self, Attempt, Network},
    model::{
        self, AccountRecord, CREDENTIALS, CredentialRecord, PASSWORD_ROW, SESSIONS, SessionRecord,
        account_partition, id_sort, normal_handle,
    },
    passwords::check_strength,
    secret::{encode, random},
    sessions::{Refresh, RefreshToken, SESSIONS_MAX, judge, refresh_token},
    tokens::Claims,
};
use holon_base::{Id, Tenant};
use holon_contracts::identity::{SESSION_ENDED, SessionEnded};
use holon_ports::{Batch, Condition, StoreError};
use holon_web::{Caller, CallerKind};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// The most characters of a user agent that are kept.
const USER_AGENT_CHARS: usize = 200;

/// What a login or refresh gives.
#[derive(Debug, Clone)]
pub struct SignedIn {
    pub access_token: String,
    pub refresh_token: String,
    /// Of the access token.
    pub expires_in: Duration,
    pub account: AccountRecord,
    /// After a login: what makes this device known (see [`crate::lockout`]).
    pub device: Option<String>,
}

struct Credentials {
    record: CredentialRecord,
    version: u64,
}

impl Identity {
    /// Signs somebody in by password.
    ///
    /// # Errors
    /// [`IdentityError::BadCredentials`], the same for a wrong password as for an unknown handle, after the same
    /// work; [`IdentityError::Slowed`] after too many of those.
    pub async fn login(
        &self,
        tenant: &Tenant,
        handle: &str,
        password: &str,
        client: &Client,
    ) -> Result<SignedIn, IdentityError> {
        self.require_tenant(tenant).await?;
        let handle = normal_handle(handle).unwrap_or_default();
        let known = self.known_by_handle(tenant, &handle).await?;
        let account = known.as_ref().map(|known| known.record.id);
        let credentials = match account {
            Some(account) => self.credentials(tenant, account).await?,
            None => None,
        };
        let device = self.known_device(account, client);
        let attempt = self.admit(tenant, &handle, device, client)?;
        let phc = credentials
            .as_ref()
            .map(|credentials| credentials.record.password.as_str());
        if !self.verify_password(attempt, password, phc).await? {
            self.tell_failed_login(tenant, account, client).await?;
            return Err(IdentityError::BadCredentials);
        }
        let (Some(account), Some(credentials)) = (account, credentials) else {
            return Err(IdentityError::BadCredentials);
        };
        let session = self
            .begin_session(tenant, account, credentials, password, client)
            .await?;
        let mut signed_in = self.tokens_of(tenant, account, &session).await?;
        let device = device.unwrap_or_else(lockout::new_device);
        signed_in.device = Some(lockout::device_token(&self.secret, account, device, self.now()));
        Ok(signed_in)
    }

    async fn credentials(&self, tenant: &Tenant, account: Id) -> Result<Option<Credentials>, StoreError> {
        let row = self
            .get(CREDENTIALS, &account_partition(tenant, account), PASSWORD_ROW)
            .await?;
        row.map(|row| {
            Ok(Credentials {
                record: row.json()?,
                version: row.version,
            })
        })
        .transpose()
    }

    fn known_device(&self, account: Option<Id>, client: &Client) -> Option<[u8; 16]> {
        lockout::known_device(&self.secret, account?, client.device.as_deref()?, self.now())
    }

    fn admit(
        &self,
        tenant: &Tenant,
        handle: &str,
        device: Option<[u8; 16]>,
        client: &Client,
    ) -> Result<Attempt, IdentityError> {
        let handle = lockout::handle_hash(&self.secret, tenant, handle);
        let address = client.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        self.lockout
            .admit(handle, Network::of(address), device, self.now())
            .map_err(IdentityError::Slowed)
    }

    async fn verify_password(
        &self,
        attempt: Attempt,
        password: &str,
        phc: Option<&str>,
    ) -> Result<bool, IdentityError> {
        match self.passwords.verify(password, phc).await {
            Ok(true) => {
                self.lockout.succeeded(attempt);
                Ok(true)
            }
            // It stays counted as the failure that it was.
            Ok(false) => Ok(false),
            Err(error) => {
                self.lockout.undecided(attempt);
                Err(error.into())
            }
        }
    }

    async fn tell_failed_login(
        &self,
        tenant: &Tenant,
        account: Option<Id>,
        client: &Client,
    ) -> Result<(), IdentityError> {
        let mut entry = self.audit(Action::LoginFailed).from(client.address);
        // What was typed as a handle may be anything, a password too: it is not written down.
        entry = match account {
            Some(account) => entry.of_account(account),
            None => entry.detail("unknown handle"),
        };
        self.ctx.ports.log.append(vec![entry.event(tenant)]).await?;
        Ok(())
    }

    /// Makes a session, if the password is still the one that was checked (so nothing begins after an erasure or a
    /// change of password), ends the oldest beyond the limit, and hashes the password anew if its cost is outdated.
    async fn begin_session(
        &self,
        tenant: &Tenant,
        account: Id,
        credentials: Credentials,
        password: &str,
        client: &Client,
    ) -> Result<SessionRecord, IdentityError> {
        let now = self.now();
        let session = SessionRecord {
            id: self.ctx.ids.next(),
            created: now,
            last_used: now,
            expires: now.plus(self.options.session_idle),
            user_agent: client.user_agent.chars().take(USER_AGENT_CHARS).collect(),
            address: client
                .address
                .map(|address| address.to_canonical().to_string())
                .unwrap_or_default(),
            generation: 0,
            salt: encode(&random::<16>()),
            minted_by: None,
        };
        let unchanged = Condition::Version(credentials.version);
        let mut batch = put_session(Batch::new(), &session);
        if self.passwords.is_outdated(&credentials.record.password) {
            let password = self.passwords.hash(password).await?;
            let record = CredentialRecord {
                password,
                ..credentials.record
            };
            batch = batch.put_if(CREDENTIALS, PASSWORD_ROW, &record, unchanged);
        } else {
            batch = batch.check(CREDENTIALS, PASSWORD_ROW, unchanged);
        }
        let signed_in = self.sessions(tenant, account).await?;
        let too_many = (signed_in
            .iter()
            .filter(|session| session.minted_by.is_none())
            .count()
            + 1)
        .saturating_sub(SESSIONS_MAX);
        let oldest = signed_in
            .iter()
            .filter(|session| session.minted_by.is_none())
            .take(too_many);
        let mut ended = Vec::new();
        for session in oldest {
            batch = batch.delete(SESSIONS, id_sort(session.id)).event(ended_event(
                tenant,
                account,
                Some(session.id),
            ));
            ended.push(session.id);
        }
        let audited = self
            .audit(Action::LoginSucceeded)
            .by(account)
            .of_account(account)
            .from(client.address);
        batch = batch.event(audited.event(tenant));
        match self.commit(&account_partition(tenant, account), batch).await {
            Ok(_) => {}
            Err(StoreError::ConditionFailed { .. }) => return Err(IdentityError::BadCredentials),
            Err(error) => return Err(error.into()),
        }
        for session in ended {
            self.sessions_gone(SessionsGone {
                tenant: tenant.clone(),
                account,
                session: Some(session),
            })
            .await;
        }
        Ok(session)
    }

    async fn tokens_of(
        &self,
        tenant: &Tenant,
        account: Id,
        session: &SessionRecord,
    ) -> Result<SignedIn, IdentityError> {
        let expires_in = self.options.access_token_lifetime;
        let claims = Claims::new(
            &self.options.issuer,
            tenant,
            account,
            session.id,
            self.now(),
            expires_in,
        );
        let known = self.known_account(tenant, account).await?;
        Ok(SignedIn {
            access_token: self.sign(&claims).await?,
            refresh_token: refresh_token(&self.secret, tenant, account, session),
            expires_in,
            account: known.ok_or(IdentityError::BadCredentials)?.record.clone(),
            device: None,
        })
    }

    /// Gives new tokens for a refresh token; see [`crate::sessions`].
    ///
    /// # Errors
    /// [`IdentityError::BadRefreshToken`]; if an old token came back, its session is ended.
    pub async fn refresh(&self, text: &str, client: &Client) -> Result<SignedIn, IdentityError> {
        let token = RefreshToken::parse(text).ok_or(IdentityError::BadRefreshToken)?;
        let partition = account_partition(&token.tenant, token.account);
        for _attempt in 0..5 {
            let row = self.get(SESSIONS, &partition, &id_sort(token.session)).await?;
            let row = row.ok_or(IdentityError::BadRefreshToken)?;
            let mut session: SessionRecord = row.json()?;
            let now = self.now();
            match judge(&self.secret, &session, &token, now) {
                Refresh::Refuse => return Err(IdentityError::BadRefreshToken),
                Refresh::Repeat => return self.refreshed(&token, &session).await,
                Refresh::Reused => {
                    let reused = self
                        .audit(Action::RefreshReused)
                        .of_account(token.account)
                        .from(client.address);
                    let event = reused
                        .detail(format!("session:{}", session.id))
                        .event(&token.tenant);
                    let batch = Batch::new().event(event);
                    self.end_one(&token.tenant, token.account, session.id, batch)
                        .await?;
                    return Err(IdentityError::BadRefreshToken);
                }
                Refresh::Advance => {}
            }
            session.generation += 1;
            session.last_used = now;
            session.expires = now.plus(self.options.session_idle);
            if let Some(address) = client.address {
                session.address = address.to_canonical().to_string();
            }
            let batch = Batch::new().put_until(
                SESSIONS,
                id_sort(session.id),
                &session,
                Condition::Version(row.version),
                session.expires,
            );
            match self.commit(&partition, batch).await {
                Ok(_) => return self.refreshed(&token, &session).await,
                // The same token came twice at once, or the session just ended: look again.
                Err(StoreError::ConditionFailed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(IdentityError::Busy)
    }

    async fn refreshed(
        &self,
        token: &RefreshToken,
        session: &SessionRecord,
    ) -> Result<SignedIn, IdentityError> {
        // What is remembered of the session knows its old expiry.
        self.grants.forget(&session.id);
        match self.tokens_of(&token.tenant, token.account, session).await {
            Err(IdentityError::BadCredentials) => Err(IdentityError::BadRefreshToken),
            other => other,
        }
    }

    /// The live sessions of an account, oldest first, those that an administrator minted too.
    pub(crate) async fn sessions(
        &self,
        tenant: &Tenant,
        account: Id,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        let rows = self.rows(SESSIONS, &account_partition(tenant, account)).await?;
        rows.iter().map(holon_ports::Row::json).collect()
    }

    /// The caller's sessions, newest first.
    pub async fn own_sessions(&self, caller: &Caller) -> Result<Vec<SessionRecord>, IdentityError> {
        let mut sessions = self.sessions(&caller.tenant, caller.account).await?;
        sessions.reverse();
        Ok(sessions)
    }

    /// Ends one of the caller's sessions.
    pub async fn end_session(
        &self,
        caller: &Caller,
        session: Id,
        client: &Client,
    ) -> Result<(), IdentityError> {
        let partition = account_partition(&caller.tenant, caller.account);
        let row = self.get(SESSIONS, &partition, &id_sort(session)).await?;
        row.ok_or(IdentityError::NotFound("session"))?;
        let entry = self
            .audit(Action::SessionEnded)
            .by(caller.account)
            .of_account(caller.account);
        let entry = entry.detail(format!("session:{session}")).from(client.address);
        let batch = Batch::new().event(entry.event(&caller.tenant));
        self.end_one(&caller.tenant, caller.account, session, batch).await
    }

    /// Ends the session that the caller uses. An API key has none and stays.
    pub async fn logout(
        &self,
        caller: &Caller,
        current: Option<Id>,
        client: &Client,
    ) -> Result<(), IdentityError> {
        let Some(session) = current else { return Ok(()) };
        match self.end_session(caller, session, client).await {
            Err(IdentityError::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    async fn end_one(
        &self,
        tenant: &Tenant,
        account: Id,
        session: Id,
        batch: Batch,
    ) -> Result<(), IdentityError> {
        let batch =
            batch
                .delete(SESSIONS, id_sort(session))
                .event(ended_event(tenant, account, Some(session)));
        self.commit(&account_partition(tenant, account), batch).await?;
        self.sessions_gone(SessionsGone {
            tenant: tenant.clone(),
            account,
            session: Some(session),
        })
        .await;
        Ok(())
    }

    /// Ends every session of the caller's account, at once and everywhere.
    pub async fn logout_everywhere(&self, caller: &Caller, client: &Client) -> Result<(), IdentityError> {
        let entry = self
            .audit(Action::SessionsEnded)
            .by(caller.account)
            .of_account(caller.account);
        let event = entry.from(client.address).event(&caller.tenant);
        self.end_all_but(caller, None, Batch::new().event(event)).await
    }

    async fn end_all_but(
        &self,
        caller: &Caller,
        keep: Option<Id>,
        mut batch: Batch,
    ) -> Result<(), IdentityError> {
        let (tenant, account) = (&caller.tenant, caller.account);
        let mut sessions = self.sessions(tenant, account).await?;
        sessions.retain(|session| Some(session.id) != keep);
        for session in &sessions {
            batch = batch.delete(SESSIONS, id_sort(session.id));
            if keep.is_some() {
                batch = batch.event(ended_event(tenant, account, Some(session.id)));
            }
        }
        if keep.is_none() {
            batch = batch.event(ended_event(tenant, account, None));
        }
        self.commit(&account_partition(tenant, account), batch).await?;
        if keep.is_none() {
            self.sessions_gone(SessionsGone {
                tenant: tenant.clone(),
                account,
                session: None,
            })
            .await;
        } else {
            for session in sessions {
                let gone = SessionsGone {
                    tenant: tenant.clone(),
                    account,
                    session: Some(session.id),
                };
                self.sessions_gone(gone).await;
            }
        }
        Ok(())
    }

    /// Sets a new password and ends the other sessions. API keys stay.
    ///
    /// An account that has no password (an administrator made it) gets its first one without showing another, also by
    /// a minted token: that is how such an account is handed over.
    pub async fn change_password(
        &self,
        caller: &Caller,
        current_session: Option<Id>,
        current: Option<&str>,
        new: &str,
        client: &Client,
    ) -> Result<(), IdentityError> {
        let (tenant, id) = (&caller.tenant, caller.account);
        let account = self.own_account(caller).await?.account;
        let condition = match self.credentials(tenant, id).await? {
            Some(credentials) => {
                require_person(caller)?;
                self.confirm_password(&account, tenant, &credentials, current, client)
                    .await?;
                Condition::Version(credentials.version)
            }
            None if matches!(caller.kind, CallerKind::Minted { .. }) => Condition::Absent,
            None => {
                require_person(caller)?;
                Condition::Absent
            }
        };
        check_strength(new, &account.handle, &account.name)?;
        let record = CredentialRecord {
            password: self.passwords.hash(new).await?,
            changed: self.now(),
        };
        let entry = self
            .audit(Action::PasswordChanged)
            .by(id)
            .of_account(id)
            .from(client.address);
        let batch = Batch::new()
            .put_if(CREDENTIALS, PASSWORD_ROW, &record, condition)
            .check(model::ACCOUNTS, model::ACCOUNT_ROW, Condition::Present)
            .event(entry.event(tenant));
        self.end_all_but(caller, Some(current_session.unwrap_or(Id::MIN)), batch)
            .await
    }

    /// Checks the caller's own password, counted like a login.
    async fn confirm_password(
        &self,
        account: &AccountRecord,
        tenant: &Tenant,
        credentials: &Credentials,
        password: Option<&str>,
        client: &Client,
    ) -> Result<(), IdentityError> {
        let password = password.ok_or(IdentityError::Invalid("/password", "send your present password"))?;
        let device = self.known_device(Some(account.id), client);
        let attempt = self.admit(tenant, &account.handle, device, client)?;
        if self
            .verify_password(attempt, password, Some(&credentials.record.password))
            .await?
        {
            return Ok(());
        }
        self.tell_failed_login(tenant, Some(account.id), client).await?;
        Err(IdentityError::WrongPassword)
    }

    /// The same for whoever is about to erase the account; nothing to show where there is no password.
    pub(crate) async fn confirm_owner(
        &self,
        caller: &Caller,
        account: &AccountRecord,
        password: Option<&str>,
        client: &Client,
    ) -> Result<(), IdentityError> {
        match self.credentials(&caller.tenant, account.id).await? {
            Some(credentials) => {
                self.confirm_password(account, &caller.tenant, &credentials, password, client)
                    .await
            }
            None => Ok(()),
        }
    }
}

pub(crate) fn put_session(batch: Batch, session: &SessionRecord) -> Batch {
    batch.put_until(
        SESSIONS,
        id_sort(session.id),
        session,
        Condition::Absent,
        session.expires,
    )
}

pub(crate) fn ended_event(tenant: &Tenant, account: Id, session: Option<Id>) -> holon_ports::NewEvent {
    account_event(tenant, account, SESSION_ENDED, &SessionEnded { account, session })
}
