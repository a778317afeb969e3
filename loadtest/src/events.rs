//! News of the session: whose media each receiving m-line carries.

use std::collections::HashMap;

use futures_util::StreamExt;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::api::{Api, ApiError};
use crate::client::ClientError;

/// One m-line that shows somebody.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Slot {
    pub mid: String,
    pub participant_id: String,
    pub source: String,
}

/// Opens the event WebSocket; gives each complete list of slots, by `mid`. Nobody listens on when the receiver is gone.
pub(crate) async fn listen(api: &Api, session: &str) -> Result<mpsc::Receiver<HashMap<String, Slot>>, ClientError> {
    #[derive(Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Message {
        Slots {
            slots: Vec<Slot>,
        },
        #[serde(other)]
        Other,
    }
    let mut request = api.address("/v1/session/events").replacen("http", "ws", 1).into_client_request()?;
    let bearer = HeaderValue::from_str(&format!("Bearer {session}"))
        .map_err(|_| ApiError::Answer("the session token is not fit for a header"))?;
    request.headers_mut().insert("authorization", bearer);
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await?;
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                () = sender.closed() => return,
            };
            let Some(Ok(message)) = message else { return };
            let Ok(text) = message.to_text() else { continue };
            if let Ok(Message::Slots { slots }) = serde_json::from_str(text) {
                let by_mid = slots.into_iter().map(|slot| (slot.mid.clone(), slot)).collect();
                if sender.send(by_mid).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(receiver)
}
