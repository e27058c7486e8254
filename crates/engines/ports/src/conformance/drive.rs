//! How the suites drive what they test: time that passes when told to, and random cases that shrink when they fail.

use holon_base::{Clock, ManualClock, SystemClock};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestRunner};
use std::fmt::Debug;
use std::{future::Future, time::Duration};

/// The time that an engine lives by.
#[derive(Debug, Clone)]
pub enum Time {
    /// A clock that the engine was made with: time passes when a suite says so, and answers are compared to the
    /// millisecond.
    Manual(ManualClock),
    /// The machine's, for engines that live elsewhere: a suite waits, and allows for what waiting is off by.
    Real,
}

impl Time {
    /// The time that suites count in.
    pub(super) fn unit(&self) -> Duration {
        match self {
            Self::Manual(_) => Duration::from_secs(10),
            Self::Real => Duration::from_millis(100),
        }
    }

    pub(super) fn units(&self, units: u32) -> Duration {
        self.unit() * units
    }

    /// A whole number of units and a half. Lifetimes are such and what passes is whole, so that no answer depends
    /// on a moment.
    pub(super) fn units_and_half(&self, units: u32) -> Duration {
        self.unit() * units + self.unit() / 2
    }

    pub(super) async fn pass(&self, time: Duration) {
        match self {
            Self::Manual(clock) => clock.advance(time),
            Self::Real => tokio::time::sleep(time).await,
        }
    }

    pub(super) fn is_exact(&self) -> bool {
        matches!(self, Self::Manual(_))
    }

    pub(super) fn now(&self) -> holon_base::Timestamp {
        match self {
            Self::Manual(clock) => clock.now(),
            Self::Real => SystemClock.now(),
        }
    }
}

/// Runs a test with random inputs; a failure is shrunk and shown.
pub(super) fn for_all<S: Strategy>(cases: u32, inputs: S, test: impl Fn(S::Value))
where
    S::Value: Debug,
{
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&inputs, |input| {
        test(input);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// How long a suite waits for what should take moments.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for an answer that must come.
pub(super) async fn soon<F: Future>(what: &str, answer: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited in vain for: {what}"),
    }
}

/// Asks until it is so.
pub(super) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    soon(what, async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
