//! For the people in the room: from the join link and the code to the waiting room and out again.

use axum::Json as JsonBody;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::auth::Participant;
use super::extract::{Json, OptionalJson, Path};
use super::limits::MayJoin;
use super::problem::{Kind, Problem};
use crate::control::{DevicesView, Secret, Session, SessionView, Welcome};
use crate::room::{Command, Devices};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(welcome, enter_code))
        .routes(routes!(show_session))
        .routes(routes!(consent))
        .routes(routes!(enter))
        .routes(routes!(leave))
}

/// An admission code, as it was typed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CodeEntry {
    /// The digits from the SMS.
    #[schema(value_type = String, example = "402913", min_length = 4, max_length = 32)]
    pub code: Secret,
    /// Whether this device takes over from the one that the person is in on: they must have been asked.
    #[serde(default)]
    #[schema(example = false)]
    pub take_over: bool,
}

/// Consent to the recording.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsentGiven {
    /// Version of the notice that was shown: the session's `consent_text_version`.
    #[schema(example = "2026-01")]
    pub text_version: String,
}

/// What a join link is for
///
/// Needs no key and tells no names: whoever finds a link learns an office and a time.
#[utoipa::path(get, path = "/v1/join/{token}", tag = "participant",
    params(("token" = String, Path, description = "The link's token", example = "dWqIYlYp0mPBkdJwJSDSIA")),
    responses((status = 200, description = "The appointment", body = Welcome)))]
async fn welcome(_: MayJoin, State(api): State<Api>, Path(token): Path<String>) -> Result<JsonBody<Welcome>, Problem> {
    Ok(JsonBody(api.control.welcome(&token).await?))
}

/// Enter the admission code
///
/// The right code gives a session. If the person is in on another device already, it is refused with `other-device`:
/// ask them, and say `take_over`; the earlier session then ends. A wrong code is `wrong-code` with the
/// attempts that are left, then `code-locked`. Outside the admission window nothing is compared or counted.
#[utoipa::path(post, path = "/v1/join/{token}", tag = "participant",
    params(("token" = String, Path, description = "The link's token", example = "dWqIYlYp0mPBkdJwJSDSIA")),
    request_body(content = CodeEntry, description = "The code"),
    responses((status = 200, description = "Admitted", body = Session)))]
async fn enter_code(
    _: MayJoin,
    State(api): State<Api>,
    Path(token): Path<String>,
    Json(entry): Json<CodeEntry>,
) -> Result<JsonBody<Session>, Problem> {
    Ok(JsonBody(api.control.enter_code(&token, entry.code.expose(), entry.take_over).await?))
}

/// The session as it is now
///
/// `GET /v1/session/events` tells the same after every change.
#[utoipa::path(get, path = "/v1/session", tag = "participant", security(("session" = [])),
    responses((status = 200, description = "The session", body = SessionView)))]
async fn show_session(
    Participant(caller): Participant,
    State(api): State<Api>,
) -> Result<JsonBody<SessionView>, Problem> {
    Ok(JsonBody(api.control.session_view(&caller).await?))
}

/// Agree to the recording
///
/// Consent to a notice that is not in force is refused: show the session's `consent_text_version`.
#[utoipa::path(post, path = "/v1/session/consent", tag = "participant", security(("session" = [])),
    request_body(content = ConsentGiven, description = "Which notice was agreed to"),
    responses((status = 204, description = "Noted in the ledger")))]
async fn consent(
    Participant(caller): Participant,
    State(api): State<Api>,
    Json(given): Json<ConsentGiven>,
) -> Result<StatusCode, Problem> {
    if api.control.session_view(&caller).await?.consent_text_version != given.text_version {
        return Err(Kind::CONSENT_TEXT_CHANGED.into());
    }
    let consent = Command::Consent { participant: caller.participant, text_version: given.text_version };
    api.control.command_of(Some(caller), caller.room, consent, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Enter the waiting room
///
/// «Entra nella stanza»: the devices are checked, the operator may let the person in.
#[utoipa::path(post, path = "/v1/session/enter", tag = "participant", security(("session" = [])),
    request_body(content = Option<DevicesView>, description = "What the device check found, if it is to be told"),
    responses((status = 204, description = "Waiting, or inside if let in before")))]
async fn enter(
    Participant(caller): Participant,
    State(api): State<Api>,
    OptionalJson(devices): OptionalJson<DevicesView>,
) -> Result<StatusCode, Problem> {
    if let Some(DevicesView { camera, microphone }) = devices {
        let devices = Devices { camera, microphone };
        let told = Command::DevicesChecked { participant: caller.participant, devices };
        api.control.command_of(Some(caller), caller.room, told, None).await?;
    }
    api.control
        .command_of(Some(caller), caller.room, Command::EnterWaiting { participant: caller.participant }, None)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Leave
///
/// The session stays valid: coming back needs no new code.
#[utoipa::path(post, path = "/v1/session/leave", tag = "participant", security(("session" = [])),
    responses((status = 204, description = "Left")))]
async fn leave(Participant(caller): Participant, State(api): State<Api>) -> Result<StatusCode, Problem> {
    api.control.command_of(Some(caller), caller.room, Command::Leave { participant: caller.participant }, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
