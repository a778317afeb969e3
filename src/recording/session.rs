//! The session copy: every original of a session as one file that plays anywhere. Track 1 is everyone's voice, mixed;
//! then comes each person's camera, and each screen, as it was received, on one timeline.
//!
//! Pure and streaming: originals come in as iterators over their pieces, bytes go out through a [`SessionSink`], and in
//! between stands no more than what a few seconds of the meeting hold. Nothing is re-encoded but the sound; a frame's
//! time is that of its original to the millisecond. What the front of the file must say of its end (size, duration,
//! where the cues are) is patched in there when the end is known.

mod feed;
mod lane;
mod layout;

use std::io;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use webm_iterable::errors::TagWriterError;

use self::feed::{Feed, Queued};
use self::lane::Lane;
use self::layout::Layout;
use super::mix::{FRAME, HORIZON_MS, Mixer, PER_MS, VoiceCounts, signed};
use super::read::Malformed;
use super::voice::{Listener, VoiceReport};

/// Milliseconds mixed, and interleaved, at a time.
const TICK_MS: i64 = 20;

/// A session longer than this is taken for one whose times are wrong.
const LONGEST_MS: i64 = 24 * 3_600 * 1_000;

/// People and screens that a file can name: block heads of one byte number 126 tracks.
const MOST_LANES: usize = 120;

/// One original on its way into the session copy.
pub struct SessionSource {
    /// Whose it is, e.g. `delegato`: `operator` is shown first.
    pub role: String,
    /// The name of its track, e.g. `delegato`. Originals with the same one are the same person, one after the other;
    /// people who are there at the same time have different ones.
    pub label: String,
    /// The file's zero on the session's timeline, milliseconds.
    pub offset_ms: i64,
    /// The header, then the clusters, plain. Nothing but the header is taken before its time comes.
    pub pieces: Box<dyn Iterator<Item = io::Result<Vec<u8>>>>,
    /// It holds a shared screen.
    pub screen: bool,
}

/// Where the session copy goes: a file that is appended, and whose first 64 KiB may be patched until it is finished.
pub trait SessionSink {
    /// Appends all of `bytes`.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Replaces what stands at `offset`; ends within the first 64 KiB, and within what was appended.
    fn patch(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// What became of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// How long the file plays, milliseconds.
    pub duration_ms: u64,
    /// What the file's zero is on the session's timeline, milliseconds: 0, or the earliest source if that is before 0.
    pub zero_ms: i64,
    /// Length of the file, bytes.
    pub bytes: u64,
    /// Number of clusters.
    pub clusters: u64,
    /// The video tracks, in the order of the file. Track 1 is the mixed sound.
    pub tracks: Vec<TrackReport>,
    /// Everyone who had a microphone, in the order of the sources.
    pub voices: Vec<SpeakerReport>,
}

/// A video track of the session copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackReport {
    /// Its number in the file.
    pub number: u8,
    /// Its name.
    pub name: String,
    /// Time of its first frame, milliseconds.
    pub begin_ms: u64,
    /// Time of its last frame, milliseconds.
    pub end_ms: u64,
    /// Frames in it.
    pub frames: u64,
    /// Of these: keyframes.
    pub keyframes: u64,
    /// Frames of a connection that were left out because a later one of the same person had begun.
    pub superseded: u64,
    /// Frames that were left out because they could not be decoded where they stood.
    pub unusable: u64,
    /// Pauses of two seconds or more between two frames, the first thousand: nobody was there, or the camera was off.
    /// Players go on showing the last frame in them.
    pub pauses: Vec<PauseReport>,
}

/// A time without a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseReport {
    /// Time of the last frame before it, milliseconds.
    pub from_ms: u64,
    /// Time of the first frame after it, milliseconds.
    pub to_ms: u64,
}

/// One person's voice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeakerReport {
    /// Their role.
    pub role: String,
    /// Their label.
    pub label: String,
    /// What was measured.
    #[serde(flatten)]
    pub voice: VoiceReport,
    /// How well sound and picture stand together.
    pub skew: SkewReport,
}

/// How far a voice in the mix stands from the times of its blocks, by which the pictures are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkewReport {
    /// At most, microseconds.
    pub largest_us: u64,
    /// On average, microseconds.
    pub mean_us: u64,
    /// Times that it was set anew because it would have gone further.
    pub set_anew: u64,
    /// Packets that no decoder takes.
    pub unreadable: u64,
}

/// Why there is no session copy.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A source cannot be read.
    #[error("{label}: source {source_number}, piece {piece}: {error}")]
    Source {
        /// Its place in the list, from 0.
        source_number: usize,
        /// Its label.
        label: String,
        /// The piece, 0 being the header.
        piece: u64,
        /// Why.
        error: SourceFault,
    },
    /// The sources hold nothing, or only frames that cannot be decoded.
    #[error("nothing was recorded")]
    Nothing,
    /// The sources' times reach over more than a day.
    #[error("longer than a day")]
    TooLong,
    /// More people and screens than a file can name.
    #[error("more than {MOST_LANES} tracks, or names too long to list")]
    TooManyTracks,
    /// The session copy cannot be written.
    #[error("cannot write the session copy: {0}")]
    Write(#[from] io::Error),
    /// An element cannot be laid out.
    #[error("cannot lay out the session copy: {0}")]
    Layout(#[from] TagWriterError),
    /// The codec failed.
    #[error("Opus: {0}")]
    Codec(#[from] opus::Error),
    /// The caller wanted no more.
    #[error("cancelled")]
    Cancelled,
}

/// What is wrong with a source.
#[derive(Debug, thiserror::Error)]
pub enum SourceFault {
    /// Its bytes did not come.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// Its bytes are no original.
    #[error("not the structure of an original: {0}")]
    Malformed(#[from] Malformed),
}

/// Makes the session copy of these originals.
///
/// `progress` is told the bytes taken from the sources so far, and ends the work by `Break`.
///
/// # Errors
/// See [`SessionError`]; what was written until then is no whole file.
pub fn derive(
    sources: Vec<SessionSource>,
    mut out: impl SessionSink,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<SessionReport, SessionError> {
    let mut session = Session::open(sources)?;
    let mut layout = Layout::begin(&session.lanes, session.wall(), &mut out)?;
    let mut taken = 0;
    let mut at = 0;
    while session.goes_on(at) {
        if at >= LONGEST_MS {
            return Err(SessionError::TooLong);
        }
        session.fetch(at)?;
        session.lay_sound(at, &mut layout, &mut out)?;
        session.lay_pictures(at, &mut layout, &mut out)?;
        at += TICK_MS;
        let bytes = session.feeds.iter().map(Feed::bytes).sum();
        if bytes != taken {
            taken = bytes;
            if progress(taken).is_break() {
                return Err(SessionError::Cancelled);
            }
        }
    }
    if session.feeds.iter().all(|feed| feed.end_ms().is_none()) {
        return Err(SessionError::Nothing);
    }
    let duration_ms = u64::try_from(at).unwrap_or(0);
    let (bytes, clusters) = layout.finish(&session.lanes, duration_ms, &mut out)?;
    Ok(session.report(duration_ms, bytes, clusters))
}

/// Everything between the originals and the file.
struct Session {
    feeds: Vec<Feed>,
    /// Tracks of pictures, in the order of the file.
    lanes: Vec<Lane>,
    speakers: Vec<Speaker>,
    mixer: Mixer,
    sum: [f32; FRAME],
    zero_ms: i64,
}

/// One person's voices: those of all their connections.
struct Speaker {
    role: String,
    label: String,
    listener: Listener,
    /// Of voices that ended.
    counts: VoiceCounts,
    /// Their part of the frame that is being mixed.
    part: [f32; FRAME],
}

impl Session {
    fn open(sources: Vec<SessionSource>) -> Result<Self, SessionError> {
        let zero_ms = sources.iter().map(|source| source.offset_ms).min().unwrap_or(0).min(0);
        let mut session = Self {
            feeds: Vec::with_capacity(sources.len()),
            lanes: Vec::new(),
            speakers: Vec::new(),
            mixer: Mixer::new()?,
            sum: [0.0; FRAME],
            zero_ms,
        };
        // Later connections of one person come after earlier ones.
        let mut sources: Vec<_> = sources.into_iter().enumerate().collect();
        sources.sort_by_key(|(_, source)| source.offset_ms);
        for (number, source) in sources {
            let SessionSource { role, label, offset_ms, pieces, screen } = source;
            let mut feed = Feed::open(number, label.clone(), offset_ms.saturating_sub(zero_ms), pieces)?;
            if let Some(size) = feed.picture() {
                let name = if screen { format!("{label}-screen") } else { label.clone() };
                feed.lane = session.lanes.iter().position(|lane| lane.name == name);
                if feed.lane.is_none() {
                    feed.lane = Some(session.lanes.len());
                    session.lanes.push(Lane::new(name, role == "operator", screen, size));
                }
            }
            if feed.has_sound() {
                feed.speaker = session.speakers.iter().position(|speaker| speaker.label == label);
                if feed.speaker.is_none() {
                    feed.speaker = Some(session.speakers.len());
                    session.speakers.push(Speaker::new(role, label));
                }
            }
            session.feeds.push(feed);
        }
        if session.lanes.len() > MOST_LANES {
            return Err(SessionError::TooManyTracks);
        }
        // Players show the first: the operator's camera if there is one, and no screen before a face.
        let mut order: Vec<usize> = (0..session.lanes.len()).collect();
        order.sort_by_key(|n| session.lanes.get(*n).map(Lane::rank));
        for feed in &mut session.feeds {
            feed.lane = feed.lane.and_then(|lane| order.iter().position(|n| *n == lane));
        }
        session.lanes.sort_by_key(Lane::rank);
        for (lane, number) in session.lanes.iter_mut().zip(2..) {
            lane.number = number;
        }
        Ok(session)
    }

    /// Wall time of the file's zero, by the first original.
    fn wall(&self) -> Option<jiff::Timestamp> {
        self.feeds.iter().find_map(Feed::session_wall)
    }

    fn goes_on(&self, at: i64) -> bool {
        // The encoder gives the last samples back one look-ahead later.
        let end = self.feeds.iter().filter_map(Feed::end_ms).max().unwrap_or(0);
        self.feeds.iter().any(|feed| !feed.is_done()) || at < end + ENCODER_DELAY_MS
    }

    /// Takes in what the tick from `at` needs.
    fn fetch(&mut self, at: i64) -> Result<(), SessionError> {
        for feed in &mut self.feeds {
            feed.read_ahead(at + TICK_MS + HORIZON_MS)?;
        }
        Ok(())
    }

    fn lay_sound(&mut self, at: i64, layout: &mut Layout, out: &mut dyn SessionSink) -> Result<(), SessionError> {
        let Self { feeds, speakers, mixer, sum, .. } = self;
        for feed in feeds.iter_mut() {
            feed.decode(at + TICK_MS + HORIZON_MS, (at + TICK_MS) * PER_MS + signed(Mixer::AHEAD))?;
        }
        if at == 0 {
            let mut first = [0.0; Mixer::AHEAD];
            for voice in feeds.iter_mut().filter_map(|feed| feed.voice.as_mut()) {
                voice.mix_into(&mut first, 0);
            }
            mixer.prime(&first);
        }
        sum.fill(0.0);
        for (n, speaker) in speakers.iter_mut().enumerate() {
            let mut recorded = false;
            for feed in feeds.iter_mut().filter(|feed| feed.speaker == Some(n)) {
                let Some(voice) = &mut feed.voice else {
                    continue;
                };
                if !recorded {
                    speaker.part.fill(0.0);
                    recorded = true;
                }
                voice.mix_into(&mut speaker.part, at * PER_MS + signed(Mixer::AHEAD));
                if let Some(counts) = feed.let_voice_end() {
                    speaker.counts.add(counts);
                }
            }
            if recorded {
                speaker.listener.hear(&speaker.part);
                for (sum, sample) in sum.iter_mut().zip(&speaker.part) {
                    *sum += sample;
                }
            }
        }
        layout.lay_packet(at, mixer.encode(sum)?, out)
    }

    fn lay_pictures(&mut self, at: i64, layout: &mut Layout, out: &mut dyn SessionSink) -> Result<(), SessionError> {
        let mut due: Vec<(i64, usize, Queued)> = Vec::new();
        for (n, feed) in self.feeds.iter_mut().enumerate() {
            while let Some(frame) = feed.next_frame(at + TICK_MS) {
                due.push((frame.ms, n, frame));
            }
        }
        // Of two connections of one person at one time, the later one is heard first, and takes over.
        due.sort_by_key(|(ms, n, _)| (*ms, usize::MAX - *n));
        for (_, n, frame) in due {
            let lane = self.feeds.get(n).and_then(|feed| feed.lane);
            if let Some(lane) = lane.and_then(|lane| self.lanes.get_mut(lane))
                && lane.admit(n, &frame)
            {
                layout.lay_frame(lane, frame, out)?;
            }
        }
        Ok(())
    }

    fn report(self, duration_ms: u64, bytes: u64, clusters: u64) -> SessionReport {
        let Self { lanes, speakers, zero_ms, .. } = self;
        SessionReport {
            duration_ms,
            zero_ms,
            bytes,
            clusters,
            tracks: lanes.iter().filter_map(Lane::report).collect(),
            voices: speakers.into_iter().map(Speaker::report).collect(),
        }
    }
}

/// 6.5 ms, rounded up.
const ENCODER_DELAY_MS: i64 = 7;

impl Speaker {
    fn new(role: String, label: String) -> Self {
        let (listener, counts) = (Listener::default(), VoiceCounts::default());
        Self { role, label, listener, counts, part: [0.0; FRAME] }
    }

    fn report(self) -> SpeakerReport {
        let Self { role, label, listener, counts, .. } = self;
        let micros = |samples: i64| u64::try_from(samples * 1_000 / PER_MS).unwrap_or(0);
        SpeakerReport {
            role,
            label,
            voice: listener.report(micros(counts.concealed) / 1_000),
            skew: SkewReport {
                largest_us: micros(counts.furthest),
                mean_us: micros(counts.distances) / counts.packets.max(1),
                set_anew: counts.set_anew,
                unreadable: counts.unreadable,
            },
        }
    }
}

impl VoiceCounts {
    fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.unreadable += other.unreadable;
        self.concealed += other.concealed;
        self.set_anew += other.set_anew;
        self.furthest = self.furthest.max(other.furthest);
        self.distances = self.distances.saturating_add(other.distances);
    }
}

/// A seekable file takes a session copy as it is.
impl<F: io::Write + io::Seek> SessionSink for PlainFile<F> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn patch(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = self.0.stream_position()?;
        self.0.seek(io::SeekFrom::Start(offset))?;
        self.0.write_all(bytes)?;
        self.0.seek(io::SeekFrom::Start(end)).map(drop)
    }
}

/// A session copy that is not encrypted.
#[derive(Debug)]
pub struct PlainFile<F>(pub F);

impl<S: SessionSink + ?Sized> SessionSink for &mut S {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        (**self).append(bytes)
    }

    fn patch(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).patch(offset, bytes)
    }
}
