//! A room of the day: what the API says of it, the way in, what the operator and the booking system do, and the devices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use loadtest::api::Api;
use loadtest::client::{Client, Devices, Habits, Part};
use loadtest::media::Voice;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::words::{Day, GLANCE, LONGEST_DELIVERY, SOON, pass};
use crate::server::{Booked, Events, accepted, refused, text};

/// A room of the day, its people's sessions and devices.
pub(super) struct Room<'d> {
    day: &'d Day,
    booked: Booked,
    sessions: BTreeMap<String, String>,
    devices: BTreeMap<String, Client>,
}

/// What the API says of a room.
impl<'d> Room<'d> {
    pub(super) fn booked(day: &'d Day, booked: Booked) -> Self {
        Self { day, booked, sessions: BTreeMap::new(), devices: BTreeMap::new() }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/rooms/{}{rest}", self.booked.room)
    }

    pub(super) fn id(&self, role: &str) -> String {
        self.booked.id(role)
    }

    /// The room as the booking system sees it.
    pub(super) async fn view(&self) -> Value {
        let server = self.day.server().await;
        server.get(&self.path(""), server.key("booking")).await
    }

    /// The room as this person sees it.
    pub(super) async fn seen_by(&self, role: &str) -> Value {
        self.day.server().await.get("/v1/session", &self.sessions[role]).await
    }

    pub(super) async fn is(&self, phase: &str) {
        let view = self.view().await;
        assert_eq!(view["phase"], phase, "{view}");
    }

    pub(super) async fn becomes(&self, phase: &str) {
        self.becomes_within(phase, SOON).await;
    }

    pub(super) async fn becomes_within(&self, phase: &str, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let view = self.view().await;
            if view["phase"] == phase {
                return;
            }
            let late = Instant::now() > deadline;
            assert!(!late, "not {phase} within {patience:?}: {view}\n{}", self.told().await.join("\n"));
            pass(GLANCE).await;
        }
    }

    /// The phase is looked at again and again for this long.
    pub(super) async fn stays(&self, phase: &str, time: Duration) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            let view = self.view().await;
            assert_eq!(view["phase"], phase, "{view}\n{}", self.told().await.join("\n"));
            pass(GLANCE).await;
        }
    }

    pub(super) async fn has_outcome(&self, outcome: &str) {
        let view = self.view().await;
        assert_eq!(view["outcome"], outcome, "{view}");
    }

    /// The types of the ledger's events, in order.
    pub(super) async fn told(&self) -> Vec<String> {
        self.day.ledger(&self.booked.room).await.iter().map(|line| text(&line["event"]["type"])).collect()
    }

    /// The webhook that tells of the delegation carries what it rests on.
    pub(super) async fn proof_of_the_delegation_is_told(&self) {
        let deadline = Instant::now() + LONGEST_DELIVERY;
        let granted = loop {
            let told = self.day.receiver.of_room(&self.booked.room);
            if let Some(granted) = told.into_iter().find(|webhook| webhook.kind() == "delegation.granted") {
                break granted;
            }
            assert!(Instant::now() < deadline, "the delegation was not told of");
            pass(GLANCE).await;
        };
        let ledger = self.day.ledger(&self.booked.room).await;
        let concluded = ledger.iter().find(|line| line["event"]["type"] == "concluded").unwrap();
        let data = granted.data();
        assert_eq!(data["ledger"], json!({"seq": concluded["seq"], "hash": concluded["hash"]}), "{data}");
        let people = data["proof"]["participants"].as_array().unwrap();
        let mut roles: Vec<_> = people.iter().map(|person| text(&person["role"])).collect();
        roles.sort();
        assert_eq!(roles, ["delegante", "delegato", "operator"], "{data}");
        let presence = data["proof"]["presence"].as_array().unwrap();
        let last_ms = presence.last().unwrap()["length_ms"].as_u64().unwrap();
        assert!(last_ms >= 5_000, "present together for the profile's minimum at least: {data}");
        for name in ["Ofelia", "Dario", "Zenobia", "BVLDRA80A01H501U"] {
            assert!(!granted.payload.to_string().contains(name), "the webhook tells «{name}»");
        }
    }

    /// How often the ledger tells of this.
    pub(super) async fn times_told(&self, event: &str) -> usize {
        self.told().await.iter().filter(|told| *told == event).count()
    }
}

/// The way in.
impl Room<'_> {
    async fn try_code(&self, role: &str, code: &str, take_over: bool) -> RequestBuilder {
        let path = format!("/v1/join/{}", text(&self.booked.invitation(role)["join_token"]));
        let body = if take_over { json!({"code": code, "take_over": true}) } else { json!({"code": code}) };
        self.day.server().await.anonymous(Method::POST, &path).json(&body)
    }

    fn code(&self, role: &str) -> String {
        text(&self.booked.invitation(role)["code"])
    }

    /// The person types a code that is not theirs; so many attempts are left then.
    pub(super) async fn mistypes(&self, role: &str, attempts_left: u8) {
        let wrong = if self.code(role) == "000000" { "000001" } else { "000000" };
        let problem = refused(self.try_code(role, wrong, false).await, 403, "wrong-code").await;
        assert_eq!(problem["attempts_left"], attempts_left, "{problem}");
    }

    /// The person types their code, and it does not help.
    pub(super) async fn code_is_refused(&self, role: &str, status: u16, slug: &str) -> Value {
        refused(self.try_code(role, &self.code(role), false).await, status, slug).await
    }

    /// The person types their code and is admitted.
    pub(super) async fn types_the_code(&mut self, role: &str) {
        let session = accepted(self.try_code(role, &self.code(role), false).await).await;
        self.sessions.insert(role.to_owned(), text(&session["session_token"]));
    }

    /// The person types their code on another device, and says that they mean it.
    pub(super) async fn takes_over(&mut self, role: &str) {
        let session = accepted(self.try_code(role, &self.code(role), true).await).await;
        self.sessions.insert(role.to_owned(), text(&session["session_token"]));
    }

    /// The person agrees to the recording.
    pub(super) async fn consents(&self, role: &str) {
        let version = self.seen_by(role).await["consent_text_version"].clone();
        self.post_as(role, "/v1/session/consent", &json!({"text_version": version})).await;
    }

    /// «Entra nella stanza».
    pub(super) async fn enters(&self, role: &str) {
        self.order_as(role, "/v1/session/enter").await;
    }

    /// From the code to the waiting room.
    pub(super) async fn waits(&mut self, role: &str) {
        self.types_the_code(role).await;
        self.consents(role).await;
        self.enters(role).await;
    }

    /// From the code into the room, with microphone and camera.
    pub(super) async fn comes_in(&mut self, role: &str) {
        self.waits(role).await;
        self.operator_admits(role).await;
        self.connects(role).await;
    }

    /// What this person's page is told.
    pub(super) async fn events_of(&self, role: &str) -> Events {
        self.day.server().await.follow(&self.sessions[role]).await
    }

    pub(super) async fn session_is_over(&self, role: &str) {
        let server = self.day.server().await;
        refused(server.request(Method::GET, "/v1/session", &self.sessions[role]), 401, "unauthenticated").await;
    }

    async fn post_as(&self, role: &str, path: &str, body: &Value) -> Value {
        self.day.server().await.post(path, &self.sessions[role], body).await
    }

    async fn order_as(&self, role: &str, path: &str) {
        self.day.server().await.order(path, &self.sessions[role]).await;
    }
}

/// What the operator and the booking system do.
impl Room<'_> {
    /// The operator comes, opens the room and is in it with microphone and camera.
    pub(super) async fn operator_opens(&mut self) {
        self.waits("operator").await;
        self.order_as("operator", &self.path("/open")).await;
        self.connects("operator").await;
    }

    pub(super) async fn operator_admits(&self, role: &str) {
        self.order_as("operator", &self.path(&format!("/participants/{}/admit", self.id(role)))).await;
    }

    pub(super) async fn operator_attests(&self, role: &str, beside: &str) {
        let path = self.path(&format!("/participants/{}/attest", self.id(role)));
        self.post_as("operator", &path, &json!({"beside": self.id(beside)})).await;
    }

    pub(super) async fn operator_withdraws_attestation(&self, role: &str) {
        let path = self.path(&format!("/participants/{}/attest", self.id(role)));
        accepted(self.day.server().await.request(Method::DELETE, &path, &self.sessions["operator"])).await;
    }

    pub(super) async fn operator_concludes(&self, outcome: &str, extension_hours: u16) {
        let conclusion = json!({"outcome": outcome, "extension_hours": extension_hours});
        self.post_as("operator", &self.path("/conclude"), &conclusion).await;
    }

    /// The outcome is refused; gives the problem.
    pub(super) async fn operator_may_not_conclude(&self, outcome: &str, slug: &str) -> Value {
        let server = self.day.server().await;
        let request = server.request(Method::POST, &self.path("/conclude"), &self.sessions["operator"]);
        refused(request.json(&json!({"outcome": outcome})), 409, slug).await
    }

    pub(super) async fn operator_extends(&self, hours: u16) {
        self.post_as("operator", &self.path("/extend"), &json!({"hours": hours})).await;
    }

    pub(super) async fn operator_may_not_extend(&self, hours: u16, slug: &str) {
        let server = self.day.server().await;
        let request = server.request(Method::POST, &self.path("/extend"), &self.sessions["operator"]);
        refused(request.json(&json!({"hours": hours})), 409, slug).await;
    }

    /// How many hours after the conclusion documents may still be handed in.
    pub(super) async fn extension_hours(&self) -> f64 {
        let ledger = self.day.ledger(&self.booked.room).await;
        let concluded = ledger.iter().find(|line| line["event"]["type"] == "concluded").unwrap();
        let concluded: Timestamp = text(&concluded["wall"]).parse().unwrap();
        let until: Timestamp = text(&self.seen_by("operator").await["extension_until"]).parse().unwrap();
        until.duration_since(concluded).as_secs_f64() / 3_600.0
    }

    pub(super) async fn is_cancelled(&self) {
        let server = self.day.server().await;
        server.order(&self.path("/cancel"), server.key("booking")).await;
    }

    /// The booking system moves the room to this start; it lasts half an hour.
    pub(super) async fn is_moved_to(&self, start: Timestamp) {
        let end = start + SignedDuration::from_mins(30);
        let server = self.day.server().await;
        let times = json!({"start": start.to_string(), "end": end.to_string()});
        let view = server.post(&self.path("/reschedule"), server.key("booking"), &times).await;
        assert_eq!(text(&view["start"]).parse::<Timestamp>().unwrap().as_second(), start.as_second());
    }

    /// The booking system puts another person in this one's place.
    pub(super) async fn is_replaced(&mut self, role: &str, name: &str) {
        let path = self.path(&format!("/participants/{}/replace", self.id(role)));
        let server = self.day.server().await;
        let invitation = server.post(&path, server.key("booking"), &json!({"role": role, "name": name})).await;
        drop(server);
        let people = self.booked.answer["participants"].as_array_mut().unwrap();
        *people.iter_mut().find(|person| person["role"] == role).unwrap() = invitation;
        self.sessions.remove(role);
    }

    /// How the room's people got in before something changed.
    pub(super) fn invitation(&self, role: &str) -> Value {
        self.booked.invitation(role).clone()
    }

    /// Types the code of an invitation that is not in force any more; gives status and problem.
    pub(super) async fn old_invitation_is_refused(&self, invitation: &Value, status: u16, slug: &str) {
        let path = format!("/v1/join/{}", text(&invitation["join_token"]));
        let server = self.day.server().await;
        let request = server.anonymous(Method::POST, &path).json(&json!({"code": invitation["code"]}));
        refused(request, status, slug).await;
    }
}

/// Microphones, cameras and networks.
impl Room<'_> {
    pub(super) async fn connects(&mut self, role: &str) {
        let hertz = match role {
            "operator" => 300,
            "delegato" => 500,
            _ => 800,
        };
        let part = Part {
            api: Api::new(&self.day.server().await.url("")),
            session: self.sessions[role].clone(),
            role: role.to_owned(),
            film: Arc::clone(&self.day.film),
            voice: Voice::tone(hertz).unwrap(),
            began: Instant::now(),
            habits: Habits::default(),
        };
        let mut client = Client::join(part).await.unwrap();
        let connected = tokio::time::timeout(SOON, client.connected()).await;
        assert_eq!(connected, Ok(true), "the {role} has no media connection");
        self.devices.insert(role.to_owned(), client);
    }

    pub(super) fn camera_goes_off(&self, role: &str) {
        self.devices[role].switch(Devices::CAMERA_OFF);
    }

    pub(super) fn camera_comes_on(&self, role: &str) {
        self.devices[role].switch(Devices::ON);
    }

    /// No packet comes from this person any more, and no goodbye.
    pub(super) fn network_is_lost(&mut self, role: &str) {
        self.devices.remove(role).unwrap().lose_network();
    }

    /// Everyone with a device receives voice and picture of everyone else with one.
    pub(super) async fn all_see_and_hear_each_other(&self) {
        for (listener, device) in &self.devices {
            for speaker in self.devices.keys().filter(|speaker| *speaker != listener) {
                for source in ["microphone", "camera"] {
                    let count = || device.packets_of(&self.id(speaker), source);
                    let (before, deadline) = (count(), Instant::now() + SOON);
                    while count() < before + 10 {
                        assert!(Instant::now() < deadline, "the {listener} does not receive the {speaker}'s {source}");
                        pass(GLANCE).await;
                    }
                }
            }
        }
    }

    /// No packet of media comes to anyone.
    pub(super) async fn nothing_flows(&self) {
        // What was sent before may still be on its way.
        pass(Duration::from_millis(300)).await;
        let count = || self.devices.values().map(Client::packets).sum::<u64>();
        let before = count();
        pass(Duration::from_millis(700)).await;
        assert_eq!(count(), before, "media flows while the room is {}", self.view().await["phase"]);
    }
}
