//! The checks by which a client keeps its way open (RFC 7675, RFC 8445 §11): an idle session receives nothing else, so they
//! are answered here, and `str0m`, for which each is a round through all of its parts, sees one now and then.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use str0m::ice::StunMessage;

use super::path::Check;
use super::socket::Route;
use crate::clock::MonoTime;

/// How often `str0m` answers a check itself: it gives a way up from which it saw none for 15 s. Longer lets one that was lost
/// on the network end the session; shorter costs idle sessions CPU.
const SHOWN_EVERY: Duration = Duration::from_secs(7);

/// The longest answer: header, an IPv6 address, integrity and fingerprint.
const LONGEST: usize = 76;

/// A way whose check `str0m` found good: more of the same kind from there need nobody else.
pub(super) struct KeepAlive {
    key: hmac::Key,
    /// Both names, ours first (RFC 8445 §7.2.2).
    username: String,
    route: Route,
    /// When `str0m` answered the last one.
    shown: MonoTime,
}

/// An answer to be sent.
pub(super) struct Answer {
    bytes: [u8; LONGEST],
    length: usize,
    /// The question.
    pub(super) check: Check,
}

impl Answer {
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl KeepAlive {
    /// Notes that `str0m` answered this check with success. `None`: it is none.
    pub(super) fn after(now: MonoTime, route: Route, datagram: &[u8], password: &str) -> Option<Self> {
        let username = StunMessage::parse(datagram).ok()?.username()?.to_owned();
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        Some(Self { key, username, route, shown: now })
    }

    /// Answers a check like the noted one: from the same address, under the same names, authentic. `None`: it is for
    /// `str0m`.
    pub(super) fn answer(&self, now: MonoTime, route: Route, datagram: &[u8]) -> Option<Answer> {
        if route != self.route || now.since(self.shown) >= SHOWN_EVERY {
            return None;
        }
        let message = StunMessage::parse(datagram).ok()?;
        // A client that takes itself for the controlled one is told of the conflict by `str0m` (RFC 8445 §7.3.1.1).
        let alike = message.is_binding_request()
            && message.username() == Some(&self.username)
            && message.ice_controlled().is_none();
        if !alike || !message.verify(&[], |_, parts| self.sign(parts)) {
            return None;
        }
        let reply = StunMessage::binding_reply(message.trans_id(), route.remote);
        let mut bytes = [0; LONGEST];
        // The password is in the key already; that there is one makes it an answer with integrity.
        let length = reply.to_bytes(Some(&[]), &mut bytes, |_, parts| self.sign(parts)).ok()?;
        let check = Check { chosen: message.use_candidate(), priority: message.prio().unwrap_or_default() };
        Some(Answer { bytes, length, check })
    }

    fn sign(&self, parts: &[&[u8]]) -> [u8; 20] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(part);
        }
        let mut tag = [0; 20];
        tag.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        tag
    }
}

impl fmt::Debug for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepAlive").field("route", &self.route).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;
    use str0m::ice::TransId;

    use super::*;

    const PASSWORD: &str = "a password of 24 letters";

    fn route(port: u16) -> Route {
        Route { remote: SocketAddr::from(([192, 0, 2, 1], port)), local: None }
    }

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_millis(seconds * 1_000)
    }

    fn hmac_sha1(password: &[u8], parts: &[&[u8]]) -> [u8; 20] {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password);
        hmac::sign(&key, &parts.concat()).as_ref().try_into().unwrap()
    }

    fn check(username: &str, password: &str, controlling: bool) -> Vec<u8> {
        let message = StunMessage::binding_request(username, TransId::new(), controlling, 1, 77, true);
        let mut bytes = [0; 200];
        let length = message.to_bytes(Some(password.as_bytes()), &mut bytes, hmac_sha1).unwrap();
        bytes[..length].to_vec()
    }

    fn keep_alive() -> KeepAlive {
        KeepAlive::after(at(100), route(9), &check("ours:theirs", PASSWORD, true), PASSWORD).unwrap()
    }

    #[test]
    fn a_check_like_the_one_before_is_answered_as_a_client_expects_it() {
        let request = check("ours:theirs", PASSWORD, true);
        let answer = keep_alive().answer(at(101), route(9), &request).unwrap();
        assert_eq!(answer.check, Check { chosen: true, priority: 77 });
        let reply = StunMessage::parse(answer.bytes()).unwrap();
        assert!(reply.is_successful_binding_response());
        assert_eq!(reply.trans_id(), StunMessage::parse(&request).unwrap().trans_id());
        assert_eq!(reply.mapped_address(), Some(route(9).remote));
        assert!(reply.verify(PASSWORD.as_bytes(), hmac_sha1));
        // RFC 8489 §14.7: the CRC-32 of everything before it, and "STUN".
        let (rest, fingerprint) = answer.bytes().split_last_chunk::<4>().unwrap();
        let crc = crc32(&rest[..rest.len() - 4]) ^ 0x5354_554e;
        assert_eq!(u32::from_be_bytes(*fingerprint), crc);
    }

    #[test]
    fn there_is_room_for_an_ipv6_address() {
        let route = Route { remote: "[2001:db8::1]:9".parse().unwrap(), local: None };
        let request = check("ours:theirs", PASSWORD, true);
        let keep_alive = KeepAlive::after(at(0), route, &request, PASSWORD).unwrap();
        assert_eq!(keep_alive.answer(at(1), route, &request).unwrap().bytes().len(), LONGEST);
    }

    #[test]
    fn whatever_differs_is_left_to_the_session() {
        let keep_alive = keep_alive();
        let same = check("ours:theirs", PASSWORD, true);
        assert!(keep_alive.answer(at(101), route(9), &same).is_some());
        assert!(keep_alive.answer(at(101), route(8), &same).is_none(), "another address");
        assert!(keep_alive.answer(at(107), route(9), &same).is_none(), "it is time that the session sees one");
        let mut altered = same.clone();
        altered[40] ^= 1;
        for (other, why) in [
            (check("ours:others", PASSWORD, true), "other names, as after a restart of ICE"),
            (check("ours:theirs", "another password", true), "forged"),
            (check("ours:theirs", PASSWORD, false), "a conflict of roles"),
            (altered, "altered on the way"),
            (same[..same.len() - 8].to_vec(), "cut off"),
        ] {
            assert!(keep_alive.answer(at(101), route(9), &other).is_none(), "{why}");
        }
    }

    proptest! {
        #[test]
        fn garbage_gets_no_answer(garbage in prop::collection::vec(any::<u8>(), 0..120), length in 0..80usize) {
            let keep_alive = keep_alive();
            prop_assert!(keep_alive.answer(at(101), route(9), &garbage).is_none());
            // Less than the integrity of the whole.
            let begun = [&check("ours:theirs", PASSWORD, true)[..length], &garbage].concat();
            prop_assert!(keep_alive.answer(at(101), route(9), &begun).is_none());
        }
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let fold = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        !bytes.iter().fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| fold(crc)))
    }
}
