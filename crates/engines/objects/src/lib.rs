//! Blobs on an object store, a directory or S3, with what is known of them in the [`Store`].
//!
//! **Chunks.** A blob is cut into chunks, each kept once under its SHA-256 whoever put it: 1 MiB in a directory, 4 MiB
//! on S3, where every request costs. Fixed cuts cost nothing and find what is the same from the start on; cuts that
//! move with the content find what is the same after an insertion too, which matters to the syncing of files and comes
//! with it: a manifest carries the size of each chunk, so that both kinds can live side by side.
//!
//! Chunks take the place of S3's multipart uploads. They are what parts are for: pieces of bounded size that are
//! uploaded side by side ([`WRITES_AT_ONCE`]), each by itself again when it failed, with nothing to be seen before the
//! end, which here is the manifest. And they do what parts do not: what is there already is not sent. A chunk is
//! smaller than the smallest part (5 MiB), so there is nothing to upload in parts.
//!
//! **Rows.** In the partition of the blob (its tenant and id): the manifest, the names that hold it, and when it was
//! last put or held. In the partition of the chunk: which object holds it, the blobs it is part of, and when it was
//! last put. The references to a chunk are rows and not a number, so that doing a step again does no harm.
//!
//! **Putting** is: write the objects and the chunks' rows; at the end the links from chunks to the blob, then the
//! manifest. Each step is durable before the next, so what is cut off in the middle leaves only what nothing refers
//! to. **Collecting** is: manifests that nothing holds, then links whose manifest is not there, then chunks without a
//! link, then objects without a chunk, each only if it is older than the grace period. Putting a chunk that is there
//! renews its time, and a collector deletes a row only on the condition that this time has not changed since it
//! looked, so the two cannot cross. An object's name ends in a number drawn at random for each writing of it: a
//! collector that deletes late deletes the object that it looked at, never one that was put since.
//!
//! **Reading** a range fetches the chunks that it touches, whole, since a hash tells nothing of a part.
//!
//! How old an object is that no row names is told by the object store's clock and judged by this machine's: the grace
//! period must be longer than these two differ by.

mod collect;
pub mod copy;
mod crypto;
mod link;
mod manifest;
mod s3;
mod transport;

pub use s3::S3Options;

use crate::manifest::{ChunkHash, Manifest, Piece};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use holon_base::{Clock, Tenant, Timestamp};
use holon_ports::blobs::{BlobInfo, ByteStream, Collected};
use holon_ports::store::{Batch, Condition, Consistency, Op, Value};
use holon_ports::{BlobError, BlobId, Blobs, Partition, RowKey, Store, StoreError, Table};
use http::Method;
use object_store::signer::Signer;
use object_store::{
    ObjectStore, ObjectStoreExt, PutPayload, local::LocalFileSystem, path::Path as ObjectPath,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{ops::Range, path::Path, sync::Arc, time::Duration};

/// The size of every chunk but the last in a directory.
pub const CHUNK_BYTES: usize = 1 << 20;
/// The size of every chunk but the last on S3.
pub const S3_CHUNK_BYTES: usize = 4 << 20;
/// The largest chunk that is read, whoever wrote it.
const LARGEST_CHUNK_BYTES: usize = 16 << 20;
/// Chunks of one upload that are written side by side.
pub const WRITES_AT_ONCE: usize = 4;
/// The largest blob: as many chunks as one row can name.
pub const BLOB_BYTES: u64 = 16 << 30;
/// The longest name that can hold a blob, in bytes.
pub const NAME_BYTES: usize = 512;

const MANIFESTS: Table = Table("blobs.manifests");
const HOLDS: Table = Table("blobs.holds");
const CHUNKS: Table = Table("blobs.chunks");
const LINKS: Table = Table("blobs.links");
const TOUCHED: Table = Table("blobs.touched");
/// The tables that blobs need.
pub const TABLES: [Table; 5] = [MANIFESTS, HOLDS, CHUNKS, LINKS, TOUCHED];

/// The sort key of rows of which a partition has one.
const ONLY: &[u8] = b"1";
/// Chunks that a reader fetches ahead.
const READ_AHEAD: usize = 2;
/// S3 signs no link for longer than a week.
const LONGEST_LINK: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Where a chunk is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChunkRecord {
    /// The number in the name of its object.
    writing: u64,
    size: u32,
}

/// When a blob or a chunk was last put (a blob: or held).
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Touched {
    at: Timestamp,
}

/// Blobs in a directory or on S3. Cheap to clone.
#[derive(Clone)]
pub struct ObjectBlobs {
    objects: Arc<dyn ObjectStore>,
    /// Makes links that the object store itself serves; a directory serves none.
    signer: Option<Arc<dyn Signer>>,
    /// Before every object's name: empty, or ends in a slash.
    root: String,
    chunk_bytes: usize,
    store: Arc<dyn Store>,
    secret: [u8; 32],
    clock: Arc<dyn Clock>,
    /// Written by whoever collects, read by whoever copies.
    collecting: Arc<tokio::sync::RwLock<()>>,
}

impl ObjectBlobs {
    /// Opens a directory, making it if it is not there. The [`TABLES`] must be in the store before the first use;
    /// `secret` signs presigned links.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`] if the directory cannot be made or opened.
    pub fn directory(
        directory: impl AsRef<Path>,
        store: Arc<dyn Store>,
        secret: [u8; 32],
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BlobError> {
        let directory = directory.as_ref();
        std::fs::create_dir_all(directory)
            .map_err(|error| BlobError::Unavailable(format!("{}: {error}", directory.display())))?;
        let objects = LocalFileSystem::new_with_prefix(directory)
            .map_err(object_error)?
            .with_fsync(true);
        Ok(Self {
            objects: Arc::new(objects),
            signer: None,
            root: String::new(),
            chunk_bytes: CHUNK_BYTES,
            store,
            secret,
            clock,
            collecting: Arc::default(),
        })
    }

    /// Uses a bucket of S3, or of a server that speaks its protocol. Does not ask it yet. The [`TABLES`] must be in
    /// the store before the first use; `secret` signs presigned links.
    ///
    /// # Errors
    /// [`BlobError::Invalid`] if the options make no sense.
    pub fn s3(
        options: &S3Options,
        store: Arc<dyn Store>,
        secret: [u8; 32],
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BlobError> {
        let objects = Arc::new(options.build()?);
        Ok(Self {
            objects: Arc::clone(&objects) as Arc<dyn ObjectStore>,
            signer: Some(objects),
            root: options.root(),
            chunk_bytes: S3_CHUNK_BYTES,
            store,
            secret,
            clock,
            collecting: Arc::default(),
        })
    }

    /// Asks the object store whether it is there and lets us in.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`], whose reason is in the log.
    pub async fn check(&self) -> Result<(), BlobError> {
        let nothing = format!("{}chunks/00", self.root);
        // Asking for one object tells whether we are let in; listing, whether there is a bucket.
        match self.objects.head(&ObjectPath::from(nothing.clone())).await {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(object_error(error)),
        }
        let mut objects = self.objects.list(Some(&ObjectPath::from(nothing)));
        objects.try_next().await.map_err(object_error)?;
        Ok(())
    }

    async fn manifest(&self, tenant: &Tenant, id: &BlobId) -> Result<Option<Manifest>, BlobError> {
        let key = RowKey::new(MANIFESTS, blob_partition(tenant, id), ONLY);
        let row = self.get(&key).await?;
        row.map(|row| Manifest::decode(&row.bytes())).transpose()
    }

    async fn get(&self, key: &RowKey) -> Result<Option<holon_ports::Row>, BlobError> {
        self.store
            .get(key, Consistency::Strong)
            .await
            .map_err(store_error)
    }

    /// Commits; false if a condition does not hold.
    async fn commit(&self, partition: &Partition, batch: Batch) -> Result<bool, BlobError> {
        match self.store.commit(partition, batch).await {
            Ok(_) => Ok(true),
            Err(StoreError::ConditionFailed { .. }) => Ok(false),
            Err(error) => Err(store_error(error)),
        }
    }

    fn touched(&self) -> Touched {
        Touched { at: self.clock.now() }
    }

    /// Keeps a chunk; durable on return. One that is there already is not written again, its time is renewed.
    async fn keep_chunk(&self, hash: &ChunkHash, content: Bytes) -> Result<(), BlobError> {
        let partition = chunk_partition(hash);
        loop {
            let touch =
                Batch::new()
                    .check(CHUNKS, ONLY, Condition::Present)
                    .put(TOUCHED, ONLY, &self.touched());
            if self.commit(&partition, touch).await? {
                return Ok(());
            }
            let record = ChunkRecord {
                writing: rand::random(),
                size: content.len() as u32,
            };
            let object = self.object_path(hash, record.writing);
            let payload = PutPayload::from_bytes(content.clone());
            self.objects.put(&object, payload).await.map_err(object_error)?;
            let row = Batch::new()
                .put_if_absent(CHUNKS, ONLY, &record)
                .put(TOUCHED, ONLY, &self.touched());
            if self.commit(&partition, row).await? {
                return Ok(());
            }
            // Another has put the same chunk meanwhile. If this fails, the object is found when collecting.
            let _ = self.objects.delete(&object).await;
        }
    }

    /// Notes that chunks are part of a blob.
    async fn link_chunks(&self, tenant: &Tenant, id: &BlobId, manifest: &Manifest) -> Result<(), BlobError> {
        let mut hashes: Vec<&ChunkHash> = manifest.chunks.iter().map(|(hash, _)| hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        for some in hashes.chunks(256) {
            let commits = some
                .iter()
                .map(|hash| {
                    let batch = Batch::new()
                        .check(CHUNKS, ONLY, Condition::Present)
                        .put(TOUCHED, ONLY, &self.touched())
                        .op(Op::Put {
                            table: LINKS,
                            sort: link_sort(tenant, id),
                            value: Value::Binary(Bytes::new()),
                            condition: Condition::Any,
                            expires: None,
                        });
                    (chunk_partition(hash), batch)
                })
                .collect();
            for answer in self.store.commit_many(commits).await {
                match answer {
                    Ok(_) => {}
                    Err(StoreError::ConditionFailed { .. }) => {
                        return Err(BlobError::Unavailable(
                            "the upload took longer than the grace period; nothing was kept".into(),
                        ));
                    }
                    Err(error) => return Err(store_error(error)),
                }
            }
        }
        Ok(())
    }

    /// One piece of a blob, checked.
    async fn piece(&self, tenant: &Tenant, id: &BlobId, piece: Piece) -> Result<Bytes, BlobError> {
        let name = BlobId(piece.hash);
        let content = match self.chunk_content(&piece.hash).await? {
            Some(content) => content,
            // Collected while it was being read, which is no damage.
            None if self.manifest(tenant, id).await?.is_none() => return Err(BlobError::NotFound(*id)),
            None => return Err(BlobError::Corrupt(format!("chunk {name} is missing"))),
        };
        let (content, hash) = hash_chunk(content).await?;
        if hash != piece.hash || content.len() != piece.size as usize {
            return Err(BlobError::Corrupt(format!(
                "chunk {name} is not what its name says"
            )));
        }
        Ok(content.slice(piece.part))
    }

    /// `chunks/ab/cdef…-<writing>`.
    fn object_path(&self, hash: &ChunkHash, writing: u64) -> ObjectPath {
        let name = BlobId(*hash).to_string();
        let (head, tail) = name.split_at(2);
        ObjectPath::from(format!("{}chunks/{head}/{tail}-{writing:016x}", self.root))
    }

    /// What [`Self::object_path`] made.
    fn parse_object_path(&self, path: &ObjectPath) -> Option<(ChunkHash, u64)> {
        let path = path.as_ref().strip_prefix(&self.root)?;
        let (head, tail) = path.strip_prefix("chunks/")?.split_once('/')?;
        let (tail, writing) = tail.split_once('-')?;
        let hash: BlobId = format!("{head}{tail}").parse().ok()?;
        Some((hash.0, u64::from_str_radix(writing, 16).ok()?))
    }

    async fn chunk_record(&self, hash: &ChunkHash) -> Result<Option<ChunkRecord>, BlobError> {
        let key = RowKey::new(CHUNKS, chunk_partition(hash), ONLY);
        let row = self.get(&key).await?;
        row.map(|row| row.json().map_err(store_error)).transpose()
    }

    async fn chunk_content(&self, hash: &ChunkHash) -> Result<Option<Bytes>, BlobError> {
        let Some(record) = self.chunk_record(hash).await? else {
            return Ok(None);
        };
        match self.objects.get(&self.object_path(hash, record.writing)).await {
            Ok(object) => object.bytes().await.map(Some).map_err(object_error),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(object_error(error)),
        }
    }
}

#[async_trait]
impl Blobs for ObjectBlobs {
    async fn put(&self, tenant: &Tenant, content: ByteStream) -> Result<BlobInfo, BlobError> {
        let mut whole = Sha256::new();
        let mut manifest = Manifest {
            created: self.clock.now(),
            size: 0,
            chunks: Vec::new(),
        };
        let mut writes = FuturesUnordered::new();
        let mut chunks = std::pin::pin!(cut(content, self.chunk_bytes));
        let mut ended = false;
        while !(ended && writes.is_empty()) {
            // Writes go on while the next bytes are waited for.
            let next = tokio::select! {
                Some(written) = writes.next() => {
                    written?;
                    continue;
                }
                next = chunks.try_next(), if !ended && writes.len() < WRITES_AT_ONCE => next?,
            };
            let Some(chunk) = next else {
                ended = true;
                continue;
            };
            manifest.size += chunk.len() as u64;
            if manifest.size > BLOB_BYTES {
                return Err(BlobError::TooLarge { limit: BLOB_BYTES });
            }
            let (chunk, hash, so_far) = off_thread(move || {
                whole.update(&chunk);
                let hash: ChunkHash = Sha256::digest(&chunk).into();
                (chunk, hash, whole)
            })
            .await?;
            whole = so_far;
            manifest.chunks.push((hash, chunk.len() as u32));
            writes.push(async move { self.keep_chunk(&hash, chunk).await });
        }
        let id = BlobId(whole.finalize().into());
        self.link_chunks(tenant, &id, &manifest).await?;
        let partition = blob_partition(tenant, &id);
        loop {
            let new = Batch::new()
                .op(Op::Put {
                    table: MANIFESTS,
                    sort: Bytes::from_static(ONLY),
                    value: Value::Binary(manifest.encode()),
                    condition: Condition::Absent,
                    expires: None,
                })
                .put(TOUCHED, ONLY, &self.touched());
            if self.commit(&partition, new).await? {
                return Ok(manifest.info(id));
            }
            let again =
                Batch::new()
                    .check(MANIFESTS, ONLY, Condition::Present)
                    .put(TOUCHED, ONLY, &self.touched());
            if self.commit(&partition, again).await?
                && let Some(first) = self.manifest(tenant, &id).await?
            {
                return Ok(first.info(id));
            }
        }
    }

    async fn info(&self, tenant: &Tenant, id: &BlobId) -> Result<Option<BlobInfo>, BlobError> {
        let manifest = self.manifest(tenant, id).await?;
        Ok(manifest.map(|manifest| manifest.info(*id)))
    }

    async fn read(
        &self,
        tenant: &Tenant,
        id: &BlobId,
        range: Option<Range<u64>>,
    ) -> Result<ByteStream, BlobError> {
        let manifest = self.manifest(tenant, id).await?.ok_or(BlobError::NotFound(*id))?;
        let range = range.unwrap_or(0..manifest.size);
        if range.start > range.end || range.end > manifest.size {
            return Err(BlobError::Range { size: manifest.size });
        }
        let (blobs, tenant, id) = (self.clone(), tenant.clone(), *id);
        let pieces = stream::iter(manifest.pieces(&range))
            .map(move |piece| {
                let (blobs, tenant) = (blobs.clone(), tenant.clone());
                async move { blobs.piece(&tenant, &id, piece).await }
            })
            .buffered(READ_AHEAD);
        // After an error there is nothing more.
        let pieces = pieces.scan(false, |ended, piece| {
            let answer = (!*ended).then_some(piece);
            *ended |= matches!(answer, Some(Err(_)));
            std::future::ready(answer)
        });
        Ok(pieces.boxed())
    }

    async fn hold(&self, tenant: &Tenant, id: &BlobId, name: &str) -> Result<(), BlobError> {
        check_name(name)?;
        // The time is written too, so that a collector that has looked before this does not delete after it.
        let batch = Batch::new()
            .check(MANIFESTS, ONLY, Condition::Present)
            .put_binary(HOLDS, Bytes::copy_from_slice(name.as_bytes()), Bytes::new())
            .put(TOUCHED, ONLY, &self.touched());
        match self.commit(&blob_partition(tenant, id), batch).await? {
            true => Ok(()),
            false => Err(BlobError::NotFound(*id)),
        }
    }

    async fn release(&self, tenant: &Tenant, id: &BlobId, name: &str) -> Result<(), BlobError> {
        check_name(name)?;
        let batch = Batch::new().delete(HOLDS, Bytes::copy_from_slice(name.as_bytes()));
        self.commit(&blob_partition(tenant, id), batch).await?;
        Ok(())
    }

    async fn collect(&self, grace: Duration) -> Result<Collected, BlobError> {
        let _no_copy = self.collecting.write().await;
        self.collect_garbage(grace).await
    }

    async fn direct(
        &self,
        tenant: &Tenant,
        id: &BlobId,
        lasts: Duration,
    ) -> Result<Option<String>, BlobError> {
        let Some(signer) = &self.signer else {
            return Ok(None);
        };
        let manifest = self.manifest(tenant, id).await?.ok_or(BlobError::NotFound(*id))?;
        let [(hash, _)] = manifest.chunks.as_slice() else {
            return Ok(None);
        };
        let Some(record) = self.chunk_record(hash).await? else {
            return Ok(None);
        };
        let object = self.object_path(hash, record.writing);
        let url = signer
            .signed_url(Method::GET, &object, lasts.min(LONGEST_LINK))
            .await;
        Ok(Some(url.map_err(object_error)?.to_string()))
    }

    fn presign(&self, tenant: &Tenant, id: &BlobId, until: Timestamp) -> String {
        link::presign(&self.secret, tenant, id, until)
    }

    fn verify(&self, presigned: &str, now: Timestamp) -> Result<(Tenant, BlobId), BlobError> {
        link::verify(&self.secret, presigned, now)
    }
}

/// Cuts a stream into chunks of a size, the last one shorter.
fn cut(content: ByteStream, chunk_bytes: usize) -> impl Stream<Item = Result<Bytes, BlobError>> {
    stream::try_unfold(Some((content, BytesMut::new())), move |state| async move {
        let Some((mut content, mut waiting)) = state else {
            return Ok(None);
        };
        while waiting.len() < chunk_bytes {
            let Some(bytes) = content.try_next().await? else {
                let last = waiting.freeze();
                return Ok((!last.is_empty()).then_some((last, None)));
            };
            waiting.extend_from_slice(&bytes);
        }
        let chunk = waiting.split_to(chunk_bytes).freeze();
        Ok(Some((chunk, Some((content, waiting)))))
    })
}

/// Hashing a chunk takes longer than a task may keep its thread.
async fn hash_chunk(content: Bytes) -> Result<(Bytes, ChunkHash), BlobError> {
    off_thread(move || {
        let hash = Sha256::digest(&content).into();
        (content, hash)
    })
    .await
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BlobError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| BlobError::Unavailable(error.to_string()))
}

fn blob_partition(tenant: &Tenant, id: &BlobId) -> Partition {
    Partition::new(tenant, format!("blob:{id}"))
}

/// Chunks belong to the deployment: who has the content finds it, who has not cannot name it.
fn chunk_partition(hash: &ChunkHash) -> Partition {
    Partition::new(&Tenant::default(), format!("chunk:{}", BlobId(*hash)))
}

fn link_sort(tenant: &Tenant, id: &BlobId) -> Bytes {
    format!("{tenant}/{id}").into()
}

fn check_name(name: &str) -> Result<(), BlobError> {
    if name.is_empty() || name.len() > NAME_BYTES {
        return Err(BlobError::Invalid(format!("a name is 1 to {NAME_BYTES} bytes")));
    }
    Ok(())
}

fn store_error(error: StoreError) -> BlobError {
    match error {
        StoreError::Full => BlobError::Full,
        StoreError::Corrupt(what) => BlobError::Corrupt(what),
        other => BlobError::Unavailable(other.to_string()),
    }
}

fn object_error(error: object_store::Error) -> BlobError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(link) = cause {
        let full = link
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull);
        if full {
            return BlobError::Full;
        }
        cause = link.source();
    }
    // Its own words may hold names of buckets and hosts, and what a server said.
    tracing::warn!(%error, "the object store failed");
    let why = match error {
        object_store::Error::NotFound { .. } => "there is no such bucket or object",
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            "it does not let us in"
        }
        _ => "a request failed",
    };
    BlobError::Unavailable(format!("object store: {why}"))
}
