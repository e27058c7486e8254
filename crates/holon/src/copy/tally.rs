//! Checksums by which two homes are compared.
//!
//! Homes give their rows in different orders, so the checksum of many records is the sum of their SHA-256 modulo 2^256
//! (Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997: sums of hashes; against accidents, which
//! is what is looked for here, that is far more than needed). The rows of a table are summed by ranges, a partition
//! always in the same one, so that what differs is found.

use super::{CopyError, record::Record};
use holon_ports::log::partition_of;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Into how many ranges the partitions of a table are divided.
pub const RANGES: u16 = 16;

/// How many records, and their checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub records: u64,
    pub bytes: u64,
    checksum: [u64; 4],
}

impl Sum {
    fn add(&mut self, encoded: &[u8]) {
        let hash = Sha256::digest(encoded);
        let mut checksum = [0; 4];
        for (word, bytes) in checksum.iter_mut().zip(hash.chunks_exact(8)) {
            *word = bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        self.merge(&Self {
            records: 1,
            bytes: encoded.len() as u64,
            checksum,
        });
    }

    /// Adds the other's records to these; the lowest word of a checksum comes first.
    fn merge(&mut self, other: &Self) {
        let mut carry = false;
        for (word, part) in self.checksum.iter_mut().zip(other.checksum) {
            let (sum, over) = word.overflowing_add(part);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            (*word, carry) = (sum, over || over_again);
        }
        self.records += other.records;
        self.bytes += other.bytes;
    }

    /// The checksum, as much of it as people compare.
    pub fn short(&self) -> String {
        format!("{:016x}", self.checksum[0])
    }
}

/// The first events of partitions that count, by topic and partition. What retention drops, it drops at its own time in
/// each home.
pub type Floors = BTreeMap<(String, u16), u64>;

/// The checksums of a whole home, by part: `feed.posts, range 3 of 16`, and so on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub parts: BTreeMap<String, Sum>,
}

impl Tally {
    /// Takes a record in, under its part, but for events below the floors. What every home has of its own does not
    /// count.
    pub fn add_above(&mut self, floors: &Floors, record: &Record) -> Result<(), CopyError> {
        if let Record::Event { topic, event } = record {
            let floor = floors.get(&(topic.to_string(), event.position.partition));
            if floor.is_some_and(|floor| event.position.offset < *floor) {
                return Ok(());
            }
        }
        self.add(record)
    }

    /// Takes a record in, under its part.
    pub fn add(&mut self, record: &Record) -> Result<(), CopyError> {
        let part = match record {
            Record::Head(_) | Record::Table(_) | Record::Fence { .. } | Record::File { .. } => return Ok(()),
            Record::Secret { .. } => "secrets".to_owned(),
            Record::Row { table, partition, .. } => {
                let range = partition_of(&partition.tenant, &partition.entity, RANGES);
                format!("table {table}, range {:02} of {RANGES}", range + 1)
            }
            Record::Topic(topic) => {
                // What retention drops, it drops at its own time in each home.
                for (partition, (_, next)) in topic.bounds.iter().enumerate() {
                    let part = format!("topic {}, end of partition {partition:02}", topic.name);
                    self.parts.entry(part).or_default().add(&next.to_be_bytes());
                }
                return Ok(());
            }
            Record::Event { topic, event } => {
                format!("topic {topic}, partition {:02}", event.position.partition)
            }
            Record::Group(group) => format!("group {} of {}", group.group, group.topic),
            Record::Letter { group, topic, letter } => {
                // Each home numbers them itself.
                let mut same = record.clone();
                if let Record::Letter { letter, .. } = &mut same {
                    letter.number = 0;
                }
                let part = format!("dead letters of {group} in {topic}");
                let mut encoded = Vec::with_capacity(letter.event.data.len() + 512);
                same.encode(&mut encoded)?;
                self.parts.entry(part).or_default().add(&encoded);
                return Ok(());
            }
            Record::Chunk { .. } => "chunks of blobs".to_owned(),
        };
        let mut encoded = Vec::with_capacity(512);
        record.encode(&mut encoded)?;
        self.parts.entry(part).or_default().add(&encoded);
        Ok(())
    }

    /// What is not the same in the other, a line each.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let nothing = Sum::default();
        let names: std::collections::BTreeSet<&String> =
            self.parts.keys().chain(other.parts.keys()).collect();
        let differing = names.into_iter().filter_map(|name| {
            let (one, two) = (
                self.parts.get(name).unwrap_or(&nothing),
                other.parts.get(name).unwrap_or(&nothing),
            );
            (one != two).then(|| {
                format!(
                    "{name}: {} records with checksum {} here, {} with {} there",
                    one.records,
                    one.short(),
                    two.records,
                    two.short()
                )
            })
        });
        differing.collect()
    }

    pub fn records(&self) -> u64 {
        self.parts.values().map(|sum| sum.records).sum()
    }

    /// The sums of all parts whose names begin the same, up to the comma: what is printed.
    pub fn summary(&self) -> BTreeMap<String, Sum> {
        let mut summary: BTreeMap<String, Sum> = BTreeMap::new();
        for (name, sum) in self.parts.iter().filter(|(name, _)| !name.contains(", end of")) {
            let whole = name.split(',').next().unwrap_or(name).to_owned();
            summary.entry(whole).or_default().merge(sum);
        }
        summary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(number: u64) -> Record {
        Record::Secret {
            name: format!("s{number}"),
            secret: [number as u8; 32],
        }
    }

    #[test]
    fn order_does_not_count_and_everything_else_does() {
        let tally = |numbers: &[u64]| {
            let mut tally = Tally::default();
            for number in numbers {
                tally.add(&fence(*number)).unwrap();
            }
            tally
        };
        assert_eq!(tally(&[1, 2, 3]), tally(&[3, 1, 2]));
        assert!(tally(&[1, 2]).differences(&tally(&[2, 1])).is_empty());
        for other in [&[1, 2][..], &[1, 2, 4], &[1, 2, 3, 3], &[]] {
            let differences = tally(&[1, 2, 3]).differences(&tally(other));
            assert_eq!(differences.len(), 1, "{other:?}");
            assert!(differences[0].contains("secrets: 3 records"), "{differences:?}");
        }
    }
}
