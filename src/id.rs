//! Identifiers. Each is a UUID of version 7 (RFC 9562): unique without coordination, sortable by creation.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::{NoContext, Uuid};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String, format = Uuid, example = "0199c1c2-7b1e-7cc3-9a5e-0f4b7c7e2d11")]
        pub struct $name(Uuid);

        impl $name {
            /// A new identifier, created at `wall`.
            pub fn new(wall: Timestamp) -> Self {
                let seconds = u64::try_from(wall.as_second()).unwrap_or(0);
                let nanos = u32::try_from(wall.subsec_nanosecond()).unwrap_or(0);
                Self(Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanos)))
            }

            /// The identifier's sixteen bytes.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(text).map(Self)
            }
        }
    };
}

id! {
    /// One appointment's virtual room.
    RoomId
}
id! {
    /// One person booked into one room.
    ParticipantId
}
id! {
    /// One media connection of one participant: a re-join is a new one.
    ConnectionId
}
id! {
    /// One API key.
    KeyId
}
id! {
    /// One webhook or text message: the same at every attempt.
    MessageId
}
id! {
    /// One opened access to a room's recordings.
    AccessId
}
id! {
    /// One document that was handed in.
    DocumentId
}
id! {
    /// One piece of long work: a verification, an export.
    JobId
}
