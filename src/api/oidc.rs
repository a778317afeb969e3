//! Bearer tokens of an OpenID Connect issuer: signed JWTs (RFC 9068, or as the issuer makes them) whose claim says what
//! their holder may do here.
//!
//! A token is believed if one of the issuer's published keys signed it, with an algorithm of our list, for us, and for
//! now. The keys are fetched by the issuer's discovery document (OpenID Connect Discovery 1.0) or from a fixed address,
//! kept for an hour, and fetched again when a token names a key that is not among them.

mod jwks;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256};
use jiff::Timestamp;
use jsonwebtoken::{DecodingKey, Header, Validation};
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::{Map, Value};

use self::jwks::{KeySet, Look, Shelf};
use crate::clock::Clock;
use crate::control::Scope;

/// By how much clocks may differ, for `exp` and `nbf`. More: expired tokens live longer. Less: a token is refused in
/// the second in which it was issued.
const LEEWAY: f64 = 60.0;
/// Longest token that is looked at, bytes. Tokens with many groups in them were seen at 6 kB.
const LONGEST_TOKEN: usize = 16 << 10;
/// Longest answer of the issuer that is read, bytes. Key sets with certificate chains were seen at 20 kB.
const LONGEST_ANSWER: usize = 256 << 10;
/// How long the issuer may take for one answer. Longer: requests with a key that we do not have yet wait longer.
/// Shorter: a slow issuer counts as away.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Whose tokens are believed, and what they allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The issuer: exactly what its tokens carry as `iss`.
    pub issuer: String,
    /// What its tokens for us carry as `aud`, or as one of several.
    pub audience: String,
    /// Where its keys are; `None`: where its discovery document says.
    pub jwks_url: Option<Url>,
    /// The claim with scopes or roles, a dotted path, e.g. `realm_access.roles`.
    pub claim: String,
    /// What each value of that claim allows here.
    pub scopes: BTreeMap<String, Scope>,
}

/// Whether an address may be asked for keys: by TLS, or without leaving the machine.
pub fn is_safe(url: &Url) -> bool {
    let is_loopback = match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        }
        None => false,
    };
    let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    is_plain && url.has_host() && (url.scheme() == "https" || (url.scheme() == "http" && is_loopback))
}

/// Whether a bearer token has the form of a JWT (RFC 7515, section 7.1): three parts with dots between, the first of
/// them a JSON object in base64.
pub(super) fn is_jwt(token: &str) -> bool {
    token.starts_with("ey") && token.matches('.').count() == 2
}

/// Who holds a believed token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// SHA-256 of issuer and subject: the same person or program each time, and nobody's name.
    pub(super) subject: [u8; 32],
    /// What the token allows here; may be nothing.
    pub(super) scopes: Vec<Scope>,
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// The token's fault: what is wrong with it.
    #[error("{0}")]
    Token(&'static str),
    /// The issuer's: its keys cannot be had.
    #[error("the OIDC issuer's keys cannot be fetched at the moment")]
    Away,
}

/// The client of one issuer. Clones share its keys.
#[derive(Clone)]
pub struct Oidc(Arc<Inner>);

struct Inner {
    settings: Settings,
    http: Client,
    clock: Clock,
    shelf: Mutex<Shelf>,
    /// Held by whoever asks the issuer: one at a time.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

/// The system's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an HTTP client for the OIDC issuer: {0}")]
pub struct NoClient(reqwest::Error);

impl Oidc {
    /// A client; asks the issuer nothing yet.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, NoClient> {
        let http = Client::builder()
            .timeout(ANSWER_LIMIT)
            // A redirect could lead out of TLS, and nothing that we ask for should need one.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(NoClient)?;
        Ok(Self(Arc::new(Inner { settings, http, clock, shelf: Mutex::default(), fetching: Arc::default() })))
    }

    /// Fetches the keys before the first token comes. An issuer that does not answer is logged, and asked again when
    /// one comes.
    pub async fn warm_up(self) {
        let is_empty = || matches!(self.look(&Header::default()), Look::Fetch);
        self.fetch_while(is_empty).await;
    }

    /// Who holds this token.
    pub(super) async fn verify(&self, token: &str) -> Result<Holder, Refused> {
        if token.len() > LONGEST_TOKEN {
            return Err(Refused::Token("the token is too long"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refused::Token("the token cannot be read"))?;
        check_header(&header)?;
        let key = self.key(&header).await?;
        let claims = signed_claims(token, &header, &key)?;
        check_claims(&claims, &self.0.settings, self.0.clock.now().wall)
    }

    async fn key(&self, header: &Header) -> Result<DecodingKey, Refused> {
        let mut look = self.look(header);
        if matches!(look, Look::Fetch) {
            // Whoever had to wait for another's attempt makes none of their own.
            self.fetch_while(|| matches!(self.look(header), Look::Fetch)).await;
            look = self.look(header);
        }
        match look {
            Look::Found { key, refresh } => {
                if refresh && let Ok(permit) = Arc::clone(&self.0.fetching).try_lock_owned() {
                    let inner = Arc::clone(&self.0);
                    tokio::spawn(async move {
                        inner.fetch().await;
                        drop(permit);
                    });
                }
                Ok(key)
            }
            Look::Unknown => Err(Refused::Token("none of the issuer's keys is the token's")),
            Look::Fetch | Look::Away => Err(Refused::Away),
        }
    }

    fn look(&self, header: &Header) -> Look {
        self.0.shelf.lock().unwrap_or_else(PoisonError::into_inner).look(header, self.0.clock.mono())
    }

    /// Asks the issuer, unless that is no longer wanted when our turn comes.
    async fn fetch_while(&self, is_wanted: impl Fn() -> bool) {
        let permit = Arc::clone(&self.0.fetching).lock_owned().await;
        if !is_wanted() {
            return;
        }
        let inner = Arc::clone(&self.0);
        // A task of its own: a caller who hangs up does not undo the attempt, or they could make us ask without end.
        let fetched = tokio::spawn(async move {
            inner.fetch().await;
            drop(permit);
        });
        // It ends by itself: if it panicked, the shelf is as it was.
        let _done = fetched.await;
    }
}

impl fmt::Debug for Oidc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oidc").field("issuer", &self.0.settings.issuer).finish_non_exhaustive()
    }
}

/// Why there are no (newer) keys. The issuer's or the network's fault; our words, never the far end's.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer: {}", words_of(.0))]
    NoAnswer(reqwest::Error),
    #[error("the answer's status is {0}")]
    Status(u16),
    #[error("the answer is longer than {LONGEST_ANSWER} bytes")]
    TooLong,
    #[error("the discovery document cannot be read")]
    Discovery,
    #[error("the discovery document is another issuer's")]
    OtherIssuer,
    #[error("the discovery document's jwks_uri is neither https nor on this machine")]
    UnsafeKeys,
    #[error("there is no usable key in the key set")]
    NoKeys,
}

/// What is read of a discovery document.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Inner {
    async fn fetch(&self) {
        let fetched = self.fetch_keys().await;
        if let Err(error) = &fetched {
            tracing::warn!(issuer = self.settings.issuer, %error, "the OIDC issuer's keys could not be fetched");
        }
        let now = self.clock.mono();
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner).put(fetched.ok(), now);
    }

    async fn fetch_keys(&self) -> Result<KeySet, FetchError> {
        let url = match &self.settings.jwks_url {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        KeySet::parse(&self.ask(url).await?).ok_or(FetchError::NoKeys)
    }

    async fn discover(&self) -> Result<Url, FetchError> {
        // OpenID Connect Discovery 1.0, section 4: a slash at the end goes before the path is appended.
        let issuer = &self.settings.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
        let url = Url::parse(&url).map_err(|_| FetchError::Discovery)?;
        let found: Discovery = serde_json::from_slice(&self.ask(url).await?).map_err(|_| FetchError::Discovery)?;
        // Section 4.3: they must be the same.
        if found.issuer != *issuer {
            return Err(FetchError::OtherIssuer);
        }
        Url::parse(&found.jwks_uri).ok().filter(is_safe).ok_or(FetchError::UnsafeKeys)
    }

    async fn ask(&self, url: Url) -> Result<Vec<u8>, FetchError> {
        let mut response = self.http.get(url).send().await.map_err(FetchError::NoAnswer)?;
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(FetchError::NoAnswer)? {
            if body.len() + chunk.len() > LONGEST_ANSWER {
                return Err(FetchError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// What went wrong with a connection. Of the causes only the system's words: what lies between may quote the far end.
fn words_of(error: &reqwest::Error) -> String {
    let kind = match () {
        () if error.is_timeout() => "it took too long",
        () if error.is_connect() => "no connection",
        () => "the connection broke",
    };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(system) = inner.downcast_ref::<std::io::Error>() {
            return format!("{kind} ({system})");
        }
        cause = inner.source();
    }
    kind.to_owned()
}

/// What can be told of a token before anything is computed.
fn check_header(header: &Header) -> Result<(), Refused> {
    if !jwks::is_allowed(header.alg) {
        return Err(Refused::Token("the token's algorithm is not accepted"));
    }
    // RFC 7515, section 4.1.11: whoever does not understand an extension that is critical must refuse. We know none.
    if header.crit.is_some() {
        return Err(Refused::Token("the token uses an extension that is not known here"));
    }
    // RFC 9068, section 2.1, and what issuers wrote before it; other kinds of JWT are not for getting in with.
    let kind = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
    match kind.strip_prefix("application/").unwrap_or(&kind) {
        "jwt" | "at+jwt" => Ok(()),
        _ => Err(Refused::Token("this kind of token is not an access token")),
    }
}

fn signed_claims(token: &str, header: &Header, key: &DecodingKey) -> Result<Map<String, Value>, Refused> {
    // The library checks the signature only: its times are the system's clock, ours are the node's.
    let mut signature_only = Validation::new(header.alg);
    signature_only.required_spec_claims.clear();
    signature_only.validate_exp = false;
    signature_only.validate_nbf = false;
    signature_only.validate_aud = false;
    let decoded = jsonwebtoken::decode(token, key, &signature_only);
    decoded.map(|token| token.claims).map_err(|_| Refused::Token("the token's signature is wrong"))
}

fn check_claims(claims: &Map<String, Value>, settings: &Settings, now: Timestamp) -> Result<Holder, Refused> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(&settings.issuer) {
        return Err(Refused::Token("the token is of another issuer"));
    }
    let is_for_us = match claims.get("aud") {
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(&settings.audience)),
        Some(one) => one.as_str() == Some(&settings.audience),
        None => false,
    };
    if !is_for_us {
        return Err(Refused::Token("the token is for another audience"));
    }
    let now = now.as_duration().as_secs_f64();
    let time = |name: &str| claims.get(name).map(|value| value.as_f64().ok_or(Refused::Token("a time is no number")));
    match time("exp").transpose()? {
        None => return Err(Refused::Token("the token does not say when it expires")),
        Some(expires) if now >= expires + LEEWAY => return Err(Refused::Token("the token has expired")),
        Some(_) => {}
    }
    if time("nbf").transpose()?.is_some_and(|begins| begins > now + LEEWAY) {
        return Err(Refused::Token("the token is not valid yet"));
    }
    if is_id_token(claims) {
        return Err(Refused::Token("this kind of token is not an access token"));
    }
    let subject = text("sub").ok_or(Refused::Token("the token names no subject"))?;
    Ok(Holder { subject: subject_hash(&settings.issuer, subject), scopes: scopes(claims, settings) })
}

/// ID tokens say who logged in to some client; they are signed by the same keys, and must open nothing here.
fn is_id_token(claims: &Map<String, Value>) -> bool {
    // OpenID Connect Core, sections 3.1.3.6 and 3.3.2.11: only ID tokens have these.
    let has_hashes = claims.contains_key("at_hash") || claims.contains_key("c_hash");
    // Keycloak says what a token is in `typ`, Cognito in `token_use`.
    let is_other = |name: &str, ours: &[&str]| {
        claims.get(name).and_then(Value::as_str).is_some_and(|kind| !ours.contains(&kind.to_ascii_lowercase().as_str()))
    };
    has_hashes || is_other("typ", &["bearer", "jwt", "at+jwt"]) || is_other("token_use", &["access"])
}

fn subject_hash(issuer: &str, subject: &str) -> [u8; 32] {
    let mut hash = digest::Context::new(&SHA256);
    hash.update(issuer.as_bytes());
    // No address contains it, so that no other pair gives the same bytes.
    hash.update(&[0]);
    hash.update(subject.as_bytes());
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(hash.finish().as_ref()) {
        *to = *from;
    }
    bytes
}

fn scopes(claims: &Map<String, Value>, settings: &Settings) -> Vec<Scope> {
    let of = |word: &str| settings.scopes.get(word).copied();
    let mut scopes: Vec<Scope> = match at_path(claims, &settings.claim) {
        // RFC 8693, section 4.2: a list with spaces between.
        Some(Value::String(words)) => words.split_ascii_whitespace().filter_map(of).collect(),
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).filter_map(of).collect(),
        _ => Vec::new(),
    };
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

/// The value at a dotted path. Names may have dots themselves (`https://example.org/roles`): the longest that fits is
/// taken.
fn at_path<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.rmatch_indices('.').find_map(|(at, _)| {
        let (first, rest) = (path.get(..at)?, path.get(at + 1..)?);
        at_path(claims.get(first)?.as_object()?, rest)
    })
}
