//! Long work: packages are checked and exports made, one after the other. A job outlives its request and a restart: what
//! was under way is begun anew, and given up after a few times.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use super::files::{Place, blocking};
use super::{Error, Evidence, ExportFormat, JobView, access_of, detail};
use crate::audit::Action;
use crate::id::{JobId, RoomId};
use crate::recording::manifest::ChainFacts;
use crate::recording::package::{Checks, LineFault, check_package};
use crate::room::ledger::{self, TextError};
use crate::store::{Grant, Job, JobKind};
use serde_json::{Map, Value};

/// Jobs of one caller that may wait at once. More: one caller makes the others wait longer.
const MOST_WAITING: u32 = 20;
/// How often a job is begun before it is given up: one that takes the node down would do so for ever.
const MOST_ATTEMPTS: u32 = 3;
/// How often it is written down how far a job is.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// How long a queue is left alone that nobody has said anything of: jobs of another node's, say.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Faults of a package that a job's result names; the rest is counted.
const MOST_FAULTS: usize = 100;

/// What a job and its thread tell each other.
#[derive(Debug, Default)]
pub(super) struct Told {
    permille: AtomicU16,
    pub(super) stop: Arc<AtomicBool>,
    /// The program that does the work, if one does.
    pub(super) child: Mutex<Option<std::process::Child>>,
}

impl Told {
    pub(super) fn progress(&self, done: u64, of: u64) {
        let permille = (u128::from(done) * 1_000).checked_div(u128::from(of)).unwrap_or(0).min(1_000);
        self.permille.store(u16::try_from(permille).unwrap_or(1_000), Ordering::Relaxed);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Ends the work when nobody waits for it any more.
struct StopOnDrop(Arc<Told>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
        if let Ok(mut child) = self.0.child.lock()
            && let Some(child) = child.as_mut()
        {
            // It may have ended by itself.
            let _ended = child.kill();
        }
    }
}

impl Evidence {
    /// Has a room's package checked, every byte of it.
    pub async fn verify(&self, grant: &Grant) -> Result<JobView, Error> {
        self.there_is_a_package(grant.room).await?;
        self.queue(grant, JobKind::Verify, Action::VerificationAsked).await
    }

    /// Has a room's session copy made into one composed picture.
    pub async fn export(&self, grant: &Grant, format: ExportFormat) -> Result<JobView, Error> {
        self.there_is_a_package(grant.room).await?;
        let Place::Package(_) = self.place(grant.room).await? else { return Err(Error::NotSealed) };
        self.queue(grant, format.kind(), Action::ExportAsked).await
    }

    /// A job.
    pub async fn job(&self, id: JobId) -> Result<JobView, Error> {
        self.0.store.job(id).await?.map(JobView::from).ok_or(Error::UnknownJob)
    }

    async fn queue(&self, grant: &Grant, kind: JobKind, action: Action) -> Result<JobView, Error> {
        let now = self.now();
        let id = JobId::new(now);
        let noted = detail([
            ("access", grant.id.to_string().into()),
            ("job", id.to_string().into()),
            ("kind", serde_json::to_value(kind).unwrap_or_default()),
        ]);
        let access = access_of(&grant.caller, action, Some(grant.room), &grant.reason, noted);
        if !self.0.store.add_job(id, kind, &access, grant.room, MOST_WAITING, now).await? {
            return Err(Error::TooManyJobs(MOST_WAITING));
        }
        self.0.queued.notify_one();
        self.job(id).await
    }

    /// Does jobs, for as long as it runs.
    pub async fn work(self) {
        self.sweep_exports().await;
        let given_up = "the server stopped each time that it was tried";
        if let Err(error) = self.0.store.requeue_jobs(MOST_ATTEMPTS, given_up, self.now()).await {
            tracing::error!(%error, "jobs that were under way could not be queued again");
        }
        loop {
            match self.work_once().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the database does not say which jobs wait"),
            }
            // Woken or not, it is looked again.
            let _woken = tokio::time::timeout(LOOK_EVERY, self.0.queued.notified()).await;
        }
    }

    /// Does the job that has waited longest; says whether there was one.
    pub(super) async fn work_once(&self) -> Result<bool, Error> {
        let Some(job) = self.0.store.begin_job(self.now()).await? else { return Ok(false) };
        let outcome = self.run(&job).await;
        if let Err(error) = &outcome {
            tracing::warn!(job = %job.id, room = %job.room, error, "a job failed");
        }
        let outcome = outcome.as_ref().map_err(String::as_str);
        self.0.store.end_job(job.id, outcome, self.now()).await?;
        Ok(true)
    }

    async fn run(&self, job: &Job) -> Result<Map<String, Value>, String> {
        let told = Arc::new(Told::default());
        let _stop = StopOnDrop(Arc::clone(&told));
        let work = async {
            let done = match job.kind {
                JobKind::Verify => self.check(job.room, Arc::clone(&told)).await,
                JobKind::ExportWebm => self.compose(job, ExportFormat::Webm, Arc::clone(&told)).await,
                JobKind::ExportMp4 => self.compose(job, ExportFormat::Mp4, Arc::clone(&told)).await,
            };
            done.map_err(|failure| match failure {
                Failure::Said(text) => text,
                Failure::Error(Error::Unavailable(fault)) => {
                    tracing::error!(job = %job.id, %fault, "a job failed");
                    "something went wrong on the server; its log says what".into()
                }
                Failure::Error(error) => error.to_string(),
            })
        };
        tokio::pin!(work);
        let mut written = 0;
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(TOLD_EVERY) => {}
            }
            let permille = told.permille.load(Ordering::Relaxed);
            if permille == written {
                continue;
            }
            written = permille;
            if let Err(error) = self.0.store.job_progress(job.id, permille, self.now()).await {
                tracing::warn!(%error, "how far a job is could not be written down");
            }
        }
    }

    /// Checks a package, or a room's originals if it is not sealed yet.
    async fn check(&self, room: RoomId, told: Arc<Told>) -> Result<Map<String, Value>, Failure> {
        let prefix = match self.place(room).await? {
            Place::Package(prefix) => prefix,
            Place::Folder(folder) => {
                let checked = blocking(move || {
                    crate::recording::verify(&folder, |done, of| told.progress(done, of))
                        .map_err(|error| error.to_string())
                });
                return Ok(match checked.await? {
                    Ok(report) => detail([("verified", true.into()), ("files", report.files.len().into())]),
                    Err(fault) => detail([("verified", false.into()), ("fault", fault.into())]),
                });
            }
        };
        let key = self.session_key(room).await?;
        let (files, signing) = (self.stored(prefix, Arc::clone(&told.stop)), Arc::clone(&self.0.signing));
        let report = blocking(move || {
            let checks =
                Checks { key: signing.public(), session_key: key.as_ref(), authority: None, ledger: &check_ledger };
            check_package(&files, &checks, &mut |done, of| told.progress(done, of))
        });
        let report = report.await?;
        let mut result = detail([
            ("verified", report.faults.is_empty().into()),
            ("files", report.files.into()),
            ("bytes", report.bytes.into()),
        ]);
        let mut faults = report.faults.iter().map(ToString::to_string);
        if let Some(first) = faults.next() {
            let rest: Vec<_> = faults.take(MOST_FAULTS).collect();
            result.insert("fault".into(), first.into());
            result.insert("more_faults".into(), rest.into());
        }
        Ok(result)
    }
}

/// Why a job was not done.
pub(super) enum Failure {
    /// For whoever asked for it.
    Said(String),
    /// As requests are told.
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn check_ledger(text: &str) -> Result<ChainFacts, LineFault> {
    let head = ledger::verify_text(text).map_err(|error| {
        let line = match &error {
            TextError::Unreadable { seq, .. } | TextError::NotARoom { seq } => *seq,
            TextError::Changed(changed) => changed.seq,
            TextError::Empty | TextError::NotJson(_) => 1,
        };
        LineFault { line, reason: error.to_string() }
    })?;
    Ok(ChainFacts { lines: head.seq, head: head.hash })
}
