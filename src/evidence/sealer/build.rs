//! Makes a package in a folder of this machine: originals, side files, session copy, ledger, accesses, manifest and
//! signature. Blocking, for a thread that may wait; begun anew after a crash, it does not do twice what is done.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::papers;
use super::story::{self, Begin, Run, Story};
use crate::audit;
use crate::clock::MonoTime;
use crate::id::{ConnectionId, ParticipantId, RoomId};
use crate::media::Source;
use crate::recording::lines::{Line as SideLine, read_lines};
use crate::recording::manifest::{
    ChainFacts, Manifest, Moment, OriginalFacts, RecoveryNote, RetentionFacts, SCHEMA, SessionCopy, Software,
};
use crate::recording::package::{self, SealError, file_entries, sign_manifest};
use crate::recording::quality::summarise;
use crate::recording::read::Pieces;
use crate::recording::session::{self, PlainFile, SessionError, SessionReport, SessionSink, SessionSource};
use crate::recording::sign::SigningKey;
use crate::recording::{FileReport, VerifyError, verify_original};
use crate::room::ReplayError;
use crate::room::ledger::Line;
use crate::store::{Appointment, ChatMessage, Registration};
use crate::vault::{EncryptedReader, FixedWriter, SessionKey, is_encrypted};

/// The session copy's name.
const SESSION_COPY: &str = "session.webm";
/// What was found while it was made; beside the package's folder, for a seal that is begun anew.
const SESSION_REPORT: &str = "session-report.json";

/// Enough of a file to tell whether it is encrypted.
const HEAD: u64 = 64;

/// How much of the whole work each step is, in thousandths, up to its end.
const CHECKED: u64 = 150;
const DERIVED: u64 = 700;
const HASHED: u64 = 800;

/// What a package is made of.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) room: RoomId,
    pub(super) appointment: Appointment,
    /// The whole ledger.
    pub(super) lines: Vec<Line>,
    /// The audit's lines about this room.
    pub(super) accesses: Vec<audit::Line>,
    /// What was written in the room.
    pub(super) chat: Vec<ChatMessage>,
    /// What the register was asked for.
    pub(super) registrations: Vec<Registration>,
    /// The folder of its documents.
    pub(super) documents: PathBuf,
    pub(super) key: Option<Arc<SessionKey>>,
    /// Where the recorder left the originals; `None`: they are in the package's folder already.
    pub(super) recorded: Option<PathBuf>,
    /// The folder for this seal alone; the package is made in a folder of it.
    pub(super) work: PathBuf,
    /// From 1.
    pub(super) revision: u64,
    /// The manifest that this one replaces.
    pub(super) previous: Option<Previous>,
    pub(super) node: String,
    pub(super) when_sealed: RetentionFacts,
    pub(super) timestamp_authority: Option<String>,
    pub(super) now: Timestamp,
}

/// The manifest of the revision before.
#[derive(Debug)]
pub(super) struct Previous {
    pub(super) manifest: Manifest,
    pub(super) sha256: String,
}

/// A package that is whole, but not stored yet.
#[derive(Debug)]
pub(super) struct Built {
    /// Its folder.
    pub(super) folder: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) manifest_sha256: String,
    /// What an authority puts a time on.
    pub(super) signature: String,
}

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuildError {
    /// The recorder has not closed this original yet.
    #[error("{0} is still being written")]
    Unfinished(String),
    /// An original is not what its chain says. The disk's fault, or somebody's.
    #[error(transparent)]
    Broken(#[from] VerifyError),
    /// A file cannot be read or written. The disk's fault.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The ledger is not one of this profile.
    #[error("the ledger: {0}")]
    Ledger(#[from] ReplayError),
    /// The session copy could not be made.
    #[error("the session copy: {0}")]
    Session(#[from] SessionError),
    /// The package could not be signed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A file does not say whose it is.
    #[error("{0}: the lines beside it do not say whose it is")]
    Nobody(String),
    /// The node is shutting down.
    #[error("interrupted")]
    Interrupted,
}

/// An original, with what is known of it.
struct Item {
    /// Without the suffix.
    stem: String,
    report: FileReport,
    lines: Vec<SideLine>,
    connection: ConnectionId,
    owner: Option<(ParticipantId, Run)>,
    sources: Vec<Source>,
    begin: Begin,
}

/// Makes the package. `progress` is told how much is done, in thousandths, and ends the work by `Break`.
pub(super) fn build(
    job: &Job,
    signer: &SigningKey,
    progress: &dyn Fn(u64) -> ControlFlow<()>,
) -> Result<Built, BuildError> {
    let folder = job.work.join(package::package_name(job.room));
    let originals = folder.join("originals");
    make_folder(&originals)?;
    if let Some(recorded) = &job.recorded {
        take_over(recorded, &originals)?;
    }
    let story = story::tell(&Arc::new(job.appointment.profile.clone()), &job.lines)?;
    let items = check(job, &originals, &story, progress)?;
    let offsets = story::timeline(&items.iter().map(|item| item.begin).collect::<Vec<_>>());
    let copy = session_copy(job, &folder, &items, &offsets, &story, progress)?;

    papers::bring(job, &folder, &story)?;
    write_lines(&folder.join("ledger.jsonl"), job.lines.iter())?;
    write_lines(&folder.join("access.jsonl"), job.accesses.iter())?;
    let total = tree_bytes(&folder)?;
    let mut hashed = 0;
    let files = file_entries(&folder, job.key.as_deref(), &mut |bytes| {
        hashed += bytes;
        // Hashing is quick, and what it costs is lost when it is interrupted: it is not.
        let _on = progress(between(DERIVED, HASHED, hashed, total));
    })?;
    let mut manifest = describe(job, signer, story, &items, &offsets, copy);
    manifest.files = files;
    let (manifest_sha256, signature) = sign_manifest(&folder, &manifest, signer)?;
    Ok(Built { folder, manifest, manifest_sha256, signature })
}

// ── originals ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Brings the recorder's files into the package: the same files under a second name, where the disk can do that.
fn take_over(recorded: &Path, originals: &Path) -> Result<(), BuildError> {
    for entry in fs::read_dir(recorded).map_err(failed(recorded))? {
        let entry = entry.map_err(failed(recorded))?;
        let name = entry.file_name();
        let of_an_original = name.to_str().is_some_and(|name| {
            [".webm", ".chain.jsonl", ".rtcp.jsonl", ".tail", ".chain.tail"].iter().any(|end| name.ends_with(end))
        });
        let (from, to) = (entry.path(), originals.join(&name));
        let length = entry.metadata().map_err(failed(&from))?.len();
        match fs::metadata(&to) {
            _ if !of_an_original => continue,
            Ok(taken) if taken.len() == length => continue,
            // It was cut since it was taken over.
            Ok(_) => fs::remove_file(&to).map_err(failed(&to))?,
            Err(_) => {}
        }
        if fs::hard_link(&from, &to).is_err() {
            // Another disk. Whole under its name or not there at all, whenever the process ends.
            let part = originals.join(".part");
            fs::copy(&from, &part).and_then(|_| File::open(&part)?.sync_all()).map_err(failed(&from))?;
            fs::rename(&part, &to).map_err(failed(&to))?;
        }
    }
    Ok(())
}

fn check(
    job: &Job,
    originals: &Path,
    story: &Story,
    progress: &dyn Fn(u64) -> ControlFlow<()>,
) -> Result<Vec<Item>, BuildError> {
    let mut stems: Vec<String> = Vec::new();
    for entry in fs::read_dir(originals).map_err(failed(originals))? {
        let name = entry.map_err(failed(originals))?.file_name();
        stems.extend(name.to_str().and_then(|name| name.strip_suffix(".webm")).map(str::to_owned));
    }
    stems.sort();
    let total = tree_bytes(originals)?;
    let (mut checked, mut items) = (0, Vec::new());
    for stem in stems {
        if progress(between(0, CHECKED, checked, total)).is_break() {
            return Err(BuildError::Interrupted);
        }
        let path = originals.join(format!("{stem}.webm"));
        let report = verify_original(&path, job.key.as_deref(), |bytes| checked += bytes)?;
        let side = originals.join(format!("{stem}.rtcp.jsonl"));
        let lines: Vec<SideLine> = read_lines(&fs::read(&side).map_err(failed(&side))?).collect();
        let recovered = lines.iter().any(|line| matches!(line, SideLine::Recovered { .. }));
        if !report.finished && !recovered {
            return Err(BuildError::Unfinished(format!("{stem}.webm")));
        }
        let Some(SideLine::Original { connection, tracks, zero_ns, wall, .. }) = lines.first() else {
            return Err(BuildError::Nobody(format!("{stem}.webm")));
        };
        let owner = story.connections.get(connection).copied();
        items.push(Item {
            stem,
            report,
            connection: *connection,
            owner,
            sources: tracks.iter().map(|track| track.source).collect(),
            begin: Begin { run: owner.map_or(0, |(_, run)| run), mono: MonoTime::from_nanos(*zero_ns), wall: *wall },
            lines,
        });
    }
    Ok(items)
}

// ── the session copy ─────────────────────────────────────────────────────────────────────────────────────────────────

/// What is known of the session copy.
enum Copy {
    /// It was made from these originals; `None`: they hold nothing that could be shown or heard.
    Made(Option<SessionReport>),
    /// It is that of the revision before, and so is what was found in it.
    Kept,
}

/// What was made of which originals, for a seal that is begun anew.
#[derive(Serialize, Deserialize)]
struct Derived {
    /// The chain heads of its originals, in their order.
    heads: Vec<String>,
    /// `None`: they hold nothing that could be shown or heard.
    report: Option<SessionReport>,
}

fn session_copy(
    job: &Job,
    folder: &Path,
    items: &[Item],
    offsets: &[i64],
    story: &Story,
    progress: &dyn Fn(u64) -> ControlFlow<()>,
) -> Result<Copy, BuildError> {
    let (path, note) = (folder.join(SESSION_COPY), job.work.join(SESSION_REPORT));
    let heads: Vec<String> = items.iter().map(|item| item.report.chain_head.clone()).collect();
    if let Some(Previous { manifest, .. }) = &job.previous
        && manifest.originals.iter().map(|original| &original.chain_head).eq(&heads)
    {
        return Ok(Copy::Kept);
    }
    let before = fs::read(&note).ok().and_then(|bytes| serde_json::from_slice::<Derived>(&bytes).ok());
    if let Some(before) = before.filter(|before| before.heads == heads && before.report.is_some() == path.exists()) {
        return Ok(Copy::Made(before.report));
    }
    let labels = labels(story);
    let mut sources = Vec::new();
    for (item, offset_ms) in items.iter().zip(offsets) {
        let file = folder.join("originals").join(format!("{}.webm", item.stem));
        let (role, label) = item
            .owner
            .and_then(|(participant, _)| labels.get(&participant))
            .cloned()
            .unwrap_or_else(|| ("guest".to_owned(), item.stem.clone()));
        sources.push(SessionSource {
            role,
            label,
            offset_ms: *offset_ms,
            pieces: pieces(&file, job.key.as_deref())?,
            screen: item.sources.contains(&Source::Screen),
        });
    }
    let total: u64 = items.iter().map(|item| item.report.bytes).sum();
    let mut on = |bytes| progress(between(CHECKED, DERIVED, bytes, total));
    let part = job.work.join("session.part");
    let report = if sources.is_empty() { Err(SessionError::Nothing) } else { write_copy(job, &part, sources, &mut on) };
    let report = match report {
        Ok(report) => {
            fs::rename(&part, &path).map_err(failed(&path))?;
            Some(report)
        }
        // Nobody sent anything: the package says so by having no copy.
        Err(SessionError::Nothing) => None,
        Err(SessionError::Cancelled) => return Err(BuildError::Interrupted),
        Err(error) => return Err(error.into()),
    };
    let derived = Derived { heads, report };
    let bytes = serde_json::to_vec(&derived).map_err(|error| failed(&note)(error.into()))?;
    fs::write(&note, bytes).map_err(failed(&note))?;
    Ok(Copy::Made(derived.report))
}

fn write_copy(
    job: &Job,
    part: &Path,
    sources: Vec<SessionSource>,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<SessionReport, SessionError> {
    let file = File::create(part)?;
    if let Some(key) = job.key.as_deref() {
        let mut sink = Encrypted(FixedWriter::new(file, key, SESSION_COPY)?);
        let report = session::derive(sources, &mut sink, progress)?;
        sink.0.finish()?.sync_all()?;
        return Ok(report);
    }
    let mut sink = PlainFile(BufWriter::new(file));
    let report = session::derive(sources, &mut sink, progress)?;
    sink.0.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(report)
}

/// A session copy that is encrypted while it is written.
struct Encrypted(FixedWriter<File>);

impl SessionSink for Encrypted {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn patch(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.0.patch(offset, bytes)
    }
}

type PieceIter = Box<dyn Iterator<Item = io::Result<Vec<u8>>>>;

/// The pieces of an original, decrypted if it is encrypted.
fn pieces(path: &Path, key: Option<&SessionKey>) -> Result<PieceIter, BuildError> {
    let mut file = File::open(path).map_err(failed(path))?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // Encryption may have been switched on between two originals of a room.
    let mut head = Vec::new();
    Read::by_ref(&mut file).take(HEAD).read_to_end(&mut head).map_err(failed(path))?;
    file.rewind().map_err(failed(path))?;
    let encrypted = is_encrypted(&head);
    Ok(match key.filter(|_| encrypted) {
        Some(key) => {
            let opened = EncryptedReader::open(BufReader::new(file), key, name);
            let opened = opened.map_err(|error| failed(path)(io::Error::other(error)))?;
            Box::new(Pieces::new(BufReader::new(opened)))
        }
        None => Box::new(Pieces::new(BufReader::new(file))),
    })
}

/// Role and track name of each person: those who share a role are counted.
fn labels(story: &Story) -> HashMap<ParticipantId, (String, String)> {
    let mut counted: HashMap<&str, u32> = HashMap::new();
    let people = story.participants.iter().map(|person| {
        let count = counted.entry(&person.role).or_default();
        *count += 1;
        let label = if *count == 1 { person.role.clone() } else { format!("{}-{count}", person.role) };
        (person.id, (person.role.clone(), label))
    });
    people.collect()
}

// ── the manifest ─────────────────────────────────────────────────────────────────────────────────────────────────────

fn describe(job: &Job, signer: &SigningKey, story: Story, items: &[Item], offsets: &[i64], copy: Copy) -> Manifest {
    let labels = labels(&story);
    let previous = job.previous.as_ref().map(|previous| &previous.manifest);
    let mut participants = story.participants;
    for person in &mut participants {
        person.voice = match &copy {
            Copy::Made(copy) => {
                let label = labels.get(&person.id).map(|(_, label)| label);
                let spoke = copy.iter().flat_map(|copy| &copy.voices).find(|voice| Some(&voice.label) == label);
                spoke.map(|spoke| spoke.voice)
            }
            Copy::Kept => {
                let mut before = previous.iter().flat_map(|manifest| &manifest.participants);
                before.find(|before| before.id == person.id).and_then(|before| before.voice)
            }
        };
    }
    let mut recovery = story.recovery;
    let mut originals = Vec::new();
    for (item, offset_ms) in items.iter().zip(offsets) {
        let begin = Moment { utc: item.begin.wall, mono_ms: item.begin.mono.as_millis() };
        let mut duration_ms = 0;
        for line in &item.lines {
            match line {
                SideLine::Closed { duration_ms: length, .. } => duration_ms = *length,
                SideLine::Recovered { duration_ms: length, tail_bytes, .. } => {
                    duration_ms = *length;
                    recovery.push(RecoveryNote {
                        file: Some(format!("{}.webm", item.stem)),
                        from_mono_ms: Some(begin.mono_ms + length),
                        to_mono_ms: None,
                        tail_bytes: *tail_bytes,
                        reason: "recovered".to_owned(),
                    });
                }
                _ => {}
            }
        }
        let participant = item.owner.map(|(participant, _)| participant);
        let role = participant.and_then(|id| story.roles.get(&id)).map_or("guest", |role| role.name());
        originals.push(OriginalFacts {
            file: format!("{}.webm", item.stem),
            participant,
            role: role.to_owned(),
            connection: item.connection,
            sources: item.sources.clone(),
            begin,
            offset_ms: *offset_ms,
            duration_ms,
            bytes: item.report.bytes,
            clusters: item.report.clusters,
            chain_head: item.report.chain_head.clone(),
            complete: item.report.finished,
            quality: summarise(item.lines.iter().cloned()),
        });
    }
    let begin = items
        .iter()
        .zip(offsets)
        .min_by_key(|(_, offset)| **offset)
        .map(|(item, _)| Moment { utc: item.begin.wall, mono_ms: item.begin.mono.as_millis() });
    let session_copy = match copy {
        Copy::Made(copy) => copy.zip(begin).map(|(copy, begin)| SessionCopy {
            file: SESSION_COPY.to_owned(),
            begin,
            duration_ms: copy.duration_ms,
            tracks: std::iter::once("mix".to_owned()).chain(copy.tracks.into_iter().map(|track| track.name)).collect(),
            largest_skew_ms: copy.voices.iter().map(|voice| voice.skew.largest_us.div_ceil(1_000)).max().unwrap_or(0),
        }),
        Copy::Kept => previous.and_then(|manifest| manifest.session_copy.clone()),
    };
    let documents = papers::facts(&story.documents);
    Manifest {
        schema: SCHEMA.to_owned(),
        revision: job.revision,
        previous_manifest_sha256: job.previous.as_ref().map(|previous| previous.sha256.clone()),
        session: job.room,
        booking_reference: job.appointment.reference.clone(),
        profile: job.appointment.profile.name.clone(),
        office: job.appointment.office.clone(),
        counter: job.appointment.counter.clone(),
        reason: job.appointment.reason.clone(),
        software: Software {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: option_env!("SPORTELLO_BUILD").unwrap_or_default().to_owned(),
        },
        node: job.node.clone(),
        clock_source: "system".to_owned(),
        begin: story.begin,
        end: story.end,
        end_reason: story.end_reason,
        outcome: story.outcome,
        sealed: job.now,
        key_id: signer.public().id().to_owned(),
        encrypted: job.key.is_some(),
        participants,
        originals,
        session_copy,
        presence: story.presence,
        ledger: ChainFacts {
            lines: job.lines.last().map_or(0, |line| line.seq),
            head: job.lines.last().map(|line| line.hash.clone()).unwrap_or_default(),
        },
        accesses: job.accesses.last().map(|line| ChainFacts {
            lines: u64::try_from(job.accesses.len()).unwrap_or(u64::MAX),
            head: line.hash.clone(),
        }),
        documents,
        when_sealed: job.when_sealed,
        recovery,
        timestamp_authority: job.timestamp_authority.clone(),
        files: Vec::new(),
    }
}

// ── small things ─────────────────────────────────────────────────────────────────────────────────────────────────────

fn write_lines<T: Serialize>(path: &Path, lines: impl Iterator<Item = T>) -> Result<(), BuildError> {
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        for line in lines {
            serde_json::to_writer(&mut file, &line)?;
            file.write_all(b"\n")?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(failed(path))
}

/// The bytes of all files below a folder.
pub(super) fn tree_bytes(folder: &Path) -> Result<u64, BuildError> {
    let mut total = 0;
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        let about = entry.metadata().map_err(failed(folder))?;
        total += if about.is_dir() { tree_bytes(&entry.path())? } else { about.len() };
    }
    Ok(total)
}

pub(super) fn make_folder(path: &Path) -> Result<(), BuildError> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))
}

pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> BuildError {
    move |source| BuildError::File { path: path.to_owned(), source }
}

/// Progress within a step that leads from one point to the next.
pub(super) fn between(from: u64, to: u64, done: u64, total: u64) -> u64 {
    from + (to - from).saturating_mul(done.min(total)).checked_div(total).unwrap_or(0)
}
