//! What every home timeline must be, computed from follows and posts alone.

use crate::support::Api;
use holon_chaos::oracle::World;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// Requests in flight.
const AT_ONCE: usize = 24;

/// Everybody's follows and posts, as the API lists them.
pub async fn read(api: &Api, handles: &[String]) -> World {
    let world = Arc::new(Mutex::new(World::default()));
    let filling = world.clone();
    for_each(
        handles,
        move |api_handle| {
            let world = filling.clone();
            async move {
                let (api, handle) = api_handle;
                let followees = api.list(&format!("/v1/feed/users/{handle}/following")).await;
                let posts = api
                    .list(&format!("/v1/feed/users/{handle}/posts?replies=true"))
                    .await;
                let follows = followees
                    .iter()
                    .map(|author| author["handle"].as_str().unwrap().to_owned());
                let posts = posts
                    .iter()
                    .map(|post| (id(post), post["text"].as_str().unwrap().to_owned()));
                let mut world = world.lock().unwrap();
                world.follows.insert(handle.clone(), follows.collect());
                world.posts.insert(handle, posts.collect());
            }
        },
        api,
    )
    .await;
    Arc::try_unwrap(world).unwrap().into_inner().unwrap()
}

/// What is wrong with a home: what is missing, whose it is, what the server says of it, and whether it stays so.
async fn explain(
    world: &World,
    administrator: &Api,
    own: &Api,
    handle: &str,
    home: &[u64],
    expected: &[u64],
) -> String {
    let again: Vec<u64> = own
        .list("/v1/feed/home?order=latest")
        .await
        .iter()
        .map(id)
        .collect();
    let mut said = format!(
        "home of {handle} has {} posts and not {}; read again it has {}, right: {}",
        home.len(),
        expected.len(),
        again.len(),
        again == expected
    );
    for missing in expected.iter().filter(|id| !home.contains(id)) {
        let author = world
            .posts
            .iter()
            .find(|(_, posts)| posts.iter().any(|(id, _)| id == missing));
        let author = author.map_or("?", |(handle, _)| handle);
        let followers = world.follows.values().filter(|to| to.contains(author)).count();
        let fanout = administrator
            .get(&format!("/v1/feed/inspect/posts/{missing}"))
            .await;
        said += &format!(
            "\n  missing at {:?}: {missing} by {author}, who has {followers} followers: {} {}",
            expected.iter().position(|id| id == missing),
            fanout.status,
            String::from_utf8_lossy(&fanout.body)
        );
    }
    for extra in home.iter().filter(|id| !expected.contains(id)) {
        said += &format!("\n  too much: {extra}");
    }
    said
}

/// Compares everybody's home timeline, page by page to its end, with the world's.
pub async fn every_home_is_right(administrator: &Api, world: &Arc<World>, handles: &[String]) {
    let world = Arc::clone(world);
    for_each(
        handles,
        move |(api, handle)| {
            let world = Arc::clone(&world);
            async move {
                let own = api.as_account(&handle).await;
                let home: Vec<u64> = own
                    .list("/v1/feed/home?order=latest")
                    .await
                    .iter()
                    .map(id)
                    .collect();
                let expected = world.home(&handle);
                if home != expected {
                    panic!("{}", explain(&world, &api, &own, &handle, &home, &expected).await);
                }
            }
        },
        administrator,
    )
    .await;
}

fn id(post: &serde_json::Value) -> u64 {
    post["id"].as_str().unwrap().parse().unwrap()
}

async fn for_each<F, Working>(handles: &[String], work: F, api: &Api)
where
    F: Fn((Api, String)) -> Working + Clone + Send + 'static,
    Working: Future<Output = ()> + Send,
{
    let handles: Arc<[String]> = handles.into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE.min(handles.len()) {
        let (handles, next, work, api) = (handles.clone(), next.clone(), work.clone(), api.clone());
        workers.spawn(async move {
            while let Some(handle) = handles.get(next.fetch_add(1, Ordering::Relaxed)) {
                work((api.clone(), handle.clone())).await;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.unwrap();
    }
}
