//! `holon check`: references between accounts, handles and the directory.

use crate::{
    model::{self, ACCOUNT_ROW, ACCOUNTS, AccountRecord, DIRECTORY, HANDLE_ROW, HANDLES, HandleRecord},
    service::{Identity, accounts::CLAIM_GRACE},
};
use holon_ports::StoreError;

impl Identity {
    /// Looks at every account and every handle; a line for each that does not fit. Reads two rows for each account.
    pub(crate) async fn check_rows(&self) -> Result<Vec<String>, StoreError> {
        let mut lines = Vec::new();
        self.check_accounts(&mut lines).await?;
        self.check_handles(&mut lines).await?;
        Ok(lines)
    }

    async fn check_accounts(&self, lines: &mut Vec<String>) -> Result<(), StoreError> {
        let mut cursor = None;
        loop {
            let (rows, next) = self.ctx.ports.store.walk(ACCOUNTS, cursor, 1_000).await?;
            for (partition, row) in rows.iter().filter(|(_, row)| row.sort == ACCOUNT_ROW) {
                let account: AccountRecord = row.json()?;
                if account.erased.is_some() {
                    continue;
                }
                let handles = self.handle_partition(&partition.tenant, &account.handle);
                let held = self.get(HANDLES, &handles, HANDLE_ROW).await?;
                let held: Option<HandleRecord> = held.map(|row| row.json()).transpose()?;
                if held.and_then(|held| held.account) != Some(account.id) {
                    lines.push(format!("account {} does not hold its handle", account.id));
                }
                let directory = model::directory_partition(&partition.tenant);
                let listed = self
                    .get(DIRECTORY, &directory, &model::id_desc_sort(account.id))
                    .await?;
                if listed.is_none() {
                    lines.push(format!("account {} is not in the directory", account.id));
                }
            }
            cursor = next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    async fn check_handles(&self, lines: &mut Vec<String>) -> Result<(), StoreError> {
        let mut cursor = None;
        loop {
            let (rows, next) = self.ctx.ports.store.walk(HANDLES, cursor, 1_000).await?;
            for (partition, row) in rows {
                let held: HandleRecord = row.json()?;
                let Some(account) = held.account else { continue };
                let is_young = self.now().since(held.claimed) < CLAIM_GRACE;
                if !is_young && self.read_account(&partition.tenant, account).await?.is_none() {
                    lines.push(format!(
                        "a handle is claimed for account {account}, which was never made"
                    ));
                }
            }
            cursor = next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}
