//! What leaves the node: webhooks to the booking system ([`webhook`], Standard Webhooks) and text messages to people
//! ([`sms`], through an HTTP gateway).
//!
//! Nothing is sent from memory. A message is written to the outbox in the transaction of its cause, and the
//! [`Notifier`] sends what is due: one after the other within a lane (a room's webhooks, a person's text messages),
//! lanes beside each other. What comes after an attempt is decided by a pure function of the message, the far end's
//! answer and the time (`schedule`). A message may arrive twice (the node stopped between the far end's answer and the
//! note of it), always under the same identifier; it is never lost.
//!
//! One notifier works on a database at a time.

mod endpoint;
mod http;
mod meters;
mod notifier;
mod outbox;
mod schedule;
pub mod sms;
mod template;
mod texts;
pub mod webhook;

#[cfg(test)]
mod tests;

pub use endpoint::Endpoint;
pub use http::ClientError;
pub use notifier::{Notifier, Settings, Sms, SmsOutcome, Waker};
pub use outbox::Outbox;
pub use sms::{Authorization, CodeText, GatewayConfig, SmsConfig, SmsText};
pub use template::{BadTemplate, ContentType, Template};
pub use webhook::{BadSecret, WebhookConfig, WebhookSecret};

pub use crate::store::Language;
