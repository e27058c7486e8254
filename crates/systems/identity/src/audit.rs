//! The audit log: who did what, when and from where.
//!
//! An entry is an event in the commit of what it tells of, so that neither is there without the other; where nothing
//! is committed (a failed login, a minted token's refusal) it is appended alone. A consumer lays the entries down by month, newest
//! first, and again by account. So the log is complete and a moment behind.
//!
//! Entries hold ids and no names. The address is the one thing about a person in them: erasing an account takes it out
//! of every entry of that account. The order of writing makes that safe against an entry on its way: first the
//! account's own copy, and only while the account is there; then the month's, if it is not there yet. Erasure marks
//! the account, then overwrites the month's entry of each of the account's copies, whether it is there yet or not.

use crate::model::{AUDIT_OF, AuditEntry, account_partition};
use holon_base::{Id, Tenant, Timestamp};
use holon_ports::{NewEvent, Partition, Table};
use std::{net::IpAddr, time::Duration};

/// Topic of audit entries. Key: the account that acted or was acted on.
pub const AUDIT_TOPIC: &str = "identity.audit";
/// Data: [`AuditEntry`].
pub const AUDITED: &str = "identity.audited.v1";
/// How long entries are kept.
pub const KEPT_FOR: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// What is audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    AccountCreated,
    AccountErased,
    LoginSucceeded,
    LoginFailed,
    RefreshReused,
    SessionEnded,
    SessionsEnded,
    PasswordChanged,
    KeyCreated,
    KeyDeleted,
    TokenMinted,
    RolesAssigned,
    RoleDefined,
    TenantCreated,
    AdministratorMade,
    Exported,
}

impl Action {
    pub const fn name(self) -> &'static str {
        match self {
            Self::AccountCreated => "account.created",
            Self::AccountErased => "account.erased",
            Self::LoginSucceeded => "login.succeeded",
            Self::LoginFailed => "login.failed",
            Self::RefreshReused => "refresh.reused",
            Self::SessionEnded => "session.ended",
            Self::SessionsEnded => "sessions.ended",
            Self::PasswordChanged => "password.changed",
            Self::KeyCreated => "key.created",
            Self::KeyDeleted => "key.deleted",
            Self::TokenMinted => "token.minted",
            Self::RolesAssigned => "roles.assigned",
            Self::RoleDefined => "role.defined",
            Self::TenantCreated => "tenant.created",
            Self::AdministratorMade => "administrator.made",
            Self::Exported => "account.exported",
        }
    }
}

impl AuditEntry {
    pub fn new(id: Id, time: Timestamp, action: Action) -> Self {
        Self {
            id,
            time,
            actor: None,
            action: action.name().to_owned(),
            subject: None,
            detail: None,
            address: None,
        }
    }

    #[must_use]
    pub fn by(mut self, actor: Id) -> Self {
        self.actor = Some(actor);
        self
    }

    #[must_use]
    pub fn of_account(mut self, account: Id) -> Self {
        self.subject = Some(format!("account:{account}"));
        self
    }

    #[must_use]
    pub fn of(mut self, subject: String) -> Self {
        self.subject = Some(subject);
        self
    }

    /// Ids, role and permission names; nothing that a person wrote.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn from(mut self, address: Option<IpAddr>) -> Self {
        self.address = address.map(|address| address.to_canonical().to_string());
        self
    }

    /// The accounts that it is about: who acted and who was acted on.
    pub fn accounts(&self) -> Vec<Id> {
        let subject = self
            .subject
            .as_deref()
            .and_then(|subject| subject.strip_prefix("account:")?.parse().ok());
        let mut accounts: Vec<Id> = self.actor.into_iter().chain(subject).collect();
        accounts.dedup();
        accounts
    }

    /// Without what belongs to a person.
    #[must_use]
    pub fn scrubbed(mut self) -> Self {
        self.address = None;
        self
    }

    pub fn event(&self, tenant: &Tenant) -> NewEvent {
        let key = self
            .accounts()
            .last()
            .map_or_else(|| "nobody".to_owned(), Id::to_string);
        let subject = self.subject.clone().unwrap_or_else(|| "nobody".to_owned());
        NewEvent::new(AUDIT_TOPIC, tenant, key, AUDITED, subject, self)
    }

    pub fn partition(&self, tenant: &Tenant) -> Partition {
        month_partition(tenant, Month::of(self.time))
    }

    /// Where an account's copy of it is.
    pub fn place_of(tenant: &Tenant, account: Id) -> (Table, Partition) {
        (AUDIT_OF, account_partition(tenant, account))
    }
}

/// A month of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    year: i32,
    month: u8,
}

impl Month {
    pub fn of(time: Timestamp) -> Self {
        // RFC 3339 starts with the year and the month.
        let text = time.to_string();
        Self {
            year: text.get(0..4).and_then(|year| year.parse().ok()).unwrap_or(1970),
            month: text.get(5..7).and_then(|month| month.parse().ok()).unwrap_or(1),
        }
    }

    #[must_use]
    pub fn before(self) -> Self {
        if self.month == 1 {
            Self {
                year: self.year - 1,
                month: 12,
            }
        } else {
            Self {
                month: self.month - 1,
                ..self
            }
        }
    }
}

pub fn month_partition(tenant: &Tenant, month: Month) -> Partition {
    Partition::new(tenant, format!("audit:{:04}-{:02}", month.year, month.month))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_go_back_over_new_year() {
        let january = Month::of(Timestamp::parse("2026-01-31T23:59:59.999Z").unwrap());
        assert_eq!(
            month_partition(&Tenant::default(), january).entity,
            "audit:2026-01"
        );
        assert_eq!(
            month_partition(&Tenant::default(), january.before()).entity,
            "audit:2025-12"
        );
        assert_eq!(
            Month::of(Timestamp::parse("2026-02-01T00:00:00Z").unwrap()).before(),
            january
        );
    }

    #[test]
    fn an_entry_names_each_account_once() {
        let entry = AuditEntry::new(Id::from_u64(1), Timestamp::EPOCH, Action::TokenMinted);
        assert_eq!(entry.accounts(), []);
        let own = entry.clone().by(Id::from_u64(5)).of_account(Id::from_u64(5));
        assert_eq!(own.accounts(), [Id::from_u64(5)]);
        let other = entry.by(Id::from_u64(5)).of_account(Id::from_u64(6));
        assert_eq!(other.accounts(), [Id::from_u64(5), Id::from_u64(6)]);
    }
}
