//! Sportello: a media server for public counters.

pub mod clock;
pub mod control;
pub mod id;
pub mod media;
pub mod recording;
pub mod room;
pub mod rtp;
pub mod sfu;
pub mod store;
pub mod units;
