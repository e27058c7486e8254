//! Copies of a whole deployment: `holon backup`, `restore` and `migrate`.
//!
//! There is one idea: everything that counts can be said in [`record::Record`]s, which say nothing of where it lies. A
//! [`home::Home`] (a data directory, or servers) gives its records and takes those of another, with the versions,
//! offsets, ids and times that they had; an [`archive`] is records in a file. A migration is one home's records
//! given to another; a backup is a home's to a file; a restore a file's to a home. Each is done when what was written
//! has been read back and its checksums ([`tally`]) are those of what was to be written.
//!
//! | what | why it must come along |
//! |---|---|
//! | rows with versions and expiry | ETags and conditions that callers hold go on being right |
//! | the last version and id given out | none is given out twice |
//! | events with ids, times and offsets | they keep their order, and groups their places |
//! | how far each group is | what was handled is not handled again, the rest is |
//! | dead letters | somebody still has to decide |
//! | secrets | tokens, sessions, cursors and links go on being good |
//! | fences | who held a lease before stays fenced off |
//! | chunks of blobs | under the numbers that their rows name |
//!
//! A home that is read or written stands still in time: its clock is stopped at the moment of the copy, so that
//! nothing expires between what is compared.

pub mod archive;
pub mod directory;
pub mod home;
pub mod record;
pub mod run;
pub mod servers;
pub mod tally;

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("cannot write the copy: {0}")]
    Write(std::io::Error),
    #[error("cannot read the backup: {0}")]
    Read(std::io::Error),
    #[error("the backup cannot be used: {0}")]
    Archive(String),
    #[error("a record is malformed: {0}")]
    Record(String),
    #[error("store: {0}")]
    Store(#[from] holon_ports::StoreError),
    #[error("log: {0}")]
    Log(#[from] holon_ports::LogError),
    #[error("blobs: {0}")]
    Blobs(#[from] holon_ports::BlobError),
    #[error(transparent)]
    Engine(#[from] holon_embedded::EngineError),
    #[error("{0}")]
    Refused(String),
}
