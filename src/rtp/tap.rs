//! The tap: a bounded queue that carries one room's media from its worker to the recorder, and the
//! recorder's acknowledgement back.
//!
//! It may not drop. When it is full the room is not recorded any more, and the sender says so
//! ([`TapError`]): the room stops ([`crate`] docs, «fail closed»).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use super::{Packet, SenderReport};
use crate::clock::MonoTime;
use crate::id::ConnectionId;
use crate::media::Source;

/// Packets that a room's tap holds: 2 s of ten participants with camera and voice. Raising it hides a slow
/// disk for longer before the room is suspended; lowering it suspends rooms on an ordinary sync pause.
pub const TAP_ITEMS: usize = 4_096;

/// Payload bytes that a room's tap holds: 2 s of ten participants at 3 Mbit/s. It bounds memory when packets are large.
pub const TAP_BYTES: usize = 8 << 20;

/// One item in the lower half of [`Shared::load`], whose upper half counts bytes: one atomic operation takes both.
const ITEM: u64 = 1;
const BYTE: u64 = 1 << 32;

/// What goes through the tap, in the order in which the worker saw it.
#[derive(Debug)]
pub enum Tapped {
    /// A media packet as it was received.
    Packet {
        /// Whose connection it came over.
        connection: ConnectionId,
        /// Which of their sources.
        source: Source,
        /// The packet.
        packet: Packet,
    },
    /// A sender report.
    Report {
        /// Whose connection it came over.
        connection: ConnectionId,
        /// Which of their sources.
        source: Source,
        /// The report.
        report: SenderReport,
    },
    /// Nothing more comes over this connection: its originals are to be finished.
    End {
        /// The connection that ended.
        connection: ConnectionId,
        /// When it ended.
        at: MonoTime,
    },
}

impl Tapped {
    /// What it adds to the tap's load.
    fn weight(&self) -> u64 {
        match self {
            // Far below what a half holds: a datagram has at most 64 KiB.
            Self::Packet { packet, .. } => ITEM + BYTE * packet.payload.len() as u64,
            Self::Report { .. } | Self::End { .. } => ITEM,
        }
    }
}

/// Why the tap took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TapError {
    /// The recorder is more than the tap's capacity behind.
    #[error("the recorder is too far behind")]
    Full,
    /// The recorder gave the room up.
    #[error("the recorder has stopped")]
    Closed,
}

#[derive(Debug, Default)]
struct Shared {
    /// Items and payload bytes that wait.
    load: AtomicU64,
    /// `MonoTime` in ns before which everything that was tapped is on disk; 0: nothing yet.
    durable_until: AtomicU64,
    /// One of the ends gave the room up.
    lost: AtomicBool,
}

/// The worker's end.
#[derive(Debug)]
pub struct Tap {
    items: Sender<Tapped>,
    shared: Arc<Shared>,
}

/// The recorder's end.
#[derive(Debug)]
pub struct TapReader {
    items: Receiver<Tapped>,
    shared: Arc<Shared>,
}

/// A look at the recorder's acknowledgements, for who neither taps nor records.
#[derive(Clone, Debug)]
pub struct Durability {
    shared: Arc<Shared>,
}

impl Durability {
    /// Whether the recorder acknowledged within `limit` before `now`.
    pub fn is_fresh(&self, now: MonoTime, limit: Duration) -> bool {
        self.shared.is_durable(now, limit)
    }

    /// The time before which everything that was tapped is on disk; `None` before the first acknowledgement.
    pub fn durable_until(&self) -> Option<MonoTime> {
        self.shared.durable_until()
    }

    /// Whether either end gave this tap up. It is never taken back: a room that is recorded again has a new tap.
    pub fn is_lost(&self) -> bool {
        self.shared.lost.load(Ordering::Acquire)
    }
}

/// Makes a room's tap.
pub fn tap() -> (Tap, TapReader) {
    // Bounded by the load: a queue that has its places from the start would walk through all of them, so that none is in
    // the cache when it is used again.
    let (sender, receiver) = channel();
    let shared = Arc::new(Shared::default());
    (Tap { items: sender, shared: Arc::clone(&shared) }, TapReader { items: receiver, shared })
}

impl Tap {
    /// Hands one item to the recorder without waiting.
    ///
    /// # Errors
    /// [`TapError`] if the item was not taken: from then on the room is not recorded whole.
    pub fn push(&self, item: Tapped) -> Result<(), TapError> {
        let weight = item.weight();
        let load = self.shared.load.fetch_add(weight, Ordering::Relaxed) + weight;
        let refused = if load % BYTE > TAP_ITEMS as u64 * ITEM || load / BYTE > TAP_BYTES as u64 {
            Some(TapError::Full)
        } else {
            self.items.send(item).err().map(|_| TapError::Closed)
        };
        refused.map_or(Ok(()), |error| {
            self.shared.load.fetch_sub(weight, Ordering::Relaxed);
            Err(error)
        })
    }

    /// The time before which everything that was tapped is on disk; `None` before the first acknowledgement.
    pub fn durable_until(&self) -> Option<MonoTime> {
        self.shared.durable_until()
    }

    /// Whether the recorder acknowledged within `limit` before `now`. Media flows only while it did.
    pub fn is_durable(&self, now: MonoTime, limit: Duration) -> bool {
        self.shared.is_durable(now, limit)
    }

    /// Says that something was not tapped: from now on the room is not durable, whatever was acknowledged.
    pub fn give_up(&self) {
        self.shared.lost.store(true, Ordering::Release);
    }

    /// The acknowledgements alone, to keep an eye on when the tap itself is the worker's.
    pub fn durability(&self) -> Durability {
        Durability { shared: Arc::clone(&self.shared) }
    }
}

impl Shared {
    fn durable_until(&self) -> Option<MonoTime> {
        match self.durable_until.load(Ordering::Acquire) {
            0 => None,
            nanos => Some(MonoTime::from_nanos(nanos)),
        }
    }

    fn is_durable(&self, now: MonoTime, limit: Duration) -> bool {
        !self.lost.load(Ordering::Acquire) && self.durable_until().is_some_and(|until| now.since(until) <= limit)
    }
}

impl TapReader {
    /// Takes the oldest item, if one waits.
    ///
    /// # Errors
    /// [`TapError::Closed`] once the worker let go of its end and everything was taken.
    pub fn take(&self) -> Result<Option<Tapped>, TapError> {
        match self.items.try_recv() {
            Ok(item) => {
                self.shared.load.fetch_sub(item.weight(), Ordering::Relaxed);
                Ok(Some(item))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(TapError::Closed),
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.shared.load.load(Ordering::Acquire) == 0
    }

    /// Says that the room is not recorded any more: from now on it is not durable, whatever was acknowledged.
    pub fn give_up(&self) {
        self.shared.lost.store(true, Ordering::Release);
    }

    /// Says that everything tapped before `until` is on disk.
    pub fn acknowledge(&self, until: MonoTime) {
        self.shared.durable_until.fetch_max(until.as_nanos().max(1), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::super::{Codec, Extensions, Ssrc};
    use super::*;

    fn packet(bytes: usize) -> Tapped {
        let packet = Packet {
            ssrc: Ssrc(1),
            codec: Codec::Vp8,
            sequence: 1,
            timestamp: 1,
            marker: true,
            arrival: MonoTime::ZERO,
            extensions: Extensions::default(),
            payload: Bytes::from(vec![0; bytes]),
        };
        Tapped::Packet { connection: ConnectionId::new(Timestamp::UNIX_EPOCH), source: Source::Camera, packet }
    }

    #[test]
    fn a_full_tap_takes_no_more_and_says_so() {
        let (tap, reader) = tap();
        for _ in 0..TAP_ITEMS {
            tap.push(packet(1)).unwrap();
        }
        assert_eq!(tap.push(packet(1)), Err(TapError::Full));
        reader.take().unwrap().unwrap();
        assert_eq!(tap.push(packet(1)), Ok(()));
    }

    #[test]
    fn the_tap_is_bounded_in_bytes_too() {
        let (tap, reader) = tap();
        tap.push(packet(TAP_BYTES)).unwrap();
        assert_eq!(tap.push(packet(1)), Err(TapError::Full));
        reader.take().unwrap().unwrap();
        assert_eq!(tap.push(packet(1)), Ok(()));
    }

    #[test]
    fn what_was_tapped_can_still_be_taken_after_the_worker_let_go() {
        let (tap, reader) = tap();
        tap.push(packet(1)).unwrap();
        drop(tap);
        assert!(reader.take().unwrap().is_some());
        assert_eq!(reader.take().unwrap_err(), TapError::Closed);
    }

    #[test]
    fn a_room_that_the_recorder_gave_up_is_not_durable_however_fresh_its_last_acknowledgement() {
        let (tap, reader) = tap();
        reader.acknowledge(MonoTime::from_millis(1_000));
        reader.give_up();
        assert!(!tap.is_durable(MonoTime::from_millis(1_000), Duration::from_secs(2)));
        assert!(!tap.durability().is_fresh(MonoTime::from_millis(1_000), Duration::from_secs(2)));
    }

    #[test]
    fn whichever_end_gives_a_tap_up_it_is_lost_to_all_who_look_at_it() {
        let (tap, reader) = tap();
        reader.acknowledge(MonoTime::from_millis(1_000));
        let durability = tap.durability();
        assert!(!durability.is_lost());
        tap.give_up();
        assert!(durability.is_lost() && !durability.is_fresh(MonoTime::from_millis(1_000), Duration::from_secs(2)));
        assert_eq!(durability.durable_until(), Some(MonoTime::from_millis(1_000)), "what is on disk stays there");
    }

    #[test]
    fn a_room_is_durable_only_while_acknowledgements_are_fresh() {
        let (tap, reader) = tap();
        let limit = Duration::from_secs(2);
        assert!(!tap.is_durable(MonoTime::from_millis(1), limit), "nothing was acknowledged yet");
        reader.acknowledge(MonoTime::from_millis(1_000));
        assert!(tap.is_durable(MonoTime::from_millis(3_000), limit));
        assert!(!tap.is_durable(MonoTime::from_millis(3_001), limit));
        reader.acknowledge(MonoTime::from_millis(500));
        assert!(tap.is_durable(MonoTime::from_millis(3_000), limit), "an acknowledgement is never taken back");
    }
}
