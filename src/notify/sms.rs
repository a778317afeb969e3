//! Text messages: what they hold, and the request that hands one over to a gateway.

use std::fmt;

use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

use super::http::Post;
use super::template::{Filling, Template};
use super::texts;
use super::{Endpoint, Language};
use crate::id::MessageId;
use crate::store::{Message, Personal, Seal, SealError, Secret};

/// How codes reach people.
#[derive(Clone, Debug)]
pub struct SmsConfig {
    /// Language of people whose booking names none.
    pub language: Language,
    /// The gateway; `None`: codes are told to the booking system, which sends them (mode `return`).
    pub gateway: Option<GatewayConfig>,
}

/// A gateway that sends text messages, driven by HTTP POST.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Its address.
    pub url: Endpoint,
    /// The request's body.
    pub body: Template,
    /// Value of the `Authorization` header.
    pub authorization: Option<Authorization>,
}

/// Value of an `Authorization` header, e.g. `Bearer …`.
#[derive(Clone)]
pub struct Authorization(HeaderValue);

impl Authorization {
    /// A value as it is sent; `None`: it has characters that no header may have.
    pub fn parse(text: &str) -> Option<Self> {
        let mut value = HeaderValue::from_str(text).ok()?;
        value.set_sensitive(true);
        Some(Self(value))
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(…)")
    }
}

/// What the message that carries a code says.
#[derive(Clone, Copy, Debug)]
pub struct CodeText<'a> {
    /// The code, 4 to 10 digits.
    pub code: &'a Secret,
    /// Office (sede); shortened where the message has no place for it.
    pub office: &'a str,
    /// Start of the appointment.
    pub start: Timestamp,
}

/// The text that carries a code: one message of at most 160 characters of the GSM 7-bit alphabet (3GPP TS 23.038
/// §6.2.1), times as Italian clocks show them. It says neither what the appointment is for nor who it is with: screens
/// show it while they are locked.
pub fn text(language: Language, code: &CodeText<'_>) -> Secret {
    texts::code(language, code)
}

/// A text message, in the clear. In the outbox it is sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmsText {
    /// To whom: `+` and digits.
    pub phone: Personal,
    /// What is sent; it holds the code.
    pub text: Secret,
}

impl SmsText {
    /// The body of the outbox's message `id`.
    ///
    /// # Errors
    /// [`SealError::NotSealed`].
    pub fn seal(&self, seal: &Seal, id: MessageId) -> Result<Vec<u8>, SealError> {
        let clear = serde_json::to_vec(self).map_err(|_| SealError::NotSealed)?;
        seal.seal(id.as_bytes(), &clear)
    }

    /// Reads the body of the outbox's message `id`.
    ///
    /// # Errors
    /// [`SealError::NotOpened`].
    pub fn open(seal: &Seal, id: MessageId, sealed: &[u8]) -> Result<Self, SealError> {
        let clear = seal.open(id.as_bytes(), sealed)?;
        serde_json::from_slice(&clear).map_err(|_| SealError::NotOpened)
    }
}

/// The request that hands `message` over.
pub(super) fn request(message: &Message, gateway: &GatewayConfig, seal: &Seal) -> Result<Post, SealError> {
    let sms = SmsText::open(seal, message.id, &message.body)?;
    let id = message.id.to_string();
    let body = gateway.body.fill(Filling { phone: sms.phone.expose(), text: sms.text.expose(), id: &id });
    let content_type = gateway.body.content_type().name();
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    if let Some(Authorization(value)) = &gateway.authorization {
        headers.insert(AUTHORIZATION, value.clone());
    }
    Ok(Post { headers, body: body.into_bytes() })
}
