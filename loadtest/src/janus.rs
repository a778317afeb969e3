//! Janus's REST API, as far as a meeting in its video room needs it: a peer to be measured by the same load. Requests
//! carry a `transaction`; what takes longer is answered by an event with the same, and all events of a session come by
//! one long poll.
//!
//! ```text
//! Room::make ──> three times: Visit::begin ─ publish (we offer) ─ others ─ subscribe (Janus offers) ─ start ──> end
//! ```

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::events::Slot;

/// A server that takes longer than this for one request has failed the run anyway.
const LONGEST_REQUEST: Duration = Duration::from_secs(20);

/// Janus answers a long poll after 30 s at the latest.
const LONGEST_POLL: Duration = Duration::from_mins(1);

/// The plugin that is driven.
const VIDEO_ROOM: &str = "janus.plugin.videoroom";

/// One server. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Janus {
    http: reqwest::Client,
    url: String,
}

/// Why Janus did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum JanusError {
    /// It was not reached, or what it said was not JSON.
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    /// It refused.
    #[error("{what}: {code} {reason}")]
    Refused {
        /// The request.
        what: String,
        /// Janus's number for it.
        code: i64,
        /// Janus's words.
        reason: String,
    },
    /// Its answer lacks something.
    #[error("{what}: the answer has no {lacks}")]
    Lacks {
        /// The request.
        what: String,
        /// What is not there.
        lacks: &'static str,
    },
    /// It took the request, and then said nothing.
    #[error("{0}: no event came of it")]
    Silent(String),
    /// The session is over.
    #[error("{0}: the session is over")]
    Over(String),
}

impl Janus {
    /// A client of the server whose HTTP API is at `url`.
    pub fn new(url: &str) -> Self {
        Self { http: reqwest::Client::new(), url: url.trim_end_matches('/').to_owned() }
    }

    /// Posts a request to a path below the API's own; gives what was said at once.
    async fn post(&self, path: &str, request: &Value) -> Result<Message, JanusError> {
        let request = self.http.post(format!("{}{path}", self.url)).json(request).timeout(LONGEST_REQUEST);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// All events of a session that wait, or the next.
    async fn poll(&self, path: &str) -> Result<Vec<Message>, reqwest::Error> {
        // More than one event at a time: an answer that is a list.
        let request = self.http.get(format!("{}{path}?maxev=10", self.url)).timeout(LONGEST_POLL);
        Ok(messages(request.send().await?.error_for_status()?.json().await?))
    }
}

/// What Janus says, in answers and events.
#[derive(Debug, Deserialize)]
#[serde(tag = "janus", rename_all = "lowercase")]
enum Message {
    /// It is done.
    Success { data: Option<Named>, plugindata: Option<PluginData> },
    /// It will be done; an event tells.
    Ack,
    /// The plugin's word, asked for or not.
    Event { transaction: Option<String>, plugindata: Option<PluginData>, jsep: Option<Jsep> },
    /// It will not be done.
    Error { error: Refusal },
    /// The session was not used for too long.
    Timeout,
    /// The rest: that nothing has happened, that media flows, that a connection stands.
    #[serde(other)]
    Other,
}

/// The name of a new session or handle.
#[derive(Debug, Deserialize)]
struct Named {
    id: u64,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    code: i64,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct PluginData {
    data: Word,
}

/// The video room's word.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Word {
    room: Option<u64>,
    /// Those who publish, as far as they are new to us.
    publishers: Vec<Named>,
    streams: Vec<Stream>,
    error_code: Option<i64>,
    error: Option<String>,
}

/// An m-line of a subscription, and whose media it carries.
#[derive(Debug, Deserialize)]
struct Stream {
    mid: String,
    #[serde(rename = "type")]
    kind: String,
    feed_id: Option<u64>,
}

/// An offer or answer.
#[derive(Debug, Serialize, Deserialize)]
struct Jsep {
    #[serde(rename = "type")]
    kind: String,
    sdp: String,
}

/// The messages of a poll: a list, or one by itself. What is none is passed over.
fn messages(polled: Value) -> Vec<Message> {
    let all = if let Value::Array(all) = polled { all } else { vec![polled] };
    all.into_iter().filter_map(|message| serde_json::from_value(message).ok()).collect()
}

/// What was said to a request, with the SDP that came along.
type Said = (Word, Option<String>);

fn said(what: &str, word: Option<PluginData>, jsep: Option<Jsep>) -> Result<Said, JanusError> {
    let word = word.map(|plugin| plugin.data).unwrap_or_default();
    match word.error_code {
        None => Ok((word, jsep.map(|jsep| jsep.sdp))),
        Some(code) => Err(JanusError::Refused { what: what.into(), code, reason: word.error.unwrap_or_default() }),
    }
}

/// Who waits for the event of which transaction. Closed with the session.
type Waiting = Arc<Mutex<Option<HashMap<String, oneshot::Sender<(Option<PluginData>, Option<Jsep>)>>>>>;

/// A session. Janus forgets it when nobody polls for a minute.
#[derive(Debug)]
struct Session {
    janus: Janus,
    path: String,
    transactions: AtomicU64,
    waiting: Waiting,
    /// Those who publish, as far as we were told.
    feeds: watch::Receiver<BTreeSet<u64>>,
    polling: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.polling.abort();
    }
}

impl Session {
    async fn begin(janus: &Janus) -> Result<Self, JanusError> {
        let create = json!({"janus": "create", "transaction": "create"});
        let path = format!("/{}", named("create", janus.post("", &create).await?)?);
        let waiting = Waiting::default();
        *waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(HashMap::new());
        let (tell, feeds) = watch::channel(BTreeSet::new());
        let polling = tokio::spawn(listen(janus.clone(), path.clone(), Arc::clone(&waiting), tell));
        Ok(Self { janus: janus.clone(), path, transactions: AtomicU64::new(0), waiting, feeds, polling })
    }

    fn transaction(&self) -> String {
        self.transactions.fetch_add(1, Ordering::Relaxed).to_string()
    }

    /// A new handle of the video room; gives its path.
    async fn attach(&self) -> Result<String, JanusError> {
        let attach = json!({"janus": "attach", "plugin": VIDEO_ROOM, "transaction": self.transaction()});
        Ok(format!("{}/{}", self.path, named("attach", self.janus.post(&self.path, &attach).await?)?))
    }

    /// Asks the video room for something, and waits for its word.
    async fn ask(&self, handle: &str, body: Value, jsep: Option<Jsep>) -> Result<Said, JanusError> {
        let what = body.get("request").and_then(Value::as_str).unwrap_or_default().to_owned();
        let transaction = self.transaction();
        let mut request = json!({"janus": "message", "transaction": transaction, "body": body});
        if let (Some(jsep), Some(request)) = (jsep, request.as_object_mut()) {
            request.insert("jsep".into(), json!(jsep));
        }
        let (tell, told) = oneshot::channel();
        match &mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(waiting) => waiting.insert(transaction, tell),
            None => return Err(JanusError::Over(what)),
        };
        match self.janus.post(handle, &request).await? {
            Message::Success { plugindata, .. } => said(&what, plugindata, None),
            Message::Ack => match tokio::time::timeout(LONGEST_REQUEST, told).await {
                Ok(Ok((word, jsep))) => said(&what, word, jsep),
                Ok(Err(_)) => Err(JanusError::Over(what)),
                Err(_) => Err(JanusError::Silent(what)),
            },
            other => Err(unfit(&what, other, "acknowledgement")),
        }
    }

    async fn end(self) -> Result<(), JanusError> {
        // A poll of a session that is no more is an error in Janus's log.
        self.polling.abort();
        let destroy = json!({"janus": "destroy", "transaction": self.transaction()});
        match self.janus.post(&self.path, &destroy).await? {
            Message::Success { .. } => Ok(()),
            other => Err(unfit("destroy", other, "success")),
        }
    }
}

fn named(what: &str, message: Message) -> Result<u64, JanusError> {
    match message {
        Message::Success { data: Some(Named { id }), .. } => Ok(id),
        other => Err(unfit(what, other, "id")),
    }
}

fn unfit(what: &str, message: Message, lacks: &'static str) -> JanusError {
    match message {
        Message::Error { error: Refusal { code, reason } } => JanusError::Refused { what: what.into(), code, reason },
        _ => JanusError::Lacks { what: what.into(), lacks },
    }
}

/// Hands each event to who waits for it, until the session is over. The polls keep it alive.
async fn listen(janus: Janus, path: String, waiting: Waiting, feeds: watch::Sender<BTreeSet<u64>>) {
    loop {
        let polled = match janus.poll(&path).await {
            Ok(polled) => polled,
            Err(error) => {
                tracing::debug!(%error, "no events any more");
                break;
            }
        };
        for message in polled {
            match message {
                Message::Event { transaction, plugindata, jsep } => {
                    if let Some(PluginData { data }) = &plugindata {
                        let new = data.publishers.iter().map(|feed| feed.id);
                        feeds.send_if_modified(|known| {
                            let before = known.len();
                            known.extend(new);
                            known.len() > before
                        });
                    }
                    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    let asked = transaction.and_then(|name| waiting.as_mut()?.remove(&name));
                    if let Some(asked) = asked {
                        let _ = asked.send((plugindata, jsep));
                    }
                }
                Message::Timeout => tracing::warn!("Janus let a session time out"),
                _ => {}
            }
        }
    }
    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// A video room that records.
#[derive(Debug)]
pub(crate) struct Room {
    session: Session,
    handle: String,
    id: u64,
}

impl Room {
    /// Makes a room for three that records all they send, into Janus's working directory.
    pub(crate) async fn make(janus: &Janus, number: u32, people: usize) -> Result<Self, JanusError> {
        let session = Session::begin(janus).await?;
        let handle = session.attach().await?;
        let (word, _) = session.ask(&handle, create(number, people), None).await?;
        let id = word.room.ok_or_else(|| JanusError::Lacks { what: "create".into(), lacks: "room" })?;
        Ok(Self { session, handle, id })
    }

    /// What a person needs to find it.
    pub(crate) fn door(&self) -> Door {
        Door { janus: self.session.janus.clone(), room: self.id }
    }

    /// Ends the room.
    pub(crate) async fn destroy(self) -> Result<(), JanusError> {
        self.session.ask(&self.handle, json!({"request": "destroy", "room": self.id}), None).await?;
        self.session.end().await
    }
}

/// No bound on bitrates (a bitrate of 0 sends no REMB), and nothing that the media does not need.
fn create(number: u32, people: usize) -> Value {
    json!({
        "request": "create", "description": format!("load test {number}"), "is_private": true, "permanent": false,
        "publishers": people, "bitrate": 0, "fir_freq": 0, "audiocodec": "opus", "videocodec": "vp8", "record": true,
        "notify_joining": false, "audiolevel_event": false,
    })
}

/// Where a room is.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    janus: Janus,
    room: u64,
}

/// One person in a room: a session with a handle to publish and one to subscribe, a connection each.
#[derive(Debug)]
pub(crate) struct Visit {
    session: Session,
    room: u64,
    publisher: String,
}

/// What one subscribes to.
pub(crate) struct Subscription {
    handle: String,
    /// Janus's offer.
    pub(crate) offer: String,
    /// Whose media each m-line carries.
    pub(crate) slots: HashMap<String, Slot>,
}

impl Visit {
    pub(crate) async fn begin(door: &Door) -> Result<Self, JanusError> {
        let session = Session::begin(&door.janus).await?;
        let publisher = session.attach().await?;
        Ok(Self { session, room: door.room, publisher })
    }

    /// Enters, and publishes what is offered; gives Janus's answer.
    pub(crate) async fn publish(&self, name: &str, offer: String) -> Result<String, JanusError> {
        let enter = json!({"request": "joinandconfigure", "ptype": "publisher", "room": self.room, "display": name});
        let jsep = Jsep { kind: "offer".into(), sdp: offer };
        let (_, answer) = self.session.ask(&self.publisher, enter, Some(jsep)).await?;
        answer.ok_or_else(|| JanusError::Lacks { what: "joinandconfigure".into(), lacks: "SDP" })
    }

    /// Tells where the published media comes from, in the words of a line of SDP; there is one address only.
    pub(crate) async fn trickle(&self, candidate: &str) -> Result<(), JanusError> {
        for candidate in [json!({"candidate": candidate, "sdpMLineIndex": 0}), json!({"completed": true})] {
            let transaction = self.session.transaction();
            let trickle = json!({"janus": "trickle", "transaction": transaction, "candidate": candidate});
            match self.session.janus.post(&self.publisher, &trickle).await? {
                Message::Ack => {}
                other => return Err(unfit("trickle", other, "acknowledgement")),
            }
        }
        Ok(())
    }

    /// Waits until so many others publish.
    pub(crate) async fn others(&self, count: usize) -> Result<Vec<u64>, JanusError> {
        let mut feeds = self.session.feeds.clone();
        let feeds = feeds.wait_for(|feeds| feeds.len() >= count).await;
        Ok(feeds.map_err(|_| JanusError::Over("publishers".into()))?.iter().copied().collect())
    }

    /// Subscribes to all that these publish, in one connection.
    pub(crate) async fn subscribe(&self, feeds: &[u64]) -> Result<Subscription, JanusError> {
        let handle = self.session.attach().await?;
        let (word, offer) = self.session.ask(&handle, join(self.room, feeds), None).await?;
        let offer = offer.ok_or_else(|| JanusError::Lacks { what: "join".into(), lacks: "SDP" })?;
        Ok(Subscription { handle, offer, slots: slots(word.streams) })
    }

    /// Answers Janus's offer: the media may flow.
    pub(crate) async fn start(&self, subscription: &str, answer: String) -> Result<(), JanusError> {
        let jsep = Jsep { kind: "answer".into(), sdp: answer };
        self.session.ask(subscription, json!({"request": "start"}), Some(jsep)).await?;
        Ok(())
    }

    /// Leaves the room; both connections end.
    pub(crate) async fn end(self) -> Result<(), JanusError> {
        self.session.end().await
    }
}

impl Subscription {
    /// Its handle, to be started by.
    pub(crate) fn handle(&self) -> &str {
        &self.handle
    }
}

fn join(room: u64, feeds: &[u64]) -> Value {
    let streams: Vec<Value> = feeds.iter().map(|feed| json!({"feed": feed})).collect();
    json!({"request": "join", "ptype": "subscriber", "room": room, "streams": streams})
}

/// The m-lines that carry somebody's media, in the words of our own server.
fn slots(streams: Vec<Stream>) -> HashMap<String, Slot> {
    let slot = |Stream { mid, kind, feed_id }: Stream| {
        let source = if kind == "audio" { "microphone" } else { "camera" };
        let slot = Slot { mid: mid.clone(), participant_id: feed_id?.to_string(), source: source.into() };
        Some((mid, slot))
    };
    streams.into_iter().filter_map(slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn names_of_sessions_and_handles_are_read() {
        let made = message(r#"{"janus":"success","transaction":"1","data":{"id":6150234985215521}}"#);
        assert_eq!(named("create", made).unwrap(), 6_150_234_985_215_521);
        let refused = message(r#"{"janus":"error","transaction":"1","error":{"code":458,"reason":"No such session"}}"#);
        assert_eq!(named("attach", refused).unwrap_err().to_string(), "attach: 458 No such session");
        assert!(matches!(named("attach", message(r#"{"janus":"success"}"#)), Err(JanusError::Lacks { .. })));
    }

    #[test]
    fn a_plugin_that_refuses_does_so_in_an_event_that_looks_well() {
        let text = r#"{"janus":"event","sender":7,"transaction":"3","plugindata":{"plugin":"janus.plugin.videoroom",
            "data":{"videoroom":"event","error_code":426,"error":"No such room (12)"}}}"#;
        let Message::Event { transaction, plugindata, jsep } = message(text) else { panic!() };
        assert_eq!(transaction.as_deref(), Some("3"));
        assert_eq!(said("join", plugindata, jsep).unwrap_err().to_string(), "join: 426 No such room (12)");
    }

    #[test]
    fn an_offer_comes_with_whose_media_it_is() {
        let text = r#"{"janus":"event","transaction":"4","plugindata":{"plugin":"janus.plugin.videoroom","data":{
            "videoroom":"attached","room":5,"streams":[
                {"mindex":0,"mid":"0","type":"audio","feed_id":11,"feed_mid":"0"},
                {"mindex":1,"mid":"1","type":"video","feed_id":11,"feed_mid":"1"},
                {"mindex":2,"mid":"2","type":"video"}]}},
            "jsep":{"type":"offer","sdp":"v=0\r\n"}}"#;
        let Message::Event { plugindata, jsep, .. } = message(text) else { panic!() };
        let (word, sdp) = said("join", plugindata, jsep).unwrap();
        assert_eq!((word.room, sdp.as_deref()), (Some(5), Some("v=0\r\n")));
        let slots = slots(word.streams);
        let slot = |mid| slots.get(mid).map(|slot| (slot.participant_id.as_str(), slot.source.as_str()));
        assert_eq!([slot("0"), slot("1"), slot("2")], [Some(("11", "microphone")), Some(("11", "camera")), None]);
    }

    #[test]
    fn a_poll_is_a_list_or_one_message_and_nonsense_is_passed_over() {
        assert_eq!(messages(json!([{"janus": "webrtcup"}, {"janus": "ack"}, 7, {"janus": "event"}])).len(), 3);
        assert!(matches!(messages(json!({"janus": "keepalive"}))[..], [Message::Other]));
        for nonsense in [json!(null), json!("x"), json!({"janus": 1}), json!({"janus": "error"}), json!([[]])] {
            assert!(messages(nonsense).is_empty());
        }
    }

    #[test]
    fn a_room_records_and_bounds_no_bitrate() {
        let room = create(3, 3);
        assert_eq!([&room["record"], &room["bitrate"], &room["publishers"]], [&json!(true), &json!(0), &json!(3)]);
        let wanted =
            json!({"request": "join", "ptype": "subscriber", "room": 5, "streams": [{"feed": 1}, {"feed": 2}]});
        assert_eq!(join(5, &[1, 2]), wanted);
    }
}
