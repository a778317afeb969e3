//! A camera whose picture nobody can begin with: it is asked for a keyframe, the voice is recorded, the operator is told.

use std::time::{Duration, Instant};

use loadtest::client::Habits;
use loadtest::numbered::Kind;
use serde_json::{Value, json};

use super::meeting::{Meeting, Setup};
use super::recorded::{decodes, verifies};

/// How soon the operator must know.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_camera_that_never_sends_a_keyframe_is_told_to_the_operator_within_five_seconds() {
    let mut meeting = Meeting::opens(Setup::default()).await;
    meeting.connects("operator").await;
    meeting.connects("delegato").await;
    meeting.connects_with("delegante", Habits { never_a_keyframe: true, ..Habits::default() }).await;
    let began = Instant::now();
    let not_recorded = |view: &Value| {
        let people = view["participants"].as_array().unwrap().clone();
        people.into_iter().find(|person| person["role"] == "delegante").unwrap()["not_recorded"].clone()
    };
    while not_recorded(&meeting.seen_by("operator").await) != json!(["camera"]) {
        assert!(began.elapsed() < TOLD_WITHIN, "{}", meeting.seen_by("operator").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("the operator was told after {:?}", began.elapsed());
    let told = meeting.told("picture_missing").await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["source"], "camera");
    meeting.may_not_be_concluded("granted", "recording-incomplete").await;

    // Asked again and again, at most once a second or so, not at every frame.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let asked = meeting.leaves("delegante").await.keyframe_requests;
    assert!((3..=30).contains(&asked), "asked {asked} times in {:?}", began.elapsed());
    meeting.ends().await;

    verifies(&meeting.folder());
    let originals = meeting.originals("delegante");
    let [original] = originals.as_slice() else { panic!("{} originals", originals.len()) };
    decodes(&original.path);
    assert_eq!(original.of(Kind::Picture).count(), 0, "nothing of it can be decoded");
    let voice: Vec<_> = original.of(Kind::Voice).map(|block| block.mark.number).collect();
    let sent: Vec<_> = meeting.record("delegante").sent(Kind::Voice).iter().map(|sent| sent.number).collect();
    assert_eq!(voice, sent);
}
