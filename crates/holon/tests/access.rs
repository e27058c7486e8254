//! Every route as nobody, as a stranger, as the owner and as the administrator, from the OpenAPI document.
//!
//! A route that is added is tried by itself: what may happen follows from its declared access. Only a route that
//! changes a thing by its id must be listed here, with whose it is.
#![allow(clippy::unwrap_used, reason = "a failing test should fail")]

mod support;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use support::{Answer, Api, Server, text};

/// Routes that change one thing named by its id, which only its owner may.
const OWNERS: [&str; 4] = ["editPost", "deletePost", "deleteApiKey", "endSession"];
/// Routes that name a thing by its id and are for whoever may see it.
const READERS: [&str; 6] = [
    "likePost",
    "unlikePost",
    "repostPost",
    "unrepostPost",
    "bookmarkPost",
    "unbookmarkPost",
];
/// Public routes whose body is itself a credential: without a right one they answer 401 to everybody.
const CREDENTIALS: [&str; 2] = ["login", "refreshTokens"];
/// Routes that hold the connection open.
const LIVE: [&str; 3] = ["watchOverview", "liveHome", "getBackup"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Stranger,
    Owner,
    Administrator,
}

struct Operation {
    id: String,
    method: Method,
    path: String,
    access: String,
    body: Option<Value>,
}

/// Two people, what one of them owns, and a client for everybody.
struct World {
    handle: String,
    nobody: Api,
    stranger: Api,
    owner: Api,
    administrator: Api,
    post: String,
    key: String,
    session: String,
}

impl World {
    async fn new(admin: &Api, number: usize) -> Self {
        let (handle, stranger) = (format!("owner_{number}"), format!("stranger_{number}"));
        let password = "a long enough passphrase 7";
        for body in [
            json!({"handle": handle, "password": password}),
            json!({"handle": stranger}),
        ] {
            let made = post(admin, "/v1/identity/accounts", &body).await;
            assert_eq!(made.status, 201, "{}", text(&made.body));
        }
        let login = post(
            admin,
            "/v1/identity/login",
            &json!({"handle": handle, "password": password}),
        )
        .await;
        let owner = admin.with_token(login.json()["accessToken"].as_str().map(str::to_owned));
        let stranger = admin.as_account(&stranger).await;
        let id = |answer: Answer| answer.json()["id"].as_str().unwrap().to_owned();
        let said = id(post(&owner, "/v1/feed/posts", &json!({"text": "mine #own"})).await);
        let key = id(post(
            &owner,
            "/v1/identity/me/keys",
            &json!({"name": "mine", "scopes": ["feed"]}),
        )
        .await);
        let sessions = owner.read("/v1/identity/me/sessions").await;
        let session = sessions["items"][0]["id"].as_str().unwrap().to_owned();
        let (nobody, administrator) = (admin.with_token(None), admin.clone());
        Self {
            handle,
            nobody,
            stranger,
            owner,
            administrator,
            post: said,
            key,
            session,
        }
    }

    fn api(&self, who: Who) -> &Api {
        match who {
            Who::Nobody => &self.nobody,
            Who::Stranger => &self.stranger,
            Who::Owner => &self.owner,
            Who::Administrator => &self.administrator,
        }
    }

    fn path(&self, operation: &Operation) -> String {
        let id = match operation.path.as_str() {
            path if path.contains("/posts/") => &self.post,
            path if path.contains("/keys/") => &self.key,
            _ => &self.session,
        };
        let path = operation
            .path
            .replace("{id}", id)
            .replace("{handle}", &self.handle)
            .replace("{tag}", "own")
            .replace("{traceId}", "0af7651916cd43dd8448eb211c80319c")
            .replace("{projection}", "feed.home")
            .replace("{shard}", "nowhere")
            .replace("{file}", "nothing.js")
            .replace("{name}", "helpers");
        assert!(
            !path.contains('{'),
            "say here what stands for the parameter in {path}"
        );
        path
    }
}

async fn post(api: &Api, path: &str, body: &Value) -> Answer {
    api.send(Method::POST, path, &[], Some(body)).await
}

fn operations(document: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else {
                continue;
            };
            if !operation.is_object() || operation.get("responses").is_none() {
                continue;
            }
            let id = operation["operationId"]
                .as_str()
                .unwrap_or_else(|| panic!("{path} has no operationId"));
            let access = operation["x-holon-access"]
                .as_str()
                .unwrap_or_else(|| panic!("{id} does not say who may use it"));
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            operations.push(Operation {
                id: id.to_owned(),
                method,
                path: path.clone(),
                access: access.to_owned(),
                body: (!schema.is_null()).then(|| example(document, schema)),
            });
        }
    }
    operations
}

/// A body with every required property, plausible by its name.
fn example(document: &Value, schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.trim_start_matches('#');
        return example(document, document.pointer(pointer).unwrap());
    }
    if let Some(variant) = schema["oneOf"]
        .as_array()
        .or(schema["anyOf"].as_array())
        .and_then(|all| all.last())
    {
        return example(document, variant);
    }
    let kind = schema["type"]
        .as_str()
        .or(schema["type"][0].as_str())
        .unwrap_or("object");
    match kind {
        "object" => {
            let required: BTreeSet<&str> = schema["required"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let properties = schema["properties"].as_object();
            let fields = properties
                .into_iter()
                .flatten()
                .filter(|(name, _)| required.contains(name.as_str()));
            fields
                .map(|(name, schema)| (name.clone(), field(document, name, schema)))
                .collect()
        }
        "array" => json!([]),
        "integer" | "number" => json!(schema["minimum"].as_i64().unwrap_or(1)),
        "boolean" => json!(true),
        _ => json!("text"),
    }
}

fn field(document: &Value, name: &str, schema: &Value) -> Value {
    match name {
        "handle" => json!("somebody_new"),
        "password" | "current" | "new" => json!("a long enough passphrase 7"),
        "upTo" => json!("1"),
        "roles" => json!(["member"]),
        _ => example(document, schema),
    }
}

/// What is wrong with an answer, if anything.
fn objection(operation: &Operation, who: Who, status: StatusCode) -> Option<&'static str> {
    if status.is_server_error() {
        return Some("a server error");
    }
    if CREDENTIALS.contains(&operation.id.as_str()) {
        return None;
    }
    let is_refused = matches!(status.as_u16(), 401 | 403);
    match (operation.access.as_str(), who) {
        ("public", Who::Nobody) => {
            (status == 401 && operation.id != "createAccount").then_some("public, but asks who it is")
        }
        ("public", _) => is_refused.then_some("public, but refused"),
        (_, Who::Nobody) => (status != 401).then_some("answered to nobody"),
        ("signed-in", Who::Stranger) if OWNERS.contains(&operation.id.as_str()) => {
            (!matches!(status.as_u16(), 403 | 404)).then_some("somebody else's thing was changed")
        }
        ("signed-in", Who::Owner) if OWNERS.contains(&operation.id.as_str()) => {
            (!status.is_success()).then_some("refused to the owner")
        }
        ("signed-in", _) => (status == 401).then_some("signed in, but asked who it is"),
        (_, Who::Administrator) => is_refused.then_some("refused to the administrator"),
        (_, _) => (status != 403).then_some("answered without the permission"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_for_whom_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(&directory.path().join("data"), "127.0.0.1:0", |command| {
        command.env("HOLON_RATE_LIMIT_ENABLED", "false");
    });
    let admin = server.api();
    let document = admin.read("/openapi.json").await;
    let operations = operations(&document);
    assert!(
        operations.len() > 60,
        "only {} operations are documented",
        operations.len()
    );

    let mut objections = Vec::new();
    let mut number = 0;
    for operation in &operations {
        let names_a_thing = operation.path.contains("{id}") && operation.method != Method::GET;
        let is_listed = OWNERS.contains(&operation.id.as_str()) || READERS.contains(&operation.id.as_str());
        assert!(
            !names_a_thing || is_listed,
            "say in this test whose thing {} changes",
            operation.id
        );
        // Their end is tried elsewhere; here only that they refuse.
        let callers = match LIVE.contains(&operation.id.as_str()) {
            true => vec![Who::Nobody],
            false => vec![Who::Nobody, Who::Stranger, Who::Owner, Who::Administrator],
        };
        let mut world = World::new(&admin, number).await;
        for who in callers {
            // The owner meets everything as it was before the others tried; a route may end what it is tried with.
            if who == Who::Owner || who == Who::Administrator {
                number += 1;
                world = World::new(&admin, number).await;
            }
            if who == Who::Administrator
                && matches!(operation.id.as_str(), "eraseMe" | "logout" | "logoutEverywhere")
            {
                continue;
            }
            let path = world.path(operation);
            let answer = world
                .api(who)
                .send(operation.method.clone(), &path, &[], operation.body.as_ref())
                .await;
            if let Some(objection) = objection(operation, who, answer.status) {
                let status = answer.status.as_u16();
                objections.push(format!(
                    "{} {path} as {who:?}: {objection} ({status} {})",
                    operation.method,
                    text(&answer.body)
                ));
            }
            if answer.status.is_client_error() {
                let content_type = answer.header("content-type");
                assert_eq!(content_type, "application/problem+json", "{path} as {who:?}");
                assert_eq!(
                    answer.json()["requestId"],
                    answer.header("x-request-id"),
                    "{path} as {who:?}"
                );
            }
        }
        number += 1;
    }
    assert!(objections.is_empty(), "{}", objections.join("\n"));
}
