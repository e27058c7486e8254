//! Export and erasure, and a look for what is left.

use crate::world::{PASSWORD, World};
use async_trait::async_trait;
use holon_base::Tenant;
use holon_contracts::{
    identity::Accounts as _,
    person::{Person, PersonalData, PersonalDataError},
};
use holon_identity::model::TABLES;
use holon_ports::Value as StoredValue;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;

/// A system that keeps a diary of everybody and cannot erase at the first try.
#[derive(Default)]
struct Diary {
    erased: Mutex<Vec<Person>>,
    failures: Mutex<u32>,
}

#[async_trait]
impl PersonalData for Diary {
    fn system(&self) -> &'static str {
        "diary"
    }

    async fn export(&self, person: &Person) -> Result<Value, PersonalDataError> {
        Ok(json!({"of": person.handle}))
    }

    async fn erase(&self, person: &Person) -> Result<(), PersonalDataError> {
        let mut failures = self.failures.lock();
        if *failures < 2 {
            *failures += 1;
            return Err(PersonalDataError {
                system: "diary",
                message: "the pen is lost".into(),
            });
        }
        self.erased.lock().push(person.clone());
        Ok(())
    }
}

/// The tables whose rows hold one of these texts, in keys or values.
async fn found_in(world: &World, texts: &[&str]) -> Vec<(String, String)> {
    let store = world.home.context().ports.store;
    let mut found = Vec::new();
    for table in TABLES {
        let mut cursor = None;
        loop {
            let (rows, next) = store.walk(table, cursor, 100).await.unwrap();
            for (partition, row) in rows {
                let value = match row.value {
                    StoredValue::Json(bytes) | StoredValue::Binary(bytes) => bytes,
                    StoredValue::Counter(_) => Default::default(),
                };
                let sort = String::from_utf8_lossy(&row.sort);
                let whole = format!("{} {sort} {}", partition.entity, String::from_utf8_lossy(&value));
                for text in texts {
                    if whole.contains(text) {
                        found.push((table.0.to_owned(), (*text).to_owned()));
                    }
                }
            }
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

#[tokio::test]
async fn an_erased_account_is_gone_at_once_and_leaves_nothing_behind() {
    let mut world = World::start().await;
    let diary = Arc::new(Diary::default());
    world.node.identity.register_personal_data(diary.clone());
    let new =
        json!({"handle": "leaving_soon", "name": "Vera Leaving", "bio": "I was here", "password": PASSWORD});
    let id = world
        .node
        .post("/accounts")
        .from("203.0.113.77")
        .json(new)
        .send()
        .await
        .expect(201)["id"]
        .clone();
    let id = id.as_str().unwrap().to_owned();
    let login = json!({"handle": "leaving_soon", "password": PASSWORD});
    let login = world
        .node
        .post("/login")
        .from("203.0.113.77")
        .header("user-agent", "veras-phone")
        .json(login);
    let login = login.send().await;
    let (token, refresh) = (login.text("accessToken"), login.text("refreshToken"));
    let key = json!({"name": "veras key", "scopes": ["identity"]});
    let key = world
        .node
        .post("/me/keys")
        .token(&token)
        .json(key)
        .send()
        .await
        .text("key");
    let minted = world
        .node
        .post("/accounts/leaving_soon/tokens")
        .token(&world.admin)
        .json(json!({}))
        .send()
        .await;
    let minted = minted.text("accessToken");
    world.settle().await;

    let exported = world.node.get("/me/export").token(&token).send().await;
    assert!(exported.header("content-disposition").starts_with("attachment"));
    let exported = exported.expect(200);
    assert_eq!(exported["account"]["bio"], "I was here");
    assert_eq!(exported["systems"]["diary"]["of"], "leaving_soon");
    let own = exported["systems"]["identity"].to_string();
    for text in [
        "Vera Leaving",
        "veras-phone",
        "veras key",
        "203.0.113.77",
        "login.succeeded",
    ] {
        assert!(own.contains(text), "{text} in {own}");
    }
    for secret in ["argon2", "hash", "salt"] {
        assert!(!own.contains(secret), "{secret} in {own}");
    }
    let traces = [
        "leaving_soon",
        "Vera Leaving",
        "I was here",
        "203.0.113.77",
        "veras-phone",
        "veras key",
        "argon2",
    ];
    let before = found_in(&world, &traces).await;
    assert!(
        traces
            .iter()
            .all(|trace| before.iter().any(|(_, text)| text == trace)),
        "{before:?}"
    );

    let erase = |password: Value| {
        world
            .node
            .delete("/me")
            .token(&token)
            .json(json!({"password": password}))
            .send()
    };
    world.node.delete("/me").token(&token).send().await.expect(400);
    erase(json!("not it at all")).await.expect(403);
    erase(json!(PASSWORD)).await.expect(202);

    // At once, before any consumer has done anything:
    for dead in [&token, &key, &minted] {
        world.node.get("/me").token(dead).send().await.expect(401);
    }
    let refresh = json!({"refreshToken": refresh});
    world
        .node
        .post("/tokens/refresh")
        .json(refresh)
        .send()
        .await
        .expect(401);
    world.node.get("/accounts/leaving_soon").send().await.expect(404);
    let login = json!({"handle": "leaving_soon", "password": PASSWORD});
    world
        .node
        .post("/login")
        .from("198.51.100.1")
        .json(login.clone())
        .send()
        .await
        .expect(401);
    let tenant = Tenant::default();
    assert_eq!(
        world
            .node
            .identity
            .by_ids(&tenant, &[id.parse().unwrap()])
            .await
            .unwrap(),
        [None]
    );

    // Behind it, again and again until each system has:
    world.settle().await;
    assert_eq!(*diary.failures.lock(), 2);
    assert_eq!(diary.erased.lock().len(), 1);
    assert_eq!(diary.erased.lock()[0].handle, "leaving_soon");
    assert_eq!(found_in(&world, &traces).await, []);
    assert!(
        holon_web::System::check(&*world.node.identity)
            .await
            .unwrap()
            .is_empty()
    );

    // What was done is still known, by id alone; and the handle is nobody's, ever.
    let audit = world
        .node
        .get(&format!("/audit?account={id}"))
        .token(&world.admin)
        .send()
        .await
        .expect(200);
    assert!(audit["items"].as_array().unwrap().len() >= 4);
    let taken = world.node.post("/accounts").json(login).send().await;
    assert_eq!(taken.problem(), "handle-taken");
    let inside = world
        .node
        .get("/inspect")
        .token(&world.admin)
        .send()
        .await
        .expect(200);
    assert_eq!(inside["accounts"], 1, "the administrator");
}

#[tokio::test]
async fn what_was_on_its_way_to_the_audit_log_leaves_nothing_either() {
    let mut world = World::start().await;
    let token = world.node.member("ada").await;
    let login = json!({"handle": "ada", "password": PASSWORD});
    world
        .node
        .post("/login")
        .from("203.0.113.78")
        .json(login)
        .send()
        .await
        .expect(200);
    // Nothing has been laid down yet when the erasure begins, and the consumers start in any order.
    world
        .node
        .delete("/me")
        .token(&token)
        .json(json!({"password": PASSWORD}))
        .send()
        .await
        .expect(202);
    world.settle().await;
    assert_eq!(found_in(&world, &["203.0.113.78", "\"ada\""]).await, []);
}

#[tokio::test]
async fn an_administrator_is_not_erased_by_accident() {
    let world = World::start().await;
    world
        .node
        .delete("/me")
        .token(&world.admin)
        .send()
        .await
        .expect(409);
    world.node.get("/me").token(&world.admin).send().await.expect(200);
}
