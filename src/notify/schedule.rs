//! What comes after an attempt: pure, (message, answer, now) → delivered, again at a time, or parked.

use std::fmt;

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};

use crate::store::{Message, MessageKind};

/// First pause after a webhook that failed. Shorter: a receiver that restarts is asked while it cannot answer yet.
/// Longer: its news come late.
const WEBHOOK_FIRST: SignedDuration = SignedDuration::from_secs(5);

/// How much longer each pause is than the one before. With 3, three days hold about 20 attempts, half of them in the
/// first three hours. Lower: more attempts against a receiver that is down; higher: longer until it is found up again.
const WEBHOOK_GROWTH: u32 = 3;

/// Longest pause between two attempts. Longer: after an outage a room's news come up to this late.
pub(super) const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(6);

/// Pauses after the attempts to hand a text message over; the last one repeats. People wait for their code, so they
/// begin short; each further attempt that ends without an answer may be a second text message, so they grow.
const SMS_PAUSES: [SignedDuration; 8] = [
    SignedDuration::from_secs(2),
    SignedDuration::from_secs(5),
    SignedDuration::from_secs(15),
    SignedDuration::from_mins(1),
    SignedDuration::from_mins(5),
    SignedDuration::from_mins(15),
    SignedDuration::from_mins(30),
    SignedDuration::from_hours(1),
];

/// How long after its end a text message is still tried: its last attempt is due at the end itself and begins a little
/// later. Longer: a code that admits nobody any more is paid for.
const LATENESS: SignedDuration = SignedDuration::from_mins(1);

/// How an attempt ended, at the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It answered.
    Status {
        /// The HTTP status.
        status: u16,
        /// How long it asked to be left alone (RFC 9110 §10.2.3).
        retry_after: Option<SignedDuration>,
    },
    /// It did not.
    Nothing(NoAnswer),
    /// Nothing was sent: the message cannot be made into a request. Ours to mend; trying again does not help.
    Unsendable(&'static str),
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Nobody listens there.
    Refused,
    /// TLS failed: most often a certificate that is not trusted.
    Tls,
    /// No connection for another reason: name, route.
    Unreachable,
    /// Nothing in time.
    TimedOut,
    /// The connection ended half-way, or what came is not HTTP.
    Broken,
    /// The attempt itself went wrong.
    Ours,
}

/// What is to be done with the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It arrived.
    Delivered,
    /// It is tried again.
    Retry {
        /// When.
        at: Timestamp,
        /// Why it did not arrive.
        error: String,
    },
    /// It is given up.
    Park {
        /// Why it did not arrive.
        error: String,
    },
}

/// Decides what follows `answer`. `jitter` is random over all of `u32`; it spreads attempts that failed together.
pub(super) fn after(message: &Message, answer: Answer, now: Timestamp, jitter: u32) -> Step {
    if answer.is_success() {
        return Step::Delivered;
    }
    let error = answer.to_string();
    if is_final(message.kind, answer) || now >= message.give_up {
        return Step::Park { error };
    }
    let asked = answer.retry_after().map_or(SignedDuration::ZERO, |asked| asked.min(LONGEST_PAUSE));
    let pause = back_off(message.kind, message.attempts.saturating_add(1), jitter).max(asked);
    // The last attempt is at the end, not up to a pause before it.
    let at = now.checked_add(pause).map_or(message.give_up, |at| at.min(message.give_up));
    Step::Retry { at, error }
}

/// The pause after so many failed attempts (1: the first). `jitter` lengthens it by up to a quarter.
pub(super) fn back_off(kind: MessageKind, attempts: u32, jitter: u32) -> SignedDuration {
    let pause = match kind {
        MessageKind::Webhook => {
            let longest = LONGEST_PAUSE * 4 / 5;
            let growth = i32::try_from(WEBHOOK_GROWTH.saturating_pow(attempts.saturating_sub(1))).unwrap_or(i32::MAX);
            WEBHOOK_FIRST.checked_mul(growth).map_or(longest, |pause| pause.min(longest))
        }
        MessageKind::Sms => {
            let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
            let [.., last] = SMS_PAUSES;
            SMS_PAUSES.get(place).copied().unwrap_or(last)
        }
    };
    let share = pause.as_millis() / 4 * i128::from(jitter) / i128::from(u32::MAX);
    pause + SignedDuration::from_millis(i64::try_from(share).unwrap_or(0))
}

/// Whether a text message is of no use any more: the node was stopped while it was due.
pub(super) fn is_too_late(message: &Message, now: Timestamp) -> bool {
    message.give_up.duration_until(now) > LATENESS
}

/// Whether trying again can only end the same way.
fn is_final(kind: MessageKind, answer: Answer) -> bool {
    match (kind, answer) {
        (_, Answer::Unsendable(_)) => true,
        // Standard Webhooks, «Delivery success and failure»: the receiver wants no more. Every other refusal may be a
        // mistake of the receiver's that somebody mends within three days.
        (MessageKind::Webhook, Answer::Status { status, .. }) => status == 410,
        // A gateway that judged the request as wrong (number, balance, sender) judges the same one alike.
        (MessageKind::Sms, Answer::Status { status, .. }) => {
            (400..500).contains(&status) && !matches!(status, 408 | 425 | 429)
        }
        (_, Answer::Nothing(_)) => false,
    }
}

/// Reads `Retry-After`: seconds, or a date (RFC 9110 §10.2.3). `None`: neither.
pub(super) fn retry_after(header: &str, now: Timestamp) -> Option<SignedDuration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean a very long time, which is bounded where it is used.
        return Some(SignedDuration::from_secs(header.parse().unwrap_or(i64::MAX)));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(header).ok()?;
    Some(now.duration_until(date).max(SignedDuration::ZERO))
}

impl Answer {
    fn is_success(self) -> bool {
        matches!(self, Self::Status { status: 200..=299, .. })
    }

    /// Only where HTTP and Standard Webhooks give the header a meaning for us.
    fn retry_after(self) -> Option<SignedDuration> {
        match self {
            Self::Status { status: 429 | 503, retry_after } => retry_after,
            _ => None,
        }
    }
}

impl fmt::Display for Answer {
    /// What is kept as the message's last error: our words and a number, never the far end's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { status, .. } => write!(f, "HTTP {status}"),
            Self::Nothing(why) => f.write_str(match why {
                NoAnswer::Refused => "connection refused",
                NoAnswer::Tls => "TLS failed",
                NoAnswer::Unreachable => "no connection",
                NoAnswer::TimedOut => "no answer in time",
                NoAnswer::Broken => "the connection broke",
                NoAnswer::Ours => "the attempt failed on this node",
            }),
            Self::Unsendable(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::id::{MessageId, RoomId};
    use crate::store::MessageState;

    const BEGIN: Timestamp = Timestamp::UNIX_EPOCH;
    const THREE_DAYS: SignedDuration = SignedDuration::from_hours(72);

    fn message(kind: MessageKind, attempts: u32) -> Message {
        Message {
            id: MessageId::new(BEGIN),
            kind,
            room: RoomId::new(BEGIN),
            participant: None,
            subject: "room.concluded".into(),
            body: Vec::new(),
            created: BEGIN,
            due: BEGIN,
            give_up: BEGIN + THREE_DAYS,
            attempts,
            state: MessageState::Pending,
            last_error: None,
        }
    }

    fn status(status: u16) -> Answer {
        Answer::Status { status, retry_after: None }
    }

    /// Lets every attempt end with `answer` until the message is settled: the times of the attempts, and the end.
    fn lived_through(kind: MessageKind, answer: Answer, jitter: u32) -> (Vec<Timestamp>, Step) {
        let (mut now, mut message, mut attempts) = (BEGIN, message(kind, 0), Vec::new());
        loop {
            attempts.push(now);
            match after(&message, answer, now, jitter) {
                Step::Retry { at, .. } => {
                    assert!(at > now, "time goes on");
                    (now, message.attempts) = (at, message.attempts + 1);
                }
                step => return (attempts, step),
            }
        }
    }

    #[test]
    fn every_2xx_is_a_delivery_and_nothing_else() {
        for kind in [MessageKind::Webhook, MessageKind::Sms] {
            for code in 100..600 {
                let delivered = after(&message(kind, 0), status(code), BEGIN, 0) == Step::Delivered;
                assert_eq!(delivered, (200..300).contains(&code), "{kind:?} {code}");
            }
        }
    }

    #[test]
    fn webhook_pauses_grow_from_five_seconds_to_six_hours() {
        let pauses: Vec<_> = (1..=10).map(|attempts| back_off(MessageKind::Webhook, attempts, 0).as_secs()).collect();
        assert_eq!(pauses, [5, 15, 45, 135, 405, 1215, 3645, 10935, 17280, 17280]);
        assert_eq!(back_off(MessageKind::Webhook, 1, u32::MAX), SignedDuration::from_millis(6250));
        assert_eq!(back_off(MessageKind::Webhook, u32::MAX, u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn text_message_pauses_begin_short() {
        let pauses: Vec<_> = (1..=9).map(|attempts| back_off(MessageKind::Sms, attempts, 0).as_secs()).collect();
        assert_eq!(pauses, [2, 5, 15, 60, 300, 900, 1800, 3600, 3600]);
    }

    #[test]
    fn a_webhook_is_tried_for_three_days_and_then_parked() {
        for jitter in [0, u32::MAX / 3, u32::MAX] {
            let (attempts, end) = lived_through(MessageKind::Webhook, status(500), jitter);
            assert_eq!(end, Step::Park { error: "HTTP 500".into() });
            assert_eq!(*attempts.last().unwrap(), BEGIN + THREE_DAYS, "the last attempt is at the end");
            assert!((18..=26).contains(&attempts.len()), "{} attempts", attempts.len());
            let longest = attempts.windows(2).map(|pair| pair[0].duration_until(pair[1])).max().unwrap();
            assert!(longest <= LONGEST_PAUSE, "{longest:?}");
        }
    }

    #[test]
    fn gone_parks_a_webhook_at_once_and_other_refusals_do_not() {
        assert_eq!(lived_through(MessageKind::Webhook, status(410), 0).0.len(), 1);
        for code in [301, 400, 401, 404, 409, 500] {
            let step = after(&message(MessageKind::Webhook, 0), status(code), BEGIN, 0);
            assert!(matches!(step, Step::Retry { .. }), "{code}");
        }
    }

    #[test]
    fn a_gateways_refusal_of_the_request_is_final_and_its_trouble_is_not() {
        for (code, is_final) in
            [(400, true), (401, true), (403, true), (404, true), (422, true), (408, false), (425, false), (429, false)]
        {
            let step = after(&message(MessageKind::Sms, 0), status(code), BEGIN, 0);
            assert_eq!(matches!(step, Step::Park { .. }), is_final, "{code}");
        }
        for answer in [status(500), status(302), Answer::Nothing(NoAnswer::TimedOut)] {
            assert!(matches!(after(&message(MessageKind::Sms, 0), answer, BEGIN, 0), Step::Retry { .. }));
        }
    }

    #[test]
    fn retry_after_lengthens_the_pause_up_to_a_bound_and_never_shortens_it() {
        let pause = |code, seconds| {
            let answer = Answer::Status { status: code, retry_after: Some(SignedDuration::from_secs(seconds)) };
            match after(&message(MessageKind::Webhook, 2), answer, BEGIN, 0) {
                Step::Retry { at, .. } => BEGIN.duration_until(at).as_secs(),
                step => panic!("{step:?}"),
            }
        };
        assert_eq!(pause(503, 120), 120);
        assert_eq!(pause(429, 120), 120);
        assert_eq!(pause(429, 1), 45, "the usual pause after a third attempt");
        assert_eq!(pause(503, i64::MAX), LONGEST_PAUSE.as_secs());
        assert_eq!(pause(500, 120), 45, "only 429 and 503 may ask");
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now: Timestamp = "1994-11-06T08:49:07Z".parse().unwrap();
        assert_eq!(retry_after(" 120 ", now), Some(SignedDuration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(SignedDuration::from_secs(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(SignedDuration::ZERO));
        assert_eq!(retry_after("99999999999999999999999", now), Some(SignedDuration::from_secs(i64::MAX)));
        for nonsense in ["", "soon", "-5", "1.5", "6 h"] {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense:?}");
        }
    }

    #[test]
    fn a_message_found_after_its_time_is_tried_no_further_than_once() {
        let late = BEGIN + THREE_DAYS + SignedDuration::from_hours(1);
        let step = after(&message(MessageKind::Webhook, 0), status(500), late, 0);
        assert_eq!(step, Step::Park { error: "HTTP 500".into() });
    }
}
