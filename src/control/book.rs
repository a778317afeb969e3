//! Bookings: rooms are made, moved, listed, and refused where there is no place for them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::actor::{Actor, Ask};
use super::invite::invite;
use super::view::View;
use super::views::{Booked, Booking, BookingParticipant, Invitation, ReissuedCode, RoomPage, RoomSummary, SlotOffer};
use super::{Control, Error, Expected, Fault, Media, Recording, Shared, WAITING_ASKS, booking, unavailable, webhooks};
use crate::calendar::{FreeSlot, Occupancy, SlotQuery, Taken};
use crate::id::{ParticipantId, RoomId};
use crate::room::ledger::{self, Head};
use crate::room::{self, Entry, Room};
use crate::store::{self, Answer, Appointment, Change, Hash, NewRoom, RoomFilter};

/// Free slots that a refusal names: enough for a choice, few enough to read out on the telephone.
const NEXT_SLOTS: usize = 5;

/// How far ahead a refusal looks for free slots.
const LOOK_AHEAD: SignedDuration = SignedDuration::from_hours(60 * 24);

/// How much of that at once: most counters have a place within a week, and a week's bookings are read in no time.
const LOOK_AT_ONCE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Longest time in which slots are listed; what lies beyond is not looked at.
const LONGEST_LIST: SignedDuration = SignedDuration::from_hours(366 * 24);

/// Without a calendar, how far apart the times are that a refusal tries: people book by quarters of an hour.
const TRY_EVERY: SignedDuration = SignedDuration::from_mins(15);

/// Who asks for a room, and their name for the request.
#[derive(Clone, Debug)]
pub struct Repeatable {
    /// The caller: keys are theirs alone.
    pub caller: String,
    /// The request's name (`Idempotency-Key`).
    pub key: String,
}

/// Which slots to look for.
#[derive(Clone, Debug)]
pub struct SlotSearch {
    /// Name of the profile.
    pub profile: String,
    /// Office (sede).
    pub office: Option<String>,
    /// Counter (sportello).
    pub counter: Option<String>,
    /// Slots that begin at or after this.
    pub from: Timestamp,
    /// Slots that begin before this.
    pub to: Timestamp,
    /// Most slots.
    pub limit: usize,
}

/// Says whether there is room, by what is taken.
pub(super) type Places<'a> = Box<dyn Fn(&[store::Taken]) -> bool + Send + Sync + 'a>;

impl<M: Media, R: Recording> Control<M, R> {
    /// Books a room. Asked again with the same name, it answers as it did the first time. Carried out to its end even if
    /// the asker goes away.
    pub async fn create_room(&self, booking: Booking, repeatable: Option<Repeatable>) -> Result<Booked, Error> {
        let control = self.clone();
        let booked = tokio::spawn(async move { control.create(booking, repeatable).await });
        booked.await.map_err(|_| Error::Unavailable(Fault::RoomGone))?
    }

    async fn create(&self, booking: Booking, repeatable: Option<Repeatable>) -> Result<Booked, Error> {
        let shared = &self.shared;
        if shared.closing.load(Ordering::Acquire) {
            return Err(Error::Unavailable(Fault::ShuttingDown));
        }
        let booking = booking::check(booking)?;
        let fingerprint = fingerprint(&booking)?;
        if let Some(Repeatable { caller, key }) = &repeatable
            && let Some(answer) = shared.store.answer(caller, key).await.map_err(unavailable)?
        {
            return shared.answered_before(&answer, fingerprint);
        }
        if !shared.recorder.has_space() {
            return Err(Error::NoSpace);
        }
        let settings = &shared.settings;
        let known = settings.profiles.iter().find(|profile| profile.name == booking.profile);
        let profile = known.ok_or_else(|| booking::invalid("profile", "no such profile"))?;
        let now = shared.clock.now();
        let id = RoomId::new(now.wall);
        let Booking { office, counter, reason, reference, start, end, participants, .. } = booking;
        let mut people = Vec::with_capacity(participants.len());
        let mut invitations = Vec::with_capacity(participants.len());
        let mut codes = Vec::with_capacity(participants.len());
        for guest in participants {
            let (person, invitation, code) = invite(settings, now, profile, guest)?;
            people.push(person);
            invitations.push(invitation);
            codes.push(code);
        }
        let roles = people.iter().map(|person| (person.id, person.role)).collect();
        let asked = room::Appointment { room: id, start, end, participants: roles };
        let event = Room::book(now, profile, asked).map_err(|error| booking::refused(&error))?;
        let entry = Entry::at(now, event);
        let appointment = Appointment {
            id,
            profile: profile.clone(),
            office,
            counter,
            reason,
            reference,
            start,
            end,
            people,
            documents: Vec::new(),
        };
        let room = Room::replay(&Arc::new(profile.clone()), [&entry]).map_err(|_| corrupt("booking"))?;
        let lines = [ledger::chain(&Head::empty(), &entry)];
        let [line] = &lines;
        let head = line.head();

        let mut messages =
            if settings.webhooks { webhooks::of_line(now, &room, &appointment, line) } else { Vec::new() };
        for ((person, invitation), code) in appointment.people.iter().zip(&mut invitations).zip(codes) {
            let message = settings.text_message(now, &appointment, appointment.end, person, &code)?;
            invitation.told(&message);
            messages.extend(message);
        }
        let view = View {
            room: &room,
            appointment: &appointment,
            revision: head.seq,
            sends_codes: settings.sms.is_some(),
            consent_text_version: &settings.consent_text_version,
            held_back: false,
            durable_until: None,
            reflectors: Vec::new(),
            now,
        };
        let booked = Booked { room: view.room(), participants: invitations };
        let answer = repeatable.map(|repeatable| shared.keep(repeatable, fingerprint, &booked)).transpose()?;
        let moved = [Change::Times { start, end }];
        let fits = shared.places(&appointment, &moved);
        let new = NewRoom {
            appointment: &appointment,
            lines: &lines,
            phase: room.phase(),
            at: now.wall,
            messages: &messages,
            answer: answer.as_ref(),
            fits: fits.as_ref().map(|fits| &**fits as store::Fits<'_>),
        };
        // Before the room is stored, so that whoever finds it there finds its actor too.
        let (sender, inbox) = mpsc::channel(WAITING_ASKS);
        shared.rooms.insert(id, sender);
        let kept = shared.store.book(&new).await;
        drop(fits);
        if !matches!(kept, Ok(store::Booked::Now)) {
            shared.rooms.remove(&id);
        }
        match kept.map_err(unavailable)? {
            store::Booked::Now => {}
            store::Booked::Before(answer) => return shared.answered_before(&answer, fingerprint),
            store::Booked::Full => return Err(shared.no_place(&appointment, &moved).await),
        }
        if !messages.is_empty() {
            settings.posted.wake();
        }
        tokio::spawn(Actor::new(Arc::clone(shared), inbox, room, head, appointment).run());
        Ok(booked)
    }

    /// Makes a new admission code in the old one's place, and unlocks. Returns it with the room's revision.
    pub async fn reissue_code(
        &self,
        room: RoomId,
        participant: ParticipantId,
        expected: Expected,
    ) -> Result<(ReissuedCode, u64), Error> {
        self.ask(room, |reply| Ask::ReissueCode { participant, expected, reply }).await
    }

    /// Puts another person into a booked one's place, with a link and a code of their own. Returns them with the room's
    /// revision.
    pub async fn replace(
        &self,
        room: RoomId,
        participant: ParticipantId,
        by: BookingParticipant,
        expected: Expected,
    ) -> Result<(Invitation, u64), Error> {
        self.ask(room, |reply| Ask::Replace { participant, by, expected, reply }).await
    }

    /// Rooms by start, a page at a time. `cursor` is a page's `next_cursor`.
    pub async fn rooms(&self, mut filter: RoomFilter, cursor: Option<&str>) -> Result<RoomPage, Error> {
        for (field, text) in [
            ("office", &mut filter.office),
            ("counter", &mut filter.counter),
            ("profile", &mut filter.profile),
            ("reference", &mut filter.reference),
        ] {
            // As they are booked: what a booking cannot hold is not looked for.
            *text = text.take().map(|text| booking::line(field, &text, 200)).transpose()?;
        }
        filter.after = cursor.map(parse_cursor).transpose()?;
        let limit = filter.limit;
        filter.limit = limit.saturating_add(1);
        let mut rows = self.shared.store.rooms(&filter).await.map_err(unavailable)?;
        let more = rows.len() > usize::try_from(limit).unwrap_or(usize::MAX);
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let next_cursor = rows.last().filter(|_| more).map(|last| write_cursor(last.start, last.id));
        Ok(RoomPage { rooms: rows.into_iter().map(RoomSummary::from).collect(), next_cursor })
    }

    /// Free slots, in order of time; none without a calendar.
    pub async fn slots(&self, search: SlotSearch) -> Result<Vec<SlotOffer>, Error> {
        self.shared.free_slots(&search).await
    }
}

impl<M, R> Shared<M, R> {
    /// Who judges whether a room may take its (new) time; `None`: neither a calendar nor a capacity is set, or the
    /// times do not change.
    pub(super) fn places(&self, appointment: &Appointment, changes: &[Change]) -> Option<Places<'_>> {
        let settings = &self.settings;
        let (start, end) = times(changes)?;
        if settings.calendar.is_none() && settings.capacity.is_none() {
            return None;
        }
        let (profile, office, counter) =
            (appointment.profile.name.clone(), appointment.office.clone(), appointment.counter.clone());
        Some(Box::new(move |taken| {
            let occupancy = Occupancy::new(taken.iter().map(on_counter), settings.capacity);
            match &settings.calendar {
                Some(calendar) => calendar
                    .slot_at(&profile, &office, &counter, start, end)
                    .is_some_and(|slot| occupancy.places(&slot) > 0),
                None => occupancy.places_on_node(start, end) > 0,
            }
        }))
    }

    /// The refusal of a room that has no place, with the next free slots.
    pub(super) async fn no_place(&self, appointment: &Appointment, changes: &[Change]) -> Error {
        let (start, end) = times(changes).unwrap_or((appointment.start, appointment.end));
        let from = start.max(self.clock.now().wall);
        if self.settings.calendar.is_none() {
            return match self.free_times(appointment, from, end.duration_since(start)).await {
                Ok(next) => Error::NoPlace { next },
                Err(error) => error,
            };
        }
        let mut search = SlotSearch {
            profile: appointment.profile.name.clone(),
            office: Some(appointment.office.clone()),
            counter: Some(appointment.counter.clone()),
            from,
            to: from.saturating_add(LOOK_AT_ONCE).unwrap_or(Timestamp::MAX),
            limit: NEXT_SLOTS,
        };
        let last = from.saturating_add(LOOK_AHEAD).unwrap_or(Timestamp::MAX);
        let mut next = Vec::new();
        while next.len() < NEXT_SLOTS && search.from < last {
            match self.free_slots(&search).await {
                Ok(found) => next.extend(found),
                Err(error) => return error,
            }
            search.from = search.to;
            search.to = search.to.saturating_add(LOOK_AT_ONCE).unwrap_or(Timestamp::MAX);
        }
        next.truncate(NEXT_SLOTS);
        Error::NoPlace { next }
    }

    /// When the node has room for an appointment of this length: without a calendar any time is a slot.
    async fn free_times(
        &self,
        appointment: &Appointment,
        from: Timestamp,
        length: SignedDuration,
    ) -> Result<Vec<SlotOffer>, Error> {
        let to = from.saturating_add(LOOK_AT_ONCE).unwrap_or(Timestamp::MAX);
        let taken = self.store.taken(from, to).await.map_err(unavailable)?;
        let occupancy = Occupancy::new(taken.iter().map(on_counter), self.settings.capacity);
        let mut next = Vec::new();
        let mut start = from;
        while next.len() < NEXT_SLOTS && start < to {
            let Ok(end) = start.checked_add(length) else { break };
            let places = occupancy.places_on_node(start, end);
            if places > 0 {
                next.push(SlotOffer {
                    profile: appointment.profile.name.clone(),
                    office: appointment.office.clone(),
                    counter: appointment.counter.clone(),
                    start,
                    end,
                    places,
                });
                start = end;
            } else {
                let Ok(later) = start.checked_add(TRY_EVERY) else { break };
                start = later;
            }
        }
        Ok(next)
    }

    async fn free_slots(&self, search: &SlotSearch) -> Result<Vec<SlotOffer>, Error> {
        let Some(calendar) = &self.settings.calendar else { return Ok(Vec::new()) };
        // What has begun cannot be booked any more.
        let from = search.from.max(self.clock.now().wall);
        let to = search.to.min(from.saturating_add(LONGEST_LIST).unwrap_or(Timestamp::MAX));
        let taken = self.store.taken(from, to).await.map_err(unavailable)?;
        let occupancy = Occupancy::new(taken.iter().map(on_counter), self.settings.capacity);
        let query = SlotQuery {
            profile: &search.profile,
            office: search.office.as_deref(),
            counter: search.counter.as_deref(),
            from,
            to,
        };
        Ok(calendar.free(&query, &occupancy).take(search.limit).map(SlotOffer::from).collect())
    }

    fn keep(&self, repeatable: Repeatable, fingerprint: Hash, booked: &Booked) -> Result<Answer, Error> {
        let Repeatable { caller, key } = repeatable;
        let clear = serde_json::to_vec(booked).map_err(|_| corrupt("answer"))?;
        let sealed = self.settings.answers.seal(context(&caller, &key).as_bytes(), &clear);
        let sealed = sealed.map_err(|error| Error::Unavailable(Fault::Seal(error)))?;
        Ok(Answer { caller, key, fingerprint, sealed })
    }

    fn answered_before(&self, answer: &Answer, fingerprint: Hash) -> Result<Booked, Error> {
        if answer.fingerprint != fingerprint {
            return Err(Error::KeyReused);
        }
        let clear = self.settings.answers.open(context(&answer.caller, &answer.key).as_bytes(), &answer.sealed);
        let clear = clear.map_err(|error| Error::Unavailable(Fault::Seal(error)))?;
        serde_json::from_slice(&clear).map_err(|_| corrupt("kept answer"))
    }
}

impl From<FreeSlot<'_>> for SlotOffer {
    fn from(FreeSlot { slot, places }: FreeSlot<'_>) -> Self {
        Self {
            profile: slot.profile.to_owned(),
            office: slot.office.to_owned(),
            counter: slot.counter.to_owned(),
            start: slot.start,
            end: slot.end,
            places,
        }
    }
}

fn on_counter(taken: &store::Taken) -> Taken<'_> {
    Taken { office: &taken.office, counter: &taken.counter, start: taken.start, end: taken.end }
}

fn times(changes: &[Change]) -> Option<(Timestamp, Timestamp)> {
    changes.iter().find_map(|change| match change {
        Change::Times { start, end } => Some((*start, *end)),
        _ => None,
    })
}

/// What the request asks for, whatever white space and order of members it was written with.
fn fingerprint(booking: &Booking) -> Result<Hash, Error> {
    let text = serde_json::to_string(booking).map_err(|_| corrupt("booking"))?;
    Ok(Hash::of_token(&text))
}

fn corrupt(what: &'static str) -> Error {
    unavailable(store::Error::Corrupt(what))
}

/// Binds a kept answer to its row.
fn context(caller: &str, key: &str) -> String {
    format!("{caller} {key}")
}

fn write_cursor(start: Timestamp, id: RoomId) -> String {
    URL_SAFE_NO_PAD.encode(format!("{} {id}", start.as_millisecond()))
}

fn parse_cursor(cursor: &str) -> Result<(Timestamp, RoomId), Error> {
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let (start, id) = text.split_once(' ')?;
        Some((Timestamp::from_millisecond(start.parse().ok()?).ok()?, id.parse().ok()?))
    };
    read().ok_or_else(|| booking::invalid("cursor", "a `next_cursor` of an earlier page"))
}
