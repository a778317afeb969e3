//! A booking system that is told what happens: receives webhooks, checks their signatures (Standard Webhooks 1.0.0),
//! and is down at times.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::server::text;

/// What both sides sign with: 32 bytes.
pub(crate) const SECRET: &str = "whsec_c2VtcHJlIGxvIHN0ZXNzbyBpbiBxdWVzdG8gdGVzdCE=";
/// Receivers are to refuse what was signed longer ago (Standard Webhooks, «Verifying webhook authenticity»).
const LONGEST_AGE_SECONDS: u64 = 300;

/// One webhook, as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    /// Its `webhook-id`.
    pub id: String,
    /// Its payload.
    pub payload: Value,
}

impl Webhook {
    pub(crate) fn kind(&self) -> String {
        text(&self.payload["type"])
    }

    pub(crate) fn data(&self) -> &Value {
        &self.payload["data"]
    }
}

/// The receiver, listening until dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    down: AtomicBool,
    turned_away: AtomicU32,
    webhooks: Mutex<Vec<Webhook>>,
    forged: Mutex<Vec<String>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let router = Router::new().route("/sportello", post(receive)).with_state(Arc::clone(&seen));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, seen, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/sportello", self.address)
    }

    /// From now on it refuses everything, until [`Receiver::comes_back`].
    pub(crate) fn goes_down(&self) {
        self.seen.down.store(true, Ordering::Relaxed);
    }

    pub(crate) fn comes_back(&self) {
        self.seen.down.store(false, Ordering::Relaxed);
    }

    /// How many webhooks came while it was down.
    pub(crate) fn turned_away(&self) -> u32 {
        self.seen.turned_away.load(Ordering::Relaxed)
    }

    /// Everything that came, in the order in which it came. Every signature was right.
    pub(crate) fn all(&self) -> Vec<Webhook> {
        assert_eq!(
            *self.seen.forged.lock().unwrap(),
            Vec::<String>::new(),
            "webhooks that a receiver must not believe"
        );
        self.seen.webhooks.lock().unwrap().clone()
    }

    /// What came of one room. One that came twice, under the same id, counts once: the first time.
    pub(crate) fn of_room(&self, room: &str) -> Vec<Webhook> {
        let mut known = HashSet::new();
        let own = self.all().into_iter().filter(|webhook| webhook.data()["room_id"] == room);
        own.filter(|webhook| known.insert(webhook.id.clone())).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn receive(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if seen.down.load(Ordering::Relaxed) {
        seen.turned_away.fetch_add(1, Ordering::Relaxed);
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    match believe(&headers, &body) {
        Ok(webhook) => seen.webhooks.lock().unwrap().push(webhook),
        Err(why) => seen.forged.lock().unwrap().push(why.to_owned()),
    }
    StatusCode::NO_CONTENT
}

fn believe(headers: &HeaderMap, body: &[u8]) -> Result<Webhook, &'static str> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let id = header("webhook-id").ok_or("no webhook-id")?;
    let timestamp = header("webhook-timestamp").ok_or("no webhook-timestamp")?;
    let signed: i64 = timestamp.parse().map_err(|_| "webhook-timestamp is no number")?;
    if Timestamp::now().as_second().abs_diff(signed) > LONGEST_AGE_SECONDS {
        return Err("signed too long ago");
    }
    let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let signed_text = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let signatures = header("webhook-signature").ok_or("no webhook-signature")?;
    let right = signatures.split(' ').filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok());
    if !right.into_iter().any(|tag| hmac::verify(&key, &signed_text, &tag).is_ok()) {
        return Err("a wrong signature");
    }
    if header("content-type") != Some("application/json") {
        return Err("not JSON");
    }
    let payload = serde_json::from_slice(body).map_err(|_| "no JSON")?;
    Ok(Webhook { id: id.to_owned(), payload })
}
