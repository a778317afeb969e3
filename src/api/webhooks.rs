//! For booking systems: what they were told, what did not arrive, and telling it again.

use axum::Json as JsonBody;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::auth::{self, Key};
use super::booking::within;
use super::extract::{Path, Query};
use super::problem::Problem;
use crate::control::{MessageState, WebhookPage, WebhookView};
use crate::id::MessageId;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_webhooks)).routes(routes!(show_webhook)).routes(routes!(replay_webhook))
}

/// Which webhooks to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct WebhookParameters {
    /// Only those that stand so.
    pub state: Option<MessageState>,
    /// Most webhooks of a page, 1 to 200; 50, if it is left out.
    #[param(example = 50, minimum = 1, maximum = 200)]
    pub limit: Option<u16>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<MessageId>,
}

/// List webhooks
///
/// In the order in which they were written. `parked` are those that were given up after three days.
#[utoipa::path(get, path = "/v1/webhooks", tag = "booking", security(("booking key" = [])), params(WebhookParameters),
    responses((status = 200, description = "A page of webhooks", body = WebhookPage)))]
async fn list_webhooks(
    _: Key<auth::Booking>,
    State(api): State<Api>,
    Query(asked): Query<WebhookParameters>,
) -> Result<JsonBody<WebhookPage>, Problem> {
    let limit = within("limit", asked.limit, 50, 200)?;
    Ok(JsonBody(api.control.webhooks(asked.state, asked.cursor, limit.into()).await?))
}

/// Show a webhook
#[utoipa::path(get, path = "/v1/webhooks/{webhook}", tag = "booking", security(("booking key" = [])),
    params(("webhook" = MessageId, Path, description = "The webhook")),
    responses((status = 200, description = "The webhook and how its delivery stands", body = WebhookView)))]
async fn show_webhook(
    _: Key<auth::Booking>,
    State(api): State<Api>,
    Path(webhook): Path<MessageId>,
) -> Result<JsonBody<WebhookView>, Problem> {
    Ok(JsonBody(api.control.webhook(webhook).await?))
}

/// Send a webhook again
///
/// With the same id and body, whatever became of it before; tried for three days from now on. The room's later ones
/// wait until it has arrived or was given up.
#[utoipa::path(post, path = "/v1/webhooks/{webhook}/replay", tag = "booking", security(("booking key" = [])),
    params(("webhook" = MessageId, Path, description = "The webhook")),
    responses((status = 202, description = "It will be sent", body = WebhookView)))]
async fn replay_webhook(
    _: Key<auth::Booking>,
    State(api): State<Api>,
    Path(webhook): Path<MessageId>,
) -> Result<(StatusCode, JsonBody<WebhookView>), Problem> {
    Ok((StatusCode::ACCEPTED, JsonBody(api.control.replay_webhook(webhook).await?)))
}
