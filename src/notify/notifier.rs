//! The task that empties the outbox: one queue per kind of message, bounded attempts beside each other, one at a time
//! within a lane.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::sleep;

use super::http::{ATTEMPT_LIMIT, Client, ClientError, Post};
use super::meters::Meters;
use super::schedule::{self, Answer, NoAnswer, Step};
use super::{GatewayConfig, Outbox, WebhookConfig, WebhookSecret, sms, webhook};
use crate::clock::{Clock, MonoTime};
use crate::id::{MessageId, ParticipantId, RoomId};
use crate::store::{self, Message, MessageKind, Seal};

/// Attempts of one kind beside each other. More: the receiver sees more at once after an outage, and each costs a
/// connection. Fewer: rooms wait for each other while a receiver is slow.
const MOST_ATTEMPTS: usize = 16;

/// How often the outbox is looked at although nobody woke us and nothing is due: a wall clock that was set forward is
/// noticed this late.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// How often it is looked at while messages are due that wait for an attempt within their lane. Longer: another lane's
/// message, due meanwhile, starts this late. Shorter: more reading for nothing.
const BUSY_SLEEP: Duration = Duration::from_secs(1);

/// Pause after the database failed. Shorter: a log full of the same line.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// How long control may take to hear how a text message ended. It is told so that people see it; the outbox knows.
const OUTCOME_LIMIT: Duration = Duration::from_secs(5);

/// How often the age of the oldest message is asked for: as often as metrics are usually read.
const METER_PAUSE: Duration = Duration::from_secs(10);

/// What is sent, and where to.
#[derive(Debug)]
pub struct Settings {
    /// Webhooks; `None`: those in the outbox wait.
    pub webhooks: Option<WebhookConfig>,
    /// Text messages; `None`: those in the outbox wait.
    pub sms: Option<Sms>,
}

/// What text messages need.
#[derive(Debug)]
pub struct Sms {
    /// Who sends them.
    pub gateway: GatewayConfig,
    /// What opens their bodies.
    pub seal: Seal,
    /// Who hears how each ended.
    pub outcomes: mpsc::Sender<SmsOutcome>,
}

/// How a text message ended. The outbox has it too: one that nobody heard of, because the node stopped, is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmsOutcome {
    /// The message.
    pub id: MessageId,
    /// The room that it is about.
    pub room: RoomId,
    /// The person that it is for.
    pub participant: ParticipantId,
    /// Whether the gateway took it; otherwise it was given up.
    pub sent: bool,
}

/// Tells the notifier that the outbox has something new.
#[derive(Clone, Debug, Default)]
pub struct Waker {
    webhooks: Arc<Notify>,
    sms: Arc<Notify>,
}

impl Waker {
    /// To be called after messages were written. Cheap; many calls are as good as one.
    pub fn wake(&self) {
        self.webhooks.notify_one();
        self.sms.notify_one();
    }
}

/// Sends what the outbox holds.
pub struct Notifier<O> {
    queues: Vec<Queue<O>>,
    waker: Waker,
}

/// The pauses and limits, which tests shorten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) attempt: Duration,
    pub(super) store: Duration,
    pub(super) busy: Duration,
    pub(super) longest: Duration,
}

impl Pace {
    const USUAL: Self = Self { attempt: ATTEMPT_LIMIT, store: STORE_PAUSE, busy: BUSY_SLEEP, longest: LONGEST_SLEEP };
}

impl<O: Outbox> Notifier<O> {
    /// A notifier over `outbox`; [`Notifier::run`] makes it send.
    ///
    /// # Errors
    /// [`ClientError`]: `https://` is configured and this machine has no root certificates.
    pub fn new(outbox: O, settings: Settings, clock: Clock) -> Result<Self, ClientError> {
        Self::with_pace(outbox, settings, clock, Pace::USUAL)
    }

    pub(super) fn with_pace(outbox: O, settings: Settings, clock: Clock, pace: Pace) -> Result<Self, ClientError> {
        let outbox = Arc::new(outbox);
        let waker = Waker::default();
        let mut queues = Vec::new();
        if let Some(WebhookConfig { url, secrets }) = settings.webhooks {
            let client = Client::new(url, pace.attempt, clock)?;
            let route = Route::new(Carrier::Webhook(secrets), Arc::clone(&outbox), client, clock, pace);
            queues.push(Queue::new(route, Arc::clone(&waker.webhooks)));
        }
        if let Some(sms) = settings.sms {
            let client = Client::new(sms.gateway.url.clone(), pace.attempt, clock)?;
            let route = Route::new(Carrier::Sms(sms), outbox, client, clock, pace);
            queues.push(Queue::new(route, Arc::clone(&waker.sms)));
        }
        Ok(Self { queues, waker })
    }

    /// What wakes this notifier.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Sends until `stop` comes. Then nothing new is begun, and the attempts under way end, within
    /// 15 s each; what did not arrive stays in the outbox.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let (stopping, is_stopping) = watch::channel(false);
        let mut running = JoinSet::new();
        for queue in self.queues {
            running.spawn(queue.run(is_stopping.clone()));
        }
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = running.join_next() => queue_ended(ended),
            }
        }
        stopping.send_replace(true);
        while let Some(ended) = running.join_next().await {
            queue_ended(ended);
        }
    }
}

impl<O> std::fmt::Debug for Notifier<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notifier")
    }
}

fn queue_ended(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a queue of messages broke down: what it holds is sent after the next start");
    }
}

/// Messages of one kind: which lanes have an attempt under way, and when to look again.
struct Queue<O> {
    route: Arc<Route<O>>,
    wake: Arc<Notify>,
    attempts: JoinSet<()>,
    /// Which message each attempt is about.
    under_way: HashMap<Id, Arc<Message>>,
    measured: Option<MonoTime>,
}

impl<O: Outbox> Queue<O> {
    fn new(route: Route<O>, wake: Arc<Notify>) -> Self {
        Self { route: Arc::new(route), wake, attempts: JoinSet::new(), under_way: HashMap::new(), measured: None }
    }

    async fn run(mut self, stopping: watch::Receiver<bool>) {
        let mut stop = stopping.clone();
        loop {
            let pause = match self.start_due(&stopping).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, "the outbox cannot be read");
                    self.route.pace.store
                }
            };
            tokio::select! {
                () = stopped(&mut stop) => break,
                () = self.wake.notified() => {}
                Some(ended) = self.attempts.join_next_with_id() => self.attempt_ended(ended, &stopping),
                () = sleep(pause) => {}
            }
        }
        while let Some(ended) = self.attempts.join_next_with_id().await {
            self.attempt_ended(ended, &stopping);
        }
    }

    /// Begins attempts for what is due, as far as there is room; tells how long nothing else will be due.
    async fn start_due(&mut self, stopping: &watch::Receiver<bool>) -> Result<Duration, store::Error> {
        let route = Arc::clone(&self.route);
        let now = route.clock.now().wall;
        self.measure(now).await?;
        // Lanes with an attempt under way are among the answers: as many as there are places are enough to fill them.
        let limit = u32::try_from(MOST_ATTEMPTS).unwrap_or(u32::MAX);
        for message in route.outbox.due_messages(route.kind, now, limit).await? {
            if self.attempts.len() >= MOST_ATTEMPTS {
                break;
            }
            if !self.is_busy(&message) {
                let message = Arc::new(message);
                let attempt = Arc::clone(&route).deliver(Arc::clone(&message), stopping.clone());
                self.under_way.insert(self.attempts.spawn(attempt).id(), message);
            }
        }
        if self.attempts.len() >= MOST_ATTEMPTS {
            return Ok(route.pace.longest);
        }
        let Some(next) = route.outbox.next_due(route.kind).await? else { return Ok(route.pace.longest) };
        let pause = Duration::try_from(route.clock.now().wall.duration_until(next)).unwrap_or_default();
        Ok(if pause.is_zero() { route.pace.busy } else { pause.min(route.pace.longest) })
    }

    /// A lane's next message is not begun before the one before it is settled.
    fn is_busy(&self, message: &Message) -> bool {
        self.under_way.values().any(|other| lane(other) == lane(message))
    }

    fn attempt_ended(&mut self, ended: Result<(Id, ()), JoinError>, stopping: &watch::Receiver<bool>) {
        let (id, panicked) = match ended {
            Ok((id, ())) => (id, false),
            Err(error) => (error.id(), true),
        };
        let Some(message) = self.under_way.remove(&id) else { return };
        if panicked {
            // Left due, it would be tried again at once, and again.
            tracing::error!(id = %message.id, room = %message.room, "an attempt to deliver a message broke down");
            let route = Arc::clone(&self.route);
            let settling = {
                let (message, stopping) = (Arc::clone(&message), stopping.clone());
                async move { route.settle(&message, Answer::Nothing(NoAnswer::Ours), stopping).await }
            };
            self.under_way.insert(self.attempts.spawn(settling).id(), message);
        }
    }

    async fn measure(&mut self, now: Timestamp) -> Result<(), store::Error> {
        let mono = self.route.clock.mono();
        if self.measured.is_some_and(|before| mono.since(before) < METER_PAUSE) {
            return Ok(());
        }
        let oldest = self.route.outbox.oldest_pending(self.route.kind).await?;
        let waiting = oldest.map_or(SignedDuration::ZERO, |created| created.duration_until(now));
        self.route.meters.show_oldest(Duration::try_from(waiting).unwrap_or_default());
        self.measured = Some(mono);
        Ok(())
    }
}

/// What is sent one after the other: a room's webhooks, a person's text messages.
fn lane(message: &Message) -> (RoomId, Option<ParticipantId>) {
    match message.kind {
        MessageKind::Webhook => (message.room, None),
        MessageKind::Sms => (message.room, message.participant),
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _stopping = stop.wait_for(|stopping| *stopping).await;
}

/// How messages of one kind get out, and what is noted of it.
struct Route<O> {
    kind: MessageKind,
    carrier: Carrier,
    outbox: Arc<O>,
    client: Client,
    clock: Clock,
    meters: Meters,
    pace: Pace,
}

/// What makes a request of a message.
enum Carrier {
    Webhook(Vec<WebhookSecret>),
    Sms(Sms),
}

impl Carrier {
    fn request(&self, message: &Message, now: Timestamp) -> Result<Post, &'static str> {
        match self {
            Self::Webhook(secrets) => {
                webhook::request(message, secrets, now).map_err(|_| "the request cannot be written")
            }
            Self::Sms(_) if schedule::is_too_late(message, now) => Err("too late to be of use"),
            Self::Sms(sms) => {
                sms::request(message, &sms.gateway, &sms.seal).map_err(|_| "the sealed text does not open")
            }
        }
    }
}

impl<O: Outbox> Route<O> {
    fn new(carrier: Carrier, outbox: Arc<O>, client: Client, clock: Clock, pace: Pace) -> Self {
        let kind = match carrier {
            Carrier::Webhook(_) => MessageKind::Webhook,
            Carrier::Sms(_) => MessageKind::Sms,
        };
        Self { kind, carrier, outbox, client, clock, meters: Meters::new(kind), pace }
    }

    async fn deliver(self: Arc<Self>, message: Arc<Message>, stopping: watch::Receiver<bool>) {
        let answer = self.attempt(&message).await;
        self.settle(&message, answer, stopping).await;
    }

    async fn attempt(&self, message: &Message) -> Answer {
        let begin = self.clock.now();
        let answer = match self.carrier.request(message, begin.wall) {
            Ok(post) => self.client.post(post).await,
            Err(why) => Answer::Unsendable(why),
        };
        self.meters.count_attempt(answer, self.clock.mono().since(begin.mono));
        answer
    }

    /// Notes what came of an attempt, and goes on trying to while the database fails: forgotten, the message would be
    /// sent again.
    async fn settle(&self, message: &Message, answer: Answer, mut stopping: watch::Receiver<bool>) {
        let now = self.clock.now().wall;
        let step = schedule::after(message, answer, now, jitter());
        self.meters.count_step(&step);
        log_step(message, &step);
        while let Err(error) = self.note(message, &step, now).await {
            tracing::error!(id = %message.id, %error, "what came of a message cannot be noted");
            tokio::select! {
                () = stopped(&mut stopping) => return,
                () = sleep(self.pace.store) => {}
            }
        }
        let sent = match step {
            Step::Delivered => true,
            Step::Park { .. } => false,
            Step::Retry { .. } => return,
        };
        self.tell_outcome(message, sent).await;
    }

    async fn note(&self, message: &Message, step: &Step, now: Timestamp) -> Result<(), store::Error> {
        match step {
            Step::Delivered => self.outbox.message_delivered(message.id, now).await,
            Step::Retry { at, error } => self.outbox.message_failed(message.id, now, error, Some(*at)).await,
            Step::Park { error } => self.outbox.message_failed(message.id, now, error, None).await,
        }
    }

    async fn tell_outcome(&self, message: &Message, sent: bool) {
        let (Carrier::Sms(sms), Some(participant)) = (&self.carrier, message.participant) else { return };
        let outcome = SmsOutcome { id: message.id, room: message.room, participant, sent };
        if sms.outcomes.send_timeout(outcome, OUTCOME_LIMIT).await.is_err() {
            tracing::warn!(id = %message.id, room = %message.room, "nobody heard how a text message ended");
        }
    }
}

fn log_step(message: &Message, step: &Step) {
    let Message { id, room, subject, attempts, .. } = message;
    let attempt = attempts.saturating_add(1);
    match (step, message.kind) {
        (Step::Delivered, _) => tracing::debug!(%id, %room, subject, attempt, "a message is delivered"),
        (Step::Retry { at, error }, _) => {
            tracing::warn!(%id, %room, subject, attempt, error, again = %at, "a message did not arrive");
        }
        (Step::Park { error }, MessageKind::Webhook) => {
            tracing::error!(%id, %room, subject, attempt, error, "a webhook is given up: it waits to be replayed");
        }
        (Step::Park { error }, MessageKind::Sms) => {
            tracing::error!(%id, %room, attempt, error, "a text message is given up: its code must be issued again");
        }
    }
}

/// From the operating system's generator; without it, no jitter.
fn jitter() -> u32 {
    let mut bytes = [0; 4];
    rand::fill(&mut bytes).map_or(0, |()| u32::from_ne_bytes(bytes))
}
