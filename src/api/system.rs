//! For those who run the node: health and metrics.

use axum::Json as JsonBody;
use axum::extract::State;
use axum::http::{HeaderName, header};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::auth::{self, Key};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(show_metrics))
}

/// Health of the node.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`: the process answers.
    #[schema(example = "ok")]
    pub status: &'static str,
}

/// Whether the process answers
#[utoipa::path(get, path = "/healthz", tag = "node",
    responses((status = 200, description = "It does", body = Health)))]
async fn health() -> JsonBody<Health> {
    JsonBody(Health { status: "ok" })
}

/// Metrics in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "node", security(("metrics key" = [])),
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain",
        example = json!("# TYPE sportello_http_requests_total counter\nsportello_http_requests_total{status=\"200\"} 17\n"))))]
async fn show_metrics(_: Key<auth::Metrics>, State(api): State<Api>) -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (api.render_metrics)())
}
