//! What a home is to a copy: it gives everything that it holds, and takes what another held.

use super::{
    CopyError,
    record::{Group, Head, Record, Topic},
};
use async_trait::async_trait;
use bytes::Bytes;
pub use holon_embedded::copy::Page;
use holon_objects::copy::ChunkPlace;
use holon_ports::{Event, log::DeadLetter, store::TableCursor};
use serde::{Deserialize, Serialize};

/// Rows or events of one page.
pub const PAGE: usize = 500;

/// How far a copy into a home is: what comes before is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Of which copy: [`Head::number`].
    pub number: u64,
    /// The table whose rows are being written, and the place in it; before the first table, nothing.
    pub table: Option<String>,
    pub cursor: Option<Vec<u8>>,
}

/// A home that stands still.
#[async_trait]
pub trait Home: Send + Sync {
    async fn head(&self) -> Result<Head, CopyError>;
    async fn secrets(&self) -> Result<Vec<(String, [u8; 32])>, CopyError>;
    /// The files that people rely on.
    async fn files(&self) -> Result<Vec<(String, Bytes)>, CopyError>;
    /// The names of the tables whose rows count, in order.
    async fn tables(&self) -> Result<Vec<String>, CopyError>;
    async fn rows(&self, table: &str, cursor: Option<TableCursor>) -> Result<Page, CopyError>;
    async fn topics(&self) -> Result<Vec<Topic>, CopyError>;
    async fn events(&self, topic: &str, partition: u16, from: u64) -> Result<Vec<Event>, CopyError>;
    async fn groups(&self) -> Result<Vec<Group>, CopyError>;
    /// Group, topic and letter, oldest first.
    async fn letters(&self) -> Result<Vec<(String, String, DeadLetter)>, CopyError>;
    async fn fences(&self) -> Result<Vec<(String, u64)>, CopyError>;
    async fn chunk(&self, place: ChunkPlace) -> Result<Bytes, CopyError>;

    /// Takes records of another home in, durably. All of a call are of one kind, and of one table or partition of a
    /// topic. To take the same again changes nothing.
    async fn take(&self, records: Vec<Record>) -> Result<(), CopyError>;
    /// How far an unfinished copy into this home is.
    async fn checkpoint(&self) -> Result<Option<Checkpoint>, CopyError>;
    /// Notes how far the copy is. Until it is finished, the home refuses to be served.
    async fn note(&self, checkpoint: &Checkpoint) -> Result<(), CopyError>;
}
