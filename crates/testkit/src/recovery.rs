//! Restoring a PostgreSQL server to a moment of its past, as an operator does it with PostgreSQL's own tools: a base
//! backup, an archive of the write-ahead log, and `recovery_target_time`.

use crate::{
    Place,
    postgres::{PostgresOptions, PostgresServer, give_away},
};
use std::path::Path;

/// Where a server puts its write-ahead log for good.
pub struct Archive {
    place: Place,
}

impl Default for Archive {
    fn default() -> Self {
        Self::new()
    }
}

impl Archive {
    pub fn new() -> Self {
        let place = Place::temporary();
        give_away(place.path());
        Self { place }
    }

    fn path(&self) -> &Path {
        self.place.path()
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
            place: of.base_backup().await,
        }
    }

    /// A new server with what the old one had committed by `time`, as the server's `now()` tells it. It takes writes on
    /// return.
    pub async fn restore(&self, backup: BaseBackup, time: &str) -> PostgresServer {
        std::fs::write(backup.place.path().join("data/recovery.signal"), "").expect("a file of the server");
        let options = PostgresOptions::default()
            .set("restore_command", &format!("cp {}/%f %p", self.path().display()))
            .set("recovery_target_time", time)
            .set("recovery_target_action", "promote");
        let server = PostgresServer::start_in(backup.place, options).await;
        server.until_writable().await;
        server
    }
}

/// The files of a server as `pg_basebackup` copied them.
pub struct BaseBackup {
    place: Place,
}
