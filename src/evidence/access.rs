//! Accesses and what compliance decides: to hold, to keep until a date.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};

use super::{Error, Evidence, Fault, OpenedAccess, access_of, detail};
use crate::audit::{Action, Line};
use crate::id::{AccessId, RoomId};
use crate::room::ledger;
use crate::store::{Grant, Hash, PackageState, Secret, StoredPackage};

/// How long an access is open. Longer: a token that gets lost opens for longer. Shorter: a long recording is not watched
/// to its end.
const OPEN_FOR: SignedDuration = SignedDuration::from_hours(1);

/// Random bytes of an access token.
const TOKEN_BYTES: usize = 32;

/// Longest reason, characters.
const LONGEST_REASON: usize = 500;

impl Evidence {
    /// Opens an access to a room's recordings, for an hour. The token is told this once.
    pub async fn open_access(&self, caller: &str, room: RoomId, why: &str) -> Result<OpenedAccess, Error> {
        let reason = reason(why)?;
        self.must_be_known(room).await?;
        let mut bytes = [0; TOKEN_BYTES];
        rand::fill(&mut bytes).map_err(|_| Error::Unavailable(Fault::Random))?;
        let token = Secret::new(URL_SAFE_NO_PAD.encode(bytes));
        let now = self.now();
        let expires = now.saturating_add(OPEN_FOR).unwrap_or(Timestamp::MAX);
        let (id, caller) = (AccessId::new(now), caller.to_owned());
        let noted = detail([("access", id.to_string().into()), ("expires", expires.to_string().into())]);
        let access = access_of(&caller, Action::AccessOpened, Some(room), &reason, noted);
        let grant = Grant { id, room, caller, reason, expires };
        self.0.store.open_access(&grant, Hash::of_token(token.expose()), &access, now).await?;
        Ok(OpenedAccess { id, token, expires })
    }

    /// The access that a token opens, if it is for this room and, when the caller is known, theirs.
    ///
    /// A media element in a page names no caller: there the token alone is what whoever opened it holds.
    pub async fn grant(&self, token: &str, caller: Option<&str>, room: RoomId) -> Result<Grant, Error> {
        let grant = self.0.store.access(Hash::of_token(token), self.now()).await?.ok_or(Error::NoAccess)?;
        if grant.room != room || caller.is_some_and(|caller| caller != grant.caller) {
            return Err(Error::NoAccess);
        }
        Ok(grant)
    }

    /// A room's ledger, oldest line first.
    pub async fn ledger(&self, grant: &Grant) -> Result<Vec<ledger::Line>, Error> {
        self.note(grant, Action::LedgerRead, detail([])).await?;
        Ok(self.0.store.ledger(grant.room).await?)
    }

    /// Everything that was ever done with a room's recordings, oldest line first: this look is the last.
    pub async fn history(&self, grant: &Grant) -> Result<Vec<Line>, Error> {
        self.note(grant, Action::AccessesRead, detail([])).await?;
        Ok(self.0.store.accesses(grant.room).await?)
    }

    /// Puts a room's recordings on hold: nothing destroys them until it is lifted.
    pub async fn hold(&self, caller: &str, room: RoomId, why: &str) -> Result<(), Error> {
        let access = access_of(caller, Action::HoldPlaced, Some(room), &reason(why)?, detail([]));
        if self.0.store.hold_package(&access, room, self.now()).await? {
            return Ok(());
        }
        self.there_is_a_package(room).await.map(drop)
    }

    /// Lifts the hold.
    pub async fn lift_hold(&self, grant: &Grant) -> Result<(), Error> {
        let noted = detail([("access", grant.id.to_string().into())]);
        let access = access_of(&grant.caller, Action::HoldLifted, Some(grant.room), &grant.reason, noted);
        if self.0.store.lift_hold(&access, grant.room, self.now()).await? {
            return Ok(());
        }
        self.there_is_a_package(grant.room).await?;
        Err(Error::NotHeld)
    }

    /// Sets until when a room's recordings are kept; `None`: until someone sets a date.
    pub async fn set_retention(
        &self,
        caller: &str,
        room: RoomId,
        until: Option<Timestamp>,
        why: &str,
    ) -> Result<(), Error> {
        let written = until.map_or(serde_json::Value::Null, |until| until.to_string().into());
        let access = access_of(caller, Action::RetentionSet, Some(room), &reason(why)?, detail([("until", written)]));
        if self.0.store.set_retention(&access, room, until, self.now()).await? {
            return Ok(());
        }
        self.there_is_a_package(room).await.map(drop)
    }

    /// A room's package that was not destroyed.
    pub(super) async fn there_is_a_package(&self, room: RoomId) -> Result<StoredPackage, Error> {
        match self.0.store.package(room).await? {
            Some(package) if package.state == PackageState::Destroyed => Err(Error::Destroyed),
            Some(package) => Ok(package),
            None => Err(if self.0.store.was_recorded(room).await? { Error::NotOver } else { Error::UnknownRecording }),
        }
    }

    /// Something of the room was recorded, even if it is destroyed by now.
    ///
    /// # Errors
    /// [`Error::UnknownRecording`].
    pub async fn must_be_known(&self, room: RoomId) -> Result<(), Error> {
        // A meeting that goes on and is not encrypted has nothing but its folder yet.
        if self.0.store.was_recorded(room).await? || self.place(room).await.is_ok() {
            return Ok(());
        }
        Err(Error::UnknownRecording)
    }
}

/// Why somebody looks: a line of text. Without one nobody does.
pub(super) fn reason(text: &str) -> Result<String, Error> {
    line("reason", text, LONGEST_REASON)
}

/// One line of text: trimmed, not empty, without control characters, and without the marks that turn the writing
/// direction.
pub(super) fn line(field: &'static str, text: &str, longest: usize) -> Result<String, Error> {
    let invalid = |reason: String| Err(Error::Invalid { field, reason });
    let text = text.trim();
    if text.is_empty() {
        return invalid("must not be empty".into());
    }
    if text.chars().count() > longest {
        return invalid(format!("at most {longest} characters"));
    }
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.chars().any(|c| c.is_control() || turns(c)) {
        return invalid("must not hold control characters".into());
    }
    Ok(text.to_owned())
}
