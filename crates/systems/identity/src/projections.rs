//! What follows from what was committed: the directory of accounts, the audit log, and erasures.

use crate::{
    audit::{AUDITED, KEPT_FOR},
    model::{
        self, ACCOUNT_COUNT_ROW, ACCOUNT_ROW, ACCOUNTS, AUDIT, AUDIT_OF, AuditEntry, COUNTS, DIRECTORY,
        account_partition, directory_partition, id_desc_sort,
    },
    service::Identity,
};
use async_trait::async_trait;
use holon_contracts::identity::{ACCOUNT_CREATED, ACCOUNT_ERASED, AccountChanged, AccountErased};
use holon_ports::{Batch, Condition, Event, Handler, HandlerError, Partition, StoreError};
use std::sync::Arc;

/// Keeps the list of accounts and their count. An account counts when its row in the directory appears, in one
/// commit with it: so once, however often the event comes. It sees an account made before it sees it erased, so an
/// erased one does not stay, whatever the other consumers have done meanwhile.
pub(crate) struct Directory(pub Arc<Identity>);

#[async_trait]
impl Handler for Directory {
    async fn handle(&self, events: &[Event]) -> Result<(), HandlerError> {
        let mut commits: Vec<(Partition, Batch)> = Vec::new();
        for event in events {
            if event.kind == ACCOUNT_ERASED {
                let erased: AccountErased = event.json()?;
                commits.push((directory_partition(&event.tenant), unlisted(erased.id)));
            }
            if event.kind != ACCOUNT_CREATED {
                continue;
            }
            let created: AccountChanged = event.json()?;
            // A rebuild meets accounts that are long gone.
            let read = self.0.read_account(&event.tenant, created.id).await?;
            if read.is_some_and(|read| read.account.erased.is_none()) {
                commits.push((directory_partition(&event.tenant), listed(created.id)));
            }
        }
        settle(self.0.ctx.ports.store.commit_many(commits).await)
    }
}

/// Lists and counts an account that is not listed yet.
pub(crate) fn listed(account: holon_base::Id) -> Batch {
    Batch::new()
        .put_if_absent(DIRECTORY, id_desc_sort(account), &serde_json::json!({}))
        .add(COUNTS, ACCOUNT_COUNT_ROW, 1)
}

/// Takes an account out of the list if it is there.
pub(crate) fn unlisted(account: holon_base::Id) -> Batch {
    Batch::new()
        .delete_if(DIRECTORY, id_desc_sort(account), Condition::Present)
        .add(COUNTS, ACCOUNT_COUNT_ROW, -1)
}

/// A condition that does not hold says that the work was done before.
fn settle(done: Vec<Result<holon_ports::Committed, StoreError>>) -> Result<(), HandlerError> {
    for done in done {
        match done {
            Ok(_) | Err(StoreError::ConditionFailed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Lays audit entries down by month and by account. For the order of the two see [`crate::audit`].
pub(crate) struct AuditLog(pub Arc<Identity>);

#[async_trait]
impl Handler for AuditLog {
    async fn handle(&self, events: &[Event]) -> Result<(), HandlerError> {
        let store = &self.0.ctx.ports.store;
        let mut entries: Vec<(&Event, AuditEntry)> = Vec::new();
        for event in events.iter().filter(|event| event.kind == AUDITED) {
            entries.push((event, event.json()?));
        }
        let mut copies: Vec<(Partition, Batch)> = Vec::new();
        let mut of_entry: Vec<usize> = Vec::new();
        for (at, (event, entry)) in entries.iter().enumerate() {
            for account in entry.accounts() {
                let until = entry.time.plus(KEPT_FOR);
                let read = self.0.read_account(&event.tenant, account).await?;
                let read = read.filter(|read| read.account.erased.is_none());
                let version = match &read {
                    Some(read) => Condition::Version(read.version),
                    None => Condition::Any,
                };
                let sort = id_desc_sort(entry.id);
                let mut batch =
                    Batch::new().put_until(AUDIT_OF, sort, &entry.clone().scrubbed(), Condition::Any, until);
                // While the account is there, the copy and its being there are one commit: an erasure either sees
                // the copy or makes this one fail and come again.
                batch = batch.check(ACCOUNTS, ACCOUNT_ROW, version);
                if read.is_none() {
                    of_entry.push(at);
                }
                copies.push((account_partition(&event.tenant, account), batch));
            }
        }
        for done in store.commit_many(copies).await {
            done?;
        }
        let mut whole: Vec<(Partition, Batch)> = Vec::new();
        for (at, (event, entry)) in entries.into_iter().enumerate() {
            let place = entry.partition(&event.tenant);
            let until = entry.time.plus(KEPT_FOR);
            let sort = id_desc_sort(entry.id);
            let entry = if of_entry.contains(&at) {
                entry.scrubbed()
            } else {
                entry
            };
            whole.push((
                place,
                Batch::new().put_until(AUDIT, sort, &entry, Condition::Absent, until),
            ));
        }
        settle(store.commit_many(whole).await)
    }
}

/// Finishes erasures.
pub(crate) struct Erasures(pub Arc<Identity>);

#[async_trait]
impl Handler for Erasures {
    async fn handle(&self, events: &[Event]) -> Result<(), HandlerError> {
        for event in events.iter().filter(|event| event.kind == ACCOUNT_ERASED) {
            let erased: AccountErased = event.json()?;
            self.0
                .finish_erasure(&event.tenant, erased)
                .await
                .map_err(HandlerError::new)?;
        }
        Ok(())
    }
}

impl Identity {
    /// Makes the directory anew from the accounts: what is missing is listed, what is too much is taken out.
    pub(crate) async fn rebuild_directory(&self) -> Result<(), StoreError> {
        let store = &self.ctx.ports.store;
        let mut cursor = None;
        loop {
            let (rows, next) = store.walk(ACCOUNTS, cursor, 1_000).await?;
            let mut commits = Vec::new();
            for (partition, row) in rows.into_iter().filter(|(_, row)| row.sort == ACCOUNT_ROW) {
                let account: model::AccountRecord = row.json()?;
                if account.erased.is_none() {
                    commits.push((directory_partition(&partition.tenant), listed(account.id)));
                }
            }
            for done in store.commit_many(commits).await {
                match done {
                    Ok(_) | Err(StoreError::ConditionFailed { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        self.drop_strays().await
    }

    async fn drop_strays(&self) -> Result<(), StoreError> {
        let store = &self.ctx.ports.store;
        let mut cursor = None;
        loop {
            let (rows, next) = store.walk(DIRECTORY, cursor, 1_000).await?;
            for (partition, row) in rows {
                let Some(id) = model::id_of_desc(&row.sort) else {
                    continue;
                };
                let read = self.read_account(&partition.tenant, id).await?;
                if read.is_some_and(|read| read.account.erased.is_none()) {
                    continue;
                }
                match self.commit(&partition, unlisted(id)).await {
                    Ok(_) | Err(StoreError::ConditionFailed { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            cursor = next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}
