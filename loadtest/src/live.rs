//! A run while it lasts: counters that everyone adds to, and what of them is shown on standard error.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

use crate::delay::{DelayFigures, Delays};
use crate::server::Watch;

/// What a run has come to so far. A packet costs an atomic addition or two.
#[derive(Debug, Default)]
pub struct Meters {
    sent: AtomicU64,
    received: AtomicU64,
    expected: AtomicU64,
    pub(crate) rooms: Rooms,
    /// People with a media connection.
    pub(crate) connected: Count,
    /// People of rooms that are up who have gone and will be back.
    pub(crate) away: Count,
    /// People in waiting rooms.
    pub(crate) waiting: Count,
    /// Requests of the probe that were answered.
    pub(crate) requests: Count,
    step: Mutex<Option<Step>>,
}

/// Where the rooms of a run are: each in one place, or about to begin.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    pub(crate) wanted: Count,
    /// Everyone in it is connected, or was waited for long enough.
    pub(crate) up: Count,
    pub(crate) failed: Count,
    /// Its time is over: it is being concluded, or was.
    pub(crate) over: Count,
}

impl Rooms {
    /// Whether every room is up or has failed.
    pub(crate) fn all_up(&self) -> bool {
        self.up.now() + self.over.now() + self.failed.now() >= self.wanted.now()
    }

    /// Whether every room's time is over.
    pub(crate) fn all_over(&self) -> bool {
        self.over.now() + self.failed.now() >= self.wanted.now()
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }
}

/// What is being done, and how much of it there is.
#[derive(Clone, Copy, Debug)]
struct Step {
    what: &'static str,
    total: Total,
    began: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Total {
    /// So many, of which so many are done.
    Of(u64, u64),
    /// It takes so long.
    Time(Duration),
}

impl Meters {
    /// Packets of media were sent.
    pub(crate) fn went(&self, packets: u64) {
        self.sent.fetch_add(packets, Ordering::Relaxed);
    }

    /// Packets of media came, and so many more should have come by now.
    pub(crate) fn came(&self, packets: u64, expected: u64) {
        self.received.fetch_add(packets, Ordering::Relaxed);
        self.expected.fetch_add(expected, Ordering::Relaxed);
    }

    /// So many things of a kind begin to be done.
    pub(crate) fn begin(&self, what: &'static str, total: u64) {
        self.set(Step { what, total: Total::Of(0, total), began: Instant::now() });
    }

    /// Something that takes so long begins.
    pub(crate) fn begin_timed(&self, what: &'static str, lasts: Duration) {
        self.set(Step { what, total: Total::Time(lasts), began: Instant::now() });
    }

    /// One more of them is done.
    pub(crate) fn advance(&self) {
        if let Some(Step { total: Total::Of(done, _), .. }) =
            self.step.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
        {
            *done += 1;
        }
    }

    fn set(&self, step: Step) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
    }

    fn step(&self) -> Option<Step> {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between two looks at the counters.
const LOOK: Duration = Duration::from_secs(1);
/// Delays shown are of this many looks. More: steadier, and later.
const DELAYS_OF: usize = 5;
/// Where nobody watches a terminal, a line is written every so many looks.
const LINE_EVERY: u32 = 5;

/// Shows a run until it is dropped.
#[derive(Debug)]
pub(crate) struct Display {
    task: JoinHandle<()>,
    bar: ProgressBar,
}

/// What there is to see.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) meters: Arc<Meters>,
    pub(crate) delays: Arc<Delays>,
    pub(crate) server: Option<Arc<Watch>>,
}

impl Display {
    /// A bar and a table if standard error is a terminal, and otherwise a line now and then.
    pub(crate) fn begin(sources: Sources) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr_with_hz(2) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(1_000), target);
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:<16} [{bar:40}] {percent:>3} %  {elapsed_precise}\n{msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        let shown = bar.clone();
        let task = tokio::spawn(async move { show(&sources, &shown, terminal).await });
        Self { task, bar }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

#[expect(clippy::print_stderr, reason = "who watches a run without a terminal reads lines")]
async fn show(sources: &Sources, bar: &ProgressBar, terminal: bool) {
    let (mut interval, mut looks) = (tokio::time::interval(LOOK), Looks::default());
    for turn in 0_u32.. {
        interval.tick().await;
        let glance = looks.take(sources);
        if terminal {
            bar.set_prefix(glance.what);
            bar.set_position(glance.per_mille);
            bar.set_message(glance.table());
        } else if turn % LINE_EVERY == LINE_EVERY - 1 {
            eprintln!("{}", glance.line());
        }
    }
}

/// What the next look is held against.
#[derive(Debug, Default)]
struct Looks {
    packets: Option<(Instant, u64, u64)>,
    delays: VecDeque<Vec<u64>>,
}

/// A run at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
struct Glance {
    what: &'static str,
    per_mille: u64,
    up: u64,
    over: u64,
    failed: u64,
    wanted: u64,
    connected: u64,
    away: u64,
    waiting: u64,
    requests: u64,
    sent_a_second: f64,
    received_a_second: f64,
    missing_percent: f64,
    voice: Option<(f64, f64)>,
    server: Option<(f64, f64)>,
}

impl Looks {
    #[expect(clippy::cast_precision_loss, reason = "rates and shares are rounded")]
    fn take(&mut self, sources: &Sources) -> Glance {
        let Sources { meters, delays, server } = sources;
        let now = Instant::now();
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (sent, received, expected) = (load(&meters.sent), load(&meters.received), load(&meters.expected));
        let (at, sent_before, received_before) =
            self.packets.replace((now, sent, received)).unwrap_or((now, sent, received));
        let seconds = (now - at).as_secs_f64().max(f64::EPSILON);
        let a_second = |count: u64, before: u64| count.saturating_sub(before) as f64 / seconds;

        let counts = delays.counts();
        let DelayFigures { count, p50_ms, p99_ms, .. } = match self.delays.front() {
            Some(before) => {
                DelayFigures::of(counts.iter().zip(before).map(|(count, before)| count.saturating_sub(*before)))
            }
            None => DelayFigures::of(counts.iter().copied()),
        };
        self.delays.push_back(counts);
        if self.delays.len() > DELAYS_OF {
            self.delays.pop_front();
        }
        let (what, per_mille) = meters.step().map_or(("", 0), |step| (step.what, step.per_mille(now)));
        let rooms = &meters.rooms;
        Glance {
            what,
            per_mille,
            up: rooms.up.now(),
            over: rooms.over.now(),
            failed: rooms.failed.now(),
            wanted: rooms.wanted.now(),
            connected: meters.connected.now(),
            away: meters.away.now(),
            waiting: meters.waiting.now(),
            requests: meters.requests.now(),
            sent_a_second: a_second(sent, sent_before),
            received_a_second: a_second(received, received_before),
            missing_percent: 100.0 * expected.saturating_sub(received) as f64 / expected.max(1) as f64,
            voice: (count > 0).then_some((p50_ms, p99_ms)),
            server: server.as_ref().and_then(|watch| watch.now()),
        }
    }
}

impl Step {
    fn per_mille(&self, now: Instant) -> u64 {
        let (done, of) = match self.total {
            Total::Of(done, of) => (u128::from(done), u128::from(of)),
            Total::Time(lasts) => (now.saturating_duration_since(self.began).as_millis(), lasts.as_millis()),
        };
        u64::try_from(done * 1_000 / of.max(1)).map_or(1_000, |part| part.min(1_000))
    }
}

impl Glance {
    /// For a terminal.
    fn table(&self) -> String {
        let mut table = format!(
            "rooms     {} of {} up, {} over, {} failed\npeople    {} connected, {} away, {} waiting\n\
             packets   {:.0}/s out, {:.0}/s in, {:.3} % missing so far",
            self.up,
            self.wanted,
            self.over,
            self.failed,
            self.connected,
            self.away,
            self.waiting,
            self.sent_a_second,
            self.received_a_second,
            self.missing_percent,
        );
        if let Some((p50, p99)) = self.voice {
            let _ = write!(table, "\nvoice     delay p50 {p50:.2} ms, p99 {p99:.2} ms (last seconds)");
        }
        if self.requests > 0 {
            let _ = write!(table, "\nprobe     {} requests answered", self.requests);
        }
        if let Some((cores, memory)) = self.server {
            let _ = write!(table, "\nserver    {cores:.2} cores, {memory:.0} MiB");
        }
        table
    }

    /// For a log.
    fn line(&self) -> String {
        let Self { what, connected, away, waiting, .. } = self;
        let mut line = format!(
            "{what} {} %: {} of {} rooms up, {} over, {} failed; {connected} connected, {away} away, {waiting} waiting; \
             {:.0} packets/s out, {:.0} in, {:.3} % missing",
            self.per_mille / 10,
            self.up,
            self.wanted,
            self.over,
            self.failed,
            self.sent_a_second,
            self.received_a_second,
            self.missing_percent,
        );
        if let Some((p50, p99)) = self.voice {
            let _ = write!(line, "; voice p50 {p50:.2} ms, p99 {p99:.2} ms");
        }
        if let Some((cores, memory)) = self.server {
            let _ = write!(line, "; server {cores:.2} cores, {memory:.0} MiB");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_tells_what_came_since_the_last_and_what_is_missing_of_all() {
        let sources = Sources { meters: Arc::default(), delays: Arc::default(), server: None };
        let mut looks = Looks::default();
        sources.meters.went(500);
        sources.meters.came(90, 100);
        sources.delays.add(Duration::from_millis(700));
        let first = looks.take(&sources);
        assert!(first.sent_a_second.abs() < f64::EPSILON, "there is nothing to hold it against");
        assert!((first.missing_percent - 10.0).abs() < 1e-9);
        assert!(first.voice.is_some_and(|(p50, _)| p50 > 600.0));
        sources.meters.went(500);
        sources.delays.add(Duration::from_millis(1));
        let second = looks.take(&sources);
        assert!(second.sent_a_second > 0.0 && second.received_a_second.abs() < f64::EPSILON);
        assert!(second.voice.is_some_and(|(_, p99)| p99 < 2.0), "of the last seconds only: {:?}", second.voice);
    }

    #[test]
    fn a_step_is_told_by_its_number_or_its_time() {
        let meters = Meters::default();
        meters.begin("booking", 4);
        meters.advance();
        let now = Instant::now();
        assert_eq!(meters.step().map(|step| step.per_mille(now)), Some(250));
        meters.begin_timed("rooms", Duration::from_secs(10));
        assert_eq!(meters.step().map(|step| step.per_mille(step.began + Duration::from_secs(4))), Some(400));
        assert_eq!(meters.step().map(|step| step.per_mille(step.began + Duration::from_secs(40))), Some(1_000));
        meters.begin("nothing", 0);
        assert_eq!(meters.step().map(|step| step.per_mille(now)), Some(0));
    }

    #[test]
    fn tables_and_lines_leave_out_what_is_not_known() {
        let glance = Glance { what: "rooms", up: 2, wanted: 3, ..Glance::default() };
        assert!(!glance.table().contains("server") && !glance.line().contains("voice"));
        let glance = Glance { voice: Some((1.0, 2.0)), server: Some((0.5, 90.0)), requests: 1, ..glance };
        assert!(glance.table().contains("0.50 cores, 90 MiB") && glance.table().contains("probe"));
        assert!(glance.line().contains("voice p50 1.00 ms, p99 2.00 ms; server 0.50 cores"));
    }
}
