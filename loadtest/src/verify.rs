//! After a run: waits for the sealed packages, reads their recordings over the API, and looks for everything that was sent.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::api::{Access, Api, ApiError, Original};
use crate::live::Meters;
use crate::numbered::{Kind, Mark};
use crate::recorded::{self, Block, Gaps, Verdict, judge};
use crate::room::Evidence;
use crate::timing::{Figures, Times};

/// How long something is looked for that should be there soon.
const GLANCE: Duration = Duration::from_millis(500);
/// Why the tool looks, in the server's audit.
const REASON: &str = "Load test: numbered frames are looked for";

/// What the recordings hold.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VerifyReport {
    /// Rooms whose sealed packages were read.
    pub rooms: usize,
    /// From a room's conclusion until its package was there; seen twice a second.
    pub sealing: Figures,
    /// Packets of voice in the originals.
    pub voice: Verdict,
    /// Frames of pictures in the originals.
    pub pictures: Verdict,
    /// Blocks of originals that nobody of their room sent.
    pub strange: u64,
    /// Frames of pictures that the originals have.
    pub copied_expected: u64,
    /// Of these, in the session copy as they were sent.
    pub copied: u64,
    /// What is wrong, in words.
    pub faults: Vec<String>,
}

/// What one room's recording holds.
#[derive(Default)]
struct RoomFound {
    people: Vec<(&'static str, Kind, Verdict)>,
    strange: u64,
    copied_expected: u64,
    copied: u64,
}

/// Why a recording could not be read.
#[derive(Debug, thiserror::Error)]
enum VerifyError {
    #[error("{0}")]
    Api(#[from] ApiError),
    #[error("not sealed within {0:?}")]
    NotSealed(Duration),
    #[error("its originals are not listed as JSON: {0}")]
    List(#[from] serde_json::Error),
    #[error("{file}: {error}")]
    File { file: String, error: String },
}

/// Whose recordings are read, and how.
pub(crate) struct Verifier<'a> {
    pub(crate) api: &'a Api,
    /// API key with the scope `compliance`.
    pub(crate) key: &'a str,
    /// How long a package is waited for, from its room's conclusion.
    pub(crate) patience: Duration,
    pub(crate) meters: &'a Meters,
}

impl Verifier<'_> {
    /// Reads one room after the other: memory holds one file at a time, and the server has other work.
    pub(crate) async fn verify(&self, rooms: Vec<Evidence>) -> VerifyReport {
        let (mut report, mut sealing) = (VerifyReport::default(), Times::default());
        self.meters.begin("verifying", u64::try_from(rooms.len()).unwrap_or(u64::MAX));
        for evidence in rooms {
            match self.read(&evidence, &mut sealing).await {
                Ok(found) => report.add(evidence.number, &found),
                Err(error) => report.faults.push(format!("room {}: {error}", evidence.number)),
            }
            self.meters.advance();
        }
        report.sealing = sealing.figures();
        report
    }

    async fn read(&self, evidence: &Evidence, sealing: &mut Times) -> Result<RoomFound, VerifyError> {
        let Self { api, key, .. } = self;
        let room = evidence.room.as_str();
        let access = api.open_access(key, room, REASON).await?;
        self.sealed(evidence, &access).await?;
        sealing.add(evidence.concluded.elapsed());
        let listed: Vec<Original> =
            serde_json::from_slice(&api.read_recording(key, room, &access, "originals").await?)?;
        let (mut blocks, mut gaps) = (Vec::new(), Gaps::default());
        for Original { file } in listed {
            let path = format!("originals/{file}");
            if Path::new(&file).extension().is_some_and(|extension| extension == "webm") {
                blocks.extend(self.blocks(room, &access, path).await?);
            } else if file.ends_with(".rtcp.jsonl") {
                gaps.read(&String::from_utf8_lossy(&api.read_recording(key, room, &access, &path).await?));
            }
        }
        let copy = self.blocks(room, &access, "session.webm".to_owned()).await?;
        Ok(compare(evidence, &blocks, &gaps, &copy))
    }

    /// Waits until the package is there.
    async fn sealed(&self, evidence: &Evidence, access: &Access) -> Result<(), VerifyError> {
        // Rooms wait for each other here, and each still gets a look.
        let deadline = evidence.concluded + self.patience;
        loop {
            match self.api.read_recording(self.key, &evidence.room, access, "manifest").await {
                Ok(_) => return Ok(()),
                Err(ApiError::Refused { status: 409 | 503, .. }) if Instant::now() < deadline => {}
                Err(ApiError::Refused { status: 409, .. }) => return Err(VerifyError::NotSealed(self.patience)),
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    async fn blocks(&self, room: &str, access: &Access, file: String) -> Result<Vec<Block>, VerifyError> {
        let webm = self.api.read_recording(self.key, room, access, &file).await?;
        // Apart from the tasks that wait: a long file takes its time. A reader that panics says so as an error here.
        let read = tokio::task::spawn_blocking(move || recorded::blocks(webm)).await;
        let read = read.map_err(|error| error.to_string()).and_then(|read| read.map_err(|error| error.to_string()));
        read.map_err(|error| VerifyError::File { file, error })
    }
}

fn compare(evidence: &Evidence, originals: &[Block], gaps: &Gaps, copy: &[Block]) -> RoomFound {
    let mut found = RoomFound::default();
    let mut by_sender: HashMap<(u32, Kind), HashMap<u64, Vec<u64>>> = HashMap::new();
    for &Block { kind, mark, digest } in originals {
        match mark {
            Some(Mark { sender, number }) => {
                by_sender.entry((sender, kind)).or_default().entry(number).or_default().push(digest);
            }
            None => found.strange += 1,
        }
    }
    let copied: BTreeSet<(Mark, u64)> = copy
        .iter()
        .filter(|block| block.kind == Kind::Picture)
        .filter_map(|block| Some((block.mark?, block.digest)))
        .collect();
    for sender in &evidence.senders {
        for kind in [Kind::Voice, Kind::Picture] {
            let name = sender.record.sender();
            let sent = sender.record.sent(kind);
            let mut blocks = by_sender.remove(&(name, kind)).unwrap_or_default();
            let judged = judge(&sent, &blocks, gaps, &sender.unsure);
            found.people.push((sender.role, kind, judged));
            if kind == Kind::Picture {
                for sent in sent.iter().filter(|sent| blocks.contains_key(&sent.number)) {
                    found.copied_expected += 1;
                    let mark = Mark { sender: name, number: sent.number };
                    found.copied += u64::from(copied.contains(&(mark, sent.digest)));
                }
            }
            let sent: BTreeSet<u64> = sent.iter().map(|sent| sent.number).collect();
            blocks.retain(|number, _| !sent.contains(number));
            found.strange += count(&blocks);
        }
    }
    found.strange += by_sender.values().map(count).sum::<u64>();
    found
}

fn count(blocks: &HashMap<u64, Vec<u64>>) -> u64 {
    blocks.values().map(|blocks| u64::try_from(blocks.len()).unwrap_or(u64::MAX)).sum()
}

impl VerifyReport {
    fn add(&mut self, number: u32, found: &RoomFound) {
        self.rooms += 1;
        for &(role, kind, judged) in &found.people {
            let (what, sum) = match kind {
                Kind::Voice => ("packets of voice", &mut self.voice),
                Kind::Picture => ("frames", &mut self.pictures),
            };
            *sum += judged;
            let Verdict { sent, missing, altered, repeated, .. } = judged;
            if !judged.is_whole() {
                self.faults.push(format!(
                    "room {number} {role}: of {sent} {what} sent, {missing} are missing from the recording, {altered} altered and \
                     {repeated} repeated"
                ));
            }
            if sent == 0 {
                self.faults.push(format!("room {number} {role}: no {what} sent, so nothing can be found"));
            }
        }
        if found.strange > 0 {
            self.faults.push(format!("room {number}: nobody sent {} blocks of the recording", found.strange));
        }
        if found.copied < found.copied_expected {
            let missing = found.copied_expected - found.copied;
            self.faults.push(format!("room {number}: {missing} pictures of the originals are not in the session copy"));
        }
        self.strange += found.strange;
        self.copied_expected += found.copied_expected;
        self.copied += found.copied;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::numbered::{Record, Sent};
    use crate::room::Sender;

    fn evidence() -> Evidence {
        let record = Arc::new(Record::new(4));
        for kind in [Kind::Voice, Kind::Picture] {
            for number in 0..3 {
                let now = Instant::now();
                let sequence = u16::try_from(number).unwrap();
                let (connection, ssrc, packets, rtp, keyframe) = (1, 1, 1, 0, true);
                let digest = number;
                let sent = Sent {
                    number,
                    connection,
                    ssrc,
                    sequence,
                    packets,
                    rtp,
                    keyframe,
                    digest,
                    captured: now,
                    sent: now,
                };
                record.add(kind, sent);
            }
        }
        let senders = vec![Sender { role: "citizen", record, unsure: BTreeSet::new() }];
        Evidence { number: 0, room: "r".to_owned(), concluded: Instant::now(), senders }
    }

    fn block(kind: Kind, sender: u32, number: u64) -> Block {
        Block { kind, mark: Some(Mark { sender, number }), digest: number }
    }

    #[test]
    fn a_whole_recording_has_no_fault_and_each_fault_is_named() {
        let all: Vec<Block> =
            [Kind::Voice, Kind::Picture].into_iter().flat_map(|kind| (0..3).map(move |n| block(kind, 4, n))).collect();
        let faults = |originals: &[Block], copy: &[Block]| {
            let mut report = VerifyReport::default();
            report.add(0, &compare(&evidence(), originals, &Gaps::default(), copy));
            report.faults.len()
        };
        assert_eq!(faults(&all, &all), 0);
        assert_eq!(faults(&all[1..], &all), 1, "a voice is missing");
        assert_eq!(faults(&all, &all[..5]), 1, "a picture is not in the copy");
        let stranger = [&all[..], &[block(Kind::Voice, 5, 0)]].concat();
        assert_eq!(faults(&stranger, &all), 1);
        let unmarked = [&all[..], &[Block { mark: None, ..block(Kind::Voice, 4, 0) }]].concat();
        assert_eq!(faults(&unmarked, &all), 1);
        assert_eq!(faults(&[], &[]), 2);
    }
}
