//! On networks that lose, repeat and reorder: what can be brought back is there, and what is not there is told of.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use loadtest::client::Habits;
use loadtest::network::{Network, Way};
use loadtest::numbered::{Kind, Sent};

use super::meeting::{Meeting, ROLES, Setup};
use super::recorded::{Original, decodes, verifies};

/// A network that begins well, so that the streams' first packets are known, and loses 2 % both ways from then on.
fn loses_two_percent(seed: u64) -> Habits {
    let network = Network { seed, good_for: Duration::from_secs(2), up: Way::losing(0.02), down: Way::losing(0.02) };
    Habits { network, ..Habits::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_two_percent_loss_picture_and_voice_are_whole_and_every_missing_packet_is_listed_as_a_gap() {
    let mut meeting = Meeting::is_live(Setup::default(), |role| loses_two_percent(role.len() as u64)).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    meeting.ends().await;

    verifies(&meeting.folder());
    let (mut frames_sent, mut frames_missing, mut voice_sent, mut voice_missing) = (0, 0, 0, 0);
    for role in ROLES {
        let originals = meeting.originals(role);
        let [original] = originals.as_slice() else { panic!("{} originals of the {role}", originals.len()) };
        decodes(&original.path);
        let sent = meeting.record(role).sent(Kind::Picture);
        let missing = missing_frames_are_explained(original, &sent);
        (frames_sent, frames_missing) = (frames_sent + sent.len(), frames_missing + missing);
        let sent = meeting.record(role).sent(Kind::Voice);
        let missing = missing_voice_is_listed(original, &sent);
        (voice_sent, voice_missing) = (voice_sent + sent.len(), voice_missing + missing);
    }
    println!("{frames_missing} of {frames_sent} frames and {voice_missing} of {voice_sent} Opus packets are missing");
    assert!(frames_sent >= 3 * 20 * 23, "{frames_sent} frames sent");
    assert!(frames_missing * 1_000 <= frames_sent, "{frames_missing} of {frames_sent} frames are missing");
    assert!(voice_missing * 1_000 <= voice_sent, "{voice_missing} of {voice_sent} Opus packets are missing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_lost_reordered_and_repeated_leaves_gaps_but_no_lies() {
    let way = Way { lost: 0.3, doubled: 0.1, held_back: 0.2, longest_hold: Duration::from_millis(80) };
    let network = Network { seed: 30, good_for: Duration::from_secs(2), up: way, down: way };
    let habits = |role: &str| match role {
        "delegato" => Habits { network, ..Habits::default() },
        _ => Habits::default(),
    };
    let mut meeting = Meeting::is_live(Setup::default(), habits).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    meeting.ends().await;

    verifies(&meeting.folder());
    let originals = meeting.originals("delegato");
    let [original] = originals.as_slice() else { panic!("{} originals", originals.len()) };
    decodes(&original.path);
    let (frames, voice) =
        (meeting.record("delegato").sent(Kind::Picture), meeting.record("delegato").sent(Kind::Voice));
    let frames_missing = missing_frames_are_explained(original, &frames);
    let voice_missing = missing_voice_is_listed(original, &voice);
    let share = |missing: usize, sent: &[Sent]| 100.0 * missing as f64 / sent.len() as f64;
    // What is asked for is lost as often, and not asked for without end.
    assert!((0.1..20.0).contains(&share(voice_missing, &voice)), "{voice_missing} of {} are missing", voice.len());
    assert!(original.of(Kind::Picture).filter(|block| block.keyframe).count() >= 2, "the picture came back");

    let errors: Vec<f64> = [(Kind::Picture, &frames), (Kind::Voice, &voice)]
        .into_iter()
        .flat_map(|(kind, sent)| original.time_errors(kind, sent).into_iter().map(|(_, error)| error))
        .collect();
    let (least, most) =
        errors.iter().fold((f64::MAX, f64::MIN), |(low, high), error| (low.min(*error), high.max(*error)));
    println!(
        "{:.1} % of the frames and {:.1} % of the Opus packets are missing; times are off by {least:.1} to {most:.1} ms",
        share(frames_missing, &frames),
        share(voice_missing, &voice)
    );
    assert!(most - least <= 100.0, "voice and picture stand up to {:.1} ms apart", most - least);
}

/// Every Opus packet is in the file once, in order, or in a gap that is listed beside it; gives how many are missing.
/// What follows the last that came is a gap that nobody can know of.
fn missing_voice_is_listed(original: &Original, sent: &[Sent]) -> usize {
    let recorded = recorded_in_order(original, Kind::Voice);
    let last = *recorded.last().unwrap();
    let gaps = gaps(original, Kind::Voice);
    for sent in sent.iter().filter(|sent| sent.number <= last) {
        let (there, listed) = (recorded.contains(&sent.number), gaps.contains(&sent.sequence));
        assert!(there != listed, "{}: {sent:?} is in the file: {there}, in a gap: {listed}", original.path.display());
    }
    sent.len() - recorded.len()
}

/// Every frame is in the file once, in order, or one of its packets is in a gap that is listed beside it, or it can not
/// be decoded because of such a one before it. Gives how many are missing.
fn missing_frames_are_explained(original: &Original, sent: &[Sent]) -> usize {
    let recorded = recorded_in_order(original, Kind::Picture);
    let last = *recorded.last().unwrap();
    let gaps = gaps(original, Kind::Picture);
    let mut broken = false;
    for sent in sent.iter().filter(|sent| sent.number <= last) {
        let damaged = (0..sent.packets).any(|n| gaps.contains(&sent.sequence.wrapping_add(n)));
        if recorded.contains(&sent.number) {
            assert!(!damaged, "{}: {sent:?} lost a packet and is in the file", original.path.display());
            assert!(
                !broken || sent.keyframe,
                "{}: {sent:?} refers to a frame that is missing",
                original.path.display()
            );
            broken = false;
        } else {
            broken |= damaged;
            assert!(broken, "{}: {sent:?} is missing without a gap", original.path.display());
        }
    }
    for block in original.of(Kind::Picture) {
        assert_eq!(block.keyframe, block.decodes_alone, "a false keyframe: {block:?}");
    }
    sent.len() - recorded.len()
}

fn recorded_in_order(original: &Original, kind: Kind) -> BTreeSet<u64> {
    let numbers: Vec<_> = original.of(kind).map(|block| block.mark.number).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{}: {kind:?} out of order", original.path.display());
    let times: Vec<_> = original.of(kind).map(|block| block.at_ms).collect();
    assert!(times.is_sorted(), "{}: the time of {kind:?} runs back", original.path.display());
    numbers.into_iter().collect()
}

/// The sequence numbers, as they stand on the wire, that the side lines say never came.
fn gaps(original: &Original, kind: Kind) -> BTreeSet<u16> {
    let range = |line: &serde_json::Value| -> RangeInclusive<u64> {
        let (first, packets) = (line["first"].as_u64().unwrap(), line["packets"].as_u64().unwrap());
        first..=first + packets - 1
    };
    original.lines("gap", kind).flat_map(range).map(|sequence| (sequence & 0xffff) as u16).collect()
}
