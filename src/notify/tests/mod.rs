//! The way out as a whole: a notifier over an outbox in memory, against HTTP servers on this machine.

mod faults;
mod sms;
mod webhooks;
mod world;
