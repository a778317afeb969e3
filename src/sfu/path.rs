//! Which of a client's addresses media goes to: the one that its checks chose (RFC 8445 §7.3.1.5).
//!
//! Integrity is `str0m`'s to check: what is noted here was answered with success.

use std::time::Duration;

use super::socket::Route;
use crate::clock::MonoTime;

/// A way from which no check came for so long gives way to any other that is chosen: clients check every few seconds.
/// Longer keeps sending into a network that was left.
const STALE: Duration = Duration::from_secs(6);

/// STUN message types (RFC 8489 §5).
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];

/// Attributes of ICE (RFC 8445 §16.1).
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;

/// A client's check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// The client chose this way.
    pub(super) chosen: bool,
    /// How much the client likes it.
    pub(super) priority: u32,
}

impl Check {
    /// Reads a binding request; `None`: it is something else.
    pub(super) fn read(datagram: &[u8]) -> Option<Self> {
        let (head, mut rest) = datagram.split_first_chunk::<20>()?;
        if !head.starts_with(&BINDING_REQUEST) {
            return None;
        }
        let mut check = Self { chosen: false, priority: 0 };
        while let Some((&[t0, t1, l0, l1], after)) = rest.split_first_chunk::<4>() {
            let length = usize::from(u16::from_be_bytes([l0, l1]));
            match (u16::from_be_bytes([t0, t1]), after.get(..length)) {
                (USE_CANDIDATE, Some([])) => check.chosen = true,
                (PRIORITY, Some(&[p0, p1, p2, p3])) => check.priority = u32::from_be_bytes([p0, p1, p2, p3]),
                _ => {}
            }
            rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Some(check)
    }
}

/// Whether a datagram that we send says that a check succeeded.
pub(super) fn is_success(datagram: &[u8]) -> bool {
    datagram.starts_with(&BINDING_SUCCESS)
}

/// The way to a client.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Path {
    way: Option<Way>,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    route: Route,
    priority: u32,
    checked: MonoTime,
}

impl Path {
    /// Where to send.
    pub(super) fn route(&self) -> Option<Route> {
        self.way.map(|way| way.route)
    }

    /// Notes a check that succeeded.
    pub(super) fn note(&mut self, now: MonoTime, route: Route, check: Check) {
        match &mut self.way {
            Some(way) if way.route.remote == route.remote => {
                way.checked = now;
                way.route = route;
                way.priority = check.priority;
            }
            Some(way) if check.priority <= way.priority && now.since(way.checked) < STALE => {}
            _ if check.chosen => self.way = Some(Way { route, priority: check.priority, checked: now }),
            _ => {}
        }
    }

    /// Something was sent here that goes only to the way in use; it counts while nothing was chosen.
    pub(super) fn suppose(&mut self, now: MonoTime, route: Route) {
        self.way.get_or_insert(Way { route, priority: 0, checked: now });
    }

    /// The client begins anew (RFC 8445 §9): whatever it chooses next is taken.
    pub(super) fn restart(&mut self) {
        if let Some(way) = &mut self.way {
            way.priority = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn route(port: u16) -> Route {
        Route { remote: SocketAddr::from(([127, 0, 0, 1], port)), local: None }
    }

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_millis(seconds * 1_000)
    }

    const CHOSEN: Check = Check { chosen: true, priority: 5 };

    #[test]
    fn a_check_tells_whether_it_chooses_and_how_gladly() {
        let mut request = vec![0, 1, 0, 28];
        request.extend([0x21, 0x12, 0xa4, 0x42].iter().chain(&[7; 12]));
        request.extend([0, 6, 0, 3, b'a', b':', b'b', 0, 0, 0x24, 0, 4, 1, 2, 3, 4, 0, 0x25, 0, 0]);
        assert_eq!(Check::read(&request), Some(Check { chosen: true, priority: 0x0102_0304 }));
        request[1] = 2;
        assert_eq!(Check::read(&request), None);
    }

    #[test]
    fn the_first_chosen_way_is_kept_until_a_better_one_or_its_silence() {
        let mut path = Path::default();
        path.note(at(0), route(1), Check { chosen: false, ..CHOSEN });
        assert_eq!(path.route(), None);
        path.note(at(0), route(1), CHOSEN);
        path.note(at(1), route(2), CHOSEN);
        assert!(path.route() == Some(route(1)));
        path.note(at(2), route(2), Check { priority: 6, ..CHOSEN });
        assert!(path.route() == Some(route(2)));
        path.note(at(9), route(3), Check { priority: 1, ..CHOSEN });
        assert!(path.route() == Some(route(3)), "nothing came from the other for seven seconds");
        path.restart();
        path.note(at(9), route(4), Check { priority: 1, ..CHOSEN });
        assert!(path.route() == Some(route(4)));
    }

    proptest! {
        #[test]
        fn garbage_is_no_check(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            Check::read(&bytes);
            let mut request = vec![0, 1];
            request.extend(&bytes);
            Check::read(&request);
        }
    }
}
