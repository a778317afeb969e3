//! Destruction: the key first, in one row of the database, and with it every copy that there is; then the files. A signed
//! note of it remains.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::access::reason;
use super::files::blocking;
use super::{Error, Evidence, Fault, access_of, detail, webhooks};
use crate::audit::Action;
use crate::id::RoomId;
use crate::recording::package::package_name;
use crate::store::{Destruction, StoredPackage};

/// How often is looked for what is due. Longer: recordings outlive their time by as much. Shorter: more questions for
/// nothing.
const EVERY: Duration = Duration::from_mins(1);

/// Rooms that are destroyed in one round: the next round takes the rest.
const AT_ONCE: u32 = 50;

/// What a note's signature says that it is (`typ`).
pub const NOTE_TYPE: &str = "sportello-destruction+json";

/// Who destroys what is due.
const NODE: &str = "node";

/// The signed note.
#[derive(Serialize)]
struct Note<'a> {
    schema: &'static str,
    room: RoomId,
    revision: u64,
    manifest_sha256: Option<&'a str>,
    recorded_from: String,
    recorded_to: String,
    retain_until: Option<String>,
    destroyed: String,
    by: &'a str,
    reason: &'a str,
}

impl Evidence {
    /// Destroys a room's recordings: not under hold, and not before their retention is over. Returns the signed note.
    pub async fn destroy(&self, caller: &str, room: RoomId, why: &str) -> Result<String, Error> {
        let reason = reason(why)?;
        let package = self.there_is_a_package(room).await?;
        // A date that is not whole milliseconds would not be the one that is stored.
        let now = self.now();
        let now = jiff::Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
        let note = Note {
            schema: "sportello-destruction/1",
            room,
            revision: package.revision,
            manifest_sha256: package.manifest_sha256.as_deref(),
            recorded_from: package.begun.to_string(),
            recorded_to: package.ended.to_string(),
            retain_until: package.retain_until.map(|until| until.to_string()),
            destroyed: now.to_string(),
            by: caller,
            reason: &reason,
        };
        let unsigned = |error: &dyn std::fmt::Display| Error::Unavailable(Fault::Signature(error.to_string()));
        let payload = serde_json::to_vec(&note).map_err(|error| unsigned(&error))?;
        let note = self.0.signing.sign(NOTE_TYPE, &payload).map_err(|error| unsigned(&error))?;
        let access =
            access_of(caller, Action::Destroyed, Some(room), &reason, detail([("note", note.as_str().into())]));
        let message = self.0.settings.webhooks.then(|| webhooks::destroyed(room, &note, now)).flatten();
        match self.0.store.destroy_package(&access, room, &note, message.as_slice(), now).await? {
            Destruction::Done => {}
            Destruction::Gone => return Err(Error::Destroyed),
            Destruction::Held => return Err(Error::Held),
            Destruction::Kept(until) => return Err(Error::Kept(until)),
            Destruction::Busy => return Err(Error::Busy),
        }
        tracing::info!(%room, "recordings were destroyed");
        // The key is gone: what fails here is done by the next round.
        self.empty(&package).await;
        Ok(note)
    }

    /// Destroys what is due, deletes what is left of it and what nobody needs any more, for as long as it runs.
    pub async fn upkeep(self) {
        loop {
            self.tidy().await;
            tokio::time::sleep(EVERY).await;
        }
    }

    /// One round of [`Self::upkeep`].
    pub(super) async fn tidy(&self) {
        match self.0.store.packages_to_destroy(self.now(), AT_ONCE).await {
            Ok(due) => {
                for room in due {
                    match self.destroy(NODE, room, "the retention is over").await {
                        // Somebody was quicker, to hold it, say.
                        Ok(_) | Err(Error::Destroyed | Error::Held | Error::Kept(_) | Error::Busy) => {}
                        Err(error) => tracing::error!(%room, %error, "recordings that are due were not destroyed"),
                    }
                }
            }
            Err(error) => tracing::error!(%error, "the database does not say which recordings are due"),
        }
        match self.0.store.packages_to_empty(AT_ONCE).await {
            Ok(left) => {
                for package in left {
                    self.empty(&package).await;
                }
            }
            Err(error) => tracing::error!(%error, "the database does not say of which recordings files are left"),
        }
        if let Err(error) = self.forget_exports().await {
            tracing::error!(%error, "old exports were not deleted");
        }
    }

    /// Deletes the files of a destroyed package.
    async fn empty(&self, package: &StoredPackage) {
        let room = package.room;
        match self.delete_files(package).await {
            Ok(()) => {
                if let Err(error) = self.0.store.package_emptied(room, self.now()).await {
                    tracing::warn!(%room, %error, "that files are deleted could not be written down");
                }
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::error!(%room, cause, "files of destroyed recordings are left; it is tried again");
            }
        }
    }

    async fn delete_files(&self, package: &StoredPackage) -> Result<(), Error> {
        // A half-made package has its name, and no row that says so.
        let mut prefixes = vec![package_name(package.room)];
        prefixes.extend(package.prefix.clone().map(|prefix| prefix.trim_end_matches('/').to_owned()));
        prefixes.dedup();
        for prefix in prefixes {
            let deleted = self.0.objects.delete_prefix(&prefix).await;
            deleted.map_err(|error| Error::Unavailable(error.into()))?;
        }
        self.forget_exports_of(package.room).await?;
        let folders: Vec<_> =
            self.0.settings.recordings.iter().map(|folder| folder.join(package.room.to_string())).collect();
        let documents = self.0.settings.documents.join(package.room.to_string());
        let folders: Vec<_> = folders.into_iter().chain([documents]).collect();
        blocking(move || folders.iter().try_for_each(|folder| delete_folder(folder)))
            .await?
            .map_err(super::files::unreadable)
    }
}

/// Deletes a folder with everything in it; one that is not there is gone already.
pub(super) fn delete_folder(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
