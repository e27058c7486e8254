//! Why an engine was not opened.

use crate::files::is_full;
use holon_ports::{BlobError, StoreError};
use std::path::{Path, PathBuf};

/// Why an engine was not opened. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("data directory {} is in use by process {holder}; stop it, or use another directory", dir.display())]
    InUse { dir: PathBuf, holder: String },
    #[error("{} is damaged: {detail}; restore it from a backup", path.display())]
    Corrupt { path: PathBuf, detail: String },
    #[error("no space left for {}; free some and start again, nothing acknowledged is lost", path.display())]
    Full { path: PathBuf },
    #[error("cannot use {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("cannot open the store: {0}")]
    Store(StoreError),
    #[error("cannot open the blobs: {0}")]
    Blobs(BlobError),
    #[error("invalid options: {0}")]
    Options(String),
}

impl EngineError {
    /// Names what fjall could not open.
    pub(crate) fn from_opening(db: &Path, error: &fjall::Error) -> Self {
        let path = db.to_owned();
        match error {
            full if is_full(full) => Self::Full { path },
            fjall::Error::Locked => Self::InUse {
                dir: path,
                holder: "unknown".into(),
            },
            fjall::Error::Io(source) => Self::Io {
                path,
                source: std::io::Error::new(source.kind(), source.to_string()),
            },
            fjall::Error::JournalRecovery(detail) => Self::Corrupt {
                path: db.join("*.jnl"),
                detail: format!("the journal cannot be replayed ({detail:?})"),
            },
            other => Self::Corrupt {
                path,
                detail: format!("{other:?}"),
            },
        }
    }
}
