//! Blobs: large, immutable bytes, addressed by what they are.
//!
//! A blob is cut into chunks, each kept once under its SHA-256; the blob's id is the SHA-256 of its whole content.
//! Who uses a blob holds a named reference; what nobody references is collected after a grace period.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use holon_base::{ErrorKind, Tenant, Timestamp};
use std::{fmt, ops::Range, str::FromStr, time::Duration};

/// The SHA-256 of a blob's content; written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobId(pub [u8; 32]);

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlobId {
    type Err = BlobError;
    fn from_str(text: &str) -> Result<Self, BlobError> {
        let invalid = || BlobError::Invalid("a blob id is 64 lower-case hexadecimal digits".into());
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(invalid());
        }
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |c: u8| match c {
                b'0'..=b'9' => Ok(c - b'0'),
                b'a'..=b'f' => Ok(c - b'a' + 10),
                _ => Err(invalid()),
            };
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(id))
    }
}

/// What is known of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    pub id: BlobId,
    /// Bytes.
    pub size: u64,
    pub chunks: u32,
    pub created: Timestamp,
}

/// What a garbage collection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    pub blobs: u64,
    pub chunks: u64,
    pub bytes: u64,
}

/// Bytes as they arrive from a caller or go to one.
pub type ByteStream = BoxStream<'static, Result<Bytes, BlobError>>;

/// Large, immutable bytes. A tenant sees only its own blobs.
#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// Takes a blob in, in bounded memory; durable on return. The same content twice is kept once. A stream that
    /// fails half-way leaves nothing but chunks to collect. The new blob has no reference yet.
    async fn put(&self, tenant: &Tenant, content: ByteStream) -> Result<BlobInfo, BlobError>;

    async fn info(&self, tenant: &Tenant, id: &BlobId) -> Result<Option<BlobInfo>, BlobError>;

    /// Reads a range of bytes (all if `None`), checking each chunk against its hash.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::Range`]; a damaged chunk ends the stream with [`BlobError::Corrupt`].
    async fn read(
        &self,
        tenant: &Tenant,
        id: &BlobId,
        range: Option<Range<u64>>,
    ) -> Result<ByteStream, BlobError>;

    /// Holds a blob under a name, such as `photo:42`; holding it twice is holding it once.
    async fn hold(&self, tenant: &Tenant, id: &BlobId, name: &str) -> Result<(), BlobError>;

    /// Lets go of a name; no error if it was not held.
    async fn release(&self, tenant: &Tenant, id: &BlobId, name: &str) -> Result<(), BlobError>;

    /// Deletes blobs and chunks that nothing holds and that are older than `grace`, which must be longer than any
    /// upload takes. Safe at any time, from any node.
    async fn collect(&self, grace: Duration) -> Result<Collected, BlobError>;

    /// A URL at which the object store itself serves the whole blob for a time, without a credential and without
    /// passing through Holon; `None` where there is none, because the engine has no such store or the blob is not one
    /// object of it. Then [`Blobs::presign`] is the way.
    ///
    /// # Errors
    /// [`BlobError::NotFound`] where the engine has such URLs and there is no such blob.
    async fn direct(
        &self,
        _tenant: &Tenant,
        _id: &BlobId,
        _lasts: Duration,
    ) -> Result<Option<String>, BlobError> {
        Ok(None)
    }

    /// A path and query that gives read access to one blob until a time, without a credential.
    fn presign(&self, tenant: &Tenant, id: &BlobId, until: Timestamp) -> String;

    /// Checks what [`Blobs::presign`] made.
    ///
    /// # Errors
    /// [`BlobError::Forbidden`] if it is not genuine or its time is over.
    fn verify(&self, presigned: &str, now: Timestamp) -> Result<(Tenant, BlobId), BlobError>;
}

/// Why a blob store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    #[error("no blob {0}")]
    NotFound(BlobId),
    #[error("range is outside the blob's {size} bytes")]
    Range { size: u64 },
    #[error("blob is above the limit of {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("link is not genuine or its time is over")]
    Forbidden,
    #[error("invalid request: {0}")]
    Invalid(String),
    #[error("stored blob is damaged: {0}")]
    Corrupt(String),
    #[error("no space left for the blob; nothing was kept")]
    Full,
    #[error("blob store is away: {0}")]
    Unavailable(String),
}

impl BlobError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Range { .. } | Self::Invalid(_) => ErrorKind::Invalid,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Forbidden => ErrorKind::Forbidden,
            Self::Corrupt(_) => ErrorKind::Internal,
            Self::Full | Self::Unavailable(_) => ErrorKind::Unavailable,
        }
    }
}
