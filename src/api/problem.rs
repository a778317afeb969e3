//! Errors as clients read them: RFC 9457 problem documents with stable types, and nothing of the node's inside.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::control::{DocumentError, Error, SlotOffer};
use crate::room::{Phase, Refusal, Role};

/// A problem document (RFC 9457), media type `application/problem+json`. Only `type`, `title` and `status` are
/// always there; `type` is what programs should look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Document {
    /// Stable name of the kind of problem, a relative reference.
    #[serde(rename = "type")]
    #[schema(example = "/problems/wrong-code")]
    pub kind: String,
    /// What kind of problem it is, in a few words; the same for every occurrence.
    #[schema(example = "The code is wrong")]
    pub title: String,
    /// HTTP status code.
    #[schema(example = 403, minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong with this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "wrong code, 4 attempts left")]
    pub detail: Option<String>,
    /// `invalid-field`: which one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "participants[1].phone")]
    pub field: Option<String>,
    /// `wrong-code`: how many more wrong codes until it is locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 4)]
    pub attempts_left: Option<u8>,
    /// `too-early`: when to come back, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-01-13T08:45:00Z")]
    pub opens_at: Option<Timestamp>,
    /// `too-late`: since when it is, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-01-13T09:30:00Z")]
    pub closed_at: Option<Timestamp>,
    /// `wrong-phase`: the room's phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// `presence-missing`: which roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["delegante"]))]
    pub missing: Option<Vec<Role>>,
    /// `presence-too-short`: for how many more seconds the rule must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 42)]
    pub seconds_left: Option<u64>,
    /// `extension-too-long`: hours that are allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 72)]
    pub longest_hours: Option<u16>,
    /// `document-unfit` and `document-type`: what is wrong with it, a stable word.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "active-content")]
    pub reason: Option<String>,
    /// `slot-not-available`: the next free slots at the same counter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_slots: Option<Vec<SlotOffer>>,
}

/// The kinds of problems: slug of `type`, status, title. Slugs never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(&'static str, StatusCode, &'static str);

#[expect(missing_docs, reason = "each is described by its title")]
impl Kind {
    pub const MALFORMED: Self = Self("malformed-request", StatusCode::BAD_REQUEST, "The request cannot be read");
    pub const BAD_OFFER: Self = Self("bad-offer", StatusCode::BAD_REQUEST, "The SDP cannot be answered");
    pub const UNAUTHENTICATED: Self =
        Self("unauthenticated", StatusCode::UNAUTHORIZED, "A valid key or session token is needed");
    pub const FORBIDDEN: Self = Self("forbidden", StatusCode::FORBIDDEN, "This key or session may not do that");
    pub const WRONG_CODE: Self = Self("wrong-code", StatusCode::FORBIDDEN, "The code is wrong");
    pub const CODE_LOCKED: Self = Self("code-locked", StatusCode::FORBIDDEN, "Too many wrong codes");
    pub const TOO_EARLY: Self = Self("too-early", StatusCode::FORBIDDEN, "Admission is not open yet");
    pub const TOO_LATE: Self = Self("too-late", StatusCode::FORBIDDEN, "Admission is closed");
    pub const REMOVED: Self = Self("removed", StatusCode::FORBIDDEN, "Removed from the room");
    pub const NOT_FOUND: Self = Self("not-found", StatusCode::NOT_FOUND, "There is nothing here");
    pub const UNKNOWN_LINK: Self = Self("unknown-link", StatusCode::NOT_FOUND, "This link is not known");
    pub const UNKNOWN_ROOM: Self = Self("unknown-room", StatusCode::NOT_FOUND, "There is no such room");
    pub const UNKNOWN_PARTICIPANT: Self =
        Self("unknown-participant", StatusCode::NOT_FOUND, "There is no such participant in this room");
    pub const UNKNOWN_CONNECTION: Self =
        Self("unknown-connection", StatusCode::NOT_FOUND, "There is no such media connection");
    pub const METHOD_NOT_ALLOWED: Self =
        Self("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "This address does not know that method");
    pub const WRONG_PHASE: Self = Self("wrong-phase", StatusCode::CONFLICT, "Not possible in the room's phase");
    pub const NOT_ADMITTED: Self = Self("not-admitted", StatusCode::CONFLICT, "The admission code comes first");
    pub const NO_CONSENT: Self = Self("no-consent", StatusCode::CONFLICT, "Consent to the recording comes first");
    pub const CONSENT_TEXT_CHANGED: Self =
        Self("consent-text-changed", StatusCode::CONFLICT, "This is not the recording notice in force");
    pub const NOT_WAITING: Self = Self("not-waiting", StatusCode::CONFLICT, "Not in the waiting room");
    pub const NOT_INSIDE: Self = Self("not-inside", StatusCode::CONFLICT, "Not let into the room");
    pub const NOT_OPEN: Self = Self("not-open", StatusCode::CONFLICT, "The operator has not opened the room");
    pub const OUTCOME_NOT_ALLOWED: Self =
        Self("outcome-not-allowed", StatusCode::CONFLICT, "The room's profile does not know this outcome");
    pub const PRESENCE_MISSING: Self =
        Self("presence-missing", StatusCode::CONFLICT, "Someone whose presence is required is missing");
    pub const PRESENCE_TOO_SHORT: Self =
        Self("presence-too-short", StatusCode::CONFLICT, "All required were not present together for long enough");
    pub const RECORDING_INCOMPLETE: Self =
        Self("recording-incomplete", StatusCode::CONFLICT, "The recording has a hole");
    pub const EXTENSION_TOO_LONG: Self =
        Self("extension-too-long", StatusCode::CONFLICT, "The document extension is too long");
    pub const EXTENSION_NOT_LONGER: Self =
        Self("extension-not-longer", StatusCode::CONFLICT, "The document extension is only made longer");
    pub const STILL_INSIDE: Self = Self("still-inside", StatusCode::CONFLICT, "Still in the room");
    pub const ALREADY_BOOKED: Self =
        Self("already-booked", StatusCode::CONFLICT, "The new participant is already booked");
    pub const CANNOT_ATTEST: Self = Self("cannot-attest", StatusCode::CONFLICT, "This cannot be attested");
    pub const DOCUMENTS_OFF: Self =
        Self("documents-off", StatusCode::CONFLICT, "The operator has not switched documents on");
    pub const CHAT_OFF: Self = Self("chat-off", StatusCode::CONFLICT, "The operator has not switched the chat on");
    pub const TOO_MANY_DOCUMENTS: Self =
        Self("too-many-documents", StatusCode::CONFLICT, "The room has too many documents");
    pub const TOO_MANY_MESSAGES: Self =
        Self("too-many-messages", StatusCode::CONFLICT, "The room has too many messages");
    pub const UNKNOWN_DOCUMENT: Self = Self("unknown-document", StatusCode::NOT_FOUND, "There is no such document");
    pub const DOCUMENT_REGISTERED: Self =
        Self("document-registered", StatusCode::CONFLICT, "The document was sent to the register and stays");
    pub const DOCUMENT_DELETED: Self = Self("document-deleted", StatusCode::GONE, "The document was deleted");
    pub const DOCUMENT_TOO_LARGE: Self =
        Self("document-too-large", StatusCode::PAYLOAD_TOO_LARGE, "A document has at most 3 MB");
    pub const DOCUMENT_TYPE: Self = Self(
        "document-type",
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "Documents are PDF, P7M, JPEG or PNG, by their content",
    );
    pub const DOCUMENT_UNFIT: Self =
        Self("document-unfit", StatusCode::UNPROCESSABLE_ENTITY, "The document cannot be taken as it is");
    pub const DOCUMENT_INFECTED: Self =
        Self("document-infected", StatusCode::UNPROCESSABLE_ENTITY, "A virus was found in the document");
    pub const ANTIVIRUS_UNAVAILABLE: Self = Self(
        "antivirus-unavailable",
        StatusCode::SERVICE_UNAVAILABLE,
        "Documents cannot be checked for viruses at the moment",
    );
    pub const CONFORMITY_MISSING: Self = Self(
        "conformity-missing",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The declaration that the document conforms to its original comes first",
    );
    pub const UNKNOWN_STEP: Self = Self("unknown-step", StatusCode::NOT_FOUND, "The profile has no such step");
    pub const OTHER_DEVICE: Self = Self(
        "other-device",
        StatusCode::CONFLICT,
        "The person is in on another device: ask whether this one takes over",
    );
    pub const SLOT_NOT_AVAILABLE: Self =
        Self("slot-not-available", StatusCode::CONFLICT, "There is no place at that time");
    pub const PRECONDITION_FAILED: Self =
        Self("precondition-failed", StatusCode::PRECONDITION_FAILED, "The room has changed since you looked at it");
    pub const IDEMPOTENCY_KEY_REUSED: Self = Self(
        "idempotency-key-reused",
        StatusCode::UNPROCESSABLE_ENTITY,
        "This Idempotency-Key was used for another request",
    );
    pub const ACCESS_REQUIRED: Self = Self(
        "access-required",
        StatusCode::FORBIDDEN,
        "An open access to this room, with a reason, comes first: yours, and not an hour old",
    );
    pub const UNKNOWN_RECORDING: Self =
        Self("unknown-recording", StatusCode::NOT_FOUND, "Nothing of that room was recorded");
    pub const UNKNOWN_FILE: Self = Self("unknown-file", StatusCode::NOT_FOUND, "There is no such file");
    pub const UNKNOWN_JOB: Self = Self("unknown-job", StatusCode::NOT_FOUND, "There is no such job");
    pub const MEETING_NOT_OVER: Self = Self("meeting-not-over", StatusCode::CONFLICT, "The meeting goes on");
    pub const NOT_SEALED: Self = Self("not-sealed", StatusCode::CONFLICT, "The recording is not sealed yet");
    pub const BEING_SEALED: Self = Self("being-sealed", StatusCode::CONFLICT, "The recording is being sealed");
    pub const ON_HOLD: Self = Self("on-hold", StatusCode::CONFLICT, "The recording is on hold");
    pub const NOT_ON_HOLD: Self = Self("not-on-hold", StatusCode::CONFLICT, "The recording is not on hold");
    pub const RETENTION_NOT_OVER: Self =
        Self("retention-not-over", StatusCode::CONFLICT, "The recording is to be kept for longer");
    pub const TOO_MANY_JOBS: Self = Self("too-many-jobs", StatusCode::CONFLICT, "Too many of your jobs wait already");
    pub const DESTROYED: Self = Self("destroyed", StatusCode::GONE, "The recording was destroyed");
    pub const RANGE_NOT_SATISFIABLE: Self =
        Self("range-not-satisfiable", StatusCode::RANGE_NOT_SATISFIABLE, "The file has no such part");
    pub const UNKNOWN_WEBHOOK: Self = Self("unknown-webhook", StatusCode::NOT_FOUND, "There is no such webhook");
    pub const TOO_MANY_REQUESTS: Self =
        Self("too-many-requests", StatusCode::TOO_MANY_REQUESTS, "Too many requests from this address");
    pub const TOO_LARGE: Self = Self("too-large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large");
    pub const UNSUPPORTED_MEDIA_TYPE: Self =
        Self("unsupported-media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "This content type is not read here");
    pub const INVALID_FIELD: Self =
        Self("invalid-field", StatusCode::UNPROCESSABLE_ENTITY, "A field of the request is wrong");
    pub const BAD_TIMES: Self = Self("bad-times", StatusCode::UNPROCESSABLE_ENTITY, "The times make no sense");
    pub const INTERNAL: Self = Self("internal", StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong here");
    pub const UNAVAILABLE: Self = Self("unavailable", StatusCode::SERVICE_UNAVAILABLE, "Not possible at the moment");
    pub const NO_RECORDING_SPACE: Self = Self(
        "no-recording-space",
        StatusCode::INSUFFICIENT_STORAGE,
        "There is no space for the recording, without which there is no meeting",
    );
    pub const TIMEOUT: Self =
        Self("timeout", StatusCode::GATEWAY_TIMEOUT, "It took too long, and may have been done all the same");
}

/// What went wrong, on its way to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    document: Box<Document>,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: Kind) -> Self {
        let Kind(slug, status, title) = kind;
        let document = Document {
            kind: format!("/problems/{slug}"),
            title: title.into(),
            status: status.as_u16(),
            ..Document::default()
        };
        Self { status, document: Box::new(document) }
    }

    /// Says what is wrong with this very request. Never with personal data or secrets.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.document.detail = Some(detail.into());
        self
    }

    /// Says which field is wrong.
    #[must_use]
    pub fn field(self, field: &str) -> Self {
        self.with(|document| document.field = Some(field.to_owned()))
    }

    fn with(mut self, fill: impl FnOnce(&mut Document)) -> Self {
        fill(&mut self.document);
        self
    }
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Self::new(kind)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => refusal.into(),
            Error::UnknownRoom => Kind::UNKNOWN_ROOM.into(),
            Error::UnknownLink => Kind::UNKNOWN_LINK.into(),
            Error::UnknownConnection => Kind::UNKNOWN_CONNECTION.into(),
            Error::Unauthenticated => Kind::UNAUTHENTICATED.into(),
            Error::Forbidden => Kind::FORBIDDEN.into(),
            Error::Invalid { field, reason } => {
                Self::new(Kind::INVALID_FIELD).detail(reason).with(|document| document.field = Some(field))
            }
            Error::OtherDevice => Kind::OTHER_DEVICE.into(),
            Error::Changed => Kind::PRECONDITION_FAILED.into(),
            Error::KeyReused => Kind::IDEMPOTENCY_KEY_REUSED.into(),
            Error::NoPlace { next } => {
                Self::new(Kind::SLOT_NOT_AVAILABLE).with(|document| document.next_slots = Some(next))
            }
            Error::NoSpace => Self::new(Kind::NO_RECORDING_SPACE).detail(error.to_string()),
            Error::Full => Self::new(Kind::UNAVAILABLE).detail(error.to_string()),
            Error::UnknownWebhook => Kind::UNKNOWN_WEBHOOK.into(),
            Error::Document(DocumentError::Unfit(unfit)) => {
                let kind = if unfit.is_other_type() { Kind::DOCUMENT_TYPE } else { Kind::DOCUMENT_UNFIT };
                Self::new(kind)
                    .detail(unfit.to_string())
                    .with(|document| document.reason = Some(unfit.slug().to_owned()))
            }
            Error::Document(DocumentError::Infected) => Kind::DOCUMENT_INFECTED.into(),
            Error::Document(DocumentError::NotScanned) => Kind::ANTIVIRUS_UNAVAILABLE.into(),
            Error::BadOffer(cause) => Self::new(Kind::BAD_OFFER).detail(cause.to_string()),
            Error::Unavailable(fault) => {
                tracing::error!(%fault, "a request could not be served");
                Kind::UNAVAILABLE.into()
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let kind = match &refusal {
            Refusal::UnknownParticipant => Kind::UNKNOWN_PARTICIPANT,
            Refusal::WrongPhase(_) => Kind::WRONG_PHASE,
            Refusal::TooEarly(_) => Kind::TOO_EARLY,
            Refusal::TooLate(_) => Kind::TOO_LATE,
            Refusal::WrongCode(_) => Kind::WRONG_CODE,
            Refusal::CodeLocked => Kind::CODE_LOCKED,
            Refusal::Removed => Kind::REMOVED,
            Refusal::NotAdmitted => Kind::NOT_ADMITTED,
            Refusal::NoConsent => Kind::NO_CONSENT,
            Refusal::NotWaiting => Kind::NOT_WAITING,
            Refusal::NotInside => Kind::NOT_INSIDE,
            Refusal::NotOpen => Kind::NOT_OPEN,
            Refusal::OutcomeNotAllowed => Kind::OUTCOME_NOT_ALLOWED,
            Refusal::PresenceMissing(_) => Kind::PRESENCE_MISSING,
            Refusal::PresenceTooShort(_) => Kind::PRESENCE_TOO_SHORT,
            Refusal::RecordingIncomplete => Kind::RECORDING_INCOMPLETE,
            Refusal::ExtensionTooLong(_) => Kind::EXTENSION_TOO_LONG,
            Refusal::ExtensionNotLonger(_) => Kind::EXTENSION_NOT_LONGER,
            Refusal::StillInside => Kind::STILL_INSIDE,
            Refusal::AlreadyBooked => Kind::ALREADY_BOOKED,
            Refusal::CannotAttest(_) => Kind::CANNOT_ATTEST,
            Refusal::BadTimes => Kind::BAD_TIMES,
            Refusal::DocumentsOff => Kind::DOCUMENTS_OFF,
            Refusal::ChatOff => Kind::CHAT_OFF,
            Refusal::TooManyDocuments(_) => Kind::TOO_MANY_DOCUMENTS,
            Refusal::TooManyMessages(_) => Kind::TOO_MANY_MESSAGES,
            Refusal::UnknownDocument => Kind::UNKNOWN_DOCUMENT,
            Refusal::DocumentRegistered => Kind::DOCUMENT_REGISTERED,
            Refusal::DocumentDeleted => Kind::DOCUMENT_DELETED,
            Refusal::UnknownStep => Kind::UNKNOWN_STEP,
        };
        Self::new(kind).detail(refusal.to_string()).with(|document| match refusal {
            Refusal::WrongPhase(phase) => document.phase = Some(phase),
            Refusal::TooEarly(at) => document.opens_at = Some(at),
            Refusal::TooLate(at) => document.closed_at = Some(at),
            Refusal::WrongCode(left) => document.attempts_left = Some(left),
            Refusal::PresenceMissing(roles) => document.missing = Some(roles),
            Refusal::PresenceTooShort(seconds) => document.seconds_left = Some(seconds),
            Refusal::ExtensionTooLong(hours) => document.longest_hours = Some(hours),
            _ => {}
        })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&*self.document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110, section 15.5.2: a 401 must say how to authenticate.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_what_the_client_needs_to_go_on() {
        let problem = Problem::from(Refusal::WrongCode(3));
        assert_eq!(problem.document.kind, "/problems/wrong-code");
        assert_eq!((problem.document.status, problem.document.attempts_left), (403, Some(3)));
        let at: Timestamp = "2026-01-13T08:45:00Z".parse().unwrap();
        assert_eq!(Problem::from(Refusal::TooEarly(at)).document.opens_at, Some(at));
    }

    #[test]
    fn absent_members_are_left_out() {
        let json = serde_json::to_value(&*Problem::new(Kind::NOT_FOUND).document).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"type": "/problems/not-found", "title": "There is nothing here", "status": 404})
        );
    }
}
