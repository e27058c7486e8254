//! API keys, minted tokens, signing keys.

use crate::world::{Node, World};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Value, json};

async fn make_key(node: &Node, token: &str, scopes: &[&str]) -> Value {
    let new = json!({"name": "for a script", "scopes": scopes});
    node.post("/me/keys")
        .token(token)
        .json(new)
        .send()
        .await
        .expect(201)
}

#[tokio::test]
async fn a_key_is_shown_once_and_does_what_its_scopes_name() {
    let world = World::start().await;
    let node = &world.node;
    let token = node.member("ada").await;
    let made = make_key(node, &token, &["identity"]).await;
    let key = made["key"].as_str().unwrap().to_owned();
    assert!(key.starts_with("hk_main.") && key.starts_with(made["prefix"].as_str().unwrap()));
    let listed = node.get("/me/keys").token(&token).send().await.expect(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert!(!listed.to_string().contains(&key));

    node.get("/me").token(&key).send().await.expect(200);
    node.get("/me").header("x-api-key", &key).send().await.expect(200);
    // A key for another system opens nothing here.
    let elsewhere = make_key(node, &token, &["feed"]).await["key"]
        .as_str()
        .unwrap()
        .to_owned();
    node.get("/me").token(&elsewhere).send().await.expect(403);
    // What only a person may do.
    for (method, path, body) in [
        ("POST", "/me/keys", json!({"name": "more", "scopes": ["feed"]})),
        (
            "PUT",
            "/me/password",
            json!({"current": "x", "new": "something long"}),
        ),
        ("DELETE", "/me", json!({})),
    ] {
        node.call(method, path)
            .token(&key)
            .json(body)
            .send()
            .await
            .expect(403);
    }
    // A scope that the account does not have.
    let more = json!({"name": "more", "scopes": ["identity.audit.read"]});
    node.post("/me/keys")
        .token(&token)
        .json(more)
        .send()
        .await
        .expect(403);
    let all = json!({"name": "more", "scopes": ["*"]});
    node.post("/me/keys")
        .token(&token)
        .json(all)
        .send()
        .await
        .expect(403);

    let path = format!("/me/keys/{}", made["id"].as_str().unwrap());
    node.delete(&path).token(&token).send().await.expect(204);
    node.get("/me").token(&key).send().await.expect(401);
    node.delete(&path).token(&token).send().await.expect(404);
    for bad in ["hk_", "hk_main.1.2_x", &format!("{elsewhere}x")] {
        node.get("/me").token(bad).send().await.expect(401);
    }
}

#[tokio::test]
async fn a_key_loses_what_its_account_loses_and_notes_its_last_use() {
    let world = World::start().await;
    let node = &world.node;
    let token = node.member("ada").await;
    world.permit("ada", &["identity.audit.read"]).await;
    let key = make_key(node, &token, &["identity.audit.read"]).await["key"]
        .as_str()
        .unwrap()
        .to_owned();
    node.get("/audit").token(&key).send().await.expect(200);
    node.get("/me").token(&key).send().await.expect(403);
    let listed = node.get("/me/keys").token(&token).send().await.expect(200);
    assert_eq!(listed["items"][0]["lastUsed"], "2026-03-10T12:00:00.000Z");
    world.permit("ada", &["identity.accounts.list"]).await;
    node.get("/audit").token(&key).send().await.expect(403);
}

#[tokio::test]
async fn an_administrator_mints_tokens_that_the_owner_sees_and_ends() {
    let mut world = World::start().await;
    let node = &world.node;
    let own = node.member("ada").await;
    let mint = |token: &str, handle: &str, body: Value| {
        node.post(&format!("/accounts/{handle}/tokens"))
            .token(token)
            .json(body)
            .send()
    };
    let minted = mint(&world.admin, "ada", json!({"expiresIn": 60}))
        .await
        .expect(200);
    assert_eq!(minted["expiresIn"], 60);
    let token = minted["accessToken"].as_str().unwrap().to_owned();
    let me = node.get("/me").token(&token).send().await.expect(200);
    assert_eq!(me["handle"], "ada");
    let sessions = node.get("/me/sessions").token(&own).send().await.expect(200);
    assert!(sessions["items"][0]["mintedBy"].is_string());
    // It makes nothing that outlives it.
    let new = json!({"name": "lasting", "scopes": ["feed"]});
    node.post("/me/keys")
        .token(&token)
        .json(new)
        .send()
        .await
        .expect(403);
    world.advance(60);
    node.get("/me").token(&token).send().await.expect(401);

    let minted = mint(&world.admin, "ada", json!({})).await.expect(200);
    let token = minted["accessToken"].as_str().unwrap().to_owned();
    node.post("/logout").token(&token).send().await.expect(204);
    node.get("/me").token(&token).send().await.expect(401);

    for (body, status) in [(json!({"expiresIn": 0}), 400), (json!({"expiresIn": 3601}), 400)] {
        mint(&world.admin, "ada", body).await.expect(status);
    }
    mint(&world.admin, "nobody", json!({})).await.expect(404);
    let own = node.login("ada").await.text("accessToken");
    mint(&own, "admin", json!({})).await.expect(403);
    // Who may mint does not become an administrator by it.
    world.permit("ada", &["identity.tokens.mint"]).await;
    mint(&own, "admin", json!({})).await.expect(403);

    world.settle().await;
    let audit = world
        .node
        .get("/audit")
        .token(&world.admin)
        .send()
        .await
        .expect(200);
    let minted = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["action"] == "token.minted")
        .count();
    assert_eq!(minted, 2);
}

#[tokio::test]
async fn an_account_without_password_is_handed_over_by_a_minted_token() {
    let world = World::start().await;
    let node = &world.node;
    node.post("/accounts")
        .token(&world.admin)
        .json(json!({"handle": "bob"}))
        .send()
        .await
        .expect(201);
    let minted = node
        .post("/accounts/bob/tokens")
        .token(&world.admin)
        .json(json!({}))
        .send()
        .await;
    let token = minted.text("accessToken");
    let set = |new: &str| {
        node.put("/me/password")
            .token(&token)
            .json(json!({"new": new}))
            .send()
    };
    set(crate::world::PASSWORD).await.expect(204);
    node.login("bob").await;
    // From then on it is bob's.
    set("something else entirely").await.expect(403);
}

/// Checks a token as another program would: with the published keys and nothing else.
async fn verifies_from_outside(node: &Node, token: &str) -> bool {
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("{token}")
    };
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!(
        (&header["alg"], &header["typ"]),
        (&json!("EdDSA"), &json!("at+jwt"))
    );
    let published = node.get("/.well-known/jwks.json").send().await;
    assert!(published.header("cache-control").contains("max-age"));
    let published = published.expect(200);
    let key = published["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["kid"] == header["kid"]);
    let Some(key) = key else { return false };
    assert_eq!(
        (&key["kty"], &key["crv"], &key["use"]),
        (&json!("OKP"), &json!("Ed25519"), &json!("sig"))
    );
    let x: [u8; 32] = URL_SAFE_NO_PAD
        .decode(key["x"].as_str().unwrap())
        .unwrap()
        .try_into()
        .unwrap();
    let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let signed = &token[..token.rfind('.').unwrap()];
    let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert!(
        payload.get("permissions").is_none(),
        "permissions are looked up, not carried"
    );
    VerifyingKey::from_bytes(&x)
        .unwrap()
        .verify_strict(signed.as_bytes(), &signature)
        .is_ok()
}

fn kid(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    serde_json::from_slice::<Value>(&header).unwrap()["kid"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn keys_are_published_rotate_and_let_no_token_down() {
    let world = World::start().await;
    let node = &world.node;
    let other_node = world.other_node(None);
    node.sign_up("ada").await;
    let first = node.login("ada").await.text("accessToken");
    assert!(verifies_from_outside(node, &first).await);
    other_node.get("/me").token(&first).send().await.expect(200);

    // Half an hour before the end of thirty days the next key is out, and does not sign yet.
    world.advance(30 * 86_400 - 1_800);
    let before = node.login("ada").await.text("accessToken");
    assert_eq!(kid(&before), kid(&first));
    assert_eq!(
        node.get("/.well-known/jwks.json").send().await.body["keys"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    // It was published late, so it signs late: an hour after it came out.
    world.advance(3_595);
    let last = node.login("ada").await.text("accessToken");
    assert_eq!(kid(&last), kid(&first));
    world.advance(10);
    let after = node.login("ada").await.text("accessToken");
    assert_ne!(kid(&after), kid(&first));
    world.advance(600);
    for token in [&last, &after] {
        assert!(verifies_from_outside(&other_node, token).await);
        other_node.get("/me").token(token).send().await.expect(200);
    }
    world.advance(4 * 3_600);
    let keys = node.get("/.well-known/jwks.json").send().await.expect(200);
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1, "the old key is gone");
    let inside = node.get("/inspect").token(&world.admin).send().await.expect(200);
    assert_eq!(
        inside["keys"],
        json!([{
            "kid": kid(&after), "active": true, "created": inside["keys"][0]["created"], "activeFrom": inside["keys"][0]["activeFrom"],
        }])
    );
}
