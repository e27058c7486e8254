//! API keys of an account: made, listed, deleted.

use super::{Client, Identity, SessionsGone, require_person};
use crate::{
    api_keys::{self, KEYS_MAX},
    audit::Action,
    error::IdentityError,
    model::{ACCOUNT_ROW, ACCOUNTS, KEYS, KeyRecord, account_partition, id_sort, normal_text},
    roles::{is_permission, is_system},
};
use holon_base::Id;
use holon_ports::{Batch, Condition, Row};
use holon_web::Caller;

/// The most scopes of a key.
pub const SCOPES_MAX: usize = 50;

impl Identity {
    /// Makes a key; answers its record and its text, which nobody can read again.
    ///
    /// # Errors
    /// [`IdentityError::Forbidden`] for a scope that the caller does not have.
    pub async fn create_key(
        &self,
        caller: &Caller,
        name: &str,
        scopes: Vec<String>,
        client: &Client,
    ) -> Result<(KeyRecord, String), IdentityError> {
        require_person(caller)?;
        let name = normal_text(name, 64, false)
            .filter(|name| !name.is_empty())
            .ok_or(IdentityError::Invalid(
                "/name",
                "a key's name has 1 to 64 characters, on one line",
            ))?;
        if scopes.is_empty() || scopes.len() > SCOPES_MAX || !scopes.iter().all(|scope| is_permission(scope))
        {
            let hint = "name 1 to 50 scopes: systems such as feed, permissions, or *";
            return Err(IdentityError::Invalid("/scopes", hint));
        }
        if let Some(scope) = scopes
            .iter()
            .find(|scope| !is_system(scope) && !caller.may(scope))
        {
            return Err(IdentityError::Forbidden(scope.clone()));
        }
        let partition = account_partition(&caller.tenant, caller.account);
        if self.rows(KEYS, &partition).await?.len() >= KEYS_MAX {
            return Err(IdentityError::Conflict(
                "too-many-keys",
                "an account has at most 50 keys; delete one first",
            ));
        }
        let id = self.ctx.ids.next();
        let (text, hash) = api_keys::make(&caller.tenant, caller.account, id, api_keys::new_secret());
        let key = KeyRecord {
            id,
            name,
            hash,
            scopes,
            created: self.now(),
            last_used: None,
        };
        let entry = self
            .audit(Action::KeyCreated)
            .by(caller.account)
            .of_account(caller.account);
        let entry = entry
            .detail(format!("key:{id} scopes:{}", key.scopes.join(",")))
            .from(client.address);
        let batch = Batch::new()
            .put_if_absent(KEYS, id_sort(id), &key)
            .check(ACCOUNTS, ACCOUNT_ROW, Condition::Present)
            .event(entry.event(&caller.tenant));
        self.commit(&partition, batch).await?;
        Ok((key, text))
    }

    /// The caller's keys, newest first.
    pub async fn own_keys(&self, caller: &Caller) -> Result<Vec<KeyRecord>, IdentityError> {
        let rows = self
            .rows(KEYS, &account_partition(&caller.tenant, caller.account))
            .await?;
        let mut keys: Vec<KeyRecord> = rows.iter().map(Row::json).collect::<Result<_, _>>()?;
        keys.reverse();
        Ok(keys)
    }

    /// Deletes one of the caller's keys; it opens nothing from then on.
    pub async fn delete_key(&self, caller: &Caller, key: Id, client: &Client) -> Result<(), IdentityError> {
        require_person(caller)?;
        let partition = account_partition(&caller.tenant, caller.account);
        self.get(KEYS, &partition, &id_sort(key))
            .await?
            .ok_or(IdentityError::NotFound("key"))?;
        let entry = self
            .audit(Action::KeyDeleted)
            .by(caller.account)
            .of_account(caller.account);
        let entry = entry.detail(format!("key:{key}")).from(client.address);
        let batch = Batch::new()
            .delete(KEYS, id_sort(key))
            .event(entry.event(&caller.tenant));
        self.commit(&partition, batch).await?;
        let gone = SessionsGone {
            tenant: caller.tenant.clone(),
            account: caller.account,
            session: Some(key),
        };
        self.sessions_gone(gone).await;
        Ok(())
    }
}
