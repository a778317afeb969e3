//! What control asks of the media workers and of the recorder, as two small traits: the rules of this part are
//! tested without sockets and disks.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::id::{ConnectionId, RoomId};
use crate::media::Source;
use crate::recording::{self, Need, NoSpace, Recorder};
use crate::rtp::{Tap, TapReader};
use crate::sfu::{self, ConnectError, Join, Sfu};
use crate::vault::SessionKey;

/// The media workers ([`Sfu`], whose methods these are).
#[expect(missing_docs, reason = "documented at Sfu")]
pub trait Media: Clone + Send + Sync + 'static {
    fn is_full(&self) -> bool;
    fn reflectors(&self) -> Vec<SocketAddr>;
    fn open_room(
        &self,
        room: RoomId,
        tap: Tap,
        facts: mpsc::Sender<sfu::Fact>,
    ) -> impl Future<Output = Result<(), ConnectError>> + Send;
    fn connect(&self, room: RoomId, join: Join) -> impl Future<Output = Result<String, ConnectError>> + Send;
    fn restart_ice(
        &self,
        room: RoomId,
        connection: ConnectionId,
        fragment: String,
    ) -> impl Future<Output = Result<Option<String>, ConnectError>> + Send;
    fn set_flow(&self, room: RoomId, flow: bool) -> impl Future<Output = ()> + Send;
    fn set_tap(&self, room: RoomId, tap: Option<Tap>) -> impl Future<Output = ()> + Send;
    fn ask_for_keyframe(
        &self,
        room: RoomId,
        connection: ConnectionId,
        source: Source,
    ) -> impl Future<Output = ()> + Send;
    fn recording_started(
        &self,
        room: RoomId,
        connection: ConnectionId,
        source: Source,
    ) -> impl Future<Output = ()> + Send;
    fn disconnect(&self, room: RoomId, connection: ConnectionId) -> impl Future<Output = ()> + Send;
    fn close_room(&self, room: RoomId) -> impl Future<Output = ()> + Send;
}

/// The recorder ([`Recorder`], whose methods these are).
#[expect(missing_docs, reason = "documented at Recorder")]
pub trait Recording: Clone + Send + Sync + 'static {
    fn has_space(&self) -> bool;
    fn reserve(&self, room: RoomId, need: Need) -> impl Future<Output = Result<(), NoSpace>> + Send;
    fn release(&self, room: RoomId);
    fn open_room(
        &self,
        room: RoomId,
        key: Option<Arc<SessionKey>>,
        tap: TapReader,
        facts: mpsc::Sender<recording::Fact>,
    );
    fn open_original(&self, room: RoomId, connection: ConnectionId, label: String);
    fn drop_original(&self, room: RoomId, connection: ConnectionId);
    fn close_room(&self, room: RoomId);
}

impl Media for Sfu {
    fn is_full(&self) -> bool {
        Self::is_full(self)
    }

    fn reflectors(&self) -> Vec<SocketAddr> {
        Self::reflectors(self)
    }

    fn open_room(
        &self,
        room: RoomId,
        tap: Tap,
        facts: mpsc::Sender<sfu::Fact>,
    ) -> impl Future<Output = Result<(), ConnectError>> + Send {
        Self::open_room(self, room, tap, facts)
    }

    fn connect(&self, room: RoomId, join: Join) -> impl Future<Output = Result<String, ConnectError>> + Send {
        Self::connect(self, room, join)
    }

    fn restart_ice(
        &self,
        room: RoomId,
        connection: ConnectionId,
        fragment: String,
    ) -> impl Future<Output = Result<Option<String>, ConnectError>> + Send {
        Self::restart_ice(self, room, connection, fragment)
    }

    fn set_flow(&self, room: RoomId, flow: bool) -> impl Future<Output = ()> + Send {
        Self::set_flow(self, room, flow)
    }

    fn set_tap(&self, room: RoomId, tap: Option<Tap>) -> impl Future<Output = ()> + Send {
        Self::set_tap(self, room, tap)
    }

    fn ask_for_keyframe(
        &self,
        room: RoomId,
        connection: ConnectionId,
        source: Source,
    ) -> impl Future<Output = ()> + Send {
        Self::ask_for_keyframe(self, room, connection, source)
    }

    fn recording_started(
        &self,
        room: RoomId,
        connection: ConnectionId,
        source: Source,
    ) -> impl Future<Output = ()> + Send {
        Self::recording_started(self, room, connection, source)
    }

    fn disconnect(&self, room: RoomId, connection: ConnectionId) -> impl Future<Output = ()> + Send {
        Self::disconnect(self, room, connection)
    }

    fn close_room(&self, room: RoomId) -> impl Future<Output = ()> + Send {
        Self::close_room(self, room)
    }
}

impl Recording for Recorder {
    fn has_space(&self) -> bool {
        Self::has_space(self)
    }

    fn reserve(&self, room: RoomId, need: Need) -> impl Future<Output = Result<(), NoSpace>> + Send {
        Self::reserve(self, room, need)
    }

    fn release(&self, room: RoomId) {
        Self::release(self, room);
    }

    fn open_room(
        &self,
        room: RoomId,
        key: Option<Arc<SessionKey>>,
        tap: TapReader,
        facts: mpsc::Sender<recording::Fact>,
    ) {
        Self::open_room(self, room, key, tap, facts);
    }

    fn open_original(&self, room: RoomId, connection: ConnectionId, label: String) {
        Self::open_original(self, room, connection, label);
    }

    fn drop_original(&self, room: RoomId, connection: ConnectionId) {
        Self::drop_original(self, room, connection);
    }

    fn close_room(&self, room: RoomId) {
        Self::close_room(self, room);
    }
}
