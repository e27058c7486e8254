//! What every route gets from the edge, seen from outside.

mod common;

use axum::{body::Body, http::StatusCode};
use common::{Allowance, Toy, call, get, options, post, request, toy_app, toy_routes};
use holon_web::{AppBuilder, AppOptions, Origins};
use std::{
    io::Read as _,
    sync::{Arc, atomic::Ordering::SeqCst},
};

const ALICE: (&str, &str) = ("authorization", "Bearer alice");

#[tokio::test]
async fn every_answer_names_its_request_and_its_trace() {
    let router = toy_app(&Arc::default()).build().unwrap().router();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for path in ["/v1/toy/things/1", "/nowhere", "/v1/toy/panic", "/v1/toy/admin"] {
        let answer = get(
            &router,
            path,
            &[("x-request-id", "mine-1"), ("traceparent", trace)],
        )
        .await;
        assert_eq!(answer.header("x-request-id"), "mine-1", "{path}");
        assert_eq!(answer.header("traceparent")[..36], trace[..36], "{path}");
        assert_ne!(answer.header("traceparent"), trace, "a span of its own");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let answer = get(
            &router,
            path,
            &[("x-request-id", "no good"), ("traceparent", "rubbish")],
        )
        .await;
        assert_eq!(answer.header("x-request-id").len(), 16, "{path}");
        assert_eq!(answer.header("traceparent").len(), 55, "{path}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_by_field() {
    let router = toy_app(&Arc::default()).build().unwrap().router();
    let cases = [
        (r#"{"name": 5}"#, "/name"),
        (r#"{}"#, "/name"),
        (r#"{"name": "a", "name": "b"}"#, "/name"),
        (r#"{"name": "a", "replyTo": 5}"#, "/replyTo"),
        (r#"{"name": "a", "replyTo": "x"}"#, "/replyTo"),
        (r#"{"name": "a", "sizes": [1, 300]}"#, "/sizes/1"),
        (r#"{"name": ""}"#, "/name"),
        (r#"{"name": "a", "sizes": [1e999]}"#, ""),
        (r#"["a"]"#, ""),
        (r#""a""#, ""),
        ("", ""),
        ("{", ""),
        (r#"{"name": "a"} and more"#, ""),
    ];
    for (body, field) in cases {
        let headers = [ALICE, ("content-type", "application/json; charset=utf-8")];
        let answer = post(&router, "/v1/toy/things", &headers, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        let problem = answer.problem();
        assert_eq!(
            problem["field"].as_str().unwrap_or(""),
            field,
            "{body}: {problem}"
        );
    }
    for (path, field) in [
        ("/v1/toy/things?limit=0", "limit"),
        ("/v1/toy/things?limit=201", "limit"),
        ("/v1/toy/things?limit=x", "limit"),
        ("/v1/toy/things?limit=", "limit"),
        ("/v1/toy/things?limit=99999999999999999999999", "limit"),
        ("/v1/toy/things?limit=1&limit=2", "limit"),
        ("/v1/toy/things/x", "id"),
        ("/v1/toy/things/-1", "id"),
        ("/v1/toy/things/%ff", "id"),
        ("/v1/toy/things/%00", "path"),
    ] {
        let answer = get(&router, path, &[]).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(answer.problem()["field"], field, "{path}");
    }
    let wrong_type = post(
        &router,
        "/v1/toy/things",
        &[ALICE, ("content-type", "text/plain")],
        "{}",
    )
    .await;
    assert_eq!(wrong_type.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    wrong_type.problem();
}

#[tokio::test]
async fn a_panic_and_a_defect_are_problems_that_tell_nothing() {
    let router = toy_app(&Arc::default()).build().unwrap().router();
    let answer = get(&router, "/v1/toy/panic", &[]).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!answer.problem().to_string().contains("secret"));
    let answer = post(&router, "/v1/toy/things", &[ALICE], r#"{"name": "defect"}"#).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!answer.problem().to_string().contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_given_up() {
    let router = toy_app(&Arc::default()).build().unwrap().router();
    let answer = get(&router, "/v1/toy/gate", &[]).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    answer.problem();
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let router = toy_app(&Arc::default()).build().unwrap().router();
    let answer = get(&router, "/v2/nothing", &[]).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    answer.problem();
    for method in ["DELETE", "OPTIONS", "PUT", "TRACE", "PURGE"] {
        let answer = call(&router, request(method, "/v1/toy/things/1", &[], "")).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(answer.header("allow"), "GET,HEAD,PATCH", "{method}");
        answer.problem();
    }
}

#[tokio::test]
async fn who_may_use_a_route_is_decided_before_it_runs() {
    let router = toy_app(&Arc::default()).build().unwrap().router();
    let status = async |path: &str, header: (&str, &str)| get(&router, path, &[header]).await.status.as_u16();
    let nobody = ("x-nothing", "1");
    assert_eq!(status("/v1/toy/admin", nobody).await, 401);
    assert_eq!(status("/v1/toy/admin", ALICE).await, 403);
    assert_eq!(
        status("/v1/toy/admin", ("authorization", "Bearer root")).await,
        200
    );
    assert_eq!(status("/v1/toy/admin", ("x-api-key", "hk_root")).await, 200);
    assert_eq!(
        status("/v1/toy/admin", ("authorization", "Bearer bad")).await,
        401
    );
    assert_eq!(status("/v1/toy/admin", ("authorization", "Basic x")).await, 401);
    assert_eq!(status("/v1/toy/live?access_token=alice", nobody).await, 200);
    assert_eq!(status("/v1/toy/live", nobody).await, 401);
    let query_elsewhere = status("/v1/toy/admin?access_token=root", nobody).await;
    assert_eq!(
        query_elsewhere, 401,
        "only live routes take a token from the query"
    );
    let expired = get(&router, "/v1/toy/who", &[("authorization", "Bearer old")]).await;
    assert_eq!(expired.status, 401);
    assert_eq!(expired.problem()["type"], "/problems/token-expired");
    assert!(expired.header("www-authenticate").starts_with("Bearer"));
}

#[tokio::test]
async fn whoever_calls_too_often_is_told_when_to_come_back() {
    let limiter = Arc::new(Allowance(2, Default::default()));
    let app = toy_app(&Arc::default()).limiter(limiter).build().unwrap();
    let router = app.router();
    let first = get(&router, "/v1/toy/who", &[]).await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("ratelimit-policy"), r#""toy";q=2;w=60"#);
    assert_eq!(first.header("ratelimit"), r#""toy";r=1;t=60"#);
    assert_eq!(first.header("x-ratelimit-remaining"), "1");
    assert_eq!(get(&router, "/v1/toy/who", &[]).await.status, 200);
    let refused = get(&router, "/v1/toy/who", &[]).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), "2");
    refused.problem();
    assert_eq!(
        get(&router, "/v1/toy/who", &[ALICE]).await.status,
        200,
        "counted apart"
    );
    assert_eq!(get(&router, "/livez", &[]).await.status, 200, "never limited");
}

#[tokio::test]
async fn bodies_are_held_to_a_size_however_they_are_sent() {
    let options = AppOptions {
        body_bytes: 1_000,
        ..options()
    };
    let toy = Arc::<Toy>::default();
    let app = AppBuilder::new(options)
        .routes("toy", "A system to test with.", toy_routes(&toy))
        .authenticator(Arc::new(common::Names));
    let router = app.build().unwrap().router();
    let large = format!(r#"{{"name": "{}"}}"#, "a".repeat(1_000));
    let stated = post(&router, "/v1/toy/things", &[ALICE], &large).await;
    assert_eq!(stated.status, StatusCode::PAYLOAD_TOO_LARGE);
    stated.problem();
    let pieces = large
        .clone()
        .into_bytes()
        .into_iter()
        .map(|byte| Ok::<_, std::io::Error>(vec![byte]));
    let mut streamed = request(
        "POST",
        "/v1/toy/things",
        &[ALICE, ("content-type", "application/json")],
        "",
    );
    *streamed.body_mut() = Body::from_stream(futures::stream::iter(pieces));
    let streamed = call(&router, streamed).await;
    assert_eq!(streamed.status, StatusCode::PAYLOAD_TOO_LARGE);
    streamed.problem();
    assert_eq!(toy.made.load(SeqCst), 0);
}

#[tokio::test]
async fn what_the_caller_has_already_is_not_sent_again() {
    let router = toy_app(&Arc::default()).build().unwrap().router();
    let first = get(&router, "/v1/toy/things/1", &[]).await;
    let tag = first.header("etag").to_owned();
    assert!(tag.starts_with("\"7-"), "{tag}");
    let again = get(&router, "/v1/toy/things/1", &[("if-none-match", &tag)]).await;
    assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
    assert_eq!(again.header("etag"), tag);
    let other = get(&router, "/v1/toy/things/2", &[("if-none-match", &tag)]).await;
    assert_eq!(other.status, 200, "another body, another tag");

    let patch = async |tag: &str| {
        let headers = [("if-match", tag)];
        call(
            &router,
            request("PATCH", "/v1/toy/things/1", &headers, r#"{"name": "b"}"#),
        )
        .await
    };
    assert_eq!(patch(&tag).await.status, 200);
    assert_eq!(patch("\"7\"").await.status, 200);
    assert_eq!(patch("*").await.status, 200);
    assert_eq!(patch("\"6-1\"").await.status, 412);
    assert_eq!(patch("\"whatever\"").await.status, 412);
    assert_eq!(patch("7").await.status, 400);
}

#[tokio::test]
async fn large_texts_are_compressed_for_who_can_read_them() {
    let router = toy_app(&Arc::default()).build().unwrap().router();
    let plain = get(&router, "/v1/toy/things/1", &[]).await;
    let small = get(
        &router,
        "/v1/toy/things/1",
        &[("accept-encoding", "br, gzip;q=0.8")],
    )
    .await;
    assert_eq!(small.header("content-encoding"), "gzip");
    assert_eq!(small.header("vary"), "accept-encoding");
    assert!(small.body.len() < plain.body.len() / 4);
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&small.body[..])
        .read_to_end(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain.body);
    for refused in ["br", "gzip;q=0", "identity"] {
        let answer = get(&router, "/v1/toy/things/1", &[("accept-encoding", refused)]).await;
        assert_eq!(answer.header("content-encoding"), "", "{refused}");
    }
    // A tag of the compressed form is good for both.
    let tag = small.header("etag");
    let again = get(&router, "/v1/toy/things/1", &[("if-none-match", tag)]).await;
    assert_eq!(again.status, 304);
    let patched = request(
        "PATCH",
        "/v1/toy/things/1",
        &[("if-match", tag)],
        r#"{"name": "b"}"#,
    );
    assert_eq!(call(&router, patched).await.status, 200);
    assert_eq!(
        get(&router, "/v1/toy/who", &[("accept-encoding", "gzip")])
            .await
            .header("content-encoding"),
        ""
    );
}

#[tokio::test]
async fn scripts_of_other_origins_may_call_only_if_named() {
    let origins = Origins::Some(vec!["https://app.example".into()]);
    let options = AppOptions { origins, ..options() };
    let app = AppBuilder::new(options).routes("toy", "A system to test with.", toy_routes(&Arc::default()));
    let router = app.build().unwrap().router();
    let preflight = async |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "PUT")];
        call(&router, request("OPTIONS", "/v1/toy/things/1", &headers, "")).await
    };
    let known = preflight("https://app.example").await;
    assert_eq!(known.status, 204);
    assert_eq!(known.header("access-control-allow-origin"), "https://app.example");
    assert!(
        known
            .header("access-control-allow-headers")
            .contains("idempotency-key")
    );
    let unknown = preflight("https://evil.example").await;
    assert_eq!(unknown.header("access-control-allow-origin"), "");
    let answer = get(&router, "/v1/toy/who", &[("origin", "https://app.example")]).await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://app.example"
    );
    assert!(answer.header("access-control-expose-headers").contains("etag"));
    let closed = toy_app(&Arc::default()).build().unwrap().router();
    let answer = get(&closed, "/v1/toy/who", &[("origin", "https://app.example")]).await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn the_document_tells_every_answer_of_every_operation() {
    let app = toy_app(&Arc::default()).build().unwrap();
    let served = get(&app.router(), "/openapi.json", &[]).await.json();
    assert_eq!(&served, app.document());
    assert_eq!(served["openapi"], "3.1.0");
    let create = &served["paths"]["/v1/toy/things"]["post"];
    assert_eq!(create["tags"][0], "toy");
    assert_eq!(
        create["security"],
        serde_json::json!([{"bearer": []}, {"apiKey": []}])
    );
    for status in [
        "201", "400", "401", "403", "409", "413", "415", "422", "429", "500", "503", "504", "default",
    ] {
        assert!(!create["responses"][status].is_null(), "{status}");
    }
    let names: Vec<_> = create["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"Idempotency-Key"));
    let live = &served["paths"]["/v1/toy/live"]["get"];
    assert!(
        live["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["name"] == "access_token")
    );
    for reference in served.to_string().split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(served.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
    let page = get(&app.router(), "/docs", &[]).await;
    assert!(
        page.header("content-security-policy")
            .contains("frame-ancestors 'none'")
    );
    for path in ["/docs/docs.js", "/docs/docs.css"] {
        assert_eq!(get(&app.router(), path, &[]).await.status, 200);
    }
}

#[tokio::test]
async fn every_route_is_measured_by_its_declared_path() {
    let router = toy_app(&Arc::default()).build().unwrap().router();
    for id in 0..3 {
        get(&router, &format!("/v1/toy/things/{id}"), &[]).await;
    }
    get(&router, "/v1/toy/panic", &[]).await;
    let answer = get(&router, "/metrics", &[]).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    for line in [
        r#"holon_http_requests_total{system="toy",method="GET",route="/v1/toy/things/{id}",status="2xx"} 3"#,
        r#"holon_http_requests_total{system="toy",method="GET",route="/v1/toy/panic",status="5xx"} 1"#,
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
}

#[tokio::test]
async fn a_sick_system_takes_the_node_out() {
    let app = toy_app(&Arc::default()).check("disk", || async {
        holon_web::Health {
            ready: false,
            detail: "full".into(),
        }
    });
    let answer = get(&app.build().unwrap().router(), "/readyz", &[]).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["systems"][0]["detail"], "full");
    let well = toy_app(&Arc::default()).build().unwrap().router();
    assert_eq!(get(&well, "/readyz", &[]).await.status, 200);
}

#[test]
fn nothing_a_client_sends_is_a_server_error() {
    use proptest::prelude::*;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let router = toy_app(&Arc::default()).build().unwrap().router();
    let path = prop_oneof![
        "/v1/toy/things(/[!-~]{0,12})?(\\?[!-~]{0,20})?",
        "/v1/toy/things/(%[0-9a-f]{2}){0,6}",
        "/v1/toy/things\\?(limit|cursor)=[!-~]{0,30}",
    ];
    let body = prop_oneof![
        "[ -~]{0,40}",
        r#"\{"name": ?("[ -~]{0,9}"|[0-9e.+-]{1,30}|null), "replyTo": [!-~]{1,9}\}"#
    ];
    let method = prop_oneof![Just("GET"), Just("POST"), Just("PATCH"), Just("DELETE")];
    let tag = "[ -~]{0,20}";
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    let outcome = runner.run(&(method, path, body, tag), |(method, path, body, tag)| {
        if path.parse::<axum::http::Uri>().is_err() {
            return Ok(());
        }
        let headers = [
            ALICE,
            ("if-match", tag.as_str()),
            ("if-none-match", tag.as_str()),
            ("content-type", "application/json"),
        ];
        let answer = runtime.block_on(call(&router, request(method, &path, &headers, &body)));
        prop_assert!(
            !answer.status.is_server_error(),
            "{method} {path} {body}: {answer:?}"
        );
        if answer.status.is_client_error() {
            answer.problem();
        }
        Ok(())
    });
    outcome.unwrap();
}
