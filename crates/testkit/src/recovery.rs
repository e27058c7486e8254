//! Restoring a PostgreSQL server to a moment of its past, as an operator does it with PostgreSQL's own tools: a base
//! backup, an archive of the write-ahead log, and `recovery_target_time`.

use crate::postgres::{PostgresOptions, PostgresServer};
use std::path::Path;
use tempfile::TempDir;

/// Where a server puts its write-ahead log for good.
pub struct Archive {
    directory: TempDir,
}

impl Default for Archive {
    fn default() -> Self {
        Self::new()
    }
}

impl Archive {
    pub fn new() -> Self {
        Self {
            directory: crate::postgres::new_directory(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// For a server that keeps its log here.
    pub fn options(&self) -> PostgresOptions {
        let command = format!("test ! -f {0}/%f && cp %p {0}/%f", self.path().display());
        PostgresOptions::default()
            .set("archive_mode", "on")
            .set("archive_command", &command)
    }

    /// A copy of a running server's files, from which it can be restored to any later moment.
    pub async fn base_backup(&self, of: &PostgresServer) -> BaseBackup {
        BaseBackup {
            directory: of.base_backup().await,
        }
    }

    /// A new server with what the old one had committed by `time`, as the server's `now()` tells it. It takes writes on
    /// return.
    pub async fn restore(&self, backup: BaseBackup, time: &str) -> PostgresServer {
        std::fs::write(backup.directory.path().join("data/recovery.signal"), "")
            .expect("a file of the server");
        let options = PostgresOptions::default()
            .set("restore_command", &format!("cp {}/%f %p", self.path().display()))
            .set("recovery_target_time", time)
            .set("recovery_target_action", "promote");
        let server = PostgresServer::start_on(backup.directory, options).await;
        server.until_writable().await;
        server
    }
}

/// The files of a server as `pg_basebackup` copied them.
pub struct BaseBackup {
    directory: TempDir,
}
