//! The wall clock is set while a meeting is recorded: media time does not move, and the ledger tells of it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use loadtest::client::Habits;
use loadtest::numbered::Kind;
use tempfile::TempDir;

use super::meeting::{Meeting, ROLES, Setup};
use super::recorded::{decodes, first_lateness_ms, verifies};

const HOUR_MS: i64 = 3_600_000;

/// A wall clock that only the server sees, put in front of the real one by libfaketime.
pub(crate) struct WallClock {
    folder: TempDir,
    library: String,
}

impl WallClock {
    pub(crate) fn right() -> Self {
        let clock = Self { folder: TempDir::new().unwrap(), library: library() };
        clock.is_set_to("+0");
        clock
    }

    /// So many seconds from the right time.
    pub(crate) fn is_set_to(&self, offset: &str) {
        // Whoever reads it sees the old line or the new one.
        let new = self.folder.path().join("new");
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// What has a process read this clock.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }
}

/// Where libfaketime is: its own program knows.
fn library() -> String {
    let output = Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
    let output = output.expect("faketime is needed for this test");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setting_the_wall_clock_by_an_hour_moves_no_media_time_and_is_told() {
    let clock = WallClock::right();
    let environment = clock.environment();
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut meeting =
        Meeting::is_live(Setup { environment: &environment, ..Setup::default() }, |_| Habits::default()).await;
    for offset in ["+3600", "-3600", "+0"] {
        tokio::time::sleep(Duration::from_secs(3)).await;
        clock.is_set_to(offset);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    meeting.ends().await;

    verifies(&meeting.folder());
    for role in ROLES {
        let originals = meeting.originals(role);
        let [original] = originals.as_slice() else { panic!("{} originals of the {role}", originals.len()) };
        decodes(&original.path);
        for kind in [Kind::Voice, Kind::Picture] {
            let sent = meeting.record(role).sent(kind);
            assert_eq!(original.of(kind).count(), sent.len(), "{role} {kind:?}");
            let worst = original.time_errors(kind, &sent).into_iter().map(|(_, error)| error.abs()).fold(0.0, f64::max);
            println!("{role} {kind:?}: time off by {worst:.2} ms at most");
            assert!(worst <= 5.0 + first_lateness_ms(&sent), "{role} {kind:?}: time off by {worst:.2} ms");
        }
    }
    let told = meeting.told("wall_clock_set").await;
    let by: Vec<_> = told.iter().map(|event| event["by_ms"].as_i64().unwrap()).collect();
    assert_eq!(by.len(), 3, "{told:?}");
    for (by, expected) in by.iter().zip([HOUR_MS, -2 * HOUR_MS, HOUR_MS]) {
        assert!((by - expected).abs() < 1_000, "{by} for {expected}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_runs_fast_has_its_voice_and_picture_together_and_at_the_servers_pace() {
    // Ten times what a poor quartz does: in so short a call 12 ms.
    const DRIFT_PPM: i32 = 1_000;
    let habits = |role: &str| match role {
        "delegato" => Habits { drift_ppm: DRIFT_PPM, ..Habits::default() },
        _ => Habits::default(),
    };
    let mut meeting = Meeting::is_live(Setup::default(), habits).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    meeting.ends().await;

    verifies(&meeting.folder());
    let originals = meeting.originals("delegato");
    let [original] = originals.as_slice() else { panic!("{} originals", originals.len()) };
    decodes(&original.path);
    let begin = meeting.record("delegato").sent(Kind::Picture)[0].captured;
    let mut offsets = Vec::new();
    for kind in [Kind::Voice, Kind::Picture] {
        let sent = meeting.record("delegato").sent(kind);
        assert_eq!(original.of(kind).count(), sent.len(), "{kind:?}");
        offsets.extend(original.of(kind).zip(&sent).map(|(block, sent)| {
            // The device's time of capture on this machine's clock.
            let captured_ms = match sent.captured.checked_duration_since(begin) {
                Some(later) => later.as_secs_f64() * 1e3,
                None => begin.duration_since(sent.captured).as_secs_f64() * -1e3,
            };
            block.at_ms as f64 - captured_ms / (1.0 + f64::from(DRIFT_PPM) / 1e6)
        }));
    }
    let (least, most) = offsets.iter().fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(*at), high.max(*at)));
    println!("all of voice and picture stand within {:.1} ms", most - least);
    assert!(most - least <= 20.0, "voice and picture stand {:.1} ms apart", most - least);
}
