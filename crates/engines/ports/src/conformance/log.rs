//! What a [`Log`] promises, tried. A test of an engine calls [`check_all`].

use super::{Fixture, Make, block_on, drive::Time};
use crate::{
    Event, Log, LogError, Member, NewEvent, Position, TopicSpec,
    log::{Bounds, Rewind, partition_of},
};
use bytes::Bytes;
use holon_base::{Clock, Id, Tenant, Timestamp, limits};
use proptest::{prelude::*, test_runner::TestRunner};
use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::timeout;

const PARTITIONS: u16 = 6;
const TOPIC: TopicSpec = TopicSpec {
    name: "conformance.log",
    partitions: PARTITIONS,
    max_age: None,
    max_bytes: None,
};
/// How long a member is given to find that there is nothing for it.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long anything may take that must come.
const DEADLINE: Duration = Duration::from_secs(30);

/// Tries every promise on fresh engines.
///
/// # Panics
/// When a promise is broken; the message says which, with the shortest script that shows it.
pub fn check_all(make: &Make<'_>) {
    check_all_in(make, true);
}

/// As [`check_all`], for an engine whose servers drop old events by the machine's clock: the suite waits for that.
///
/// # Panics
/// As [`check_all`].
pub fn check_all_in_real_time(make: &Make<'_>) {
    check_all_in(make, false);
}

fn check_all_in(make: &Make<'_>, is_driven: bool) {
    random_scripts_keep_the_promises(make, 48);
    what_is_appended_is_read_and_what_is_wrong_is_refused(make);
    partitions_are_divided_among_members(make);
    a_waiting_member_is_woken(make);
    dead_letters_are_kept_until_taken_out(make);
    old_events_are_dropped(make, is_driven);
    times_are_found(make);
}

fn event(topic: &'static str, key: &str, n: u64) -> NewEvent {
    NewEvent::new(
        topic,
        &Tenant::default(),
        key,
        "conformance.log.v1",
        format!("number:{n}"),
        &n,
    )
}

async fn with_topic(make: &Make<'_>) -> (Fixture, std::sync::Arc<dyn Log>) {
    let fixture = make().await;
    #[expect(
        clippy::expect_used,
        reason = "the suite of the log is for engines that have one"
    )]
    let log = fixture.log.clone().expect("the fixture has a log");
    log.create_topics(&[TOPIC]).await.unwrap();
    (fixture, log)
}

#[derive(Debug, Clone)]
enum Command {
    /// The keys of events that are appended together.
    Append(Vec<u8>),
    Join,
    /// A member by its place among those alive, and the most events.
    Poll(usize, usize),
    /// A member, and how many of the events that it was last handed are done.
    Commit(usize, usize),
    Leave(usize),
    Rewind(To),
    Progress,
    Read(u16, u64, usize),
    Advance(u64),
}

#[derive(Debug, Clone, Copy)]
enum To {
    Start,
    End,
    /// A partition, and a share of what it holds in 256ths.
    Offset(u16, u8),
}

fn any_command() -> impl Strategy<Value = Command> {
    let member = 0..4_usize;
    prop_oneof![
        6 => prop::collection::vec(0..12_u8, 1..6).prop_map(Command::Append),
        2 => Just(Command::Join),
        8 => (member.clone(), 1..8_usize).prop_map(|(m, max)| Command::Poll(m, max)),
        6 => (member.clone(), 0..8_usize).prop_map(|(m, n)| Command::Commit(m, n)),
        1 => member.prop_map(Command::Leave),
        1 => prop_oneof![
            Just(To::Start),
            Just(To::End),
            (0..PARTITIONS, any::<u8>()).prop_map(|(p, share)| To::Offset(p, share))
        ].prop_map(Command::Rewind),
        2 => Just(Command::Progress),
        2 => (0..PARTITIONS, 0..20_u64, 0..8_usize).prop_map(|(p, from, max)| Command::Read(p, from, max)),
        1 => (0..50_u64).prop_map(Command::Advance),
    ]
}

/// What a member was handed last of a partition.
#[derive(Debug, Clone, Copy)]
struct Handed {
    from: u64,
    next: u64,
    /// The script's `divisions` and `rewinds` at that time.
    divisions: u64,
    rewinds: u64,
}

struct Attendee {
    member: Box<dyn Member>,
    handed: HashMap<u16, Handed>,
    last: Option<u16>,
}

struct Script<'a> {
    fixture: &'a Fixture,
    log: &'a dyn Log,
    group: String,
    topic: &'static str,
    told: Vec<Vec<(String, u64)>>,
    number: u64,
    committed: Vec<u64>,
    attendees: Vec<Attendee>,
    joined: bool,
    /// Counts joins and leaves, after which partitions may have moved.
    divisions: u64,
    rewinds: Vec<u64>,
    /// Events handed out since the last rewind of their partition.
    seen: HashSet<Position>,
}

fn fail(error: LogError) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}

impl Script<'_> {
    async fn run(&mut self, command: &Command) -> Result<(), TestCaseError> {
        match command {
            Command::Append(keys) => self.append(keys).await,
            Command::Join => {
                if self.attendees.len() < 4 {
                    let member = self.log.join(&self.group, self.topic).await.map_err(fail)?;
                    self.joined = true;
                    self.divisions += 1;
                    self.attendees.push(Attendee {
                        member,
                        handed: HashMap::new(),
                        last: None,
                    });
                }
                Ok(())
            }
            Command::Poll(who, max) if !self.attendees.is_empty() => {
                let who = who % self.attendees.len();
                self.poll(who, *max, PATIENCE).await.map(|_| ())
            }
            Command::Commit(who, done) if !self.attendees.is_empty() => {
                let who = who % self.attendees.len();
                self.commit(who, *done).await
            }
            Command::Leave(who) if !self.attendees.is_empty() => {
                self.attendees.remove(who % self.attendees.len());
                self.divisions += 1;
                Ok(())
            }
            Command::Poll(..) | Command::Commit(..) | Command::Leave(_) => Ok(()),
            Command::Rewind(to) => self.rewind(*to).await,
            Command::Progress => self.check_progress().await,
            Command::Read(partition, from, max) => self.check_read(*partition, *from, *max).await,
            Command::Advance(ms) => {
                self.fixture.clock.advance(Duration::from_millis(*ms));
                Ok(())
            }
        }
    }

    async fn append(&mut self, keys: &[u8]) -> Result<(), TestCaseError> {
        let mut events = Vec::new();
        let mut expected = Vec::new();
        for key in keys {
            let key = format!("key:{key}");
            self.number += 1;
            events.push(event(self.topic, &key, self.number));
            let partition = partition_of(&Tenant::default(), &key, PARTITIONS);
            let told = &mut self.told[usize::from(partition)];
            let offset = told.len() as u64;
            expected.push(Position { partition, offset });
            told.push((key, self.number));
        }
        let positions = self.log.append(events).await.map_err(fail)?;
        prop_assert_eq!(positions, expected);
        Ok(())
    }

    /// Compares events with what was told at their positions.
    fn check_events(&self, events: &[Event]) -> Result<(), TestCaseError> {
        for event in events {
            let told = &self.told[usize::from(event.position.partition)];
            let (key, number) = &told[event.position.offset as usize];
            prop_assert_eq!(&event.key, key);
            prop_assert_eq!(event.json::<u64>().map_err(fail)?, *number);
            prop_assert_eq!(event.subject.as_str(), format!("number:{number}"));
            prop_assert_eq!(event.kind.as_str(), "conformance.log.v1");
        }
        for pair in events.windows(2) {
            prop_assert_eq!(pair[0].position.partition, pair[1].position.partition);
            prop_assert_eq!(pair[0].position.offset + 1, pair[1].position.offset, "a gap");
            prop_assert!(pair[0].id < pair[1].id, "ids of a partition must grow");
            prop_assert!(
                pair[0].time <= pair[1].time,
                "times of a partition must not go back"
            );
        }
        Ok(())
    }

    /// False if there was nothing in time.
    async fn poll(&mut self, who: usize, max: usize, patience: Duration) -> Result<bool, TestCaseError> {
        let Ok(polled) = timeout(patience, self.attendees[who].member.poll(max)).await else {
            return Ok(false);
        };
        let events = polled.map_err(fail)?;
        prop_assert!(!events.is_empty() && events.len() <= max);
        self.check_events(&events)?;
        let (first, last) = (&events[0], &events[events.len() - 1]);
        let partition = first.position.partition;
        let index = usize::from(partition);
        let from = first.position.offset;
        let committed = self.committed[index];
        match self.attendees[who].handed.get(&partition) {
            Some(before) if before.rewinds != self.rewinds[index] => {
                prop_assert_eq!(from, committed, "a rewound partition goes on at its new place");
            }
            Some(before) if before.divisions == self.divisions => {
                prop_assert_eq!(from, before.next, "a member goes on where it was");
            }
            Some(before) => {
                prop_assert!(from == before.next || from == committed, "handed from {from}");
            }
            None => prop_assert_eq!(from, committed, "a new owner starts at the committed offset"),
        }
        for event in &events {
            let again = !self.seen.insert(event.position);
            prop_assert_eq!(
                event.redelivered > 0,
                again,
                "redelivered of {:?}",
                event.position
            );
        }
        let handed = Handed {
            from,
            next: last.position.offset + 1,
            divisions: self.divisions,
            rewinds: self.rewinds[index],
        };
        // Whoever else held the partition has lost it.
        for other in 0..self.attendees.len() {
            let theirs = self.attendees[other].handed.get(&partition).copied();
            if other != who && theirs.is_some_and(|theirs| theirs.rewinds == self.rewinds[index]) {
                let next = theirs.map_or(0, |theirs| theirs.next);
                let answer = self.attendees[other].member.commit(partition, next).await;
                prop_assert_eq!(answer, Err(LogError::Fenced), "two members held one partition");
                self.attendees[other].handed.remove(&partition);
            }
        }
        let attendee = &mut self.attendees[who];
        attendee.handed.insert(partition, handed);
        attendee.last = Some(partition);
        Ok(true)
    }

    async fn commit(&mut self, who: usize, done: usize) -> Result<(), TestCaseError> {
        let attendee = &mut self.attendees[who];
        let Some(partition) = attendee.last else {
            let answer = attendee.member.commit(0, 0).await;
            prop_assert_eq!(answer, Err(LogError::Fenced), "it was handed nothing");
            return Ok(());
        };
        let Some(handed) = attendee.handed.get(&partition).copied() else {
            return Ok(());
        };
        let index = usize::from(partition);
        let next = handed.from.saturating_add(done as u64).min(handed.next);
        let answer = attendee.member.commit(partition, next).await;
        if handed.rewinds != self.rewinds[index] {
            prop_assert_eq!(answer.clone(), Err(LogError::Fenced), "it was rewound");
        } else if handed.divisions == self.divisions {
            prop_assert_eq!(answer.clone(), Ok(()));
        } else if answer.is_err() {
            prop_assert_eq!(answer.clone(), Err(LogError::Fenced));
        }
        if answer.is_ok() {
            self.committed[index] = self.committed[index].max(next);
        }
        Ok(())
    }

    async fn rewind(&mut self, to: To) -> Result<(), TestCaseError> {
        if !self.joined {
            return Ok(());
        }
        let ends = |partition: usize| self.told[partition].len() as u64;
        let (rewind, targets): (Rewind, Vec<(usize, u64)>) = match to {
            To::Start => (Rewind::Start, (0..self.told.len()).map(|p| (p, 0)).collect()),
            To::End => (Rewind::End, (0..self.told.len()).map(|p| (p, ends(p))).collect()),
            To::Offset(partition, share) => {
                let offset = ends(usize::from(partition)) * u64::from(share) / 255;
                let position = Position { partition, offset };
                (Rewind::Offset(position), vec![(usize::from(partition), offset)])
            }
        };
        self.log
            .rewind(&self.group, self.topic, rewind)
            .await
            .map_err(fail)?;
        for (partition, offset) in targets {
            self.committed[partition] = offset;
            self.rewinds[partition] += 1;
            self.seen
                .retain(|position| usize::from(position.partition) != partition);
        }
        Ok(())
    }

    async fn check_progress(&self) -> Result<(), TestCaseError> {
        let progress = self.log.progress(&self.group, self.topic).await.map_err(fail)?;
        prop_assert_eq!(progress.len(), self.told.len());
        for (index, progress) in progress.iter().enumerate() {
            prop_assert_eq!(usize::from(progress.partition), index);
            prop_assert_eq!(progress.committed, self.committed[index]);
            prop_assert_eq!(progress.next, self.told[index].len() as u64);
            prop_assert_eq!(progress.oldest.is_some(), progress.committed < progress.next);
            let bounds = self.log.bounds(self.topic, progress.partition).await;
            let next = progress.next;
            prop_assert_eq!(bounds.map_err(fail)?, Bounds { first: 0, next });
        }
        Ok(())
    }

    async fn check_read(&self, partition: u16, from: u64, max: usize) -> Result<(), TestCaseError> {
        let read = self
            .log
            .read(self.topic, partition, from, max)
            .await
            .map_err(fail)?;
        let held = self.told[usize::from(partition)].len() as u64;
        let expected = held.saturating_sub(from).min(max as u64) as usize;
        prop_assert_eq!(read.len(), expected);
        if let Some(first) = read.first() {
            prop_assert_eq!(
                first.position,
                Position {
                    partition,
                    offset: from
                }
            );
        }
        prop_assert!(read.iter().all(|event| event.redelivered == 0));
        self.check_events(&read)
    }

    /// In the end, whoever is left is handed everything that is not yet done.
    async fn drain(&mut self) -> Result<(), TestCaseError> {
        if self.attendees.is_empty() {
            self.run(&Command::Join).await?;
        }
        loop {
            let total: u64 = self.told.iter().map(|told| told.len() as u64).sum();
            if self.committed.iter().sum::<u64>() == total {
                return Ok(());
            }
            // Who holds what was handed out and not committed gives it back by leaving.
            let mut progressed = false;
            for who in 0..self.attendees.len() {
                while self.poll(who, 100, PATIENCE).await? {
                    self.commit(who, usize::MAX).await?;
                    progressed = true;
                }
            }
            if !progressed {
                self.attendees.clear();
                self.divisions += 1;
                self.run(&Command::Join).await?;
                prop_assert!(
                    self.poll(0, 100, DEADLINE).await?,
                    "events wait and nobody is handed them"
                );
                self.commit(0, usize::MAX).await?;
            }
        }
    }
}

/// Random commands against an engine; what it answers keeps to the promises at every step.
pub fn random_scripts_keep_the_promises(make: &Make<'_>, scripts: u32) {
    let runtime = block_on();
    let fixture = runtime.block_on(make());
    #[expect(
        clippy::expect_used,
        reason = "the suite of the log is for engines that have one"
    )]
    let log = fixture.log.clone().expect("the fixture has a log");
    let count = AtomicU64::new(0);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: scripts,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    });
    let tried = runner.run(&prop::collection::vec(any_command(), 1..60), |commands| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        // Names live as long as the program, also in tests.
        let topic: &'static str = Box::leak(format!("conformance.log{number}").into_boxed_str());
        let mut script = Script {
            fixture: &fixture,
            log: &*log,
            group: "conformance.readers".into(),
            topic,
            told: vec![Vec::new(); usize::from(PARTITIONS)],
            number: 0,
            committed: vec![0; usize::from(PARTITIONS)],
            attendees: Vec::new(),
            joined: false,
            divisions: 0,
            rewinds: vec![0; usize::from(PARTITIONS)],
            seen: HashSet::new(),
        };
        runtime.block_on(async {
            let spec = TopicSpec { name: topic, ..TOPIC };
            log.create_topics(&[spec]).await.map_err(fail)?;
            for command in &commands {
                script.run(command).await?;
            }
            script.drain().await?;
            script.check_progress().await
        })
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
}

/// Envelopes come back whole; limits, topics and partitions are checked.
pub fn what_is_appended_is_read_and_what_is_wrong_is_refused(make: &Make<'_>) {
    block_on().block_on(async {
        let (fixture, log) = with_topic(make).await;
        let now = fixture.clock.now();
        let whole = NewEvent {
            topic: TOPIC.name,
            tenant: Tenant::new("other").unwrap(),
            key: "kéy\0".into(),
            kind: "conformance.whole.v2",
            subject: String::new(),
            data: Bytes::from(vec![b'1'; limits::ROW_BYTES]),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        };
        let position = log.append(vec![whole.clone()]).await.unwrap()[0];
        assert_eq!(
            position.partition,
            partition_of(&whole.tenant, &whole.key, PARTITIONS)
        );
        let read = log.read(TOPIC.name, position.partition, 0, 10).await.unwrap();
        let expected = Event {
            position,
            id: read[0].id,
            time: now,
            tenant: whole.tenant.clone(),
            key: whole.key.clone(),
            kind: whole.kind.into(),
            subject: whole.subject.clone(),
            data: whole.data.clone(),
            traceparent: whole.traceparent.clone(),
            redelivered: 0,
        };
        assert_eq!(read, vec![expected]);
        assert!(read[0].id > Id::MIN);

        let mut large = whole.clone();
        large.data = Bytes::from(vec![b'1'; limits::ROW_BYTES + 1]);
        assert!(matches!(
            log.append(vec![large]).await,
            Err(LogError::TooLarge { .. })
        ));
        let nowhere = LogError::NoSuchTopic("conformance.nowhere".into());
        let lost = event("conformance.nowhere", "k", 1);
        // All or none: the first of these is fine and must not be told.
        let refused = log.append(vec![whole, lost]).await;
        assert_eq!(refused, Err(nowhere.clone()));
        let bounds = log.bounds(TOPIC.name, position.partition).await.unwrap();
        assert_eq!(bounds, Bounds { first: 0, next: 1 });
        assert_eq!(
            log.join("conformance.g", "conformance.nowhere").await.err(),
            Some(nowhere)
        );
        assert!(matches!(
            log.bounds(TOPIC.name, PARTITIONS).await,
            Err(LogError::Invalid(_))
        ));
        let moved = TopicSpec {
            partitions: PARTITIONS + 1,
            ..TOPIC
        };
        assert!(matches!(
            log.create_topics(&[moved]).await,
            Err(LogError::Invalid(_))
        ));
        assert!(log.topics().await.unwrap().contains(&TOPIC));
    });
}

/// Tells one event in every partition.
async fn tell_everywhere(log: &dyn Log, round: u64) {
    let mut missing: HashSet<u16> = (0..PARTITIONS).collect();
    let mut events = Vec::new();
    for n in 0.. {
        let key = format!("key:{n}");
        if missing.remove(&partition_of(&Tenant::default(), &key, PARTITIONS)) {
            events.push(event(TOPIC.name, &key, round));
        }
        if missing.is_empty() {
            break;
        }
    }
    log.append(events).await.unwrap();
}

/// However many members there are, each partition has one, and the shares are even.
pub fn partitions_are_divided_among_members(make: &Make<'_>) {
    block_on().block_on(async {
        let (_fixture, log) = with_topic(make).await;
        let mut members: Vec<Box<dyn Member>> = Vec::new();
        for (round, members_wanted) in [1_usize, 2, 4, 3, 8, 6, 1].into_iter().enumerate() {
            members.truncate(members_wanted);
            while members.len() < members_wanted {
                members.push(log.join("conformance.shares", TOPIC.name).await.unwrap());
            }
            tell_everywhere(&*log, round as u64).await;
            let mut owners: HashMap<u16, usize> = HashMap::new();
            let deadline = tokio::time::Instant::now() + DEADLINE;
            while owners.len() < usize::from(PARTITIONS) {
                assert!(
                    tokio::time::Instant::now() < deadline,
                    "partitions without an owner: {owners:?}"
                );
                for (who, member) in members.iter_mut().enumerate() {
                    while let Ok(events) = timeout(PATIENCE, member.poll(1)).await {
                        let position = events.unwrap()[0].position;
                        assert_eq!(owners.insert(position.partition, who), None, "two owners");
                        member
                            .commit(position.partition, position.offset + 1)
                            .await
                            .unwrap();
                    }
                }
            }
            let even = usize::from(PARTITIONS) / members.len();
            for who in 0..members.len() {
                let share = owners.values().filter(|owner| **owner == who).count();
                assert!(share == even || share == even + 1, "uneven shares: {owners:?}");
            }
        }
        let groups = log.groups().await.unwrap();
        assert!(groups.contains(&("conformance.shares".into(), TOPIC.name.into())));
    });
}

/// A poll that finds nothing waits, and is woken by what is told or given to it.
pub fn a_waiting_member_is_woken(make: &Make<'_>) {
    block_on().block_on(async {
        let (_fixture, log) = with_topic(make).await;
        let mut first = log.join("conformance.waiting", TOPIC.name).await.unwrap();
        let mut second = log.join("conformance.waiting", TOPIC.name).await.unwrap();
        let waiting = tokio::spawn(async move {
            let mut seen = HashSet::new();
            while seen.len() < usize::from(PARTITIONS) {
                let events = second.poll(1).await.unwrap();
                seen.insert(events[0].position.partition);
            }
        });
        tell_everywhere(&*log, 1).await;
        // The first takes its part, commits none of it, and dies.
        timeout(DEADLINE, first.poll(1)).await.unwrap().unwrap();
        drop(first);
        timeout(DEADLINE, waiting)
            .await
            .unwrap_or_else(|_| panic!("what a dead member held was not given to the other"))
            .unwrap();
    });
}

/// Dead letters are listed in order, taken out once, and their numbers only grow.
pub fn dead_letters_are_kept_until_taken_out(make: &Make<'_>) {
    block_on().block_on(async {
        let (_fixture, log) = with_topic(make).await;
        let (group, topic) = ("conformance.graves", TOPIC.name);
        tell_everywhere(&*log, 7).await;
        let mut member = log.join(group, topic).await.unwrap();
        let mut buried = Vec::new();
        for attempts in 1..4 {
            let event = member.poll(1).await.unwrap().remove(0);
            log.bury(group, topic, &event, &format!("failed {attempts}"), attempts)
                .await
                .unwrap();
            buried.push(event);
        }
        let letters = log.dead_letters(group, topic, 0, 10).await.unwrap();
        let events: Vec<&Event> = letters.iter().map(|letter| &letter.event).collect();
        assert_eq!(events, buried.iter().collect::<Vec<_>>());
        assert_eq!((letters[1].error.as_str(), letters[1].attempts), ("failed 2", 2));
        assert!(letters.windows(2).all(|pair| pair[0].number < pair[1].number));
        let from_second = log
            .dead_letters(group, topic, letters[1].number, 1)
            .await
            .unwrap();
        assert_eq!(from_second, letters[1..2]);
        assert_eq!(
            log.dead_letters("conformance.other", topic, 0, 10).await.unwrap(),
            Vec::new()
        );

        let last = letters[2].number;
        let taken = log.unbury(group, topic, last).await.unwrap();
        assert_eq!(taken.as_ref(), Some(&letters[2]));
        assert_eq!(log.unbury(group, topic, last).await.unwrap(), None);
        log.bury(group, topic, &buried[0], "again", 9).await.unwrap();
        let letters = log.dead_letters(group, topic, 0, 10).await.unwrap();
        assert_eq!(letters.len(), 3);
        assert!(
            letters[2].number > last,
            "the number of a dead letter was used twice"
        );
    });
}

/// Events go by age and by size, oldest first; offsets go on. `is_driven`: age is by the fixture's clock, and not by
/// the machine's.
pub fn old_events_are_dropped(make: &Make<'_>, is_driven: bool) {
    const BY_SIZE: TopicSpec = TopicSpec {
        name: "conformance.by_size",
        partitions: 1,
        max_age: None,
        max_bytes: Some(50_000),
    };
    block_on().block_on(async {
        let (fixture, log) = with_topic(make).await;
        let time = if is_driven {
            Time::Manual(fixture.clock.clone())
        } else {
            Time::Real
        };
        let by_age = TopicSpec {
            name: "conformance.by_age",
            partitions: 1,
            max_age: Some(time.units(45)),
            max_bytes: None,
        };
        log.create_topics(&[by_age.clone(), BY_SIZE]).await.unwrap();
        let until = |topic: &'static str, first: u64| {
            let log = log.clone();
            async move {
                let reached = async {
                    while log.bounds(topic, 0).await.unwrap().first < first {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                timeout(DEADLINE, reached)
                    .await
                    .unwrap_or_else(|_| panic!("events of {topic} before {first} were not dropped"));
            }
        };
        for n in 0..3 {
            log.append(vec![event(by_age.name, "k", n)]).await.unwrap();
        }
        time.pass(time.units(30)).await;
        log.append(vec![event(by_age.name, "k", 3)]).await.unwrap();
        let join = || log.join("conformance.late", by_age.name);
        // One that fetches ahead may hand out what was dropped since; then only a later member shows where it starts.
        let early = if is_driven {
            Some(join().await.unwrap())
        } else {
            None
        };
        time.pass(time.units(30)).await;
        until(by_age.name, 3).await;
        let kept = log.read(by_age.name, 0, 0, 10).await.unwrap();
        assert_eq!(kept.len(), 1, "a read starts at the first event kept");
        assert_eq!(kept[0].position.offset, 3);
        let mut member = match early {
            Some(member) => member,
            None => join().await.unwrap(),
        };
        let handed = timeout(DEADLINE, member.poll(10)).await.unwrap().unwrap();
        assert_eq!(
            handed[0].position.offset, 3,
            "a member goes on at the first event kept"
        );
        time.pass(time.units(30)).await;
        until(by_age.name, 4).await;
        let position = log.append(vec![event(by_age.name, "k", 4)]).await.unwrap()[0];
        assert_eq!(position.offset, 4, "offsets go on when nothing is left");

        let kilobyte = Bytes::from(format!("{:?}", "x".repeat(998)));
        for _ in 0..200 {
            let mut large = event(BY_SIZE.name, "k", 0);
            large.data = kilobyte.clone();
            log.append(vec![large]).await.unwrap();
        }
        until(BY_SIZE.name, 150).await;
        let bounds = log.bounds(BY_SIZE.name, 0).await.unwrap();
        assert_eq!(bounds.next, 200);
        // An envelope takes up to a third of a kilobyte.
        assert!(bounds.first < 165, "more was dropped than had to be: {bounds:?}");
    });
}

/// A rewind to a time finds the first event at or after it, also when the clock went back in between.
pub fn times_are_found(make: &Make<'_>) {
    const TIMES: TopicSpec = TopicSpec {
        name: "conformance.times",
        partitions: 1,
        max_age: None,
        max_bytes: None,
    };
    block_on().block_on(async {
        let (fixture, log) = with_topic(make).await;
        log.create_topics(&[TIMES]).await.unwrap();
        let start = fixture.clock.now();
        let at = |ms: i64| Timestamp::from_millis(start.millis() + ms);
        for ms in [0, 10, 10, 30, 20, 25, 40] {
            fixture.clock.set(at(ms));
            log.append(vec![event(TIMES.name, "k", 0)]).await.unwrap();
        }
        let events = log.read(TIMES.name, 0, 0, 100).await.unwrap();
        assert!(
            events
                .windows(2)
                .all(|pair| pair[0].time <= pair[1].time && pair[0].id < pair[1].id)
        );
        let mut member = log.join("conformance.times", TIMES.name).await.unwrap();
        for ms in [-5, 0, 5, 10, 11, 30, 31, 40] {
            log.rewind("conformance.times", TIMES.name, Rewind::Time(at(ms)))
                .await
                .unwrap();
            let expected = events.iter().position(|event| event.time >= at(ms)).unwrap() as u64;
            let handed = timeout(DEADLINE, member.poll(1)).await.unwrap().unwrap();
            assert_eq!(handed[0].position.offset, expected, "rewound to {ms} ms");
        }
        log.rewind("conformance.times", TIMES.name, Rewind::Time(at(41)))
            .await
            .unwrap();
        let progress = log.progress("conformance.times", TIMES.name).await.unwrap();
        assert_eq!((progress[0].committed, progress[0].oldest), (7, None));
        let beyond = Position {
            partition: 0,
            offset: 8,
        };
        let refused = log
            .rewind("conformance.times", TIMES.name, Rewind::Offset(beyond))
            .await;
        assert!(matches!(refused, Err(LogError::Invalid(_))));
    });
}
