//! Making, finding and changing accounts, and what a crash in the middle leaves.

use crate::world::{Node, PASSWORD, World};
use async_trait::async_trait;
use holon_base::Tenant;
use holon_contracts::identity::{ACCOUNT_CREATED, ACCOUNTS_TOPIC, Accounts as _};
use holon_ports::{AroundStore, Batch, Committed, Partition, Store, StoreError};
use holon_web::System as _;
use serde_json::json;
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};
use tokio::sync::Notify;

#[tokio::test]
async fn an_account_is_made_seen_and_changed() {
    let world = World::start().await;
    let node = &world.node;
    let new = json!({"handle": "Ada_L", "name": "Ada 👩‍💻", "bio": "first", "password": PASSWORD});
    let made = node.post("/accounts").json(new).send().await;
    assert_eq!(made.header("location"), "/v1/identity/accounts/ada_l");
    let made = made.expect(201);
    assert_eq!(
        (&made["handle"], &made["name"]),
        (&json!("ada_l"), &json!("Ada 👩‍💻"))
    );
    assert!(made.get("roles").is_none() && made.get("password").is_none());

    let seen = node.get("/accounts/ADA_L").send().await;
    let tag = seen.header("etag").to_owned();
    assert_eq!(seen.expect(200), made);
    let again = node
        .get("/accounts/ada_l")
        .header("if-none-match", &tag)
        .send()
        .await;
    assert_eq!(again.status, 304);

    let token = node.login("ada_l").await.text("accessToken");
    let change = |name: &str, tag: &str| {
        node.patch("/me")
            .token(&token)
            .header("if-match", tag)
            .json(json!({"name": name}))
            .send()
    };
    let changed = change("Countess", &tag).await;
    assert_eq!(changed.body["name"], "Countess");
    assert_eq!(changed.body["bio"], "first", "what is not named stays");
    assert_eq!(change("Other", &tag).await.status, 412);
    assert_eq!(
        node.get("/accounts/ada_l").send().await.body["name"],
        "Countess",
        "seen at once"
    );
    let me = node.get("/me").token(&token).send().await.expect(200);
    assert_eq!(
        (&me["roles"], &me["permissions"], &me["tenant"]),
        (&json!(["member"]), &json!([]), &json!("main"))
    );
}

#[tokio::test]
async fn what_is_wrong_with_an_account_is_said() {
    let world = World::start().await;
    let node = &world.node;
    node.sign_up("taken").await;
    for (new, status, problem) in [
        (
            json!({"handle": "taken", "password": PASSWORD}),
            409,
            "handle-taken",
        ),
        (
            json!({"handle": "TAKEN", "password": PASSWORD}),
            409,
            "handle-taken",
        ),
        (json!({"handle": "a-b", "password": PASSWORD}), 400, "invalid"),
        (
            json!({"handle": "a".repeat(33), "password": PASSWORD}),
            400,
            "invalid",
        ),
        (json!({"handle": "new"}), 400, "invalid"),
        (
            json!({"handle": "new", "password": "password1"}),
            422,
            "weak-password",
        ),
        (
            json!({"handle": "new_person", "password": "new_person"}),
            422,
            "weak-password",
        ),
        (
            json!({"handle": "new", "password": PASSWORD, "name": "n".repeat(65)}),
            400,
            "invalid",
        ),
        (
            json!({"handle": "new", "password": PASSWORD, "bio": "b".repeat(281)}),
            400,
            "invalid",
        ),
    ] {
        let answer = node.post("/accounts").json(new.clone()).send().await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem()),
            (status, problem),
            "{new}"
        );
    }
    assert_eq!(node.get("/accounts/new").send().await.status, 404);
    let closed = Node::with_options(
        world.home.context(),
        holon_identity::IdentityOptions {
            open_sign_up: false,
            ..crate::world::options()
        },
    );
    let new = json!({"handle": "new", "password": PASSWORD});
    closed
        .post("/accounts")
        .json(new.clone())
        .send()
        .await
        .expect(403);
    closed
        .post("/accounts")
        .token(&world.admin)
        .json(new)
        .send()
        .await
        .expect(201);
}

#[tokio::test]
async fn of_many_who_want_a_handle_one_gets_it() {
    let world = World::start().await;
    let tries = (0..40).map(|_| {
        let new = json!({"handle": "wanted"});
        world.node.post("/accounts").token(&world.admin).json(new).send()
    });
    let answers = futures::future::join_all(tries).await;
    let made: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
    assert_eq!(made.len(), 1);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 201 || answer.problem() == "handle-taken")
    );
}

#[tokio::test]
async fn an_administrator_makes_many_accounts_and_lists_them_all() {
    let mut world = World::start().await;
    let tries = (0..500).map(|number| {
        let new = json!({"handle": format!("u{number}")});
        world.node.post("/accounts").token(&world.admin).json(new).send()
    });
    for answer in futures::future::join_all(tries).await {
        answer.expect(201);
    }
    world.settle().await;
    let inside = world
        .node
        .get("/inspect")
        .token(&world.admin)
        .send()
        .await
        .expect(200);
    assert_eq!(inside["accounts"], 501);
    let mut handles = HashSet::new();
    let mut path = "/accounts?limit=200".to_owned();
    let mut pages = 0;
    loop {
        let page = world.node.get(&path).token(&world.admin).send().await.expect(200);
        pages += 1;
        for item in page["items"].as_array().unwrap() {
            assert!(
                handles.insert(item["handle"].as_str().unwrap().to_owned()),
                "listed twice"
            );
        }
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/accounts?limit=200&cursor={next}");
    }
    assert_eq!((handles.len(), pages), (501, 3));
    assert!(world.node.identity.check().await.unwrap().is_empty());

    // The list can be thrown away.
    let rebuild = world.node.identity.clone().projections().remove(0);
    (rebuild.rebuild)().await.unwrap();
    let inside = world
        .node
        .get("/inspect")
        .token(&world.admin)
        .send()
        .await
        .expect(200);
    assert_eq!(inside["accounts"], 501);
}

#[tokio::test]
async fn other_systems_look_accounts_up() {
    let world = World::start().await;
    let tenant = Tenant::default();
    world.node.sign_up("ada").await;
    let identity = &world.node.identity;
    let ada = identity.by_handle(&tenant, "ada").await.unwrap().unwrap();
    assert_eq!(identity.by_handle(&tenant, "nobody").await.unwrap(), None);
    let nobody = holon_base::Id::from_u64(1);
    let found = identity
        .by_ids(&tenant, &[nobody, ada.id, nobody, ada.id])
        .await
        .unwrap();
    assert_eq!(found, [None, Some(ada.clone()), None, Some(ada.clone())]);
    let elsewhere = Tenant::new("other").unwrap();
    assert_eq!(identity.by_ids(&elsewhere, &[ada.id]).await.unwrap(), [None]);
    assert_eq!(identity.by_handle(&elsewhere, "ada").await.unwrap(), None);
}

/// A store on which something happens to a process.
struct Fateful {
    store: Arc<dyn Store>,
    fate: Fate,
}

enum Fate {
    /// It dies after some commits: what comes later does not happen.
    Dies { commits_left: AtomicI64 },
    /// It sleeps before it commits to an account.
    Sleeps { arrived: Notify, awake: Notify },
}

#[async_trait]
impl AroundStore for Fateful {
    fn inner(&self) -> &dyn Store {
        &*self.store
    }

    async fn commit(&self, partition: &Partition, batch: Batch) -> Result<Committed, StoreError> {
        match &self.fate {
            Fate::Dies { commits_left } => {
                if commits_left.fetch_sub(1, Ordering::SeqCst) <= 0 {
                    return Err(StoreError::Unavailable("the process died".into()));
                }
            }
            Fate::Sleeps { arrived, awake } => {
                if partition.entity.starts_with("account:") {
                    arrived.notify_one();
                    awake.notified().await;
                }
            }
        }
        self.store.commit(partition, batch).await
    }
}

#[tokio::test]
async fn a_crash_at_any_step_leaves_no_handle_behind_and_none_with_two_accounts() {
    for commits in 0..=2 {
        let world = World::start().await;
        let store = world.home.context().ports.store;
        let fate = Fate::Dies {
            commits_left: AtomicI64::new(commits),
        };
        let first = world.other_node(Some(Arc::new(Fateful { store, fate })));
        let new = json!({"handle": "ada", "password": PASSWORD});
        let died = first.post("/accounts").json(new.clone()).send().await;
        assert_eq!(died.status.as_u16(), if commits == 2 { 201 } else { 503 });

        let at_once = world.node.post("/accounts").json(new.clone()).send().await;
        world.advance(61);
        let later = world.node.post("/accounts").json(new).send().await;
        let outcome = (at_once.status.as_u16(), later.status.as_u16());
        let expected = match commits {
            0 => (201, 409),
            // The claim could be of somebody who is still at it.
            1 => (409, 201),
            _ => (409, 409),
        };
        assert_eq!(outcome, expected, "died after {commits} commits");
        world.node.login("ada").await;
        assert_eq!(accounts_told(&world, "ada").await, 1);
    }
}

async fn accounts_told(world: &World, handle: &str) -> usize {
    world.home.all_told().await;
    let log = world.home.context().ports.log;
    let mut told = 0;
    for partition in 0..8 {
        let events = log.read(ACCOUNTS_TOPIC, partition, 0, 1_000).await.unwrap();
        let is_it = |data: &[u8]| String::from_utf8_lossy(data).contains(&format!("\"{handle}\""));
        told += events
            .iter()
            .filter(|event| event.kind == ACCOUNT_CREATED && is_it(&event.data))
            .count();
    }
    told
}

#[tokio::test]
async fn one_who_slept_past_his_claim_does_not_get_the_handle_too() {
    let world = World::start().await;
    let store = world.home.context().ports.store;
    let fate = Fate::Sleeps {
        arrived: Notify::new(),
        awake: Notify::new(),
    };
    let fateful = Arc::new(Fateful { store, fate });
    let sleeper = world.other_node(Some(fateful.clone()));
    let Fate::Sleeps { arrived, awake } = &fateful.fate else {
        unreachable!()
    };
    let new = json!({"handle": "ada", "password": PASSWORD});
    let slept = async { sleeper.post("/accounts").json(new.clone()).send().await };
    let meanwhile = async {
        arrived.notified().await;
        world.advance(61);
        let other = world.node.post("/accounts").json(new.clone()).send().await;
        awake.notify_one();
        other
    };
    let (slept, other) = tokio::join!(slept, meanwhile);
    assert_eq!((slept.status.as_u16(), other.status.as_u16()), (409, 201));
    assert_eq!(accounts_told(&world, "ada").await, 1);
    assert_eq!(
        world.node.get("/accounts/ada").send().await.body["id"],
        other.body["id"]
    );
}
