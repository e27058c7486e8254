//! Copying: chunks as they lie, for whoever copies the rows of blobs as they are.
//!
//! A chunk's row names its object by a number, so rows that were copied find the chunks that were copied beside them.
//! While a copy goes on, collections wait: what the copied rows refer to must be there until it was read.

use super::*;
use tokio::sync::OwnedRwLockReadGuard;

/// The table whose rows say which chunks there are.
pub const CHUNK_TABLE: Table = CHUNKS;

/// A chunk, and the object that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlace {
    pub hash: ChunkHash,
    pub writing: u64,
}

impl ChunkPlace {
    /// What a row of [`CHUNK_TABLE`] says.
    ///
    /// # Errors
    /// [`BlobError::Corrupt`] if it is none.
    pub fn of_row(partition: &Partition, row: &holon_ports::Row) -> Result<Self, BlobError> {
        let record: ChunkRecord = row.json().map_err(store_error)?;
        let name = partition.entity.strip_prefix("chunk:").unwrap_or_default();
        let hash: BlobId = name
            .parse()
            .map_err(|_| BlobError::Corrupt(format!("a row of {} names no chunk", CHUNKS.0)))?;
        Ok(Self {
            hash: hash.0,
            writing: record.writing,
        })
    }
}

/// Collections in this process wait until this is dropped.
#[derive(Debug)]
pub struct CollectionsWait(#[expect(dead_code, reason = "it is held, not used")] OwnedRwLockReadGuard<()>);

impl ObjectBlobs {
    /// Waits for a collection under way, and keeps others waiting from then on.
    pub async fn hold_off_collections(&self) -> CollectionsWait {
        CollectionsWait(Arc::clone(&self.collecting).read_owned().await)
    }

    /// The content of a chunk, checked against its hash.
    ///
    /// # Errors
    /// [`BlobError::Corrupt`] if its object is not there, or holds something else.
    pub async fn copy_out(&self, place: ChunkPlace) -> Result<Bytes, BlobError> {
        let name = BlobId(place.hash);
        let content = match self
            .objects
            .get(&self.object_path(&place.hash, place.writing))
            .await
        {
            Ok(object) => object.bytes().await.map_err(object_error)?,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(BlobError::Corrupt(format!("chunk {name} is missing")));
            }
            Err(error) => return Err(object_error(error)),
        };
        checked(place, content).await
    }

    /// Writes the object of a chunk, whose row is copied by the caller. To do so twice is to do it once.
    ///
    /// # Errors
    /// [`BlobError::Corrupt`] if the content is not what the hash says.
    pub async fn copy_in(&self, place: ChunkPlace, content: Bytes) -> Result<(), BlobError> {
        let content = checked(place, content).await?;
        let object = self.object_path(&place.hash, place.writing);
        let payload = PutPayload::from_bytes(content);
        self.objects.put(&object, payload).await.map_err(object_error)?;
        Ok(())
    }
}

async fn checked(place: ChunkPlace, content: Bytes) -> Result<Bytes, BlobError> {
    let (content, hash) = hash_chunk(content).await?;
    if hash != place.hash {
        let name = BlobId(place.hash);
        return Err(BlobError::Corrupt(format!(
            "chunk {name} is not what its name says"
        )));
    }
    Ok(content)
}
