//! Drives a Sportello server from outside, as the world does: books rooms, types the codes, admits, and holds
//! WebRTC calls with real Opus and VP8. Knows the wire only, nothing of the server's own code: a parser that both
//! sides shared would hide its bugs from this tool.
//!
//! ```text
//! booking ─ POST /v1/rooms ─> plan: rooms ─ two or three clients each ─> client::Client ─> report::Report ─> exit code
//!                                    ^                                          v
//!    script: who goes and comes back, crowd: who waits, and a probe      live: what is shown meanwhile
//!                                                                        verify: what the recordings hold of it
//! ```
//!
//! The program `loadtest` runs [`plan`]s of calls, [`book`]s many rooms, and [`guess`]es codes; the server's own tests use
//! the same, and [`client`] for a person with microphone, camera and a [`network`] that can be bad. What that person
//! sends can be [`numbered`], to be found again in a recording. Where one core is to load another, a thread drives all
//! clients' media: [`light`]. The same can be held on Janus, to compare ([`target`], [`janus`]).

pub mod api;
pub mod appointment;
pub mod book;
mod call;
pub mod client;
pub mod crowd;
pub mod delay;
mod device;
mod events;
mod flow;
pub mod guess;
mod html;
pub mod janus;
pub mod light;
mod line;
pub mod live;
pub mod media;
pub mod network;
pub mod numbered;
pub mod plan;
pub mod recorded;
pub mod report;
mod room;
pub mod script;
mod sdp;
pub mod server;
pub mod target;
pub mod timing;
pub mod verify;
mod wire;
