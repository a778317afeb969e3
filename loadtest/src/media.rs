//! What the clients send: VP8 frames out of an IVF file in a loop, Opus of a tone, and the RTP payloads of both.

use std::f32::consts::TAU;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Four seconds of a moving test picture, 320x180 at 25 frames a second, about 250 kbit/s, one keyframe at its start:
/// `ffmpeg -f lavfi -i testsrc2=s=320x180:r=25:d=4 -c:v libvpx -b:v 250k -maxrate 300k -g 1000 -auto-alt-ref 0`.
const BUILT_IN: &[u8] = include_bytes!("../media/moving.ivf");

/// Payload bytes in an RTP packet: with all headers and SRTP's tag it stays below the 1,200 bytes that every path takes.
const LONGEST_PAYLOAD: usize = 1_100;

/// Length of one Opus packet.
pub(crate) const VOICE_STEP: Duration = Duration::from_millis(20);

/// VP8 frames that begin with a keyframe, to be played in a loop.
#[derive(Debug)]
pub struct Film {
    frames: Vec<Vec<u8>>,
    /// From one frame to the next.
    pub(crate) step: Duration,
}

/// Why a film cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum FilmError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// It is not an IVF file with VP8.
    #[error("not an IVF file with VP8")]
    NotVp8,
    /// A file that is cut off, or has no frames.
    #[error("no whole frame in it")]
    Empty,
    /// A loop must be able to begin anew.
    #[error("its first frame is not a keyframe")]
    NoKeyframe,
}

impl Film {
    /// The film that is part of the tool.
    pub fn built_in() -> Result<Self, FilmError> {
        Self::parse(BUILT_IN)
    }

    /// A film from a file.
    pub fn read(file: &Path) -> Result<Self, FilmError> {
        Self::parse(&std::fs::read(file)?)
    }

    /// IVF: a header of 32 bytes, then per frame 4 bytes of length, 8 of time, and the frame; little-endian.
    fn parse(ivf: &[u8]) -> Result<Self, FilmError> {
        let (header, mut rest) = ivf.split_at_checked(32).ok_or(FilmError::NotVp8)?;
        if !header.starts_with(b"DKIF") || header.get(8..12) != Some(b"VP80") {
            return Err(FilmError::NotVp8);
        }
        let rate = le32(header, 16).ok_or(FilmError::NotVp8)?.max(1);
        let scale = le32(header, 20).ok_or(FilmError::NotVp8)?.max(1);
        let mut frames = Vec::new();
        while let Some((head, tail)) = rest.split_at_checked(12) {
            let length = le32(head, 0).and_then(|length| usize::try_from(length).ok()).unwrap_or(usize::MAX);
            let Some((frame, tail)) = tail.split_at_checked(length) else { break };
            frames.push(frame.to_vec());
            rest = tail;
        }
        // RFC 6386, section 9.1: bit 0 of a frame's first byte is 0 in a keyframe.
        match frames.first().map(|frame| frame.first()) {
            None => Err(FilmError::Empty),
            Some(Some(first)) if first & 1 == 0 => Ok(Self { frames, step: Duration::from_secs(1) * scale / rate }),
            Some(_) => Err(FilmError::NoKeyframe),
        }
    }

    /// The `n`th frame of the loop; 0 is a keyframe.
    pub(crate) fn frame(&self, n: usize) -> &[u8] {
        self.frames.get(n % self.frames.len()).map_or(&[], Vec::as_slice)
    }

    /// Whether the `n`th frame can be decoded by itself (RFC 6386, section 9.1).
    pub(crate) fn is_keyframe(&self, n: usize) -> bool {
        self.frame(n).first().is_some_and(|first| first & 1 == 0)
    }

    /// The `n`th frame of the loop without its first.
    pub(crate) fn other_than_keyframe(&self, n: usize) -> usize {
        1 + n.checked_rem(self.frames.len() - 1).unwrap_or(0)
    }
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// The descriptor that Chromium writes before a piece of a VP8 frame (RFC 7741, section 4.2): X and I set, a picture id
/// of 15 bits, S on the first.
pub(crate) fn descriptor(first: bool, picture_id: u16) -> [u8; 4] {
    let [high, low] = (picture_id & 0x7fff).to_be_bytes();
    [if first { 0x90 } else { 0x80 }, 0x80, 0x80 | high, low]
}

/// The pieces of a VP8 frame, cut as Chromium does: as few as fit, all of one length, or the last of them a byte longer.
pub(crate) fn pieces(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
    let count = frame.len().div_ceil(LONGEST_PAYLOAD).max(1);
    let (length, longer) = (frame.len() / count, frame.len() % count);
    let (short, long) = frame.split_at(length * (count - longer));
    short.chunks(length.max(1)).chain(long.chunks(length + 1))
}

/// Cuts a VP8 frame into RTP payloads, each with its descriptor.
pub(crate) fn packetize(frame: &[u8], picture_id: u16) -> Vec<Vec<u8>> {
    pieces(frame)
        .enumerate()
        .map(|(part, chunk)| {
            let mut payload = descriptor(part == 0, picture_id).to_vec();
            payload.extend_from_slice(chunk);
            payload
        })
        .collect()
}

/// One second of Opus, to be played in a loop. Clones share it.
#[derive(Clone, Debug)]
pub struct Voice {
    packets: Arc<[Vec<u8>]>,
}

impl Voice {
    /// A steady tone. Whole hertz, so that the loop closes without a click.
    pub fn tone(hertz: u16) -> Result<Self, opus::Error> {
        let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip)?;
        encoder.set_bitrate(opus::Bitrate::Bits(32_000))?;
        let wave: Vec<f32> =
            (0_u16..48_000).map(|n| 0.3 * (TAU * f32::from(hertz) * f32::from(n) / 48_000.0).sin()).collect();
        let packets = wave.chunks(960).map(|step| encoder.encode_vec_float(step, 400)).collect::<Result<_, _>>()?;
        Ok(Self { packets })
    }

    /// The `n`th packet of the loop.
    pub(crate) fn packet(&self, n: usize) -> &[u8] {
        self.packets.get(n % self.packets.len()).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_cut_into_as_few_pieces_as_fit_the_longer_last() {
        let lengths = |length: usize| pieces(&vec![7; length]).map(<[u8]>::len).collect::<Vec<_>>();
        assert_eq!(lengths(1_100), [1_100]);
        assert_eq!(lengths(1_101), [550, 551]);
        assert_eq!(lengths(2_500), [833, 833, 834]);
        assert_eq!(lengths(3_300), [1_100; 3]);
        assert_eq!(lengths(3), [3]);
        assert!(lengths(0).is_empty());
        let frame: Vec<u8> = (0..=255).cycle().take(5_003).collect();
        assert_eq!(pieces(&frame).collect::<Vec<_>>().concat(), frame);
    }

    #[test]
    fn the_built_in_film_is_four_seconds_that_begin_with_a_keyframe() {
        let film = Film::built_in().unwrap();
        assert_eq!(film.frames.len(), 100);
        assert_eq!(film.step, Duration::from_millis(40));
        assert!(film.is_keyframe(0) && (1..100).all(|n| !film.is_keyframe(n)), "one keyframe, at its start");
        assert!((0..300).all(|n| !film.is_keyframe(film.other_than_keyframe(n))));
    }

    #[test]
    fn a_file_that_cannot_be_looped_is_refused() {
        assert!(matches!(Film::parse(b"RIFF"), Err(FilmError::NotVp8)));
        assert!(matches!(Film::parse(&BUILT_IN[..40]), Err(FilmError::Empty)));
        let first = 32 + 12 + usize::try_from(le32(BUILT_IN, 32).unwrap()).unwrap();
        let headless = [&BUILT_IN[..32], &BUILT_IN[first..]].concat();
        assert!(matches!(Film::parse(&headless), Err(FilmError::NoKeyframe)));
    }

    #[test]
    fn a_packetized_frame_is_the_frame_again_without_its_descriptors() {
        let film = Film::built_in().unwrap();
        let payloads = packetize(film.frame(0), 0x1234);
        assert!(payloads.len() > 1, "the keyframe is longer than a packet");
        let starts: Vec<bool> = payloads.iter().map(|payload| payload[0] & 0x10 != 0).collect();
        assert_eq!(starts.iter().filter(|start| **start).count(), 1);
        assert!(starts[0], "the start bit is on the first");
        assert!(payloads.iter().all(|payload| payload[2..4] == [0x92, 0x34]));
        assert_eq!(payloads.iter().flat_map(|payload| &payload[4..]).copied().collect::<Vec<_>>(), film.frame(0));
    }

    #[test]
    fn a_voice_decodes_to_its_tone() {
        let voice = Voice::tone(950).unwrap();
        let mut decoder = opus::Decoder::new(48_000, opus::Channels::Mono).unwrap();
        let mut heard = Vec::new();
        for n in 0..50 {
            let mut step = [0.0_f32; 960];
            assert_eq!(decoder.decode_float(voice.packet(n), &mut step, false).unwrap(), 960);
            heard.extend_from_slice(&step);
        }
        let rising = heard.windows(2).filter(|pair| pair[0] <= 0.0 && pair[1] > 0.0).count();
        assert!((930..=970).contains(&rising), "{rising} periods in a second");
    }
}
