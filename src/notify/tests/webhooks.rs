//! Webhooks over the wire.

use std::time::Duration;

use aws_lc_rs::hmac;
use axum::body::{Body, Bytes};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::world::{Memory, Receiver, WEBHOOK_SECRET, Working, room, status, webhook, webhooks_to};
use crate::store::MessageState;

#[tokio::test]
async fn a_webhook_arrives_signed_under_its_identifier() {
    let receiver = Receiver::start(|_, _| async { status(204) }).await;
    let outbox = Memory::default();
    let id = outbox.write(webhook(room(), r#"{"type":"room.concluded"}"#));
    let working = Working::start(&outbox, webhooks_to(&receiver.url));
    let settled = outbox.settled(id).await;
    assert_eq!((settled.state, settled.attempts), (MessageState::Delivered, 1));

    let [request] = &receiver.has(1).await[..] else { panic!("one request") };
    assert_eq!(request.text(), r#"{"type":"room.concluded"}"#);
    assert_eq!(request.header("content-type"), "application/json");
    assert!(request.header("user-agent").starts_with("sportello/"));
    assert_eq!(request.header("webhook-id"), format!("msg_{id}"));
    let timestamp = request.header("webhook-timestamp");
    let age = working.clock.now().wall.as_second() - timestamp.parse::<i64>().unwrap();
    assert!((0..5).contains(&age), "of this attempt");
    // Verified as a receiver does it, with nothing of ours.
    let key = STANDARD.decode(WEBHOOK_SECRET.trim_start_matches("whsec_")).unwrap();
    let signature = STANDARD.decode(request.header("webhook-signature").trim_start_matches("v1,")).unwrap();
    let signed = format!("msg_{id}.{timestamp}.{}", request.text());
    assert!(hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes(), &signature).is_ok());
    working.stop().await;
}

#[tokio::test]
async fn a_rooms_webhooks_arrive_in_order_and_other_rooms_do_not_wait() {
    // The first room's first webhook is refused twice.
    let receiver = Receiver::start(|request, _| async move {
        let refused = request.text() == "a1" && {
            static REFUSALS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            REFUSALS.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2
        };
        status(if refused { 500 } else { 200 })
    })
    .await;
    let outbox = Memory::default();
    let (a, b) = (room(), room());
    let ids =
        [(a, "a1"), (a, "a2"), (b, "b1"), (a, "a3"), (b, "b2")].map(|(room, body)| outbox.write(webhook(room, body)));
    let working = Working::start(&outbox, webhooks_to(&receiver.url));
    for id in ids {
        assert_eq!(outbox.settled(id).await.state, MessageState::Delivered);
    }
    let received = receiver.has(7).await;
    let order: Vec<_> = received.iter().map(super::world::Received::text).collect();
    let of = |room: char| order.iter().filter(|body| body.starts_with(room)).copied().collect::<Vec<_>>();
    assert_eq!(of('a'), ["a1", "a1", "a1", "a2", "a3"]);
    assert_eq!(of('b'), ["b1", "b2"]);
    let place = |body: &str| order.iter().rposition(|other| *other == body).unwrap();
    assert!(place("b2") < place("a1"), "{order:?}");
    let ids: Vec<_> = received.iter().filter(|request| request.text() == "a1").collect();
    assert!(ids.iter().all(|request| request.header("webhook-id") == ids[0].header("webhook-id")));
    working.stop().await;
}

#[tokio::test]
async fn a_parked_webhook_lets_the_rooms_next_one_go() {
    let receiver =
        Receiver::start(|request, _| async move { status(if request.text() == "1" { 410 } else { 200 }) }).await;
    let outbox = Memory::default();
    let room = room();
    let (one, two) = (outbox.write(webhook(room, "1")), outbox.write(webhook(room, "2")));
    let working = Working::start(&outbox, webhooks_to(&receiver.url));
    let parked = outbox.settled(one).await;
    assert_eq!((parked.state, parked.attempts), (MessageState::Parked, 1));
    assert_eq!(parked.last_error.as_deref(), Some("HTTP 410"));
    assert_eq!(outbox.settled(two).await.state, MessageState::Delivered);
    working.stop().await;
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let elsewhere = Receiver::start(|_, _| async { status(200) }).await;
    let target = elsewhere.url.clone();
    let receiver = Receiver::start(move |_, before| {
        let target = target.clone();
        async move {
            match before {
                0 => Response::builder().status(307).header("location", target).body(Body::empty()).unwrap(),
                _ => status(200),
            }
        }
    })
    .await;
    let outbox = Memory::default();
    let id = outbox.write(webhook(room(), "{}"));
    let working = Working::start(&outbox, webhooks_to(&receiver.url));
    let settled = outbox.settled(id).await;
    assert_eq!((settled.attempts, settled.last_error.as_deref()), (2, Some("HTTP 307")));
    assert!(elsewhere.received().is_empty());
    working.stop().await;
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_is_given_it() {
    let receiver = Receiver::start(|_, before| async move {
        match before {
            0 => Response::builder().status(503).header("retry-after", "60").body(Body::empty()).unwrap(),
            _ => status(200),
        }
    })
    .await;
    let outbox = Memory::default();
    let id = outbox.write(webhook(room(), "{}"));
    let working = Working::start(&outbox, webhooks_to(&receiver.url));
    let begin = working.clock.mono();
    outbox.settled(id).await;
    // Sixty seconds, a hundred times shorter; without the header it would be a twelfth of that.
    let waited = working.clock.mono().since(begin);
    assert!(waited >= Duration::from_millis(550), "{waited:?}");
    working.stop().await;
}

#[tokio::test]
async fn an_endless_answer_is_not_read() {
    let receiver = Receiver::start(|_, _| async {
        let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 4096])));
        Response::builder().status(200).body(Body::from_stream(endless)).unwrap()
    })
    .await;
    let outbox = Memory::default();
    let id = outbox.write(webhook(room(), "{}"));
    let working = Working::start(&outbox, webhooks_to(&receiver.url));
    let begin = working.clock.mono();
    assert_eq!(outbox.settled(id).await.state, MessageState::Delivered);
    assert!(working.clock.mono().since(begin) < Duration::from_secs(1));
    working.stop().await;
}

#[tokio::test]
async fn a_message_written_later_goes_out_when_the_notifier_is_woken() {
    let receiver = Receiver::start(|_, _| async { status(200) }).await;
    let outbox = Memory::default();
    let working = Working::start(&outbox, webhooks_to(&receiver.url));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begin = working.clock.mono();
    let id = outbox.write(webhook(room(), "{}"));
    working.waker.wake();
    outbox.settled(id).await;
    assert!(working.clock.mono().since(begin) < Duration::from_secs(1), "before it would have looked by itself");
    working.stop().await;
}
