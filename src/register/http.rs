//! The administration's register over HTTP.

use std::fmt;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{StatusCode, Url, retry};
use serde::Deserialize;

use super::{Numbered, Submission, register_year};

/// An answer is a line of JSON; a longer one is none.
const LARGEST_ANSWER: usize = 64 << 10;

/// How long the connection may take of the timeout. A register that does not answer shall be known soon.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Characters kept of a register's reason. It is shown to the operator and kept with the document.
const LONGEST_REASON: usize = 300;

const USER_AGENT: &str = concat!("sportello/", env!("CARGO_PKG_VERSION"));

/// Where the register is.
#[derive(Clone)]
pub struct HttpRegisterConfig {
    /// The address that documents are posted to: `https:` (or `http:` within a machine).
    pub url: String,
    /// What is sent as bearer token; empty: none.
    pub token: String,
    /// How long an attempt may take, from looking up the name to the answer's end.
    pub timeout: Duration,
}

impl fmt::Debug for HttpRegisterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may carry a key in its path.
        f.debug_struct("HttpRegisterConfig").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Why there is no client for the register. The configuration's fault, or the system's.
#[derive(Debug, thiserror::Error)]
pub enum RegisterClientError {
    /// The address is none.
    #[error("the register's address must begin with https:// or http://")]
    Address,
    /// The HTTP client could not be made.
    #[error("cannot make the HTTP client for the register: {0}")]
    Client(#[from] reqwest::Error),
}

/// Why a document has no number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The register is not there, or does not keep the contract; the same may be asked again later. Its or the network's
    /// fault.
    #[error("the register is not available: {0}")]
    Unavailable(String),
    /// The register does not take the document; asking again would not help.
    #[error("the register refused the document")]
    Refused {
        /// The register's words, for the operator.
        reason: String,
    },
}

/// The administration's register over HTTP: the contract is in the [module's docs](super).
#[derive(Clone)]
pub struct HttpRegister {
    http: reqwest::Client,
    url: Url,
    token: String,
}

#[derive(Deserialize)]
struct Refusal {
    reason: String,
}

impl HttpRegister {
    /// A client. Nobody is asked yet.
    ///
    /// # Errors
    /// Any [`RegisterClientError`].
    pub fn new(config: HttpRegisterConfig) -> Result<Self, RegisterClientError> {
        let url = Url::parse(&config.url).map_err(|_| RegisterClientError::Address)?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(RegisterClientError::Address);
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .timeout(config.timeout)
            .connect_timeout(CONNECT_LIMIT.min(config.timeout))
            .redirect(Policy::none())
            .referer(false)
            // Attempts are the caller's to count and to space.
            .retry(retry::never());
        if url.scheme() == "http" {
            // No certificates will be looked at, so that a machine without any can register within itself.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self { http: builder.build()?, url, token: config.token })
    }

    /// Registers a document, or learns the number that it has. Safe to repeat: the document's id names it.
    ///
    /// # Errors
    /// Any [`RegisterError`].
    pub async fn register(&self, submission: &Submission) -> Result<Numbered, RegisterError> {
        let mut request = self.http.post(self.url.clone());
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        let request = request.header("Idempotency-Key", submission.document.to_string()).json(submission);
        let response = request.send().await.map_err(|error| fault(&error))?;
        let status = response.status();
        let answer = bounded_body(response).await?;
        match status {
            StatusCode::OK | StatusCode::CREATED => {
                let numbered: Numbered =
                    serde_json::from_slice(&answer).map_err(|_| unavailable("its answer is not in form"))?;
                keeps_contract(submission, numbered)
            }
            StatusCode::BAD_REQUEST
            | StatusCode::CONFLICT
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY => Err(RegisterError::Refused { reason: reason(&answer) }),
            other => Err(unavailable(&format!("it answers {}", other.as_u16()))),
        }
    }
}

impl fmt::Debug for HttpRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRegister").finish_non_exhaustive()
    }
}

fn keeps_contract(submission: &Submission, numbered: Numbered) -> Result<Numbered, RegisterError> {
    if numbered.year != register_year(submission.handed_in) {
        return Err(unavailable("its number is of another year than the hand-in"));
    }
    // What a database keeps in 64 signed bits.
    if numbered.number == 0 || i64::try_from(numbered.number).is_err() {
        return Err(unavailable("its number is none"));
    }
    Ok(numbered)
}

async fn bounded_body(mut response: reqwest::Response) -> Result<Vec<u8>, RegisterError> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(|error| fault(&error))? {
        body.extend_from_slice(&bytes);
        if body.len() > LARGEST_ANSWER {
            return Err(unavailable("its answer does not end"));
        }
    }
    Ok(body)
}

fn reason(answer: &[u8]) -> String {
    let refusal = serde_json::from_slice::<Refusal>(answer).ok();
    let text = refusal.map(|refusal| refusal.reason).unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect::<String>().trim().to_owned()
}

fn unavailable(what: &str) -> RegisterError {
    RegisterError::Unavailable(what.to_owned())
}

/// The error itself may hold the address with its keys: only its kind is taken.
fn fault(error: &reqwest::Error) -> RegisterError {
    unavailable(match error {
        error if error.is_timeout() => "it took too long",
        error if error.is_connect() => "no connection",
        _ => "the connection broke",
    })
}
