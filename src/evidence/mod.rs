//! Recordings as evidence: who may look at them and that they did, how they are read, kept, held, checked, exported and at
//! last destroyed.
//!
//! Nobody reads a recording without an *access*: opened for one room with a reason, it gives a token that is good for an
//! hour and only for whoever opened it. Every use of it is written to the [`audit`](crate::audit) first, and what
//! could not be written there is not answered.
//!
//! A sealed package is read from [`objects`](crate::objects), a room that is not sealed yet from the recordings folder;
//! both are decrypted on the way, segment by segment, in threads that may wait. Long work (checking, exporting) is done
//! as jobs, one after the other, which outlive a restart.

mod access;
mod destroy;
mod export;
mod files;
mod jobs;
mod package;
mod sealer;
mod search;
#[cfg(test)]
mod tests;
mod views;
mod webhooks;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};
use tokio::sync::{Notify, Semaphore};

pub use self::destroy::NOTE_TYPE;
pub use self::files::{ByteRange, Content, Part, Pieces};
pub use self::sealer::{Sealer, SealerSettings, Sealing, TimestampSettings};
pub use self::views::{
    ExportFormat, HoldView, JobView, OpenedAccess, OriginalView, RecordedState, RecordingPage, RecordingParticipant,
    RecordingView, SigningJwk,
};
pub use self::webhooks::{DestroyedData, DestroyedWebhook, SealedData, SealedWebhook};
use crate::audit::{Access, Action};
use crate::clock::Clock;
use crate::id::RoomId;
use crate::objects::{ObjectError, Objects};
use crate::recording::sign::SigningKey;
use crate::store::{self, Store};
pub use crate::store::{Grant, RecordingFilter};
use crate::vault::KeyEncryption;

/// Recordings that are read at once, each in a thread. More: more people watch at the same time, and disk and objects
/// are shared among more. Fewer: the next one is told to come back.
const READERS: usize = 64;

/// What the service must be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folders of recordings that are not sealed yet.
    pub recordings: Vec<PathBuf>,
    /// The folder of the rooms' documents.
    pub documents: PathBuf,
    /// A folder of its own for exports, and for what they need while they are made.
    pub exports: PathBuf,
    /// How long a finished export is kept.
    pub exports_kept: SignedDuration,
    /// The program that composes exports.
    pub ffmpeg: PathBuf,
    /// Whether the booking system is told.
    pub webhooks: bool,
}

/// The service. Clones speak to the same one.
#[derive(Clone)]
pub struct Evidence(Arc<Inner>);

struct Inner {
    store: Store,
    objects: Objects,
    keys: Arc<dyn KeyEncryption>,
    signing: Arc<SigningKey>,
    settings: Settings,
    clock: Clock,
    readers: Arc<Semaphore>,
    fronts: files::Fronts,
    /// Woken when a job was queued.
    queued: Notify,
    sealing: Sealing,
}

/// Why something was not done, by who is at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing of that room was recorded. The caller's fault.
    #[error("there is no recording of that room")]
    UnknownRecording,
    /// The recording has no such file. The caller's fault.
    #[error("the recording has no such file")]
    UnknownFile,
    /// No such job. The caller's fault.
    #[error("there is no such job")]
    UnknownJob,
    /// The access is not open, or not for this room or caller. The caller's fault.
    #[error("no open access of this caller to this room")]
    NoAccess,
    /// A field of the request is wrong. The caller's fault.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is allowed.
        reason: String,
    },
    /// The file has no such part. The caller's fault.
    #[error("the file has {0} bytes")]
    NoSuchPart(u64),
    /// The meeting goes on.
    #[error("the meeting goes on")]
    NotOver,
    /// There is no package yet.
    #[error("the recording is not sealed yet")]
    NotSealed,
    /// It is on hold.
    #[error("the recording is on hold")]
    Held,
    /// It is not on hold.
    #[error("the recording is not on hold")]
    NotHeld,
    /// It is to be kept until then; `None`: until someone sets a date.
    #[error("the recording is to be kept")]
    Kept(Option<Timestamp>),
    /// It is being sealed: that is not interrupted.
    #[error("the recording is being sealed")]
    Busy,
    /// It was destroyed.
    #[error("the recording was destroyed")]
    Destroyed,
    /// So many jobs of this caller wait already.
    #[error("at most {0} jobs of one caller wait at once")]
    TooManyJobs(u32),
    /// The job has nothing to download: it is not done, failed, or its file was deleted.
    #[error("the job has no file")]
    NoExport,
    /// Too many recordings are being read. Trying again helps.
    #[error("too many recordings are being read at the moment")]
    TooBusy,
    /// The node cannot do it now. Its own fault: the cause is for the log, not for the caller.
    #[error("not possible at the moment")]
    Unavailable(#[source] Fault),
}

/// What is wrong with the node; never shown to a client.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The place of the packages failed.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// A key could not be unwrapped, or a file not be read.
    #[error("{0}")]
    Unreadable(String),
    /// The operating system's random generator failed.
    #[error("the operating system gives no random numbers")]
    Random,
    /// A note could not be signed.
    #[error("a note could not be signed: {0}")]
    Signature(String),
    /// A thread that did the work is gone.
    #[error("the work broke off")]
    BrokenOff,
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

impl Evidence {
    /// The service over what is kept. `keys` opens the rooms' keys, `signing` signs notes of destruction, `sealing` tells
    /// how far the sealer is.
    pub fn new(
        store: Store,
        objects: Objects,
        keys: Arc<dyn KeyEncryption>,
        signing: Arc<SigningKey>,
        settings: Settings,
        sealing: Sealing,
        clock: Clock,
    ) -> Self {
        let readers = Arc::new(Semaphore::new(READERS));
        Self(Arc::new(Inner {
            store,
            objects,
            keys,
            signing,
            settings,
            clock,
            readers,
            fronts: files::Fronts::default(),
            queued: Notify::new(),
            sealing,
        }))
    }

    /// The public key for JOSE libraries: what checks signatures of packages and notes.
    pub fn signing_key(&self) -> SigningJwk {
        self.0.signing.public().jwk().into()
    }

    /// Writes down what an access is used for; only then it may be.
    async fn note(&self, grant: &Grant, action: Action, detail: Map<String, Value>) -> Result<(), Error> {
        let mut detail = detail;
        detail.insert("access".into(), grant.id.to_string().into());
        let access = access_of(&grant.caller, action, Some(grant.room), &grant.reason, detail);
        self.0.store.note_access(&access, self.now()).await?;
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now().wall
    }
}

fn access_of(caller: &str, action: Action, room: Option<RoomId>, reason: &str, detail: Map<String, Value>) -> Access {
    Access { caller: caller.to_owned(), action, room, reason: reason.to_owned(), detail }
}

/// An object with these members.
fn detail<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evidence").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}
