//! The whole recorder with its threads, on real time.

use std::time::Duration;

use super::synthetic::{Sender, Studio, decode, fake_frame, probe, real_frames};
use crate::media::{RecordingFault, Source};
use crate::recording::{Fact, verify};
use crate::rtp::Tapped;

#[test]
fn three_people_are_recorded_while_they_speak() {
    let mut studio = Studio::new();
    let people = ["operatore", "delegato", "delegante"].map(|label| {
        let senders = (Sender::new(Source::Microphone), Sender::new(Source::Camera));
        (studio.connect(label), senders)
    });
    // Made before the clock of the call starts: the first use takes ffmpeg's time.
    let frames = real_frames();
    let begin = studio.clock.mono();
    let mut people = people;
    for n in 0..100_u64 {
        let due = begin + Duration::from_millis(n * 20);
        std::thread::sleep(due.since(studio.clock.mono()));
        for (connection, (microphone, camera)) in &mut people {
            let now = studio.clock.mono();
            studio.push(*connection, Source::Microphone, microphone.audio(now, &super::synthetic::SILENCE));
            if n % 2 == 0 {
                let frame = &frames[usize::try_from(n / 2).unwrap()];
                for packet in camera.video(now, frame, Duration::from_millis(40)) {
                    studio.push(*connection, Source::Camera, packet);
                }
            }
        }
    }
    // A voice and a picture each.
    for _ in 0..2 * people.len() {
        assert!(matches!(studio.fact(), Fact::Started { .. }));
    }
    let at = studio.clock.mono();
    studio.tap.as_ref().unwrap().push(Tapped::End { connection: people[0].0, at }).unwrap();
    drop(studio.tap.take());
    let mut files = Vec::new();
    for _ in &people {
        let Fact::Finished { original, .. } = studio.fact() else { panic!("not finished") };
        assert!(original.duration_ms.abs_diff(2_000) <= 60, "{}", original.duration_ms);
        files.push(original.file);
    }
    assert_eq!(studio.fact(), Fact::Closed);
    files.sort();
    assert_eq!(files, ["delegante-1.webm", "delegato-1.webm", "operatore-1.webm"]);
    for file in files {
        let path = studio.path(&file);
        decode(&path);
        assert_eq!(probe(&path).iter().map(|stream| stream.3).collect::<Vec<_>>(), [50, 100]);
    }
    assert_eq!(verify(&studio.path(""), |_, _| {}).unwrap().files.len(), 3);
}

#[test]
fn a_file_in_place_of_the_folder_is_told_and_no_media_may_flow() {
    let place = tempfile::NamedTempFile::new().unwrap();
    let mut studio = Studio::on(Some(place.path().to_owned()));
    assert_eq!(studio.fact(), Fact::Lost { fault: RecordingFault::NotWritable });
    let tap = studio.tap.as_ref().unwrap();
    assert_eq!(tap.durable_until(), None);
    // The tap is emptied nonetheless: twice its capacity goes through.
    let connection = studio.connect("delegato");
    let mut camera = Sender::new(Source::Camera);
    for n in 0..crate::rtp::TAP_ITEMS * 2 {
        let now = studio.clock.mono();
        let packet = camera.video(now, &fake_frame(0, true, 100), Duration::from_millis(1)).remove(0);
        while studio
            .tap
            .as_ref()
            .unwrap()
            .push(Tapped::Packet { connection, source: Source::Camera, packet: packet.clone() })
            .is_err()
        {
            assert!(n > 1_000);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    studio.recorder.close_room(studio.room);
    assert_eq!(studio.fact(), Fact::Closed);
}

#[test]
fn a_room_in_which_nobody_speaks_is_acknowledged_and_closed() {
    let mut studio = Studio::new();
    std::thread::sleep(Duration::from_millis(1_200));
    let tap = studio.tap.as_ref().unwrap();
    assert!(tap.is_durable(studio.clock.mono(), Duration::from_millis(500)));
    studio.recorder.close_room(studio.room);
    assert_eq!(studio.fact(), Fact::Closed);
    let connection = studio.connect("delegato");
    let packet = Sender::new(Source::Microphone).audio(studio.clock.mono(), &super::synthetic::SILENCE);
    studio.push(connection, Source::Microphone, packet);
}

#[test]
fn names_that_are_taken_are_never_written_over() {
    let mut studio = Studio::new();
    for _ in 0..100 {
        if studio.tap.as_ref().unwrap().durable_until().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::write(studio.path("delegato-1.webm"), "from before the restart").unwrap();
    let connection = studio.connect("Delegato");
    let mut camera = Sender::new(Source::Camera);
    for packet in camera.video(studio.clock.mono(), &real_frames()[0], Duration::from_millis(40)) {
        studio.push(connection, Source::Camera, packet);
    }
    drop(studio.tap.take());
    assert!(matches!(studio.fact(), Fact::Started { .. }));
    let Fact::Finished { original, .. } = studio.fact() else { panic!("not finished") };
    assert_eq!((original.file.as_str(), original.clusters), ("delegato-2.webm", 1));
    assert_eq!(std::fs::read(studio.path("delegato-1.webm")).unwrap(), b"from before the restart");
}
