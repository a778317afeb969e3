//! What was seen, as a table, as JSON, and as a verdict.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::appointment::Profile;
use crate::crowd::CrowdReport;
use crate::delay::DelayFigures;
use crate::light::LightFigures;
use crate::plan::{Plan, duration};
use crate::recorded::Verdict;
use crate::script::Cause;
use crate::server::ServerFigures;
use crate::target::Target;
use crate::timing::{Figures, Times};
use crate::verify::VerifyReport;

/// When a run counts as failed.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Limits: what is beyond one makes the exit code 1")]
pub struct Limits {
    /// Longest time from the offer's POST to a standing connection (ICE and DTLS).
    #[arg(long = "max-join", value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub join: Duration,
    /// Longest time from the room's last POST to the first packet of every other person's voice and picture.
    #[arg(long = "max-first-media", value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub first_media: Duration,
    /// Largest share of packets that may be missing at a receiver, 0 to 1.
    #[arg(id = "max-loss", long = "max-loss", value_name = "SHARE", default_value_t = 0.01)]
    pub loss: f64,
    /// Longest delay of 99 in 100 packets of voice, from sender to receiver.
    #[arg(long = "max-delay-p99", value_name = "TIME", value_parser = duration)]
    pub delay_p99: Option<Duration>,
    /// Longest time from the offer of someone who comes back to everyone's media, where they were away by --churn,
    /// --reconnect or --absence. That they come back at all is a limit in any case.
    #[arg(long = "max-return", value_name = "TIME", value_parser = duration)]
    pub comes_back: Option<Duration>,
    /// Longest time of 99 in 100 requests of each kind that the probe makes.
    #[arg(long = "max-api-p99", value_name = "TIME", value_parser = duration)]
    pub api_p99: Option<Duration>,
    /// Most CPU that the server may take for a packet sent on, microseconds; needs --metrics-key or --server-pid.
    #[arg(long = "max-cpu-per-packet", value_name = "MICROSECONDS", requires = "figures")]
    pub cpu_per_packet: Option<f64>,
}

/// What one client saw.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClientReport {
    /// Its role in the room.
    pub role: String,
    /// From the offer's POST to ICE and DTLS done, milliseconds.
    pub join_ms: Option<u64>,
    /// From the offer's POST to the first packet of each source that came, milliseconds, the latest of them.
    pub first_media_ms: Option<u64>,
    /// Milliseconds since the run's start at which this client posted its offer.
    pub posted_ms: u64,
    /// Sources of others that it received.
    pub sources: usize,
    /// Sources of others that it should have received.
    pub sources_expected: usize,
    /// Packets sent.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
    /// Packets that the sequence numbers or the time of flow say should have come.
    pub expected: u64,
    /// Keyframes that the server asked for.
    pub keyframe_requests: u64,
    /// Datagrams that the client's own bad network lost, both ways.
    pub lost_on_purpose: u64,
}

impl ClientReport {
    /// This connection's and that of the same person after it: times are of the first, sources of the last.
    pub(crate) fn followed_by(self, later: &Self) -> Self {
        Self {
            sources: later.sources,
            sent: self.sent + later.sent,
            received: self.received.min(self.expected) + later.received.min(later.expected),
            expected: self.expected + later.expected,
            keyframe_requests: self.keyframe_requests + later.keyframe_requests,
            lost_on_purpose: self.lost_on_purpose + later.lost_on_purpose,
            ..self
        }
    }
}

/// Someone was away and came back, or did not.
#[derive(Clone, Debug, Serialize)]
pub struct ReturnReport {
    /// Whose.
    pub role: String,
    /// Why they were away.
    pub cause: Cause,
    /// How long, milliseconds.
    pub away_ms: u64,
    /// Whether the room was suspended when they began to come back.
    pub suspended: bool,
    /// From their offer's POST to a standing connection, milliseconds.
    pub join_ms: Option<u64>,
    /// From their offer's POST until they had everyone's voice and picture again, milliseconds. Absent: they never had.
    pub media_ms: Option<u64>,
}

/// Those who were away for the same reason.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReturnFigures {
    /// How often someone was away.
    pub times: usize,
    /// How often media flowed again.
    pub came_back: usize,
    /// How often the room was suspended meanwhile.
    pub suspended: usize,
    /// From the offer of who came back until media flowed again.
    pub media_again: Figures,
}

/// What the clients of one room saw.
#[derive(Clone, Debug, Serialize)]
pub struct RoomReport {
    /// Number of the room in this run.
    pub number: u32,
    /// One line per person.
    pub clients: Vec<ClientReport>,
    /// One line for each time that someone was away.
    pub returns: Vec<ReturnReport>,
}

/// What was asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunFigures {
    /// Kind of service.
    pub profile: Profile,
    /// Rooms that were asked for.
    pub rooms: u32,
    /// How long each was to be held, seconds.
    pub duration_s: f64,
    /// Over how long they began, seconds.
    pub ramp_s: f64,
    /// Whether clients were light.
    pub light: bool,
    /// Where the dice began.
    pub seed: u64,
    /// Share of datagrams that the clients' networks were to lose, 0 to 1.
    pub loss: f64,
    /// From the first room's beginning to the last one's end, seconds.
    pub seconds: f64,
}

impl RunFigures {
    /// Those of a plan whose rooms took so long.
    pub(crate) fn of(plan: &Plan, ramp: Duration, took: Duration) -> Self {
        Self {
            profile: plan.profile,
            rooms: plan.rooms,
            duration_s: plan.duration.as_secs_f64(),
            ramp_s: ramp.as_secs_f64(),
            light: plan.light,
            seed: plan.script.seed,
            loss: plan.network.loss,
            seconds: took.as_secs_f64(),
        }
    }
}

/// The run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Whose server it was.
    pub(crate) target: Target,
    /// What was asked for.
    pub(crate) run: RunFigures,
    /// What the rooms come to.
    pub(crate) summary: Summary,
    /// How long voice took.
    pub(crate) delays: DelayFigures,
    /// How long it took while all rooms were up; absent if they never were at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delays_all_up: Option<DelayFigures>,
    /// What the server took; absent without its metrics key or process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<ServerFigures>,
    /// Those around the rooms.
    pub(crate) crowd: CrowdReport,
    /// What the recordings hold; absent without --verify.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verify: Option<VerifyReport>,
    /// What the tool itself took.
    pub(crate) tool: ToolFigures,
    pub(crate) rooms: Vec<RoomReport>,
    pub(crate) failures: Vec<String>,
}

/// What the tool itself took, joins and all: to be held against the server's figures before these are believed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ToolFigures {
    /// Cores in use, on average of the whole run.
    pub cores: f64,
    /// Microseconds of CPU for each packet that was sent or received.
    pub cpu_us_per_packet: f64,
    /// The thread of the light clients, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub light: Option<LightFigures>,
}

/// The figures of all rooms together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Rooms that were held.
    pub rooms: usize,
    /// Rooms that failed.
    pub failed: usize,
    /// From an offer's POST to a standing connection.
    pub join: Figures,
    /// From a room's last POST until everyone has everyone's media.
    pub first_media: Figures,
    /// Packets sent by all clients.
    pub sent: u64,
    /// Packets received by all clients.
    pub received: u64,
    /// Packets that should have come. While someone is away, others' streams may stand still, and are not held against
    /// the clock.
    pub expected: u64,
    /// Share of packets that are missing, 0 to 1.
    pub loss: f64,
    /// Datagrams that the clients' own bad networks lost.
    pub lost_on_purpose: u64,
    /// Those who were away.
    pub returns: BTreeMap<Cause, ReturnFigures>,
}

impl RoomReport {
    /// A room that nobody has reported on yet.
    pub fn new(number: u32) -> Self {
        Self { number, clients: Vec::new(), returns: Vec::new() }
    }

    /// From the room's last POST until everyone has everyone else's media: nothing may flow earlier, since the
    /// presence rule is not met.
    pub(crate) fn first_media_ms(&self) -> Option<u64> {
        let last_post = self.clients.iter().map(|client| client.posted_ms).max()?;
        let mut latest = 0;
        for client in &self.clients {
            latest = latest.max((client.posted_ms + client.first_media_ms?).saturating_sub(last_post));
        }
        Some(latest)
    }

    pub(crate) fn loss(&self) -> f64 {
        let (missing, expected) = self.missing();
        share(missing, expected)
    }

    /// Packets that are missing, of so many.
    fn missing(&self) -> (u64, u64) {
        let expected: u64 = self.clients.iter().map(|client| client.expected).sum();
        let received: u64 = self.clients.iter().map(|client| client.received.min(client.expected)).sum();
        (expected - received, expected)
    }

    pub(crate) fn join_ms(&self) -> Option<u64> {
        self.clients.iter().map(|client| client.join_ms).collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

impl Report {
    /// Takes in one room's outcome.
    pub fn add(&mut self, room: Result<RoomReport, String>) {
        match room {
            Ok(room) => {
                self.rooms.push(room);
                self.rooms.sort_by_key(|room| room.number);
            }
            Err(failure) => self.failures.push(failure),
        }
    }

    /// Sums it all up, once all rooms are in.
    pub(crate) fn sum_up(&mut self, delays: DelayFigures, server: Option<ServerFigures>) {
        let (mut join, mut first) = (Times::default(), Times::default());
        let (mut missing, mut expected) = (0, 0);
        for room in &self.rooms {
            for ms in room.clients.iter().filter_map(|client| client.join_ms) {
                join.add(Duration::from_millis(ms));
            }
            if let Some(ms) = room.first_media_ms() {
                first.add(Duration::from_millis(ms));
            }
            let (lost, of) = room.missing();
            missing += lost;
            expected += of;
        }
        let mut returns = BTreeMap::<Cause, (ReturnFigures, Times)>::new();
        for back in self.rooms.iter().flat_map(|room| &room.returns) {
            let (figures, again) = returns.entry(back.cause).or_default();
            figures.times += 1;
            figures.suspended += usize::from(back.suspended);
            if let Some(ms) = back.media_ms {
                figures.came_back += 1;
                again.add(Duration::from_millis(ms));
            }
        }
        let returns = returns
            .into_iter()
            .map(|(cause, (figures, again))| (cause, ReturnFigures { media_again: again.figures(), ..figures }));
        let clients = || self.rooms.iter().flat_map(|room| &room.clients);
        self.summary = Summary {
            rooms: self.rooms.len(),
            failed: self.failures.len(),
            join: join.figures(),
            first_media: first.figures(),
            sent: clients().map(|client| client.sent).sum(),
            received: clients().map(|client| client.received).sum(),
            expected,
            loss: share(missing, expected),
            lost_on_purpose: clients().map(|client| client.lost_on_purpose).sum(),
            returns: returns.collect(),
        };
        (self.delays, self.server) = (delays, server);
    }

    /// Takes in what the tool itself took, after [`Report::sum_up`].
    #[expect(clippy::cast_precision_loss, reason = "microseconds with some decimals")]
    pub(crate) fn count_cost(&mut self, cpu_ns: u64, time: Duration, light: Option<LightFigures>) {
        let packets = (self.summary.sent + self.summary.received).max(1);
        let cpu = Duration::from_nanos(cpu_ns).as_secs_f64();
        let cores = cpu / time.as_secs_f64().max(f64::EPSILON);
        self.tool = ToolFigures { cores, cpu_us_per_packet: cpu * 1e6 / packets as f64, light };
    }

    /// Everything, for programs.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// A line per room, for people.
    pub fn table(&self) -> String {
        let mut table = String::from("room  join ms (max)  first media ms  sources  sent    received  loss\n");
        for room in &self.rooms {
            let clients = &room.clients;
            let _ = writeln!(
                table,
                "{:<5} {:<14} {:<15} {:<8} {:<7} {:<9} {:.2} %",
                room.number,
                show(room.join_ms()),
                show(room.first_media_ms()),
                format!(
                    "{}/{}",
                    clients.iter().map(|client| client.sources).sum::<usize>(),
                    clients.iter().map(|client| client.sources_expected).sum::<usize>()
                ),
                clients.iter().map(|client| client.sent).sum::<u64>(),
                clients.iter().map(|client| client.received).sum::<u64>(),
                room.loss() * 100.0,
            );
        }
        for failure in &self.failures {
            let _ = writeln!(table, "failed: {failure}");
        }
        let (summary, delays) = (&self.summary, &self.delays);
        let _ = writeln!(
            table,
            "all    {}: join p50 {:.0} ms, p95 {:.0} ms, longest {:.0} ms; {} packets received, {:.3} % missing",
            self.target.name(),
            summary.join.p50_ms,
            summary.join.p95_ms,
            summary.join.max_ms,
            summary.received,
            summary.loss * 100.0,
        );
        let _ = writeln!(
            table,
            "voice  delay p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, longest {:.1} ms ({} packets)",
            delays.p50_ms, delays.p95_ms, delays.p99_ms, delays.max_ms, delays.count,
        );
        if let Some(delays) = &self.delays_all_up {
            let _ = writeln!(
                table,
                "       while all rooms were up p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms, longest {:.1} ms",
                delays.p50_ms, delays.p95_ms, delays.p99_ms, delays.max_ms,
            );
        }
        for (what, figures) in self.figures_of_the_rest() {
            let _ = writeln!(table, "{what:<6} {figures}");
        }
        if let Some(server) = &self.server {
            let _ = writeln!(
                table,
                "server {:.2} cores, {:.0} packets/s sent on, {:.2} us of CPU each, {:.0} MiB at most ({:.2} a room)",
                server.cores,
                server.packets_per_second,
                server.cpu_us_per_packet,
                server.memory_mib,
                server.memory_mib_per_room,
            );
        }
        let tool = &self.tool;
        let _ = writeln!(
            table,
            "tool   {:.2} cores, {:.2} us of CPU for each packet sent or received",
            tool.cores, tool.cpu_us_per_packet
        );
        if let Some(light) = &tool.light {
            let _ = writeln!(
                table,
                "light  {:.2} us of CPU each for media alone; sent late by p99 {:.2} ms, longest {:.1} ms; {} lost in \
                 the tool's sockets, {} not opened",
                light.cpu_us_per_packet, light.late_p99_ms, light.late_max_ms, light.dropped, light.unopened,
            );
        }
        table
    }

    /// What not every run has, in words: those who were away, bad networks, those around the rooms, recordings.
    pub(crate) fn figures_of_the_rest(&self) -> Vec<(&'static str, String)> {
        let mut rest = Vec::new();
        for (cause, figures) in &self.summary.returns {
            let ReturnFigures { times, came_back, suspended, media_again } = figures;
            let what = match cause {
                Cause::Churn => "hung up for some seconds",
                Cause::Reconnect => "lost the network",
                Cause::Absence => "absent",
            };
            let Figures { p50_ms, p95_ms, max_ms, .. } = media_again;
            rest.push((
                "away",
                format!(
                    "{what} {times} times, {came_back} came back, {suspended} rooms suspended; media again p50 {p50_ms:.0} ms, p95 {p95_ms:.0} ms, longest {max_ms:.0} ms"
                ),
            ));
        }
        if self.summary.lost_on_purpose > 0 {
            rest.push(("lost", format!("{} datagrams by the clients' own networks", self.summary.lost_on_purpose)));
        }
        let crowd = &self.crowd;
        if crowd.booked > 0 || crowd.waiting > 0 {
            rest.push((
                "crowd",
                format!(
                    "{} rooms booked; {} people waiting, {} to the end",
                    crowd.booked, crowd.waiting, crowd.still_waiting
                ),
            ));
        }
        if let Some(probe) = &crowd.probe {
            rest.extend(probe.kinds.iter().map(|(kind, figures)| {
                let Figures { count, p50_ms, p95_ms, p99_ms, max_ms } = figures;
                let times =
                    format!("p50 {p50_ms:.1} ms, p95 {p95_ms:.1} ms, p99 {p99_ms:.1} ms, longest {max_ms:.1} ms");
                ("api", format!("{}: {count} requests, {times}", kind.name()))
            }));
            if probe.failed > 0 {
                rest.push(("api", format!("{} requests failed", probe.failed)));
            }
        }
        if let Some(verify) = &self.verify {
            for (what, found) in [("packets of voice", verify.voice), ("frames", verify.pictures)] {
                let Verdict { sent, found, in_gaps, at_the_end, missing, altered, repeated } = found;
                rest.push((
                    "record",
                    format!(
                        "{sent} {what} sent: {found} found, {in_gaps} in gaps that it lists, {at_the_end} at the end of a bad connection, {missing} missing, {altered} altered, {repeated} repeated"
                    ),
                ));
            }
            rest.push((
                "record",
                format!(
                    "{} of {} frames in session copies; {} packages, sealed after p50 {:.1} s, longest {:.1} s",
                    verify.copied,
                    verify.copied_expected,
                    verify.rooms,
                    verify.sealing.p50_ms / 1e3,
                    verify.sealing.max_ms / 1e3,
                ),
            ));
        }
        rest
    }

    /// Every limit that was not kept, in words; empty: the run is good.
    pub fn misses(&self, limits: &Limits) -> Vec<String> {
        let mut misses = self.failures.clone();
        for room in &self.rooms {
            for client in &room.clients {
                let who = format!("room {} {}", room.number, client.role);
                match client.join_ms {
                    None => misses.push(format!("{who} never connected")),
                    Some(ms) if Duration::from_millis(ms) > limits.join => {
                        misses.push(format!("{who} connected after {ms} ms"));
                    }
                    Some(_) => {}
                }
                if client.sources < client.sources_expected {
                    misses.push(format!("{who} received {} of {} sources", client.sources, client.sources_expected));
                }
            }
            match room.first_media_ms() {
                Some(ms) if Duration::from_millis(ms) > limits.first_media => {
                    misses.push(format!("room {}: first media after {ms} ms", room.number));
                }
                _ => {}
            }
            for back in &room.returns {
                let who = format!("room {} {}", room.number, back.role);
                match (back.media_ms.map(Duration::from_millis), limits.comes_back) {
                    (None, _) => misses.push(format!("{who} was away and never had everyone's media again")),
                    (Some(took), Some(limit)) if took > limit => {
                        misses.push(format!("{who} had everyone's media again after {} ms", took.as_millis()));
                    }
                    _ => {}
                }
            }
            if room.loss() > limits.loss {
                misses.push(format!("room {}: {:.2} % of packets missing", room.number, room.loss() * 100.0));
            }
        }
        if let Some(limit) = limits.delay_p99
            && self.delays.p99_ms > limit.as_secs_f64() * 1_000.0
        {
            misses.push(format!("voice: one packet in a hundred took longer than {:.2} ms", self.delays.p99_ms));
        }
        if let Some(probe) = &self.crowd.probe {
            let limit = limits.api_p99.unwrap_or(Duration::MAX);
            let slow = probe.kinds.iter().filter(|(_, figures)| figures.exceed(limit));
            misses.extend(slow.map(|(kind, figures)| format!("{}: p99 {:.1} ms", kind.name(), figures.p99_ms)));
            if probe.failed > 0 || probe.kinds.is_empty() {
                let told = probe.first_failure.as_deref().unwrap_or("the rooms were over before the probe began");
                misses.push(format!("{} requests of the probe failed: {told}", probe.failed));
            }
        }
        if usize::try_from(self.crowd.waiting).is_ok_and(|waiting| self.crowd.still_waiting < waiting) {
            misses.push(format!("{} of {} people still wait", self.crowd.still_waiting, self.crowd.waiting));
        }
        misses.extend(self.verify.iter().flat_map(|verify| verify.faults.iter().cloned()));
        if let Some(limit) = limits.cpu_per_packet {
            match &self.server {
                Some(server) if server.cpu_us_per_packet > limit => {
                    misses.push(format!("the server took {:.2} us for a packet", server.cpu_us_per_packet));
                }
                Some(server) if server.packets_per_second > 0.0 => {}
                _ => misses.push("the server's figures say nothing of packets sent on".to_owned()),
            }
        }
        if self.rooms.is_empty() && misses.is_empty() {
            misses.push("no room was held".to_owned());
        }
        misses
    }
}

fn show(ms: Option<u64>) -> String {
    ms.map_or_else(|| "-".to_owned(), |ms| ms.to_string())
}

#[expect(clippy::cast_precision_loss, reason = "a share is printed with two decimals")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests;
