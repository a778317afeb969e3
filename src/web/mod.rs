//! The pages, embedded: whoever opens a join link gets one page, which asks the API for everything else.

pub mod demo;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::api::problem::{Kind, Problem};

/// Scripts and styles only as files of ours; nothing inline, no frames, no forms that go elsewhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
    media-src 'self' blob: data:; font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Devices for our own pages only; everything else that browsers offer, for nobody.
const PERMISSIONS_POLICY: &str = "camera=(self), microphone=(self), display-capture=(self), autoplay=(self), \
    fullscreen=(self), picture-in-picture=(self), screen-wake-lock=(self), geolocation=(), payment=(), usb=()";

#[derive(RustEmbed)]
#[folder = "src/web/pages"]
struct Pages;

/// The pages' routes: the entry page of every join link, the operator's and the compliance console, and the assets.
pub fn routes() -> Router {
    Router::new()
        .route("/join/{token}", get(async || page("join.html")))
        .route("/operator", get(async || page("operator.html")))
        // The same page, with the seat that the console took.
        .route("/operator/rooms/{room}", get(async || page("join.html")))
        .route("/compliance", get(async || page("compliance.html")))
        .route("/assets/{*path}", get(asset))
}

/// One page, or 404 if it is not part of this build.
fn page(name: &str) -> Response {
    let Some(file) = Pages::get(name) else { return Problem::new(Kind::NOT_FOUND).into_response() };
    let headers: [(HeaderName, &str); 4] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS_POLICY),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    (headers, file.data).into_response()
}

async fn asset(Path(path): Path<String>, request: HeaderMap) -> Response {
    // Pages are served at their own addresses, with their headers.
    let is_page = std::path::Path::new(&path).extension().is_some_and(|extension| extension == "html");
    let Some(file) = Pages::get(&path).filter(|_| !is_page) else {
        return Problem::new(Kind::NOT_FOUND).into_response();
    };
    let tag = format!("\"{}\"", hex::encode(file.metadata.sha256_hash()));
    let headers = [
        (header::CONTENT_TYPE, content_type(&file)),
        // Names do not change with their content, so browsers ask each time; the tag makes that cheap.
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::ETAG, tag.clone()),
    ];
    if request.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, file.data).into_response()
}

fn content_type(file: &EmbeddedFile) -> String {
    let kind = file.metadata.mimetype();
    let is_text = kind.starts_with("text/") || kind == "application/json";
    if is_text { format!("{kind}; charset=utf-8") } else { kind.to_owned() }
}
