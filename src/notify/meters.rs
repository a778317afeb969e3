//! What is counted: attempts, messages given up, and how long the oldest has been waiting. Nothing per room or person.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::schedule::{Answer, Step};
use crate::store::MessageKind;

/// One kind's meters.
#[derive(Clone)]
pub(super) struct Meters {
    delivered: Counter,
    refused: Counter,
    unanswered: Counter,
    parked: Counter,
    oldest: Gauge,
    duration: Histogram,
}

impl Meters {
    pub(super) fn new(kind: MessageKind) -> Self {
        let [attempts, parked, oldest, duration, what] = match kind {
            MessageKind::Webhook => [
                "sportello_webhooks_attempts_total",
                "sportello_webhooks_parked_total",
                "sportello_webhooks_oldest_pending_seconds",
                "sportello_webhooks_attempt_seconds",
                "webhooks",
            ],
            MessageKind::Sms => [
                "sportello_sms_attempts_total",
                "sportello_sms_parked_total",
                "sportello_sms_oldest_pending_seconds",
                "sportello_sms_attempt_seconds",
                "text messages",
            ],
        };
        describe_counter!(
            attempts,
            format!("Attempts to deliver {what}: delivered, refused (another HTTP status), unanswered")
        );
        describe_counter!(parked, format!("Given up {what}: somebody should look"));
        describe_gauge!(oldest, format!("How long the oldest of the {what} has been waiting, seconds; 0: none waits"));
        describe_histogram!(duration, format!("How long attempts to deliver {what} took, seconds"));
        Self {
            delivered: counter!(attempts, "result" => "delivered"),
            refused: counter!(attempts, "result" => "refused"),
            unanswered: counter!(attempts, "result" => "unanswered"),
            parked: counter!(parked),
            oldest: gauge!(oldest),
            duration: histogram!(duration),
        }
    }

    pub(super) fn count_attempt(&self, answer: Answer, took: Duration) {
        match answer {
            Answer::Status { status: 200..=299, .. } => self.delivered.increment(1),
            Answer::Status { .. } => self.refused.increment(1),
            Answer::Nothing(_) => self.unanswered.increment(1),
            // Nothing was tried; the message is counted where it is parked.
            Answer::Unsendable(_) => return,
        }
        self.duration.record(took.as_secs_f64());
    }

    pub(super) fn count_step(&self, step: &Step) {
        if matches!(step, Step::Park { .. }) {
            self.parked.increment(1);
        }
    }

    pub(super) fn show_oldest(&self, waiting: Duration) {
        self.oldest.set(waiting.as_secs_f64());
    }
}
