//! Webhooks, signed as Standard Webhooks 1.0.0 describes (<https://www.standardwebhooks.com>).

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};

use super::Endpoint;
use super::http::Post;
use crate::store::Message;

/// What a secret begins with (Standard Webhooks, «Signature scheme»).
const SECRET_PREFIX: &str = "whsec_";

/// Bytes of a secret (the same place: 192 to 512 bits).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Most secrets that sign at once. A rotation needs two; each further one lengthens every request by 48 bytes.
pub const MOST_SECRETS: usize = 4;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Where webhooks go, and what signs them.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// The receiver.
    pub url: Endpoint,
    /// What signs them: one, or several while the receiver changes from one to the next.
    pub secrets: Vec<WebhookSecret>,
}

/// A shared secret.
#[derive(Clone)]
pub struct WebhookSecret(hmac::Key);

/// Why a text is no secret. The configuration's fault; says nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// Another beginning.
    #[error("a secret begins with \"whsec_\"")]
    Prefix,
    /// What follows is not base64.
    #[error("what follows \"whsec_\" must be base64 (A-Z a-z 0-9 + / and = at the end)")]
    Base64,
    /// Too few or too many bytes.
    #[error("a secret has 24 to 64 bytes, this one {0}")]
    Length(usize),
}

impl WebhookSecret {
    /// Reads a secret as it is handed to receivers: `whsec_` and base64.
    ///
    /// # Errors
    /// [`BadSecret`].
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(BadSecret::Prefix)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| BadSecret::Base64)?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(BadSecret::Length(bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

/// The request that carries `message` at an attempt made at `now`.
pub(super) fn request(
    message: &Message,
    secrets: &[WebhookSecret],
    now: Timestamp,
) -> Result<Post, InvalidHeaderValue> {
    let id = format!("msg_{}", message.id);
    let timestamp = now.as_second();
    let headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (SIGNATURE, HeaderValue::from_str(&signatures(secrets, &id, timestamp, &message.body))?),
        (ID, HeaderValue::from_str(&id)?),
        (TIMESTAMP, HeaderValue::from(timestamp)),
    ]);
    Ok(Post { headers, body: message.body.clone() })
}

/// One `v1` signature per secret over `id.timestamp.body`, separated by spaces.
fn signatures(secrets: &[WebhookSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signature = |secret: &WebhookSecret| {
        let mut context = hmac::Context::with_key(&secret.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    };
    secrets.iter().map(signature).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the libraries of Standard Webhooks are tested with.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn the_signature_is_the_one_that_receivers_libraries_expect() {
        let secrets = [WebhookSecret::parse(SECRET).unwrap()];
        let signed = signatures(&secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, SIGNED);
    }

    #[test]
    fn during_a_rotation_every_secret_signs() {
        let other = format!("whsec_{}", STANDARD.encode([9; 32]));
        let secrets = [WebhookSecret::parse(&other).unwrap(), WebhookSecret::parse(SECRET).unwrap()];
        let signed = signatures(&secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        let signed: Vec<_> = signed.split(' ').collect();
        assert_eq!(signed.len(), 2);
        assert!(signed[0].starts_with("v1,") && signed[0] != SIGNED);
        assert_eq!(signed[1], SIGNED);
    }

    #[test]
    fn a_secret_that_is_none_is_refused_by_what_is_wrong_with_it() {
        let of = |bytes: usize| WebhookSecret::parse(&format!("whsec_{}", STANDARD.encode(vec![1; bytes])));
        assert_eq!(WebhookSecret::parse("hunter2").unwrap_err(), BadSecret::Prefix);
        assert_eq!(WebhookSecret::parse("whsec_hunter2!").unwrap_err(), BadSecret::Base64);
        assert_eq!(of(23).unwrap_err(), BadSecret::Length(23));
        assert_eq!(of(65).unwrap_err(), BadSecret::Length(65));
        assert!(of(24).is_ok() && of(64).is_ok());
        assert_eq!(format!("{:?}", of(24).unwrap()), "WebhookSecret(…)");
    }
}
