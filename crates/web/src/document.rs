//! The OpenAPI document of everything, made from the documents of the systems.
//!
//! Systems describe what is theirs: parameters, bodies and answers that went well. What happens to every route is
//! added here: problems, credentials, and the headers that the edge reads.

use crate::{
    problem::Problem,
    routes::{ACCESS, LIVE},
};
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema as _, openapi::OpenApi};

/// One system's share.
pub(crate) struct Part {
    /// The tag of its operations.
    pub name: &'static str,
    pub summary: String,
    pub document: OpenApi,
}

/// Puts the shares together; the answer is a whole OpenAPI 3.1 document.
pub(crate) fn assemble(title: &str, version: &str, parts: &[Part]) -> Result<Value, serde_json::Error> {
    let mut paths = Map::new();
    let mut components = Map::new();
    let mut tags = Vec::new();
    for part in parts {
        let mut document = serde_json::to_value(&part.document)?;
        for (path, item) in take_object(&mut document, "paths") {
            let known = paths.entry(path.clone()).or_insert_with(|| json!({}));
            let Value::Object(operations) = item else { continue };
            for (method, mut operation) in operations {
                if is_method(&method) {
                    finish_operation(&mut operation, part.name, &path, &method);
                }
                known[method] = operation;
            }
        }
        let Value::Object(mut shared) = document["components"].take() else {
            continue;
        };
        for (kind, entries) in &mut shared {
            let Value::Object(entries) = entries else { continue };
            let into = components.entry(kind.clone()).or_insert_with(|| json!({}));
            for (name, entry) in entries {
                into[name.as_str()] = entry.take();
            }
        }
        tags.push(json!({"name": part.name, "description": part.summary}));
    }
    let schemas = components.entry("schemas").or_insert_with(|| json!({}));
    schemas["Problem"] = serde_json::to_value(Problem::schema())?;
    components.insert("responses".into(), problem_responses());
    components.insert(
        "securitySchemes".into(),
        json!({
            "bearer": {
                "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                "description": "An access token from /v1/identity/login, or an API key (`hk_…`).",
            },
            "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
        }),
    );
    Ok(json!({
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "license": {"name": "MIT OR Apache-2.0"}},
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths,
        "components": components,
    }))
}

fn take_object(document: &mut Value, name: &str) -> Map<String, Value> {
    match document[name].take() {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn is_method(name: &str) -> bool {
    matches!(
        name,
        "get" | "put" | "post" | "delete" | "options" | "head" | "patch" | "trace"
    )
}

/// Every problem that the edge itself can answer, by status.
const PROBLEMS: [(&str, &str); 14] = [
    ("400", "The request is wrong; the problem names the field."),
    (
        "401",
        "Nobody is signed in, or the credential is bad or has expired.",
    ),
    ("403", "The caller may not do this."),
    ("404", "There is no such thing, or the caller may not know of it."),
    ("406", "The route answers only with what its description names."),
    (
        "409",
        "The state does not allow it, or a request with this idempotency key is still running.",
    ),
    ("412", "It was changed since the caller read it (`If-Match`)."),
    ("413", "The body is too large."),
    ("415", "The body is not declared as JSON."),
    (
        "422",
        "Well-formed and still not acceptable, such as a reused idempotency key.",
    ),
    ("429", "Too many requests; see `Retry-After`."),
    ("500", "A defect; it has been logged under the request id."),
    ("503", "It cannot be done right now; see `Retry-After`."),
    ("504", "It took too long."),
];

fn component(status: &str) -> String {
    format!("Problem{status}")
}

fn problem_responses() -> Value {
    let content = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
    let mut responses = Map::new();
    for (status, description) in PROBLEMS {
        let mut response = json!({"description": description, "content": content});
        if matches!(status, "429" | "503") {
            response["headers"] = json!({"Retry-After": {
                "description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1},
            }});
        }
        responses.insert(component(status), response);
    }
    let other = json!({"description": "Any other error.", "content": content});
    responses.insert("Problem".into(), other);
    Value::Object(responses)
}

fn finish_operation(operation: &mut Value, system: &str, path: &str, method: &str) {
    let is_public = operation[ACCESS] == "public";
    let is_live = operation[LIVE] == true;
    let writes = !matches!(method, "get" | "head");
    operation["tags"] = json!([system]);
    operation["security"] = if is_public {
        // Nobody is welcome; somebody is recognised.
        json!([{}, {"bearer": []}, {"apiKey": []}])
    } else {
        json!([{"bearer": []}, {"apiKey": []}])
    };
    if writes {
        add_parameter(
            operation,
            json!({
                "name": "Idempotency-Key", "in": "header", "required": false,
                "description": "Kept for 24 hours for callers who are signed in: the same key and request get the same answer.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
            }),
        );
    }
    if is_live {
        add_parameter(
            operation,
            json!({
                "name": "access_token", "in": "query", "required": false,
                "description": "The credential, where headers cannot be set.",
                "schema": {"type": "string"},
            }),
        );
    }
    let has_body = !operation["requestBody"].is_null();
    let mut statuses = vec!["400", "401", "403", "413", "429", "500", "503", "504"];
    if path.contains('{') || has_body {
        statuses.push("404");
    }
    if is_live {
        statuses.push("406");
    }
    if writes {
        statuses.extend(["409", "412", "422"]);
    }
    if has_body {
        statuses.push("415");
    }
    let responses = &mut operation["responses"];
    if responses.is_null() {
        *responses = json!({});
    }
    for status in statuses {
        let reference = format!("#/components/responses/{}", component(status));
        add_response(responses, status, json!({"$ref": reference}));
    }
    if is_live {
        add_response(
            responses,
            "101",
            json!({"description": "The connection is a WebSocket now."}),
        );
    }
    if !writes {
        add_response(
            responses,
            "304",
            json!({"description": "The caller has it already (`If-None-Match`)."}),
        );
    }
    add_response(
        responses,
        "default",
        json!({"$ref": "#/components/responses/Problem"}),
    );
}

/// Adds an answer, unless the system says more about that status. What a system says of a problem without its shape
/// gets the shape.
fn add_response(responses: &mut Value, status: &str, response: Value) {
    let known = &mut responses[status];
    if known.is_null() {
        *known = response;
        return;
    }
    let is_problem = status.starts_with(['4', '5']) && known["$ref"].is_null();
    if is_problem && known["content"].is_null() {
        known["content"] =
            json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
    }
}

fn add_parameter(operation: &mut Value, parameter: Value) {
    if operation["parameters"].is_null() {
        operation["parameters"] = json!([]);
    }
    let Value::Array(parameters) = &mut operation["parameters"] else {
        return;
    };
    if !parameters.iter().any(|known| known["name"] == parameter["name"]) {
        parameters.push(parameter);
    }
}
