//! Brings documents to the register and its answers to the rooms. What the register was asked is in the database: a
//! crash, or a register that is away, only delays it, and neither loses a document nor gives it two numbers.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::actor::Ask;
use super::papers::{FIRST_RETRY, LONGEST_RETRY};
use super::seam::{Media, Recording};
use super::{Control, Error};
use crate::register::{HttpRegister, RegisterError, Submission, register_year};
use crate::store::{Number, Registration, RegistrationState};

/// How often is looked for what became due. Shorter asks the database more often; longer lets a register that is back
/// wait.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Registrations of one round.
const ROUND: u32 = 50;

/// Which register documents go to.
#[derive(Clone, Debug)]
pub enum Register {
    /// The one in this node's database.
    Embedded,
    /// Another one, by HTTP.
    Http(HttpRegister),
}

impl<M: Media, R: Recording> Control<M, R> {
    /// Works off what the register is asked for, until the task is dropped.
    pub async fn register(self) {
        loop {
            let now = self.shared.clock.now().wall;
            match self.shared.store.registrations_due(now, ROUND).await {
                Ok(due) => {
                    for asked in due {
                        self.register_one(asked).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "what the register is asked for cannot be read"),
            }
            // Whoever asks meanwhile leaves a permit.
            tokio::select! {
                () = self.shared.registering.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn register_one(&self, asked: Registration) {
        let (document, room) = (asked.document, asked.room);
        let answer = match asked.state {
            RegistrationState::Registered(number) => Some(Some(number)),
            RegistrationState::Refused => Some(None),
            RegistrationState::Asked => self.ask_register(&asked).await,
        };
        let Some(answer) = answer else { return self.put_off(&asked).await };
        let entry = answer.map(|number| (number.year, number.number));
        let told = self.ask(room, |reply| Ask::Registered { document, entry, reply }).await;
        match told {
            Ok(()) | Err(Error::Refused(_)) => {
                let now = self.shared.clock.now().wall;
                if let Err(error) = self.shared.store.registration_told(document, now).await {
                    tracing::warn!(%room, %error, "that a room heard of a registration could not be written down");
                }
            }
            Err(error) => {
                tracing::warn!(%room, %error, "a room could not be told of a registration");
                self.put_off(&asked).await;
            }
        }
    }

    /// The register's answer, once it is written down; `None`: there is none yet.
    async fn ask_register(&self, asked: &Registration) -> Option<Option<Number>> {
        let store = &self.shared.store;
        let answer = match &self.shared.settings.register {
            Register::Embedded => {
                let now = self.shared.clock.now().wall;
                match store.enter(asked, register_year(asked.handed_in), now).await {
                    Ok(number) => Some(number),
                    Err(error) => {
                        tracing::error!(room = %asked.room, %error, "the register did not take a document; it is tried again");
                        return None;
                    }
                }
            }
            Register::Http(register) => match register.register(&submission(asked)).await {
                Ok(given) => Some(Number { year: given.year, number: given.number, entered: given.entered }),
                Err(RegisterError::Refused { .. }) => {
                    tracing::warn!(room = %asked.room, document = %asked.document, "the register refused a document");
                    None
                }
                Err(error) => {
                    tracing::warn!(room = %asked.room, %error, "the register does not answer; it is asked again");
                    return None;
                }
            },
        };
        match store.registration_answered(asked.document, answer).await {
            Ok(()) => Some(answer),
            Err(error) => {
                tracing::warn!(room = %asked.room, %error, "the register's answer could not be written down");
                None
            }
        }
    }

    async fn put_off(&self, asked: &Registration) {
        metrics::counter!("sportello_registration_retries_total").increment(1);
        let longer = 2_i32.saturating_pow(asked.attempts.min(10));
        let wait = FIRST_RETRY.saturating_mul(longer).min(LONGEST_RETRY);
        let due = later(self.shared.clock.now().wall, wait);
        if let Err(error) = self.shared.store.registration_put_off(asked.document, due).await {
            tracing::warn!(room = %asked.room, %error, "a registration could not be put off");
        }
    }
}

fn submission(asked: &Registration) -> Submission {
    Submission {
        document: asked.document,
        room: asked.room,
        handed_in: asked.handed_in,
        sender: asked.sender.expose().to_owned(),
        subject: asked.subject.expose().to_owned(),
        sha256: asked.sha256.clone(),
        bytes: asked.bytes,
        kind: asked.kind,
    }
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}
