//! Whether a package is whole: every byte of every file is bound to the manifest, and that to the key which signed it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256};

use super::place::{Found, Kind, PackageFiles};
use super::{base_name, digest, is_webm};
use crate::audit;
use crate::recording::chain::sha256_hex;
use crate::recording::manifest::{
    ChainFacts, FileEntry, MANIFEST, Manifest, OriginalFacts, SIGNATURE, TIMESTAMP, TIMESTAMP_SIGNATURE,
};
use crate::recording::original_check::{Difference, Fault, ReadChain, check_original, piece_name, read_chain};
use crate::recording::sign::{MANIFEST_TYPE, PublicKey, SignatureError, TIMESTAMP_TYPE};
use crate::recording::timestamp::{self, Authority, Timestamped};
use crate::vault::{self, EncryptedReader, HEADER_BYTES, OpenError, SessionKey};

/// The manifest's own files are small: a larger one is none, and is not read into memory.
const LARGEST_MANIFEST: u64 = 64 << 20;

/// Checks the lines of a ledger, which this part of the house knows nothing of: gives where it stands.
pub type LineCheck<'a> = &'a dyn Fn(&str) -> Result<ChainFacts, LineFault>;

/// What a package is checked with.
#[derive(Clone, Copy)]
pub struct Checks<'a> {
    /// Who must have signed it.
    pub key: &'a PublicKey,
    /// With it, what encrypted files hold is checked too.
    pub session_key: Option<&'a SessionKey>,
    /// Whose timestamps are believed; `None`: a timestamp is checked, but not who made it.
    pub authority: Option<&'a Authority>,
    /// For `ledger.jsonl`.
    pub ledger: LineCheck<'a>,
}

/// A line that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineFault {
    /// Which, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// What was found in a package.
#[derive(Clone, Debug)]
pub struct PackageReport {
    /// The manifest, if one could be read; with a fault in its signature, it proves nothing.
    pub manifest: Option<Manifest>,
    /// Number of files that are bound to the manifest.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Whether the recordings are encrypted here; a plain export of an encrypted package is not.
    pub encrypted: bool,
    /// Whether what encrypted files hold was checked too.
    pub opened: bool,
    /// The timestamp, if there is one.
    pub timestamp: Option<Timestamped>,
    /// Everything that is wrong, in the order in which it was found; empty: the package is whole.
    pub faults: Vec<PackageFault>,
}

/// Something that is wrong with a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFault {
    /// The file's path in the package.
    pub file: String,
    /// Where in it, if that can be told.
    pub place: Option<Place>,
    /// What is wrong.
    pub problem: Problem,
}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Of an original: 0 is its header, n its n-th cluster; what ends it counts on.
    Cluster(u64),
    /// Of an encrypted file with fixed segments, from 0.
    Segment(u64),
    /// Of a file of lines, from 1.
    Line(u64),
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The manifest names it, and it is not there.
    #[error("it is missing")]
    Missing,
    /// It is there, and the manifest does not name it.
    #[error("it does not belong to the package: the manifest does not name it")]
    Extra,
    /// A link or a device.
    #[error("it is not a file")]
    NoFile,
    /// Its length is not what the manifest says.
    #[error("it has {found} bytes, the manifest says {said}")]
    Length {
        /// In the package.
        found: u64,
        /// In the manifest.
        said: u64,
    },
    /// Its bytes are not what the manifest says.
    #[error("its bytes have SHA-256 {found}, the manifest says {said}")]
    Hash {
        /// Of the bytes in the package.
        found: String,
        /// In the manifest.
        said: String,
    },
    /// An original is not what its chain says.
    #[error("{0}")]
    Original(Difference),
    /// A line of the ledger, the audit or a chain was changed.
    #[error("{0}")]
    Line(String),
    /// What the manifest says of it in its facts is not so.
    #[error("the manifest says {what} {said}, and it is {found}")]
    Fact {
        /// Of what.
        what: &'static str,
        /// In the manifest.
        said: String,
        /// In the package.
        found: String,
    },
    /// An encrypted file does not open with the session's key.
    #[error("it does not open with the session's key: {0}")]
    Closed(String),
    /// The manifest is none.
    #[error("{0}")]
    Manifest(String),
    /// The signature is none, or of something else.
    #[error("{0}")]
    Signature(SignatureError),
    /// Its bytes are not those that were signed.
    #[error("its bytes are not those that were signed")]
    NotSigned,
    /// The timestamp is none, or of something else.
    #[error("{0}")]
    Timestamp(String),
    /// It cannot be read. The disk's fault.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

impl fmt::Display for PackageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        match self.place {
            Some(Place::Cluster(piece)) => write!(f, "{}: ", piece_name(piece))?,
            Some(Place::Segment(segment)) => write!(f, "segment {segment}: ")?,
            Some(Place::Line(line)) => write!(f, "line {line}: ")?,
            None => {}
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for PackageFault {}

/// Checks a package; the first fault, if there is one.
///
/// # Errors
/// What is wrong with it.
pub fn verify_package(
    files: &dyn PackageFiles,
    checks: &Checks<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<PackageReport, PackageFault> {
    let mut report = check_package(files, checks, progress);
    if report.faults.is_empty() { Ok(report) } else { Err(report.faults.remove(0)) }
}

/// Checks a package and goes on past the first fault: [`PackageReport::faults`] are all of them. `progress` is told the
/// bytes checked so far and their sum.
pub fn check_package(
    files: &dyn PackageFiles,
    checks: &Checks<'_>,
    progress: &mut dyn FnMut(u64, u64),
) -> PackageReport {
    let report = PackageReport {
        manifest: None,
        files: 0,
        bytes: 0,
        encrypted: false,
        opened: checks.session_key.is_some(),
        timestamp: None,
        faults: Vec::new(),
    };
    let found = files.list();
    let mut check = Check { files, checks, report, found: BTreeMap::new(), progress, done: 0, total: 0 };
    match found {
        Ok(found) => {
            check.total = found.values().map(|found| found.bytes).sum();
            check.found = found;
            check.run();
        }
        Err(error) => check.fault(".", None, Problem::Unreadable(error.to_string())),
    }
    check.report
}

struct Check<'a> {
    files: &'a dyn PackageFiles,
    checks: &'a Checks<'a>,
    report: PackageReport,
    found: BTreeMap<String, Found>,
    progress: &'a mut dyn FnMut(u64, u64),
    done: u64,
    total: u64,
}

impl Check<'_> {
    fn run(&mut self) {
        (self.progress)(self.done, self.total);
        let Some(manifest) = self.manifest() else { return };
        self.timestamp(&manifest);
        self.names(&manifest);
        // Chains and lines before the originals: what they are compared with should be known to be right.
        let is_original = |entry: &&FileEntry| is_original(&entry.path);
        let chains: BTreeMap<_, _> = manifest
            .files
            .iter()
            .filter(|entry| !is_original(entry))
            .filter_map(|entry| self.other_file(&manifest, entry).map(|chain| (entry.path.clone(), chain)))
            .collect();
        for entry in manifest.files.iter().filter(is_original) {
            self.original(&manifest, entry, &chains);
        }
        self.report.files = u64::try_from(manifest.files.len()).unwrap_or(u64::MAX);
        self.report.manifest = Some(manifest);
    }

    /// The manifest that was signed, or, if nobody can tell, the one that is there.
    fn manifest(&mut self) -> Option<Manifest> {
        let bytes = self.own_file(MANIFEST);
        let jws = self.own_file(SIGNATURE);
        let bytes = bytes?;
        // An empty signature is a wrong one: only a missing one was named already.
        let signed = jws.and_then(|jws| self.signed(MANIFEST, SIGNATURE, MANIFEST_TYPE, &bytes, &jws));
        let read = match Manifest::from_bytes(signed.as_ref().unwrap_or(&bytes)) {
            Ok(manifest) => manifest,
            Err(error) => {
                // Once is enough: bytes that are not what was signed were named already.
                if !self.report.faults.iter().any(|fault| fault.file == MANIFEST) {
                    self.fault(MANIFEST, None, Problem::Manifest(error.to_string()));
                }
                return None;
            }
        };
        if signed.is_some() && read.key_id != self.checks.key.id() {
            let found = self.checks.key.id().to_owned();
            self.fault(
                MANIFEST,
                None,
                Problem::Fact { what: "that it is signed with the key", said: read.key_id, found },
            );
            return None;
        }
        Some(read)
    }

    /// What `jws` signs, if its signature holds; names the one of both files that was changed.
    fn signed(&mut self, file: &str, signature: &str, typ: &str, bytes: &[u8], jws: &[u8]) -> Option<Vec<u8>> {
        match self.checks.key.open(typ, jws) {
            Ok(signed) => {
                if signed != bytes {
                    self.fault(file, None, Problem::NotSigned);
                }
                Some(signed)
            }
            Err(error) => {
                self.fault(signature, None, Problem::Signature(error));
                None
            }
        }
    }

    fn timestamp(&mut self, manifest: &Manifest) {
        if manifest.timestamp_authority.is_none() {
            return;
        }
        let (answer, jws) = (self.own_file(TIMESTAMP), self.own_file(TIMESTAMP_SIGNATURE));
        let (Some(answer), Some(jws)) = (answer, jws) else { return };
        let signed = self.signed(TIMESTAMP, TIMESTAMP_SIGNATURE, TIMESTAMP_TYPE, &answer, &jws);
        let Ok(stamped) = self.read(SIGNATURE, LARGEST_MANIFEST) else { return };
        match timestamp::verify(&stamped, signed.as_ref().unwrap_or(&answer), self.checks.authority) {
            Ok(said) => self.report.timestamp = Some(said),
            // If the signature was changed, the timestamp is of another, and that was said.
            Err(_) if self.report.faults.iter().any(|fault| fault.file == SIGNATURE) => {}
            Err(error) => self.fault(TIMESTAMP, None, Problem::Timestamp(error.to_string())),
        }
    }

    /// Every file that is named is there, and no other.
    fn names(&mut self, manifest: &Manifest) {
        let stamped = manifest.timestamp_authority.is_some();
        let extra: Vec<_> = self
            .found
            .iter()
            .filter(|(path, found)| {
                let own = [MANIFEST, SIGNATURE].contains(&path.as_str())
                    || (stamped && [TIMESTAMP, TIMESTAMP_SIGNATURE].contains(&path.as_str()));
                found.kind == Kind::Other || !(own || manifest.file(path).is_some())
            })
            .map(|(path, found)| (path.clone(), found.kind))
            .collect();
        for (path, kind) in extra {
            self.fault(&path, None, if kind == Kind::Other { Problem::NoFile } else { Problem::Extra });
        }
        for entry in manifest.files.iter().filter(|entry| !self.found.contains_key(&entry.path)).collect::<Vec<_>>() {
            self.fault(&entry.path, None, Problem::Missing);
        }
    }

    /// Any file but the originals. Gives the chain that it holds, if it is one and whole.
    fn other_file(&mut self, manifest: &Manifest, entry: &FileEntry) -> Option<ReadChain> {
        if self.found.get(&entry.path).is_none_or(|found| found.kind != Kind::File) {
            return None;
        }
        if let Some(stem) = entry.path.strip_suffix(".chain.jsonl").filter(|stem| stem.starts_with("originals/")) {
            let bytes = self.text_file(entry)?;
            let chain = match read_chain(&bytes) {
                Ok(chain) => Some(chain),
                Err(Fault::Broken { piece, difference }) => {
                    self.fault(&entry.path, Some(Place::Line(piece + 1)), Problem::Original(difference));
                    None
                }
                Err(Fault::Unreadable(error)) => {
                    self.fault(&entry.path, None, Problem::Unreadable(error.to_string()));
                    None
                }
            };
            // Lines that follow from each other, and yet are not those that were signed: the last one is another.
            let chain = chain.filter(|chain| {
                let last = Some(Place::Line(chain.length()));
                self.compare(entry, bytes.len(), &sha256_hex(&bytes), last)
            });
            if manifest.file(&format!("{stem}.webm")).is_none() {
                self.fault(&entry.path, None, Problem::Extra);
            }
            return chain;
        }
        match entry.path.as_str() {
            "ledger.jsonl" => self.lines(entry, Some(&manifest.ledger), self.checks.ledger),
            "access.jsonl" => self.lines(entry, manifest.accesses.as_ref(), &check_accesses),
            _ => self.any_file(entry),
        }
        None
    }

    /// A file of lines that are bound to each other.
    fn lines(&mut self, entry: &FileEntry, facts: Option<&ChainFacts>, check: LineCheck<'_>) {
        let Some(bytes) = self.text_file(entry) else { return };
        let text = String::from_utf8(bytes).map_err(|error| {
            let whole = error.utf8_error().valid_up_to();
            let line = error.as_bytes().iter().take(whole).filter(|byte| **byte == b'\n').count();
            LineFault { line: u64::try_from(line).unwrap_or(0) + 1, reason: "it is not text".into() }
        });
        let checked = text.and_then(|text| check(&text).map(|facts| (text, facts)));
        match checked {
            Err(LineFault { line, reason }) => self.fault(&entry.path, Some(Place::Line(line)), Problem::Line(reason)),
            Ok((text, found)) => {
                let whole = self.compare(entry, text.len(), &sha256_hex(text.as_bytes()), None);
                if let Some(said) = facts.filter(|said| whole && **said != found) {
                    let words = |facts: &ChainFacts| format!("{} with {} lines", facts.head, facts.lines);
                    let (said, found) = (words(said), words(&found));
                    self.fault(&entry.path, None, Problem::Fact { what: "that its head is", said, found });
                }
            }
        }
    }

    /// Any other file: compared as a whole, and opened if it is encrypted and the key is here.
    fn any_file(&mut self, entry: &FileEntry) {
        let file = match self.files.open(&entry.path) {
            Ok(file) => file,
            Err(error) => return self.fault(&entry.path, None, Problem::Unreadable(error.to_string())),
        };
        let (mut head, mut context) = (Vec::new(), Context::new(&SHA256));
        let mut file = Hashing { file, context: &mut context, bytes: 0 };
        let read = (&mut file).take(HEADER_BYTES as u64).read_to_end(&mut head).and_then(|_| {
            let mut block = vec![0; super::BLOCK];
            loop {
                let read = file.read(&mut block)?;
                if read == 0 {
                    return Ok(file.bytes);
                }
                self.step(u64::try_from(read).unwrap_or(0));
            }
        });
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) => return self.fault(&entry.path, None, Problem::Unreadable(error.to_string())),
        };
        self.step(u64::try_from(head.len()).unwrap_or(0));
        let sha256 = hex::encode(context.finish());
        let is_encrypted = vault::is_encrypted(&head) && entry.plain.is_some();
        self.report.encrypted |= is_encrypted;
        let opened = is_encrypted.then(|| self.open(entry)).flatten();
        let place = opened.as_ref().and_then(|fault| fault.0);
        let whole = self.compare(entry, usize::try_from(bytes).unwrap_or(usize::MAX), &sha256, place);
        if let Some((place, problem)) = opened.filter(|_| whole) {
            self.fault(&entry.path, place, problem);
        }
    }

    /// Decrypts a file and compares what it holds. `None`: it is right, or there is no key.
    fn open(&self, entry: &FileEntry) -> Option<(Option<Place>, Problem)> {
        let (key, plain) = (self.checks.session_key?, entry.plain.as_ref()?);
        let closed = |error: String, place| Some((place, Problem::Closed(error)));
        let file = match self.files.open(&entry.path) {
            Ok(file) => file,
            Err(error) => return closed(error.to_string(), None),
        };
        let mut reader = match EncryptedReader::open(file, key, base_name(&entry.path)) {
            Ok(reader) => reader,
            Err(error) => return closed(error.to_string(), segment_of(&error).map(Place::Segment)),
        };
        if !reader.is_finished() {
            return closed("its last segment is missing".into(), None);
        }
        match digest(&mut reader, &mut |_| {}) {
            Ok((bytes, sha256)) if (bytes, &sha256) == (plain.bytes, &plain.sha256) => None,
            Ok((_, found)) => Some((None, Problem::Hash { found, said: plain.sha256.clone() })),
            Err(error) => {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<OpenError>());
                closed(error.to_string(), inner.and_then(segment_of).map(Place::Segment))
            }
        }
    }

    fn original(&mut self, manifest: &Manifest, entry: &FileEntry, chains: &BTreeMap<String, ReadChain>) {
        if self.found.get(&entry.path).is_none_or(|found| found.kind != Kind::File) {
            return;
        }
        let chain_path = entry.path.replace(".webm", ".chain.jsonl");
        let Some(chain) = chains.get(&chain_path) else {
            if manifest.file(&chain_path).is_none() {
                self.fault(&chain_path, None, Problem::Missing);
            }
            // Its chain is broken or gone; the manifest still knows its bytes.
            return self.any_file(entry);
        };
        let file = match self.files.open(&entry.path) {
            Ok(file) => file,
            Err(error) => return self.fault(&entry.path, None, Problem::Unreadable(error.to_string())),
        };
        let mut context = Context::new(&SHA256);
        let mut hashing = Hashing { file, context: &mut context, bytes: 0 };
        let (name, key) = (base_name(&entry.path), self.checks.session_key);
        let checked = check_original(chain, &mut hashing, name, key, |bytes| self.step(bytes));
        let bytes = hashing.bytes;
        let checked = match checked {
            Ok(checked) => checked,
            Err(Fault::Broken { piece, difference }) => {
                return self.fault(&entry.path, Some(Place::Cluster(piece)), Problem::Original(difference));
            }
            Err(Fault::Unreadable(error)) => {
                return self.fault(&entry.path, None, Problem::Unreadable(error.to_string()));
            }
        };
        self.report.encrypted |= checked.encrypted;
        self.compare(entry, usize::try_from(bytes).unwrap_or(usize::MAX), &hex::encode(context.finish()), None);
        let facts = manifest.originals.iter().find(|facts| facts.file == name);
        let Some(facts) = facts else {
            let (said, found) = ("nothing".into(), "an original".into());
            return self.fault(&entry.path, None, Problem::Fact { what: "of it", said, found });
        };
        let OriginalFacts { bytes, clusters, chain_head, complete, .. } = facts;
        let said = [bytes.to_string(), clusters.to_string(), chain_head.clone(), complete.to_string()];
        let found = [
            checked.bytes.to_string(),
            checked.clusters.to_string(),
            checked.chain_head.clone(),
            checked.finished.to_string(),
        ];
        let names =
            ["that its bytes are", "that its clusters are", "that its chain's head is", "that its end is there:"];
        for ((what, said), found) in names.into_iter().zip(said).zip(found) {
            if said != found {
                self.fault(&entry.path, None, Problem::Fact { what, said, found });
            }
        }
    }

    /// Compares with what the manifest says of the file as it is stored, or of what it holds.
    fn compare(&mut self, entry: &FileEntry, bytes: usize, sha256: &str, place: Option<Place>) -> bool {
        let found = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.report.bytes += found;
        let plain = entry.plain.as_ref().map(|plain| (plain.bytes, plain.sha256.as_str()));
        if (entry.bytes, entry.sha256.as_str()) == (found, sha256) || plain == Some((found, sha256)) {
            return true;
        }
        let is_some_length = found == entry.bytes || plain.is_some_and(|(bytes, _)| bytes == found);
        self.fault(
            &entry.path,
            place,
            if is_some_length {
                let said = plain.filter(|(bytes, _)| *bytes == found && found != entry.bytes);
                let said = said.map_or(entry.sha256.as_str(), |(_, said)| said).to_owned();
                Problem::Hash { found: sha256.to_owned(), said }
            } else {
                Problem::Length { found, said: entry.bytes }
            },
        );
        false
    }

    /// A file that is read into memory to be checked line by line.
    fn text_file(&mut self, entry: &FileEntry) -> Option<Vec<u8>> {
        // A few bytes more than it should have: enough to see that it is another.
        match self.read(&entry.path, entry.bytes.saturating_add(1 << 20)) {
            Ok(bytes) => {
                self.step(u64::try_from(bytes.len()).unwrap_or(0));
                Some(bytes)
            }
            Err(error) => {
                self.fault(&entry.path, None, Problem::Unreadable(error.to_string()));
                None
            }
        }
    }

    /// One of the manifest's own files.
    fn own_file(&mut self, path: &str) -> Option<Vec<u8>> {
        if !self.found.contains_key(path) {
            self.fault(path, None, Problem::Missing);
            return None;
        }
        match self.read(path, LARGEST_MANIFEST) {
            Ok(bytes) => {
                self.step(u64::try_from(bytes.len()).unwrap_or(0));
                Some(bytes)
            }
            Err(error) => {
                self.fault(path, None, Problem::Unreadable(error.to_string()));
                None
            }
        }
    }

    fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.files.open(path)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn step(&mut self, bytes: u64) {
        self.done += bytes;
        (self.progress)(self.done, self.total);
    }

    fn fault(&mut self, file: &str, place: Option<Place>, problem: Problem) {
        self.report.faults.push(PackageFault { file: file.to_owned(), place, problem });
    }
}

/// Hashes what is read through it.
struct Hashing<'a, R> {
    file: R,
    context: &'a mut Context,
    bytes: u64,
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.context.update(into.get(..read).unwrap_or_default());
        self.bytes += u64::try_from(read).unwrap_or(0);
        Ok(read)
    }
}

fn is_original(path: &str) -> bool {
    path.starts_with("originals/") && is_webm(path)
}

fn segment_of(error: &OpenError) -> Option<u64> {
    match error {
        OpenError::Segment(segment) | OpenError::Length(segment) => Some(*segment),
        _ => None,
    }
}

/// `access.jsonl`: the room's lines of the node's audit.
fn check_accesses(text: &str) -> Result<ChainFacts, LineFault> {
    let head = audit::verify_room_text(text).map_err(|error| {
        let seq = match &error {
            audit::ChainError::Unreadable { number, .. } => {
                return LineFault { line: *number, reason: error.to_string() };
            }
            audit::ChainError::Changed { seq }
            | audit::ChainError::Broken { seq }
            | audit::ChainError::OtherRoom { seq } => *seq,
        };
        let is_meant = |line: &str| line.starts_with(&format!("{{\"seq\":{seq},"));
        let line = text.lines().position(is_meant).and_then(|at| u64::try_from(at).ok()).map_or(1, |at| at + 1);
        LineFault { line, reason: error.to_string() }
    })?;
    let lines = u64::try_from(text.lines().count()).unwrap_or(u64::MAX);
    Ok(ChainFacts { lines, head: head.hash })
}
