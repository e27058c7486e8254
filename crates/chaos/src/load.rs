//! A steady load: people who post, follow, like and take it back, each one thing at a time, at a limited rate.
//!
//! What one person decides (whom they follow, what they like, what they post) only they change, in an order that the
//! journal has. So what must be there in the end follows from the journal alone. Where a client gave up on a change it
//! does not know what is there, and it lets that one thing be from then on.

use crate::{
    client::{Clients, Person},
    http::Request,
    journal::{Action, Outcome},
};
use http::Method;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::json;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// Posts of others that somebody may like are among so many of the newest.
const RECENT: usize = 60;
const SETUP_PATIENCE: Duration = Duration::from_secs(60);
/// Whom everybody follows at the start: those so many places further on.
const FIRST_FOLLOWS: [usize; 5] = [1, 2, 4, 7, 11];

/// How much load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    pub people: usize,
    pub clients: usize,
    /// Requests a second, of all clients together.
    pub rate: f64,
    pub seed: u64,
    /// What handles begin with; other people for each load.
    pub name: String,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{what} was answered {answer}")]
    Setup { what: String, answer: String },
    #[error("cannot write the journal: {0}")]
    Journal(#[from] std::io::Error),
    #[error("a client ended: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

/// Asks until it is answered with success; for what must be there before a load begins.
async fn insist(
    clients: &Clients,
    node: usize,
    token: &str,
    request: &Request,
) -> Result<serde_json::Value, LoadError> {
    let began = tokio::time::Instant::now();
    loop {
        let server = &clients.nodes[node % clients.nodes.len()];
        let said = match clients.http.send(server, token, request, SETUP_PATIENCE).await {
            Ok(answer) if answer.is_success() => return Ok(answer.json()),
            // An earlier try made it.
            Ok(answer) if answer.status == 409 && answer.problem() == "handle-taken" => {
                return Ok(answer.json());
            }
            Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
            Err(error) => error,
        };
        if began.elapsed() > SETUP_PATIENCE {
            return Err(LoadError::Setup {
                what: format!("{} {}", request.method, request.path),
                answer: said,
            });
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Makes the accounts; nobody follows anybody yet.
///
/// # Errors
/// [`LoadError::Setup`] with what was refused.
pub async fn people(clients: &Clients, admin: &str, options: &LoadOptions) -> Result<Vec<Person>, LoadError> {
    let mut people = Vec::with_capacity(options.people);
    for number in 0..options.people {
        let handle = format!("{}_{number}", options.name);
        let new = Request::new(Method::POST, "/v1/identity/accounts").body(json!({ "handle": handle }));
        insist(clients, number, admin, &new).await?;
        let token = token_for(clients, admin, &handle).await?;
        people.push(Person { handle, token });
    }
    Ok(people)
}

/// A fresh token of somebody, good for an hour.
///
/// # Errors
/// [`LoadError::Setup`] with what was refused.
pub async fn token_for(clients: &Clients, admin: &str, handle: &str) -> Result<String, LoadError> {
    let path = format!("/v1/identity/accounts/{handle}/tokens");
    let mint = Request::new(Method::POST, path).body(json!({ "expiresIn": 3600 }));
    let minted = insist(clients, 0, admin, &mint).await?;
    Ok(minted["accessToken"].as_str().unwrap_or_default().to_owned())
}

/// What one client knows of what its person decided.
#[derive(Default)]
struct Mind {
    /// Whether they follow somebody, or `None` where they do not know.
    follows: BTreeMap<String, Option<bool>>,
    likes: BTreeMap<(u64, String), Option<bool>>,
    posts: Vec<u64>,
    texts: u64,
}

type Recent = Arc<Mutex<VecDeque<(u64, String)>>>;

/// A load that runs.
pub struct Load {
    stop: Arc<AtomicBool>,
    running: JoinSet<Result<(), LoadError>>,
}

impl Load {
    /// Starts it. First of all everybody follows some others.
    pub fn start(clients: &Arc<Clients>, people: &[Person], options: &LoadOptions) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let recent = Recent::default();
        let all: Arc<[String]> = people.iter().map(|person| person.handle.clone()).collect();
        let mut running = JoinSet::new();
        for client in 0..options.clients {
            let own = people
                .iter()
                .cloned()
                .enumerate()
                .skip(client)
                .step_by(options.clients);
            let one = OneClient {
                clients: Arc::clone(clients),
                people: own
                    .map(|(number, person)| (number, person, Mind::default()))
                    .collect(),
                all: Arc::clone(&all),
                recent: Arc::clone(&recent),
                random: StdRng::seed_from_u64(options.seed.wrapping_add(client as u64)),
                stop: Arc::clone(&stop),
                pause: Duration::from_secs_f64(options.clients as f64 / options.rate),
            };
            running.spawn(one.run());
        }
        Self { stop, running }
    }

    /// Lets every client finish what it is at. That takes as long as its patience, if need be.
    ///
    /// # Errors
    /// Why a client ended before its time.
    pub async fn stop(mut self) -> Result<(), LoadError> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.running.join_next().await {
            ended??;
        }
        Ok(())
    }
}

struct OneClient {
    clients: Arc<Clients>,
    people: Vec<(usize, Person, Mind)>,
    all: Arc<[String]>,
    recent: Recent,
    random: StdRng,
    stop: Arc<AtomicBool>,
    /// Between the starts of two requests.
    pause: Duration,
}

impl OneClient {
    async fn run(mut self) -> Result<(), LoadError> {
        let mut ticks = tokio::time::interval(self.pause);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for place in 0..self.people.len() {
            for step in FIRST_FOLLOWS {
                let followee = (self.people[place].0 + step) % self.all.len();
                if followee != self.people[place].0 {
                    let handle = self.all[followee].clone();
                    self.act(place, Action::Follow { handle }).await?;
                }
            }
        }
        while !self.stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            if self.people.is_empty() {
                return Ok(());
            }
            let place = self.random.random_range(0..self.people.len());
            let action = self.choose(place);
            self.act(place, action).await?;
        }
        Ok(())
    }

    fn choose(&mut self, place: usize) -> Action {
        let (number, person, mind) = &mut self.people[place];
        let dice = self.random.random_range(0..100);
        let post = |person: &Person, mind: &mut Mind| {
            mind.texts += 1;
            Action::Post {
                text: format!("{} says {}", person.handle, mind.texts),
            }
        };
        let known = |wanted: bool, followed: &BTreeMap<String, Option<bool>>| -> Vec<String> {
            let others = followed.iter().filter(|(_, is)| **is == Some(wanted));
            others.map(|(handle, _)| handle.clone()).collect()
        };
        match dice {
            0..36 => Action::Home,
            36..60 => post(person, mind),
            60..76 => {
                let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
                let new: Vec<(u64, String)> = recent
                    .iter()
                    .filter(|(id, author)| {
                        *author != person.handle && !mind.likes.contains_key(&(*id, author.clone()))
                    })
                    .cloned()
                    .collect();
                match new.choose(&mut self.random) {
                    Some((id, author)) => Action::Like {
                        post: *id,
                        author: author.clone(),
                    },
                    None => post(person, mind),
                }
            }
            76..82 => {
                let liked: Vec<&(u64, String)> = mind
                    .likes
                    .iter()
                    .filter(|(_, is)| **is == Some(true))
                    .map(|(post, _)| post)
                    .collect();
                match liked.choose(&mut self.random) {
                    Some((id, author)) => Action::Unlike {
                        post: *id,
                        author: author.clone(),
                    },
                    None => Action::Home,
                }
            }
            82..90 => {
                let others = self.all.iter().enumerate();
                let new: Vec<&String> = others
                    .filter(|(other, handle)| {
                        other != number && matches!(mind.follows.get(*handle), None | Some(Some(false)))
                    })
                    .map(|(_, handle)| handle)
                    .collect();
                match new.choose(&mut self.random) {
                    Some(handle) => Action::Follow {
                        handle: (*handle).clone(),
                    },
                    None => Action::Home,
                }
            }
            90..95 => match known(true, &mind.follows).choose(&mut self.random) {
                Some(handle) => Action::Unfollow {
                    handle: handle.clone(),
                },
                None => Action::Home,
            },
            _ if mind.posts.is_empty() => post(person, mind),
            _ => {
                let at = self.random.random_range(0..mind.posts.len());
                Action::Delete {
                    post: mind.posts.swap_remove(at),
                }
            }
        }
    }

    async fn act(&mut self, place: usize, action: Action) -> Result<(), LoadError> {
        let node = self.random.random_range(0..self.clients.nodes.len());
        let (_, person, _) = &self.people[place];
        let outcome = self.clients.perform(person, action.clone(), node).await?;
        let (_, person, mind) = &mut self.people[place];
        let now = |wanted: bool| match outcome {
            Outcome::Done => Some(wanted),
            _ => None,
        };
        match action {
            Action::Post { .. } => {
                if let Outcome::Posted { post } = outcome {
                    mind.posts.push(post);
                    let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
                    recent.push_back((post, person.handle.clone()));
                    if recent.len() > RECENT {
                        recent.pop_front();
                    }
                }
            }
            Action::Like { post, author } => {
                mind.likes.insert((post, author), now(true));
            }
            Action::Unlike { post, author } => {
                mind.likes.insert((post, author), now(false));
            }
            Action::Follow { handle } => {
                mind.follows.insert(handle, now(true));
            }
            Action::Unfollow { handle } => {
                mind.follows.insert(handle, now(false));
            }
            Action::Delete { .. } | Action::Home => {}
        }
        Ok(())
    }
}
