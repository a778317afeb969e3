//! The sealer: takes rooms whose meeting is over, one after the other, and makes of their recordings a package that is
//! signed, stored and read back. Only then the recorder's files are removed.
//!
//! What can be lost at any moment is the work of one room: it is begun anew, and goes on from what is done. It works in
//! a thread of low priority, beside live rooms.

mod build;
mod papers;
mod story;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use dashmap::DashMap;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use self::build::{BuildError, Built, Job, Previous, between, build, make_folder, tree_bytes};
use super::webhooks;
use crate::clock::Clock;
use crate::id::RoomId;
use crate::notify::Waker;
use crate::objects::{ObjectError, Objects};
use crate::recording::folder_of;
use crate::recording::manifest::{
    MANIFEST, Manifest, ManifestError, RetentionFacts, SIGNATURE, TIMESTAMP, TIMESTAMP_SIGNATURE,
};
use crate::recording::package::{SealError, add_timestamp, digest, package_name};
use crate::recording::recover::{RecoverError, recover_room};
use crate::recording::sign::SigningKey;
use crate::recording::timestamp::{self, Authority, TimestampError};
use crate::room::Event;
use crate::room::ledger::Line;
use crate::store::{self, RecordingKey, SealedPackage, Store};
use crate::vault::{KeyEncryption, KeyError, SessionKey, WrappedKeyError};

/// How often is looked whether a room waits. Shorter asks the database more often for nothing; longer lets a recording
/// stay longer on this disk alone.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a room is one sealer's; extended while it works. Shorter: a slow upload may be begun twice; longer: after a
/// crash of the whole machine it takes longer until the room is taken up again.
const CLAIM: SignedDuration = SignedDuration::from_mins(5);
/// How often the claim is extended.
const CLAIM_AGAIN: Duration = Duration::from_mins(1);
/// After a failure: the first retry, doubled each time, and the longest.
const FIRST_RETRY: SignedDuration = SignedDuration::from_secs(10);
const LONGEST_RETRY: SignedDuration = SignedDuration::from_hours(1);
/// How long after a meeting's end its originals may take to be closed. Then nobody writes them any more, and they are
/// cut to what is whole.
const CLOSED_WITHIN: SignedDuration = SignedDuration::from_secs(30);
/// Least priority of a thread (setpriority(2)).
const NICE: i32 = 19;

const BUILT: u64 = 800;
const STORED: u64 = 950;
const WHOLE: u64 = 1_000;

/// What the sealer must be told.
#[derive(Clone, Debug)]
pub struct SealerSettings {
    /// The recordings folders.
    pub recordings: Vec<PathBuf>,
    /// The folder of the rooms' documents.
    pub documents: PathBuf,
    /// Where packages are made, on a disk of this machine; made if it is not there.
    pub work: PathBuf,
    /// This node's name, for the manifest.
    pub node: String,
    /// Who puts a time on each manifest; `None`: nobody.
    pub timestamp: Option<TimestampSettings>,
    /// Whether the booking system is told.
    pub webhooks: bool,
}

/// A timestamp authority (RFC 3161).
#[derive(Clone, Debug)]
pub struct TimestampSettings {
    /// Where it is asked.
    pub url: String,
    /// Whose answers are believed; `None`: those of anybody.
    pub authority: Option<Authority>,
}

/// The sealer. Clones are the same one.
#[derive(Clone)]
pub struct Sealer(Arc<Inner>);

struct Inner {
    store: Store,
    objects: Objects,
    keys: Arc<dyn KeyEncryption>,
    signer: Arc<SigningKey>,
    settings: SealerSettings,
    http: reqwest::Client,
    posted: Waker,
    clock: Clock,
    sealing: Sealing,
}

/// What is being sealed, and how much of it is done, in thousandths. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Sealing(Arc<DashMap<RoomId, u16>>);

impl Sealing {
    /// How much of a room's sealing is done, percent; `None`: it is not being sealed.
    pub fn percent(&self, room: RoomId) -> Option<f64> {
        self.0.get(&room).map(|done| f64::from(*done) / 10.0)
    }

    fn tell(&self, room: RoomId, thousandths: u64) {
        self.0.insert(room, u16::try_from(thousandths.min(WHOLE)).unwrap_or(0));
    }
}

/// Why a room was not sealed.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Objects(#[from] ObjectError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error("the room's key: {0}")]
    Key(#[from] KeyError),
    #[error("the room's key: {0}")]
    WrappedKey(#[from] WrappedKeyError),
    #[error("the timestamp authority: {0}")]
    Timestamp(#[from] TimestampError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the manifest of the revision before: {0}")]
    Previous(#[from] ManifestError),
    #[error("{path}: stored, it reads back as other bytes")]
    ReadBack { path: String },
    #[error("the originals are in none of the recordings folders")]
    NoOriginals,
    #[error("the room is not known any more")]
    NoRoom,
    #[error("the thread that did the work is gone")]
    BrokenOff,
}

impl Sealer {
    /// A sealer; [`Sealer::run`] makes it work.
    ///
    /// # Errors
    /// The client for timestamps cannot be made.
    pub fn new(
        store: Store,
        objects: Objects,
        keys: Arc<dyn KeyEncryption>,
        signer: Arc<SigningKey>,
        settings: SealerSettings,
        posted: Waker,
        clock: Clock,
    ) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        let sealing = Sealing::default();
        Ok(Self(Arc::new(Inner { store, objects, keys, signer, settings, http, posted, clock, sealing })))
    }

    /// Tells how far it is.
    pub fn sealing(&self) -> Sealing {
        self.0.sealing.clone()
    }

    /// Seals rooms until `stop` comes. What is under way then is taken up at the next start.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let inner = Arc::clone(&self.0);
        let work = async {
            // Whoever had taken rooms is gone: there is one node on a database.
            if let Err(error) = inner.store.release_claims(inner.now()).await {
                tracing::warn!(%error, "rooms that were being sealed wait for their turn to come again");
            }
            loop {
                match inner.next().await {
                    Ok(Some(room)) => inner.seal(room).await,
                    Ok(None) => tokio::time::sleep(LOOK_EVERY).await,
                    Err(error) => {
                        tracing::warn!(%error, "the database does not say which rooms wait to be sealed");
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            // The thread finds nobody who listens, and ends.
            () = stop => {}
        }
    }
}

impl Inner {
    fn now(&self) -> Timestamp {
        self.clock.now().wall
    }

    /// Gives rooms whose meeting is over their package, and says whose turn it is.
    async fn next(&self) -> Result<Option<RoomId>, store::Error> {
        let now = self.now();
        for room in self.store.rooms_without_package(100).await? {
            let lines = self.store.ledger(room).await?;
            let at = |wanted: fn(&Event) -> bool| lines.iter().find(|line| wanted(&line.event)).map(|line| line.wall);
            let over = at(|event| matches!(event, Event::Concluded { .. } | Event::Cancelled | Event::Expired));
            let begun = at(|event| matches!(event, Event::Opened)).or(over).unwrap_or(now);
            self.store.package_recorded(room, begun, over.unwrap_or(now), now).await?;
        }
        for room in self.store.packages_outrun(100).await? {
            self.store.package_changed(room, now).await?;
        }
        Ok(self.store.rooms_to_seal(now, 1).await?.into_iter().next())
    }

    async fn seal(&self, room: RoomId) {
        let now = self.now();
        let claimed = self.store.claim_package(room, now, later(now, CLAIM)).await;
        match claimed {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%room, %error, "a room could not be taken to be sealed");
                tokio::time::sleep(LOOK_EVERY).await;
                return;
            }
        }
        self.sealing.tell(room, 0);
        let begun = self.clock.mono();
        let done = tokio::select! {
            done = self.make(room) => done,
            error = self.keep_claim(room) => Err(error.into()),
        };
        self.sealing.0.remove(&room);
        match done {
            Ok(sealed) => {
                let took = self.clock.mono().since(begun);
                tracing::info!(%room, revision = sealed.revision, bytes = sealed.bytes, ?took, "a recording is sealed");
                metrics::counter!("sportello_packages_sealed_total").increment(1);
                metrics::histogram!("sportello_sealing_seconds").record(took.as_secs_f64());
            }
            Err(Fault::Build(BuildError::Interrupted)) => {}
            Err(fault) => self.put_off(room, &fault).await,
        }
    }

    /// Extends the claim for as long as the work takes; returns only when that fails.
    async fn keep_claim(&self, room: RoomId) -> store::Error {
        loop {
            tokio::time::sleep(CLAIM_AGAIN).await;
            if let Err(error) = self.store.extend_claim(room, later(self.now(), CLAIM)).await {
                return error;
            }
        }
    }

    /// Says what was wrong and when it is tried again.
    async fn put_off(&self, room: RoomId, fault: &Fault) {
        let now = self.now();
        let unfinished = matches!(fault, Fault::Build(BuildError::Unfinished(_)));
        let retry = if unfinished {
            tracing::debug!(%room, %fault, "a room is not ready to be sealed");
            SignedDuration::try_from(LOOK_EVERY).unwrap_or(FIRST_RETRY)
        } else {
            tracing::error!(%room, %fault, "a recording could not be sealed; it is tried again");
            metrics::counter!("sportello_sealing_failures_total").increment(1);
            let attempts = match self.store.package(room).await {
                Ok(Some(package)) => package.attempts,
                Ok(None) | Err(_) => 1,
            };
            // 2^9 times ten seconds is beyond the longest.
            (FIRST_RETRY * 2_i32.pow(attempts.saturating_sub(1).min(9))).min(LONGEST_RETRY)
        };
        if let Err(error) = self.store.package_failed(room, &fault.to_string(), later(now, retry)).await {
            tracing::warn!(%room, %error, "that a recording could not be sealed could not be written down");
        }
    }

    async fn make(&self, room: RoomId) -> Result<SealedPackage, Fault> {
        let package = self.store.package(room).await?.ok_or(Fault::NoRoom)?;
        let appointment = self.store.appointment(room).await?.ok_or(Fault::NoRoom)?;
        let key = self.key(room).await?.map(Arc::new);
        let work = self.settings.work.join(room.to_string());
        let prefix = package_name(room);
        let recorded = folder_of(&self.settings.recordings, room);
        let previous = if package.revision > 0 { Some(self.previous(&prefix, &work).await?) } else { None };
        let lines = self.store.ledger(room).await?;
        // A room in which nothing was ever recorded has its ledger and its documents to seal. Where the ledger tells of
        // recordings, a folder that is not there is a disk that is not there.
        let tells = |line: &Line| matches!(line.event, Event::RecordingStarted { .. });
        if recorded.is_none() && previous.is_none() && lines.iter().any(tells) {
            return Err(Fault::NoOriginals);
        }
        if let Some(folder) = recorded.clone().filter(|_| later(package.ended, CLOSED_WITHIN) <= self.now()) {
            // Originals that a fault of the disk left open.
            let recovery = off_thread(move || recover_room(&folder, |_, _| {})).await?;
            if let Some(error) = recovery.failed.into_iter().next() {
                return Err(error.into());
            }
        }
        let job = Job {
            room,
            lines,
            accesses: self.store.accesses(room).await?,
            chat: self.store.chat(room, 0, u32::MAX).await?,
            registrations: self.store.registrations_of(room).await?,
            documents: self.settings.documents.join(room.to_string()),
            appointment,
            key,
            recorded: recorded.clone(),
            work: work.clone(),
            revision: package.revision + 1,
            previous,
            node: self.settings.node.clone(),
            when_sealed: RetentionFacts { retain_until: package.retain_until, on_hold: package.hold.is_some() },
            timestamp_authority: self.settings.timestamp.as_ref().map(|timestamp| timestamp.url.clone()),
            now: self.now(),
        };
        let built = self.build(job).await?;
        self.add_timestamp(&built).await?;
        let bytes = self.store_package(room, &prefix, &built).await?;
        self.read_back(room, &prefix, &built).await?;
        let sealed = SealedPackage {
            revision: built.manifest.revision,
            prefix,
            bytes,
            manifest_sha256: built.manifest_sha256.clone(),
            key_id: built.manifest.key_id.clone(),
            ledger_lines: built.manifest.ledger.lines,
        };
        let message = self.settings.webhooks.then(|| webhooks::sealed(room, &sealed, self.now())).flatten();
        if !self.store.package_sealed(room, &sealed, message.as_slice(), self.now()).await? {
            return Err(Fault::NoRoom);
        }
        self.posted.wake();
        // Everything is where it is read from now on, and was seen there.
        off_thread(move || {
            for folder in recorded.iter().chain([&work]) {
                if let Err(error) = remove_tree(folder) {
                    tracing::warn!(path = %folder.display(), %error, "files of a sealed recording could not be removed");
                }
            }
        })
        .await?;
        Ok(sealed)
    }

    async fn key(&self, room: RoomId) -> Result<Option<SessionKey>, Fault> {
        match self.store.recording_key(room).await? {
            RecordingKey::Wrapped(wrapped) => Ok(Some(self.keys.unwrap(room, &wrapped.parse()?)?)),
            RecordingKey::None => Ok(None),
            RecordingKey::Destroyed(_) => Err(Fault::NoRoom),
        }
    }

    /// Brings the package of the revision before into the work folder, and gives its manifest.
    async fn previous(&self, prefix: &str, work: &Path) -> Result<Previous, Fault> {
        let bytes = self.objects.get(&format!("{prefix}/{MANIFEST}")).await?;
        let manifest = Manifest::from_bytes(&bytes)?;
        let folder = work.join(prefix);
        for file in &manifest.files {
            let to = folder.join(&file.path);
            if to.exists() {
                continue;
            }
            make_folder(to.parent().unwrap_or(&folder))?;
            self.objects.fetch_file(&format!("{prefix}/{}", file.path), &to).await?;
        }
        Ok(Previous { manifest, sha256: sha256(&bytes)? })
    }

    /// Does the work that blocks, in a thread that gives way to every other.
    async fn build(&self, job: Job) -> Result<Built, Fault> {
        let (signer, room) = (Arc::clone(&self.signer), job.room);
        let (sender, built) = oneshot::channel();
        let (progress, mut told) = tokio::sync::watch::channel(0);
        let thread = std::thread::Builder::new().name("sealer".to_owned()).spawn(move || {
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::debug!(%error, "the sealer works at the priority of all others");
            }
            let on = |done| {
                // Nobody listens any more when the node stops, or the room was taken away.
                if progress.send(done).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            // The receiver may be gone by then: so is whoever wanted the package.
            let _unwanted = sender.send(build(&job, &signer, &on));
        });
        drop(thread.map_err(|_| Fault::BrokenOff)?);
        tokio::pin!(built);
        loop {
            tokio::select! {
                built = &mut built => return Ok(built.map_err(|_| Fault::BrokenOff)??),
                changed = told.changed() => {
                    if changed.is_ok() {
                        self.sealing.tell(room, *told.borrow_and_update());
                    } else {
                        return Ok(built.await.map_err(|_| Fault::BrokenOff)??);
                    }
                }
            }
        }
    }

    async fn add_timestamp(&self, built: &Built) -> Result<(), Fault> {
        let Some(TimestampSettings { url, authority }) = &self.settings.timestamp else { return Ok(()) };
        let signed = built.signature.as_bytes();
        let (answer, _) = timestamp::ask(&self.http, url, signed, authority.as_ref()).await?;
        Ok(add_timestamp(&built.folder, &answer, &self.signer)?)
    }

    /// Stores every file; the manifest and what signs it last: what has none is no package.
    async fn store_package(&self, room: RoomId, prefix: &str, built: &Built) -> Result<u64, Fault> {
        self.objects.tidy(prefix).await?;
        let total = tree_bytes(&built.folder)?;
        let mut stored = 0;
        for path in paths(built) {
            let mut on = |bytes| {
                stored += bytes;
                self.sealing.tell(room, between(BUILT, STORED, stored, total));
            };
            self.objects.put_file(&format!("{prefix}/{path}"), &built.folder.join(&path), &mut on).await?;
        }
        // What an earlier revision had and this one has not, e.g. a document that was taken back.
        let ours: HashSet<String> = paths(built).into_iter().map(|path| format!("{prefix}/{path}")).collect();
        for object in self.objects.list(prefix).await? {
            if !ours.contains(&object.path) {
                self.objects.delete(&object.path).await?;
            }
        }
        Ok(total)
    }

    /// Reads the stored package whole and compares it with the one that was made.
    async fn read_back(&self, room: RoomId, prefix: &str, built: &Built) -> Result<(), Fault> {
        let total = tree_bytes(&built.folder)?;
        let mut read = 0;
        for path in paths(built) {
            let mut on = |bytes| {
                read += bytes;
                self.sealing.tell(room, between(STORED, WHOLE, read, total));
            };
            let stored = self.objects.digest(&format!("{prefix}/{path}"), &mut on).await?;
            let said = match built.manifest.file(&path) {
                Some(entry) => entry.sha256.clone(),
                None => sha256(&fs::read(built.folder.join(&path)).map_err(build::failed(&built.folder))?)?,
            };
            if stored.sha256 != said {
                return Err(Fault::ReadBack { path });
            }
        }
        Ok(())
    }
}

/// The files of a package, the manifest and what signs it last.
fn paths(built: &Built) -> Vec<String> {
    let mut paths: Vec<String> = built.manifest.files.iter().map(|file| file.path.clone()).collect();
    let own = [TIMESTAMP_SIGNATURE, TIMESTAMP, SIGNATURE, MANIFEST].into_iter();
    paths.extend(own.filter(|name| built.folder.join(name).exists()).map(str::to_owned));
    paths
}

fn sha256(bytes: &[u8]) -> Result<String, Fault> {
    let (_, sha256) = digest(bytes, &mut |_| {}).map_err(build::failed(Path::new(MANIFEST)))?;
    Ok(sha256)
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Fault::BrokenOff)
}

fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}
