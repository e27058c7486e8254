//! Every route, from the OpenAPI document, as nobody, as a member and as an administrator.

use crate::world::World;
use serde_json::json;

#[tokio::test]
async fn every_route_says_who_may_use_it_and_means_it() {
    let world = World::start().await;
    let member = world.node.member("ada").await;
    let document = &world.node.document;
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(rest) = path.strip_prefix("/v1/identity") else {
            continue;
        };
        let rest = rest
            .replace("{handle}", "admin")
            .replace("{id}", "1")
            .replace("{name}", "member");
        for (method, operation) in item.as_object().unwrap() {
            let access = operation["x-holon-access"].as_str().unwrap();
            assert!(operation["operationId"].is_string() && operation["tags"] == json!(["identity"]));
            let call = |token: Option<&str>| {
                let call = world.node.call(&method.to_uppercase(), &rest).json(json!({}));
                match token {
                    Some(token) => call.token(token),
                    None => call,
                }
            };
            let as_nobody = call(None).send().await;
            let forged = call(Some("eyJhbGciOiJub25lIn0.e30.")).send().await;
            let is_unknown = |status: u16| status == 401;
            if access == "public" {
                assert!(
                    operation["responses"]
                        .get("200")
                        .or(operation["responses"].get("201"))
                        .is_some()
                );
            } else {
                assert!(
                    is_unknown(as_nobody.status.as_u16()),
                    "{method} {path} as nobody: {as_nobody:?}"
                );
                assert!(
                    is_unknown(forged.status.as_u16()),
                    "{method} {path} with a forged token: {forged:?}"
                );
            }
            if let Some(permission) = access.strip_prefix("permission:") {
                let as_member = call(Some(&member)).send().await;
                assert_eq!(as_member.status, 403, "{method} {path}");
                assert!(as_member.body["detail"].as_str().unwrap().contains(permission));
                let as_admin = call(Some(&world.admin)).send().await;
                assert!(
                    as_admin.status != 401 && as_admin.status != 403,
                    "{method} {path}: {as_admin:?}"
                );
            }
            assert!(as_nobody.status.as_u16() < 500);
            walked += 1;
        }
    }
    assert_eq!(walked, 24);
}
