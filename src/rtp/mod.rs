//! RTP as the rest of the house knows it: packets, sources, and the tap that carries them to the recorder.
//!
//! Pure: no socket, no clock, no task. The forwarder, the recorder and the tests know only these types,
//! so that what stands behind them on the wire can change in one place.

mod packet;
mod tap;
pub mod vp8;

pub use packet::{Codec, Extensions, Packet, SenderReport, Ssrc};
pub use tap::{Durability, TAP_BYTES, TAP_ITEMS, Tap, TapError, TapReader, Tapped, tap};
