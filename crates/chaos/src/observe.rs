//! What the nodes show: lists, counts and homes of some people, through public HTTP.

use crate::{
    client::{Person, id_of},
    http::{Http, Request},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Requests at once.
const AT_ONCE: usize = 6;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenPost {
    pub id: u64,
    pub author: String,
    pub text: String,
    pub likes: u64,
    /// By the one who looks.
    pub is_liked: bool,
}

/// What one person's pages show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenPerson {
    pub following: Vec<String>,
    pub followers: Vec<String>,
    pub posts: Vec<SeenPost>,
    pub home: Vec<SeenPost>,
    pub post_count: u64,
    pub follower_count: u64,
    pub following_count: u64,
}

/// What one node shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    pub node: String,
    pub people: BTreeMap<String, SeenPerson>,
    /// Who likes the posts; looked up where it was asked for.
    pub likers: BTreeMap<u64, Vec<String>>,
}

/// Looks at everybody through one node, and at who likes these posts.
///
/// # Errors
/// What could not be read, and why.
pub async fn look(
    http: &Http,
    node: &str,
    people: &[Person],
    likes_of: &BTreeSet<u64>,
) -> Result<Seen, String> {
    let seen: BTreeMap<String, SeenPerson> = stream::iter(people)
        .map(|person| async move {
            let seen = look_at(http, node, person).await?;
            Ok::<_, String>((person.handle.clone(), seen))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let there: BTreeSet<u64> = seen
        .values()
        .flat_map(|person| person.posts.iter().map(|post| post.id))
        .collect();
    let token = people.first().map_or("", |person| person.token.as_str());
    let likers = stream::iter(likes_of.intersection(&there))
        .map(|post| async move {
            let path = format!("/v1/feed/posts/{post}/likes");
            let people = list(http, node, token, &path).await?;
            Ok::<_, String>((*post, handles(&people)))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    Ok(Seen {
        node: node.to_owned(),
        people: seen,
        likers,
    })
}

async fn look_at(http: &Http, node: &str, person: &Person) -> Result<SeenPerson, String> {
    let Person { handle, token } = person;
    let of = |what: &str| format!("/v1/feed/users/{handle}/{what}");
    let posts_path = of("posts?replies=true");
    let (following_path, followers_path) = (of("following"), of("followers"));
    let profile_path = format!("/v1/feed/users/{handle}");
    let (following, followers, posts, home, profile) = futures::try_join!(
        list(http, node, token, &following_path),
        list(http, node, token, &followers_path),
        list(http, node, token, &posts_path),
        list(http, node, token, "/v1/feed/home?order=latest"),
        read(http, node, token, &profile_path),
    )?;
    let count = |name: &str| profile["counts"][name].as_u64().unwrap_or(u64::MAX);
    Ok(SeenPerson {
        following: handles(&following),
        followers: handles(&followers),
        posts: posts.iter().map(post).collect::<Result<_, _>>()?,
        home: home.iter().map(post).collect::<Result<_, _>>()?,
        post_count: count("posts"),
        follower_count: count("followers"),
        following_count: count("following"),
    })
}

fn post(document: &Value) -> Result<SeenPost, String> {
    let whole = || {
        Some(SeenPost {
            id: id_of(document)?,
            author: document["author"]["handle"].as_str()?.to_owned(),
            text: document["text"].as_str()?.to_owned(),
            likes: document["counts"]["likes"].as_u64()?,
            is_liked: document["viewer"]["liked"].as_bool()?,
        })
    };
    whole().ok_or_else(|| format!("{document} is no post"))
}

fn handles(people: &[Value]) -> Vec<String> {
    let handles = people.iter().filter_map(|person| person["handle"].as_str());
    handles.map(str::to_owned).collect()
}

async fn read(http: &Http, node: &str, token: &str, path: &str) -> Result<Value, String> {
    let answer = http.send(node, token, &Request::get(path), PATIENCE).await;
    let answer = answer.map_err(|error| format!("{node}{path}: {error}"))?;
    if !answer.is_success() {
        return Err(format!(
            "{node}{path}: {} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        ));
    }
    Ok(answer.json())
}

/// All items of a list.
async fn list(http: &Http, node: &str, token: &str, path: &str) -> Result<Vec<Value>, String> {
    let joint = if path.contains('?') { '&' } else { '?' };
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut page = read(http, node, token, &format!("{path}{joint}limit=200{cursor}")).await?;
        let Some(Value::Array(some)) = page.get_mut("items").map(Value::take) else {
            return Err(format!("{node}{path}: the answer is no list"));
        };
        items.extend(some);
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(items),
        }
    }
}
