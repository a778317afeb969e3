//! Made-up senders: Opus silence and VP8 (real frames from `ffmpeg`, or frames that only look like some), as RTP.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use crate::clock::{Clock, MonoTime, Now};
use crate::id::{ConnectionId, RoomId};
use crate::media::Source;
use crate::recording::file::{Append, Disk, LocalDisk};
use crate::recording::room::{Opening, RoomRecording};
use crate::recording::{Fact, Original, Recorder, RecorderConfig, SpaceConfig};
use crate::rtp::{Codec, Extensions, Packet, SenderReport, Ssrc, Tap, Tapped, tap};
use crate::vault::SessionKey;

/// 20 ms of Opus silence, stereo, fullband.
pub(crate) const SILENCE: [u8; 3] = [0xfc, 0xff, 0xfe];

/// Frames of a moving picture at 25 frames per second, 320×240, with a keyframe every second.
pub(crate) fn real_frames() -> &'static [Vec<u8>] {
    static FRAMES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    FRAMES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("frames.ivf");
        let status = Command::new("ffmpeg")
            .args(["-v", "error", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=25", "-t", "6"])
            .args(["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "25", "-auto-alt-ref", "0"])
            .args(["-b:v", "600k"])
            .arg(&path)
            .status()
            .expect("ffmpeg is needed for this test");
        assert!(status.success());
        let bytes = std::fs::read(&path).unwrap();
        let (mut at, mut frames) = (32, Vec::new());
        while at + 12 <= bytes.len() {
            let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            frames.push(bytes[at + 12..at + 12 + length].to_vec());
            at += 12 + length;
        }
        assert!(frames.len() >= 148);
        frames
    })
}

/// A frame that looks like VP8 from outside, of `length` bytes, with a number in it.
pub(crate) fn fake_frame(number: u32, keyframe: bool, length: usize) -> Vec<u8> {
    let mut frame = vec![if keyframe { 0x50 } else { 0x51 }, 1, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0x00];
    frame.extend(number.to_be_bytes());
    frame.resize(length.max(14), 0x55);
    frame
}

/// A sender of one source: counts sequence numbers, timestamps and picture ids.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    pub(crate) source: Source,
    pub(crate) ssrc: Ssrc,
    pub(crate) sequence: u64,
    pub(crate) timestamp: u64,
    pub(crate) picture: u16,
}

impl Sender {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, ssrc: Ssrc(1_000 + source as u32), sequence: 100, timestamp: 5_000, picture: 77 }
    }

    fn packet(&mut self, codec: Codec, marker: bool, arrival: MonoTime, payload: Vec<u8>) -> Packet {
        self.sequence += 1;
        Packet {
            ssrc: self.ssrc,
            codec,
            sequence: self.sequence - 1,
            timestamp: self.timestamp,
            marker,
            arrival,
            extensions: Extensions::default(),
            payload: Bytes::from(payload),
        }
    }

    /// One Opus packet; the next one is 20 ms later.
    pub(crate) fn audio(&mut self, arrival: MonoTime, payload: &[u8]) -> Packet {
        let packet = self.packet(Codec::Opus, false, arrival, payload.to_vec());
        self.timestamp += 960;
        packet
    }

    /// One frame in packets of at most 1,100 bytes; the next one is `step` later.
    pub(crate) fn video(&mut self, arrival: MonoTime, frame: &[u8], step: Duration) -> Vec<Packet> {
        let chunks: Vec<&[u8]> = frame.chunks(1_100).collect();
        self.picture = (self.picture + 1) & 0x7fff;
        let [high, low] = (self.picture | 0x8000).to_be_bytes();
        let packets = chunks
            .iter()
            .enumerate()
            .map(|(n, chunk)| {
                let mut payload = vec![if n == 0 { 0x90 } else { 0x80 }, 0x80, high, low];
                payload.extend_from_slice(chunk);
                self.packet(Codec::Vp8, n + 1 == chunks.len(), arrival, payload)
            })
            .collect();
        self.timestamp += u64::try_from(step.as_micros()).unwrap() * 9 / 100;
        packets
    }

    /// A report that says where the stream is now.
    pub(crate) fn report(&self, sender_time: Duration, arrival: MonoTime) -> SenderReport {
        let fraction = (u64::from(sender_time.subsec_nanos()) << 32) / 1_000_000_000;
        let ntp = ((3_976_000_000 + sender_time.as_secs()) << 32) | fraction;
        SenderReport { ssrc: self.ssrc, ntp, rtp_timestamp: (self.timestamp & 0xffff_ffff) as u32, arrival }
    }
}

/// A recorder on a folder of its own, with one room.
pub(crate) struct Studio {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) recorder: Recorder,
    pub(crate) room: RoomId,
    pub(crate) tap: Option<Tap>,
    pub(crate) facts: mpsc::Receiver<Fact>,
    pub(crate) clock: Clock,
}

impl Studio {
    pub(crate) fn new() -> Self {
        Self::on(None)
    }

    pub(crate) fn on(recordings: Option<PathBuf>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::new();
        let recordings = recordings.unwrap_or_else(|| folder.path().join("recordings"));
        let space = SpaceConfig { bytes_per_second: 1_000, floor: 0 };
        let config = RecorderConfig { folders: vec![recordings], threads: 1, space };
        let recorder = Recorder::start(config, clock).unwrap();
        let room = RoomId::new(clock.now().wall);
        let (tap, reader) = tap();
        let (sender, facts) = mpsc::channel(64);
        recorder.open_room(room, None, reader, sender);
        Self { folder, recorder, room, tap: Some(tap), facts, clock }
    }

    pub(crate) fn connect(&self, label: &str) -> ConnectionId {
        let connection = ConnectionId::new(self.clock.now().wall);
        self.recorder.open_original(self.room, connection, label.to_owned());
        connection
    }

    pub(crate) fn push(&self, connection: ConnectionId, source: Source, packet: Packet) {
        self.tap.as_ref().unwrap().push(Tapped::Packet { connection, source, packet }).unwrap();
    }

    /// Waits for the next fact past that it is ready, for at most 5 s.
    pub(crate) fn fact(&mut self) -> Fact {
        for _ in 0..500 {
            if let Ok(fact) = self.facts.try_recv()
                && !matches!(fact, Fact::Ready | Fact::Head { .. })
            {
                return fact;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no fact within 5 s");
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join("recordings").join(self.room.to_string()).join(file)
    }
}

/// Everything in a file: (track, time in ms, keyframe, data).
pub(crate) fn blocks(path: &Path) -> Vec<(u64, u64, bool, Vec<u8>)> {
    let file = std::fs::File::open(path).unwrap();
    let mut demuxer = matroska_demuxer::MatroskaFile::open(io::BufReader::new(file)).unwrap();
    let (mut blocks, mut frame) = (Vec::new(), matroska_demuxer::Frame::default());
    while demuxer.next_frame(&mut frame).unwrap() {
        blocks.push((frame.track, frame.timestamp, frame.is_keyframe.unwrap(), frame.data.clone()));
    }
    blocks
}

/// Decodes everything, and wants no word of complaint.
pub(crate) fn decode(path: &Path) {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        .args(["-map", "0", "-f", "null", "-"])
        .output()
        .expect("ffmpeg is needed for this test");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.is_empty(), "{}: {words}", path.display());
}

/// What `ffprobe` says of the streams: (codec, first timestamp, last timestamp, number of packets).
pub(crate) fn probe(path: &Path) -> Vec<(String, f64, f64, usize)> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-show_streams", "-show_packets", "-of", "json"])
        .arg(path)
        .output()
        .expect("ffprobe is needed for this test");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let streams = value["streams"].as_array().unwrap();
    streams
        .iter()
        .map(|stream| {
            let times: Vec<f64> = value["packets"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|packet| packet["stream_index"] == stream["index"])
                .map(|packet| packet["pts_time"].as_str().unwrap().parse().unwrap())
                .collect();
            let name = stream["codec_name"].as_str().unwrap().to_owned();
            (name, *times.first().unwrap_or(&0.0), *times.last().unwrap_or(&0.0), times.len())
        })
        .collect()
}

/// The local disk without its syncs, for calls longer than a test may take.
#[derive(Debug)]
pub(crate) struct HastyDisk;

#[derive(Debug)]
struct HastyFile(Box<dyn Append>);

impl Disk for HastyDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        LocalDisk.make_folder(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Append>> {
        Ok(Box::new(HastyFile(LocalDisk.create(path)?)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl Append for HastyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }

    fn retract(&mut self) {
        self.0.retract();
    }

    fn start_writeback(&mut self) {
        self.0.start_writeback();
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One room on virtual time: arrivals and ticks come as fast as the machine can.
pub(crate) struct Booth {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) room: RoomRecording,
    pub(crate) tap: Tap,
    pub(crate) facts: mpsc::Receiver<Fact>,
    pub(crate) at: MonoTime,
    /// How far the wall clock is set off.
    pub(crate) wall_off: SignedDuration,
    id: RoomId,
    disk: Arc<dyn Disk>,
    key: Option<Arc<SessionKey>>,
    clock: Clock,
    begun: Timestamp,
}

/// Where a room is recorded, and how.
struct Place {
    folder: tempfile::TempDir,
    id: RoomId,
    disk: Arc<dyn Disk>,
    key: Option<Arc<SessionKey>>,
}

impl Booth {
    pub(crate) fn new() -> Self {
        Self::on(Arc::new(LocalDisk), 64)
    }

    pub(crate) fn on(disk: Arc<dyn Disk>, facts: usize) -> Self {
        Self::with(disk, facts, None)
    }

    /// The same room, recorded under a key.
    pub(crate) fn encrypted(key: &SessionKey) -> Self {
        Self::with(Arc::new(LocalDisk), 64, Some(Arc::new(key.clone())))
    }

    fn with(disk: Arc<dyn Disk>, facts: usize, key: Option<Arc<SessionKey>>) -> Self {
        let id = RoomId::new(Clock::new().now().wall);
        let at = MonoTime::from_millis(1_000);
        Self::open(Place { folder: tempfile::tempdir().unwrap(), id, disk, key }, facts, at)
    }

    fn open(place: Place, facts: usize, at: MonoTime) -> Self {
        let clock = Clock::new();
        let (tap, reader) = tap();
        let (sender, facts) = mpsc::channel(facts);
        let Place { folder, id, disk, key } = place;
        let path = folder.path().join(id.to_string());
        let opening = Opening {
            room: id,
            folder: path,
            disk: Arc::clone(&disk),
            space: None,
            key: key.clone(),
            tap: reader,
            facts: sender,
        };
        let room = RoomRecording::open(opening, at);
        let (begun, wall_off) = (clock.now().wall, SignedDuration::ZERO);
        Self { folder, room, tap, facts, at, wall_off, id, disk, key, clock, begun }
    }

    /// The process dies; what it wrote stays. Another one opens the room again in the same folder.
    pub(crate) fn die(self) -> Self {
        let Self { folder, at, id, disk, key, .. } = self;
        Self::open(Place { folder, id, disk, key }, 64, at)
    }

    pub(crate) fn connect(&mut self, label: &str) -> ConnectionId {
        let connection = ConnectionId::new(self.clock.now().wall);
        self.room.announce(connection, label);
        connection
    }

    /// Lets time pass, with a tick every 50 ms.
    pub(crate) fn pass_to(&mut self, until: MonoTime) {
        while self.at + Duration::from_millis(50) <= until {
            self.at = self.at + Duration::from_millis(50);
            if !self.room.acknowledge_rest(self.at) {
                self.room.take(self.now(), &self.clock);
                self.room.settle(&self.clock);
            }
        }
    }

    /// Hands packets over in the order of their arrival.
    pub(crate) fn play(&mut self, connection: ConnectionId, mut packets: Vec<(Source, Packet)>) {
        packets.sort_by_key(|(_, packet)| packet.arrival);
        for (source, packet) in packets {
            self.pass_to(packet.arrival);
            self.tap.push(Tapped::Packet { connection, source, packet }).unwrap();
        }
    }

    /// Finishes everything, and gives the originals by name.
    pub(crate) fn close(&mut self) -> Vec<Original> {
        self.pass_to(self.at + Duration::from_millis(50));
        self.room.close(self.now(), &self.clock);
        let mut originals = Vec::new();
        while let Ok(fact) = self.facts.try_recv() {
            if let Fact::Finished { original, .. } = fact {
                originals.push(original);
            }
        }
        originals.sort_by(|a, b| a.file.cmp(&b.file));
        originals
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(self.id.to_string()).join(file)
    }

    fn now(&self) -> Now {
        // On virtual time both clocks go at one pace, whatever the machine's do.
        let since = SignedDuration::from_nanos(i64::try_from(self.at.as_nanos()).unwrap());
        Now { mono: self.at, wall: self.begun + since + self.wall_off }
    }
}

/// Microphone and camera of one person for `seconds` from `from`: real pictures or numbered fakes, no loss, no jitter.
pub(crate) fn both(from: MonoTime, seconds: u64, real: bool) -> Vec<(Source, Packet)> {
    let (mut microphone, mut camera) = (Sender::new(Source::Microphone), Sender::new(Source::Camera));
    let mut packets = speech(&mut microphone, from, seconds * 50);
    packets.extend(picture(&mut camera, from, seconds * 25, real));
    packets
}

/// So many packets of silence.
pub(crate) fn speech(microphone: &mut Sender, from: MonoTime, count: u64) -> Vec<(Source, Packet)> {
    let packet = |n| (microphone.source, microphone.audio(from + Duration::from_millis(n * 20), &SILENCE));
    (0..count).map(packet).collect()
}

/// So many frames at 25 per second, a keyframe every second.
pub(crate) fn picture(camera: &mut Sender, from: MonoTime, count: u64, real: bool) -> Vec<(Source, Packet)> {
    let mut packets = Vec::new();
    for n in 0..count {
        let fake = fake_frame(u32::try_from(n).unwrap(), n % 25 == 0, 3_000);
        let frame = if real { real_frames()[usize::try_from(n).unwrap() % 125].clone() } else { fake };
        let sent = camera.video(from + Duration::from_millis(n * 40), &frame, Duration::from_millis(40));
        packets.extend(sent.into_iter().map(|packet| (camera.source, packet)));
    }
    packets
}
