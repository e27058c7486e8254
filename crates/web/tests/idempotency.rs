//! Writes with an `Idempotency-Key`, over a real store.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use axum::Router;
use common::{Toy, post, toy_app};
use holon_base::{ManualClock, Tenant, Timestamp};
use holon_contracts::person::{Person, PersonalData as _};
use holon_testkit::TestHome;
use holon_web::idempotency::KeptAnswers;
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

const ALICE: (&str, &str) = ("authorization", "Bearer alice");
const BOB: (&str, &str) = ("authorization", "Bearer bob");
const KEY: (&str, &str) = ("idempotency-key", "4f6e-1");
const THINGS: &str = "/v1/toy/things";

struct World {
    home: TestHome,
    clock: ManualClock,
    toy: Arc<Toy>,
    router: Router,
}

impl World {
    async fn start() -> Self {
        let clock = ManualClock::new(Timestamp::from_millis(1_800_000_000_000));
        let home = TestHome::with_clock(clock.clone()).await;
        home.create(&[holon_web::idempotency::TABLE], &[]).await;
        let toy = Arc::<Toy>::default();
        let store = Arc::clone(&home.context().ports.store);
        let app = toy_app(&toy).idempotency(store, home.clock()).build().unwrap();
        Self {
            router: app.router(),
            home,
            clock,
            toy,
        }
    }

    fn made(&self) -> u64 {
        self.toy.made.load(SeqCst)
    }
}

#[tokio::test]
async fn the_same_request_is_done_once_and_answered_alike() {
    let world = World::start().await;
    let body = r#"{"name": "a"}"#;
    let first = post(&world.router, THINGS, &[ALICE, KEY], body).await;
    assert_eq!(first.status, 201);
    let again = post(&world.router, THINGS, &[ALICE, KEY], body).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    for header in ["location", "etag", "content-type"] {
        assert_eq!(again.header(header), first.header(header), "{header}");
    }
    assert_eq!(
        (
            first.header("idempotency-replayed"),
            again.header("idempotency-replayed")
        ),
        ("", "true")
    );
    assert_ne!(first.header("x-request-id"), again.header("x-request-id"));
    assert_eq!(world.made(), 1);

    let other = post(&world.router, THINGS, &[ALICE, KEY], r#"{"name": "b"}"#).await;
    assert_eq!(other.status, 422);
    assert_eq!(other.problem()["type"], "/problems/idempotency-key-reused");
    let elsewhere = post(&world.router, "/v1/toy/keys", &[ALICE, KEY], body).await;
    assert_eq!(elsewhere.status, 422, "another path is another request");
    assert_eq!(
        post(&world.router, THINGS, &[BOB, KEY], body).await.status,
        201,
        "keys are the caller's own"
    );
    assert_eq!(world.made(), 2);

    world.clock.advance(Duration::from_secs(24 * 3_600 + 1));
    assert_eq!(
        post(&world.router, THINGS, &[ALICE, KEY], body).await.status,
        201,
        "forgotten after a day"
    );
    assert_eq!(world.made(), 3);
}

#[tokio::test]
async fn a_refusal_is_replayed_and_a_failure_is_tried_again() {
    let world = World::start().await;
    let refused = post(&world.router, THINGS, &[ALICE, KEY], r#"{"name": ""}"#).await;
    let again = post(&world.router, THINGS, &[ALICE, KEY], r#"{"name": ""}"#).await;
    assert_eq!((refused.status.as_u16(), again.status.as_u16()), (400, 400));
    assert_eq!(again.header("idempotency-replayed"), "true");
    let failing = [ALICE, ("idempotency-key", "two")];
    for made in 1..=2 {
        let failed = post(&world.router, THINGS, &failing, r#"{"name": "defect"}"#).await;
        assert_eq!((failed.status.as_u16(), world.made()), (500, made));
    }
}

#[tokio::test]
async fn while_it_is_done_a_second_one_is_told_to_wait() {
    let world = World::start().await;
    let router = world.router.clone();
    let running = tokio::spawn(async move { post(&router, "/v1/toy/gate", &[ALICE, KEY], "").await });
    world.toy.entered.notified().await;
    let second = post(&world.router, "/v1/toy/gate", &[ALICE, KEY], "").await;
    assert_eq!(second.status, 409);
    assert_eq!(second.header("retry-after"), "1");
    second.problem();
    world.toy.gate.notify_one();
    assert_eq!(running.await.unwrap().status, 200);
    let third = post(&world.router, "/v1/toy/gate", &[ALICE, KEY], "").await;
    assert_eq!((third.status.as_u16(), &third.body[..]), (200, &b"1"[..]));
}

#[tokio::test]
async fn the_work_goes_on_when_its_client_goes_away() {
    let world = World::start().await;
    let router = world.router.clone();
    let running = tokio::spawn(async move { post(&router, "/v1/toy/gate", &[ALICE, KEY], "").await });
    world.toy.entered.notified().await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    world.toy.gate.notify_one();
    let replayed = holon_testkit::eventually("the answer to be kept", holon_testkit::PATIENCE, || async {
        let answer = post(&world.router, "/v1/toy/gate", &[ALICE, KEY], "").await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(replayed.header("idempotency-replayed"), "true");
    assert_eq!(world.made(), 1);
}

#[tokio::test]
async fn a_mark_left_by_a_crash_does_not_block_for_ever() {
    let world = World::start().await;
    let router = world.router.clone();
    // It never ends, as if its process had died.
    let stuck = tokio::spawn(async move { post(&router, "/v1/toy/gate", &[ALICE, KEY], "").await });
    world.toy.entered.notified().await;
    assert_eq!(
        post(&world.router, "/v1/toy/gate", &[ALICE, KEY], "")
            .await
            .status,
        409
    );
    world.clock.advance(Duration::from_secs(120));
    let router = world.router.clone();
    let retry = tokio::spawn(async move { post(&router, "/v1/toy/gate", &[ALICE, KEY], "").await });
    world.toy.entered.notified().await;
    world.toy.gate.notify_waiters();
    assert_eq!(retry.await.unwrap().status, 200);
    stuck.abort();
}

#[tokio::test]
async fn secrets_are_not_kept_and_bad_keys_are_refused() {
    let world = World::start().await;
    let first = post(&world.router, "/v1/toy/keys", &[ALICE, KEY], "").await;
    assert_eq!(&first.body[..], b"hk_secret");
    let again = post(&world.router, "/v1/toy/keys", &[ALICE, KEY], "").await;
    assert_eq!(again.status, 409);
    assert_eq!(again.problem()["type"], "/problems/answer-not-kept");
    assert_eq!(world.made(), 1);
    for bad in ["", "a b", &"x".repeat(256)] {
        let answer = post(
            &world.router,
            THINGS,
            &[ALICE, ("idempotency-key", bad)],
            r#"{"name": "a"}"#,
        )
        .await;
        assert_eq!(answer.status, 400, "{bad:?}");
        assert_eq!(answer.problem()["field"], "Idempotency-Key");
    }
}

#[tokio::test]
async fn who_is_erased_leaves_no_answers() {
    let world = World::start().await;
    let body = r#"{"name": "a"}"#;
    for caller in [ALICE, BOB] {
        for n in 0..20 {
            let key = format!("key-{n}");
            let key = ("idempotency-key", key.as_str());
            assert_eq!(
                post(&world.router, THINGS, &[caller, key], body).await.status,
                201
            );
        }
    }
    let answers = KeptAnswers(Arc::clone(&world.home.context().ports.store));
    let alice = Person {
        tenant: Tenant::default(),
        id: common::caller("alice").account,
        handle: "alice".into(),
    };
    let export = answers.export(&alice).await.unwrap();
    assert_eq!(export["keys"].as_array().unwrap().len(), 20);
    answers.erase(&alice).await.unwrap();
    assert_eq!(
        answers.export(&alice).await.unwrap()["keys"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    let before = world.made();
    let key = ("idempotency-key", "key-3");
    post(&world.router, THINGS, &[ALICE, key], body).await;
    post(&world.router, THINGS, &[BOB, key], body).await;
    assert_eq!(
        world.made(),
        before + 1,
        "alice's is done anew and bob's is replayed"
    );
}
