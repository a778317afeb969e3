//! Text messages over the wire.

use super::world::{KEY, Memory, PHONE, Receiver, TEXT, Working, seal, sms, sms_to, status};
use crate::clock::Clock;
use crate::id::ParticipantId;
use crate::notify::{ContentType, SmsOutcome, SmsText};
use crate::store::{MessageState, SealError};

const JSON: &str = r#"{"to": "{phone}", "text": "{text}", "id": "{id}"}"#;

fn person() -> ParticipantId {
    ParticipantId::new(Clock::new().now().wall)
}

#[tokio::test]
async fn the_gateway_gets_the_template_filled_and_control_hears_of_it() {
    let gateway = Receiver::start(|_, _| async { status(202) }).await;
    let (settings, mut told) = sms_to(&gateway.url, ContentType::Json, JSON);
    let outbox = Memory::default();
    let message = sms(person());
    let expected =
        SmsOutcome { id: message.id, room: message.room, participant: message.participant.unwrap(), sent: true };
    let id = outbox.write(message);
    let working = Working::start(&outbox, settings);
    assert_eq!(told.recv().await, Some(expected));
    assert_eq!(outbox.message(id).state, MessageState::Delivered, "noted before it is told");
    let [request] = &gateway.received()[..] else { panic!("one request") };
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("authorization"), KEY);
    let sent: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(sent, serde_json::json!({"to": PHONE, "text": TEXT, "id": id.to_string()}));
    working.stop().await;
}

#[tokio::test]
async fn a_form_gateway_gets_a_form() {
    let gateway = Receiver::start(|_, _| async { status(200) }).await;
    let (settings, _told) = sms_to(&gateway.url, ContentType::Form, "to={phone}&text={text}");
    let outbox = Memory::default();
    let id = outbox.write(sms(person()));
    let working = Working::start(&outbox, settings);
    outbox.settled(id).await;
    let [request] = &gateway.received()[..] else { panic!("one request") };
    assert_eq!(request.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(request.text(), "to=%2B393331234567&text=Il+Suo+codice%3A+402913");
    working.stop().await;
}

#[tokio::test]
async fn a_gateway_in_trouble_is_asked_again_and_one_that_refuses_is_not() {
    let gateway = Receiver::start(|_, before| async move { status([500, 429, 400][before]) }).await;
    let (settings, mut told) = sms_to(&gateway.url, ContentType::Json, JSON);
    let outbox = Memory::default();
    let id = outbox.write(sms(person()));
    let working = Working::start(&outbox, settings);
    let settled = outbox.settled(id).await;
    assert_eq!((settled.state, settled.attempts), (MessageState::Parked, 3));
    assert_eq!(settled.last_error.as_deref(), Some("HTTP 400"));
    assert!(!told.recv().await.unwrap().sent);
    working.stop().await;
}

#[tokio::test]
async fn a_text_that_does_not_open_or_comes_too_late_is_given_up_unsent() {
    let gateway = Receiver::start(|_, _| async { status(200) }).await;
    let (settings, mut told) = sms_to(&gateway.url, ContentType::Json, JSON);
    let outbox = Memory::default();
    let (mut foreign, mut late) = (sms(person()), sms(person()));
    foreign.body[20] ^= 1;
    late.give_up = late.created - jiff::SignedDuration::from_mins(2);
    let ids = [outbox.write(foreign), outbox.write(late)];
    let working = Working::start(&outbox, settings);
    let errors =
        [outbox.settled(ids[0]).await, outbox.settled(ids[1]).await].map(|message| message.last_error.unwrap());
    assert_eq!(errors, ["the sealed text does not open", "too late to be of use"]);
    assert!(!told.recv().await.unwrap().sent && !told.recv().await.unwrap().sent);
    assert!(gateway.received().is_empty());
    working.stop().await;
}

#[test]
fn a_sealed_text_belongs_to_its_message() {
    let (one, other) = (sms(person()), sms(person()));
    let text = SmsText::open(&seal(), one.id, &one.body).unwrap();
    assert_eq!((text.phone.expose(), text.text.expose()), (PHONE, TEXT));
    assert_eq!(SmsText::open(&seal(), other.id, &one.body), Err(SealError::NotOpened));
    assert_eq!(format!("{text:?}"), "SmsText { phone: Personal(…), text: Secret(…) }");
}
