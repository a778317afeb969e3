//! What holds for the whole: the real binary, spoken to as the world does (HTTP, WebSocket, UDP, signals, files), and
//! the house's own rules. One binary with a module per subject, so that the server is linked once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails loudly, in its helpers too"
)]

mod access;
mod admission;
mod api;
mod architecture;
mod bad_input;
mod booking;
mod commands;
mod compliance;
mod database;
mod day;
mod disks;
mod documents;
mod evidence;
mod found;
mod gateway;
mod guesses;
mod issuer;
mod many;
mod openapi;
mod packages;
mod protocollo;
mod receiver;
mod repeatable;
mod restart;
mod revisions;
mod s3;
mod server;
mod slots;
mod texts;
mod webhooks;
