//! The phases of an import, each of them many requests at once.

use super::{
    ImportError, Options, activity, author_of,
    files::{Graph, Texts},
    hashtag, people,
    person::{Person, Posted},
    progress::Progress,
    text_to_post,
};
use crate::client::{Answer, Client, ClientError, Sending};
use http::{Method, StatusCode};
use serde::Deserialize;
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// What an import did. `…_found` were there before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Done {
    pub accounts: usize,
    pub accounts_found: usize,
    pub follows: usize,
    pub follows_found: usize,
    pub posts: usize,
    pub posts_found: usize,
    pub likes: usize,
    pub reposts: usize,
    /// What the server would not take, a line each.
    pub refused: Vec<String>,
    pub took: Duration,
}

/// An import under way. Cheap to clone: all workers hold one.
#[derive(Clone)]
pub struct Import(Arc<Shared>);

struct Shared {
    client: Client,
    options: Options,
    graph: Graph,
    texts: Texts,
    people: Vec<Person>,
    /// Ids of the posts by number, as far as they are known.
    post_ids: parking_lot::Mutex<Vec<Option<String>>>,
    refused: parking_lot::Mutex<Vec<String>>,
}

impl Import {
    /// Reads the files. Nothing is sent yet.
    pub fn prepare(options: Options) -> Result<Self, ImportError> {
        let client = Client::new(&options.server, options.patience)?;
        let graph = Graph::read(&options.edges)?;
        let texts = Texts::read(&options.posts)?;
        let people = (0..graph.people()).map(Person::new).collect();
        Ok(Self(Arc::new(Shared {
            post_ids: parking_lot::Mutex::new(vec![None; texts.items.len()]),
            refused: parking_lot::Mutex::default(),
            client,
            options,
            graph,
            texts,
            people,
        })))
    }

    /// Does all of it, phase by phase.
    pub async fn run(&self) -> Result<Done, ImportError> {
        let began = Instant::now();
        let mut done = Done::default();
        (done.accounts, done.accounts_found) = self.accounts().await?;
        (done.follows, done.follows_found) = self.follows().await?;
        (done.posts, done.posts_found) = self.posts().await?;
        done.likes = self.likes().await?;
        done.reposts = self.reposts().await?;
        if self.0.options.wait {
            self.catch_up().await?;
        }
        done.refused = std::mem::take(&mut self.0.refused.lock());
        done.took = began.elapsed();
        Ok(done)
    }

    /// Runs work on the numbers below `count`, begun in order, as many at once as the options say.
    async fn in_parallel<F, Working>(&self, count: usize, work: F) -> Result<(), ImportError>
    where
        F: Fn(Self, usize) -> Working + Clone + Send + 'static,
        Working: Future<Output = Result<(), ImportError>> + Send,
    {
        let next = Arc::new(AtomicUsize::new(0));
        let mut workers: JoinSet<Result<(), ImportError>> = JoinSet::new();
        for _ in 0..self.0.options.concurrency.min(count) {
            let (import, next, work) = (self.clone(), next.clone(), work.clone());
            workers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok(());
                    }
                    work(import.clone(), number).await?;
                }
            });
        }
        // The first failure ends the rest: the set is dropped.
        while let Some(ended) = workers.join_next().await {
            ended.map_err(|error| ImportError::Worker(error.to_string()))??;
        }
        Ok(())
    }

    async fn accounts(&self) -> Result<(usize, usize), ImportError> {
        let progress = Arc::new(Progress::start("accounts", self.0.people.len()));
        let counting = progress.clone();
        self.in_parallel(self.0.people.len(), move |import, number| {
            let progress = counting.clone();
            async move {
                match import.account(number).await? {
                    true => progress.made(),
                    false => progress.found(1),
                }
                Ok(())
            }
        })
        .await?;
        Ok(progress.finish())
    }

    /// Makes an account; false if it was there.
    async fn account(&self, number: usize) -> Result<bool, ImportError> {
        let Shared {
            client,
            options,
            people,
            ..
        } = &*self.0;
        let person = &people[number];
        let mut body = serde_json::json!({
            "handle": person.handle,
            "name": people::name(number),
            "bio": people::bio(number),
        });
        if let Some(password) = options.password.as_ref().filter(|_| number == 0) {
            body["password"] = password.as_str().into();
        }
        let sending = Sending {
            token: Some(&options.token),
            body: Some(&body),
            ..Sending::default()
        };
        let answer = client
            .call(Method::POST, "/v1/identity/accounts", sending)
            .await?;
        if answer.status == StatusCode::CONFLICT {
            person.existed.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        answer.ok(&format!("account {}", person.handle))?;
        Ok(true)
    }

    async fn follows(&self) -> Result<(usize, usize), ImportError> {
        let progress = Arc::new(Progress::start("follows", self.0.graph.follows()));
        // Those with many friends first: each worker follows for one account at a time, and none may be left with
        // a thousand when the others are done.
        let mut order: Vec<usize> = (0..self.0.people.len()).collect();
        order.sort_by_key(|number| std::cmp::Reverse(self.0.graph.friends_of(*number).len()));
        let (counting, order) = (progress.clone(), Arc::new(order));
        self.in_parallel(order.len(), move |import, place| {
            let (progress, number) = (counting.clone(), order[place]);
            async move { import.follows_of(number, &progress).await }
        })
        .await?;
        Ok(progress.finish())
    }

    async fn follows_of(&self, number: usize, progress: &Progress) -> Result<(), ImportError> {
        let Shared {
            client,
            options,
            graph,
            people,
            ..
        } = &*self.0;
        let person = &people[number];
        let friends = graph.friends_of(number);
        let followed = match person.existed() && !friends.is_empty() {
            true => person.following(client, &options.token).await?,
            false => HashSet::new(),
        };
        let missing: Vec<&Person> = friends
            .iter()
            .map(|friend| &people[*friend as usize])
            .filter(|friend| !followed.contains(&friend.handle))
            .collect();
        progress.found(friends.len() - missing.len());
        for friend in missing {
            let path = format!("/v1/feed/follows/{}", friend.handle);
            let answer = person.call(client, &options.token, Method::PUT, &path).await?;
            answer.ok(&format!("{} follows {}", person.handle, friend.handle))?;
            progress.made();
        }
        Ok(())
    }

    async fn posts(&self) -> Result<(usize, usize), ImportError> {
        let count = self.0.texts.items.len();
        let progress = Arc::new(Progress::start("posts", count));
        let counting = progress.clone();
        self.in_parallel(count, move |import, index| {
            let progress = counting.clone();
            async move {
                match import.post(index).await? {
                    true => progress.made(),
                    false => progress.found(1),
                }
                Ok(())
            }
        })
        .await?;
        Ok(progress.finish())
    }

    /// Posts a text; false if it was there.
    async fn post(&self, index: usize) -> Result<bool, ImportError> {
        let Shared {
            client,
            options,
            texts,
            people,
            ..
        } = &*self.0;
        let (token, text) = (&options.token, &texts.items[index]);
        let person = &people[author_of(index, people.len())];
        let tag = hashtag(&text.topic);
        let comparable = comparable(&text.text, &tag);
        let key = format!("import-{}-{index}", texts.fingerprint);
        let content = text_to_post(text, options.hashtags);

        let mut posted = person.posted.lock().await;
        let mut attempt = 0;
        loop {
            let known = match posted.take() {
                Some(known) => posted.insert(known),
                None if person.existed() || attempt > 0 => posted.insert(self.posts_of(person).await?),
                None => posted.insert(Posted::new()),
            };
            if let Some(id) = known.get_mut(&comparable).and_then(Vec::pop) {
                self.0.post_ids.lock()[index] = Some(id);
                return Ok(attempt > 0);
            }
            let outcome = person.post_once(client, token, &content, &key).await;
            match outcome {
                Ok(answer) if answer.status == StatusCode::CREATED => {
                    self.0.post_ids.lock()[index] = Some(id_of(&answer)?);
                    return Ok(true);
                }
                Ok(answer) if is_refusal(answer.status) => {
                    let line = format!("text {} is not taken: {}", index + 1, answer.detail());
                    self.0.refused.lock().push(line);
                    return Ok(true);
                }
                Ok(answer) if !answer.is_transient() => {
                    answer.ok(&format!("text {} by {}", index + 1, person.handle))?;
                }
                // The answer is lost or says "later": before the text is sent again, look whether it is there.
                outcome => {
                    client.pause(attempt, outcome).await?;
                    *posted = None;
                }
            }
            attempt += 1;
        }
    }

    /// What an account has posted that no text of this run is known to be yet.
    async fn posts_of(&self, person: &Person) -> Result<Posted, ImportError> {
        let Shared {
            client,
            options,
            texts,
            people,
            ..
        } = &*self.0;
        // Hashtags are those of this account's texts, so only these need be tried.
        let own: Vec<usize> = (0..texts.items.len())
            .filter(|index| author_of(*index, people.len()) == person.number)
            .collect();
        let tags: HashSet<String> = own
            .iter()
            .map(|index| hashtag(&texts.items[*index].topic))
            .collect();
        let without_tag = |posted: &str| {
            let tag = tags
                .iter()
                .find(|tag| !tag.is_empty() && posted.ends_with(tag.as_str()));
            comparable(posted, tag.map_or("", String::as_str))
        };
        let mut posted = person.posts(client, &options.token, without_tag).await?;
        let known: HashSet<String> = {
            let ids = self.0.post_ids.lock();
            own.iter().filter_map(|index| ids[*index].clone()).collect()
        };
        for ids in posted.values_mut() {
            ids.retain(|id| !known.contains(id));
        }
        Ok(posted)
    }

    async fn likes(&self) -> Result<usize, ImportError> {
        let per_person = self.0.options.likes;
        if per_person == 0 {
            return Ok(0);
        }
        let posts_of = Arc::new(self.posts_by_person());
        let total = per_person * self.0.people.len();
        let progress = Arc::new(Progress::start("likes", total));
        let counting = progress.clone();
        self.in_parallel(self.0.people.len(), move |import, number| {
            let (progress, posts_of) = (counting.clone(), posts_of.clone());
            async move {
                let friends = import.0.graph.friends_of(number);
                for post in activity::liked_by(number, friends, &posts_of, per_person) {
                    import.react(number, post, "like").await?;
                    progress.made();
                }
                Ok(())
            }
        })
        .await?;
        Ok(progress.finish().0)
    }

    async fn reposts(&self) -> Result<usize, ImportError> {
        if self.0.options.reposts == 0 {
            return Ok(0);
        }
        let graph = &self.0.graph;
        let friends: Vec<&[u32]> = (0..graph.people())
            .map(|number| graph.friends_of(number))
            .collect();
        let pairs = Arc::new(activity::reposts(
            &friends,
            &self.posts_by_person(),
            self.0.options.reposts,
        ));
        let progress = Arc::new(Progress::start("reposts", pairs.len()));
        let counting = progress.clone();
        self.in_parallel(pairs.len(), move |import, place| {
            let (progress, (person, post)) = (counting.clone(), pairs[place]);
            async move {
                import.react(person, post, "repost").await?;
                progress.made();
                Ok(())
            }
        })
        .await?;
        Ok(progress.finish().0)
    }

    /// Likes or reposts a post, which is the same however often it is done.
    async fn react(&self, person: usize, post: usize, how: &str) -> Result<(), ImportError> {
        let Some(id) = self.0.post_ids.lock()[post].clone() else {
            return Ok(());
        };
        let person = &self.0.people[person];
        let path = format!("/v1/feed/posts/{id}/{how}");
        let answer = person
            .call(&self.0.client, &self.0.options.token, Method::PUT, &path)
            .await?;
        answer.ok(&format!("{} of {id} by {}", how, person.handle))?;
        Ok(())
    }

    fn posts_by_person(&self) -> Vec<Vec<usize>> {
        let people = self.0.people.len();
        let mut posts_of = vec![Vec::new(); people];
        for index in 0..self.0.texts.items.len() {
            posts_of[author_of(index, people)].push(index);
        }
        posts_of
    }

    /// Waits until every consumer of feed has handled what was told, and what they told in turn.
    async fn catch_up(&self) -> Result<(), ImportError> {
        let mut progress: Option<Progress> = None;
        let (mut most, mut idle) = (0, 0);
        while idle < 2 {
            let (client, token) = (&self.0.client, &self.0.options.token);
            // Where the log is beside the store, events are relayed to it before consumers can be behind with them.
            let overview: Inspected = client.read("/v1/admin/overview", token).await?;
            let relays = overview
                .consumers
                .iter()
                .filter(|consumer| consumer.group == "relay");
            let waiting: u64 = relays.map(|relay| relay.lag).sum();
            let inspected: Inspected = client.read("/v1/feed/inspect", token).await?;
            let lag = waiting
                + inspected
                    .consumers
                    .iter()
                    .map(|consumer| consumer.lag)
                    .sum::<u64>();
            idle = if lag == 0 { idle + 1 } else { 0 };
            most = most.max(lag as usize);
            let progress = progress.get_or_insert_with(|| Progress::start("fan-out", most));
            progress.set(most - (lag as usize).min(most));
            tokio::time::sleep(Duration::from_millis(if lag == 0 { 20 } else { 100 })).await;
        }
        if let Some(progress) = progress {
            progress.finish();
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Inspected {
    consumers: Vec<ConsumerLag>,
}

#[derive(Deserialize)]
struct ConsumerLag {
    group: String,
    lag: u64,
}

#[derive(Deserialize)]
struct Identified {
    id: String,
}

fn id_of(answer: &Answer) -> Result<String, ClientError> {
    answer.json::<Identified>().map(|identified| identified.id)
}

/// The text itself is not wanted, whoever sends it and when.
fn is_refusal(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
    )
}

/// The form in which a posted text and one to post are compared: without the hashtag that this import appends, and
/// without white space at its ends.
fn comparable(text: &str, tag: &str) -> String {
    let text = text.trim();
    text.strip_suffix(tag).unwrap_or(text).trim().to_owned()
}
