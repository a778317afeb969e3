//! The HTTP client: one POST, and what came of it.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Response, retry};

use super::Endpoint;
use super::schedule::{Answer, NoAnswer, retry_after};
use crate::clock::Clock;

/// How long an attempt may take, from looking up the name to the answer's end. Standard Webhooks recommends 15 to 30 s.
/// Longer: a receiver that hangs holds a place for longer, and so does a stop of the node. Shorter: receivers that work
/// before they answer are asked again and again.
pub(super) const ATTEMPT_LIMIT: Duration = Duration::from_secs(15);

/// How long the connection may take of that. A host that does not answer shall not hold a place for all of it.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Bytes of an answer's body that are read, and thrown away, so that the connection can be used again. What is longer
/// costs its sender the connection.
const MOST_ANSWER_BYTES: usize = 8 * 1024;

/// Open connections kept for the next message.
const IDLE_CONNECTIONS: usize = 4;

const USER_AGENT: &str = concat!("sportello/", env!("CARGO_PKG_VERSION"));

/// The HTTP client could not be made: this machine has no usable root certificates. The system's fault.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the HTTP client for messages: {0}")]
pub struct ClientError(#[from] reqwest::Error);

/// A client for one address.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    clock: Clock,
}

/// What is posted.
pub(super) struct Post {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Client {
    /// A client; `limit` is how long an attempt may take.
    pub(super) fn new(endpoint: Endpoint, limit: Duration, clock: Clock) -> Result<Self, ClientError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .timeout(limit)
            .connect_timeout(CONNECT_LIMIT.min(limit))
            // Standard Webhooks: a redirect is a failure. Followed, it would carry codes and personal data to an
            // address that nobody configured.
            .redirect(Policy::none())
            .referer(false)
            // Attempts are ours to count and to space.
            .retry(retry::never())
            .pool_max_idle_per_host(IDLE_CONNECTIONS);
        if !endpoint.is_tls() {
            // No certificates will be looked at, so that a machine without any can send to itself.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self { http: builder.build()?, endpoint, clock })
    }

    /// One attempt. Never longer than the limit.
    pub(super) async fn post(&self, post: Post) -> Answer {
        let request = self.http.post(self.endpoint.url().clone()).headers(post.headers).body(post.body);
        match request.send().await {
            Ok(response) => {
                let answer = Answer::Status {
                    status: response.status().as_u16(),
                    retry_after: asked_to_wait(&response, self.clock.now().wall),
                };
                discard_body(response).await;
                answer
            }
            Err(error) => Answer::Nothing(fault_of(&error)),
        }
    }
}

fn asked_to_wait(response: &Response, now: Timestamp) -> Option<jiff::SignedDuration> {
    retry_after(response.headers().get(RETRY_AFTER)?.to_str().ok()?, now)
}

/// The status has decided; what still goes wrong here changes nothing.
async fn discard_body(mut response: Response) {
    let mut read = 0;
    while read <= MOST_ANSWER_BYTES {
        match response.chunk().await {
            Ok(Some(bytes)) => read += bytes.len(),
            Ok(None) | Err(_) => return,
        }
    }
}

/// The error itself may hold the address with its keys: only its kind is taken.
fn fault_of(error: &reqwest::Error) -> NoAnswer {
    if error.is_timeout() {
        return NoAnswer::TimedOut;
    }
    if !error.is_connect() {
        return NoAnswer::Broken;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        let io = cause.downcast_ref::<io::Error>();
        match io.map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => return NoAnswer::Refused,
            // What the TLS library reports comes as invalid data; the far end may also hang up on us.
            Some(io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => return NoAnswer::Tls,
            _ => {}
        }
        // An I/O error passes over the one that it wraps when it is asked for its source.
        let wrapped = io.and_then(io::Error::get_ref).map(|wrapped| wrapped as &(dyn StdError + 'static));
        source = wrapped.or_else(|| cause.source());
    }
    NoAnswer::Unreachable
}
