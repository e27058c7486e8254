//! Blobs and leases over the embedded store: the suites, and what the suites cannot know.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use holon_base::{Clock, ManualClock, Tenant, Timestamp};
use holon_embedded::{Engine, EngineOptions};
use holon_ports::conformance::{self, drive::Time};
use holon_ports::{BlobError, BlobId, Blobs, Fence, LeaseError};
use std::path::{Path, PathBuf};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const MIB: usize = 1 << 20;

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_millis(1_800_000_000_000))
}

async fn open(directory: &Path, clock: &ManualClock) -> Engine {
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    Engine::open(EngineOptions::new(directory).clock(clock))
        .await
        .unwrap()
}

#[test]
fn leases_keep_their_promises() {
    let runtime = Runtime::new().unwrap();
    let directory = TempDir::new().unwrap();
    let clock = clock();
    let engine = runtime.block_on(open(directory.path(), &clock));
    conformance::leases::run(&runtime, || async {
        (Arc::clone(&engine.ports().leases), Time::Manual(clock.clone()))
    });
}

#[test]
fn blobs_keep_their_promises() {
    let runtime = Runtime::new().unwrap();
    let directory = TempDir::new().unwrap();
    let clock = clock();
    let engine = runtime.block_on(open(directory.path(), &clock));
    conformance::blobs::run(&runtime, || async {
        (Arc::clone(&engine.ports().blobs), Time::Manual(clock.clone()))
    });
}

#[tokio::test]
async fn fences_grow_across_restarts() {
    let directory = TempDir::new().unwrap();
    let clock = clock();
    let minute = Duration::from_secs(60);
    let mut last = Fence(0);
    for round in 0..3 {
        let engine = open(directory.path(), &clock).await;
        let leases = engine.ports().leases;
        let lease = leases.acquire("leader", "node-1", minute).await.unwrap();
        assert!(lease.fence > last, "round {round}");
        last = lease.fence;
        if round == 0 {
            leases.release(&lease).await.unwrap();
        } else {
            clock.advance(minute);
        }
        engine.close().await;
    }
    let engine = open(directory.path(), &clock).await;
    let leases = engine.ports().leases;
    let held = leases.acquire("leader", "node-2", minute).await.unwrap();
    engine.close().await;
    let engine = open(directory.path(), &clock).await;
    let leases = engine.ports().leases;
    assert_eq!(leases.current("leader").await, Ok(Some(held)));
    let other = leases.acquire("leader", "node-3", minute).await;
    assert!(matches!(other, Err(LeaseError::Held { .. })));
}

async fn put(blobs: &dyn Blobs, content: &[u8]) -> BlobId {
    let pieces = stream::iter([Ok(Bytes::copy_from_slice(content))]).boxed();
    blobs.put(&Tenant::default(), pieces).await.unwrap().id
}

async fn read(blobs: &dyn Blobs, id: &BlobId) -> Result<Vec<u8>, BlobError> {
    let pieces = blobs.read(&Tenant::default(), id, None).await?;
    let pieces: Vec<Bytes> = pieces.try_collect().await?;
    Ok(pieces.concat())
}

/// The files of all chunks, by size.
fn chunk_files(directory: &Path) -> Vec<(u64, PathBuf)> {
    let mut files = Vec::new();
    for folder in std::fs::read_dir(directory.join("blobs/chunks")).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let file = file.unwrap();
            files.push((file.metadata().unwrap().len(), file.path()));
        }
    }
    files.sort();
    files
}

fn noise(size: usize) -> Vec<u8> {
    (0..size as u32)
        .map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect()
}

#[tokio::test]
async fn blobs_survive_a_restart_and_are_one_file_a_chunk() {
    let directory = TempDir::new().unwrap();
    let clock = clock();
    let content = noise(2 * MIB + 100);
    let engine = open(directory.path(), &clock).await;
    let id = put(&*engine.ports().blobs, &content).await;
    put(&*engine.ports().blobs, &content[..MIB]).await;
    engine.close().await;
    let engine = open(directory.path(), &clock).await;
    assert!(read(&*engine.ports().blobs, &id).await.unwrap() == content);
    let files = chunk_files(directory.path());
    let sizes: Vec<u64> = files.iter().map(|(size, _)| *size).collect();
    assert_eq!(
        sizes,
        [100, MIB as u64, MIB as u64],
        "the shared chunk is kept once"
    );
}

#[tokio::test]
async fn a_damaged_chunk_is_found_when_it_is_read() {
    let directory = TempDir::new().unwrap();
    let engine = open(directory.path(), &clock()).await;
    let blobs = engine.ports().blobs;
    let content = noise(MIB + 100);
    let id = put(&*blobs, &content).await;
    let (_, last_chunk) = chunk_files(directory.path()).remove(0);
    let mut bytes = std::fs::read(&last_chunk).unwrap();
    bytes[50] ^= 1;
    std::fs::write(&last_chunk, &bytes).unwrap();
    // What is before the damage arrives; then the stream ends with the error.
    let mut pieces = blobs.read(&Tenant::default(), &id, None).await.unwrap();
    assert!(pieces.next().await.unwrap().unwrap() == content[..MIB]);
    assert!(matches!(pieces.next().await, Some(Err(BlobError::Corrupt(_)))));
    assert!(pieces.next().await.is_none());
    std::fs::remove_file(&last_chunk).unwrap();
    assert!(matches!(read(&*blobs, &id).await, Err(BlobError::Corrupt(_))));
}

#[tokio::test]
async fn what_a_crash_left_is_collected() {
    let directory = TempDir::new().unwrap();
    let clock = clock();
    let engine = open(directory.path(), &clock).await;
    let blobs = engine.ports().blobs;
    let id = put(&*blobs, b"kept").await;
    blobs.hold(&Tenant::default(), &id, "name").await.unwrap();
    let (_, kept) = chunk_files(directory.path()).remove(0);
    // A second writing of the same chunk whose row was never written, and one of another chunk.
    let name = kept.file_name().unwrap().to_str().unwrap().to_owned();
    let (hash, _) = name.split_once('-').unwrap();
    std::fs::write(kept.with_file_name(format!("{hash}-0000000000000001")), b"kept").unwrap();
    let other = format!("{}-0000000000000002", "0".repeat(hash.len()));
    std::fs::write(kept.with_file_name(other), b"other").unwrap();
    blobs.collect(Duration::from_secs(3_600)).await.unwrap();
    assert_eq!(
        chunk_files(directory.path()).len(),
        3,
        "they may belong to an upload"
    );
    let collected = blobs.collect(Duration::ZERO).await.unwrap();
    assert_eq!((collected.blobs, collected.chunks), (0, 0));
    assert_eq!(chunk_files(directory.path()), [(4, kept)]);
    assert_eq!(read(&*blobs, &id).await.unwrap(), b"kept");
}
