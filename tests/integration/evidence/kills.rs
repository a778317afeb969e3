//! The process is killed in mid-call, again and again: what had been forwarded is in the files but for the last second,
//! every file is whole up to there, and the gaps are written down.

use std::time::{Duration, Instant};

use loadtest::numbered::{Kind, Sent};

use super::meeting::{Meeting, ROLES, Setup};
use super::recorded::{Original, decodes, verifies};
use crate::server::{Signal, text};

/// What a kill may cost.
const MOST_LOST: Duration = Duration::from_secs(1);
/// Where the dice for the moments begin.
const SEED: u64 = 20_260_113;
/// A kill comes at most so long after people begin to connect; they are live after about two seconds.
const LATEST: u64 = 4_000;

/// `EVIDENCE_KILLS` says how many; 50 take about three minutes.
fn kills() -> usize {
    std::env::var("EVIDENCE_KILLS").ok().map_or(50, |kills| kills.parse().unwrap())
}

/// Milliseconds after the beginning of each round, by xorshift64 (Marsaglia, 2003).
fn moments() -> impl Iterator<Item = Duration> {
    let mut dice = SEED;
    std::iter::repeat_with(move || {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        Duration::from_millis(500 + dice % (LATEST - 500))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_of_a_call_at_most_a_second_is_lost_and_every_file_is_whole() {
    let mut meeting = Meeting::opens(Setup::default()).await;
    let mut killed = Vec::new();
    for moment in moments().take(kills()) {
        let at = Instant::now() + moment;
        // The kill may come while they still connect.
        let _ = tokio::time::timeout_at(at.into(), meeting.everyone_connects()).await;
        tokio::time::sleep_until(at.into()).await;
        killed.push(Instant::now());
        meeting.server.end(Signal::Kill);
        meeting.everyone_is_cut_off();
        meeting.server.come_back().await;
    }
    meeting.everyone_connects().await;
    meeting.becomes("live").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    meeting.ends().await;

    verifies(&meeting.folder());
    let mut costs = Vec::new();
    let mut recovered = Vec::new();
    for role in ROLES {
        let originals = meeting.originals(role);
        recovered.extend(recovered_of(&originals));
        for original in &originals {
            decodes(&original.path);
        }
        for kind in [Kind::Voice, Kind::Picture] {
            let blocks = originals.iter().flat_map(|original| original.of(kind));
            let mut recorded: Vec<_> = blocks.map(|block| block.mark.number).collect();
            recorded.sort_unstable();
            let sent = meeting.record(role).sent(kind);
            for stretch in sent.chunk_by(|one, next| one.connection == next.connection) {
                costs.extend(cost(&meeting, role, kind, stretch, &recorded, &killed));
            }
        }
    }
    costs.sort_by_key(|cost| cost.forwarded);
    let worst = costs.last().unwrap();
    let median = costs[costs.len() / 2];
    println!(
        "{} kills, {} streams that were being forwarded: of what others had received {:?} were lost at most, {:?} in the middle",
        killed.len(),
        costs.len(),
        worst.forwarded,
        median.forwarded,
    );
    let reached = costs.iter().map(|cost| cost.sent).max().unwrap();
    println!("of what had been sent, received or not, {reached:?} at most");
    // Each file says how far it goes, and the ledger says the same.
    let told = meeting.told("recording_recovered").await;
    let mut told: Vec<_> =
        told.iter().map(|event| (text(&event["file"]), event["until_ms"].as_u64().unwrap())).collect();
    told.sort();
    recovered.sort();
    assert_eq!(told, recovered);
    assert_eq!(meeting.told("node_restarted").await.len(), killed.len());
    assert!(costs.len() >= killed.len() * 3, "too few kills met a live room: {}", costs.len());
    assert!(worst.forwarded <= MOST_LOST, "{worst:?}");
}

/// The originals that a kill ended, and how far they go, milliseconds; of one person only the last ended well.
fn recovered_of(originals: &[Original]) -> Vec<(String, u64)> {
    let end = |original: &Original| original.lines.last().unwrap().clone();
    let (last, cut) = originals.split_last().unwrap();
    assert_eq!(end(last)["type"], "closed", "{}", last.path.display());
    let recovered = cut.iter().map(|original| {
        let end = end(original);
        assert_eq!(end["type"], "recovered", "{}: {end}", original.path.display());
        let file = original.path.file_name().unwrap().to_str().unwrap().to_owned();
        (file, end["duration_ms"].as_u64().unwrap())
    });
    recovered.collect()
}

/// What one kill took of one stream.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Media time that others had received and that is not in a file.
    forwarded: Duration,
    /// Media time from the first that is not in a file, though forwarding had begun, to the kill.
    sent: Duration,
}

/// What the kill that ended this connection cost; `None` if none did, or before anything was forwarded.
fn cost(
    meeting: &Meeting,
    role: &str,
    kind: Kind,
    stretch: &[Sent],
    recorded: &[u64],
    killed: &[Instant],
) -> Option<Cost> {
    let there: Vec<_> = stretch.iter().map(|sent| recorded.binary_search(&sent.number).is_ok()).collect();
    let kept = there.iter().filter(|there| **there).count();
    assert!(there[..kept].iter().all(|there| *there), "{role} {kind:?}: a hole before the end of {stretch:?}");
    let connection = stretch[0].connection;
    let Some(killed) = killed.iter().find(|killed| **killed > stretch[0].sent) else {
        assert_eq!(kept, stretch.len(), "{role} {kind:?}: connection {connection} ended well");
        return None;
    };
    let numbers = stretch[0].number..=stretch[stretch.len() - 1].number;
    let others = ROLES.iter().filter(|other| **other != role).flat_map(|other| meeting.record(other).heard());
    let of_this = others.filter(|heard| heard.kind == kind && heard.mark.sender == meeting.record(role).sender());
    let heard: Vec<_> = of_this.map(|heard| heard.mark.number).filter(|heard| numbers.contains(heard)).collect();
    let sent_at = |number: u64| stretch.iter().find(|sent| sent.number == number).map(|sent| sent.sent);
    let (first, last) = (sent_at(*heard.iter().min()?)?, sent_at(*heard.iter().max()?)?);
    let Some(lost) = stretch.get(kept) else {
        return Some(Cost { forwarded: Duration::ZERO, sent: Duration::ZERO });
    };
    let since = lost.sent.max(first);
    Some(Cost { forwarded: last.saturating_duration_since(since), sent: killed.saturating_duration_since(since) })
}
