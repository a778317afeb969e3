//! Media that carries its number: each video frame and each Opus packet of a person, so that it can be found again at a
//! receiver and in a recording, and a record of what was sent when.
//!
//! A frame's mark stands behind its last partition, where decoders read nothing more (RFC 6386, section 9.5); an Opus
//! packet's in its padding (RFC 6716, section 3.2.5). Picture and sound are the same with it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use crate::delay::Delays;

/// Begins every mark.
const MAGIC: [u8; 4] = *b"No.:";
/// Magic, sender, number.
const MARK: usize = MAGIC.len() + 4 + 8;

/// What a frame or packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// Whose it is.
    pub sender: u32,
    /// Which of theirs: from 0, by one, over all connections of that person; or, from a record that stamps, when it was
    /// made, nanoseconds since the run's beginning.
    pub number: u64,
}

impl Mark {
    fn bytes(self) -> [u8; MARK] {
        let mut bytes = [0; MARK];
        let parts = MAGIC.into_iter().chain(self.sender.to_be_bytes()).chain(self.number.to_be_bytes());
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        bytes
    }

    /// The mark at the end of a frame, or of an Opus packet.
    pub fn read(media: &[u8]) -> Option<Self> {
        let (_, mark) = media.split_at_checked(media.len().checked_sub(MARK)?)?;
        let (sender, number) = mark.strip_prefix(&MAGIC)?.split_at_checked(4)?;
        Some(Self {
            sender: u32::from_be_bytes(sender.try_into().ok()?),
            number: u64::from_be_bytes(number.try_into().ok()?),
        })
    }

    /// The VP8 frame with this mark. It is whole in the last of its pieces, which are of about one length.
    pub(crate) fn on_frame(self, frame: &[u8]) -> Vec<u8> {
        let mut marked = frame.to_vec();
        marked.extend(self.bytes());
        marked
    }

    /// The Opus packet of one frame (code 0) as one of code 3 with this mark as its padding; any other as it is.
    pub(crate) fn on_voice(self, packet: &[u8]) -> Vec<u8> {
        const CODE: u8 = 0b11;
        // Constant bit rate, padding, one frame.
        const ONE_FRAME_PADDED: u8 = 0x41;
        match packet.split_first() {
            Some((toc, frame)) if toc & CODE == 0 => {
                let padding = u8::try_from(MARK).unwrap_or(u8::MAX);
                let mut marked = vec![toc | CODE, ONE_FRAME_PADDED, padding];
                marked.extend_from_slice(frame);
                marked.extend(self.bytes());
                marked
            }
            _ => packet.to_vec(),
        }
    }
}

/// What tells a frame or packet from an altered one. Nobody is kept from making another with the same.
pub fn digest(media: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(media);
    hasher.finish()
}

/// Voice or picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Opus packets.
    Voice,
    /// VP8 frames.
    Picture,
}

/// A frame or packet that was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Its number.
    pub number: u64,
    /// The sender's connection, from 1.
    pub connection: u32,
    /// The RTP stream.
    pub ssrc: u32,
    /// Its first RTP sequence number, as it stands on the wire, and how many packets it took.
    pub sequence: u16,
    /// RTP packets that it took.
    pub packets: u16,
    /// Its RTP timestamp.
    pub rtp: u32,
    /// Whether it is a video keyframe.
    pub keyframe: bool,
    /// [`digest`] of the frame or packet with its mark.
    pub digest: u64,
    /// When it was captured, on the device's clock, which also writes the sender reports.
    pub captured: Instant,
    /// When it was handed to the network, on this machine's clock.
    pub sent: Instant,
}

/// A frame or packet that arrived from someone else.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Whose it is and which.
    pub mark: Mark,
    /// Voice or picture.
    pub kind: Kind,
    /// When it came, on this machine's clock.
    pub at: Instant,
}

/// What one person sent, and heard of others, over all their connections.
#[derive(Debug)]
pub struct Record {
    sender: u32,
    epoch: (Instant, SystemTime),
    stamps: Option<Arc<Delays>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connections: u32,
    sent: BTreeMap<Kind, Vec<Sent>>,
    heard: Vec<Heard>,
}

impl Record {
    /// An empty record of the person with this number.
    pub fn new(sender: u32) -> Self {
        Self { sender, epoch: (Instant::now(), SystemTime::now()), stamps: None, state: Mutex::default() }
    }

    /// The same for long runs: what is sent is numbered by when it was made, so that receivers know how long it took, and
    /// what is heard is not remembered.
    pub fn stamping(sender: u32, delays: Arc<Delays>) -> Self {
        Self { stamps: Some(delays), ..Self::new(sender) }
    }

    /// The person's number.
    pub fn sender(&self) -> u32 {
        self.sender
    }

    /// Everything of this kind that was sent, by number.
    pub fn sent(&self, kind: Kind) -> Vec<Sent> {
        self.state().sent.get(&kind).cloned().unwrap_or_default()
    }

    /// Everything that arrived, in the order of arrival.
    pub fn heard(&self) -> Vec<Heard> {
        self.state().heard.clone()
    }

    /// A moment of this machine's clock as date and time.
    pub fn wall(&self, at: Instant) -> SystemTime {
        let (instant, wall) = self.epoch;
        match at.checked_duration_since(instant) {
            Some(later) => wall + later,
            None => wall - instant.saturating_duration_since(at),
        }
    }

    /// One more connection begins; gives its number.
    pub(crate) fn connect(&self) -> u32 {
        let mut state = self.state();
        state.connections += 1;
        state.connections
    }

    /// The next mark of this kind.
    pub(crate) fn next(&self, kind: Kind) -> Mark {
        let count = || u64::try_from(self.state().sent.get(&kind).map_or(0, Vec::len)).unwrap_or(u64::MAX);
        Mark { sender: self.sender, number: self.stamps.as_ref().map_or_else(count, |delays| delays.stamp()) }
    }

    /// Something with the next mark was sent.
    pub(crate) fn add(&self, kind: Kind, sent: Sent) {
        self.state().sent.entry(kind).or_default().push(sent);
    }

    /// Something of someone else arrived.
    pub(crate) fn hear(&self, kind: Kind, media: &[u8]) {
        if self.stamps.is_none()
            && let Some(mark) = Mark::read(media)
        {
            self.state().heard.push(Heard { mark, kind, at: Instant::now() });
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Film, Voice, pieces};

    const MARKED: Mark = Mark { sender: 7, number: 0x0102_0304_0506 };

    #[test]
    fn a_mark_can_be_read_from_the_last_piece_of_every_frame() {
        let film = Film::built_in().unwrap();
        for n in 0..100 {
            let marked = MARKED.on_frame(film.frame(n));
            assert!(marked.starts_with(film.frame(n)));
            assert_eq!(Mark::read(pieces(&marked).last().unwrap()), Some(MARKED));
        }
        for length in 1_080..1_110 {
            assert_eq!(Mark::read(pieces(&MARKED.on_frame(&vec![1; length])).last().unwrap()), Some(MARKED));
        }
        assert_eq!(Mark::read(film.frame(0)), None);
    }

    #[test]
    fn a_marked_voice_sounds_exactly_the_same() {
        let voice = Voice::tone(440).unwrap();
        let decoder = || opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
        let (mut plain, mut marked) = (decoder(), decoder());
        for n in 0..50 {
            let packet = MARKED.on_voice(voice.packet(n));
            assert_eq!(Mark::read(&packet), Some(MARKED));
            let (mut one, mut other) = ([0.0_f32; 960], [0.0_f32; 960]);
            assert_eq!(plain.decode_float(voice.packet(n), &mut one, false).unwrap(), 960);
            assert_eq!(marked.decode_float(&packet, &mut other, false).unwrap(), 960);
            assert!(one.iter().zip(&other).all(|(one, other)| one.to_bits() == other.to_bits()));
        }
    }
}
