//! Roles, tenants, the audit log, the first administrator.

use crate::world::{PASSWORD, World};
use holon_identity::ADMIN_TOKEN_FILE;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;

#[tokio::test]
async fn permissions_are_in_force_at_once_and_so_is_their_loss() {
    let world = World::start().await;
    let node = &world.node;
    let token = node.member("ada").await;
    let may = || async { node.get("/audit").token(&token).send().await.status.as_u16() };
    let define = |permissions: Value| {
        node.put("/roles/auditor")
            .token(&world.admin)
            .json(json!({"permissions": permissions}))
            .send()
    };
    let assign = |roles: Value| {
        node.put("/accounts/ada/roles")
            .token(&world.admin)
            .json(json!({"roles": roles}))
            .send()
    };
    assert_eq!(may().await, 403);
    assign(json!(["auditor"])).await.expect(400);
    define(json!(["identity.audit.read"])).await.expect(200);
    assert_eq!(may().await, 403);
    assert_eq!(
        assign(json!(["member", "auditor"])).await.expect(200)["roles"],
        json!(["auditor", "member"])
    );
    assert_eq!(may().await, 200);
    assert_eq!(
        node.get("/me").token(&token).send().await.body["permissions"],
        json!(["identity.audit.read"])
    );
    define(json!([])).await.expect(200);
    assert_eq!(may().await, 403, "the role lost it");
    define(json!(["identity.audit.read"])).await.expect(200);
    assert_eq!(may().await, 200);
    assign(json!(["member"])).await.expect(200);
    assert_eq!(may().await, 403, "the account lost the role");
    let roles = node.get("/roles").token(&world.admin).send().await.expect(200);
    let names: Vec<&str> = roles["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|role| role["name"].as_str())
        .collect();
    assert_eq!(names, ["administrator", "auditor", "member"]);
}

#[tokio::test]
async fn nobody_gives_more_than_they_have() {
    let world = World::start().await;
    let node = &world.node;
    let token = node.member("ada").await;
    node.sign_up("bob").await;
    world
        .permit("ada", &["identity.roles.assign", "identity.roles.define"])
        .await;
    let put = |path: &str, body: Value| node.put(path).token(&token).json(body).send();
    put("/roles/mighty", json!({"permissions": ["*"]}))
        .await
        .expect(403);
    put("/roles/mighty", json!({"permissions": ["identity.tokens.mint"]}))
        .await
        .expect(403);
    put("/roles/modest", json!({"permissions": ["identity.roles.define"]}))
        .await
        .expect(200);
    put("/accounts/bob/roles", json!({"roles": ["modest"]}))
        .await
        .expect(200);
    put("/accounts/bob/roles", json!({"roles": ["administrator"]}))
        .await
        .expect(403);
    put("/accounts/ada/roles", json!({"roles": ["administrator"]}))
        .await
        .expect(403);
    // Nor takes it from those who have more.
    put("/accounts/admin/roles", json!({"roles": []}))
        .await
        .expect(403);
    let put = |path: &str, body: Value| node.put(path).token(&world.admin).json(body).send();
    put("/roles/administrator", json!({"permissions": []}))
        .await
        .expect(409);
    put("/accounts/admin/roles", json!({"roles": []}))
        .await
        .expect(409);
    put("/roles/Bad", json!({"permissions": []})).await.expect(400);
    put("/roles/bad", json!({"permissions": ["not a permission"]}))
        .await
        .expect(400);
    put("/accounts/nobody/roles", json!({"roles": []}))
        .await
        .expect(404);
}

#[tokio::test]
async fn tenants_know_nothing_of_each_other() {
    let world = World::start().await;
    let node = &world.node;
    node.sign_up("ada").await;
    let new = json!({"handle": "ada", "password": PASSWORD});
    node.post("/accounts")
        .header("x-tenant", "shop")
        .json(new.clone())
        .send()
        .await
        .expect(404);
    let made = node
        .put("/tenants/shop")
        .token(&world.admin)
        .send()
        .await
        .expect(200);
    let shop_admin = made["administratorToken"].as_str().unwrap().to_owned();
    let again = node
        .put("/tenants/shop")
        .token(&world.admin)
        .send()
        .await
        .expect(200);
    assert!(again.get("administratorToken").is_none(), "shown once");
    node.put("/tenants/Shop")
        .token(&world.admin)
        .send()
        .await
        .expect(400);
    node.put("/tenants/third")
        .token(&shop_admin)
        .send()
        .await
        .expect(403);

    let there = node
        .post("/accounts")
        .header("x-tenant", "shop")
        .json(new.clone())
        .send()
        .await
        .expect(201);
    let here = node.get("/accounts/ada").send().await.expect(200);
    assert_ne!(there["id"], here["id"]);
    let seen = node
        .get("/accounts/ada")
        .header("x-tenant", "shop")
        .send()
        .await
        .expect(200);
    assert_eq!(seen["id"], there["id"]);

    let login = node
        .post("/login")
        .header("x-tenant", "shop")
        .json(new)
        .send()
        .await;
    let token = login.text("accessToken");
    let me = node
        .get("/me")
        .token(&token)
        .header("x-tenant", "main")
        .send()
        .await
        .expect(200);
    assert_eq!(
        (&me["tenant"], &me["id"]),
        (&json!("shop"), &there["id"]),
        "a credential names its tenant"
    );
    assert_eq!(
        node.get("/accounts/ada").token(&token).send().await.body["id"],
        there["id"]
    );
    // The administrator of one mints nothing in the other.
    node.sign_up("only_in_main").await;
    node.post("/accounts/only_in_main/tokens")
        .token(&shop_admin)
        .json(json!({}))
        .send()
        .await
        .expect(404);
    let roles = json!({"permissions": ["identity.audit.read"]});
    node.put("/roles/auditor")
        .token(&shop_admin)
        .json(roles)
        .send()
        .await
        .expect(200);
    let here = node.get("/roles").token(&world.admin).send().await.expect(200);
    assert!(!here.to_string().contains("auditor"));
}

#[tokio::test]
async fn the_audit_log_tells_who_did_what_from_where() {
    let mut world = World::start().await;
    let ada = world.node.sign_up("ada").await["id"].as_str().unwrap().to_owned();
    let login = |password: &str| json!({"handle": "ada", "password": password});
    world
        .node
        .post("/login")
        .from("203.0.113.8")
        .json(login("wrong guess!"))
        .send()
        .await
        .expect(401);
    world
        .node
        .post("/login")
        .from("203.0.113.8")
        .json(login(PASSWORD))
        .send()
        .await
        .expect(200);
    world
        .node
        .post("/login")
        .json(json!({"handle": "hunter2", "password": "x"}))
        .send()
        .await
        .expect(401);
    world.permit("ada", &["identity.accounts.list"]).await;
    world.settle().await;

    let read = |path: String| world.node.get(&path).token(&world.admin).send();
    let whole = read("/audit?limit=200".into()).await.expect(200);
    let entries = whole["items"].as_array().unwrap();
    let actions: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry["action"].as_str())
        .collect();
    assert_eq!(
        actions,
        [
            "roles.assigned",
            "role.defined",
            "login.failed",
            "login.succeeded",
            "login.failed",
            "account.created",
            "administrator.made"
        ]
    );
    assert!(
        !whole.to_string().contains("hunter2"),
        "what was typed as a handle may be a password"
    );
    let failed = &entries[4];
    assert_eq!(
        (&failed["subject"], &failed["address"]),
        (&json!(format!("account:{ada}")), &json!("203.0.113.8"))
    );
    assert!(failed.get("actor").is_none());
    assert!(entries[0]["actor"].is_string() && entries[0]["detail"].is_string());

    let own = read(format!("/audit?account={ada}")).await.expect(200);
    assert_eq!(own["items"].as_array().unwrap().len(), 4);
    assert_eq!(own["items"][2], *failed);

    // Page by page, over a change of month, it is the same.
    world.advance(40 * 86_400);
    world
        .node
        .post("/login")
        .json(login(PASSWORD))
        .send()
        .await
        .expect(200);
    world.settle().await;
    for filter in [String::new(), format!("&account={ada}")] {
        let mut paged: Vec<Value> = Vec::new();
        let mut path = format!("/audit?limit=2{filter}");
        loop {
            let page = world.node.get(&path).token(&world.admin).send().await.expect(200);
            paged.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/audit?limit=2{filter}&cursor={next}");
        }
        let path = format!("/audit?limit=200{filter}");
        let whole = world.node.get(&path).token(&world.admin).send().await.expect(200);
        assert_eq!(json!(paged), whole["items"]);
        assert_eq!(paged[0]["action"], "login.succeeded");
    }
    world
        .node
        .get("/audit?cursor=rubbish")
        .token(&world.admin)
        .send()
        .await
        .expect(400);
}

#[tokio::test]
async fn the_first_administrator_is_made_once_and_its_token_is_not_lost() {
    let world = World::start().await;
    // Again from an empty deployment, since the world's own was delivered.
    let home = holon_testkit::TestHome::start().await;
    let node = crate::world::Node::new(home.context());
    home.create_for(&*node.identity).await;
    let first = node.identity.ensure_administrator().await.unwrap().unwrap();
    // The process dies before it wrote the token down: the next start has the same one.
    let home = home.restart().await;
    let node = crate::world::Node::new(home.context());
    let again = node
        .identity
        .hand_over_administrator_token(home.path())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first, again);
    let file = home.path().join(ADMIN_TOKEN_FILE);
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), again.token);
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        node.identity
            .hand_over_administrator_token(home.path())
            .await
            .unwrap(),
        None
    );
    let me = node.get("/me").token(&again.token).send().await.expect(200);
    assert_eq!(
        (&me["handle"], &me["permissions"]),
        (&json!("admin"), &json!(["*"]))
    );
    world.node.get("/me").token(&again.token).send().await.expect(401);
}
