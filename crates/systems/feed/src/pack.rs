//! Packs: the rows of a timeline. No I/O.
//!
//! A pack is what was pushed to a timeline at once, newest first, in one row that is named by the newest. One post pushed
//! by itself is a pack of one; when the fan-out has much to do, the posts of a batch for one reader are one pack, so
//! the more there is to do, the less each entry costs. A back-fill is one pack.
//!
//! Packs overlap: a post of one may be older than the newest of the next. In the order of their names they are read
//! until enough is *settled*: what is not older than the name of the last pack read cannot be preceded by anything in
//! a pack that was not read.

use crate::model::Entry;
use bytes::{BufMut, Bytes, BytesMut};
use holon_base::Id;
use holon_ports::StoreError;

/// Entries of one pack at most: far below the limit on a row.
pub const PACK_ENTRIES: usize = 1_000;

/// Who made a pack. Two packs of one timeline may have the same newest post, but not from the same source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The fan-out of a partition of the log. Should it make a pack again after a crash, it makes it from the events
    /// since its last offset, so that what a larger pack of the same name held is in packs that were made meanwhile.
    Fanout(u16),
    /// The back-fill of an author.
    Backfill(Id),
    Rebuild,
}

/// The sort key of a pack: after the meta row, newest first.
pub fn pack_sort(newest: Id, source: Source) -> Bytes {
    let mut sort = BytesMut::with_capacity(18);
    sort.put_u8(1);
    sort.put_u64(!newest.as_u64());
    match source {
        Source::Fanout(partition) => {
            sort.put_u8(0);
            sort.put_u16(partition);
        }
        Source::Backfill(author) => {
            sort.put_u8(1);
            sort.put_u64(author.as_u64());
        }
        Source::Rebuild => sort.put_u8(2),
    }
    sort.freeze()
}

/// The name of a pack: nothing in it is newer. `None` for the meta row.
///
/// # Errors
/// [`StoreError::Corrupt`] if the sort key is neither.
pub fn pack_newest(sort: &[u8]) -> Result<Option<Id>, StoreError> {
    match sort {
        [0] => Ok(None),
        [1, name @ ..] => {
            let newest = name.first_chunk().map(|bytes| !u64::from_be_bytes(*bytes));
            newest
                .map(|newest| Some(Id::from_u64(newest)))
                .ok_or_else(damaged)
        }
        _ => Err(damaged()),
    }
}

fn damaged() -> StoreError {
    StoreError::Corrupt("a row of a timeline is no pack".into())
}

/// Writes a pack.
pub fn encode<'a>(entries: impl Iterator<Item = (Id, &'a Entry)>) -> Bytes {
    let mut pack = BytesMut::with_capacity(entries.size_hint().0 * 17);
    for (id, entry) in entries {
        pack.put_u64(id.as_u64());
        entry.write(&mut pack);
    }
    pack.freeze()
}

/// Reads a pack onto the end of `entries`.
///
/// # Errors
/// [`StoreError::Corrupt`] if the bytes are no pack.
pub fn decode(mut pack: &[u8], entries: &mut Vec<(Id, Entry)>) -> Result<(), StoreError> {
    while let Some((id, rest)) = pack.split_first_chunk() {
        let (entry, rest) = Entry::read(rest)?;
        entries.push((Id::from_u64(u64::from_be_bytes(*id)), entry));
        pack = rest;
    }
    if pack.is_empty() { Ok(()) } else { Err(damaged()) }
}

/// The settled part of the packs read so far.
#[derive(Debug, Default)]
pub struct Settled {
    entries: Vec<(Id, Entry)>,
    /// The name of the last pack.
    last: Option<Id>,
}

impl Settled {
    /// Adds the next pack.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is none.
    pub fn add(&mut self, newest: Id, pack: &[u8]) -> Result<(), StoreError> {
        self.last = Some(newest);
        decode(pack, &mut self.entries)
    }

    /// How many entries below `before` are settled; some may be double.
    pub fn count(&self, before: Id) -> usize {
        let Some(last) = self.last else { return 0 };
        let is_settled = |id: Id| id < before && id >= last;
        self.entries.iter().filter(|(id, _)| is_settled(*id)).count()
    }

    /// The settled entries between `floor` and `before` (both excluded), newest first, each once, and whether there
    /// may be more of them. `all` says that no pack is left to read.
    pub fn finish(self, floor: Id, before: Id, all: bool) -> (Vec<(Id, Entry)>, bool) {
        let Self { mut entries, last } = self;
        let settled = match last {
            Some(last) if !all => last,
            _ => Id::MIN,
        };
        entries.retain(|(id, _)| *id < before && *id > floor && *id >= settled);
        entries.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        entries.dedup_by_key(|(id, _)| *id);
        (entries, !all && settled > floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, META_SORT, PostRef};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn entry(id: u64) -> Entry {
        let target = PostRef {
            id: Id::from_u64(id / 2),
            author: Id::from_u64(7),
        };
        Entry {
            author: Id::from_u64(id % 5),
            kind: if id.is_multiple_of(3) {
                Kind::Repost
            } else {
                Kind::Post
            },
            target: id.is_multiple_of(3).then_some(target),
        }
    }

    fn pack(ids: &BTreeSet<u64>) -> (Id, Bytes) {
        let entries: Vec<_> = ids
            .iter()
            .rev()
            .map(|id| (Id::from_u64(*id), entry(*id)))
            .collect();
        (
            entries[0].0,
            encode(entries.iter().map(|(id, entry)| (*id, entry))),
        )
    }

    proptest! {
        #[test]
        fn what_is_settled_is_the_start_of_the_whole(
            packs in prop::collection::vec(prop::collection::btree_set(1..60_u64, 1..8), 0..12),
            read in 0..13_usize,
            floor in 0..60_u64,
            before in 1..70_u64,
        ) {
            let mut sorted: Vec<_> = packs.iter().map(pack).collect();
            sorted.sort_by_key(|pack| std::cmp::Reverse(pack.0));
            let read = read.min(sorted.len());
            let mut settled = Settled::default();
            for (newest, bytes) in &sorted[..read] {
                settled.add(*newest, bytes).unwrap();
            }
            let whole: BTreeSet<u64> = packs.iter().flatten().copied().filter(|id| *id > floor && *id < before).collect();
            let whole: Vec<u64> = whole.into_iter().rev().collect();
            let (entries, more) = settled.finish(Id::from_u64(floor), Id::from_u64(before), read == sorted.len());
            let ids: Vec<u64> = entries.iter().map(|(id, _)| id.as_u64()).collect();
            prop_assert!(whole.starts_with(&ids), "{:?} does not start {:?}", ids, whole);
            prop_assert!(more || ids.len() == whole.len() || read == 0);
            for (id, found) in entries {
                prop_assert_eq!(found, entry(id.as_u64()));
            }
        }

        #[test]
        fn rubbish_is_an_error(bytes: Vec<u8>) {
            let _ = decode(&bytes, &mut Vec::new());
            let _ = pack_newest(&bytes);
        }

        #[test]
        fn packs_are_newest_first_after_the_meta_row(a: u64, b: u64, partition: u16) {
            let name = |id| pack_sort(Id::from_u64(id), Source::Fanout(partition));
            prop_assert_eq!(name(a).cmp(&name(b)), b.cmp(&a));
            prop_assert!(META_SORT < &name(a)[..]);
            prop_assert_eq!(pack_newest(&name(a)), Ok(Some(Id::from_u64(a))));
            prop_assert!(name(a) != pack_sort(Id::from_u64(a), Source::Backfill(Id::from_u64(b))));
        }
    }
}
