//! Whether a history of concurrent calls is linearisable: whether every call can have taken effect at one moment between
//! its start and its answer, such that all answers are right (Herlihy & Wing, 1990).
//!
//! # How it works
//!
//! Wing and Gong (1993) search the orders that the calls can have had. This search goes forward through time instead,
//! as Lowe's *just-in-time linearisation* does ("Testing for linearizability", 2017): it keeps the set of all
//! *configurations* that the history up to now allows, each a state of the object and which of the calls under way
//! have taken effect in it. A call that starts changes nothing yet. When a call is answered, a configuration in which
//! it has not taken effect is extended by all orders of calls under way that end with it; those in which no order gives
//! that answer die. When none is left, the history is not linearisable, and this answer is what breaks it.
//!
//! Configurations that are equal are kept once (the memoisation of Lowe, and of Horn & Kroening's and Porcupine's
//! search), and histories of independent objects are checked one by one ("P-compositionality", Horn & Kroening, 2015):
//! here the object is one partition of a Store, since partitions promise nothing to each other.
//!
//! Four more things keep the set small:
//!
//! - A call that changes nothing (a read, a commit that was refused) is taken to take effect as soon as it can: nothing
//!   that comes later is hindered by it.
//! - A call whose *answer was lost* may take effect at any later time, or never. Of two configurations with the same state, one
//!   that has made use of fewer such calls can do all that the other can, so the other is dropped.

mod partition;
mod record;

pub use partition::{Answer, Call, Cell, PartitionModel, Rows, Version};
pub use record::{History, Witness};

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fmt,
    hash::Hash,
};

/// An object as it is promised: what a call does to its state, and what it then answers.
pub trait Model {
    type State: Clone + Eq + Hash + fmt::Debug;
    type Call: PartialEq + fmt::Debug;
    type Answer: fmt::Debug;

    fn start(&self) -> Self::State;

    /// What call number `call_number` of the history would do in this state, if it is answered so. Without an answer
    /// (it was lost) whatever the call would do.
    fn apply(
        &self,
        state: &Self::State,
        call_number: usize,
        call: &Self::Call,
        answer: Option<&Self::Answer>,
    ) -> Effect<Self::State>;

    /// Whether the order of two calls can matter. May say so where it does not.
    fn conflict(&self, one: &Self::Call, other: &Self::Call) -> bool;
}

/// What a call does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<S> {
    /// It would be answered differently.
    Impossible,
    /// It is answered so, the state stays, and so it would in any other state in which it is answered so.
    Nothing,
    Becomes(S),
}

/// A call of a history. Times are in any unit, of one clock for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation<C, A> {
    pub call: C,
    pub started: u64,
    /// When it was answered, and what; `None` if the answer was lost.
    pub answered: Option<(u64, A)>,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<S> {
    Linearisable,
    Broken(Breach<S>),
    /// More configurations than the check was allowed to look at.
    Undecided,
}

/// What breaks a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach<S> {
    /// The number of the operation whose answer nothing explains.
    pub operation: usize,
    /// Its answer is the first of this history that nothing explains; these are states that the object can have been in
    /// shortly before (at most a few are kept).
    pub states: Vec<S>,
}

const STATES_SHOWN: usize = 3;

/// Configurations by what must be equal for one to stand for another, and of each the smallest sets of calls with lost
/// answers that were made use of.
type Frontier<S> = HashMap<(S, Vec<usize>), Vec<Vec<usize>>>;

#[derive(Debug, Clone)]
struct Configuration<S> {
    state: S,
    /// Calls under way that have taken effect, ascending.
    done: Vec<usize>,
    /// Calls with lost answers that have taken effect, ascending.
    used: Vec<usize>,
}

/// Checks a history. `budget` is the number of configurations that may be looked at: time and memory are in proportion.
///
/// # Errors
/// None; an answer that comes before its call's start is taken to come right after it.
pub fn check<M: Model>(
    model: &M,
    history: &[Operation<M::Call, M::Answer>],
    budget: usize,
) -> Verdict<M::State> {
    let mut search = Search {
        model,
        history,
        under_way: Vec::new(),
        lost: Vec::new(),
        left: budget,
    };
    let mut frontier: Frontier<M::State> = HashMap::new();
    frontier.insert((model.start(), Vec::new()), vec![Vec::new()]);
    for event in events(history) {
        let next = match event {
            Event::Started(call) => Some(search.start(frontier, call)),
            Event::Answered(call) => match search.answer(&frontier, call) {
                Some(next) if next.is_empty() => {
                    let states = frontier.into_keys().map(|(state, _)| state);
                    return Verdict::Broken(Breach {
                        operation: call,
                        states: states.take(STATES_SHOWN).collect(),
                    });
                }
                other => other,
            },
        };
        let Some(next) = next else {
            return Verdict::Undecided;
        };
        frontier = next;
    }
    Verdict::Linearisable
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    // At the same time calls start before others are answered: the two may have met.
    Started(usize),
    Answered(usize),
}

fn events<C, A>(history: &[Operation<C, A>]) -> Vec<Event> {
    let mut events: Vec<(u64, Event)> = Vec::with_capacity(history.len() * 2);
    for (number, operation) in history.iter().enumerate() {
        events.push((operation.started, Event::Started(number)));
        if let Some((answered, _)) = &operation.answered {
            events.push(((*answered).max(operation.started), Event::Answered(number)));
        }
    }
    events.sort_unstable();
    events.into_iter().map(|(_, event)| event).collect()
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Operation<M::Call, M::Answer>],
    /// Calls that have started and will be answered.
    under_way: Vec<usize>,
    /// Calls that have started and whose answers were lost.
    lost: Vec<usize>,
    left: usize,
}

impl<M: Model> Search<'_, M> {
    fn effect(&self, state: &M::State, call: usize) -> Effect<M::State> {
        let operation = &self.history[call];
        let answer = operation.answered.as_ref().map(|(_, answer)| answer);
        self.model.apply(state, call, &operation.call, answer)
    }

    fn start(&mut self, mut frontier: Frontier<M::State>, call: usize) -> Frontier<M::State> {
        if self.history[call].answered.is_none() {
            self.lost.push(call);
            return frontier;
        }
        self.under_way.push(call);
        let can_be_done: Vec<(M::State, Vec<usize>)> = frontier
            .keys()
            .filter(|(state, _)| self.effect(state, call) == Effect::Nothing)
            .cloned()
            .collect();
        for key in can_be_done {
            let Some(uses) = frontier.remove(&key) else {
                continue;
            };
            let (state, mut done) = key;
            insert(&mut done, call);
            frontier.insert((state, done), uses);
        }
        frontier
    }

    /// The configurations in which a call has been answered as it was; `None` when the budget is spent.
    fn answer(&mut self, frontier: &Frontier<M::State>, call: usize) -> Option<Frontier<M::State>> {
        let mut next = Frontier::new();
        // By the number of calls with lost answers that were made use of, so that whatever stands for another comes first.
        let mut to_extend: BTreeMap<usize, Vec<Configuration<M::State>>> = BTreeMap::new();
        let mut keep_or_extend =
            |mut configuration: Configuration<M::State>,
             to_extend: &mut BTreeMap<usize, Vec<Configuration<M::State>>>| {
                match configuration.done.binary_search(&call) {
                    Ok(place) => {
                        configuration.done.remove(place);
                        keep(&mut next, configuration);
                    }
                    Err(_) => to_extend
                        .entry(configuration.used.len())
                        .or_default()
                        .push(configuration),
                }
            };
        for ((state, done), uses) in frontier {
            for used in uses {
                let configuration = Configuration {
                    state: state.clone(),
                    done: done.clone(),
                    used: used.clone(),
                };
                keep_or_extend(configuration, &mut to_extend);
            }
        }
        let concerned = self.concerned(call);
        let mut seen = Frontier::new();
        while let Some((_, configurations)) = to_extend.pop_first() {
            for configuration in configurations {
                self.left = self.left.checked_sub(1)?;
                for other in self.successors(&configuration, &concerned) {
                    if keep(&mut seen, other.clone()) {
                        keep_or_extend(other, &mut to_extend);
                    }
                }
            }
        }
        self.under_way.retain(|other| *other != call);
        Some(next)
    }

    /// The calls that may take effect now and have to do with this one, if through others.
    fn concerned(&self, call: usize) -> Vec<usize> {
        let mut others: Vec<usize> = self.under_way.iter().chain(&self.lost).copied().collect();
        others.retain(|other| *other != call);
        let mut concerned = vec![call];
        let mut looked_at = 0;
        while let Some(one) = concerned.get(looked_at).copied() {
            let (near, far) = others.into_iter().partition(|other| {
                let (one, other) = (&self.history[one].call, &self.history[*other].call);
                self.model.conflict(one, other)
            });
            let near: Vec<usize> = near;
            concerned.extend(near);
            others = far;
            looked_at += 1;
        }
        concerned
    }

    /// All that one call more can make of a configuration.
    fn successors(
        &self,
        configuration: &Configuration<M::State>,
        concerned: &[usize],
    ) -> Vec<Configuration<M::State>> {
        let Configuration { state, done, used } = configuration;
        let mut successors = Vec::new();
        for call in concerned {
            let is_lost = self.history[*call].answered.is_none();
            let taken = if is_lost { used } else { done };
            if taken.binary_search(call).is_ok() || (is_lost && self.has_twin_before(*call, used)) {
                continue;
            }
            let Effect::Becomes(after) = self.effect(state, *call) else {
                continue;
            };
            let (mut done, mut used) = (done.clone(), used.clone());
            insert(if is_lost { &mut used } else { &mut done }, *call);
            successors.push(self.settled(after, done, used));
        }
        successors
    }

    /// Whether an earlier call with a lost answer asks for the same and has not been made use of.
    fn has_twin_before(&self, call: usize, used: &[usize]) -> bool {
        let earlier = self.lost.iter().take_while(|other| **other != call);
        earlier
            .filter(|other| used.binary_search(other).is_err())
            .any(|other| self.history[*other].call == self.history[call].call)
    }

    /// A configuration after every call under way that is answered so in this state and changes nothing.
    fn settled(&self, state: M::State, mut done: Vec<usize>, used: Vec<usize>) -> Configuration<M::State> {
        for call in &self.under_way {
            if done.binary_search(call).is_err() && self.effect(&state, *call) == Effect::Nothing {
                insert(&mut done, *call);
            }
        }
        Configuration { state, done, used }
    }
}

/// Adds a configuration unless another stands for it, and drops those for which it stands. Whether it was added.
fn keep<S: Eq + Hash>(frontier: &mut Frontier<S>, configuration: Configuration<S>) -> bool {
    let Configuration { state, done, used } = configuration;
    match frontier.entry((state, done)) {
        Entry::Vacant(vacant) => {
            vacant.insert(vec![used]);
            true
        }
        Entry::Occupied(mut occupied) => {
            let uses = occupied.get_mut();
            if uses.iter().any(|other| is_within(other, &used)) {
                return false;
            }
            uses.retain(|other| !is_within(&used, other));
            uses.push(used);
            true
        }
    }
}

/// Both ascending.
fn is_within(part: &[usize], whole: &[usize]) -> bool {
    part.iter().all(|call| whole.binary_search(call).is_ok())
}

fn insert(calls: &mut Vec<usize>, call: usize) {
    if let Err(place) = calls.binary_search(&call) {
        calls.insert(place, call);
    }
}

/// Says what breaks a history: the answer that nothing explains, and what was under way around it.
pub fn describe<C: fmt::Debug, A: fmt::Debug, S: fmt::Debug>(
    history: &[Operation<C, A>],
    breach: &Breach<S>,
) -> String {
    use fmt::Write as _;
    let mut text = String::new();
    let broken = &history[breach.operation];
    let end = broken.answered.as_ref().map_or(broken.started, |(at, _)| *at);
    let mut say = |line: String| {
        // A String takes everything.
        let _ = writeln!(text, "{line}");
    };
    say(format!(
        "nothing explains the answer of operation {}: {}",
        breach.operation,
        in_words(broken)
    ));
    say("at that time the object can have been:".into());
    for state in &breach.states {
        say(format!("  {state:?}"));
    }
    say("beside it, or with lost answers before it, were under way:".into());
    for (number, other) in history.iter().enumerate() {
        let ended = other.answered.as_ref().map(|(at, _)| *at);
        let met = other.started <= end && ended.is_none_or(|ended| ended >= broken.started);
        if met && number != breach.operation {
            say(format!("  operation {number}: {}", in_words(other)));
        }
    }
    text
}

fn in_words<C: fmt::Debug, A: fmt::Debug>(operation: &Operation<C, A>) -> String {
    match &operation.answered {
        Some((at, answer)) => format!(
            "{:?} from {} to {at}, answered {answer:?}",
            operation.call, operation.started
        ),
        None => format!("{:?} from {}, answer lost", operation.call, operation.started),
    }
}
