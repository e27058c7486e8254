//! What a system keeps of a person: to export it, to erase it, and to say what is left.

use async_trait::async_trait;
use holon_base::{Id, Tenant};

/// Whose data is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub tenant: Tenant,
    pub id: Id,
    pub handle: String,
}

/// A system's answer for what it keeps of people.
#[async_trait]
pub trait PersonalData: Send + Sync + 'static {
    /// The system's name: the key under which its part stands in an export.
    fn system(&self) -> &'static str;

    /// Everything kept of this person, as one JSON document.
    async fn export(&self, person: &Person) -> Result<serde_json::Value, PersonalDataError>;

    /// Erases everything kept of this person. Idempotent, since it is repeated until it succeeds.
    async fn erase(&self, person: &Person) -> Result<(), PersonalDataError>;
}

/// Why a system could not answer. For the log, not for a client.
#[derive(Debug, thiserror::Error)]
#[error("{system}: {message}")]
pub struct PersonalDataError {
    pub system: &'static str,
    pub message: String,
}
