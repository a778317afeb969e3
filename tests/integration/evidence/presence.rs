//! A delegation rests on everyone having been seen and heard: who stops the camera, or leaves, ends that.

use std::time::Duration;

use loadtest::client::{Devices, Habits};

use super::meeting::{Meeting, Setup};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_the_camera_or_leaves_closes_the_interval_and_nothing_can_be_granted() {
    let mut meeting = Meeting::is_live(Setup { grace: 2, ..Setup::default() }, |_| Habits::default()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;

    meeting.device("delegante").switch(Devices::CAMERA_OFF);
    meeting.becomes("suspended").await;
    meeting.may_not_be_concluded("granted", "presence-missing").await;
    let broken = meeting.told("presence_broken").await;
    assert_eq!(broken.len(), 1, "{broken:?}");
    assert_eq!(broken[0]["missing"], serde_json::json!(["delegante"]));

    // Back again she has not been there for long enough, until she has.
    meeting.device("delegante").switch(Devices::ON);
    meeting.becomes("live").await;
    meeting.leaves("delegato").await;
    meeting.becomes("suspended").await;
    meeting.may_not_be_concluded("granted", "presence-missing").await;
    let broken = meeting.told("presence_broken").await;
    assert_eq!(broken.len(), 2, "{broken:?}");
    assert_eq!(broken[1]["missing"], serde_json::json!(["delegato"]));
    // What each interval was is measured on the clock that cannot be set, and ends when she was last seen.
    assert!(broken.iter().all(|event| (1_900..6_000).contains(&event["ago_ms"].as_u64().unwrap())), "{broken:?}");

    meeting.connects("delegato").await;
    meeting.becomes("live").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    meeting.is_concluded("granted").await;
    meeting.becomes("closed").await;
}
