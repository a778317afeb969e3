//! One original while it is written: its muxer, its files, and the lines beside it.

use std::collections::HashMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

use webm_iterable::errors::TagWriterError;

use super::Original;
use super::file::{Disk, DiskError, OriginalFiles};
use super::intake::{Block, Event, IntakeCounts};
use super::lines::{Line, TrackLine};
use super::muxer::{Cut, Muxer};
use crate::clock::{Clock, MonoTime, Now};
use crate::id::ConnectionId;
use crate::media::{RecordingFault, Source};
use crate::rtp::{Codec, Packet, SenderReport, Ssrc};
use crate::vault::SessionKey;

/// How often is told how far an original is on disk. Shorter costs a report to the room each; longer makes what is
/// published of it older.
const HEAD_EVERY: Duration = Duration::from_secs(5);

/// Lines beside the file wait so long for a cluster to be synced with.
const LINES_WAIT: Duration = Duration::from_secs(1);

/// How often the lines beside the file are synced if they tell of no loss. Longer makes what a power failure can cost of
/// them older; shorter costs a third sync each second.
const LINES_SYNCED_EVERY: Duration = Duration::from_secs(5);

/// How often the counters are written down: what a crash can cost of them. More often makes longer side files.
const TOTALS_EVERY: Duration = Duration::from_secs(10);

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
    /// What originals are encrypted under; `None`: they are not.
    pub(super) key: Option<&'a SessionKey>,
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
            if let Some(files) = OriginalFiles::create(desk.disk, desk.folder, &self.stem(), desk.key)? {
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
    connection: ConnectionId,
    muxer: Muxer,
    files: Option<OriginalFiles>,
    streams: Vec<(Source, Ssrc)>,
    /// What each source's counters were when this original got its first packet of it, and as they were noted last.
    counts: Vec<(Source, IntakeCounts, IntakeCounts)>,
    totals_noted: Option<MonoTime>,
    /// Whole lines for the side file, not appended yet, and since when the oldest waits.
    lines: Vec<u8>,
    lines_since: Option<MonoTime>,
    /// A line that is not synced yet tells of a loss.
    loss_noted: bool,
    lines_synced: Option<MonoTime>,
    /// Something was appended and is not synced; whether the lines beside the file are to be, too.
    unsynced: Option<bool>,
    took: Took,
    /// What is on disk for sure.
    synced: Option<Original>,
    /// When that was told last.
    head_told: Option<MonoTime>,
}

/// How long the disk took for the last append and sync, microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    write_us: Option<u64>,
    sync_us: Option<u64>,
}

impl OpenOriginal {
    pub(super) fn new(name: Name, connection: ConnectionId, uid: u64) -> Self {
        Self {
            name,
            connection,
            muxer: Muxer::new(uid),
            files: None,
            streams: Vec::new(),
            counts: Vec::new(),
            totals_noted: None,
            lines: Vec::new(),
            lines_since: None,
            loss_noted: false,
            lines_synced: None,
            unsynced: None,
            took: Took::default(),
            synced: None,
            head_told: None,
        }
    }

    /// Says that a packet came; `false` if this original cannot hold its source. `counts`: the source's before it.
    pub(super) fn admit(&mut self, source: Source, packet: &Packet, counts: IntakeCounts) -> bool {
        if !self.muxer.admit(source, packet.arrival) {
            return false;
        }
        if !self.streams.contains(&(source, packet.ssrc)) {
            if !self.holds(source) {
                self.counts.push((source, counts, counts));
            }
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

    pub(super) fn note_report(&mut self, source: Source, report: &SenderReport, placed: Option<MonoTime>) {
        let line = Line::Report {
            source,
            ssrc: report.ssrc.0,
            ntp_seconds: report.ntp >> 32,
            ntp_fraction: report.ntp & 0xffff_ffff,
            rtp: report.rtp_timestamp,
            arrival_ns: report.arrival.as_nanos(),
            placed_ns: placed.map(MonoTime::as_nanos),
        };
        self.note(report.arrival, &line);
    }

    pub(super) fn note_event(&mut self, source: Source, at: MonoTime, event: Event) {
        let at_ns = at.as_nanos();
        self.loss_noted |= matches!(event, Event::Gap(..) | Event::Jump | Event::Damaged);
        let line = match event {
            Event::Gap(ssrc, first, packets) => Line::Gap { source, ssrc: ssrc.0, first, packets, at_ns },
            Event::Jump => Line::Jump { source, at_ns },
            Event::Resolution(size) => Line::Resolution { source, width: size.width, height: size.height, at_ns },
            Event::Rotation(quarters) => Line::Rotation { source, quarters, at_ns },
            Event::Keyframe => Line::Keyframe { source, at_ns },
            Event::Damaged => Line::Damaged { source, at_ns },
            Event::Mended(frames) => Line::Mended { source, at_ns, frames },
            Event::Silence(from, to) => Line::Silence { source, from_ns: from.as_nanos(), to_ns: to.as_nanos() },
        };
        self.note(at, &line);
    }

    /// The wall clock was set.
    pub(super) fn note_clock_set(&mut self, now: Now, by_ms: i64) {
        self.note(now.mono, &Line::ClockSet { at_ns: now.mono.as_nanos(), by_ms, wall: now.wall });
    }

    /// Arrival of the oldest block that is not on disk.
    pub(super) fn waiting_since(&self) -> Option<MonoTime> {
        self.muxer.waiting_since()
    }

    /// Whether nothing waits to be appended or synced.
    pub(super) fn is_done(&self) -> bool {
        self.lines.is_empty() && self.unsynced.is_none() && self.waiting_since().is_none()
    }

    /// Whether a picture's inter-frames are dropped until its first keyframe in this file.
    pub(super) fn awaits_keyframe(&self, source: Source) -> bool {
        !source.is_audio() && self.muxer.awaits_keyframe(source)
    }

    /// What is on disk for sure, when it is time to tell that again.
    pub(super) fn head_to_tell(&mut self, now: MonoTime) -> Option<Original> {
        if self.head_told.is_some_and(|told| now.since(told) < HEAD_EVERY) {
            return None;
        }
        self.head_told = Some(now);
        self.synced.clone()
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

    /// Whether it is time to take the counters down.
    pub(super) fn totals_due(&self, now: MonoTime) -> bool {
        self.files.is_some() && self.totals_noted.is_none_or(|noted| now.since(noted) >= TOTALS_EVERY)
    }

    /// Takes down how the sources' counters stand, and when their last packets came in.
    pub(super) fn note_totals(&mut self, counts: &[(Source, IntakeCounts, MonoTime)], now: MonoTime) {
        self.totals_noted = Some(now);
        for (source, counts, newest) in counts {
            self.note_total(*source, *counts, *newest, now);
        }
    }

    /// Appends what is due. It is durable after [`Self::settle`].
    pub(super) fn write(&mut self, waiting: Option<MonoTime>, desk: &mut Desk<'_>) -> Result<(), Failure> {
        let now = desk.now;
        let cut = self.muxer.cut(now, waiting)?;
        let lines_due =
            self.files.is_some() && self.lines_since.is_some_and(|since| now.mono.since(since) >= LINES_WAIT);
        if cut.is_none() && !lines_due {
            return Ok(());
        }
        self.append(&cut.unwrap_or_default(), desk)?;
        let rested = self.lines_synced.is_none_or(|synced| now.mono.since(synced) >= LINES_SYNCED_EVERY);
        let lines = rested || self.loss_noted;
        if let Some(files) = &mut self.files {
            files.start_writeback(lines);
        }
        self.unsynced = Some(lines);
        // Hashing and encrypting a cluster takes as long as forwarding a hundred packets, and a scheduler lets a thread have
        // its slice of some milliseconds: media that came in meanwhile on the same core would wait for it.
        thread::yield_now();
        Ok(())
    }

    /// Syncs what was appended. Says whether anything new is on disk.
    pub(super) fn settle(&mut self, desk: &Desk<'_>) -> Result<bool, Failure> {
        let Some(lines) = self.unsynced.take() else { return Ok(false) };
        self.sync(lines, desk)?;
        Ok(true)
    }

    /// Writes the rest and closes. `None` if nothing ever came that could be written. The sources' counters are given
    /// with when their last packets came in.
    pub(super) fn finish(
        mut self,
        counts: &[(Source, IntakeCounts, MonoTime)],
        desk: &mut Desk<'_>,
    ) -> Result<Option<Original>, Failure> {
        let now = desk.now;
        let cut = self.muxer.finish(now)?;
        if cut.is_none() && self.files.is_none() {
            return Ok(None);
        }
        self.note_totals(counts, now.mono);
        self.append(&cut.unwrap_or_default(), desk)?;
        let Took { write_us, sync_us } = self.took;
        let duration_ms = self.muxer.duration_ms();
        if let Some(files) = &mut self.files {
            let (clusters, bytes) = (files.chain().clusters(), files.chain().bytes());
            Line::Closed { clusters, bytes, duration_ms, write_us, sync_us }.write_to(&mut self.lines);
            files.append_reports(&self.lines)?;
            files.append_end()?;
        }
        self.sync(true, desk)?;
        Ok(self.synced)
    }

    /// Appends what was cut, behind the lines that speak of it.
    fn append(&mut self, cut: &Cut, desk: &mut Desk<'_>) -> Result<(), Failure> {
        let files = if let Some(files) = &mut self.files {
            files
        } else {
            let files = self.name.create_files(desk)?;
            let now = desk.now;
            let zero = self.muxer.start().unwrap_or(now.mono);
            let codec = |source: Source| if source.is_audio() { Codec::Opus } else { Codec::Vp8 };
            let first = Line::Original {
                file: files.name().to_owned(),
                connection: self.connection,
                encrypted: desk.key.is_some(),
                tracks: self.muxer.tracks().map(|source| TrackLine { source, codec: codec(source) }).collect(),
                zero_ns: zero.as_nanos(),
                wall: now.wall.checked_sub(now.mono.since(zero)).unwrap_or(now.wall),
            };
            let mut lines = Vec::with_capacity(512 + self.lines.len());
            first.write_to(&mut lines);
            lines.append(&mut self.lines);
            self.lines = lines;
            self.files.insert(files)
        };
        if !cut.clusters.is_empty() {
            let Took { write_us, sync_us } = std::mem::take(&mut self.took);
            let end_ms = cut.clusters.iter().map(|cluster| cluster.end_ms).collect();
            let first = files.chain().clusters() + 1;
            Line::Clusters { first, end_ms, write_us, sync_us }.write_to(&mut self.lines);
        }
        let begin = desk.clock.mono();
        if !self.lines.is_empty() {
            files.append_reports(&self.lines)?;
            self.lines.clear();
            self.lines_since = None;
        }
        for piece in cut.header.iter().chain(cut.clusters.iter().map(|cluster| &cluster.bytes)) {
            files.append_piece(piece)?;
        }
        let took = desk.clock.mono().since(begin);
        metrics::histogram!("sportello_recording_write_seconds").record(took.as_secs_f64());
        self.took.write_us = Some(micros(took));
        Ok(())
    }

    /// Makes durable what was appended; `lines`: those beside the file, too.
    fn sync(&mut self, lines: bool, desk: &Desk<'_>) -> Result<(), Failure> {
        let Some(files) = &mut self.files else { return Ok(()) };
        let begin = desk.clock.mono();
        files.sync(lines)?;
        if lines {
            (self.loss_noted, self.lines_synced) = (false, Some(desk.now.mono));
        }
        let took = desk.clock.mono().since(begin);
        metrics::histogram!("sportello_recording_sync_seconds").record(took.as_secs_f64());
        self.took.sync_us = Some(micros(took));
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

    fn note_total(&mut self, source: Source, counts: IntakeCounts, newest: MonoTime, now: MonoTime) {
        let entry = self.counts.iter_mut().find(|(held, ..)| *held == source);
        let Some((_, before, noted)) = entry.filter(|(_, _, noted)| *noted != counts) else { return };
        *noted = counts;
        let IntakeCounts { frames, order, packets, missing, gaps } = counts.since(before);
        let line = Line::Total {
            source,
            packets,
            missing_packets: missing,
            gaps,
            recovered: order.recovered,
            late: order.late,
            duplicates: order.duplicates,
            frames: frames.frames,
            keyframes: frames.keyframes,
            damaged: frames.damaged,
            orphaned: frames.orphaned,
            last_ns: newest.as_nanos(),
        };
        self.note(now, &line);
    }

    fn note(&mut self, at: MonoTime, line: &Line) {
        self.lines_since.get_or_insert(at);
        line.write_to(&mut self.lines);
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}
