//! Why the engine was not opened, and what a server's errors mean to a caller of the store.

use holon_ports::StoreError;
use tokio_postgres::error::{Error, SqlState};

/// Why the engine was not opened, or a rule was not made. No message holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostgresError {
    #[error("invalid options: {0}")]
    Options(String),
    #[error("cannot connect to {database}: {detail}")]
    Connect { database: String, detail: String },
    #[error("{database} cannot keep what a store promises: {detail}")]
    Unsuitable { database: String, detail: String },
    #[error(
        "{database} has schema {found}, newer than {known}, which this program knows; run a newer program"
    )]
    SchemaTooNew {
        database: String,
        found: i32,
        known: i32,
    },
    #[error("{database} is shard {found}, not {expected}; its address belongs to another shard")]
    WrongShard {
        database: String,
        found: String,
        expected: String,
    },
    #[error(
        "{database} is empty, though the directory says that the shard has slots; its address is wrong, or it must be \
         restored first"
    )]
    Emptied { database: String },
    #[error("there is no shard {name}; there are {known}")]
    NoShard { name: String, known: String },
    #[error("{0}")]
    Conflict(String),
    #[error("{database} refused: {detail}")]
    Refused { database: String, detail: String },
}

/// What became of a statement that was not answered as hoped.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// It was never sent.
    Away(String),
    /// It was sent, and nobody knows what became of it.
    Lost(String),
    /// The server refused it; nothing was changed.
    Refused { code: SqlState, message: String },
}

impl Trouble {
    pub fn of(error: &Error) -> Self {
        let Some(refusal) = error.as_db_error() else {
            return Self::Lost(describe(error));
        };
        // A session that is ended from outside may have committed before it is told so.
        let code = refusal.code();
        let class = &code.code()[..2];
        let ends_session = matches!(refusal.severity(), "FATAL" | "PANIC");
        if ends_session || class == "08" || code.code().starts_with("57P") {
            return Self::Lost(describe(error));
        }
        Self::Refused {
            code: code.clone(),
            message: refusal.message().to_owned(),
        }
    }

    /// Whether the same statement may well be taken the next time: the server gave up for the sake of others.
    pub fn is_passing(&self) -> bool {
        const PASSING: [SqlState; 4] = [
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::OUT_OF_MEMORY,
        ];
        matches!(self, Self::Refused { code, .. } if PASSING.contains(code))
    }

    /// Whether the connection is of no more use: the server has become a standby, or has forgotten a statement.
    pub fn spoils_link(&self) -> bool {
        const SPOILING: [SqlState; 3] = [
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::INVALID_SQL_STATEMENT_NAME,
            SqlState::FEATURE_NOT_SUPPORTED,
        ];
        match self {
            Self::Away(_) => false,
            Self::Lost(_) => true,
            Self::Refused { code, .. } => SPOILING.contains(code),
        }
    }

    pub fn of_write(self) -> StoreError {
        match self {
            Self::Lost(detail) => StoreError::Unknown(detail),
            other => other.of_read(),
        }
    }

    pub fn of_read(self) -> StoreError {
        match self {
            Self::Away(detail) | Self::Lost(detail) => StoreError::Unavailable(detail),
            Self::Refused { code, message } => refused(&code, &message),
        }
    }
}

fn refused(code: &SqlState, message: &str) -> StoreError {
    let text = || format!("{message} ({})", code.code());
    if *code == SqlState::DISK_FULL {
        return StoreError::Full;
    }
    if *code == SqlState::PROGRAM_LIMIT_EXCEEDED {
        return StoreError::Invalid(text());
    }
    if *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED {
        return StoreError::Corrupt(text());
    }
    StoreError::Unavailable(text())
}

/// An error with its cause. Neither holds the connection string.
pub(crate) fn describe(error: &Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(refusal), _) => format!("{} ({})", refusal.message(), refusal.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}
