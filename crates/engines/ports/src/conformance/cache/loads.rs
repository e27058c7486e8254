//! One load for all who ask, whatever happens meanwhile.

use super::super::drive::{eventually, soon};
use super::Subject;
use crate::CacheError;
use crate::cache::{LoadPolicy, Loaded, Loader};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use holon_base::ErrorKind;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Semaphore;

/// A loader that counts its runs.
pub(super) fn counted(runs: &Arc<AtomicUsize>, answer: Loaded) -> Loader {
    let runs = Arc::clone(runs);
    Box::new(move || {
        runs.fetch_add(1, Ordering::SeqCst);
        futures::future::ready(answer).boxed()
    })
}

/// A loader that says when it began and goes on when it is let.
fn gated(began: &Arc<Semaphore>, gate: &Arc<Semaphore>, answer: Loaded) -> Loader {
    let (began, gate) = (Arc::clone(began), Arc::clone(gate));
    Box::new(move || -> BoxFuture<'static, Loaded> {
        async move {
            began.add_permits(1);
            gate.acquire().await.unwrap().forget();
            answer
        }
        .boxed()
    })
}

fn closed() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(0))
}

pub(super) fn some(text: &'static str) -> Loaded {
    Ok(Some(Bytes::from_static(text.as_bytes())))
}

pub(super) async fn one_caller_loads_and_the_others_wait(Subject { cache, time, prefix }: Subject) {
    let runs = Arc::new(AtomicUsize::new(0));
    let asked = Arc::new(AtomicUsize::new(0));
    let gate = closed();
    let policy = LoadPolicy::fresh(time.units(100));
    let callers = (0..100).map(|_| {
        let (cache, key) = (Arc::clone(&cache), prefix.clone());
        let (runs, asked, gate) = (Arc::clone(&runs), Arc::clone(&asked), Arc::clone(&gate));
        tokio::spawn(async move {
            let loader: Loader = Box::new(move || {
                async move {
                    let run = runs.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    Ok(Some(Bytes::from(run.to_string())))
                }
                .boxed()
            });
            asked.fetch_add(1, Ordering::SeqCst);
            cache.load(&key, policy, loader).await.unwrap()
        })
    });
    let callers: Vec<_> = callers.collect();
    eventually("all to ask", || async { asked.load(Ordering::SeqCst) == 100 }).await;
    eventually("the loader to run", || async { runs.load(Ordering::SeqCst) == 1 }).await;
    gate.add_permits(100);
    for answer in soon("all answers", join_all(callers)).await {
        assert_eq!(answer.unwrap(), Some(Bytes::from_static(b"0")));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

pub(super) async fn a_load_goes_on_when_its_caller_goes_away(Subject { cache, time, prefix }: Subject) {
    let (began, gate) = (closed(), closed());
    let policy = LoadPolicy::fresh(time.units(100));
    let caller = tokio::spawn({
        let (cache, key) = (Arc::clone(&cache), prefix.clone());
        let loader = gated(&began, &gate, some("first"));
        async move { cache.load(&key, policy, loader).await }
    });
    soon("the loader to run", began.acquire()).await.unwrap().forget();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    let runs = Arc::new(AtomicUsize::new(0));
    let second = tokio::spawn({
        let (cache, key) = (Arc::clone(&cache), prefix.clone());
        let loader = counted(&runs, some("second"));
        async move { cache.load(&key, policy, loader).await }
    });
    gate.add_permits(1);
    assert_eq!(soon("the answer", second).await.unwrap(), some("first"));
    assert_eq!(runs.load(Ordering::SeqCst), 0);
}

pub(super) async fn what_was_deleted_does_not_come_back(
    Subject {
        cache,
        time,
        prefix: key,
    }: Subject,
) {
    let (began, gate) = (closed(), closed());
    let policy = LoadPolicy::fresh(time.units(100));
    let early = tokio::spawn({
        let (cache, key) = (Arc::clone(&cache), key.clone());
        let loader = gated(&began, &gate, some("old"));
        async move { cache.load(&key, policy, loader).await }
    });
    soon("the loader to run", began.acquire()).await.unwrap().forget();
    cache.delete(&key).await.unwrap();
    // Who asks after the deletion is not answered by the load from before it.
    let runs = Arc::new(AtomicUsize::new(0));
    let late = soon(
        "a load anew",
        cache.load(&key, policy, counted(&runs, some("new"))),
    )
    .await;
    assert_eq!(late, some("new"));
    gate.add_permits(1);
    soon("the early caller", early).await.unwrap().unwrap();
    assert_ne!(cache.get(&key).await, some("old"));

    // The same without anybody asking in between.
    let early = tokio::spawn({
        let (cache, key) = (Arc::clone(&cache), format!("{key}:alone"));
        let loader = gated(&began, &gate, some("old"));
        async move { cache.load(&key, policy, loader).await }
    });
    soon("the loader to run", began.acquire()).await.unwrap().forget();
    cache.delete(&format!("{key}:alone")).await.unwrap();
    gate.add_permits(1);
    soon("the early caller", early).await.unwrap().unwrap();
    assert_eq!(cache.get(&format!("{key}:alone")).await, Ok(None));
}

pub(super) async fn what_was_set_is_not_replaced_by_an_older_load(
    Subject {
        cache,
        time,
        prefix: key,
    }: Subject,
) {
    let (began, gate) = (closed(), closed());
    let policy = LoadPolicy::fresh(time.units(100));
    let early = tokio::spawn({
        let (cache, key) = (Arc::clone(&cache), key.clone());
        let loader = gated(&began, &gate, some("old"));
        async move { cache.load(&key, policy, loader).await }
    });
    soon("the loader to run", began.acquire()).await.unwrap().forget();
    cache
        .set(&key, Bytes::from_static(b"new"), time.units(100))
        .await
        .unwrap();
    gate.add_permits(1);
    soon("the early caller", early).await.unwrap().unwrap();
    assert_ne!(cache.get(&key).await, some("old"));
}

pub(super) async fn a_failed_load_is_told_to_all_and_not_kept(
    Subject {
        cache,
        time,
        prefix: key,
    }: Subject,
) {
    let (began, gate) = (closed(), closed());
    let policy = LoadPolicy {
        negative: time.units(100),
        ..LoadPolicy::fresh(time.units(100))
    };
    let failure = CacheError::Load {
        kind: ErrorKind::NotFound,
        message: "no such thing".into(),
    };
    let first = tokio::spawn({
        let (cache, key) = (Arc::clone(&cache), key.clone());
        let loader = gated(&began, &gate, Err(failure.clone()));
        async move { cache.load(&key, policy, loader).await }
    });
    soon("the loader to run", began.acquire()).await.unwrap().forget();
    gate.add_permits(1);
    assert_eq!(soon("the error", first).await.unwrap(), Err(failure));
    let runs = Arc::new(AtomicUsize::new(0));
    let again = cache.load(&key, policy, counted(&runs, some("there now"))).await;
    assert_eq!(again, some("there now"));
}

pub(super) async fn a_loader_that_panics_is_an_error(
    Subject {
        cache,
        time,
        prefix: key,
    }: Subject,
) {
    let policy = LoadPolicy::fresh(time.units(100));
    let loader: Loader = Box::new(|| async { panic!("a loader that panics, on purpose") }.boxed());
    let answer = soon("an answer", cache.load(&key, policy, loader)).await;
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Internal);
    let runs = Arc::new(AtomicUsize::new(0));
    assert_eq!(
        cache.load(&key, policy, counted(&runs, some("well"))).await,
        some("well")
    );
}

pub(super) async fn expiry_is_spread_within_its_bounds(subject: Subject) {
    let Subject { cache, time, .. } = &subject;
    let policy = LoadPolicy {
        jitter: 0.5,
        ..LoadPolicy::fresh(time.units(20))
    };
    let keys: Vec<String> = (0..64).map(|i| subject.key(&i.to_string())).collect();
    let runs = Arc::new(AtomicUsize::new(0));
    for key in &keys {
        cache
            .load(key, policy, counted(&runs, some("kept")))
            .await
            .unwrap();
    }
    let left = async || {
        let kept = cache.get_many(&keys).await.unwrap();
        kept.into_iter().flatten().count()
    };
    time.pass(time.units(9)).await;
    assert!(left().await >= 58, "nothing dies before half its time");
    time.pass(time.units(6)).await;
    let half_way = left().await;
    assert!(
        (8..=56).contains(&half_way),
        "{half_way} of 64 half-way through the jitter"
    );
    time.pass(time.units(5)).await;
    assert_eq!(left().await, 0);
}
