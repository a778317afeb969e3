//! A gateway for text messages: takes them by HTTP, keeps them for the test to read, and is down at times.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Longest wait for a message: two attempts that fail are about ten seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// One request, as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Taken {
    /// Its `Content-Type`.
    pub content_type: String,
    /// Its `Authorization`.
    pub authorization: String,
    /// Its body.
    pub body: String,
    /// What it was answered.
    pub status: u16,
}

impl Taken {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }
}

/// The gateway, listening until dropped.
pub(crate) struct Gateway {
    address: SocketAddr,
    state: Arc<Mutex<GatewayState>>,
    task: JoinHandle<()>,
}

struct GatewayState {
    answer: StatusCode,
    taken: Vec<Taken>,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn start_on(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(GatewayState { answer: StatusCode::ACCEPTED, taken: Vec::new() }));
        let router = Router::new().route("/send", post(take)).with_state(Arc::clone(&state));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/send", self.address)
    }

    /// From now on it answers every message with this status.
    pub(crate) fn answers(&self, status: u16) {
        self.state.lock().unwrap().answer = StatusCode::from_u16(status).unwrap();
    }

    /// Every request so far, whatever it was answered.
    pub(crate) fn all(&self) -> Vec<Taken> {
        self.state.lock().unwrap().taken.clone()
    }

    /// Waits until there were so many requests; gives them all.
    pub(crate) async fn asked(&self, times: usize) -> Vec<Taken> {
        let deadline = Instant::now() + PATIENCE;
        while self.all().len() < times {
            assert!(Instant::now() < deadline, "{} of {times} requests came", self.all().len());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        self.all()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(State(state): State<Arc<Mutex<GatewayState>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned());
    let mut state = state.lock().unwrap();
    let answer = state.answer;
    state.taken.push(Taken {
        content_type: header("content-type"),
        authorization: header("authorization"),
        body: String::from_utf8(body.to_vec()).unwrap(),
        status: answer.as_u16(),
    });
    answer
}
