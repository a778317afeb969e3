//! The thread that drives the media of all light clients.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use super::Meters;
use super::person::{Person, Tally, What};
use super::socket::{Inbox, Port};
use super::srtp::Keys;
use crate::client::Devices;

/// Time between two turns. What is due waits half of it on average; it is no part of a delay, since a packet says when
/// it was sent, and the kernel when one came. Longer turns send in larger bursts than a crowd of devices does, shorter
/// ones cost more wake-ups.
const PACE: Duration = Duration::from_micros(250);

/// Turns between two looks at the thread's own clock.
const LOOK_EVERY: u32 = 64;

/// What the thread is told. There are a few for each client and its whole call, so they need no bound.
pub(super) enum Command {
    /// A client is there; its address is its name.
    Enter(SocketAddr, Box<Person>),
    /// Its handshake is done, with the server at this address. What is received, and what is sent, is sealed with these.
    Begin(SocketAddr, Box<(Keys, Keys)>, SocketAddr),
    /// It has these switched on.
    Order(SocketAddr, Devices),
    /// Somebody else is away, and streams may stand still; or is back.
    Excuse(SocketAddr, bool),
    /// It sends on under new SSRCs.
    ChangeSsrc(SocketAddr),
    /// It goes, and is told what was counted if it wants to know.
    Leave(SocketAddr, Option<oneshot::Sender<Tally>>),
}

pub(super) struct Engine {
    commands: Receiver<Command>,
    meters: Arc<Meters>,
    poll: Poll,
    /// By descriptor.
    ports: HashMap<usize, Arc<Port>>,
    people: HashMap<SocketAddr, Person>,
    due: BinaryHeap<Reverse<(Instant, SocketAddr, What)>>,
    /// Sent and received.
    packets: u64,
    received: u64,
}

impl Engine {
    pub(super) fn new(commands: Receiver<Command>, meters: Arc<Meters>) -> io::Result<Self> {
        let (ports, people, due) = (HashMap::new(), HashMap::new(), BinaryHeap::new());
        Ok(Self { commands, meters, poll: Poll::new()?, ports, people, due, packets: 0, received: 0 })
    }

    /// Turn by turn, until nobody can tell it anything any more.
    pub(super) fn run(mut self) {
        let (mut inbox, mut events) = (Inbox::default(), Events::with_capacity(1_024));
        for turn in 0_u32.. {
            let begun = Instant::now();
            if !self.obey(begun) {
                break;
            }
            self.send_due();
            if let Err(error) = self.receive(&mut inbox, &mut events) {
                tracing::error!(%error, "the light clients hear nothing any more");
                break;
            }
            self.meters.packets.store(self.packets, Ordering::Relaxed);
            self.meters.received.store(self.received, Ordering::Relaxed);
            if turn.is_multiple_of(LOOK_EVERY) {
                self.meters.cpu_ns.store(nanos_of(ClockId::ThreadCPUTime), Ordering::Relaxed);
            }
            std::thread::sleep(PACE.saturating_sub(begun.elapsed()));
        }
    }

    /// Does what was commanded. False: no more commands will come.
    fn obey(&mut self, now: Instant) -> bool {
        loop {
            let name = match self.commands.try_recv() {
                Ok(Command::Enter(name, person)) => {
                    self.listen(person.port());
                    self.people.insert(name, *person);
                    continue;
                }
                Ok(Command::Begin(name, keys, server)) => {
                    if let Some(person) = self.people.get_mut(&name) {
                        person.begin(*keys, server, now);
                    }
                    name
                }
                Ok(Command::Order(name, devices)) => {
                    if let Some(person) = self.people.get_mut(&name) {
                        person.order(devices, now);
                    }
                    name
                }
                Ok(Command::Excuse(name, excused)) => {
                    if let Some(person) = self.people.get_mut(&name) {
                        person.excuse(excused);
                    }
                    continue;
                }
                Ok(Command::ChangeSsrc(name)) => {
                    if let Some(person) = self.people.get_mut(&name) {
                        person.change_ssrc(now);
                    }
                    continue;
                }
                Ok(Command::Leave(name, asked)) => {
                    let Some(person) = self.people.remove(&name) else { continue };
                    self.forget(person.port());
                    let tally = person.finish();
                    self.meters.unopened.fetch_add(tally.unopened, Ordering::Relaxed);
                    if let Some(asked) = asked {
                        let _ = asked.send(tally);
                    }
                    continue;
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            };
            // What waits already is there a second time: the first takes the due time with it.
            let dues = self.people.get(&name).into_iter().flat_map(Person::due);
            self.due.extend(dues.map(|(at, what)| Reverse((at, name, what))));
        }
    }

    fn listen(&mut self, port: &Arc<Port>) {
        let Ok(token) = usize::try_from(port.descriptor()) else { return };
        let known = self.ports.insert(token, Arc::clone(port)).is_some_and(|known| Arc::ptr_eq(&known, port));
        if !known
            && let Err(error) =
                self.poll.registry().register(&mut SourceFd(&port.descriptor()), Token(token), Interest::READABLE)
        {
            tracing::error!(%error, "a light client hears nothing");
        }
    }

    /// A port that nobody else of us uses is let go, and closed with its client's task.
    fn forget(&mut self, port: &Arc<Port>) {
        if !self.people.values().any(|person| Arc::ptr_eq(person.port(), port)) {
            self.ports.retain(|_, known| !Arc::ptr_eq(known, port));
            let _ = self.poll.registry().deregister(&mut SourceFd(&port.descriptor()));
        }
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, name, what))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            let Some(person) = self.people.get_mut(&name) else { continue };
            let before = person.sent();
            if let Some(again) = person.send(what, at) {
                self.due.push(Reverse((again, name, what)));
                self.meters.late.add(at.elapsed());
            }
            self.packets += person.sent() - before;
        }
    }

    fn receive(&mut self, inbox: &mut Inbox, events: &mut Events) -> io::Result<()> {
        match self.poll.poll(events, Some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in events.iter() {
            let Some(port) = self.ports.get(&event.token().0) else { continue };
            // Readiness is told once: all must be taken.
            while inbox.receive(port, |run| {
                if let Some(person) = self.people.get_mut(&run.to) {
                    let heard = person.hear(run);
                    self.packets += heard;
                    self.received += heard;
                }
            }) {}
        }
        Ok(())
    }
}

/// What a clock shows.
pub(super) fn nanos_of(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
