//! Documents, written messages and an operator's day, for those who ask.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan as _};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::actor::{Ask, CheckedDocument};
use super::paper_views::{ChatMessageView, ChatPage, DayAppointment, DayView, DocumentList, DocumentView};
use super::recording_key::recording_key;
use super::seam::{Media, Recording};
use super::session_views::{Caller, Session};
use super::{Control, Error, Expected, Fault, RoomFilter, unavailable};
use crate::documents::{Antivirus, DisplayName, Folder, ScanError, Unfit, check};
use crate::id::{DocumentId, RoomId};
use crate::media::DocumentKind;
use crate::register::{Entry, Receipt, receipt};
use crate::room::{Phase, Refusal};
use crate::store::{RegisterEntry, RegistrationState};

/// Uploads that are read and checked at once. More cost 3 MB of memory and a thread each.
const UPLOADS: usize = 128;
/// How long an upload waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// Rooms share so many locks for their folders of documents.
const LOCKS: usize = 64;
/// Messages of one answer.
const CHAT_PAGE: u32 = 200;
/// Appointments of one day that are told of.
const DAY_ROOMS: u32 = 500;

/// Where documents go and who looks at them.
#[derive(Clone, Debug)]
pub struct Documents {
    /// The folder of their files.
    pub folder: Folder,
    /// Who looks for viruses; `None`: nobody.
    pub antivirus: Option<Antivirus>,
}

/// What control keeps about uploads.
pub(super) struct Uploads {
    slots: Arc<Semaphore>,
    /// Bytes that are kept for one document and removed with another are the same file: one at a time.
    locks: Vec<Mutex<()>>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(UPLOADS)),
            locks: std::iter::repeat_with(Mutex::default).take(LOCKS).collect(),
        }
    }
}

impl Uploads {
    async fn lock(&self, room: RoomId) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let byte = room.as_bytes().last().copied().map_or(0, usize::from);
        match self.locks.get(byte % LOCKS) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        }
    }
}

/// The right to upload one document now.
#[derive(Debug)]
pub struct Upload {
    _turn: OwnedSemaphorePermit,
}

/// A document with its bytes.
#[derive(Debug)]
pub struct DocumentContent {
    /// What its sender's device called it.
    pub name: String,
    /// What it is.
    pub kind: DocumentKind,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why a document was not taken. The sender's fault, or what sent it.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Its content is not fit.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// A virus was found in it.
    #[error("a virus was found in it")]
    Infected,
    /// The virus scanner does not answer: nothing is taken unseen.
    #[error("documents cannot be checked for viruses at the moment")]
    NotScanned,
}

impl<M: Media, R: Recording> Control<M, R> {
    /// Asks for a turn to upload a document: before its bytes are read.
    pub async fn begin_upload(&self, caller: &Caller) -> Result<Upload, Error> {
        self.ask(caller.room, |reply| Ask::MayHandIn { caller: *caller, reply }).await?;
        let turn = Arc::clone(&self.shared.uploads.slots).acquire_owned();
        match tokio::time::timeout(TURN_WITHIN, turn).await {
            Ok(Ok(turn)) => Ok(Upload { _turn: turn }),
            _ => Err(Error::Unavailable(Fault::TooManyUploads)),
        }
    }

    /// Checks a document, keeps it and writes it down. The flag: whether it is new; the same bytes of the same person are
    /// kept once.
    pub async fn hand_in(
        &self,
        upload: Upload,
        caller: &Caller,
        name: &str,
        bytes: Bytes,
    ) -> Result<(DocumentView, bool), Error> {
        let name = DisplayName::new(name);
        let (checked, checked_name) = (bytes.clone(), name.clone());
        let kind = off_thread(move || check(&checked_name, &checked)).await?.map_err(DocumentError::from)?;
        if let Some(antivirus) = &self.shared.settings.documents.antivirus {
            antivirus.scan(&bytes).await.map_err(|error| match error {
                ScanError::Infected(signature) => {
                    tracing::warn!(room = %caller.room, signature, "a document with a virus was refused");
                    DocumentError::Infected
                }
                ScanError::Unavailable(reason) => {
                    tracing::error!(%reason, "the virus scanner does not answer: documents are refused");
                    DocumentError::NotScanned
                }
            })?;
        }
        let sha256 = hex::encode(digest(&SHA256, &bytes));
        let key = recording_key(&self.shared, caller.room).await?;
        let _alone = self.shared.uploads.lock(caller.room).await;
        let folder = self.shared.settings.documents.folder.clone();
        let (room, hash, content) = (caller.room, sha256.clone(), bytes.clone());
        off_thread(move || folder.put(room, &hash, key.as_deref(), &content)).await?.map_err(|error| kept(&error))?;
        let document = CheckedDocument {
            name: crate::store::Personal::new(name.as_str().to_owned()),
            sha256: sha256.clone(),
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            kind,
        };
        let done = self.ask(room, |reply| Ask::HandIn { caller: *caller, document, reply }).await;
        if matches!(done, Err(Error::Refused(_) | Error::Unauthenticated)) {
            let unneeded = self.ask(room, |reply| Ask::Keeps { sha256: sha256.clone(), reply }).await;
            if matches!(unneeded, Ok(false)) {
                self.remove_bytes(room, sha256).await;
            }
        }
        drop(upload);
        done
    }

    /// Takes a document back: its bytes are removed, its line stays.
    pub async fn delete_document(&self, caller: &Caller, document: DocumentId) -> Result<(), Error> {
        let _alone = self.shared.uploads.lock(caller.room).await;
        let unneeded = self.ask(caller.room, |reply| Ask::DeleteDocument { caller: *caller, document, reply }).await?;
        if let Some(sha256) = unneeded {
            self.remove_bytes(caller.room, sha256).await;
        }
        Ok(())
    }

    async fn remove_bytes(&self, room: RoomId, sha256: String) {
        let folder = self.shared.settings.documents.folder.clone();
        if let Ok(Err(error)) = off_thread(move || folder.remove(room, &sha256)).await {
            tracing::warn!(%room, %error, "a document's bytes could not be removed");
        }
    }

    /// A document's bytes, for whoever may see it; without a caller for operators.
    pub async fn document_content(
        &self,
        caller: Option<Caller>,
        room: RoomId,
        document: DocumentId,
    ) -> Result<DocumentContent, Error> {
        let file = self.ask(room, |reply| Ask::Document { caller, document, reply }).await?;
        if file.deleted {
            return Err(Refusal::DocumentDeleted.into());
        }
        let key = recording_key(&self.shared, room).await?;
        let folder = self.shared.settings.documents.folder.clone();
        let sha256 = file.sha256;
        let bytes =
            off_thread(move || folder.get(room, &sha256, key.as_deref())).await?.map_err(|error| kept(&error))?;
        Ok(DocumentContent { name: file.name.expose().to_owned(), kind: file.kind, bytes })
    }

    /// The receipt of a registered document, a PDF.
    pub async fn document_receipt(
        &self,
        caller: Option<Caller>,
        room: RoomId,
        document: DocumentId,
    ) -> Result<(String, Vec<u8>), Error> {
        let file = self.ask(room, |reply| Ask::Document { caller, document, reply }).await?;
        let found = self.shared.store.registration(document).await.map_err(unavailable)?;
        let Some((asked, number)) = found.and_then(|asked| match asked.state {
            RegistrationState::Registered(number) => Some((asked, number)),
            _ => None,
        }) else {
            return Err(Refusal::UnknownDocument.into());
        };
        let entry = Entry {
            year: number.year,
            number: number.number,
            handed_in: asked.handed_in,
            entered: number.entered,
            document,
            room,
            sender: asked.sender.expose().to_owned(),
            subject: asked.subject.expose().to_owned(),
            sha256: asked.sha256,
        };
        let name = format!("ricevuta-{}.pdf", entry.protocol().replace('/', "-"));
        let about =
            Receipt { entry, office: file.office, counter: file.counter, file_name: file.name.expose().to_owned() };
        let bytes = off_thread(move || receipt(&about)).await?.map_err(|error| {
            tracing::error!(%room, %error, "a receipt could not be made");
            Error::Unavailable(Fault::Receipt)
        })?;
        Ok((name, bytes))
    }

    /// A room's documents, for operators.
    pub async fn documents(&self, room: RoomId) -> Result<DocumentList, Error> {
        let documents = self.ask(room, |reply| Ask::Documents { reply }).await?;
        Ok(DocumentList { documents })
    }

    /// Sends a document to the register. The subject: the room's reason if none is given. The number: the room's revision.
    pub async fn register_document(
        &self,
        caller: Option<Caller>,
        room: RoomId,
        document: DocumentId,
        subject: Option<String>,
        expected: Expected,
    ) -> Result<(DocumentView, u64), Error> {
        self.ask(room, |reply| Ask::Register { caller, document, subject, expected, reply }).await
    }

    /// What is written in the room after a message.
    pub async fn chat(&self, caller: &Caller, after: u64) -> Result<ChatPage, Error> {
        let messages = self.shared.store.chat(caller.room, after, CHAT_PAGE).await.map_err(unavailable)?;
        let messages = self.ask(caller.room, |reply| Ask::ReadChat { caller: *caller, messages, reply }).await?;
        Ok(ChatPage { messages })
    }

    /// Writes a message.
    pub async fn write_message(&self, caller: &Caller, text: String) -> Result<ChatMessageView, Error> {
        self.ask(caller.room, |reply| Ask::Write { caller: *caller, text, reply }).await
    }

    /// A session of the room's operator, for whoever showed an operator's key.
    pub async fn take_seat(&self, room: RoomId) -> Result<Session, Error> {
        self.ask(room, |reply| Ask::TakeSeat { reply }).await
    }

    /// The appointments of a day in Europe/Rome; `None`: today.
    pub async fn day(&self, date: Option<Date>, office: Option<String>) -> Result<DayView, Error> {
        let zone = rome();
        let date = date.unwrap_or_else(|| self.shared.clock.now().wall.to_zoned(zone.clone()).date());
        let (from, to) = bounds(date, &zone)?;
        let filter = RoomFilter { from: Some(from), to: Some(to), office, limit: DAY_ROOMS, ..RoomFilter::default() };
        let mut appointments = Vec::new();
        for row in self.shared.store.rooms(&filter).await.map_err(unavailable)? {
            // What goes on in a room is its actor's to tell; rooms that nothing goes on in are told of by their row.
            let quiet = matches!(row.phase, Phase::Scheduled | Phase::Closed | Phase::Cancelled | Phase::Expired);
            appointments.push(if quiet {
                DayAppointment::from(row)
            } else {
                self.ask(row.id, |reply| Ask::Day { reply }).await?
            });
        }
        Ok(DayView { date, appointments })
    }

    /// The embedded register's entries of a day in Europe/Rome.
    pub async fn register_day(&self, date: Date) -> Result<Vec<Entry>, Error> {
        let (from, to) = bounds(date, &rome())?;
        let entries = self.shared.store.register_entries(from, to).await.map_err(unavailable)?;
        Ok(entries.into_iter().map(entry).collect())
    }
}

fn entry(stored: RegisterEntry) -> Entry {
    Entry {
        year: stored.number.year,
        number: stored.number.number,
        handed_in: stored.handed_in,
        entered: stored.number.entered,
        document: stored.document,
        room: stored.room,
        sender: stored.sender.expose().to_owned(),
        subject: stored.subject.expose().to_owned(),
        sha256: stored.sha256,
    }
}

/// The counters' time; UTC on a machine that knows no zones, which is an hour or two off at midnight.
fn rome() -> TimeZone {
    TimeZone::get("Europe/Rome").unwrap_or(TimeZone::UTC)
}

fn bounds(date: Date, zone: &TimeZone) -> Result<(jiff::Timestamp, jiff::Timestamp), Error> {
    let wrong = |_| super::booking::invalid("date", "a day like 2026-01-13");
    let begin = date.to_zoned(zone.clone()).map_err(wrong)?;
    let end = begin.checked_add(1.day()).map_err(wrong)?;
    Ok((begin.timestamp(), end.timestamp()))
}

fn kept(error: &std::io::Error) -> Error {
    tracing::error!(%error, "the documents' folder failed");
    Error::Unavailable(Fault::Documents)
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Unavailable(Fault::Documents))
}

/// A registration is tried again after so long at first, then twice that, up to the longest.
pub(super) const FIRST_RETRY: SignedDuration = SignedDuration::from_secs(5);
/// The longest.
pub(super) const LONGEST_RETRY: SignedDuration = SignedDuration::from_mins(10);
