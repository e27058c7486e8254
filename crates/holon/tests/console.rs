//! The console's files and how long a browser may keep them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail")]

mod support;

use http::Method;
use std::{io::Write as _, path::Path};
use support::{Answer, Api, Server};

const PAGE: &str = "<!doctype html><title>console</title>";
const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml;q=0.9");

fn build(directory: &Path) -> String {
    let assets = directory.join("assets");
    std::fs::create_dir_all(&assets).unwrap();
    let script = "console.log('hello');\n".repeat(200);
    std::fs::write(directory.join("index.html"), PAGE).unwrap();
    std::fs::write(assets.join("index-B4d5aX.js"), &script).unwrap();
    std::fs::write(assets.join("index-B4d5aX.js.br"), "brotli stands here").unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(script.as_bytes()).unwrap();
    std::fs::write(assets.join("index-B4d5aX.js.gz"), gzip.finish().unwrap()).unwrap();
    script
}

async fn get(api: &Api, path: &str, headers: &[(&str, &str)]) -> Answer {
    api.send(Method::GET, path, headers, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_asks_for_as_little_as_it_can() {
    let directory = tempfile::tempdir().unwrap();
    let dist = directory.path().join("dist");
    let script = build(&dist);
    let server = Server::start_with(&directory.path().join("data"), "127.0.0.1:0", |command| {
        command.env("HOLON_CONSOLE_DIR", &dist);
    });
    let api = Api::new(&server.url, None);

    let page = get(&api, "/", &[HTML]).await;
    assert_eq!(
        (page.status.as_u16(), page.header("cache-control")),
        (200, "no-cache")
    );
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(page.body, PAGE);
    let whatever = get(&api, "/", &[("accept", "*/*")]).await;
    assert_eq!(
        whatever.body, PAGE,
        "the first page is for everybody who asks, curl too"
    );
    let etag = page.header("etag").to_owned();
    assert!(!etag.is_empty());
    let same = get(&api, "/", &[HTML, ("if-none-match", &etag)]).await;
    assert_eq!((same.status.as_u16(), same.body.len()), (304, 0));
    assert_eq!(same.header("cache-control"), "no-cache");

    let asset = get(&api, "/assets/index-B4d5aX.js", &[]).await;
    assert_eq!(
        asset.header("cache-control"),
        "public, max-age=31536000, immutable"
    );
    assert_eq!(asset.header("content-type"), "text/javascript; charset=utf-8");
    assert_eq!(
        (asset.header("content-encoding"), &asset.body[..]),
        ("", script.as_bytes())
    );
    for (accepted, coding) in [("gzip, br", "br"), ("gzip", "gzip"), ("gzip, br;q=0", "gzip")] {
        let packed = get(&api, "/assets/index-B4d5aX.js", &[("accept-encoding", accepted)]).await;
        assert_eq!(packed.header("content-encoding"), coding, "{accepted}");
        assert!(
            packed
                .header("vary")
                .to_ascii_lowercase()
                .contains("accept-encoding")
        );
        assert!(packed.body.len() < script.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_navigations_fall_back_to_the_page() {
    let directory = tempfile::tempdir().unwrap();
    let dist = directory.path().join("dist");
    build(&dist);
    let server = Server::start_with(&directory.path().join("data"), "127.0.0.1:0", |command| {
        command.env("HOLON_CONSOLE_DIR", &dist);
    });
    let api = Api::new(&server.url, None);
    for path in ["/users/u0", "/feed/inside?post=1"] {
        let page = get(&api, path, &[HTML]).await;
        assert_eq!(
            (page.status.as_u16(), &page.body[..]),
            (200, PAGE.as_bytes()),
            "{path}"
        );
    }
    for (path, headers) in [
        ("/users/u0", &[][..]),
        ("/users/u0", &[("accept", "*/*")][..]),
        ("/assets/gone.js", &[HTML][..]),
        ("/v1/nothing", &[HTML][..]),
    ] {
        let missing = get(&api, path, headers).await;
        assert_eq!(missing.status, 404, "{path} {headers:?}");
        assert_eq!(
            missing.header("content-type"),
            "application/problem+json",
            "{path}"
        );
    }
    let written = api.send(Method::POST, "/users/u0", &[HTML], None).await;
    assert_eq!(written.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_page_whatever_the_binary_was_built_with() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path());
    let page = get(&Api::new(&server.url, None), "/", &[HTML]).await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
}
