//! What a worker counts. Handles are taken once, and what is counted on the way of a packet is published once a turn.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// One worker's counters.
pub(super) struct Meters {
    pub(super) received: Count,
    pub(super) strangers: Counter,
    pub(super) packets_in: Count,
    pub(super) packets_out: Count,
    pub(super) unsent: Counter,
    pub(super) keyframe_requests: Counter,
    pub(super) panics: Counter,
    pub(super) rooms: Gauge,
    pub(super) peers: Gauge,
    pub(super) load: Gauge,
}

impl Meters {
    pub(super) fn new(worker: usize) -> Self {
        let worker = worker.to_string();
        describe_counter!("sportello_datagrams_received_total", "UDP datagrams that a worker took in");
        describe_counter!(
            "sportello_datagrams_refused_total",
            "UDP datagrams that belong to no session: garbage, strangers"
        );
        describe_counter!("sportello_packets_received_total", "Media packets received and decrypted");
        describe_counter!("sportello_packets_forwarded_total", "Media packets sent on, one per receiver");
        describe_counter!("sportello_datagrams_unsent_total", "UDP datagrams that the kernel did not take");
        describe_counter!("sportello_keyframe_requests_total", "Keyframe requests passed to senders");
        describe_counter!(
            "sportello_session_panics_total",
            "Sessions ended because their input broke the protocol stack"
        );
        describe_gauge!("sportello_worker_rooms", "Rooms on a worker");
        describe_gauge!("sportello_worker_sessions", "Media sessions on a worker");
        describe_gauge!("sportello_worker_load", "Share of the last second that a worker's loop worked, 0 to 1");
        Self {
            received: Count::of(counter!("sportello_datagrams_received_total", "worker" => worker.clone())),
            strangers: counter!("sportello_datagrams_refused_total", "worker" => worker.clone()),
            packets_in: Count::of(counter!("sportello_packets_received_total", "worker" => worker.clone())),
            packets_out: Count::of(counter!("sportello_packets_forwarded_total", "worker" => worker.clone())),
            unsent: counter!("sportello_datagrams_unsent_total", "worker" => worker.clone()),
            keyframe_requests: counter!("sportello_keyframe_requests_total", "worker" => worker.clone()),
            panics: counter!("sportello_session_panics_total", "worker" => worker.clone()),
            rooms: gauge!("sportello_worker_rooms", "worker" => worker.clone()),
            peers: gauge!("sportello_worker_sessions", "worker" => worker.clone()),
            load: gauge!("sportello_worker_load", "worker" => worker),
        }
    }

    /// Makes known what was counted since the last time.
    pub(super) fn publish(&mut self) {
        for count in [&mut self.received, &mut self.packets_in, &mut self.packets_out] {
            count.publish();
        }
    }
}

/// A counter that is published now and then.
pub(super) struct Count {
    counter: Counter,
    waiting: u64,
}

impl Count {
    fn of(counter: Counter) -> Self {
        Self { counter, waiting: 0 }
    }

    pub(super) fn add(&mut self, n: u64) {
        self.waiting += n;
    }

    fn publish(&mut self) {
        if self.waiting > 0 {
            self.counter.increment(std::mem::take(&mut self.waiting));
        }
    }
}
