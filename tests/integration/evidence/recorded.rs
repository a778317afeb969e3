//! Originals as an independent reader sees them: numbers, times and side lines, and what other programs say of them.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;

use loadtest::numbered::{Kind, Mark, Sent};
use serde_json::Value;

use crate::server::sportello;

/// One original and the lines beside it.
pub(super) struct Original {
    pub path: PathBuf,
    pub blocks: Vec<Block>,
    /// Every line of `<name>.rtcp.jsonl`.
    pub lines: Vec<Value>,
}

/// One block of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub kind: Kind,
    pub mark: Mark,
    /// In the file's time.
    pub at_ms: u64,
    pub keyframe: bool,
    /// Whether the frame's own first byte says so (RFC 6386 §9.1).
    pub decodes_alone: bool,
}

impl Original {
    pub(super) fn read(path: &Path) -> Self {
        let file = BufReader::new(std::fs::File::open(path).unwrap());
        let mut webm = matroska_demuxer::MatroskaFile::open(file).unwrap();
        let kinds: Vec<_> =
            webm.tracks().iter().map(|track| (track.track_number().get(), track.codec_id().to_owned())).collect();
        let (mut blocks, mut frame) = (Vec::new(), matroska_demuxer::Frame::default());
        while webm.next_frame(&mut frame).unwrap() {
            let (_, codec) = kinds.iter().find(|(number, _)| *number == frame.track).unwrap();
            let kind = if codec == "A_OPUS" { Kind::Voice } else { Kind::Picture };
            let mark =
                Mark::read(&frame.data).unwrap_or_else(|| panic!("{}: a block without its mark", path.display()));
            let decodes_alone = kind == Kind::Voice || frame.data[0] & 1 == 0;
            let keyframe = frame.is_keyframe.unwrap();
            blocks.push(Block { kind, mark, at_ms: frame.timestamp, keyframe, decodes_alone });
        }
        Self { path: path.to_owned(), blocks, lines: lines(&path.with_extension("rtcp.jsonl")) }
    }

    /// The blocks of one kind.
    pub(super) fn of(&self, kind: Kind) -> impl DoubleEndedIterator<Item = &Block> {
        self.blocks.iter().filter(move |block| block.kind == kind)
    }

    /// The side lines of this type about this kind of source.
    pub(super) fn lines(&self, line: &str, kind: Kind) -> impl Iterator<Item = &Value> {
        let source = match kind {
            Kind::Voice => "microphone",
            Kind::Picture => "camera",
        };
        self.lines.iter().filter(move |told| told["type"] == line && told["source"] == source)
    }

    /// How far each block's time is from that which the sender's reports give it, milliseconds, by number.
    ///
    /// A report says which RTP time was which on the sender's clock (RFC 3550 §6.4.1); its arrival says which on the
    /// server's, but for the time it travelled: the quickest one of all is believed.
    pub(super) fn time_errors(&self, kind: Kind, sent: &[Sent]) -> Vec<(u64, f64)> {
        let rate = match kind {
            Kind::Voice => 48_000.0,
            Kind::Picture => 90_000.0,
        };
        let zero_ns = self.lines[0]["zero_ns"].as_u64().unwrap();
        let all = [Kind::Voice, Kind::Picture].into_iter().flat_map(|kind| self.lines("report", kind));
        let travel = |report: &Value| signed(report, "arrival_ns") - ntp_nanos(report);
        let quickest = all.map(travel).min().unwrap_or_else(|| panic!("{}: no sender report", self.path.display()));
        self.of(kind)
            .map(|block| {
                let sent = sent.iter().find(|sent| sent.number == block.mark.number).unwrap();
                let report = self.lines("report", kind).filter(|report| report["ssrc"] == sent.ssrc).last();
                let report = report.unwrap_or_else(|| panic!("no report of the stream of {sent:?}"));
                let ticks =
                    sent.rtp.wrapping_sub(u32::try_from(report["rtp"].as_u64().unwrap()).unwrap()).cast_signed();
                let captured_ns = ntp_nanos(report) + (f64::from(ticks) * 1e9 / rate) as i64;
                let expected_ms = (captured_ns + quickest - i64::try_from(zero_ns).unwrap()) as f64 / 1e6;
                (block.mark.number, block.at_ms as f64 - expected_ms)
            })
            .collect()
    }
}

fn signed(line: &Value, key: &str) -> i64 {
    i64::try_from(line[key].as_u64().unwrap()).unwrap()
}

fn ntp_nanos(report: &Value) -> i64 {
    signed(report, "ntp_seconds") * 1_000_000_000 + ((signed(report, "ntp_fraction") * 1_000_000_000) >> 32)
}

/// How late a stream's first packet was sent, milliseconds. Until a report comes the server has only its arrival to go
/// by; on a busy machine a test's own people are late.
pub(super) fn first_lateness_ms(sent: &[Sent]) -> f64 {
    sent.first().map_or(0.0, |first| first.sent.saturating_duration_since(first.captured).as_secs_f64() * 1e3)
}

/// The lines of a side file; each is whole.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Has `ffmpeg` decode everything in a file, and wants no word of complaint.
pub(super) fn decodes(path: &Path) {
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-threads", "1", "-i"])
        .arg(path)
        .args(["-map", "0", "-f", "null", "-"])
        .output()
        .expect("ffmpeg is needed for this test");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.is_empty(), "{}: {words}", path.display());
}

/// Runs `sportello verify`; gives its exit code and everything that it said.
pub(super) fn verify(path: &Path) -> (i32, String) {
    let output = sportello().arg("verify").arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code().unwrap(), said)
}

/// Has `sportello verify` find everything whole.
pub(super) fn verifies(path: &Path) {
    let (code, said) = verify(path);
    assert_eq!(code, 0, "{}: {said}", path.display());
}
