//! How a booked person gets in: their link and their code, and who sends it.

use jiff::Timestamp;

use super::secrets::{new_code, new_link};
use super::views::{BookingParticipant, Delivery, Invitation};
use super::{Error, Fault, Settings};
use crate::clock::Now;
use crate::id::{MessageId, ParticipantId};
use crate::notify::{CodeText, SmsText, sms};
use crate::room::Profile;
use crate::store::{Appointment, Hash, Language, MessageKind, NewMessage, Person, Seal, Secret};

/// How codes go out by text message.
#[derive(Clone, Debug)]
pub struct TextMessages {
    /// Seals messages while they wait: they hold codes.
    pub seal: Seal,
    /// Language of people whose booking names none.
    pub language: Language,
}

/// Makes someone's link and code; the code also by itself, for the message that may carry it.
pub(super) fn invite(
    settings: &Settings,
    now: Now,
    profile: &Profile,
    guest: BookingParticipant,
) -> Result<(Person, Invitation, Secret), Error> {
    let id = ParticipantId::new(now.wall);
    let code = new_code(profile.code_digits).map_err(Error::Unavailable)?;
    let join_token = new_link().map_err(Error::Unavailable)?;
    let join_url = Secret::new(format!("{}/join/{}", settings.public_url, join_token.expose()));
    let person = Person {
        id,
        role: guest.role,
        name: guest.name.clone(),
        fiscal_code: guest.fiscal_code,
        phone: guest.phone,
        operator_number: guest.operator_number,
        language: guest.language,
        link: Hash::of_token(join_token.expose()),
        code: settings.code_key.hash(id, code.expose()),
        session: None,
    };
    let invitation = Invitation {
        id,
        role: guest.role,
        name: guest.name,
        join_token,
        join_url,
        code: Some(code.clone()),
        message: None,
    };
    Ok((person, invitation, code))
}

impl Invitation {
    /// Leaves the code out if it went into one of these messages: whoever books then never sees it.
    pub(super) fn told(&mut self, messages: &[NewMessage]) {
        if messages.iter().any(|message| message.participant == Some(self.id)) {
            self.code = None;
            self.message = Some(Delivery::QUEUED);
        }
    }
}

impl Settings {
    /// The text message that brings someone their code; none if the booking system sends it, or if the person has no
    /// telephone: their code is then in the answer. It is not tried later than `last_use`, when the code opens nothing.
    pub(super) fn text_message(
        &self,
        now: Now,
        appointment: &Appointment,
        last_use: Timestamp,
        person: &Person,
        code: &Secret,
    ) -> Result<Vec<NewMessage>, Error> {
        let (Some(TextMessages { seal, language }), Some(phone)) = (&self.sms, &person.phone) else {
            return Ok(Vec::new());
        };
        let id = MessageId::new(now.wall);
        let told = CodeText { code, office: &appointment.office, start: appointment.start };
        let text = sms::text(person.language.unwrap_or(*language), &told);
        let sealed = SmsText { phone: phone.clone(), text }.seal(seal, id);
        Ok(vec![NewMessage {
            id,
            kind: MessageKind::Sms,
            room: appointment.id,
            participant: Some(person.id),
            subject: "code".to_owned(),
            body: sealed.map_err(|error| Error::Unavailable(Fault::Seal(error)))?,
            give_up: last_use,
        }])
    }
}
