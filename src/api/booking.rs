//! For booking systems: rooms are made, looked at and called off.

use axum::Json as JsonBody;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::auth::{self, Key};
use super::extract::{Json, Path};
use super::problem::Problem;
use crate::control::{self, LedgerLine, RoomView, Secret};
use crate::id::{ParticipantId, RoomId};
use crate::room::Command;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(create_room))
        .routes(routes!(show_room))
        .routes(routes!(cancel_room))
        .routes(routes!(show_ledger))
        .routes(routes!(reissue_code))
}

/// A re-issued admission code.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct ReissuedCode {
    /// The new code, digits; the old one is void.
    #[schema(example = "719340")]
    pub code: Secret,
}

/// Book a room
///
/// Answers with one join link and one admission code per participant: they are told here and never again. Send
/// links and codes over different channels: the link identifies, the code admits.
#[utoipa::path(post, path = "/v1/rooms", tag = "booking", security(("booking key" = [])),
    request_body(content = control::Booking, description = "The appointment and who takes part"),
    responses((status = 201, description = "Booked", body = control::Booked,
        headers(("Location" = String, description = "The room's address")))))]
async fn create_room(
    _: Key<auth::Booking>,
    State(api): State<Api>,
    Json(booking): Json<control::Booking>,
) -> Result<(StatusCode, [(HeaderName, String); 1], JsonBody<control::Booked>), Problem> {
    let booked = api.control.create_room(booking).await?;
    let location = format!("/v1/rooms/{}", booked.room.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], JsonBody(booked)))
}

/// Show a room
#[utoipa::path(get, path = "/v1/rooms/{room}", tag = "booking",
    security(("booking key" = []), ("operator key" = [])),
    params(("room" = RoomId, Path, description = "The room")),
    responses((status = 200, description = "The room as it is now", body = RoomView)))]
async fn show_room(
    _: Key<auth::RoomReader>,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
) -> Result<JsonBody<RoomView>, Problem> {
    Ok(JsonBody(api.control.room(room).await?))
}

/// Cancel a room
///
/// Possible until the meeting has begun (phases `scheduled` and `waiting`); everyone who waits is told.
#[utoipa::path(post, path = "/v1/rooms/{room}/cancel", tag = "booking", security(("booking key" = [])),
    params(("room" = RoomId, Path, description = "The room")),
    responses((status = 204, description = "Cancelled")))]
async fn cancel_room(
    _: Key<auth::Booking>,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
) -> Result<StatusCode, Problem> {
    api.control.command(room, Command::Cancel).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Show a room's ledger
///
/// Everything that happened in the room, oldest first. Each line's hash covers the one before it. People appear by
/// their participant ids.
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
        ("participant" = ParticipantId, Path, description = "Whose code")),
    responses((status = 200, description = "The new code, told this once", body = ReissuedCode)))]
async fn reissue_code(
    _: Key<auth::Booking>,
    State(api): State<Api>,
    Path((room, participant)): Path<(RoomId, ParticipantId)>,
) -> Result<JsonBody<ReissuedCode>, Problem> {
    Ok(JsonBody(ReissuedCode { code: api.control.reissue_code(room, participant).await? }))
}
