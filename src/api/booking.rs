//! For booking systems: free slots; rooms are made, found, looked at, moved and called off.

use axum::Json as JsonBody;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::auth::{self, Key};
use super::conditional::{Changed, IdempotencyKey, IdempotencyKeyHeader, IfMatch, IfMatchHeader, changed, tag};
use super::extract::{Json, Path, Query};
use super::problem::Problem;
use crate::control::{
    self, Invitation, LedgerLine, ReissuedCode, Repeatable, RoomFilter, RoomPage, RoomView, SlotOffer, SlotSearch,
};
use crate::id::{ParticipantId, RoomId};
use crate::room::{Command, Phase};

/// How far ahead slots are listed if the request does not say.
const LOOK_AHEAD: SignedDuration = SignedDuration::from_hours(14 * 24);

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_slots))
        .routes(routes!(create_room, list_rooms))
        .routes(routes!(show_room))
        .routes(routes!(reschedule_room))
        .routes(routes!(cancel_room))
        .routes(routes!(show_ledger))
        .routes(routes!(reissue_code))
        .routes(routes!(replace_participant))
}

/// Which slots to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SlotParameters {
    /// Name of the profile.
    #[param(example = "delega")]
    pub profile: String,
    /// Only this office (sede).
    #[param(example = "Roma")]
    pub office: Option<String>,
    /// Only this counter (sportello).
    #[param(example = "Deleghe")]
    pub counter: Option<String>,
    /// Only slots that begin at or after this, RFC 3339; now, if it is left out.
    #[param(example = "2026-01-13T00:00:00Z")]
    pub from: Option<Timestamp>,
    /// Only slots that begin before this, RFC 3339; 14 days after `from`, if it is left out; at most 366 days after.
    #[param(example = "2026-01-20T00:00:00Z")]
    pub to: Option<Timestamp>,
    /// Most slots, 1 to 500; 100, if it is left out.
    #[param(example = 100, minimum = 1, maximum = 500)]
    pub limit: Option<u16>,
}

/// Which rooms to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RoomParameters {
    /// Only appointments that begin at or after this, RFC 3339.
    #[param(example = "2026-01-13T00:00:00Z")]
    pub from: Option<Timestamp>,
    /// Only appointments that begin before this, RFC 3339.
    #[param(example = "2026-01-14T00:00:00Z")]
    pub to: Option<Timestamp>,
    /// Only this office (sede).
    #[param(example = "Roma")]
    pub office: Option<String>,
    /// Only this counter (sportello).
    #[param(example = "Deleghe")]
    pub counter: Option<String>,
    /// Only this profile.
    #[param(example = "delega")]
    pub profile: Option<String>,
    /// Only rooms in this phase.
    pub phase: Option<Phase>,
    /// Only rooms with this name of the booking system's own.
    #[param(example = "PRN-2026-000123")]
    pub reference: Option<String>,
    /// Most rooms of a page, 1 to 200; 50, if it is left out.
    #[param(example = 50, minimum = 1, maximum = 200)]
    pub limit: Option<u16>,
    /// The `next_cursor` of the page before.
    #[param(example = "MTc2ODI5NDgwMDAwMCAwMTk5YzFjMi03YjFlLTdjYzMtOWE1ZS0wZjRiN2M3ZTJkMTE")]
    pub cursor: Option<String>,
}

/// An appointment's new times.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTimes {
    /// Start of the appointment, RFC 3339; ahead.
    #[schema(example = "2026-01-15T09:00:00Z")]
    pub start: Timestamp,
    /// End of the appointment, RFC 3339; after the start, at most 24 hours later.
    #[schema(example = "2026-01-15T09:30:00Z")]
    pub end: Timestamp,
}

/// List free slots
///
/// The calendar's slots less what is booked and what the node can hold. None without a calendar: rooms may then be
/// at any time.
#[utoipa::path(get, path = "/v1/slots", tag = "booking", security(("booking key" = [])), params(SlotParameters),
    responses((status = 200, description = "Free slots, by start", body = Vec<SlotOffer>)))]
async fn list_slots(
    _: Key<auth::Booking>,
    State(api): State<Api>,
    Query(asked): Query<SlotParameters>,
) -> Result<JsonBody<Vec<SlotOffer>>, Problem> {
    let from = asked.from.unwrap_or_else(|| api.clock.now().wall);
    let search = SlotSearch {
        profile: asked.profile,
        office: asked.office,
        counter: asked.counter,
        from,
        to: asked.to.unwrap_or_else(|| from.saturating_add(LOOK_AHEAD).unwrap_or(Timestamp::MAX)),
        limit: within("limit", asked.limit, 100, 500)?.into(),
    };
    Ok(JsonBody(api.control.slots(search).await?))
}

/// Book a room
///
/// Answers with one join link and one admission code per participant: they are told here and never again. Send
/// links and codes over different channels: the link identifies, the code admits. If this server sends the codes
/// itself, the answer has the message's state in the code's place.
///
/// With an `Idempotency-Key`, the request may be repeated for 24 hours and is carried out once. Outside of the
/// calendar, or when counter or node are full, it is refused with `slot-not-available` and the next free slots; while
/// the disks are full, with `no-recording-space`.
#[utoipa::path(post, path = "/v1/rooms", tag = "booking", security(("booking key" = [])),
    params(IdempotencyKeyHeader),
    request_body(content = control::Booking, description = "The appointment and who takes part"),
    responses((status = 201, description = "Booked", body = control::Booked,
        headers(("Location" = String, description = "The room's address"),
            ("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn create_room(
    key: Key<auth::Booking>,
    State(api): State<Api>,
    IdempotencyKey(name): IdempotencyKey,
    Json(booking): Json<control::Booking>,
) -> Result<(StatusCode, [(HeaderName, String); 2], JsonBody<control::Booked>), Problem> {
    let repeatable = name.map(|name| Repeatable { caller: key.caller().to_string(), key: name });
    let booked = api.control.create_room(booking, repeatable).await?;
    let location = format!("/v1/rooms/{}", booked.room.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location), tag(booked.room.revision)], JsonBody(booked)))
}

/// List rooms
///
/// By start, a page at a time. Filters are joined by «and».
#[utoipa::path(get, path = "/v1/rooms", tag = "booking",
    security(("booking key" = []), ("operator key" = []), ("compliance key" = [])), params(RoomParameters),
    responses((status = 200, description = "A page of rooms", body = RoomPage)))]
async fn list_rooms(
    _: Key<auth::RoomLister>,
    State(api): State<Api>,
    Query(asked): Query<RoomParameters>,
) -> Result<JsonBody<RoomPage>, Problem> {
    let filter = RoomFilter {
        from: asked.from,
        to: asked.to,
        office: asked.office,
        counter: asked.counter,
        profile: asked.profile,
        phase: asked.phase,
        reference: asked.reference,
        after: None,
        limit: within("limit", asked.limit, 50, 200)?.into(),
    };
    Ok(JsonBody(api.control.rooms(filter, asked.cursor.as_deref()).await?))
}

/// Show a room
#[utoipa::path(get, path = "/v1/rooms/{room}", tag = "booking",
    security(("booking key" = []), ("operator key" = [])),
    params(("room" = RoomId, Path, description = "The room")),
    responses((status = 200, description = "The room as it is now", body = RoomView,
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn show_room(
    _: Key<auth::RoomReader>,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
) -> Result<([(HeaderName, String); 1], JsonBody<RoomView>), Problem> {
    let room = api.control.room(room).await?;
    Ok(([tag(room.revision)], JsonBody(room)))
}

/// Move a room to another time
///
/// Possible until the meeting has begun (phases `scheduled` and `waiting`). Links and codes stay valid; who was
/// admitted in the old window types the code again in the new one.
#[utoipa::path(post, path = "/v1/rooms/{room}/reschedule", tag = "booking", security(("booking key" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        IfMatchHeader),
    request_body(content = NewTimes, description = "The new times"),
    responses((status = 200, description = "Moved", body = RoomView,
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn reschedule_room(
    _: Key<auth::Booking>,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
    IfMatch(expected): IfMatch,
    Json(NewTimes { start, end }): Json<NewTimes>,
) -> Result<([(HeaderName, String); 1], JsonBody<RoomView>), Problem> {
    let room = api.control.command(room, Command::Reschedule { start, end }, expected).await?;
    Ok(([tag(room.revision)], JsonBody(room)))
}

/// Cancel a room
///
/// Possible until the meeting has begun (phases `scheduled` and `waiting`); everyone who waits is told.
#[utoipa::path(post, path = "/v1/rooms/{room}/cancel", tag = "booking", security(("booking key" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        IfMatchHeader),
    responses((status = 204, description = "Cancelled",
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn cancel_room(
    _: Key<auth::Booking>,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
    IfMatch(expected): IfMatch,
) -> Result<Changed, Problem> {
    Ok(changed(&api.control.command(room, Command::Cancel, expected).await?))
}

/// Show a room's ledger
///
/// Everything that happened in the room, oldest first. Each line's hash covers the one before it; `sportello verify`
/// checks a file of this answer. People appear by their participant ids.
#[utoipa::path(get, path = "/v1/rooms/{room}/ledger", tag = "booking",
    security(("booking key" = []), ("operator key" = []), ("compliance key" = [])),
    params(("room" = RoomId, Path, description = "The room")),
    responses((status = 200, description = "The ledger", body = Vec<LedgerLine>)))]
async fn show_ledger(
    _: Key<auth::LedgerReader>,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
) -> Result<JsonBody<Vec<LedgerLine>>, Problem> {
    Ok(JsonBody(api.control.ledger(room).await?))
}

/// Re-issue an admission code
///
/// The old code is void at once, and a locked participant may try again.
#[utoipa::path(post, path = "/v1/rooms/{room}/participants/{participant}/code", tag = "booking",
    security(("booking key" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        ("participant" = ParticipantId, Path, description = "Whose code"),
        IfMatchHeader),
    responses((status = 200, description = "The new code, told this once", body = ReissuedCode,
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn reissue_code(
    _: Key<auth::Booking>,
    State(api): State<Api>,
    Path((room, participant)): Path<(RoomId, ParticipantId)>,
    IfMatch(expected): IfMatch,
) -> Result<([(HeaderName, String); 1], JsonBody<ReissuedCode>), Problem> {
    let (code, revision) = api.control.reissue_code(room, participant, expected).await?;
    Ok(([tag(revision)], JsonBody(code)))
}

/// Put another person into a participant's place
///
/// In the same role, with a link and a code of their own; the earlier person's link, code and session are void.
/// Possible until the outcome is recorded, for someone who is not inside.
#[utoipa::path(post, path = "/v1/rooms/{room}/participants/{participant}/replace", tag = "booking",
    security(("booking key" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        ("participant" = ParticipantId, Path, description = "Who is replaced"),
        IfMatchHeader),
    request_body(content = control::BookingParticipant, description = "Who comes instead; the role must be the same"),
    responses((status = 200, description = "Replaced; link and code are told this once", body = Invitation,
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn replace_participant(
    _: Key<auth::Booking>,
    State(api): State<Api>,
    Path((room, participant)): Path<(RoomId, ParticipantId)>,
    IfMatch(expected): IfMatch,
    Json(by): Json<control::BookingParticipant>,
) -> Result<([(HeaderName, String); 1], JsonBody<Invitation>), Problem> {
    let (invitation, revision) = api.control.replace(room, participant, by, expected).await?;
    Ok(([tag(revision)], JsonBody(invitation)))
}

/// A number of things to list.
pub(super) fn within(field: &str, asked: Option<u16>, usual: u16, most: u16) -> Result<u16, Problem> {
    let number = asked.unwrap_or(usual);
    if (1..=most).contains(&number) {
        return Ok(number);
    }
    Err(control::Error::Invalid { field: field.to_owned(), reason: format!("1 to {most}") }.into())
}
