//! What is exchanged in a room besides voice and picture, as its actor does it.

use aws_lc_rs::digest::{SHA256, digest};

use super::super::paper_views::{ChatMessageView, DocumentView};
use super::super::seam::{Media, Recording};
use super::super::secrets::new_session;
use super::super::session_views::{Caller, Session};
use super::super::view::DocumentFile;
use super::super::{Error, Expected, booking};
use super::{Actor, Consequences};
use crate::id::{DocumentId, ParticipantId};
use crate::media::DocumentKind;
use crate::room::{Command, DocumentState, Person, Place, Refusal, Role};
use crate::store::{Change, ChatMessage, Hash, Personal, Registration, RegistrationState};

/// Characters of a written message.
const LONGEST_MESSAGE: usize = 2_000;
/// Characters of a registered document's subject.
const LONGEST_SUBJECT: usize = 500;

/// A document that was checked and whose bytes are kept.
#[derive(Debug)]
pub(in super::super) struct CheckedDocument {
    pub(in super::super) name: Personal,
    pub(in super::super) sha256: String,
    pub(in super::super) bytes: u64,
    pub(in super::super) kind: DocumentKind,
}

impl<M: Media, R: Recording> Actor<M, R> {
    pub(super) fn may_hand_in(&self, caller: &Caller) -> Result<(), Error> {
        self.check(caller)?;
        Ok(self.room.may_hand_in(self.now().wall, caller.participant)?)
    }

    /// Takes a document in. The flag: whether it is a new one.
    pub(super) async fn hand_in(
        &mut self,
        caller: &Caller,
        checked: CheckedDocument,
    ) -> Result<(DocumentView, bool), Error> {
        self.check(caller)?;
        self.store_backlog().await?;
        let CheckedDocument { name, sha256, bytes, kind } = checked;
        let participant = caller.participant;
        if let Some(known) = self.room.same_document(participant, &sha256).map(|document| document.id) {
            self.room.may_hand_in(self.now().wall, participant)?;
            return Ok((self.view().document(known)?, false));
        }
        let document = DocumentId::new(self.now().wall);
        let changes = vec![Change::DocumentNamed { document, name }];
        let command = Command::HandIn { document, participant, sha256, bytes, kind };
        self.decide(command, Consequences { changes, messages: Vec::new() }).await?;
        Ok((self.view().document(document)?, true))
    }

    /// Takes a document back; gives its hash if its bytes are needed no more.
    pub(super) async fn delete_document(
        &mut self,
        caller: &Caller,
        document: DocumentId,
    ) -> Result<Option<String>, Error> {
        self.check(caller)?;
        let command = Command::DeleteDocument { document, participant: caller.participant };
        self.decide(command, Consequences::default()).await?;
        let sha256 = self.room.document(document).map(|document| document.sha256.clone());
        Ok(sha256.filter(|sha256| !self.keeps(sha256)))
    }

    /// Whether bytes are needed: some document that is there has them.
    pub(super) fn keeps(&self, sha256: &str) -> bool {
        self.room.people().iter().any(|person| self.room.same_document(person.id(), sha256).is_some())
    }

    /// A document for whoever may see it; a caller without a session may see all.
    pub(super) fn document(&self, caller: Option<&Caller>, id: DocumentId) -> Result<DocumentFile, Error> {
        if let Some(caller) = caller {
            self.check(caller)?;
            let removed = self.room.person(caller.participant).is_none_or(|person| person.place() == Place::Removed);
            let seen = self.room.document(id).is_some_and(|found| self.room.may_see(caller.participant, found));
            if removed || !seen {
                return Err(Refusal::UnknownDocument.into());
            }
        }
        self.view().document_file(id)
    }

    pub(super) async fn ask_registration(
        &mut self,
        caller: Option<&Caller>,
        id: DocumentId,
        subject: Option<String>,
        expected: Expected,
    ) -> Result<(DocumentView, u64), Error> {
        if let Some(caller) = caller {
            self.check(caller)?;
        }
        self.store_backlog().await?;
        self.expect(expected)?;
        let subject = subject.unwrap_or_else(|| self.appointment.reason.clone());
        let subject = booking::line("subject", &subject, LONGEST_SUBJECT)?;
        let Some(found) = self.room.document(id) else {
            // The room's rules say what is wrong first.
            self.decide(Command::AskRegistration { document: id }, Consequences::default()).await?;
            return Err(Refusal::UnknownDocument.into());
        };
        let asked = Registration {
            document: id,
            room: self.room.id(),
            sender: self.sender(found.by)?,
            subject: Personal::new(subject),
            sha256: found.sha256.clone(),
            bytes: found.bytes,
            kind: found.kind,
            handed_in: found.handed_in,
            state: RegistrationState::Asked,
            attempts: 0,
        };
        let already = matches!(found.state, DocumentState::Registering | DocumentState::Registered { .. });
        let changes = if already { Vec::new() } else { vec![Change::RegistrationAsked(Box::new(asked))] };
        self.decide(Command::AskRegistration { document: id }, Consequences { changes, messages: Vec::new() }).await?;
        self.shared.registering.notify_one();
        Ok((self.view().document(id)?, self.head.seq))
    }

    pub(super) async fn registered(&mut self, document: DocumentId, entry: Option<(i16, u64)>) -> Result<(), Error> {
        self.decide(Command::Registered { document, entry }, Consequences::default()).await
    }

    /// How the register names who handed a document in.
    fn sender(&self, participant: ParticipantId) -> Result<Personal, Error> {
        let person = self.person(participant)?;
        Ok(match &person.fiscal_code {
            Some(code) => Personal::new(format!("{} ({})", person.name.expose(), code.expose())),
            None => person.name.clone(),
        })
    }

    pub(super) async fn write(&mut self, caller: &Caller, text: String) -> Result<ChatMessageView, Error> {
        self.check(caller)?;
        self.store_backlog().await?;
        self.room.may_write(caller.participant)?;
        let text = booking::paragraph("text", &text, LONGEST_MESSAGE)?;
        let sha256 = hex::encode(digest(&SHA256, text.as_bytes()));
        let message = ChatMessage {
            number: self.room.messages() + 1,
            participant: caller.participant,
            written: self.now().wall,
            text: Personal::new(text),
        };
        let changes = vec![Change::Written(Box::new(message.clone()))];
        let command = Command::Write { participant: caller.participant, sha256 };
        self.decide(command, Consequences { changes, messages: Vec::new() }).await?;
        Ok(self.view().message_of(message))
    }

    /// Who may read what is written: whoever is or was in the room.
    pub(super) fn read_chat(&self, caller: &Caller, messages: Vec<ChatMessage>) -> Result<Vec<ChatMessageView>, Error> {
        self.check(caller)?;
        let came_in = self.room.person(caller.participant).is_some_and(Person::came_in);
        if !came_in {
            return Err(Refusal::NotInside.into());
        }
        Ok(messages.into_iter().map(|message| self.view().message_of(message)).collect())
    }

    /// A session of the room's operator without a code: who asks showed a key.
    pub(super) async fn take_seat(&mut self) -> Result<Session, Error> {
        self.store_backlog().await?;
        let operator = self.room.people().iter().find(|person| person.role() == Role::Operator);
        let participant = operator.ok_or(Refusal::UnknownParticipant)?.id();
        let session_token = new_session().map_err(Error::Unavailable)?;
        let token = Hash::of_token(session_token.expose());
        let changes = vec![Change::SessionStarted { participant, token }];
        self.decide(Command::TakeSeat { participant }, Consequences { changes, messages: Vec::new() }).await?;
        // An earlier session of the same person, on whatever device, is over.
        self.end_subscriptions(participant);
        self.stage.disconnect_person(participant).await;
        Ok(Session { session_token, room_id: self.room.id(), participant_id: participant })
    }
}
