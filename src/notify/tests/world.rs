//! An outbox in memory whose pauses are short, and receivers that remember what they were sent.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::id::{MessageId, ParticipantId, RoomId};
use crate::notify::notifier::Pace;
use crate::notify::{
    Authorization, ContentType, Endpoint, GatewayConfig, Notifier, Outbox, Settings, Sms, SmsOutcome, SmsText,
    Template, Waker, WebhookConfig, WebhookSecret,
};
use crate::store::{self, Message, MessageKind, MessageState, Personal, Purpose, Seal, Secret};

/// How much shorter pauses are here than in the schedule: five seconds are fifty milliseconds.
const SHORTER: i32 = 100;

pub(super) const PACE: Pace = Pace {
    attempt: Duration::from_secs(2),
    store: Duration::from_millis(20),
    busy: Duration::from_millis(10),
    longest: Duration::from_secs(3),
};

pub(super) const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(super) const PHONE: &str = "+393331234567";
pub(super) const TEXT: &str = "Il Suo codice: 402913";
pub(super) const KEY: &str = "Bearer gateway-key-7";

/// The outbox, as the store promises it.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<Mutex<MemoryState>>);

#[derive(Default)]
struct MemoryState {
    messages: Vec<Message>,
    /// How many of the next calls fail.
    failing: u32,
}

impl Memory {
    pub(super) fn write(&self, message: Message) -> MessageId {
        let id = message.id;
        self.0.lock().unwrap().messages.push(message);
        id
    }

    pub(super) fn message(&self, id: MessageId) -> Message {
        self.0.lock().unwrap().messages.iter().find(|message| message.id == id).unwrap().clone()
    }

    pub(super) fn fail_next(&self, calls: u32) {
        self.0.lock().unwrap().failing = calls;
    }

    pub(super) async fn settled(&self, id: MessageId) -> Message {
        let settled = async {
            loop {
                let message = self.message(id);
                if message.state != MessageState::Pending {
                    return message;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), settled).await.expect("the message is settled in time")
    }

    fn call<T>(&self, body: impl FnOnce(&mut Vec<Message>) -> T) -> Result<T, store::Error> {
        let mut state = self.0.lock().unwrap();
        if state.failing > 0 {
            state.failing -= 1;
            return Err(store::Error::Corrupt("disk"));
        }
        Ok(body(&mut state.messages))
    }
}

fn lane(message: &Message) -> String {
    match message.kind {
        MessageKind::Webhook => message.room.to_string(),
        MessageKind::Sms => message.participant.unwrap().to_string(),
    }
}

fn heads(messages: &[Message], kind: MessageKind) -> Vec<Message> {
    let mut lanes = Vec::new();
    let mut heads = Vec::new();
    for message in messages.iter().filter(|message| message.kind == kind && message.state == MessageState::Pending) {
        if !lanes.contains(&lane(message)) {
            lanes.push(lane(message));
            heads.push(message.clone());
        }
    }
    heads
}

impl Outbox for Memory {
    async fn due_messages(&self, kind: MessageKind, now: Timestamp, limit: u32) -> Result<Vec<Message>, store::Error> {
        self.call(|messages| {
            let due = heads(messages, kind).into_iter().filter(|message| message.due <= now);
            due.take(usize::try_from(limit).unwrap()).collect()
        })
    }

    async fn next_due(&self, kind: MessageKind) -> Result<Option<Timestamp>, store::Error> {
        self.call(|messages| heads(messages, kind).iter().map(|message| message.due).min())
    }

    async fn oldest_pending(&self, kind: MessageKind) -> Result<Option<Timestamp>, store::Error> {
        self.call(|messages| heads(messages, kind).iter().map(|message| message.created).min())
    }

    async fn message_delivered(&self, id: MessageId, _at: Timestamp) -> Result<(), store::Error> {
        self.call(|messages| {
            let message = messages.iter_mut().find(|message| message.id == id).unwrap();
            message.attempts += 1;
            message.state = MessageState::Delivered;
        })
    }

    async fn message_failed(
        &self,
        id: MessageId,
        at: Timestamp,
        error: &str,
        retry_at: Option<Timestamp>,
    ) -> Result<(), store::Error> {
        self.call(|messages| {
            let message = messages.iter_mut().find(|message| message.id == id).unwrap();
            message.attempts += 1;
            message.last_error = Some(error.to_owned());
            match retry_at {
                Some(due) => message.due = at + at.duration_until(due) / SHORTER,
                None => message.state = MessageState::Parked,
            }
        })
    }
}

/// What a receiver was sent.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(super) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }
}

/// An HTTP server that remembers.
pub(super) struct Receiver {
    pub(super) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    server: JoinHandle<()>,
}

impl Receiver {
    /// Answers every POST with what `answer` makes of it and of how many came before.
    pub(super) async fn start<F>(answer: impl Fn(Received, usize) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response> + Send,
    {
        let received = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&received);
        let handler = move |headers: HeaderMap, body: Bytes| {
            let request = Received { headers, body };
            let before = {
                let mut seen = seen.lock().unwrap();
                seen.push(request.clone());
                seen.len() - 1
            };
            let answer = answer.clone();
            async move { answer(request, before).await }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks/path-key-5?token=query-key-6", listener.local_addr().unwrap());
        let router = Router::new().fallback(handler);
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, received, server }
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until so many requests came.
    pub(super) async fn has(&self, count: usize) -> Vec<Received> {
        let came = async {
            while self.received().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), came).await.expect("the requests come in time");
        self.received()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A bare answer.
pub(super) fn status(status: u16) -> Response {
    Response::builder().status(status).body("far-end-words-9".into()).unwrap()
}

/// A notifier at work.
pub(super) struct Working {
    pub(super) clock: Clock,
    pub(super) waker: Waker,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl Working {
    pub(super) fn start(outbox: &Memory, settings: Settings) -> Self {
        let clock = Clock::new();
        let notifier = Notifier::with_pace(outbox.clone(), settings, clock, PACE).unwrap();
        let waker = notifier.waker();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(notifier.run(async {
            let _stop = stopped.await;
        }));
        Self { clock, waker, stop: Some(stop), running }
    }

    /// Tells it to stop and waits until it has.
    pub(super) async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        tokio::time::timeout(PACE.attempt * 2, self.running).await.expect("it stops in time").unwrap();
    }
}

pub(super) fn webhooks_to(url: &str) -> Settings {
    let secrets = vec![WebhookSecret::parse(WEBHOOK_SECRET).unwrap()];
    Settings { webhooks: Some(WebhookConfig { url: Endpoint::parse(url, false).unwrap(), secrets }), sms: None }
}

pub(super) fn sms_to(url: &str, kind: ContentType, body: &str) -> (Settings, mpsc::Receiver<SmsOutcome>) {
    let gateway = GatewayConfig {
        url: Endpoint::parse(url, false).unwrap(),
        body: Template::parse(kind, body).unwrap(),
        authorization: Authorization::parse(KEY),
    };
    let (outcomes, told) = mpsc::channel(8);
    (Settings { webhooks: None, sms: Some(Sms { gateway, seal: seal(), outcomes }) }, told)
}

pub(super) fn seal() -> Seal {
    Seal::derive(&[7; 32], Purpose::TextMessage).unwrap()
}

pub(super) fn room() -> RoomId {
    RoomId::new(Clock::new().now().wall)
}

pub(super) fn webhook(room: RoomId, body: &str) -> Message {
    message(MessageKind::Webhook, room, None, |_| body.as_bytes().to_vec())
}

pub(super) fn sms(participant: ParticipantId) -> Message {
    let text = SmsText { phone: Personal::from(PHONE), text: Secret::new(TEXT.into()) };
    message(MessageKind::Sms, room(), Some(participant), |id| text.seal(&seal(), id).unwrap())
}

fn message(
    kind: MessageKind,
    room: RoomId,
    participant: Option<ParticipantId>,
    body: impl FnOnce(MessageId) -> Vec<u8>,
) -> Message {
    let now = Clock::new().now().wall;
    let id = MessageId::new(now);
    Message {
        id,
        kind,
        room,
        participant,
        subject: if kind == MessageKind::Sms { "code".into() } else { "room.concluded".into() },
        body: body(id),
        created: now,
        due: now,
        give_up: now + SignedDuration::from_hours(72),
        attempts: 0,
        state: MessageState::Pending,
        last_error: None,
    }
}
