//! The HTTP API, by audience: [`booking`] systems, [`operator`]s, [`participant`]s with their [`media`] and
//! [`events`], [`compliance`], and those who run the node ([`system`]).
//!
//! Bodies are `control`'s views; errors are [`problem`] documents. The OpenAPI document is made from the same code
//! that answers, and served at `/v1/openapi.json`.

pub mod auth;
pub mod booking;
pub mod compliance;
pub mod compliance_files;
pub mod conditional;
pub mod documents;
pub mod events;
pub mod extract;
mod layers;
pub mod limits;
pub mod media;
pub mod oidc;
pub mod operator;
pub mod participant;
pub mod problem;
pub mod system;
pub mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, header};
use axum::middleware::from_fn_with_state;
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::get;
use tokio::sync::watch;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config as PageConfig, SwaggerUi};

pub use layers::finish;

use self::limits::Limits;
use self::oidc::Oidc;
use crate::clock::Clock;
pub use crate::control::Secret;
use crate::control::{Control, HeadsWebhook, Scope, Webhook};
use crate::evidence::{DestroyedWebhook, Evidence, SealedWebhook};

/// Largest JSON body, bytes: a booking with ten people is under 8 KiB. Larger only helps who wants our memory.
const JSON_LIMIT: usize = 64 << 10;
/// Largest SDP body, bytes: browsers' offers with every codec and 32 m-lines were seen at 104 kB.
const SDP_LIMIT: usize = 128 << 10;

/// What every handler can reach.
#[derive(Clone)]
pub struct Api {
    control: Control,
    evidence: Evidence,
    clock: Clock,
    /// Whose bearer tokens are taken besides API keys, if anybody's.
    oidc: Option<Oidc>,
    limits: Limits,
    render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Becomes true when the node stops: connections that would never end by themselves are closed then.
    stopping: watch::Receiver<bool>,
}

impl Api {
    /// An API over `control` and `evidence`. `render_metrics` gives `GET /metrics` its text.
    pub fn new(
        control: Control,
        evidence: Evidence,
        clock: Clock,
        oidc: Option<Oidc>,
        limits: Limits,
        render_metrics: impl Fn() -> String + Send + Sync + 'static,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self { control, evidence, clock, oidc, limits, render_metrics: Arc::new(render_metrics), stopping }
    }
}

/// The API's routes. Whoever serves them puts [`finish`] around all routes of the server.
pub fn routes(api: Api) -> Router {
    let (router, document) = described_routes();
    let document = document.to_json().unwrap_or_default();
    let serve_document = async move || ([(header::CONTENT_TYPE, "application/json")], document);
    let limits = from_fn_with_state(api.limits.clone(), limits::limit_wrong_tokens);
    // No validator: it is another host, and would be told our address.
    let page = PageConfig::from("/v1/openapi.json").try_it_out_enabled(false).validator_url("none");
    let page = Router::from(SwaggerUi::new("/docs").config(page)).layer(map_response(keep_to_itself));
    router.route("/v1/openapi.json", get(serve_document)).layer(limits).with_state(api).merge(page)
}

/// What the API's page may load: its own files only, and in nobody's frame, because people type keys into it. Its
/// scripts set styles.
async fn keep_to_itself(mut response: Response) -> Response {
    const POLICY: HeaderValue = HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    );
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY);
    response
}

/// The OpenAPI document of [`routes`].
pub fn openapi() -> OpenApi {
    described_routes().1
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Sportello",
        description = "Rooms for public counters: booked by REST, entered by code, recorded whole.\n\n\
            Errors are RFC 9457 problem documents; look at their `type`. Times are RFC 3339 in UTC. Every command \
            works with curl; the WebSocket only tells."
    ),
    components(schemas(problem::Document, Webhook, HeadsWebhook, SealedWebhook, DestroyedWebhook)),
    tags(
        (name = "booking", description = "For booking systems"),
        (name = "operator", description = "Running the meeting: with an operator's key, or as the room's operator"),
        (name = "participant", description = "From the join link to the room"),
        (name = "media", description = "WebRTC by one POST; WHIP and WHEP clients fit"),
        (name = "compliance", description = "Finding, reading, keeping and destroying recordings; every look is audited"),
        (name = "node", description = "For those who run the node"),
    )
)]
struct Document;

fn described_routes() -> (Router<Api>, OpenApi) {
    let json = OpenApiRouter::with_openapi(Document::openapi())
        .merge(booking::routes())
        .merge(operator::routes())
        .merge(participant::routes())
        .merge(documents::routes())
        .merge(webhooks::routes())
        .merge(compliance::routes())
        .merge(compliance_files::routes())
        .merge(events::routes())
        .merge(system::routes())
        .layer(DefaultBodyLimit::max(JSON_LIMIT));
    let media = media::routes().layer(DefaultBodyLimit::max(SDP_LIMIT));
    let (router, mut document) = json.merge(media).merge(documents::upload_routes()).split_for_parts();
    describe_security(&mut document);
    describe_problems(&mut document);
    give_headers_examples(&mut document);
    (router, document)
}

fn describe_security(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    for scope in Scope::ALL {
        let description = format!("An API key with the scope `{0}`, or an OIDC token that maps to `{0}`", scope.name());
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        components.add_security_scheme(format!("{} key", scope.name()), SecurityScheme::Http(scheme));
    }
    let session = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A participant's session token, given for the right admission code"))
        .build();
    components.add_security_scheme("session", SecurityScheme::Http(session));
}

/// Says of every operation how it can fail: which it is, follows from what it takes.
fn describe_problems(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let changes = [&mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in changes.into_iter().flatten() {
            describe_problems_of(path, operation, true);
        }
        for operation in [&mut item.get, &mut item.options].into_iter().flatten() {
            describe_problems_of(path, operation, false);
        }
    }
}

fn describe_problems_of(path: &str, operation: &mut Operation, changes: bool) {
    let mut problems = vec![("default", "A problem document says what is wrong")];
    if operation.security.is_some() {
        problems.push(("401", "No valid key or session token"));
    }
    if takes_keys(operation) || path.starts_with("/v1/join/") && changes {
        problems.push(("403", "Not allowed with this key, session or code"));
    }
    if operation.security.is_some() || path.starts_with("/v1/join/") {
        problems.push(("429", "Too many requests from this address; `Retry-After` says when to come back"));
    }
    // Leaving is always possible, and so is changing or ending a connection that stands.
    let is_step = path.starts_with("/v1/session/") && !path.ends_with('}') && !path.ends_with("/leave");
    if changes && (path.starts_with("/v1/rooms") || path.starts_with("/v1/join/") || is_step) {
        problems.push(("409", "The room does not allow it as it stands"));
    }
    if takes(operation, |parameter| parameter.name == "If-Match") {
        problems.push(("412", "The room has changed since the caller looked at it"));
    }
    if takes(operation, |parameter| parameter.parameter_in == ParameterIn::Query) {
        problems.push(("422", "A parameter is wrong"));
    }
    if takes(operation, |parameter| parameter.name == "Range") {
        problems.push(("416", "The file has no such part; `Content-Range` says how long it is"));
    }
    if path.contains('{') {
        problems.push(("404", "One of the path's parts names nothing that exists"));
    }
    if let Some(body) = &operation.request_body {
        problems.push(("400", "The body cannot be read"));
        problems.push(("413", "The body is too large"));
        problems.push(("415", "The body has another content type"));
        if matches!(body, RefOr::T(body) if body.content.contains_key("application/json")) {
            problems.push(("422", "A field is wrong"));
        }
    }
    for (status, description) in problems {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response =
            ResponseBuilder::new().description(description).content("application/problem+json", content).build();
        operation.responses.responses.entry(status.into()).or_insert_with(|| response.into());
    }
}

/// Gives every header of a response its example: the attributes of the handlers have no place for one.
fn give_headers_examples(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let operations =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch, &mut item.options];
        let responses =
            operations.into_iter().flatten().flat_map(|operation| operation.responses.responses.values_mut());
        for response in responses {
            let RefOr::T(response) = response else { continue };
            for (name, header) in &mut response.headers {
                let RefOr::T(header) = header else { continue };
                header.example = header_example(path, name).map(Into::into);
            }
        }
    }
}

fn header_example(path: &str, header: &str) -> Option<&'static str> {
    let is_media = path.starts_with("/v1/session/media");
    Some(match header {
        "Location" if is_media => "/v1/session/media/0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11",
        "Location" => "/v1/rooms/0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11",
        "ETag" if is_media => "\"Ab+/9\"",
        "ETag" => "\"17\"",
        "Content-Range" => "bytes 0-65535/48211733",
        "Accept-Post" => "application/sdp",
        "Accept-Patch" => "application/trickle-ice-sdpfrag",
        _ => return None,
    })
}

/// Whether an operation is open to keys: a participant's session may do what only sessions can, or is none.
fn takes_keys(operation: &Operation) -> bool {
    let schemes = serde_json::to_string(&operation.security).unwrap_or_default();
    Scope::ALL.iter().any(|scope| schemes.contains(&format!("{} key", scope.name())))
}

fn takes(operation: &Operation, parameter: impl Fn(&Parameter) -> bool) -> bool {
    let parameters = operation.parameters.iter().flatten();
    parameters.into_iter().any(|known| matches!(known, RefOr::T(known) if parameter(known)))
}
