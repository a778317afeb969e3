//! One participant connection: its sources, and the originals that they go into.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::intake::{Intake, IntakeCounts, Outlet};
use super::original::{Desk, Failure, Name, OpenOriginal};
use super::quality::Skew;
use super::timeline::SenderClock;
use super::{Fact, Original};
use crate::clock::{MonoTime, Now};
use crate::id::ConnectionId;
use crate::media::Source;
use crate::rtp::{Codec, Packet, SenderReport};

/// A picture of which nothing came for so long does not arrive. Shorter calls a camera off that only stutters.
const ARRIVING: Duration = Duration::from_secs(1);

/// A connection while it lasts.
#[derive(Debug)]
pub(super) struct Connection {
    id: ConnectionId,
    label: String,
    number: Option<u32>,
    /// Originals begun so far.
    begun: u64,
    /// Sources whose first write was told.
    told: Vec<Source>,
    ended: bool,
    sender: SenderClock,
    skew: Skew,
    intakes: BTreeMap<Source, Intake>,
    /// Microphone and camera.
    main: Option<OpenOriginal>,
    screen: Option<OpenOriginal>,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, label: &str) -> Self {
        Self {
            id,
            label: file_label(label),
            number: None,
            begun: 0,
            told: Vec::new(),
            ended: false,
            sender: SenderClock::default(),
            skew: Skew::default(),
            intakes: BTreeMap::new(),
            main: None,
            screen: None,
        }
    }

    /// Takes a packet in. A source that the running original has no track for begins the next one.
    pub(super) fn take_packet(
        &mut self,
        source: Source,
        packet: Packet,
        desk: &mut Desk<'_>,
        facts: &mut VecDeque<Fact>,
    ) -> Result<(), Failure> {
        if self.ended || source.is_audio() != (packet.codec == Codec::Opus) {
            return Ok(());
        }
        let (id, codec) = (self.id, packet.codec);
        let before = self.intakes.get(&source).map(Intake::counts).unwrap_or_default();
        if self.original(source).is_some_and(|original| !original.admit(source, &packet, before)) {
            let counts = self.counts();
            if let Some(closing) = self.slot(source).take() {
                close(closing, id, &counts, desk, facts, &mut self.told)?;
            }
            // A second file of this connection gets a number of its own.
            if source != Source::Screen {
                self.number = None;
            }
        }
        if self.original(source).is_none() {
            let number = *self.number.get_or_insert_with(|| desk.number(&self.label));
            let name = Name { label: self.label.clone(), number, screen: source == Source::Screen };
            self.begun += 1;
            let mut original = OpenOriginal::new(name, id, track_uid(id, self.begun));
            original.admit(source, &packet, before);
            *self.slot(source) = Some(original);
        }
        let mut outlet = Outlet::default();
        self.intakes.entry(source).or_insert_with(|| Intake::new(source, codec)).push(packet, &mut outlet);
        self.pour(source, outlet);
        Ok(())
    }

    /// Takes a sender report in.
    pub(super) fn take_report(&mut self, source: Source, report: &SenderReport) {
        let placed = self.intakes.get_mut(&source).and_then(|intake| intake.report(report, &mut self.sender));
        let sent = (i128::from(report.ntp) * 1_000_000_000) >> 32;
        let arrival = report.arrival.as_nanos();
        let skew = placed.and_then(|placed| self.skew.observe(source, sent, arrival, placed.as_nanos()));
        if let Some(skew) = skew {
            let apart = Duration::from_nanos(skew.unsigned_abs());
            metrics::histogram!("sportello_recording_skew_seconds").record(apart.as_secs_f64());
        }
        if let Some(original) = self.original(source) {
            original.note_report(source, report, placed);
        }
    }

    /// Gives up what was missing for too long, then appends what is due.
    pub(super) fn write(&mut self, desk: &mut Desk<'_>) -> Result<(), Failure> {
        let now = desk.now;
        for source in self.sources() {
            let mut outlet = Outlet::default();
            if let Some(intake) = self.intakes.get_mut(&source) {
                intake.expire(now.mono, &mut outlet);
            }
            self.pour(source, outlet);
        }
        if [&self.main, &self.screen].into_iter().flatten().any(|original| original.totals_due(now.mono)) {
            let counts = self.counts();
            for original in [&mut self.main, &mut self.screen].into_iter().flatten() {
                original.note_totals(&counts, now.mono);
            }
        }
        let waiting = |screen: bool| {
            let intakes = self.intakes.iter().filter(|(source, _)| (**source == Source::Screen) == screen);
            intakes.filter_map(|(_, intake)| intake.waiting_since(now.mono)).min()
        };
        let (waiting_main, waiting_screen) = (waiting(false), waiting(true));
        for (original, waiting) in [(&mut self.main, waiting_main), (&mut self.screen, waiting_screen)] {
            if let Some(original) = original {
                original.write(waiting, desk)?;
            }
        }
        Ok(())
    }

    /// Makes durable what was appended, and tells of it.
    pub(super) fn settle(&mut self, desk: &Desk<'_>, facts: &mut VecDeque<Fact>) -> Result<(), Failure> {
        let now = desk.now;
        for original in [&mut self.main, &mut self.screen].into_iter().flatten() {
            if original.settle(desk)? {
                tell_started(self.id, &original.sources(), &mut self.told, facts);
                if let Some(original) = original.head_to_tell(now.mono) {
                    facts.push_back(Fact::Head { connection: self.id, original });
                }
            }
        }
        Ok(())
    }

    /// Nothing more comes: writes the rest and closes every original.
    pub(super) fn finish(&mut self, desk: &mut Desk<'_>, facts: &mut VecDeque<Fact>) -> Result<(), Failure> {
        self.ended = true;
        let now = desk.now;
        for source in self.sources() {
            let mut outlet = Outlet::default();
            if let Some(intake) = self.intakes.get_mut(&source) {
                intake.finish(now.mono, &mut outlet);
            }
            self.pour(source, outlet);
        }
        let counts = self.counts();
        for original in [self.main.take(), self.screen.take()].into_iter().flatten() {
            close(original, self.id, &counts, desk, facts, &mut self.told)?;
        }
        self.intakes.clear();
        Ok(())
    }

    /// Lets go of every original as it is; gives what is on disk for sure.
    pub(super) fn give_up(self) -> impl Iterator<Item = Original> {
        [self.main, self.screen].into_iter().flatten().filter_map(OpenOriginal::give_up)
    }

    /// Pictures that arrive, and whether none of it can be recorded before a keyframe comes.
    pub(super) fn pictures(&self, now: MonoTime) -> impl Iterator<Item = (Source, bool)> {
        let arriving = self
            .intakes
            .iter()
            .filter(move |(source, intake)| !source.is_audio() && now.since(intake.newest()) < ARRIVING);
        arriving.map(|(source, intake)| {
            let original = if *source == Source::Screen { &self.screen } else { &self.main };
            let awaited = original.as_ref().is_some_and(|original| original.awaits_keyframe(*source));
            (*source, awaited || intake.awaits_keyframe())
        })
    }

    /// The wall clock was set.
    pub(super) fn note_clock_set(&mut self, now: Now, by_ms: i64) {
        for original in [&mut self.main, &mut self.screen].into_iter().flatten() {
            original.note_clock_set(now, by_ms);
        }
    }

    /// Whether everything that is known of it is on disk, or at least in its files.
    pub(super) fn is_done(&self, now: MonoTime) -> bool {
        let mut originals = [&self.main, &self.screen].into_iter().flatten();
        self.waiting_since(now).is_none() && originals.all(OpenOriginal::is_done)
    }

    /// Arrival of the oldest packet that is not on disk.
    pub(super) fn waiting_since(&self, now: MonoTime) -> Option<MonoTime> {
        let originals = [&self.main, &self.screen].into_iter().flatten().filter_map(OpenOriginal::waiting_since);
        let intakes = self.intakes.values().filter_map(|intake| intake.waiting_since(now));
        originals.chain(intakes).min()
    }

    fn pour(&mut self, source: Source, outlet: Outlet) {
        if let Some(original) = self.original(source) {
            for (at, event) in outlet.events {
                original.note_event(source, at, event);
            }
            for block in outlet.blocks {
                original.push(block);
            }
        }
    }

    fn original(&mut self, source: Source) -> Option<&mut OpenOriginal> {
        self.slot(source).as_mut()
    }

    fn slot(&mut self, source: Source) -> &mut Option<OpenOriginal> {
        match source {
            Source::Microphone | Source::Camera => &mut self.main,
            Source::Screen => &mut self.screen,
        }
    }

    fn sources(&self) -> Vec<Source> {
        self.intakes.keys().copied().collect()
    }

    fn counts(&self) -> Vec<(Source, IntakeCounts, MonoTime)> {
        self.intakes.iter().map(|(source, intake)| (*source, intake.counts(), intake.newest())).collect()
    }
}

fn close(
    original: OpenOriginal,
    connection: ConnectionId,
    counts: &[(Source, IntakeCounts, MonoTime)],
    desk: &mut Desk<'_>,
    facts: &mut VecDeque<Fact>,
    told: &mut Vec<Source>,
) -> Result<(), Failure> {
    if let Some(original) = original.finish(counts, desk)? {
        tell_started(connection, &original.sources, told, facts);
        facts.push_back(Fact::Finished { connection, original });
    }
    Ok(())
}

/// Tells of the sources that were not told yet.
fn tell_started(connection: ConnectionId, sources: &[Source], told: &mut Vec<Source>, facts: &mut VecDeque<Fact>) {
    for &source in sources {
        if !told.contains(&source) {
            told.push(source);
            facts.push_back(Fact::Started { connection, source });
        }
    }
}

/// Track uids must differ between files (RFC 9559 §5.1.4.1.2); a connection's id is random enough for that.
fn track_uid(connection: ConnectionId, original: u64) -> u64 {
    let tail = connection.as_bytes().iter().skip(8).fold(0_u64, |uid, byte| (uid << 8) | u64::from(*byte));
    tail.wrapping_add(original << 8)
}

/// A label as it may stand in a file name, whatever was given.
fn file_label(label: &str) -> String {
    let clean: String = label
        .chars()
        .take(64)
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '-' })
        .collect();
    if clean.is_empty() { "participant".into() } else { clean }
}
