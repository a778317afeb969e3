//! The key of a room's recording: made when its media opens for the first time, and kept, wrapped, before it is used.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{Error, Fault, Shared};
use crate::id::RoomId;
use crate::store::RecordingKey;
use crate::vault::{KeyError, RandomError, SessionKey, WrappedKey};

/// How long the database may take to give a key or to keep one. The operator waits for it with the room's opening.
const KEPT_WITHIN: Duration = Duration::from_secs(5);

/// The key that a room is recorded under; `None`: it is not encrypted. A room that has a key keeps it, whatever the
/// configuration says by now.
pub(super) async fn recording_key<M, R>(shared: &Shared<M, R>, room: RoomId) -> Result<Option<Arc<SessionKey>>, Error> {
    let found = timeout(KEPT_WITHIN, find_or_make(shared, room)).await;
    found.unwrap_or(Err(Fault::StoreSilent)).map_err(|fault| {
        tracing::error!(%room, %fault, "the room cannot be recorded: there is no key for it");
        Error::Unavailable(fault)
    })
}

async fn find_or_make<M, R>(shared: &Shared<M, R>, room: RoomId) -> Result<Option<Arc<SessionKey>>, Fault> {
    let keys = &shared.settings.recording_keys;
    if let Some(key) = find(shared, room).await? {
        return Ok(Some(key));
    }
    if !shared.settings.encrypt {
        return Ok(None);
    }
    let key = SessionKey::generate().map_err(|RandomError| Fault::Random)?;
    let wrapped = keys.wrap(room, &key)?;
    if shared.store.put_recording_key(room, &wrapped.to_string()).await? {
        return Ok(Some(Arc::new(key)));
    }
    // Somebody was quicker: theirs holds.
    find(shared, room).await
}

async fn find<M, R>(shared: &Shared<M, R>, room: RoomId) -> Result<Option<Arc<SessionKey>>, Fault> {
    match shared.store.recording_key(room).await? {
        RecordingKey::None => Ok(None),
        RecordingKey::Destroyed(_) => Err(Fault::RecordingKeyDestroyed),
        RecordingKey::Wrapped(text) => {
            let wrapped: WrappedKey = text.parse().map_err(|_| KeyError::Changed)?;
            let key = shared.settings.recording_keys.unwrap(room, &wrapped)?;
            Ok(Some(Arc::new(key)))
        }
    }
}
