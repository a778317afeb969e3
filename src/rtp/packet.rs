//! A media packet after decryption, and the words around it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::MonoTime;

/// Synchronisation source of an RTP stream (RFC 3550 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ssrc(pub u32);

/// A codec that the house forwards and records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// Opus (RFC 7587), 48 kHz RTP clock.
    Opus,
    /// VP8 (RFC 7741), 90 kHz RTP clock.
    Vp8,
}

impl Codec {
    /// RTP clock rate in ticks per second.
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::Vp8 => 90_000,
        }
    }
}

/// The header extensions that travel with a forwarded packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Loudness in −dBov, 0 (loudest) to 127 (silence) (RFC 6464).
    pub audio_level: Option<u8>,
    /// The sender's own view whether this is speech (RFC 6464). Some browsers set it always: prefer the level.
    pub voice_activity: Option<bool>,
    /// Clockwise turn of the picture in quarter turns, 0 to 3 (3GPP TS 26.114, video orientation).
    pub rotation: Option<u8>,
}

/// One RTP packet, decrypted, with counters already unwrapped.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The stream it belongs to; a source may change it in mid-call.
    pub ssrc: Ssrc,
    /// What codec the payload is in.
    pub codec: Codec,
    /// Sequence number, extended by its rollovers.
    pub sequence: u64,
    /// RTP timestamp in ticks of the codec's clock, extended by its rollovers.
    pub timestamp: u64,
    /// Last packet of a video frame, or first of a talk spurt.
    pub marker: bool,
    /// When the datagram came in.
    pub arrival: MonoTime,
    /// Header extensions worth forwarding.
    pub extensions: Extensions,
    /// The payload without RTP header and padding. Shared, never copied per receiver.
    pub payload: Bytes,
}

/// A sender's report: which RTP time was which time on the sender's own clock (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    /// The stream that it speaks of.
    pub ssrc: Ssrc,
    /// The sender's clock, NTP format: seconds since 1900 in the upper 32 bits, fraction in the lower.
    pub ntp: u64,
    /// The RTP timestamp of the same moment, in ticks, not extended.
    pub rtp_timestamp: u32,
    /// When the report came in.
    pub arrival: MonoTime,
}
