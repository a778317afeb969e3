//! What people exchanged besides voice and picture, as it goes into a package: documents, receipts, messages. All of it is
//! encrypted like the recordings, since all of it is somebody's.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use serde::Serialize;

use super::build::{BuildError, Job, failed, make_folder};
use super::story::Story;
use crate::id::ParticipantId;
use crate::recording::manifest::DocumentFacts;
use crate::register::{Entry, Receipt, protocol, receipt};
use crate::room::{Document, DocumentState};
use crate::store::{Personal, RegistrationState};
use crate::vault::FixedWriter;

/// The messages' file.
const CHAT: &str = "chat.jsonl";

/// A line of the messages' file. The ledger holds the SHA-256 of each text.
#[derive(Serialize)]
struct ChatLine<'a> {
    number: u64,
    participant: ParticipantId,
    at: jiff::Timestamp,
    text: &'a Personal,
}

/// Brings documents, receipts and messages into the package's folder, and takes out what was deleted since.
pub(super) fn bring(job: &Job, folder: &Path, story: &Story) -> Result<(), BuildError> {
    let there: Vec<&Document> = kept(&story.documents).collect();
    bring_documents(job, &folder.join("documents"), &there)?;
    bring_receipts(job, &folder.join("receipts"), &there)?;
    let chat = folder.join(CHAT);
    if job.chat.is_empty() {
        return remove(&chat);
    }
    let mut lines = Vec::new();
    for message in &job.chat {
        let line = ChatLine {
            number: message.number,
            participant: message.participant,
            at: message.written,
            text: &message.text,
        };
        serde_json::to_writer(&mut lines, &line).map_err(|error| failed(&chat)(error.into()))?;
        lines.push(b'\n');
    }
    write(job, &chat, CHAT, &lines)
}

/// What the manifest says of the documents.
pub(super) fn facts(documents: &[Document]) -> Vec<DocumentFacts> {
    let facts = kept(documents).map(|document| DocumentFacts {
        sha256: document.sha256.clone(),
        bytes: document.bytes,
        participant: document.by,
        received: document.handed_in,
        // Nothing is taken without it.
        declared_conform: true,
        register_number: number_of(document),
    });
    facts.collect()
}

fn kept(documents: &[Document]) -> impl Iterator<Item = &Document> {
    documents.iter().filter(|document| document.state != DocumentState::Deleted)
}

fn number_of(document: &Document) -> Option<String> {
    match document.state {
        DocumentState::Registered { year, number, .. } => Some(protocol(year, number).replace('/', "-")),
        _ => None,
    }
}

fn bring_documents(job: &Job, documents: &Path, there: &[&Document]) -> Result<(), BuildError> {
    let names: BTreeSet<&str> = there.iter().map(|document| document.sha256.as_str()).collect();
    keep_only(documents, &names)?;
    for name in names {
        make_folder(documents)?;
        let to = documents.join(name);
        // What an interrupted attempt or the revision before brought is whole: it came by a rename.
        if to.exists() {
            continue;
        }
        let from = job.documents.join(name);
        let part = job.work.join("document.part");
        fs::copy(&from, &part).and_then(|_| File::open(&part)?.sync_all()).map_err(failed(&from))?;
        fs::rename(&part, &to).map_err(failed(&to))?;
    }
    Ok(())
}

fn bring_receipts(job: &Job, receipts: &Path, there: &[&Document]) -> Result<(), BuildError> {
    let named = |document: &&Document| number_of(document).map(|number| format!("{number}.pdf"));
    let names: BTreeSet<String> = there.iter().filter_map(named).collect();
    keep_only(receipts, &names.iter().map(String::as_str).collect())?;
    for document in there {
        let Some(name) = named(document) else { continue };
        let asked = job.registrations.iter().find(|asked| asked.document == document.id);
        let Some((asked, number)) = asked.and_then(|asked| match asked.state {
            RegistrationState::Registered(number) => Some((asked, number)),
            _ => None,
        }) else {
            continue;
        };
        let file_name = job.appointment.documents.iter().find(|named| named.id == document.id);
        let about = Receipt {
            entry: Entry {
                year: number.year,
                number: number.number,
                handed_in: asked.handed_in,
                entered: number.entered,
                document: document.id,
                room: job.room,
                sender: asked.sender.expose().to_owned(),
                subject: asked.subject.expose().to_owned(),
                sha256: document.sha256.clone(),
            },
            office: job.appointment.office.clone(),
            counter: job.appointment.counter.clone(),
            file_name: file_name.map(|named| named.name.expose().to_owned()).unwrap_or_default(),
        };
        make_folder(receipts)?;
        let path = receipts.join(&name);
        let pdf = receipt(&about).map_err(|error| failed(&path)(std::io::Error::other(error)))?;
        write(job, &path, &name, &pdf)?;
    }
    Ok(())
}

/// Writes a file, encrypted if the room has a key: whole under its name, or not at all.
fn write(job: &Job, path: &Path, name: &str, bytes: &[u8]) -> Result<(), BuildError> {
    let part = job.work.join("paper.part");
    let written = || {
        let file = File::create(&part)?;
        let file = if let Some(key) = job.key.as_deref() {
            let mut writer = FixedWriter::new(file, key, name)?;
            writer.write_all(bytes)?;
            writer.finish()?
        } else {
            let mut writer = BufWriter::new(file);
            writer.write_all(bytes)?;
            writer.into_inner().map_err(std::io::IntoInnerError::into_error)?
        };
        file.sync_all()?;
        fs::rename(&part, path)
    };
    written().map_err(failed(path))
}

/// Removes every file of a folder that is not among these.
fn keep_only(folder: &Path, names: &BTreeSet<&str>) -> Result<(), BuildError> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let entry = entry.map_err(failed(folder))?;
        if !entry.file_name().to_str().is_some_and(|name| names.contains(name)) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), BuildError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}
