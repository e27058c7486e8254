//! Token buckets against plain arithmetic.

use super::Subject;
use crate::cache::BucketState;
use futures::future::join_all;
use std::{sync::Arc, time::Duration};

pub(super) async fn takes_answer_as_arithmetic_does(
    Subject { cache, time, prefix }: Subject,
    capacity: u64,
    per_second: f64,
    steps: Vec<(u64, u64)>,
) {
    let mut level = capacity as f64;
    for (tokens, wait_ms) in steps {
        let tokens = tokens.min(capacity);
        let answer = cache.take(&prefix, tokens, capacity, per_second).await.unwrap();
        // Where the level is a token's billionth from enough, arithmetic in floating point cannot tell.
        if (level - tokens as f64).abs() > 1e-9 {
            assert_eq!(answer.allowed, level >= tokens as f64, "{tokens} of {level}");
        }
        if answer.allowed {
            level -= tokens as f64;
        }
        assert!((answer.remaining as f64 - level.floor()).abs() <= 1.0);
        assert!(answer.remaining as f64 <= level + 1e-9);
        let until = |needed: f64| ((needed - level) / per_second).max(0.0);
        if answer.allowed {
            assert_eq!(answer.retry_after, Duration::ZERO);
        } else {
            assert_near(answer.retry_after, until(tokens as f64));
        }
        assert_near(answer.reset_after, until(capacity as f64));
        time.pass(Duration::from_millis(wait_ms)).await;
        level = (level + per_second * wait_ms as f64 / 1_000.0).min(capacity as f64);
    }
    // Waiting as long as one is told to is enough, and half of it is not.
    let emptied = cache
        .take(&prefix, 0, capacity, per_second)
        .await
        .unwrap()
        .remaining;
    cache.take(&prefix, emptied, capacity, per_second).await.unwrap();
    let refused: BucketState = cache.take(&prefix, 1, capacity, per_second).await.unwrap();
    assert!(!refused.allowed);
    time.pass(refused.retry_after / 2).await;
    let half_way = cache.take(&prefix, 1, capacity, per_second).await.unwrap();
    assert!(!half_way.allowed || refused.retry_after <= Duration::from_millis(1));
    if !half_way.allowed {
        time.pass(half_way.retry_after).await;
        assert!(
            cache
                .take(&prefix, 1, capacity, per_second)
                .await
                .unwrap()
                .allowed
        );
    }
}

/// Times are told in whole milliseconds, rounded up.
fn assert_near(answer: Duration, seconds: f64) {
    let ms = answer.as_secs_f64() * 1_000.0;
    let expected = seconds * 1_000.0;
    let slack = 1e-6 * expected + 1e-3;
    assert!(
        ms >= expected - slack && ms <= expected + 1.0 + slack,
        "{ms} ms where {expected} ms were expected"
    );
}

pub(super) async fn tokens_are_given_out_once(Subject { cache, prefix, .. }: Subject) {
    let takes = (0..100).map(|_| {
        let (cache, key) = (Arc::clone(&cache), prefix.clone());
        tokio::spawn(async move { cache.take(&key, 1, 10, 1e-6).await.unwrap().allowed })
    });
    let allowed = join_all(takes)
        .await
        .into_iter()
        .filter(|taken| *taken.as_ref().unwrap())
        .count();
    assert_eq!(allowed, 10);
}
