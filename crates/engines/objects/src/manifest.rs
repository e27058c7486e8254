//! What a blob is made of: the chunks in order, with their sizes.
//!
//! Written in binary, 36 bytes a chunk, since a manifest of the largest blob must fit in a row: one format byte, the
//! time it was made, the size of the blob, then for each chunk its SHA-256 and its size, all big-endian.

use crate::{BLOB_BYTES, LARGEST_CHUNK_BYTES};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use holon_base::Timestamp;
use holon_ports::{BlobError, BlobId, blobs::BlobInfo};
use std::ops::Range;

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 1 + 8 + 8;
const CHUNK_ENTRY_BYTES: usize = 32 + 4;

/// The SHA-256 of a chunk.
pub(crate) type ChunkHash = [u8; 32];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) created: Timestamp,
    pub(crate) size: u64,
    pub(crate) chunks: Vec<(ChunkHash, u32)>,
}

/// The part of a chunk that a read needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) hash: ChunkHash,
    pub(crate) size: u32,
    pub(crate) part: Range<usize>,
}

impl Manifest {
    pub(crate) fn info(&self, id: BlobId) -> BlobInfo {
        BlobInfo {
            id,
            size: self.size,
            chunks: self.chunks.len() as u32,
            created: self.created,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD_BYTES + self.chunks.len() * CHUNK_ENTRY_BYTES);
        out.put_u8(FORMAT);
        out.put_i64(self.created.millis());
        out.put_u64(self.size);
        for (hash, size) in &self.chunks {
            out.put_slice(hash);
            out.put_u32(*size);
        }
        out.freeze()
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, BlobError> {
        let corrupt = || BlobError::Corrupt("a manifest is not as it was written".into());
        let is_whole =
            bytes.len() >= HEAD_BYTES && (bytes.len() - HEAD_BYTES).is_multiple_of(CHUNK_ENTRY_BYTES);
        if !is_whole || bytes.get_u8() != FORMAT {
            return Err(corrupt());
        }
        let created = Timestamp::from_millis(bytes.get_i64());
        let size = bytes.get_u64();
        let mut chunks = Vec::with_capacity(bytes.len() / CHUNK_ENTRY_BYTES);
        let mut sum = 0_u64;
        while bytes.has_remaining() {
            let mut hash = [0; 32];
            bytes.copy_to_slice(&mut hash);
            let chunk_size = bytes.get_u32();
            if chunk_size as usize > LARGEST_CHUNK_BYTES {
                return Err(corrupt());
            }
            sum += u64::from(chunk_size);
            chunks.push((hash, chunk_size));
        }
        if sum != size || size > BLOB_BYTES {
            return Err(corrupt());
        }
        Ok(Self {
            created,
            size,
            chunks,
        })
    }

    /// The pieces that make up a range, which must lie within the blob.
    pub(crate) fn pieces(&self, range: &Range<u64>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut start = 0;
        for (hash, size) in &self.chunks {
            let end = start + u64::from(*size);
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                pieces.push(Piece {
                    hash: *hash,
                    size: *size,
                    part: (from - start) as usize..(to - start) as usize,
                });
            }
            start = end;
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn manifest(sizes: &[u32]) -> Manifest {
        Manifest {
            created: Timestamp::from_millis(7),
            size: sizes.iter().map(|size| u64::from(*size)).sum(),
            chunks: sizes
                .iter()
                .enumerate()
                .map(|(i, size)| ([i as u8; 32], *size))
                .collect(),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(sizes in prop::collection::vec(1_u32..1000, 0..20)) {
            let manifest = manifest(&sizes);
            prop_assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
        }

        #[test]
        fn pieces_are_the_range_and_nothing_else(
            sizes in prop::collection::vec(1_u32..9, 1..9),
            a in 0_u64..80,
            b in 0_u64..80,
        ) {
            let manifest = manifest(&sizes);
            let range = a.min(b).min(manifest.size)..a.max(b).min(manifest.size);
            let bytes: Vec<(u8, usize)> = (0..sizes.len())
                .flat_map(|i| (0..sizes[i] as usize).map(move |j| (i as u8, j)))
                .collect();
            let read: Vec<(u8, usize)> = manifest
                .pieces(&range)
                .iter()
                .flat_map(|piece| piece.part.clone().map(|at| (piece.hash[0], at)))
                .collect();
            prop_assert_eq!(read, &bytes[range.start as usize..range.end as usize]);
        }

        #[test]
        fn rubbish_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = Manifest::decode(&bytes);
        }
    }
}
