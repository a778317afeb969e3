//! RTP as the rest of the house knows it: packets, sources, and the tap that carries them to the recorder; and the
//! protocol itself: headers, SRTP, RTCP, repairs, reports and feedback.
//!
//! Pure: no socket, no clock, no task. The forwarder, the recorder and the tests know only these types,
//! so that what stands behind them on the wire can change in one place.

pub mod header;
pub mod nack;
mod packet;
pub mod report;
pub mod rtcp;
pub mod sequence;
pub mod srtp;
mod tap;
pub mod twcc;
pub mod vp8;

pub use packet::{Codec, Extensions, Packet, SenderReport, Ssrc};
pub use tap::{Durability, TAP_BYTES, TAP_ITEMS, Tap, TapError, TapReader, Tapped, tap};
