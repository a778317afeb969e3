//! Pictures without a keyframe: asked for, and told of when none comes.

use std::time::Duration;

use super::synthetic::{Booth, SILENCE, Sender, blocks, both, fake_frame, picture, speech};
use crate::clock::MonoTime;
use crate::media::Source;
use crate::recording::Fact;
use crate::rtp::Packet;

const START: MonoTime = MonoTime::from_millis(2_000);

/// What was told, with the time at which it was heard.
fn play(
    booth: &mut Booth,
    connection: crate::id::ConnectionId,
    packets: Vec<(Source, Packet)>,
) -> Vec<(MonoTime, Fact)> {
    let mut told = Vec::new();
    let mut packets = packets;
    packets.sort_by_key(|(_, packet)| packet.arrival);
    for packet in packets {
        booth.play(connection, vec![packet]);
        while let Ok(fact) = booth.facts.try_recv() {
            told.push((booth.at, fact));
        }
    }
    told
}

fn times(told: &[(MonoTime, Fact)], fits: impl Fn(&Fact) -> bool) -> Vec<MonoTime> {
    told.iter().filter(|(_, fact)| fits(fact)).map(|(at, _)| *at).collect()
}

fn wanted(fact: &Fact) -> bool {
    matches!(fact, Fact::KeyframeWanted { source: Source::Camera, .. })
}

#[test]
fn without_any_keyframe_the_voice_is_recorded_and_the_keyframe_asked_for_again_and_again() {
    let mut booth = Booth::new();
    let connection = booth.connect("delegato");
    let mut camera = Sender::new(Source::Camera);
    let mut packets = speech(&mut Sender::new(Source::Microphone), START, 400);
    for n in 0..200 {
        let frame = fake_frame(n, false, 2_000);
        let at = START + Duration::from_millis(u64::from(n) * 40);
        let sent = camera.video(at, &frame, Duration::from_millis(40));
        packets.extend(sent.into_iter().map(|packet| (Source::Camera, packet)));
    }
    let told = play(&mut booth, connection, packets);
    let asked = times(&told, wanted);
    assert!((7..=8).contains(&asked.len()), "in eight seconds: {asked:?}");
    assert!(asked[0].since(START) < Duration::from_millis(500), "the first one soon");
    assert!(asked.windows(2).all(|pair| pair[1].since(pair[0]) >= Duration::from_secs(1)), "{asked:?}");
    let missing = times(&told, |fact| matches!(fact, Fact::PictureMissing { source: Source::Camera, .. }));
    assert_eq!(missing.len(), 1, "told once");
    assert!(missing[0].since(START) < Duration::from_secs(4), "in time for the operator to know within 5 s");
    assert!(
        booth.at.since(booth.tap.durable_until().unwrap()) < Duration::from_millis(1_500),
        "and all is acknowledged"
    );

    // At last one comes.
    let from = booth.at + Duration::from_millis(40);
    let told = play(&mut booth, connection, picture(&mut camera, from, 10, false));
    assert_eq!(times(&told, |fact| matches!(fact, Fact::PictureBack { .. })).len(), 1);
    assert_eq!(times(&told, wanted).len(), 0);
    let original = booth.close().remove(0);
    assert_eq!(original.sources, [Source::Microphone, Source::Camera]);
    let blocks = blocks(&booth.path(&original.file));
    let (voice, picture): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.3 == SILENCE);
    assert_eq!((voice.len(), picture.len()), (400, 10));
    assert!(picture[0].2, "the picture begins with its keyframe");
}

#[test]
fn a_whole_picture_is_never_asked_for_a_keyframe() {
    let mut booth = Booth::new();
    let connection = booth.connect("delegato");
    let told = play(&mut booth, connection, both(START, 6, false));
    assert_eq!(times(&told, wanted), []);
}

#[test]
fn a_damaged_frame_asks_for_a_keyframe_until_one_comes() {
    let mut booth = Booth::new();
    let connection = booth.connect("delegato");
    let mut camera = Sender::new(Source::Camera);
    let mut packets = picture(&mut camera, START, 26, false);
    // The second packet of the sixth frame never comes; no keyframe for almost a second.
    packets.remove(5 * 3 + 1);
    let told = play(&mut booth, connection, packets);
    let asked = times(&told, wanted);
    assert_eq!(asked.len(), 1, "{told:?}");
    assert!(asked[0].since(START) < Duration::from_secs(1), "{asked:?}");
    assert_eq!(times(&told, |fact| matches!(fact, Fact::PictureMissing { .. })), []);
}

#[test]
fn a_camera_that_is_switched_off_meanwhile_is_not_missed() {
    let mut booth = Booth::new();
    let connection = booth.connect("delegato");
    let mut camera = Sender::new(Source::Camera);
    let lonely = camera.video(START, &fake_frame(1, false, 500), Duration::from_millis(40));
    let mut packets: Vec<_> = lonely.into_iter().map(|packet| (Source::Camera, packet)).collect();
    packets.extend(speech(&mut Sender::new(Source::Microphone), START, 300));
    let told = play(&mut booth, connection, packets);
    assert_eq!(times(&told, wanted).len(), 1);
    assert_eq!(times(&told, |fact| matches!(fact, Fact::PictureMissing { .. })), []);
}
