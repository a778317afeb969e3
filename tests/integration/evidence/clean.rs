//! On a network that loses nothing, nothing is lost: each frame and packet, in order, at its time.

use std::time::Duration;

use loadtest::client::Habits;
use loadtest::numbered::Kind;

use super::meeting::{Meeting, ROLES, Setup};
use super::recorded::{decodes, first_lateness_ms, verifies};

/// How far a block's time may be from that of its sender's reports.
const EXACT_MS: f64 = 5.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_was_sent_is_in_the_originals_in_order_and_at_its_time() {
    let mut meeting = Meeting::is_live(Setup::default(), |_| Habits::default()).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    meeting.ends().await;

    verifies(&meeting.folder());
    for role in ROLES {
        let originals = meeting.originals(role);
        let [original] = originals.as_slice() else { panic!("{} originals of the {role}", originals.len()) };
        decodes(&original.path);
        for kind in [Kind::Voice, Kind::Picture] {
            let sent = meeting.record(role).sent(kind);
            assert!(sent.len() > 12 * 20, "{role} {kind:?}: only {} were sent", sent.len());
            let numbers: Vec<_> = original.of(kind).map(|block| block.mark.number).collect();
            let expected: Vec<_> = sent.iter().map(|sent| sent.number).collect();
            assert_eq!(numbers, expected, "{role} {kind:?}");
            assert!(original.of(kind).all(|block| block.mark.sender == meeting.record(role).sender()));
            assert!(original.of(kind).all(|block| block.keyframe == block.decodes_alone));
            assert_eq!(original.lines("gap", kind).count(), 0);
            let errors = original.time_errors(kind, &sent);
            let worst = errors.iter().copied().max_by(|(_, one), (_, other)| one.abs().total_cmp(&other.abs()));
            let (number, error) = worst.unwrap();
            let late = first_lateness_ms(&sent);
            println!(
                "{role} {kind:?}: {} of {} recorded, time off by {error:.2} ms at most (no. {number}; the first was sent {late:.2} ms late)",
                numbers.len(),
                sent.len(),
            );
            assert!(
                error.abs() <= EXACT_MS + late,
                "{role} {kind:?}: no. {number} is off by {error:.2} ms: {errors:?}"
            );
        }
    }
}
