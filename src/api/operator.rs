//! For operators: running the meeting. Each command works with an operator's API key (any room) and with the
//! session token of the room's own operator.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::auth::Operator;
use super::conditional::{Changed, IfMatch, IfMatchHeader, changed};
use super::extract::{Json, Path};
use super::problem::Problem;
use crate::id::{ParticipantId, RoomId};
use crate::room::{Command, Feature, Outcome};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(open))
        .routes(routes!(admit))
        .routes(routes!(send_back))
        .routes(routes!(remove))
        .routes(routes!(attest, withdraw_attestation))
        .routes(routes!(switch_feature))
        .routes(routes!(conclude))
        .routes(routes!(extend))
}

/// On whose device someone is.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// The participant whose device shows both.
    pub beside: ParticipantId,
}

/// Whether a feature is on.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// On or off.
    #[schema(example = true)]
    pub on: bool,
}

/// How the meeting ended.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Conclusion {
    /// One of the profile's outcomes. `granted` needs the presence rule to hold now and to have held for the
    /// profile's minimum, and a recording without a hole.
    pub outcome: Outcome,
    /// Hours in which documents may still be handed in; 0: none.
    #[serde(default)]
    #[schema(example = 72, maximum = 72, default = 0)]
    pub extension_hours: u16,
}

/// For how long documents may still be handed in.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    /// Hours from the conclusion on; more than now, and at most what the profile allows.
    #[schema(example = 72, minimum = 1, maximum = 720)]
    pub hours: u16,
}

type Done = Result<Changed, Problem>;

async fn command(api: &Api, operator: Operator, room: RoomId, expected: IfMatch, command: Command) -> Done {
    let room = operator.may_run(room)?;
    Ok(changed(&api.control.command_of(operator.session(), room, command, expected.0).await?))
}

/// Open the room
///
/// The operator is in the room from then on, and may let others in. Disk space for the whole appointment is taken; if it
/// is not there, the room is not opened (`no-recording-space`): there is no meeting without a recording.
#[utoipa::path(post, path = "/v1/rooms/{room}/open", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        IfMatchHeader),
    responses((status = 204, description = "Open",
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn open(operator: Operator, State(api): State<Api>, Path(room): Path<RoomId>, expected: IfMatch) -> Done {
    command(&api, operator, room, expected, Command::Open).await
}

/// Let someone in
#[utoipa::path(post, path = "/v1/rooms/{room}/participants/{participant}/admit", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        ("participant" = ParticipantId, Path, description = "Who waits"),
        IfMatchHeader),
    responses((status = 204, description = "Inside",
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn admit(
    operator: Operator,
    State(api): State<Api>,
    Path((room, participant)): Path<(RoomId, ParticipantId)>,
    expected: IfMatch,
) -> Done {
    command(&api, operator, room, expected, Command::Admit { participant }).await
}

/// Send someone back to the waiting room
#[utoipa::path(post, path = "/v1/rooms/{room}/participants/{participant}/send-back", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        ("participant" = ParticipantId, Path, description = "Who is inside"),
        IfMatchHeader),
    responses((status = 204, description = "Waiting",
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn send_back(
    operator: Operator,
    State(api): State<Api>,
    Path((room, participant)): Path<(RoomId, ParticipantId)>,
    expected: IfMatch,
) -> Done {
    command(&api, operator, room, expected, Command::SendBack { participant }).await
}

/// Remove someone for good
///
/// Their session ends, and their link and code are void.
#[utoipa::path(post, path = "/v1/rooms/{room}/participants/{participant}/remove", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        ("participant" = ParticipantId, Path, description = "Who is removed"),
        IfMatchHeader),
    responses((status = 204, description = "Removed",
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn remove(
    operator: Operator,
    State(api): State<Api>,
    Path((room, participant)): Path<(RoomId, ParticipantId)>,
    expected: IfMatch,
) -> Done {
    command(&api, operator, room, expected, Command::Remove { participant }).await
}

/// Attest that someone sits beside another on one device
///
/// They count as present while that device's audio and video are live. Written to the ledger.
#[utoipa::path(post, path = "/v1/rooms/{room}/participants/{participant}/attest", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        ("participant" = ParticipantId, Path, description = "Who has no device of their own"),
        IfMatchHeader),
    request_body(content = Attestation, description = "On whose device they are"),
    responses((status = 204, description = "Attested",
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn attest(
    operator: Operator,
    State(api): State<Api>,
    Path((room, participant)): Path<(RoomId, ParticipantId)>,
    expected: IfMatch,
    Json(Attestation { beside }): Json<Attestation>,
) -> Done {
    command(&api, operator, room, expected, Command::Attest { participant, beside }).await
}

/// Take an attestation back
#[utoipa::path(delete, path = "/v1/rooms/{room}/participants/{participant}/attest", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        ("participant" = ParticipantId, Path, description = "Who was attested"),
        IfMatchHeader),
    responses((status = 204, description = "Withdrawn",
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn withdraw_attestation(
    operator: Operator,
    State(api): State<Api>,
    Path((room, participant)): Path<(RoomId, ParticipantId)>,
    expected: IfMatch,
) -> Done {
    command(&api, operator, room, expected, Command::WithdrawAttestation { participant }).await
}

/// Switch chat, documents or screen sharing on or off
#[utoipa::path(put, path = "/v1/rooms/{room}/features/{feature}", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room"), ("feature" = Feature, Path, description = "Which"),
        IfMatchHeader),
    request_body(content = Switch, description = "On or off"),
    responses((status = 204, description = "Switched",
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn switch_feature(
    operator: Operator,
    State(api): State<Api>,
    Path((room, feature)): Path<(RoomId, Feature)>,
    expected: IfMatch,
    Json(Switch { on }): Json<Switch>,
) -> Done {
    command(&api, operator, room, expected, Command::SetFeature { feature, on }).await
}

/// Record the outcome and end the meeting
#[utoipa::path(post, path = "/v1/rooms/{room}/conclude", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        IfMatchHeader),
    request_body(content = Conclusion, description = "How it ended"),
    responses((status = 204, description = "Concluded",
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn conclude(
    operator: Operator,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
    expected: IfMatch,
    Json(Conclusion { outcome, extension_hours }): Json<Conclusion>,
) -> Done {
    command(&api, operator, room, expected, Command::Conclude { outcome, extension_hours }).await
}

/// Give more time for documents
///
/// Only while the documents of a concluded meeting are still awaited (phase `extended`).
#[utoipa::path(post, path = "/v1/rooms/{room}/extend", tag = "operator",
    security(("operator key" = []), ("session" = [])),
    params(("room" = RoomId, Path, description = "The room"),
        IfMatchHeader),
    request_body(content = Extension, description = "For how long"),
    responses((status = 204, description = "Extended",
        headers(("ETag" = String, description = "The room's revision, for `If-Match`")))))]
async fn extend(
    operator: Operator,
    State(api): State<Api>,
    Path(room): Path<RoomId>,
    expected: IfMatch,
    Json(Extension { hours }): Json<Extension>,
) -> Done {
    command(&api, operator, room, expected, Command::Extend { hours }).await
}
