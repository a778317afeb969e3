//! A register of somebody else's: takes documents by HTTP, keeps what it was asked, and is away at first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Longest wait for the first request.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Desk {
    open: AtomicBool,
    /// The idempotency key and the body of each request.
    asked: Mutex<Vec<(String, Value)>>,
}

/// The register, listening until dropped.
pub(crate) struct Protocollo {
    url: String,
    desk: Arc<Desk>,
    task: JoinHandle<()>,
}

impl Protocollo {
    /// It answers, and takes nothing.
    pub(crate) async fn closed() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/protocolli", listener.local_addr().unwrap());
        let desk = Arc::new(Desk::default());
        let router = Router::new().route("/protocolli", post(take)).with_state(Arc::clone(&desk));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, desk, task }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn opens(&self) {
        self.desk.open.store(true, Ordering::Relaxed);
    }

    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        self.desk.asked.lock().unwrap().clone()
    }

    /// Waits until somebody came in vain.
    pub(crate) async fn refused_once(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.asked().is_empty() {
            assert!(Instant::now() < deadline, "nobody asks the register");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Protocollo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: Bytes) -> Response {
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap();
    desk.asked.lock().unwrap().push((key, body));
    if !desk.open.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    Json(json!({"year": 2026, "number": 42, "entered": "2026-12-31T23:01:00Z"})).into_response()
}
