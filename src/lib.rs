//! Sportello: a media server for public counters. Rooms are booked by REST, people are admitted by a code, everyone's
//! media is forwarded by one of the node's workers and recorded whole; if it cannot be recorded, nothing is forwarded.
//!
//! # The two ways of a packet
//! ```text
//! socket ─recv batch→ demux → ingress (open) ─→ forward ─→ egress (seal) → send batch ─→ socket    one thread, one room never leaves it
//!                                       │
//!                                       └─tap (bounded, fails closed)→ recorder → timeline → webm → chain → file → ack    recorder threads
//! ```
//! STUN and DTLS go another way, to `str0m`, which has the sessions' SDP, ICE and keys and never sees a packet of media.
//! From socket to socket a packet stays on one thread of [`sfu`] and meets no lock. From socket to WebM it goes through
//! the room's [`rtp::Tap`] to [`recording`], and the acknowledgement comes back the same way: media flows only while
//! the tap's last second is on disk.
//!
//! # The way of a command
//! ```text
//! api → control (one actor per room) → room (decides, pure) → control carries out the effects on store, sfu, recording
//! ```
//! Persist, then announce: what anybody was told is in the database.
//!
//! # The parts, and what each may use
//! | part | what it is | uses |
//! |---|---|---|
//! | [`clock`], [`id`], [`media`] | the vocabulary; only `clock` reads time | nothing |
//! | [`audit`] | the chain of who looked at which recording: pure | vocabulary |
//! | [`room`] | the rules of a room, pure: (state, now, command) → (events, effects) | vocabulary |
//! | [`calendar`] | opening hours, holidays, slots and what is free of them: pure | vocabulary |
//! | [`vault`] | keys of sessions and encrypted files: pure, but for the key file | vocabulary |
//! | [`documents`] | what may be handed in, and where it lies: checks by content, encrypted files, the virus scanner | `vault` |
//! | [`register`] | the register of documents (protocollo): its contract over HTTP, receipts, the daily register | vocabulary |
//! | [`rtp`] | packets and the tap; headers, SRTP, RTCP, repairs, reports, VP8: pure | vocabulary |
//! | [`sfu`] | the media workers: sockets, sessions, forwarding | `rtp` |
//! | [`recording`] | the recorder's threads, WebM, chains, recovery, the session copy, sealed packages; `verify` (whoever asks brings the check of the ledger's lines) | `audit`, `rtp`, `vault` |
//! | [`objects`] | where sealed packages live: a folder, or S3 | vocabulary |
//! | [`store`] | the database: rooms, people, ledgers, sessions, keys, packages | types of `audit`, `room`, `recording`, `vault` |
//! | [`notify`] | webhooks and text messages: the outbox's way out | `store` |
//! | [`control`] | the rooms' actors | all above |
//! | [`evidence`] | compliance: accesses and their audit, reading, holding, destroying, long work | `audit`, `documents`, `objects`, `recording`, `register`, `room`, `store`, `vault` |
//! | [`api`] | REST, WebSocket and OpenAPI by audience | `control`, `evidence`, `documents`, `register`, types of `room` and `audit` |
//! | [`web`] | the embedded pages, and the demo's booking system | `api`'s problems |
//! | [`config`] | `config/default.toml`, a file, the environment → each part's own settings | the parts' settings |
//! | [`telemetry`] | log and metrics | `config` |
//! | [`keys`] | API keys, made and revoked straight in the database | `store`, `control`, `config` |
//! | [`node`] | the only file that wires the parts | everything |
//!
//! `sfu` and `recording` never name each other: `control` makes the tap and hands out its two ends. A test reads the
//! `use crate::` lines and holds this table true.

pub mod api;
pub mod audit;
pub mod calendar;
pub mod clock;
pub mod config;
pub mod control;
pub mod documents;
pub mod evidence;
pub mod id;
pub mod keys;
pub mod media;
pub mod node;
pub mod notify;
pub mod objects;
pub mod recording;
pub mod register;
pub mod room;
pub mod rtp;
pub mod sfu;
pub mod store;
pub mod telemetry;
pub mod vault;
pub mod web;
