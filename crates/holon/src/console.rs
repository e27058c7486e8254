//! The web console: its files, built into the binary, served so that a browser asks for as little as it can.
//!
//! - What lies under `assets/` has a hash of its content in its name: kept for a year and never asked for again.
//! - `index.html` and the rest are asked for each time and answered with 304 while they are the same.
//! - The console is one page with paths of its own, so a *navigation* (a `GET` that accepts HTML) to a path that is
//!   no file gets `index.html`. Anything else that is not there is 404, so that a missing script is no page.
//! - Compressed forms were made at build time; the client's `Accept-Encoding` chooses.

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{collections::HashMap, path::Path, sync::Arc};

/// A file as `build.rs` builds it in.
pub struct BuiltIn {
    path: &'static str,
    content: &'static [u8],
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/console.rs"));

const FOR_A_YEAR: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASK_EACH_TIME: HeaderValue = HeaderValue::from_static("no-cache");

/// What is served when the binary was built without the console.
const NOT_BUILT: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Holon</title>\
<meta name=viewport content='width=device-width'><meta name=color-scheme content='light dark'>\
<body style='font:16px/1.5 system-ui;max-width:36rem;margin:4rem auto;padding:0 1rem'>\
<h1>Holon is running</h1><p>This binary was built without the web console. To have it built in, run \
<code>make build</code>, or <code>npm ci &amp;&amp; npm run build</code> in <code>console/</code> and then \
<code>cargo build</code> again.</p><p>Everything else is here: <a href=/docs>the API</a>, \
<a href=/openapi.json>its OpenAPI document</a>, <a href=/readyz>readiness</a> and <a href=/metrics>metrics</a>.</p>";

/// One file, ready to be served.
struct File {
    content: Bytes,
    brotli: Option<Bytes>,
    gzip: Option<Bytes>,
    /// Quoted. Sent as a weak one: it stands for the file in every coding.
    etag: String,
    content_type: &'static str,
    cache_control: HeaderValue,
}

impl File {
    fn new(path: &str, content: Bytes, brotli: Option<Bytes>, gzip: Option<Bytes>) -> Self {
        let hash = Sha256::digest(&content);
        let digits: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        Self {
            content,
            brotli,
            gzip,
            etag: format!("\"{digits}\""),
            content_type: content_type(path),
            cache_control: match path.starts_with("assets/") {
                true => FOR_A_YEAR,
                false => ASK_EACH_TIME,
            },
        }
    }
}

/// The console's files by path, without a leading slash.
pub struct Console {
    files: HashMap<String, File>,
}

impl Console {
    /// What was built into the binary.
    pub fn built_in() -> Self {
        let files = BUILT_IN.iter().map(|file| {
            let form = |bytes: Option<&'static [u8]>| bytes.map(Bytes::from_static);
            let served = File::new(
                file.path,
                Bytes::from_static(file.content),
                form(file.brotli),
                form(file.gzip),
            );
            (file.path.to_owned(), served)
        });
        Self::with(files.collect())
    }

    /// What a directory holds now; read once. A file `x.br` or `x.gz` is the compressed form of `x`.
    pub fn from_directory(directory: &Path) -> std::io::Result<Self> {
        let mut contents = HashMap::new();
        read_below(directory, "", &mut contents)?;
        let files = contents
            .iter()
            .filter(|(path, _)| !is_compressed_form(path))
            .map(|(path, content)| {
                let form = |suffix: &str| contents.get(&format!("{path}.{suffix}")).cloned();
                let served = File::new(path, content.clone(), form("br"), form("gz"));
                (path.clone(), served)
            });
        Ok(Self::with(files.collect()))
    }

    fn with(mut files: HashMap<String, File>) -> Self {
        files
            .entry("index.html".into())
            .or_insert_with(|| File::new("index.html", Bytes::from_static(NOT_BUILT.as_bytes()), None, None));
        Self { files }
    }

    /// A router that serves whatever no other route does.
    pub fn router(self) -> Router {
        Router::new().fallback(serve).with_state(Arc::new(self))
    }
}

async fn serve(
    State(console): State<Arc<Console>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return not_found();
    }
    let path = uri.path().trim_start_matches('/');
    let file = match console.files.get(path) {
        Some(file) => file,
        None if is_navigation(path, &headers) => &console.files["index.html"],
        None => return not_found(),
    };
    answer(file, &headers)
}

fn answer(file: &File, headers: &HeaderMap) -> Response {
    let mut response = match names(headers, header::IF_NONE_MATCH, &file.etag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => {
            let accepts = |coding| accepts_coding(headers, coding);
            let (content, coding) = match (&file.brotli, &file.gzip) {
                (Some(brotli), _) if accepts("br") => (brotli, Some("br")),
                (_, Some(gzip)) if accepts("gzip") => (gzip, Some("gzip")),
                _ => (&file.content, None),
            };
            let mut response = Body::from(content.clone()).into_response();
            if let Some(coding) = coding {
                let coding = HeaderValue::from_static(coding);
                response.headers_mut().insert(header::CONTENT_ENCODING, coding);
            }
            let kind = HeaderValue::from_static(file.content_type);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
    };
    let own = response.headers_mut();
    own.insert(header::CACHE_CONTROL, file.cache_control.clone());
    own.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(etag) = HeaderValue::from_str(&format!("W/{}", file.etag)) {
        own.insert(header::ETAG, etag);
    }
    response
}

fn not_found() -> Response {
    holon_web::ApiError::not_found("page or route").into_response()
}

/// The first page, or a path of the console's own: asked for as a page, and neither an API's nor a file's.
fn is_navigation(path: &str, headers: &HeaderMap) -> bool {
    let of_the_api = path == "v1" || path.starts_with("v1/") || path.starts_with(".well-known/");
    let of_a_file = path.starts_with("assets/");
    path.is_empty() || !of_the_api && !of_a_file && names(headers, header::ACCEPT, "text/html")
}

/// True if one of the header's comma-separated items is this, parameters and a weak mark aside.
fn names(headers: &HeaderMap, header: header::HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(header);
    let mut items = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    items.any(|item| {
        let item = item.split(';').next().unwrap_or_default().trim();
        item.trim_start_matches("W/") == wanted
    })
}

/// True if `Accept-Encoding` names this coding and does not rule it out with `q=0` (RFC 9110, 12.5.3).
fn accepts_coding(headers: &HeaderMap, coding: &str) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING);
    let mut items = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    items.any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        named && weight.unwrap_or(1.0) > 0.0
    })
}

fn is_compressed_form(path: &str) -> bool {
    path.ends_with(".br") || path.ends_with(".gz")
}

fn read_below(directory: &Path, prefix: &str, into: &mut HashMap<String, Bytes>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read_below(&entry.path(), &format!("{path}/"), into)?;
        } else {
            into.insert(path, std::fs::read(entry.path())?.into());
        }
    }
    Ok(())
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "txt" => "text/plain; charset=utf-8",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}
