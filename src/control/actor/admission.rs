//! What participants and booking systems ask of a room's actor: codes, places and media connections.

use jiff::{SignedDuration, Timestamp};

use super::super::seam::{Media, Recording};
use super::super::secrets::{new_code, new_session};
use super::super::session_views::{Caller, Connection, Session};
use super::super::views::{BookingParticipant, Delivery, Invitation, ReissuedCode};
use super::super::{Error, Expected, booking, invite, unavailable};
use super::{Actor, Consequences};
use crate::id::{ConnectionId, MessageId, ParticipantId};
use crate::room::Command;
use crate::store::{Change, Hash, Secret, SettledText};

/// How long a text message with a new code is tried in a room that is open past its end.
const OVERRUN: SignedDuration = SignedDuration::from_mins(30);

impl<M: Media, R: Recording> Actor<M, R> {
    pub(super) async fn try_code(
        &mut self,
        participant: ParticipantId,
        code: &Secret,
        take_over: bool,
    ) -> Result<Session, Error> {
        self.store_backlog().await?;
        self.count_attempts().await?;
        self.room.may_try_code(self.now(), participant)?;
        let typed: String = code.expose().chars().filter(|c| !c.is_whitespace()).collect();
        let digits = self.room.profile().code_digits;
        if typed.len() != usize::from(digits) || !typed.bytes().all(|byte| byte.is_ascii_digit()) {
            // It cannot be anybody's code: a slip of the hand does not cost an attempt.
            return Err(booking::invalid("code", format!("{digits} digits")));
        }
        let person = self.person(participant)?;
        let right = self.shared.settings.code_key.matches(participant, &typed, &person.code);
        if right && person.session.is_some() && !take_over {
            // Whoever reads the link and the SMS over someone's shoulder does not throw them out unnoticed.
            return Err(Error::OtherDevice);
        }
        let session_token = new_session().map_err(Error::Unavailable)?;
        let token = Hash::of_token(session_token.expose());
        let change = Change::SessionStarted { participant, token };
        let changes = if right { vec![change] } else { Vec::new() };
        let tried = Consequences { changes, messages: Vec::new() };
        let counted = self.decide(Command::TryCode { participant, right }, tried).await;
        if !right && matches!(counted, Err(Error::Unavailable(_))) {
            self.uncounted.push(participant);
        }
        counted?;
        // An earlier session of the same person, on whatever device, is over.
        self.end_subscriptions(participant);
        self.stage.disconnect_person(participant).await;
        Ok(Session { session_token, room_id: self.room.id(), participant_id: participant })
    }

    /// Writes down what became of a text message, unless a new one has taken its place.
    pub(super) async fn message_settled(&mut self, id: MessageId) -> Result<(), Error> {
        let settled = self.shared.store.settled_text(id).await.map_err(unavailable)?;
        let Some(SettledText { participant, sent }) = settled else { return Ok(()) };
        let told = if sent { Command::MessageSent { participant } } else { Command::MessageFailed { participant } };
        self.decide(told, Consequences::default()).await
    }

    /// Stores the wrong attempts that the database did not take when they were made.
    async fn count_attempts(&mut self) -> Result<(), Error> {
        while let Some(participant) = self.uncounted.pop() {
            let wrong = Command::TryCode { participant, right: false };
            // Any other refusal is that of a wrong code: it is counted.
            if let Err(error @ Error::Unavailable(_)) = self.decide(wrong, Consequences::default()).await {
                self.uncounted.push(participant);
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) async fn reissue_code(
        &mut self,
        participant: ParticipantId,
        expected: Expected,
    ) -> Result<(ReissuedCode, u64), Error> {
        self.store_backlog().await?;
        self.expect(expected)?;
        // What was typed wrong was the old code.
        self.uncounted.retain(|missed| *missed != participant);
        let person = self.person(participant)?;
        let code = new_code(self.room.profile().code_digits).map_err(Error::Unavailable)?;
        let hash = self.shared.settings.code_key.hash(participant, code.expose());
        let messages =
            self.shared.settings.text_message(self.now(), &self.appointment, self.last_use(), person, &code)?;
        let delivery = Delivery::of(&messages);
        let changes = vec![Change::Code { participant, code: hash }];
        self.decide(Command::ReissueCode { participant }, Consequences { changes, messages }).await?;
        Ok((ReissuedCode { code: delivery.is_none().then_some(code), message: delivery }, self.head.seq))
    }

    pub(super) async fn replace(
        &mut self,
        participant: ParticipantId,
        by: BookingParticipant,
        expected: Expected,
    ) -> Result<(Invitation, u64), Error> {
        self.store_backlog().await?;
        self.expect(expected)?;
        let role = self.person(participant)?.role;
        if by.role != role {
            return Err(booking::invalid("role", format!("the role of the person who is replaced: {role}")));
        }
        let now = self.now();
        let settings = &self.shared.settings;
        let (person, mut invitation, code) =
            invite::invite(settings, now, self.room.profile(), booking::check_person(by)?)?;
        let messages = settings.text_message(now, &self.appointment, self.last_use(), &person, &code)?;
        invitation.told(&messages);
        let command = Command::Replace { participant, by: person.id };
        let changes = vec![Change::Replaced { participant, by: Box::new(person) }];
        self.decide(command, Consequences { changes, messages }).await?;
        self.end_subscriptions(participant);
        Ok((invitation, self.head.seq))
    }

    pub(super) async fn connect(&mut self, caller: &Caller, offer: String) -> Result<Connection, Error> {
        self.check(caller)?;
        self.store_backlog().await?;
        self.room.may_connect(caller.participant)?;
        self.stage.open(self.need()).await?;
        let connection = ConnectionId::new(self.now().wall);
        let answer = self.stage.connect(connection, caller.participant, caller.role, offer).await?;
        Ok(Connection { connection, answer })
    }

    pub(super) async fn restart_ice(
        &mut self,
        caller: &Caller,
        connection: ConnectionId,
        fragment: String,
    ) -> Result<Option<String>, Error> {
        self.check(caller)?;
        self.stage.check_owner(connection, caller.participant)?;
        self.stage.restart_ice(connection, fragment).await
    }

    pub(super) async fn disconnect(&mut self, caller: &Caller, connection: ConnectionId) -> Result<(), Error> {
        self.check(caller)?;
        self.stage.check_owner(connection, caller.participant)?;
        self.stage.disconnect(connection).await;
        Ok(())
    }

    /// Later than this a code opens nothing.
    fn last_use(&self) -> Timestamp {
        let overrun = self.room.is_open().then(|| self.now().wall.saturating_add(OVERRUN).unwrap_or(Timestamp::MAX));
        let end = self.room.extension_until().unwrap_or(self.room.end());
        overrun.map_or(end, |overrun| end.max(overrun))
    }
}
