//! News over a WebSocket: the session as it is, then after every change. It only tells; commands are REST.

use std::pin::pin;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::auth::bearer;
use super::limits::WrongToken;
use super::problem::{Kind, Problem};
use crate::control::{Control, Error, SessionMessage, Subscription, SubscriptionEnd};

/// The subprotocol that this server speaks.
const PROTOCOL: &str = "sportello.v1";
/// How browsers, which cannot set headers here, bring the session token along.
const BEARER_PROTOCOL: &str = "bearer.";

/// Time between pings. Longer: a dead client is noticed later. Shorter: more wake-ups of phones.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Pings leave at multiples of this time, milliseconds: one wake-up serves those that are due within it. Longer makes larger bursts.
const PING_ROUND: u64 = 1_000;
/// A client that answered none of so many pings in a row is gone. More: later noticed. Fewer: one bad minute of a
/// phone's network costs a reconnect.
const UNANSWERED_PINGS: u8 = 2;
/// How long one message may wait for the client's network. Longer: more memory held for clients that hang.
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// Nothing is expected from clients, so whatever they send may be small: bytes of a message.
const INCOMING_LIMIT: usize = 4 << 10;

/// The session is over: do not come back with this token (RFC 6455, section 7.4.2: 4000–4999 are ours).
const CLOSE_SESSION_ENDED: u16 = 4401;
/// Too slow; come back (IANA: 1013, try again later).
const CLOSE_TRY_AGAIN: u16 = 1013;
/// The node is stopping (RFC 6455, section 7.4.1: going away).
const CLOSE_GOING_AWAY: u16 = 1001;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(follow))
}

/// Follow the session (WebSocket)
///
/// Messages are JSON objects `SessionMessage`: `session` at once and after every change, `slots` with the complete
/// list of what the connection's receive-only m-lines show. The token comes in `Authorization`, or as a subprotocol:
/// `Sec-WebSocket-Protocol: sportello.v1, bearer.<session token>`. Closes with 4401 when the session is over, 1013
/// when the client is too slow, 1001 when the node stops.
#[utoipa::path(get, path = "/v1/session/events", tag = "participant", security(("session" = [])),
    responses((status = 101, description = "Messages follow", body = SessionMessage)))]
async fn follow(
    State(api): State<Api>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let in_protocol = token_in_protocols(&headers);
    let token = match in_protocol {
        Some(token) => token,
        None => bearer(&headers)?,
    };
    let subscription = subscribe(&api.control, token).await;
    let subscription = match subscription {
        // A browser's script never sees an HTTP status here: it is told by a close code.
        Err(Error::Unauthenticated) if in_protocol.is_some() => None,
        other => Some(other?),
    };
    let upgrade = upgrade
        .map_err(|_| Problem::new(Kind::MALFORMED).detail("this address speaks WebSocket (RFC 6455) only"))?
        .protocols([PROTOCOL])
        // Held for as long as the client is there, and filled by nobody.
        .read_buffer_size(INCOMING_LIMIT)
        .max_message_size(INCOMING_LIMIT)
        .max_frame_size(INCOMING_LIMIT);
    let is_wrong = subscription.is_none();
    let mut response = upgrade.on_upgrade(async move |mut socket| {
        let code = match subscription {
            Some(subscription) => tell(&api, &mut socket, subscription).await,
            None => Some((CLOSE_SESSION_ENDED, "the session is over")),
        };
        if let Some((code, reason)) = code {
            let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
            // A client that is gone needs no goodbye.
            let _sent = tokio::time::timeout(SEND_LIMIT, socket.send(close)).await;
        }
    });
    if is_wrong {
        response.extensions_mut().insert(WrongToken);
    }
    Ok(response)
}

async fn subscribe(control: &Control, token: &str) -> Result<Subscription, Error> {
    let caller = control.authenticate(token).await?;
    control.subscribe(&caller).await
}

/// Passes news on until either side ends; `None` if the client is gone.
async fn tell(api: &Api, socket: &mut WebSocket, mut news: Subscription) -> Option<(u16, &'static str)> {
    let mut stopping = api.stopping.clone();
    let into_round = Duration::from_millis(api.clock.mono().as_millis() % PING_ROUND);
    let mut ping = pin!(tokio::time::sleep(PING_EVERY.saturating_sub(into_round)));
    let mut unanswered = 0;
    loop {
        tokio::select! {
            message = news.next() => match message {
                Ok(message) => {
                    let text = serde_json::to_string(&message).ok()?;
                    match tokio::time::timeout(SEND_LIMIT, socket.send(Message::Text(text.into()))).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return None,
                        Err(_) => return Some((CLOSE_TRY_AGAIN, "too slow")),
                    }
                }
                Err(SubscriptionEnd::SessionEnded) => return Some((CLOSE_SESSION_ENDED, "the session is over")),
                Err(SubscriptionEnd::TooSlow) => return Some((CLOSE_TRY_AGAIN, "too slow")),
                Err(SubscriptionEnd::ShuttingDown) => return Some((CLOSE_GOING_AWAY, "the node is stopping")),
            },
            incoming = socket.recv() => match incoming {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => unanswered = 0,
            },
            () = &mut ping => {
                let next = ping.deadline() + PING_EVERY;
                ping.as_mut().reset(next);
                if unanswered >= UNANSWERED_PINGS {
                    return None;
                }
                unanswered += 1;
                let ping = socket.send(Message::Ping(Vec::new().into()));
                if !matches!(tokio::time::timeout(SEND_LIMIT, ping).await, Ok(Ok(()))) {
                    return None;
                }
            }
            () = stopped(&mut stopping) => {
                return Some((CLOSE_GOING_AWAY, "the node is stopping"));
            }
        }
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the node is gone, which is a stop too.
    let _stopping = stopping.wait_for(|stopping| *stopping).await;
}

fn token_in_protocols(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix(BEARER_PROTOCOL))
}
