//! The suite of [`Blobs`].

use super::drive::{Time, for_all};
use crate::blobs::ByteStream;
use crate::{BlobError, BlobId, Blobs};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use holon_base::{Tenant, Timestamp};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Runs the whole suite. `make` makes blobs in a place of their own, since collecting sees all; they live by the
/// time that comes with them, which a suite must be able to drive.
pub fn run<F>(runtime: &Runtime, make: impl Fn() -> F)
where
    F: Future<Output = (Arc<dyn Blobs>, Time)>,
{
    let (blobs, time) = runtime.block_on(make());
    for_all(24, prop::collection::vec(command(), 1..40), |commands| {
        runtime.block_on(any_commands_answer_as_a_map_does(&blobs, &time, commands));
    });
    runtime.block_on(async {
        the_id_is_the_hash_of_the_content(&blobs).await;
        the_same_content_twice_is_kept_once(&*blobs, &time).await;
        an_upload_that_fails_leaves_nothing(&*blobs, &time).await;
        putting_while_collecting_loses_nothing(&blobs, &time).await;
        a_tenant_sees_only_its_own(&*blobs).await;
        a_link_opens_one_blob_until_its_time(&*blobs).await;
        what_makes_no_sense_is_refused(&*blobs).await;
    });
}

const MIB: usize = 1 << 20;
/// Around the sizes at which engines cut.
const SIZES: [usize; 7] = [0, 1, 1_000, MIB - 1, MIB, MIB + 1, 2 * MIB + 7];
const GRACE_UNITS: u32 = 3;

/// Content that depends on its size and a number, and whose first mebibyte only on the number.
fn content(size: usize, number: u8) -> Bytes {
    let byte = |at: usize| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0] ^ number;
    (0..size).map(byte).collect::<Vec<u8>>().into()
}

/// In pieces of odd sizes.
fn stream_of(content: &Bytes) -> ByteStream {
    let mut rest = content.clone();
    let mut pieces = Vec::new();
    let mut size = 1;
    while !rest.is_empty() {
        pieces.push(Ok(rest.split_to(size.min(rest.len()))));
        size = size * 3 + 1;
    }
    stream::iter(pieces).boxed()
}

async fn read(
    blobs: &dyn Blobs,
    tenant: &Tenant,
    id: &BlobId,
    range: Option<std::ops::Range<u64>>,
) -> Result<Vec<u8>, BlobError> {
    let pieces = blobs.read(tenant, id, range).await?;
    let pieces: Vec<Bytes> = pieces.try_collect().await?;
    Ok(pieces.concat())
}

fn tenants() -> [Tenant; 2] {
    [Tenant::default(), Tenant::new("other").unwrap()]
}

#[derive(Debug, Clone)]
enum Command {
    Put {
        tenant: usize,
        size: usize,
        number: u8,
    },
    Info {
        tenant: usize,
        size: usize,
        number: u8,
    },
    Read {
        tenant: usize,
        size: usize,
        number: u8,
        part: Option<(u16, u16)>,
    },
    Hold {
        tenant: usize,
        size: usize,
        number: u8,
        name: u8,
    },
    Release {
        tenant: usize,
        size: usize,
        number: u8,
        name: u8,
    },
    Collect,
    Pass {
        units: u32,
    },
}

fn command() -> impl Strategy<Value = Command> {
    let (tenant, size, number, name) = (0_usize..2, 0..SIZES.len(), 0_u8..2, 0_u8..2);
    let blob = (tenant, size, number);
    let part = any::<Option<(u16, u16)>>();
    prop_oneof![
        4 => blob.clone().prop_map(|(tenant, size, number)| Command::Put { tenant, size, number }),
        2 => blob.clone().prop_map(|(tenant, size, number)| Command::Info { tenant, size, number }),
        4 => (blob.clone(), part).prop_map(
            |((tenant, size, number), part)| Command::Read { tenant, size, number, part }
        ),
        2 => (blob.clone(), name.clone()).prop_map(
            |((tenant, size, number), name)| Command::Hold { tenant, size, number, name }
        ),
        2 => (blob, name).prop_map(
            |((tenant, size, number), name)| Command::Release { tenant, size, number, name }
        ),
        2 => Just(Command::Collect),
        2 => (1_u32..4).prop_map(|units| Command::Pass { units }),
    ]
}

/// A blob in the model.
struct Kept {
    content: Bytes,
    created: Timestamp,
    put: Timestamp,
    /// When it was last put, held or let go.
    used: Timestamp,
    names: BTreeSet<u8>,
}

async fn any_commands_answer_as_a_map_does(blobs: &Arc<dyn Blobs>, time: &Time, commands: Vec<Command>) {
    let tenants = tenants();
    let grace = time.units(GRACE_UNITS);
    // What other cases left must not be here.
    forget_everything(&**blobs, time).await;
    let mut model: HashMap<(usize, BlobId), Kept> = HashMap::new();
    let mut ids: HashMap<(usize, u8), BlobId> = HashMap::new();
    let unknown = BlobId([7; 32]);
    for command in commands {
        let id_of = |size: usize, number: u8| ids.get(&(size, number)).copied().unwrap_or(unknown);
        let now = time.now();
        match command {
            Command::Put { tenant, size, number } => {
                let content = content(SIZES[size], number);
                let info = blobs.put(&tenants[tenant], stream_of(&content)).await.unwrap();
                ids.insert((size, number), info.id);
                let kept = model.entry((tenant, info.id)).or_insert_with(|| Kept {
                    content: content.clone(),
                    created: info.created,
                    put: now,
                    used: now,
                    names: BTreeSet::new(),
                });
                (kept.put, kept.used) = (now, now);
                assert_eq!((info.size, info.created), (content.len() as u64, kept.created));
            }
            Command::Info { tenant, size, number } => {
                let id = id_of(size, number);
                let info = blobs.info(&tenants[tenant], &id).await.unwrap();
                let kept = model.get(&(tenant, id));
                assert_eq!(
                    info.map(|info| (info.id, info.size, info.created)),
                    kept.map(|kept| (id, kept.content.len() as u64, kept.created))
                );
            }
            Command::Read {
                tenant,
                size,
                number,
                part,
            } => {
                let id = id_of(size, number);
                // Ends a little beyond the end, too.
                let scale = |at: u16| u64::from(at) * (SIZES[size] as u64 + 2) / u64::from(u16::MAX);
                let range = part.map(|(from, to)| scale(from)..scale(to));
                let answer = read(&**blobs, &tenants[tenant], &id, range.clone()).await;
                let Some(kept) = model.get(&(tenant, id)) else {
                    assert_eq!(answer, Err(BlobError::NotFound(id)));
                    continue;
                };
                let size = kept.content.len() as u64;
                let range = range.unwrap_or(0..size);
                if range.start > range.end || range.end > size {
                    assert_eq!(answer, Err(BlobError::Range { size }));
                } else {
                    let expected = &kept.content[range.start as usize..range.end as usize];
                    assert!(answer.unwrap() == expected, "{range:?} of {size}");
                }
            }
            Command::Hold {
                tenant,
                size,
                number,
                name,
            } => {
                let id = id_of(size, number);
                let answer = blobs.hold(&tenants[tenant], &id, &format!("name-{name}")).await;
                match model.get_mut(&(tenant, id)) {
                    Some(kept) => {
                        answer.unwrap();
                        kept.names.insert(name);
                        kept.used = now;
                    }
                    None => assert_eq!(answer, Err(BlobError::NotFound(id))),
                }
            }
            Command::Release {
                tenant,
                size,
                number,
                name,
            } => {
                let id = id_of(size, number);
                blobs
                    .release(&tenants[tenant], &id, &format!("name-{name}"))
                    .await
                    .unwrap();
                if let Some(kept) = model.get_mut(&(tenant, id)) {
                    kept.names.remove(&name);
                    kept.used = now;
                }
            }
            Command::Collect => {
                let collected = blobs.collect(grace).await.unwrap();
                let before = now.minus(grace);
                let mut gone = Vec::new();
                for ((tenant, id), kept) in &model {
                    let is_there = blobs.info(&tenants[*tenant], id).await.unwrap().is_some();
                    if !kept.names.is_empty() || kept.put > before {
                        assert!(is_there, "collected though held or young");
                    } else if kept.used < before {
                        assert!(!is_there, "kept though nobody has wanted it for long");
                    }
                    if !is_there {
                        gone.push((*tenant, *id));
                    }
                }
                for key in &gone {
                    model.remove(key);
                }
                assert_eq!(collected.blobs, gone.len() as u64);
            }
            Command::Pass { units } => time.pass(time.units_and_half(units)).await,
        }
    }
    // What the model still has is whole, and lets go of its names for the next case.
    for ((tenant, id), kept) in &model {
        let whole = read(&**blobs, &tenants[*tenant], id, None).await.unwrap();
        assert!(whole == kept.content);
        for name in &kept.names {
            blobs
                .release(&tenants[*tenant], id, &format!("name-{name}"))
                .await
                .unwrap();
        }
    }
}

/// Collects everything that is not held.
async fn forget_everything(blobs: &dyn Blobs, time: &Time) {
    let grace = time.units(GRACE_UNITS);
    // A blob must be old before it goes, and a chunk after it.
    for _ in 0..2 {
        time.pass(grace * 2).await;
        blobs.collect(grace).await.unwrap();
    }
}

async fn the_id_is_the_hash_of_the_content(blobs: &Arc<dyn Blobs>) {
    // The SHA-256 of "abc" and of nothing, from FIPS 180-2 and its test vectors.
    let known = [
        (
            "abc",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            "",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ),
    ];
    for (text, hash) in known {
        let content = Bytes::from_static(text.as_bytes());
        let info = blobs.put(&Tenant::default(), stream_of(&content)).await.unwrap();
        assert_eq!(info.id.to_string(), hash);
    }
}

async fn the_same_content_twice_is_kept_once(blobs: &dyn Blobs, time: &Time) {
    forget_everything(blobs, time).await;
    let [one, two] = tenants();
    let grace = time.units(GRACE_UNITS);
    let content = content(2 * MIB + 7, 9);
    let first = blobs.put(&one, stream_of(&content)).await.unwrap();
    let second = blobs.put(&two, stream_of(&content)).await.unwrap();
    assert_eq!(first.id, second.id);
    blobs.hold(&two, &second.id, "kept").await.unwrap();
    time.pass(grace * 2).await;
    let collected = blobs.collect(grace).await.unwrap();
    assert_eq!(
        (collected.blobs, collected.chunks),
        (1, 0),
        "the other still has the chunks"
    );
    assert!(read(blobs, &two, &second.id, None).await.unwrap() == content);
    blobs.release(&two, &second.id, "kept").await.unwrap();
    let mut bytes = 0;
    for _ in 0..2 {
        time.pass(grace * 2).await;
        bytes += blobs.collect(grace).await.unwrap().bytes;
    }
    assert_eq!(bytes, content.len() as u64);
}

async fn an_upload_that_fails_leaves_nothing(blobs: &dyn Blobs, time: &Time) {
    forget_everything(blobs, time).await;
    let tenant = Tenant::default();
    let whole = content(3 * MIB, 11);
    let failure = BlobError::Unavailable("the line was cut".into());
    let cut: ByteStream = stream::iter([Ok(whole.slice(..2 * MIB + 5)), Err(failure.clone())]).boxed();
    assert_eq!(blobs.put(&tenant, cut).await, Err(failure));
    let grace = time.units(GRACE_UNITS);
    let mut bytes = 0;
    for _ in 0..2 {
        time.pass(grace * 2).await;
        bytes += blobs.collect(grace).await.unwrap().bytes;
    }
    assert!(bytes <= 2 * MIB as u64 + 5, "{bytes} bytes");
    let info = blobs.put(&tenant, stream_of(&whole)).await.unwrap();
    assert!(read(blobs, &tenant, &info.id, None).await.unwrap() == whole);
}

/// Blobs made of chunks that are just being collected.
async fn putting_while_collecting_loses_nothing(blobs: &Arc<dyn Blobs>, time: &Time) {
    let tenant = Tenant::default();
    let grace = time.units(GRACE_UNITS);
    let content = content(2 * MIB + 7, 13);
    for round in 0..12 {
        blobs.put(&tenant, stream_of(&content)).await.unwrap();
        // Old enough to be collected: the blob in even rounds, its chunks (whose blob is gone) in odd ones.
        time.pass(grace * 2).await;
        if round % 2 == 1 {
            blobs.collect(grace).await.unwrap();
        }
        let collecting = tokio::spawn({
            let blobs = Arc::clone(blobs);
            async move { blobs.collect(grace).await.unwrap() }
        });
        let putting = tokio::spawn({
            let (blobs, tenant, content) = (Arc::clone(blobs), tenant.clone(), content.clone());
            async move { blobs.put(&tenant, stream_of(&content)).await.unwrap() }
        });
        let info = putting.await.unwrap();
        collecting.await.unwrap();
        blobs.collect(grace).await.unwrap();
        assert!(
            read(&**blobs, &tenant, &info.id, None).await.unwrap() == content,
            "round {round}"
        );
    }
}

async fn a_tenant_sees_only_its_own(blobs: &dyn Blobs) {
    let [one, two] = tenants();
    let content = Bytes::from_static(b"of the first tenant");
    let id = blobs.put(&one, stream_of(&content)).await.unwrap().id;
    assert_eq!(blobs.info(&two, &id).await, Ok(None));
    assert_eq!(read(blobs, &two, &id, None).await, Err(BlobError::NotFound(id)));
    assert_eq!(blobs.hold(&two, &id, "name").await, Err(BlobError::NotFound(id)));
}

async fn a_link_opens_one_blob_until_its_time(blobs: &dyn Blobs) {
    let [one, two] = tenants();
    let id = BlobId([0xab; 32]);
    let until = Timestamp::from_millis(1_800_000_000_000);
    let link = blobs.presign(&one, &id, until);
    let before = until.minus(Duration::from_millis(1));
    assert_eq!(blobs.verify(&link, before), Ok((one.clone(), id)));
    assert_eq!(blobs.verify(&link, until), Err(BlobError::Forbidden));
    assert_ne!(link, blobs.presign(&two, &id, until));
    for at in 0..link.len() {
        let mut changed = link.clone().into_bytes();
        changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
        let changed = String::from_utf8(changed).unwrap();
        assert_eq!(
            blobs.verify(&changed, before),
            Err(BlobError::Forbidden),
            "{changed}"
        );
        assert_eq!(blobs.verify(&link[..at], before), Err(BlobError::Forbidden));
    }
}

async fn what_makes_no_sense_is_refused(blobs: &dyn Blobs) {
    let tenant = Tenant::default();
    let id = blobs
        .put(&tenant, stream_of(&Bytes::from_static(b"here")))
        .await
        .unwrap()
        .id;
    for name in ["", &"x".repeat(10_000)] {
        assert!(matches!(
            blobs.hold(&tenant, &id, name).await,
            Err(BlobError::Invalid(_))
        ));
    }
    let backwards = Some(std::ops::Range { start: 3, end: 1 });
    assert_eq!(
        read(blobs, &tenant, &id, backwards).await,
        Err(BlobError::Range { size: 4 })
    );
}
