//! Tells whoever asks where they are seen from (STUN, RFC 8489): so a page finds out, before the meeting, whether its network
//! lets UDP through to this server.
//!
//! Only a request without a name and without attributes that must be understood is answered, by one datagram not much
//! longer than itself: nobody gains by having answers sent to somebody else.

use std::net::{IpAddr, SocketAddr};

const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const XOR_MAPPED_ADDRESS: [u8; 2] = [0x00, 0x20];

/// Attributes up to this type must be understood by whoever answers (RFC 8489 §14).
const LAST_REQUIRED: u16 = 0x7fff;

/// The answer to an anonymous binding request that came from this address. `None`: the datagram is something else.
pub(super) fn answer(datagram: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    let (head, attributes) = datagram.split_first_chunk::<20>()?;
    let [t0, t1, l0, l1, transaction @ ..] = *head;
    let anonymous = [t0, t1] == BINDING_REQUEST
        && usize::from(u16::from_be_bytes([l0, l1])) == attributes.len()
        && transaction.starts_with(&MAGIC_COOKIE)
        && all_optional(attributes);
    if !anonymous {
        return None;
    }
    // The address is hidden from middleboxes that would rewrite it (RFC 8489 §14.2).
    let mask = |bytes: &[u8]| -> Vec<u8> { bytes.iter().zip(transaction).map(|(byte, mask)| byte ^ mask).collect() };
    let (family, address) = match from.ip().to_canonical() {
        IpAddr::V4(ip) => (1, mask(&ip.octets())),
        IpAddr::V6(ip) => (2, mask(&ip.octets())),
    };
    let value = [&[0, family], mask(&from.port().to_be_bytes()).as_slice(), &address].concat();
    let length = u16::try_from(value.len()).ok()?;
    Some(
        [
            BINDING_SUCCESS.as_slice(),
            &(length + 4).to_be_bytes(),
            &transaction,
            &XOR_MAPPED_ADDRESS,
            &length.to_be_bytes(),
            &value,
        ]
        .concat(),
    )
}

/// Whether these are whole attributes, none of which must be understood.
fn all_optional(mut attributes: &[u8]) -> bool {
    while let Some((&[t0, t1, l0, l1], rest)) = attributes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([l0, l1])).next_multiple_of(4);
        let Some(next) = rest.get(length..).filter(|_| u16::from_be_bytes([t0, t1]) > LAST_REQUIRED) else {
            return false;
        };
        attributes = next;
    }
    attributes.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(attributes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
        [&BINDING_REQUEST[..], &length, &MAGIC_COOKIE, &[7; 12], attributes].concat()
    }

    #[test]
    fn who_asks_is_told_their_address() {
        // RFC 5769 §2.2 has this address and port, and what they are masked.
        let from = SocketAddr::from(([192, 0, 2, 1], 32_853));
        let answered = answer(&request(&[]), from).unwrap();
        assert_eq!(answered[..8], [0x01, 0x01, 0, 12, 0x21, 0x12, 0xa4, 0x42]);
        assert_eq!(answered[8..20], [7; 12], "the transaction");
        assert_eq!(answered[20..], [0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        let six = answer(&request(&[]), "[2001:db8::1]:9".parse().unwrap()).unwrap();
        assert_eq!((six.len(), six[24..26].to_vec()), (44, vec![0, 2]));
    }

    #[test]
    fn software_may_name_itself_and_whoever_wants_more_gets_silence() {
        let from = SocketAddr::from(([192, 0, 2, 1], 9));
        assert!(answer(&request(&[0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]), from).is_some(), "SOFTWARE");
        for refused in [
            request(&[0, 0x06, 0, 0]),             // USERNAME
            request(&[0, 0x24, 0, 4, 0, 0, 0, 1]), // PRIORITY: a check, not a question
            request(&[0x80, 0x22, 0, 9, 1, 2, 3, 4]),
            request(&[0x80, 0x22, 0]),
            request(&[])[..19].to_vec(),
            [request(&[]), vec![0]].concat(),
            [&[0x01, 0x01][..], &request(&[])[2..]].concat(),
            [&request(&[])[..4], &[0; 16]].concat(),
        ] {
            assert_eq!(answer(&refused, from), None, "{refused:?}");
        }
    }
}
