//! What lies around every route: limits, headers, the log and the counters, and an answer to what no route takes.

use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;

use super::problem::{Kind, Problem};
use crate::clock::Clock;

/// Longest time from a request's first line to its answer. Longer: slow clients hold more of them open. Shorter: an
/// honest upload over a bad line breaks off.
const LONGEST_REQUEST: Duration = Duration::from_secs(30);
/// The same for a document: 3 MB over a line of 256 kbit/s take 100 seconds.
const LONGEST_UPLOAD: Duration = Duration::from_mins(3);

/// Completes a server's routes: everything else is a problem document, no request runs for ever, a panic in a handler
/// is that request's 500 and nobody else's, and each answer carries the headers that make browsers careful.
pub fn finish(routes: Router, clock: Clock) -> Router {
    routes
        .fallback(async || Problem::new(Kind::NOT_FOUND))
        .method_not_allowed_fallback(async || Problem::new(Kind::METHOD_NOT_ALLOWED))
        .layer(from_fn(limit_time))
        .layer(CatchPanicLayer::custom(|_| {
            tracing::error!("a request handler panicked");
            Problem::new(Kind::INTERNAL).into_response()
        }))
        .layer(from_fn(harden))
        .layer(from_fn_with_state(clock, observe))
}

async fn limit_time(request: Request, next: Next) -> Response {
    let is_upload = request.method() == Method::POST && request.uri().path() == "/v1/session/documents";
    let longest = if is_upload { LONGEST_UPLOAD } else { LONGEST_REQUEST };
    match tokio::time::timeout(longest, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(Kind::TIMEOUT).into_response(),
    }
}

async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let defaults: [(HeaderName, &str); 3] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Join links are addresses with a secret in them.
        (header::REFERRER_POLICY, "no-referrer"),
        // Answers hold names, codes and tokens.
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in defaults {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Logs and counts by the route's template: the path itself may hold a join token.
async fn observe(State(clock): State<Clock>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = method_label(request.method());
    let started = clock.mono();
    let response = next.run(request).await;
    let elapsed = clock.mono().since(started);
    let status = response.status().as_u16();
    tracing::debug!(method, route, status, elapsed_ms = elapsed.as_millis(), "answered");
    metrics::counter!("sportello_http_requests_total", "method" => method, "route" => route.clone(), "status" => status.to_string())
        .increment(1);
    metrics::histogram!("sportello_http_request_duration_seconds", "method" => method, "route" => route)
        .record(elapsed.as_secs_f64());
    response
}

/// A client may invent methods; labels may not grow with them.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
