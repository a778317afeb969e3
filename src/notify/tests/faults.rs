//! What happens when something fails half-way, and what is said of it.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use tracing_subscriber::fmt::MakeWriter;

use super::world::{
    KEY, Memory, PACE, PHONE, Receiver, TEXT, WEBHOOK_SECRET, Working, room, sms, sms_to, status, webhook, webhooks_to,
};
use crate::clock::Clock;
use crate::id::ParticipantId;
use crate::notify::{ContentType, Settings};
use crate::store::MessageState;

#[tokio::test]
async fn stopping_lets_the_attempt_under_way_end_and_begins_no_other() {
    let receiver = Receiver::start(|_, _| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        status(200)
    })
    .await;
    let outbox = Memory::default();
    let room = room();
    let (one, two) = (outbox.write(webhook(room, "1")), outbox.write(webhook(room, "2")));
    let working = Working::start(&outbox, webhooks_to(&receiver.url));
    receiver.has(1).await;
    working.stop().await;
    assert_eq!(outbox.message(one).state, MessageState::Delivered);
    assert_eq!((outbox.message(two).state, outbox.message(two).attempts), (MessageState::Pending, 0));
}

#[tokio::test]
async fn a_receiver_that_hangs_does_not_hold_the_node_up() {
    let receiver = Receiver::start(|_, _| async {
        tokio::time::sleep(Duration::from_mins(1)).await;
        status(200)
    })
    .await;
    let outbox = Memory::default();
    let id = outbox.write(webhook(room(), "1"));
    let working = Working::start(&outbox, webhooks_to(&receiver.url));
    receiver.has(1).await;
    let (clock, begin) = (working.clock, working.clock.mono());
    working.stop().await;
    assert!(clock.mono().since(begin) < PACE.attempt + Duration::from_millis(500));
    let message = outbox.message(id);
    assert_eq!((message.state, message.last_error.as_deref()), (MessageState::Pending, Some("no answer in time")));
}

#[tokio::test]
async fn a_hanging_receiver_of_one_room_does_not_delay_another_room() {
    let receiver = Receiver::start(|request, _| async move {
        if request.text() == "slow" {
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
        status(200)
    })
    .await;
    let outbox = Memory::default();
    outbox.write(webhook(room(), "slow"));
    let working = Working::start(&outbox, webhooks_to(&receiver.url));
    receiver.has(1).await;
    let begin = working.clock.mono();
    let id = outbox.write(webhook(room(), "quick"));
    working.waker.wake();
    outbox.settled(id).await;
    assert!(working.clock.mono().since(begin) < PACE.attempt / 2);
    working.stop().await;
}

#[tokio::test]
async fn nobody_listening_is_named_so_and_tried_again() {
    let receiver = Receiver::start(|_, _| async { status(200) }).await;
    let url = receiver.url.clone();
    drop(receiver);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let outbox = Memory::default();
    let id = outbox.write(webhook(room(), "1"));
    let working = Working::start(&outbox, webhooks_to(&url));
    tokio::time::sleep(Duration::from_millis(200)).await;
    working.stop().await;
    let message = outbox.message(id);
    assert_eq!((message.state, message.last_error.as_deref()), (MessageState::Pending, Some("connection refused")));
    assert!((1..=4).contains(&message.attempts), "{} attempts", message.attempts);
}

#[tokio::test]
async fn what_the_database_did_not_take_is_noted_later_and_not_sent_again() {
    let outbox = Memory::default();
    let disk = outbox.clone();
    let receiver = Receiver::start(move |_, _| {
        disk.fail_next(4);
        async { status(200) }
    })
    .await;
    let id = outbox.write(webhook(room(), "1"));
    let working = Working::start(&outbox, webhooks_to(&receiver.url));
    assert_eq!(outbox.settled(id).await.attempts, 1);
    assert_eq!(receiver.received().len(), 1);
    working.stop().await;
}

#[tokio::test]
async fn many_rooms_are_served_beside_each_other_within_the_bound() {
    // Attempts under way, and the most that there ever were.
    let busy = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let counted = Arc::clone(&busy);
    let receiver = Receiver::start(move |_, _| {
        let busy = Arc::clone(&counted);
        async move {
            busy.1.fetch_max(busy.0.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(200)).await;
            busy.0.fetch_sub(1, Ordering::Relaxed);
            status(200)
        }
    })
    .await;
    let outbox = Memory::default();
    let ids: Vec<_> = (0..40).map(|_| outbox.write(webhook(room(), "{}"))).collect();
    let working = Working::start(&outbox, webhooks_to(&receiver.url));
    for id in ids {
        outbox.settled(id).await;
    }
    assert_eq!(busy.1.load(Ordering::Relaxed), 16, "all places are used, and no more");
    assert_eq!(receiver.received().len(), 40);
    working.stop().await;
}

#[tokio::test]
async fn a_receiver_without_tls_is_named_so() {
    let receiver = Receiver::start(|_, _| async { status(200) }).await;
    let outbox = Memory::default();
    let id = outbox.write(webhook(room(), "1"));
    let working = Working::start(&outbox, webhooks_to(&receiver.url.replace("http://", "https://")));
    tokio::time::sleep(Duration::from_millis(500)).await;
    working.stop().await;
    assert_eq!(outbox.message(id).last_error.as_deref(), Some("TLS failed"));
    assert!(receiver.received().is_empty(), "nothing was sent in the clear");
}

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

// On one thread, so that everything is logged and counted where this test listens.
#[tokio::test]
async fn neither_log_nor_errors_nor_metrics_tell_secrets_or_persons() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let recorder = PrometheusBuilder::new().build_recorder();
    let _counting = metrics::set_default_local_recorder(&recorder);

    // Every way that an attempt can end: refused, refused for good, delivered, nobody there.
    let receiver = Receiver::start(|_, before| async move { status([500, 410, 200][before % 3]) }).await;
    let gateway = Receiver::start(|_, before| async move { status([503, 400, 200][before % 3]) }).await;
    let outbox = Memory::default();
    let person = || ParticipantId::new(Clock::new().now().wall);
    let mut foreign = sms(person());
    foreign.body[20] ^= 1;
    let settled =
        [webhook(room(), "payload-name-1"), webhook(room(), "payload-name-1"), sms(person()), sms(person()), foreign];
    let settled = settled.map(|message| outbox.write(message));
    let (sms_settings, _told) = sms_to(&gateway.url, ContentType::Json, r#"{"to": "{phone}", "text": "{text}"}"#);
    let settings = Settings { webhooks: webhooks_to(&receiver.url).webhooks, sms: sms_settings.sms };
    let shown = format!("{settings:?}");
    let working = Working::start(&outbox, settings);
    let mut errors = String::new();
    for id in settled {
        let message = outbox.settled(id).await;
        errors.push_str(&message.last_error.unwrap_or_default());
    }
    drop((receiver, gateway));
    let unanswered = [outbox.write(webhook(room(), "payload-name-1")), outbox.write(sms(person()))];
    working.waker.wake();
    tokio::time::sleep(Duration::from_millis(150)).await;
    working.stop().await;
    for id in unanswered {
        errors.push_str(&outbox.message(id).last_error.expect("it failed"));
    }

    let metrics = recorder.handle().render();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for (place, said) in [("log", &log), ("errors", &errors), ("metrics", &metrics), ("settings", &shown)] {
        for secret in [
            PHONE,
            TEXT,
            "402913",
            "Il Suo codice",
            KEY,
            "gateway-key-7",
            WEBHOOK_SECRET,
            "path-key-5",
            "query-key-6",
            "far-end-words-9",
            "payload-name-1",
        ] {
            assert!(!said.contains(secret), "{secret:?} is in the {place}:\n{said}");
        }
    }
    for expected in ["a message did not arrive", "a webhook is given up", "a text message is given up", "HTTP 410"] {
        assert!(log.contains(expected), "{expected:?} is missing in:\n{log}");
    }
    for expected in [
        "sportello_webhooks_attempts_total{result=\"delivered\"}",
        "sportello_webhooks_attempts_total{result=\"unanswered\"}",
        "sportello_webhooks_parked_total 1",
        "sportello_webhooks_oldest_pending_seconds",
        "sportello_sms_attempts_total{result=\"refused\"}",
        "sportello_sms_parked_total 2",
    ] {
        assert!(metrics.contains(expected), "{expected:?} is missing in:\n{metrics}");
    }
}
