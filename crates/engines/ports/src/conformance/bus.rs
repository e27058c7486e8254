//! The suite of [`Bus`].

use super::drive::{for_all, soon};
use crate::bus::{MESSAGE_BYTES, SUBJECT_BYTES};
use crate::{Bus, BusError, Message, Subscription};
use bytes::Bytes;
use futures::future::join_all;
use proptest::prelude::*;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::runtime::Runtime;

/// Runs the whole suite. Each test and each random case uses subjects of its own, so the bus may be shared.
pub fn run<F>(runtime: &Runtime, make: impl Fn() -> F)
where
    F: Future<Output = Arc<dyn Bus>>,
{
    let bus = runtime.block_on(make());
    let cases = AtomicU64::new(0);
    let subject = || Subject {
        bus: Arc::clone(&bus),
        root: format!(
            "suite-{:016x}-{}",
            rand::random::<u64>(),
            cases.fetch_add(1, Ordering::Relaxed)
        ),
    };
    for_all(192, prop::collection::vec(command(), 1..50), |commands| {
        runtime.block_on(everyone_hears_what_matches(subject(), commands));
    });
    runtime.block_on(messages_of_each_publisher_stay_in_order(subject()));
    runtime.block_on(a_slow_listener_loses_the_oldest_and_is_told(subject()));
    runtime.block_on(who_waits_is_woken(subject()));
    runtime.block_on(who_stops_waiting_loses_nothing(subject()));
    runtime.block_on(what_makes_no_sense_is_refused(subject()));
}

/// A bus and a first part of subjects that no other test has.
struct Subject {
    bus: Arc<dyn Bus>,
    root: String,
}

const SUBJECTS: [&str; 6] = ["a", "b", "a.a", "a.b", "a.b.a", "ab.a"];
const PATTERNS: [&str; 10] = [
    "a", "b", "a.a", "a.b", "a.b.a", "ab.a", ">", "a.>", "a.b.>", "ab.>",
];

#[derive(Debug, Clone)]
enum Command {
    Subscribe { pattern: usize },
    Unsubscribe { listener: usize },
    Publish { subject: usize },
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => (0..PATTERNS.len()).prop_map(|pattern| Command::Subscribe { pattern }),
        1 => (0..8_usize).prop_map(|listener| Command::Unsubscribe { listener }),
        5 => (0..SUBJECTS.len()).prop_map(|subject| Command::Publish { subject }),
    ]
}

/// The plain definition: the same parts, up to a last part of `>` that stands for one part or more.
fn matches(pattern: &str, subject: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let subject: Vec<&str> = subject.split('.').collect();
    match pattern.split_last() {
        Some((&">", head)) => subject.len() > head.len() && subject.starts_with(head),
        _ => pattern == subject,
    }
}

struct Listener {
    pattern: String,
    subscription: Box<dyn Subscription>,
    expected: Vec<Message>,
}

async fn everyone_hears_what_matches(Subject { bus, root }: Subject, commands: Vec<Command>) {
    let mut listeners: Vec<Listener> = Vec::new();
    for (step, command) in commands.into_iter().enumerate() {
        match command {
            Command::Subscribe { pattern } => {
                let pattern = format!("{root}.{}", PATTERNS[pattern]);
                listeners.push(Listener {
                    subscription: bus.subscribe(&pattern).await.unwrap(),
                    pattern,
                    expected: Vec::new(),
                });
            }
            Command::Unsubscribe { listener } if listener < listeners.len() => {
                listeners.remove(listener);
            }
            Command::Unsubscribe { .. } => {}
            Command::Publish { subject } => {
                let message = Message {
                    subject: format!("{root}.{}", SUBJECTS[subject]),
                    payload: Bytes::from(step.to_string()),
                };
                bus.publish(&message.subject, message.payload.clone())
                    .await
                    .unwrap();
                for listener in &mut listeners {
                    if matches(&listener.pattern, &message.subject) {
                        listener.expected.push(message.clone());
                    }
                }
            }
        }
    }
    // A last message to each shows that nothing else was on its way. It may match others too.
    for listener in &mut listeners {
        let subject = listener.pattern.replace('>', "end");
        bus.publish(&subject, Bytes::from_static(b"end")).await.unwrap();
        let mut heard = Vec::new();
        loop {
            let message = soon("a message", listener.subscription.next()).await.unwrap();
            match (message.payload == "end", message.subject == subject) {
                (true, true) => break,
                (true, false) => {}
                (false, _) => heard.push(message),
            }
        }
        assert_eq!(heard, listener.expected, "on {}", listener.pattern);
    }
}

async fn messages_of_each_publisher_stay_in_order(Subject { bus, root }: Subject) {
    const PUBLISHERS: u64 = 8;
    const MESSAGES: u64 = 100;
    let mut all = bus.subscribe(&format!("{root}.>")).await.unwrap();
    let mut one = bus.subscribe(&format!("{root}.room")).await.unwrap();
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let (bus, subject) = (Arc::clone(&bus), format!("{root}.room"));
        tokio::spawn(async move {
            for number in 0..MESSAGES {
                let payload = Bytes::from(format!("{publisher} {number}"));
                bus.publish(&subject, payload).await.unwrap();
            }
        })
    });
    let published: Vec<_> = publishers.collect();
    for subscription in [&mut all, &mut one] {
        let mut next: HashMap<String, u64> = HashMap::new();
        for _ in 0..PUBLISHERS * MESSAGES {
            let message = soon("a message", subscription.next()).await.unwrap();
            let text = String::from_utf8(message.payload.to_vec()).unwrap();
            let (publisher, number) = text.split_once(' ').unwrap();
            let expected = next.entry(publisher.to_owned()).or_default();
            assert_eq!(number.parse(), Ok(*expected), "of publisher {publisher}");
            *expected += 1;
        }
    }
    join_all(published).await;
}

async fn a_slow_listener_loses_the_oldest_and_is_told(Subject { bus, root }: Subject) {
    const MESSAGES: u64 = 200_000;
    let mut slow = bus.subscribe(&root).await.unwrap();
    for number in 0..MESSAGES {
        bus.publish(&root, Bytes::copy_from_slice(&number.to_be_bytes()))
            .await
            .unwrap();
    }
    let (mut heard, mut lost) = (0, 0);
    while heard + lost < MESSAGES {
        match soon("a message", slow.next()).await {
            Ok(message) => {
                let number = u64::from_be_bytes(message.payload.as_ref().try_into().unwrap());
                assert_eq!(
                    number,
                    heard + lost,
                    "in order, and only what it was told of is missing"
                );
                heard += 1;
            }
            Err(BusError::Lagged(messages)) => {
                assert!(messages > 0);
                lost += messages;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(heard > 0, "the newest are kept");
    // It goes on as if nothing had been.
    bus.publish(&root, Bytes::from_static(b"after")).await.unwrap();
    let after = soon("a message", slow.next()).await.unwrap();
    assert_eq!(after.payload, "after");
}

async fn who_waits_is_woken(Subject { bus, root }: Subject) {
    let mut subscription = bus.subscribe(&root).await.unwrap();
    let waiting = tokio::spawn(async move { subscription.next().await });
    tokio::task::yield_now().await;
    bus.publish(&root, Bytes::from_static(b"now")).await.unwrap();
    let message = soon("the message", waiting).await.unwrap().unwrap();
    assert_eq!(message.payload, "now");
}

async fn who_stops_waiting_loses_nothing(Subject { bus, root }: Subject) {
    let mut subscription = bus.subscribe(&root).await.unwrap();
    for number in 0..100_u8 {
        // A wait that is given up at once, as `select!` does.
        let given_up = futures::poll!(subscription.next());
        assert!(given_up.is_pending());
        bus.publish(&root, Bytes::copy_from_slice(&[number]))
            .await
            .unwrap();
        let message = soon("the message", subscription.next()).await.unwrap();
        assert_eq!(message.payload.as_ref(), [number]);
    }
}

async fn what_makes_no_sense_is_refused(Subject { bus, .. }: Subject) {
    let too_long = "x".repeat(SUBJECT_BYTES + 1);
    for subject in ["", ".", "a..b", ".a", "a.", "a b", "a.*", "a.>", ">", &too_long] {
        let published = bus.publish(subject, Bytes::new()).await;
        assert!(matches!(published, Err(BusError::Invalid(_))), "{subject:?}");
    }
    for pattern in ["", "a..>", ">.a", "a>", "a.>.b", "a.*", &too_long] {
        let subscribed = bus.subscribe(pattern).await.map(|_| ());
        assert!(matches!(subscribed, Err(BusError::Invalid(_))), "{pattern:?}");
    }
    let large = Bytes::from(vec![0; MESSAGE_BYTES + 1]);
    let published = bus.publish("a", large).await;
    assert!(matches!(published, Err(BusError::TooLarge { .. })));
}
