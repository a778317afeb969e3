//! One original while it is read: a little ahead of the time that is being laid out.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{SessionError, SourceFault};
use crate::recording::mix::{PER_MS, Voice, VoiceCounts};
use crate::recording::read::{self, LARGEST_PIECE, Malformed, TrackContent};
use crate::rtp::vp8::Resolution;

/// The tracks of an original are not laid down in step: a block that waited for a missing packet may stand in a later
/// cluster than blocks after it. Further ahead costs memory; less puts such blocks out of order.
const STRAGGLERS_MS: i64 = 3_000;

/// What may be held of one original at a time. Its few seconds are a few megabytes.
const MOST_HELD: usize = 128 << 20;

/// A frame or packet that waits for its time.
#[derive(Debug)]
pub(super) struct Queued {
    /// On the file's timeline.
    pub(super) ms: i64,
    pub(super) keyframe: bool,
    pub(super) data: Bytes,
}

pub(super) struct Feed {
    number: usize,
    label: String,
    offset_ms: i64,
    pieces: Box<dyn Iterator<Item = io::Result<Vec<u8>>>>,
    piece: u64,
    bytes: u64,
    tracks: Tracks,
    wall: Option<Timestamp>,
    frames: VecDeque<Queued>,
    packets: VecDeque<Queued>,
    held: usize,
    /// Everything before this was read, but for stragglers.
    read_ms: i64,
    ended: bool,
    end_ms: Option<i64>,
    last_frame_ms: Option<i64>,
    pub(super) voice: Option<Voice>,
    pub(super) lane: Option<usize>,
    pub(super) speaker: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tracks {
    picture: Option<(u8, Resolution)>,
    /// Number and pre-skip.
    sound: Option<(u8, u16)>,
}

/// The last frame is taken to last as long as the one before it, but no longer than this.
const LAST_FRAME_MS: i64 = 100;

impl Feed {
    /// Takes the header. A source without any pieces is one without tracks.
    pub(super) fn open(
        number: usize,
        label: String,
        offset_ms: i64,
        pieces: Box<dyn Iterator<Item = io::Result<Vec<u8>>>>,
    ) -> Result<Self, SessionError> {
        let mut feed = Self {
            number,
            label,
            offset_ms,
            pieces,
            piece: 0,
            bytes: 0,
            tracks: Tracks::default(),
            wall: None,
            frames: VecDeque::new(),
            packets: VecDeque::new(),
            held: 0,
            read_ms: offset_ms,
            ended: false,
            end_ms: None,
            last_frame_ms: None,
            voice: None,
            lane: None,
            speaker: None,
        };
        if let Some(piece) = feed.next_piece()? {
            let header = read::header(&piece).map_err(|error| feed.fault(error))?;
            feed.wall = header.wall;
            for track in header.tracks {
                match track.content {
                    TrackContent::Video(size) => {
                        feed.tracks.picture.get_or_insert((track.number, size));
                    }
                    TrackContent::Audio { pre_skip } => {
                        feed.tracks.sound.get_or_insert((track.number, pre_skip));
                    }
                }
            }
        }
        Ok(feed)
    }

    /// Bytes taken so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Size of the picture, as the header says, if there is one.
    pub(super) fn picture(&self) -> Option<Resolution> {
        self.tracks.picture.map(|(_, size)| size)
    }

    pub(super) fn has_sound(&self) -> bool {
        self.tracks.sound.is_some()
    }

    /// Wall time of the session's zero.
    pub(super) fn session_wall(&self) -> Option<Timestamp> {
        self.wall?.checked_sub(SignedDuration::from_millis(self.offset_ms)).ok()
    }

    /// Where its last block ends, if it has had any.
    pub(super) fn end_ms(&self) -> Option<i64> {
        self.end_ms
    }

    /// Nothing more comes out of it.
    pub(super) fn is_done(&self) -> bool {
        self.ended && self.frames.is_empty() && self.packets.is_empty() && self.voice.is_none()
    }

    /// Reads until everything before `ms` is at hand.
    pub(super) fn read_ahead(&mut self, ms: i64) -> Result<(), SessionError> {
        while !self.ended && self.read_ms <= ms.saturating_add(STRAGGLERS_MS) {
            let Some(piece) = self.next_piece()? else {
                return Ok(());
            };
            self.take(piece).map_err(|error| self.fault(error))?;
        }
        Ok(())
    }

    /// The next frame, if its time is before `until`.
    pub(super) fn next_frame(&mut self, until: i64) -> Option<Queued> {
        let frame = self.frames.pop_front_if(|frame| frame.ms < until)?;
        self.held = self.held.saturating_sub(frame.data.len());
        Some(frame)
    }

    /// Decodes the packets before `until`; if there are none and the mix needs sound up to `needed`, the voice ends there.
    pub(super) fn decode(&mut self, until: i64, needed: i64) -> Result<(), SessionError> {
        while let Some(packet) = self.packets.pop_front_if(|packet| packet.ms < until) {
            self.held = self.held.saturating_sub(packet.data.len());
            if self.voice.is_none()
                && let Some((_, pre_skip)) = self.tracks.sound
            {
                self.voice = Some(Voice::new(pre_skip)?);
            }
            if let Some(voice) = &mut self.voice {
                voice.push(packet.ms * PER_MS, &packet.data);
            }
        }
        if let Some(voice) = &mut self.voice {
            voice.trail_off(needed);
        }
        Ok(())
    }

    /// Lets the voice go once all of it is mixed.
    pub(super) fn let_voice_end(&mut self) -> Option<VoiceCounts> {
        let over = self.ended && self.packets.is_empty() && self.voice.as_ref().is_some_and(Voice::is_empty);
        if over { self.voice.take().map(|voice| voice.counts()) } else { None }
    }

    fn take(&mut self, piece: Vec<u8>) -> Result<(), Malformed> {
        let piece = Bytes::from(piece);
        let cluster = read::cluster(&piece)?;
        self.read_ms = self.read_ms.max(self.session_ms(cluster.ms));
        for block in cluster.blocks() {
            let block = block?;
            let ms = self.session_ms(block.ms);
            let data = piece.slice_ref(block.data);
            self.held += data.len();
            if self.held > MOST_HELD {
                return Err(Malformed("more in a few seconds than a meeting can hold"));
            }
            let number = Some(block.track);
            if number == self.tracks.picture.map(|(number, _)| number) {
                let length = self.last_frame_ms.map_or(0, |last| (ms - last).clamp(0, LAST_FRAME_MS));
                self.last_frame_ms = Some(ms);
                self.reaches(ms + length);
                self.frames.push_back(Queued { ms, keyframe: block.keyframe, data });
            } else if number == self.tracks.sound.map(|(number, _)| number) {
                self.reaches(ms + LAST_PACKET_MS);
                self.packets.push_back(Queued { ms, keyframe: true, data });
            } else {
                return Err(Malformed("a block of a track that the header does not declare"));
            }
        }
        Ok(())
    }

    fn reaches(&mut self, ms: i64) {
        self.end_ms = self.end_ms.max(Some(ms));
    }

    fn session_ms(&self, ms: u64) -> i64 {
        self.offset_ms.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    fn next_piece(&mut self) -> Result<Option<Vec<u8>>, SessionError> {
        let Some(piece) = self.pieces.next() else {
            self.ended = true;
            return Ok(None);
        };
        let piece = piece.map_err(|error| self.fault(error))?;
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if length > LARGEST_PIECE {
            return Err(self.fault(Malformed("a piece larger than any cluster")));
        }
        self.bytes += length;
        self.piece += 1;
        Ok(Some(piece))
    }

    fn fault(&self, error: impl Into<SourceFault>) -> SessionError {
        // `piece` counts those that came; the last of them is at fault, or the one that did not come.
        let error = error.into();
        let unread = matches!(error, SourceFault::Unreadable(_));
        let piece = if unread { self.piece } else { self.piece.saturating_sub(1) };
        SessionError::Source { source_number: self.number, label: self.label.clone(), piece, error }
    }
}

/// What Opus packets usually last.
const LAST_PACKET_MS: i64 = 20;
