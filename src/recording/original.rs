//! One original while it is written: its muxer, its files, and the lines beside it.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use webm_iterable::errors::TagWriterError;

use super::Original;
use super::file::{Disk, DiskError, OriginalFiles};
use super::intake::{Block, Event, IntakeCounts};
use super::muxer::{Cut, Muxer};
use crate::clock::{Clock, MonoTime, Now};
use crate::media::{RecordingFault, Source};
use crate::rtp::{Codec, Packet, SenderReport, Ssrc};

/// Lines beside the file wait so long for a cluster to be synced with.
const LINES_WAIT: Duration = Duration::from_secs(1);

/// File names tried per original before the folder is given up: names are taken only after a restart.
const NAMES_TRIED: u32 = 1_000;

/// Why an original cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("cannot lay out a cluster: {0}")]
    Layout(#[from] TagWriterError),
    #[error("no free file name for {0}")]
    NoName(String),
}

impl Failure {
    pub(super) fn fault(&self) -> RecordingFault {
        match self {
            Self::Disk(error) => error.fault(),
            Self::Layout(_) => RecordingFault::WriteFailed,
            Self::NoName(_) => RecordingFault::NotWritable,
        }
    }
}

/// What originals are written with.
pub(super) struct Desk<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) folder: &'a Path,
    /// The time of this round.
    pub(super) now: Now,
    /// For measuring how long the disk takes.
    pub(super) clock: &'a Clock,
    /// The last number given out per label.
    pub(super) numbers: &'a mut HashMap<String, u32>,
}

impl Desk<'_> {
    /// The next free number of a label, from 1.
    pub(super) fn number(&mut self, label: &str) -> u32 {
        let number = self.numbers.entry(label.to_owned()).or_default();
        *number += 1;
        *number
    }
}

/// What an original is called: `<label>-<number>`, and `-screen` if it holds one.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) label: String,
    pub(super) number: u32,
    pub(super) screen: bool,
}

impl Name {
    fn stem(&self) -> String {
        let Self { label, number, screen } = self;
        format!("{label}-{number}{}", if *screen { "-screen" } else { "" })
    }

    /// Makes the files under this name; after a restart it may be taken, then under the next free one.
    fn create_files(&mut self, desk: &mut Desk<'_>) -> Result<OriginalFiles, Failure> {
        for _ in 0..NAMES_TRIED {
            if let Some(files) = OriginalFiles::create(desk.disk, desk.folder, &self.stem())? {
                return Ok(files);
            }
            self.number = desk.number(&self.label);
        }
        Err(Failure::NoName(self.stem()))
    }
}

/// An original that is being written.
#[derive(Debug)]
pub(super) struct OpenOriginal {
    name: Name,
    muxer: Muxer,
    files: Option<OriginalFiles>,
    streams: Vec<(Source, Ssrc)>,
    /// Whole lines for the side file, not appended yet, and since when the oldest waits.
    lines: Vec<u8>,
    lines_since: Option<MonoTime>,
    /// What is on disk for sure.
    synced: Option<Original>,
}

impl OpenOriginal {
    pub(super) fn new(name: Name, uid: u64) -> Self {
        Self {
            name,
            muxer: Muxer::new(uid),
            files: None,
            streams: Vec::new(),
            lines: Vec::new(),
            lines_since: None,
            synced: None,
        }
    }

    /// Says that a packet came; `false` if this original cannot hold its source.
    pub(super) fn admit(&mut self, source: Source, packet: &Packet) -> bool {
        if !self.muxer.admit(source, packet.arrival) {
            return false;
        }
        let known = self.streams.contains(&(source, packet.ssrc));
        if !known {
            self.streams.retain(|(other, _)| *other != source);
            self.streams.push((source, packet.ssrc));
            let (ssrc, codec, at_ns) = (packet.ssrc.0, packet.codec, packet.arrival.as_nanos());
            self.note(packet.arrival, &Line::Stream { source, ssrc, codec, sequence: packet.sequence, at_ns });
        }
        true
    }

    pub(super) fn push(&mut self, block: Block) {
        self.muxer.push(block);
    }

    pub(super) fn note_report(&mut self, source: Source, report: &SenderReport) {
        let line = Line::Report {
            source,
            ssrc: report.ssrc.0,
            ntp_seconds: report.ntp >> 32,
            ntp_fraction: report.ntp & 0xffff_ffff,
            rtp: report.rtp_timestamp,
            arrival_ns: report.arrival.as_nanos(),
        };
        self.note(report.arrival, &line);
    }

    pub(super) fn note_event(&mut self, source: Source, at: MonoTime, event: Event) {
        let at_ns = at.as_nanos();
        let line = match event {
            Event::Gap(first, packets) => Line::Gap { source, first, packets, at_ns },
            Event::Jump => Line::Jump { source, at_ns },
            Event::Resolution(size) => Line::Resolution { source, width: size.width, height: size.height, at_ns },
            Event::Rotation(quarters) => Line::Rotation { source, quarters, at_ns },
        };
        self.note(at, &line);
    }

    /// Arrival of the oldest block that is not on disk.
    pub(super) fn waiting_since(&self) -> Option<MonoTime> {
        self.muxer.waiting_since()
    }

    /// Whether a picture's inter-frames are dropped until its first keyframe in this file.
    pub(super) fn awaits_keyframe(&self, source: Source) -> bool {
        !source.is_audio() && self.muxer.awaits_keyframe(source)
    }

    /// Lets go of the files as they are; what is said of them is what was synced. `None`: nothing ever was.
    pub(super) fn give_up(self) -> Option<Original> {
        self.synced
    }

    /// The sources that the file has, or would now get, tracks for.
    pub(super) fn sources(&self) -> Vec<Source> {
        self.muxer.sources()
    }

    /// Whether a packet of `source` belongs to this original.
    pub(super) fn holds(&self, source: Source) -> bool {
        self.streams.iter().any(|(held, _)| *held == source)
    }

    /// Writes and syncs what is due. Says whether anything new is on disk.
    pub(super) fn write(&mut self, waiting: Option<MonoTime>, desk: &mut Desk<'_>) -> Result<bool, Failure> {
        let now = desk.now;
        let cut = self.muxer.cut(now, waiting)?;
        let lines_due =
            self.files.is_some() && self.lines_since.is_some_and(|since| now.mono.since(since) >= LINES_WAIT);
        if cut.is_none() && !lines_due {
            return Ok(false);
        }
        self.append(&cut.unwrap_or_default(), desk)?;
        Ok(true)
    }

    /// Writes the rest and closes. `None` if nothing ever came that could be written.
    pub(super) fn finish(
        mut self,
        counts: &[(Source, IntakeCounts)],
        desk: &mut Desk<'_>,
    ) -> Result<Option<Original>, Failure> {
        let now = desk.now;
        let cut = self.muxer.finish(now)?;
        if cut.is_none() && self.files.is_none() {
            return Ok(None);
        }
        for (source, counts) in counts {
            if self.holds(*source) {
                let frames = counts.frames;
                self.note(
                    now.mono,
                    &Line::Total {
                        source: *source,
                        missing_packets: counts.missing,
                        gaps: counts.gaps,
                        frames: frames.frames,
                        keyframes: frames.keyframes,
                        damaged: frames.damaged,
                        orphaned: frames.orphaned,
                    },
                );
            }
        }
        self.append(&cut.unwrap_or_default(), desk)?;
        Ok(self.synced)
    }

    fn append(&mut self, cut: &Cut, desk: &mut Desk<'_>) -> Result<(), Failure> {
        let files = if let Some(files) = &mut self.files {
            files
        } else {
            let files = self.name.create_files(desk)?;
            let now = desk.now;
            let zero = self.muxer.start().unwrap_or(now.mono);
            let wall = now.wall.checked_sub(now.mono.since(zero)).unwrap_or(now.wall);
            let first = Line::Original { file: files.name(), zero_ns: zero.as_nanos(), wall: wall.to_string() };
            self.lines.splice(0..0, first.bytes());
            self.files.insert(files)
        };
        for piece in cut.header.iter().chain(&cut.clusters) {
            files.append_piece(piece)?;
        }
        if !self.lines.is_empty() {
            files.append_reports(&self.lines)?;
            self.lines.clear();
            self.lines_since = None;
        }
        let begin = desk.clock.mono();
        files.sync()?;
        metrics::histogram!("sportello_recording_sync_seconds").record(desk.clock.mono().since(begin).as_secs_f64());
        self.synced = Some(Original {
            file: files.name().to_owned(),
            sources: self.muxer.sources(),
            bytes: files.chain().bytes(),
            clusters: files.chain().clusters(),
            duration_ms: self.muxer.duration_ms(),
            chain_head: files.chain().head().to_owned(),
        });
        Ok(())
    }

    fn note(&mut self, at: MonoTime, line: &Line<'_>) {
        self.lines_since.get_or_insert(at);
        self.lines.extend(line.bytes());
    }
}

/// One line of `<file>.rtcp.jsonl`. Times are nanoseconds on the node's monotonic clock.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line<'a> {
    /// What the file's time 0 is.
    Original { file: &'a str, zero_ns: u64, wall: String },
    /// A source's first packet under this SSRC.
    Stream { source: Source, ssrc: u32, codec: Codec, sequence: u64, at_ns: u64 },
    /// A sender report as it came in.
    Report { source: Source, ssrc: u32, ntp_seconds: u64, ntp_fraction: u64, rtp: u32, arrival_ns: u64 },
    /// Packets that never came.
    Gap { source: Source, first: u64, packets: u64, at_ns: u64 },
    /// Timestamps or sequence numbers that did not follow on.
    Jump { source: Source, at_ns: u64 },
    /// The picture's size from here on.
    Resolution { source: Source, width: u16, height: u16, at_ns: u64 },
    /// Clockwise quarter turns from here on.
    Rotation { source: Source, quarters: u8, at_ns: u64 },
    /// At the end: what was counted over the connection's whole time.
    Total { source: Source, missing_packets: u64, gaps: u64, frames: u64, keyframes: u64, damaged: u64, orphaned: u64 },
}

impl Line<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}
