//! Blobs in a directory and on a real S3 server: the suite on both, and what the suite cannot know.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use holon_base::{Clock, ManualClock, SystemClock, Tenant, Timestamp};
use holon_embedded::{Engine, EngineOptions};
use holon_objects::{ObjectBlobs, S3_CHUNK_BYTES, S3Options};
use holon_ports::conformance::{self, drive::Time};
use holon_ports::{BlobError, BlobId, Blobs};
use holon_testkit::{PATIENCE, S3Server, eventually};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::{ops::Range, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const MIB: usize = 1 << 20;
const SECRET: [u8; 32] = [7; 32];

/// A store for the rows.
struct Rows {
    engine: Engine,
    _directory: TempDir,
}

async fn rows(clock: Arc<dyn Clock>) -> Rows {
    let directory = TempDir::new().unwrap();
    let engine = Engine::open(EngineOptions::new(directory.path()).clock(clock))
        .await
        .unwrap();
    Rows {
        engine,
        _directory: directory,
    }
}

fn options(server: &S3Server) -> S3Options {
    S3Options {
        prefix: "deployment/one".into(),
        ..S3Options::new(
            server.endpoint(),
            server.bucket(),
            "us-east-1",
            server.access_key_id(),
            server.secret_access_key(),
        )
    }
}

fn node(options: &S3Options, rows: &Rows) -> ObjectBlobs {
    let store = rows.engine.ports().store;
    ObjectBlobs::s3(options, store, SECRET, Arc::new(SystemClock)).unwrap()
}

#[test]
fn a_directory_keeps_the_promises() {
    let runtime = Runtime::new().unwrap();
    let clock = ManualClock::new(Timestamp::from_millis(1_800_000_000_000));
    let rows = runtime.block_on(rows(Arc::new(clock.clone())));
    let directory = TempDir::new().unwrap();
    conformance::blobs::run(&runtime, || async {
        let (store, its_clock) = (rows.engine.ports().store, Arc::new(clock.clone()));
        let blobs = ObjectBlobs::directory(directory.path(), store, SECRET, its_clock).unwrap();
        (Arc::new(blobs) as Arc<dyn Blobs>, Time::Manual(clock.clone()))
    });
}

#[test]
fn s3_keeps_the_promises() {
    let runtime = Runtime::new().unwrap();
    let clock = ManualClock::new(Timestamp::from_millis(1_800_000_000_000));
    let (rows, server) =
        runtime.block_on(async { (rows(Arc::new(clock.clone())).await, S3Server::start().await) });
    conformance::blobs::run(&runtime, || async {
        let (store, its_clock) = (rows.engine.ports().store, Arc::new(clock.clone()));
        let blobs = ObjectBlobs::s3(&options(&server), store, SECRET, its_clock).unwrap();
        (Arc::new(blobs) as Arc<dyn Blobs>, Time::Manual(clock.clone()))
    });
}

fn noise(size: usize, number: u8) -> Bytes {
    let byte = |at: u32| at.wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ (at >> 20) as u8 ^ number;
    (0..size as u32).map(byte).collect::<Vec<u8>>().into()
}

async fn put(blobs: &dyn Blobs, content: &Bytes) -> Result<BlobId, BlobError> {
    let pieces: Vec<_> = content
        .chunks(100_000)
        .map(Bytes::copy_from_slice)
        .map(Ok)
        .collect();
    let info = blobs
        .put(&Tenant::default(), stream::iter(pieces).boxed())
        .await?;
    Ok(info.id)
}

async fn read(blobs: &dyn Blobs, id: &BlobId, range: Option<Range<u64>>) -> Result<Vec<u8>, BlobError> {
    let pieces = blobs.read(&Tenant::default(), id, range).await?;
    let pieces: Vec<Bytes> = pieces.try_collect().await?;
    Ok(pieces.concat())
}

/// The status and body of a GET without any credential.
async fn fetch(url: &str) -> (u16, Bytes) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let answer = client.get(url.parse().unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_takes_large_blobs_from_many_nodes_and_survives_being_killed() {
    let rows = rows(Arc::new(SystemClock)).await;
    let mut server = S3Server::start().await;
    let options = S3Options {
        retry: Duration::from_secs(1),
        ..options(&server)
    };
    let (one, two) = (node(&options, &rows), node(&options, &rows));
    one.check().await.unwrap();
    let tenant = Tenant::default();

    // Two nodes put the same content at once: both have it, and it is kept once.
    let content = noise(3 * S3_CHUNK_BYTES + MIB + 7, 1);
    let (first, second) = tokio::join!(put(&one, &content), put(&two, &content));
    let id = first.unwrap();
    assert_eq!(second, Ok(id));
    one.hold(&tenant, &id, "kept").await.unwrap();
    let collected = two.collect(Duration::ZERO).await.unwrap();
    assert_eq!((collected.blobs, collected.chunks, collected.bytes), (0, 0, 0));
    assert_eq!(two.info(&tenant, &id).await.unwrap().unwrap().chunks, 4);

    // Ranges within, across and at the end of chunks.
    let (cut, size) = (S3_CHUNK_BYTES as u64, content.len() as u64);
    for range in [
        0..1,
        10..20,
        cut - 1..cut + 1,
        cut..2 * cut,
        5..size - 5,
        size - 1..size,
        size..size,
    ] {
        let expected = &content[range.start as usize..range.end as usize];
        assert!(
            read(&two, &id, Some(range.clone())).await.unwrap() == expected,
            "{range:?}"
        );
    }

    // An upload that is cut off after some chunks leaves what a collection takes away.
    let broken = noise(3 * S3_CHUNK_BYTES, 2);
    let cut_off = BlobError::Unavailable("the line was cut".into());
    let pieces = vec![Ok(broken.slice(..2 * S3_CHUNK_BYTES + 5)), Err(cut_off.clone())];
    assert_eq!(one.put(&tenant, stream::iter(pieces).boxed()).await, Err(cut_off));
    let collected = two.collect(Duration::ZERO).await.unwrap();
    assert!(collected.bytes <= 2 * S3_CHUNK_BYTES as u64, "{collected:?}");
    assert!(put(&one, &broken).await.is_ok(), "it can be put after all");

    // S3 itself serves what is one object, until the time is over, and nothing else under that link.
    let small = noise(100_000, 3);
    let small_id = put(&one, &small).await.unwrap();
    let link = two
        .direct(&tenant, &small_id, Duration::from_secs(60))
        .await
        .unwrap()
        .unwrap();
    assert!(link.starts_with(&server.endpoint()), "{link}");
    assert!(fetch(&link).await == (200, small.clone()));
    let forged = link.replace("X-Amz-Expires=60", "X-Amz-Expires=61");
    assert_ne!(forged, link);
    assert_eq!(fetch(&forged).await.0, 403);
    let (bare, _) = link.split_once('?').unwrap();
    assert_eq!(fetch(bare).await.0, 403);
    let brief = two
        .direct(&tenant, &small_id, Duration::from_secs(1))
        .await
        .unwrap()
        .unwrap();
    eventually("a link to run out", PATIENCE, || async {
        (fetch(&brief).await.0 == 403).then_some(())
    })
    .await;
    assert_eq!(
        two.direct(&tenant, &id, Duration::from_secs(60)).await,
        Ok(None),
        "four objects"
    );
    let nothing = BlobId([9; 32]);
    let no_link = two.direct(&tenant, &nothing, Duration::from_secs(60)).await;
    assert_eq!(no_link, Err(BlobError::NotFound(nothing)));

    // Killed, it is away, and says no more than that; started again, everything is there.
    server.kill().await;
    let away = read(&one, &id, None).await.unwrap_err();
    assert_eq!(
        away,
        BlobError::Unavailable("object store: a request failed".into())
    );
    assert!(put(&one, &noise(10, 4)).await.is_err());
    server.restart().await;
    eventually("all content to be read", PATIENCE, || async {
        (read(&one, &id, None).await.ok()? == content).then_some(())
    })
    .await;

    // Let go, everything goes.
    one.release(&tenant, &id, "kept").await.unwrap();
    let collected = one.collect(Duration::ZERO).await.unwrap();
    assert_eq!(collected.blobs, 3);
    assert_eq!(read(&two, &id, None).await, Err(BlobError::NotFound(id)));
}

#[tokio::test]
async fn s3_refuses_strangers_and_options_refuse_nonsense() {
    let rows = rows(Arc::new(SystemClock)).await;
    let server = S3Server::start().await;
    let stranger = S3Options {
        secret_access_key: "another-secret".into(),
        ..options(&server)
    };
    assert!(!format!("{stranger:?}").contains("another-secret"));
    let refused = node(&stranger, &rows).check().await;
    assert_eq!(
        refused,
        Err(BlobError::Unavailable(
            "object store: it does not let us in".into()
        ))
    );
    let homeless = S3Options {
        bucket: "no-such-bucket".into(),
        ..options(&server)
    };
    assert!(node(&homeless, &rows).check().await.is_err());
    for prefix in ["a//b", "a b", "ü"] {
        let nonsense = S3Options {
            prefix: prefix.into(),
            ..options(&server)
        };
        let store = rows.engine.ports().store;
        let refused = ObjectBlobs::s3(&nonsense, store, SECRET, Arc::new(SystemClock));
        assert!(matches!(refused.err(), Some(BlobError::Invalid(_))), "{prefix}");
    }
    let encrypted = S3Options {
        endpoint: "https://127.0.0.1:1".into(),
        ..options(&server)
    };
    let store = rows.engine.ports().store;
    let refused = ObjectBlobs::s3(&encrypted, store, SECRET, Arc::new(SystemClock));
    assert!(
        matches!(refused.err(), Some(BlobError::Invalid(_))),
        "TLS is not built in"
    );
}
