//! What was seen, as a table, as JSON, and as a verdict.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::plan::duration;

/// When a run counts as failed.
#[derive(Clone, Copy, Debug, Args)]
pub struct Limits {
    /// Longest time from the offer's POST to a standing connection (ICE and DTLS).
    #[arg(long = "max-join", value_name = "TIME", default_value = "2s", value_parser = duration)]
    pub join: Duration,
    /// Longest time from the room's last POST to the first packet of every other person's voice and picture.
    #[arg(long = "max-first-media", value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub first_media: Duration,
    /// Largest share of packets that may be missing at a receiver, 0 to 1.
    #[arg(long = "max-loss", value_name = "SHARE", default_value_t = 0.01)]
    pub loss: f64,
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
}

/// What the clients of one room saw.
#[derive(Clone, Debug, Serialize)]
pub struct RoomReport {
    /// Number of the room in this run.
    pub number: u32,
    /// One line per person.
    pub clients: Vec<ClientReport>,
}

/// The run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    rooms: Vec<RoomReport>,
    failures: Vec<String>,
}

impl RoomReport {
    /// A room that nobody has reported on yet.
    pub fn new(number: u32) -> Self {
        Self { number, clients: Vec::new() }
    }

    /// From the room's last POST until everyone has everyone else's media: nothing may flow earlier, since the
    /// presence rule is not met.
    fn first_media_ms(&self) -> Option<u64> {
        let last_post = self.clients.iter().map(|client| client.posted_ms).max()?;
        let mut latest = 0;
        for client in &self.clients {
            latest = latest.max((client.posted_ms + client.first_media_ms?).saturating_sub(last_post));
        }
        Some(latest)
    }

    fn loss(&self) -> f64 {
        let expected: u64 = self.clients.iter().map(|client| client.expected).sum();
        let received: u64 = self.clients.iter().map(|client| client.received.min(client.expected)).sum();
        share(expected - received, expected)
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
                show(
                    clients
                        .iter()
                        .map(|client| client.join_ms)
                        .collect::<Option<Vec<_>>>()
                        .and_then(|all| all.into_iter().max())
                ),
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
        table
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
            if room.loss() > limits.loss {
                misses.push(format!("room {}: {:.2} % of packets missing", room.number, room.loss() * 100.0));
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
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { join: Duration::from_secs(2), first_media: Duration::from_secs(3), loss: 0.01 };

    fn client() -> ClientReport {
        ClientReport {
            role: "delegato".to_owned(),
            join_ms: Some(200),
            first_media_ms: Some(400),
            posted_ms: 100,
            sources: 4,
            sources_expected: 4,
            sent: 1_000,
            received: 2_000,
            expected: 2_000,
            keyframe_requests: 1,
        }
    }

    fn misses(client: ClientReport) -> Vec<String> {
        let mut report = Report::default();
        report.add(Ok(RoomReport { number: 0, clients: vec![client] }));
        report.misses(&LIMITS)
    }

    #[test]
    fn a_whole_room_misses_nothing() {
        assert_eq!(misses(client()), Vec::<String>::new());
    }

    #[test]
    fn each_limit_is_missed_by_itself() {
        assert_eq!(misses(ClientReport { join_ms: Some(2_001), ..client() }).len(), 1);
        assert_eq!(misses(ClientReport { first_media_ms: Some(3_001), ..client() }).len(), 1);
        assert_eq!(misses(ClientReport { received: 1_979, ..client() }).len(), 1);
        assert_eq!(misses(ClientReport { sources: 3, ..client() }).len(), 1);
    }

    #[test]
    fn a_run_without_rooms_is_not_a_good_run() {
        assert_eq!(Report::default().misses(&LIMITS).len(), 1);
    }

    #[test]
    fn packets_that_came_twice_do_not_hide_lost_ones() {
        let doubled = ClientReport { received: 4_000, ..client() };
        let starved = ClientReport { received: 0, ..client() };
        let room = RoomReport { number: 0, clients: vec![doubled, starved] };
        assert!((room.loss() - 0.5).abs() < 1e-9);
    }
}
