//! How good an original is, from the lines beside it: what was lost, what came late, when nothing was sent, how far
//! voice and picture stand apart, how long the disk took. For the manifest; pure.

use serde::{Deserialize, Serialize};

use super::lines::Line;
use crate::media::Source;
use crate::rtp::Codec;

/// A source that sent nothing for longer than this at the end was silent, and not merely between two packets.
const SILENCE_MS: u64 = 1_000;

/// Two keyframes further apart than this make seeking poor.
const KEYFRAMES_APART_MS: u64 = 5_000;

/// Reports of two streams that disagree by more than this about the time between them: the sender's clock was set.
const CLOCK_SET_NS: i128 = 500_000_000;

/// What is said of one original. Times are milliseconds from the file's zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalQuality {
    /// Length of the file.
    pub duration_ms: u64,
    /// Each source in it.
    pub sources: Vec<SourceQuality>,
    /// How far voice and picture of one moment stood apart, by the sender's reports, before each was worked in. Absent
    /// if there are not both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skew_ms: Option<Spread>,
    /// How long it took to append, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_us: Option<Spread>,
    /// How long it took to make that durable, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync_us: Option<Spread>,
    /// When the wall clock was set, and by how much.
    pub clock_sets: Vec<ClockSet>,
    /// How it ended.
    pub end: End,
}

/// How an original ended, as its lines say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Regularly.
    Regular,
    /// It was cut to its last whole cluster after a crash or a fault.
    Recovered {
        /// Stored bytes that were cut off.
        tail_bytes: u64,
    },
    /// Its lines do not say: it still grows, or nobody looked after it yet.
    #[default]
    Open,
}

/// The largest and the mean of some measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// The largest.
    pub max: u64,
    /// The mean.
    pub mean: u64,
    /// How many there were.
    pub count: u64,
}

/// A step of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after their units")]
pub struct ClockSet {
    pub at_ms: u64,
    pub by_ms: i64,
}

/// What is said of one source of an original.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceQuality {
    /// Which.
    pub source: Source,
    /// How it is coded.
    pub codec: Codec,
    /// Its RTP streams, one after the other.
    pub streams: Vec<Stream>,
    /// When its first packet came in.
    pub first_packet_ms: Option<u64>,
    /// Packets that went on to the file.
    pub packets: u64,
    /// Packets that never came, or too late.
    pub lost: u64,
    /// Packets that were out of order, or came when they were asked for again, and are in the file.
    pub recovered: u64,
    /// Of the lost ones, those that came too late.
    pub late: u64,
    /// Packets that came a second time.
    pub duplicates: u64,
    /// The lost ones, run by run.
    pub gaps: Vec<Gap>,
    /// When nothing was sent: muted, stopped, covered by nothing but silence.
    pub silences: Vec<Interval>,
    /// Jumps of its timestamps or sequence numbers.
    pub jumps_ms: Vec<u64>,
    /// Pictures only: what is said of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<PictureQuality>,
}

/// What is said of a camera or a screen besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureQuality {
    /// Whole frames in the file.
    pub frames: u64,
    /// Of these, keyframes.
    pub keyframes: u64,
    /// Frames that came and were left out, because they were damaged or refer to one that was.
    pub frames_left_out: u64,
    /// The first keyframe.
    pub first_keyframe_ms: Option<u64>,
    /// Longest time from one keyframe to the next, silences not counted.
    pub longest_keyframe_gap_ms: u64,
    /// How often that was more than 5 s.
    pub keyframe_gaps_over_5_s: u64,
    /// When frames were left out.
    pub damages: Vec<Interval>,
    /// How long that was together.
    pub damaged_ms: u64,
    /// Its sizes, one after the other.
    pub resolutions: Vec<Resolution>,
    /// Its clockwise quarter turns, one after the other.
    pub rotations: Vec<Rotation>,
}

/// An RTP stream of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after what they are")]
pub struct Stream {
    pub ssrc: u32,
    /// Sequence number of its first packet, without rollovers.
    pub first_sequence: u64,
    pub at_ms: u64,
}

/// A run of lost packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after what they are")]
pub struct Gap {
    pub ssrc: u32,
    /// Sequence number of the first of them, without rollovers.
    pub first_sequence: u64,
    pub packets: u64,
    /// Where the packet behind them stands.
    pub at_ms: u64,
}

/// From one time to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after their units")]
pub struct Interval {
    pub from_ms: u64,
    pub to_ms: u64,
}

/// A picture's size from a time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after what they are")]
pub struct Resolution {
    pub width: u16,
    pub height: u16,
    pub at_ms: u64,
}

/// A picture's turn from a time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named after what they are")]
pub struct Rotation {
    pub quarters: u8,
    pub at_ms: u64,
}

/// Sums up the lines beside an original, in their order.
pub fn summarise(lines: impl IntoIterator<Item = Line>) -> OriginalQuality {
    let mut summary = Summary::default();
    for line in lines {
        summary.take(line);
    }
    summary.finish()
}

#[derive(Debug, Default)]
struct Summary {
    quality: OriginalQuality,
    sources: Vec<Tracked>,
    zero_ns: u64,
    skew: Skew,
    skews: Mean,
    writes: Mean,
    syncs: Mean,
}

/// A source while its lines are read.
#[derive(Debug)]
struct Tracked {
    quality: SourceQuality,
    picture: PictureQuality,
    keyframes_ms: Vec<u64>,
    damaged_since_ms: Option<u64>,
    last_ms: Option<u64>,
}

impl Summary {
    fn take(&mut self, line: Line) {
        let ms = {
            let zero = self.zero_ns;
            move |at_ns: u64| at_ns.saturating_sub(zero) / 1_000_000
        };
        match line {
            Line::Original { tracks, zero_ns, .. } => {
                self.zero_ns = zero_ns;
                for track in tracks {
                    self.know(track.source, track.codec);
                }
            }
            Line::Stream { source, ssrc, codec, sequence, at_ns } => {
                self.know(source, codec);
                self.with(source, |entry| {
                    entry.quality.first_packet_ms.get_or_insert(ms(at_ns));
                    entry.quality.streams.push(Stream { ssrc, first_sequence: sequence, at_ms: ms(at_ns) });
                });
            }
            Line::Report { source, ntp_seconds, ntp_fraction, arrival_ns, placed_ns, .. } => {
                let sent = i128::from(ntp_seconds) * 1_000_000_000 + ((i128::from(ntp_fraction) * 1_000_000_000) >> 32);
                if let Some(skew) = placed_ns.and_then(|placed| self.skew.observe(source, sent, arrival_ns, placed)) {
                    self.skews.add(skew.unsigned_abs() / 1_000_000);
                }
            }
            Line::Gap { source, ssrc, first, packets, at_ns } => {
                let gap = Gap { ssrc, first_sequence: first, packets, at_ms: ms(at_ns) };
                self.with(source, |entry| {
                    entry.quality.lost += packets;
                    entry.quality.gaps.push(gap);
                });
            }
            Line::Jump { source, at_ns } => self.with(source, |entry| entry.quality.jumps_ms.push(ms(at_ns))),
            Line::Resolution { source, width, height, at_ns } => {
                let size = Resolution { width, height, at_ms: ms(at_ns) };
                self.with(source, |entry| entry.picture.resolutions.push(size));
            }
            Line::Rotation { source, quarters, at_ns } => {
                self.with(source, |entry| entry.picture.rotations.push(Rotation { quarters, at_ms: ms(at_ns) }));
            }
            Line::Keyframe { source, at_ns } => self.with(source, |entry| entry.keyframes_ms.push(ms(at_ns))),
            Line::Damaged { source, at_ns } => {
                self.with(source, |entry| entry.damaged_since_ms = Some(ms(at_ns)));
            }
            Line::Mended { source, at_ns, .. } => self.with(source, |entry| entry.mend(ms(at_ns))),
            Line::Silence { source, from_ns, to_ns } => {
                let silence = Interval { from_ms: ms(from_ns), to_ms: ms(to_ns) };
                self.with(source, |entry| entry.quality.silences.push(silence));
            }
            Line::ClockSet { at_ns, by_ms, .. } => {
                self.quality.clock_sets.push(ClockSet { at_ms: ms(at_ns), by_ms });
            }
            Line::Total {
                source,
                packets,
                missing_packets: _,
                gaps: _,
                recovered,
                late,
                duplicates,
                frames,
                keyframes,
                damaged,
                orphaned,
                last_ns,
            } => self.with(source, |entry| {
                let quality = &mut entry.quality;
                (quality.packets, quality.recovered, quality.late) = (packets, recovered, late);
                quality.duplicates = duplicates;
                (entry.picture.frames, entry.picture.keyframes) = (frames, keyframes);
                entry.picture.frames_left_out = damaged + orphaned;
                entry.last_ms = Some(ms(last_ns));
            }),
            Line::Clusters { end_ms, write_us, sync_us, .. } => {
                let end = end_ms.last().copied().unwrap_or(0);
                self.quality.duration_ms = self.quality.duration_ms.max(end);
                self.took(write_us, sync_us);
            }
            Line::Closed { duration_ms, write_us, sync_us, .. } => {
                self.quality.duration_ms = duration_ms;
                self.took(write_us, sync_us);
                self.quality.end = End::Regular;
            }
            Line::Recovered { duration_ms, tail_bytes, .. } => {
                self.quality.duration_ms = duration_ms;
                self.quality.end = End::Recovered { tail_bytes };
            }
        }
    }

    fn took(&mut self, write_us: Option<u64>, sync_us: Option<u64>) {
        for (took, mean) in [(write_us, &mut self.writes), (sync_us, &mut self.syncs)] {
            if let Some(took) = took {
                mean.add(took);
            }
        }
    }

    fn know(&mut self, source: Source, codec: Codec) {
        if !self.sources.iter().any(|entry| entry.quality.source == source) {
            self.sources.push(Tracked::new(source, codec));
        }
    }

    fn with(&mut self, source: Source, change: impl FnOnce(&mut Tracked)) {
        if let Some(entry) = self.sources.iter_mut().find(|entry| entry.quality.source == source) {
            change(entry);
        }
    }

    fn finish(mut self) -> OriginalQuality {
        let duration_ms = self.quality.duration_ms;
        self.quality.sources = self.sources.into_iter().map(|entry| entry.finish(duration_ms)).collect();
        self.quality.sources.sort_by_key(|entry| entry.source);
        self.quality.skew_ms = self.skews.spread();
        self.quality.write_us = self.writes.spread();
        self.quality.sync_us = self.syncs.spread();
        self.quality
    }
}

impl Tracked {
    fn new(source: Source, codec: Codec) -> Self {
        let quality = SourceQuality {
            source,
            codec,
            streams: Vec::new(),
            first_packet_ms: None,
            packets: 0,
            lost: 0,
            recovered: 0,
            late: 0,
            duplicates: 0,
            gaps: Vec::new(),
            silences: Vec::new(),
            jumps_ms: Vec::new(),
            picture: None,
        };
        let picture = PictureQuality::default();
        Self { quality, picture, keyframes_ms: Vec::new(), damaged_since_ms: None, last_ms: None }
    }

    fn mend(&mut self, at_ms: u64) {
        if let Some(from_ms) = self.damaged_since_ms.take() {
            self.picture.damaged_ms += at_ms.saturating_sub(from_ms);
            self.picture.damages.push(Interval { from_ms, to_ms: at_ms.max(from_ms) });
        }
    }

    fn finish(mut self, duration_ms: u64) -> SourceQuality {
        let last_ms = self.last_ms.map_or(duration_ms, |last| last.min(duration_ms));
        self.mend(last_ms);
        // What stopped and did not begin again; after damage it is not known why.
        let ends_silent = duration_ms.saturating_sub(last_ms) > SILENCE_MS;
        if ends_silent {
            self.quality.silences.push(Interval { from_ms: last_ms, to_ms: duration_ms });
        }
        if !self.quality.source.is_audio() {
            let silent = |from: u64, to: u64| -> u64 {
                let overlap = |silence: &Interval| silence.to_ms.min(to).saturating_sub(silence.from_ms.max(from));
                self.quality.silences.iter().map(overlap).sum()
            };
            self.picture.first_keyframe_ms = self.keyframes_ms.first().copied();
            let ends = self.keyframes_ms.iter().skip(1).copied().chain([last_ms]);
            for (from, to) in self.keyframes_ms.iter().copied().zip(ends) {
                let apart = to.saturating_sub(from).saturating_sub(silent(from, to));
                self.picture.longest_keyframe_gap_ms = self.picture.longest_keyframe_gap_ms.max(apart);
                self.picture.keyframe_gaps_over_5_s += u64::from(apart > KEYFRAMES_APART_MS);
            }
            self.quality.picture = Some(self.picture);
        }
        self.quality
    }
}

/// How far a connection's voice and picture stand apart, by the sender's reports.
#[derive(Debug, Default)]
pub(super) struct Skew {
    voice: Option<Report>,
    picture: Option<Report>,
}

/// A report's three times, nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Report {
    sent: i128,
    arrival: i128,
    placed: i128,
}

impl Skew {
    /// Takes a report in: when it was sent by the sender's clock, when it came in, and where the recording puts its
    /// moment. Gives by how many nanoseconds the voice stands behind the picture, if both are known.
    pub(super) fn observe(&mut self, source: Source, sent_ns: i128, arrival_ns: u64, placed_ns: u64) -> Option<i64> {
        let report = Report { sent: sent_ns, arrival: arrival_ns.into(), placed: placed_ns.into() };
        match source {
            Source::Microphone => self.voice = Some(report),
            Source::Camera => self.picture = Some(report),
            Source::Screen => return None,
        }
        let (voice, picture) = self.voice.zip(self.picture)?;
        let sent = voice.sent - picture.sent;
        if (sent - (voice.arrival - picture.arrival)).abs() > CLOCK_SET_NS {
            return None;
        }
        i64::try_from(voice.placed - picture.placed - sent).ok()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    max: u64,
    sum: u64,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: u64) {
        self.max = self.max.max(value);
        self.sum = self.sum.saturating_add(value);
        self.count += 1;
    }

    fn spread(self) -> Option<Spread> {
        let mean = self.sum.checked_div(self.count)?;
        Some(Spread { max: self.max, mean, count: self.count })
    }
}
