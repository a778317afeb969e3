//! `verify`, `export` and `repair`: recordings and packages, looked at from outside of a node.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use sportello::audit;
use sportello::config::{Config, Sources};
use sportello::id::RoomId;
use sportello::recording::manifest::{ChainFacts, MANIFEST, Manifest};
use sportello::recording::package::{
    Checks, LineFault, PackageFault, PackageFiles, PackageReport, Place, check_package, export_plain, is_encrypted,
    may_be_encrypted, package_name,
};
use sportello::recording::recover::{self, OriginalEnd, RecoveredOriginal};
use sportello::recording::sign::PublicKey;
use sportello::recording::timestamp::Authority;
use sportello::recording::{self, Original, VerifyError};
use sportello::room::ledger;
use sportello::store::{RecordingKey, Store};
use sportello::vault::{KekFile, KeyEncryption as _, SessionKey, WrappedKey};
use tokio::runtime::Runtime;

use super::places::{InObjects, Recordings, Target, by_path};
use super::progress::Progress;
use super::{FAILED, USAGE, complain, say};

#[derive(Args)]
pub(crate) struct VerifyArguments {
    /// Package (folder or tar), original, folder of either, ledger or audit; or a room's id, which is looked up where the
    /// configuration keeps packages and recordings.
    #[arg(value_name = "PATH|ID")]
    target: PathBuf,
    /// The public key of the node that sealed the package: a JWK, as GET /v1/signing-key answers, or PEM.
    /// Default: secrets/signing.jwk in the configuration's data directory.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Certificates (PEM) of the authorities whose timestamps are believed. Default: `sealing.timestamp_ca`.
    #[arg(long, value_name = "FILE")]
    timestamp_ca: Option<PathBuf>,
    /// Print one JSON object per package, folder or ledger, and progress as objects on standard error.
    #[arg(long)]
    json: bool,
    /// Configuration file (TOML) of the node.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ExportArguments {
    /// Package (folder or tar), a room's folder of recordings or one original in it; or a room's id.
    #[arg(value_name = "PATH|ID")]
    target: PathBuf,
    /// Folder for the plain files; it is made if it does not exist, and nothing in it is overwritten.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Configuration file (TOML) of the node: its database holds the session's key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The key-encryption key that unwraps it. Default: secrets/recordings.key in the data directory.
    #[arg(long, value_name = "KEK")]
    key_file: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct RepairArguments {
    /// A folder of recordings, or one room's folder in it, which is called by the room's id.
    #[arg(value_name = "PATH")]
    folder: PathBuf,
}

/// Why a command ends without a result.
enum Stop {
    /// It failed, or something was found; it was said already if the text is empty.
    Failed(String),
    /// Wrong usage or configuration.
    Usage(String),
}

impl Stop {
    #[expect(clippy::needless_pass_by_value, reason = "a function for `map_err`")]
    fn failed(error: impl ToString) -> Self {
        Self::Failed(error.to_string())
    }

    fn exit(self) -> ExitCode {
        let (text, code) = match self {
            Self::Failed(text) => (text, FAILED),
            Self::Usage(text) => (text, USAGE.into()),
        };
        if !text.is_empty() {
            complain(&text);
        }
        code
    }
}

pub(crate) fn verify(arguments: &VerifyArguments) -> ExitCode {
    let settings = Settings { config: arguments.config.as_deref(), runtime: None };
    match verify_target(arguments, settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.exit(),
    }
}

fn verify_target(arguments: &VerifyArguments, mut settings: Settings<'_>) -> Result<(), Stop> {
    let targets = settings.targets(&arguments.target)?;
    let mut keys = None;
    let mut all_whole = true;
    for target in targets {
        all_whole &= match target {
            Target::Lines(path) => verify_lines(&path, arguments.json),
            Target::Originals(path) => verify_originals(&path, arguments.json),
            Target::Package(name, files) => {
                let keys = match &keys {
                    Some(keys) => keys,
                    None => keys.insert(settings.keys(arguments)?),
                };
                verify_package(&name, files.as_ref(), keys, arguments.json)
            }
        };
    }
    if all_whole { Ok(()) } else { Err(Stop::Failed(String::new())) }
}

/// What packages are checked with, and where it is from.
struct Keys {
    public: PublicKey,
    from: PathBuf,
    authority: Option<Authority>,
}

fn verify_package(name: &str, files: &dyn PackageFiles, keys: &Keys, json: bool) -> bool {
    let mut progress = Progress::new("checked", json);
    let checks =
        Checks { key: &keys.public, session_key: None, authority: keys.authority.as_ref(), ledger: &check_ledger };
    let report = check_package(files, &checks, &mut |done, total| progress.show(done, total));
    progress.clear();
    if json {
        say(&package_json(name, &report, keys).to_string());
    } else {
        tell_package(name, &report, keys);
    }
    report.faults.is_empty()
}

fn tell_package(name: &str, report: &PackageReport, keys: &Keys) {
    for fault in &report.faults {
        complain(&format!("{name}: {fault}"));
    }
    let key = format!("checked with the key {} ({})", keys.public.id(), keys.from.display());
    let Some(manifest) = report.manifest.as_ref().filter(|_| report.faults.is_empty()) else {
        complain(&format!("{name}: NOT whole: {} found; {key}", counted(report.faults.len(), "fault")));
        return;
    };
    let form = if report.encrypted { "encrypted" } else { "plain" };
    say(&format!(
        "{name}: whole, session {}, sealed {:.0}, {}, {} bytes, recordings {form}; {key}",
        manifest.session,
        manifest.sealed,
        counted(manifest.files.len(), "file"),
        report.bytes
    ));
    if let Some(timestamp) = &report.timestamp {
        let by =
            if timestamp.trusted { "by a believed authority" } else { "but by whom was not checked (--timestamp-ca)" };
        say(&format!("{name}: timestamp {}, {by}", timestamp.at));
    }
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn package_json(name: &str, report: &PackageReport, keys: &Keys) -> Value {
    let fault = |fault: &PackageFault| {
        let (cluster, segment, line) = match fault.place {
            Some(Place::Cluster(number)) => (Some(number), None, None),
            Some(Place::Segment(number)) => (None, Some(number), None),
            Some(Place::Line(number)) => (None, None, Some(number)),
            None => (None, None, None),
        };
        json!({
            "file": fault.file, "cluster": cluster, "segment": segment, "line": line,
            "problem": fault.problem.to_string(),
        })
    };
    let manifest = report.manifest.as_ref();
    let timestamp = report.timestamp.as_ref();
    json!({
        "kind": "package", "path": name, "whole": report.faults.is_empty(),
        "key": {"id": keys.public.id(), "from": keys.from.display().to_string()},
        "session": manifest.map(|manifest| manifest.session),
        "sealed": manifest.map(|manifest| manifest.sealed.to_string()),
        "files": report.files, "bytes": report.bytes, "encrypted": report.encrypted,
        "timestamp": timestamp.map(|said| json!({"at": said.at.to_string(), "trusted": said.trusted})),
        "faults": report.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

fn check_ledger(text: &str) -> Result<ChainFacts, LineFault> {
    let head = ledger::verify_text(text);
    let head = head.map_err(|error| LineFault { line: error.line(), reason: error.to_string() })?;
    Ok(ChainFacts { lines: head.seq, head: head.hash })
}

/// A ledger, or an audit: whose lines name a caller.
fn verify_lines(path: &Path, json: bool) -> bool {
    let checked = std::fs::read_to_string(path).map_err(|error| error.to_string()).and_then(|text| {
        let first = text.trim_start_matches(['[', ' ', '\n']).lines().next().unwrap_or_default();
        if path.file_name().is_some_and(|name| name == "access.jsonl") || first.contains("\"caller\":") {
            let lines = u64::try_from(text.lines().count()).unwrap_or(u64::MAX);
            let head = audit::verify_room_text(&text).map_err(|error| error.to_string())?;
            Ok(("audit", lines, head.hash))
        } else {
            let head = ledger::verify_text(&text).map_err(|error| error.to_string())?;
            Ok(("ledger", head.seq, head.hash))
        }
    });
    let name = path.display();
    match &checked {
        _ if json => {
            let (kind, lines, head) = checked
                .as_ref()
                .map_or((None, None, None), |(kind, lines, head)| (Some(kind), Some(lines), Some(head)));
            let fault = checked.as_ref().err();
            say(
                &json!({"kind": kind, "path": name.to_string(), "whole": fault.is_none(), "lines": lines, "head": head,
                "fault": fault})
                .to_string(),
            );
        }
        Ok((kind, lines, head)) => say(&format!("{name}: whole, {lines} lines, {kind} head {head}")),
        Err(error) => complain(&format!("{name}: {error}")),
    }
    checked.is_ok()
}

fn verify_originals(path: &Path, json: bool) -> bool {
    let mut progress = Progress::new("checked", json);
    let verified = recording::verify(path, |done, total| progress.show(done, total));
    progress.clear();
    if json {
        let files = verified.as_ref().map_or_else(
            |_| Vec::new(),
            |report| {
                let file = |file: &recording::FileReport| {
                    json!({"file": file.path.display().to_string(), "bytes": file.bytes, "clusters": file.clusters,
                    "chain_head": file.chain_head, "complete": file.finished, "encrypted": file.encrypted})
                };
                report.files.iter().map(file).collect()
            },
        );
        let fault = verified.as_ref().err().map(|error| {
            let (file, cluster) = match error {
                VerifyError::NothingFound { path } | VerifyError::Unreadable { path, .. } => (path, None),
                VerifyError::Broken { path, cluster, .. } => (path, Some(cluster)),
            };
            json!({"file": file.display().to_string(), "cluster": cluster, "problem": error.to_string()})
        });
        let path = path.display().to_string();
        say(&json!({"kind": "originals", "path": path, "whole": fault.is_none(), "files": files, "fault": fault})
            .to_string());
        return verified.is_ok();
    }
    match verified {
        Ok(report) => {
            for file in report.files {
                let form = if file.encrypted { ", encrypted" } else { "" };
                let end = if file.finished { "" } else { ", not closed in order" };
                let (path, bytes, clusters, head) = (file.path.display(), file.bytes, file.clusters, file.chain_head);
                say(&format!("{path}: whole, {bytes} bytes, {clusters} clusters{form}{end}, chain head {head}"));
            }
            true
        }
        Err(error) => {
            complain(&error.to_string());
            false
        }
    }
}

pub(crate) fn export(arguments: &ExportArguments) -> ExitCode {
    let settings = Settings { config: arguments.config.as_deref(), runtime: None };
    match export_target(arguments, settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.exit(),
    }
}

fn export_target(arguments: &ExportArguments, mut settings: Settings<'_>) -> Result<(), Stop> {
    let mut targets = settings.targets(&arguments.target)?;
    let (Some(target), true) = (targets.pop(), targets.is_empty()) else {
        return Err(Stop::Usage(format!("{}: name one package", arguments.target.display())));
    };
    let (name, files, room) = match target {
        Target::Package(name, files) => {
            let room = session_of(files.as_ref()).map_err(|error| Stop::Failed(format!("{name}: {error}")))?;
            (name, files, Some(room))
        }
        Target::Originals(path) => {
            let files = Recordings::new(&path).map_err(|error| Stop::Failed(format!("{}: {error}", path.display())))?;
            let room = files.room();
            (path.display().to_string(), Box::new(files) as Box<dyn PackageFiles>, room)
        }
        Target::Lines(path) => {
            return Err(Stop::Usage(format!("{}: is not encrypted; copy it", path.display())));
        }
    };
    let key = match has_encrypted(files.as_ref()) {
        Ok(true) => {
            let room = room.ok_or_else(|| {
                Stop::Usage(format!("{name}: whose recordings are these? The folder should be called by the room's id"))
            })?;
            Some(settings.session_key(room, arguments.key_file.as_deref())?)
        }
        Ok(false) => None,
        Err(error) => return Err(Stop::Failed(format!("{name}: {error}"))),
    };
    let mut progress = Progress::new("exported", false);
    let exported =
        export_plain(files.as_ref(), key.as_ref(), &arguments.out, &mut |done, total| progress.show(done, total));
    progress.clear();
    let count = exported.map_err(Stop::failed)?;
    say(&format!("{}: {count} files, plain", arguments.out.display()));
    Ok(())
}

pub(crate) fn repair(arguments: &RepairArguments) -> ExitCode {
    let folder = &arguments.folder;
    if !folder.is_dir() {
        complain(&format!("{}: no such folder", folder.display()));
        return FAILED;
    }
    let mut progress = Progress::new("looked through", false);
    let show = |done, total| progress.show(done, total);
    // By its whole path: the folder may be named as «.».
    let path = folder.canonicalize().unwrap_or_else(|_| folder.clone());
    let recovered =
        if is_called_by_a_room(&path) { Ok(recover::recover_room(&path, show)) } else { recover::recover(&path, show) };
    progress.clear();
    let recovery = match recovered {
        Ok(recovery) => recovery,
        Err(error) => {
            complain(&error.to_string());
            return FAILED;
        }
    };
    for RecoveredOriginal { room, original, end, .. } in &recovery.originals {
        let file = &original.file;
        let Original { clusters, .. } = original;
        say(&match end {
            OriginalEnd::Regular => format!("{room}/{file}: closed in order, {clusters} clusters"),
            OriginalEnd::Cut { tail_bytes, lost_from } => format!(
                "{room}/{file}: cut to its {clusters} whole clusters; {tail_bytes} bytes are kept beside it; nothing is in \
                 it from {lost_from:.3} on"
            ),
        });
    }
    for error in &recovery.failed {
        complain(&error.to_string());
    }
    if recovery.originals.is_empty() && recovery.failed.is_empty() {
        say(&format!("{}: there are no originals of any room in it", folder.display()));
    }
    if recovery.failed.is_empty() { ExitCode::SUCCESS } else { FAILED }
}

fn is_called_by_a_room(folder: &Path) -> bool {
    folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<RoomId>().is_ok())
}

/// Whose package it is, as its manifest says; the signature is for `verify` to judge.
fn session_of(files: &dyn PackageFiles) -> io::Result<RoomId> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut files.open(MANIFEST)?, &mut bytes)?;
    Manifest::from_bytes(&bytes).map(|manifest| manifest.session).map_err(io::Error::other)
}

fn has_encrypted(files: &dyn PackageFiles) -> io::Result<bool> {
    for path in files.list()?.into_keys().filter(|path| may_be_encrypted(path)) {
        if is_encrypted(files, &path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the configuration knows, read when it is asked for.
struct Settings<'a> {
    config: Option<&'a Path>,
    runtime: Option<Runtime>,
}

impl Settings<'_> {
    fn config(&self) -> Result<Config, Stop> {
        Sources::new(self.config).read().map_err(|problems| Stop::Usage(problems.to_string()))
    }

    fn runtime(&mut self) -> Result<&Runtime, Stop> {
        if self.runtime.is_none() {
            let built = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            self.runtime = Some(built.map_err(|error| Stop::Failed(format!("cannot start: {error}")))?);
        }
        self.runtime.as_ref().ok_or_else(|| Stop::Failed("cannot start".into()))
    }

    fn targets(&mut self, target: &Path) -> Result<Vec<Target>, Stop> {
        if !target.exists() {
            let id = target.to_str().and_then(|text| text.strip_prefix("session-").unwrap_or(text).parse().ok());
            return match id {
                Some(room) => self.by_id(room).map(|target| vec![target]),
                None => Err(Stop::Failed(format!("{}: no such file or folder, and no room's id", target.display()))),
            };
        }
        by_path(target).map_err(|error| Stop::Failed(format!("{}: {error}", target.display())))
    }

    /// A room's package, or else its recordings.
    fn by_id(&mut self, room: RoomId) -> Result<Target, Stop> {
        let config = self.config()?;
        let objects = config.open_packages().map_err(Stop::failed)?;
        let prefix = package_name(room);
        let runtime = self.runtime()?;
        if !runtime.block_on(objects.list(&prefix)).map_err(Stop::failed)?.is_empty() {
            let name = format!("{}/{prefix}", objects.place());
            return Ok(Target::Package(
                name,
                Box::new(InObjects { objects, prefix, runtime: runtime.handle().clone() }),
            ));
        }
        let roots = config.recordings();
        if let Some(folder) = recording::folder_of(&roots, room) {
            return Ok(Target::Originals(folder));
        }
        let folders: Vec<_> = roots.iter().map(|root| root.display().to_string()).collect();
        let (place, folders) = (objects.place(), folders.join(", "));
        Err(Stop::Failed(format!("there is no package of {room} at {place}, and no recording of it in {folders}")))
    }

    fn keys(&self, arguments: &VerifyArguments) -> Result<Keys, Stop> {
        let config = self.config();
        let from = match &arguments.key {
            Some(path) => path.clone(),
            None => config.as_ref().map_err(Stop::copy)?.storage.data_dir.join("secrets/signing.jwk"),
        };
        if arguments.key.is_none() && !from.exists() {
            return Err(Stop::Usage(format!(
                "which key? There is none at {}. Give the public key of the node that sealed it with --key: a JWK, as \
                 its GET /v1/signing-key answers, or PEM",
                from.display()
            )));
        }
        let public = PublicKey::read(&from).map_err(|error| Stop::Usage(error.to_string()))?;
        let certificates = match &arguments.timestamp_ca {
            Some(path) => Some(path.clone()),
            // With a key of its own, a configuration is not needed.
            None => config.ok().and_then(|config| config.sealing.timestamp_ca),
        };
        let authority = certificates.map(|path| Authority::read(&path)).transpose();
        Ok(Keys { public, from, authority: authority.map_err(|error| Stop::Usage(error.to_string()))? })
    }

    /// A room's key, out of the node's database, unwrapped.
    fn session_key(&mut self, room: RoomId, key_file: Option<&Path>) -> Result<SessionKey, Stop> {
        let config = self.config()?;
        let key_file = key_file.map_or_else(|| config.storage.data_dir.join("secrets/recordings.key"), Path::to_owned);
        // Opening makes what is not there: a new key, or an empty database, would open nothing.
        if !key_file.exists() {
            return Err(Stop::Usage(format!("{}: there is no key-encryption key (--key-file)", key_file.display())));
        }
        let kek = KekFile::open(&key_file).map_err(|error| Stop::Usage(error.to_string()))?;
        let place = config.database();
        if !place.contains("://") && !Path::new(&place).exists() {
            return Err(Stop::Usage(format!(
                "there is no database at {place}, which holds the session's key (--config)"
            )));
        }
        let kept = self.runtime()?.block_on(async {
            let store = Store::open(&place).await?;
            let kept = store.recording_key(room).await;
            store.close().await;
            kept
        });
        match kept.map_err(Stop::failed)? {
            RecordingKey::Wrapped(text) => {
                let wrapped: WrappedKey = text.parse().map_err(Stop::failed)?;
                kek.unwrap(room, &wrapped).map_err(|error| Stop::Failed(format!("{}: {error}", key_file.display())))
            }
            RecordingKey::Destroyed(at) => Err(Stop::Failed(format!(
                "the key of session {room} was destroyed at {at:.0}: nobody can read it any more"
            ))),
            RecordingKey::None => Err(Stop::Failed(format!(
                "the database at {place} has no key of session {room}: is this the configuration of the node that recorded \
                 it?"
            ))),
        }
    }
}

impl Stop {
    fn copy(&self) -> Self {
        match self {
            Self::Failed(text) => Self::Failed(text.clone()),
            Self::Usage(text) => Self::Usage(text.clone()),
        }
    }
}
