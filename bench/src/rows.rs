//! Documents to write, and choices among rows to read.

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes of one document.
pub const DOCUMENT_BYTES: usize = 200;

/// A few thousand JSON documents of [`DOCUMENT_BYTES`], of random text so that compression finds little.
pub fn documents() -> Arc<[Bytes]> {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    let mut random = SmallRng::seed_from_u64(1);
    let document = |number: usize| {
        let mut text = format!("{{\"number\":{number},\"text\":\"").into_bytes();
        while text.len() < DOCUMENT_BYTES - 2 {
            text.push(LETTERS[random.random_range(0..LETTERS.len())]);
        }
        text.extend_from_slice(b"\"}");
        Bytes::from(text)
    };
    (0..4096).map(document).collect()
}

/// How rows are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Choice {
    Uniform,
    /// Uniform among the first 20,000 rows, which fit the block cache.
    Hot,
    /// Zipf with exponent 0.99, as in the YCSB benchmark (Cooper et al., 2010); the popular rows are scattered over
    /// the key space.
    Zipf,
}

/// Numbers of rows below `rows`, chosen.
pub fn choose(choice: Choice, rows: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut random = SmallRng::seed_from_u64(seed);
    let among = match choice {
        Choice::Uniform => Some(rows),
        Choice::Hot => Some(rows.min(20_000)),
        Choice::Zipf => None,
    };
    if let Some(among) = among {
        return (0..count).map(|_| random.random_range(0..among)).collect();
    }
    let mut cumulative = Vec::with_capacity(rows);
    let mut sum = 0.0_f64;
    for rank in 1..=rows {
        sum += (rank as f64).powf(-0.99);
        cumulative.push(sum);
    }
    let scatter = |rank: usize| (rank as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % rows as u64;
    (0..count)
        .map(|_| {
            let point = random.random_range(0.0..sum);
            let rank = cumulative.partition_point(|&below| below <= point);
            scatter(rank.min(rows - 1)) as usize
        })
        .collect()
}

/// Times of single operations, for percentiles.
#[derive(Default)]
pub struct Times(Vec<u32>);

impl Times {
    pub fn add(&mut self, since: Instant) {
        self.push(since.elapsed());
    }

    pub fn push(&mut self, time: Duration) {
        self.0.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// In milliseconds; 0 of none. `share` is between 0 and 1.
    pub fn percentile(&mut self, share: f64) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        let place = ((self.0.len() - 1) as f64 * share).round() as usize;
        let (_, time, _) = self.0.select_nth_unstable(place);
        f64::from(*time) / 1_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_json_of_one_size() {
        for document in documents().iter() {
            assert_eq!(document.len(), DOCUMENT_BYTES);
            serde_json::from_slice::<serde_json::Value>(document).unwrap();
        }
    }

    #[test]
    fn zipf_prefers_few_rows_and_uniform_none() {
        let most_frequent = |choice| {
            let mut counts = vec![0_usize; 1_000];
            for row in choose(choice, 1_000, 100_000, 7) {
                counts[row] += 1;
            }
            counts.into_iter().max().unwrap()
        };
        assert!(most_frequent(Choice::Uniform) < 200);
        assert!(most_frequent(Choice::Zipf) > 5_000);
    }

    #[test]
    fn percentiles_are_in_milliseconds() {
        let mut times = Times::default();
        for ms in 1..=100 {
            times.push(Duration::from_millis(ms));
        }
        assert_eq!(times.percentile(0.99), 99.0);
        assert_eq!(times.percentile(0.0), 1.0);
    }
}
