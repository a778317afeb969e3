//! The test vectors of RFC 3711 (appendix B) and RFC 7714 (section 16), and what hostile packets do.

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    hex::decode(digits).unwrap()
}

/// RFC 7714 §15: «Quid pro quo».
const GCM_SALT: [u8; 12] = *b"Quid pro quo";
const RTP: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 61727465 \
                   73207472 6573";
const RTCP: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef deadbeef \
                    deadbeef deadbeef";

fn gcm(key_length: u8) -> (Opener, Sealer) {
    let key: Vec<u8> = (0..key_length).collect();
    let keys = || Keys { rtp: Cipher::gcm(&key, GCM_SALT).unwrap(), rtcp: Cipher::gcm(&key, GCM_SALT).unwrap() };
    (Opener { keys: keys(), senders: Vec::new() }, Sealer { keys: keys(), rtcp_index: 0x5d3 })
}

fn check_rtp_vector(key_length: u8, sealed: &str) {
    let (opener, sealer) = gcm(key_length);
    let (plain, sealed) = (hex(RTP), hex(sealed));
    let mut packet = plain.clone();
    packet.resize(plain.len() + sealer.overhead(), 0);
    let ssrc = Ssrc(0x5501_a0b2);
    sealer.seal(&mut Window::default(), ssrc, 0xf17b, &mut packet, 12).unwrap();
    assert_eq!(packet, sealed);
    let opened = opener.open(&mut Window::default(), ssrc, 0xf17b, &mut packet, 12).unwrap();
    assert_eq!((opened.index, &*opened.payload), (0xf17b, &plain[12..]));
}

fn check_rtcp_vector(key_length: u8, sealed: &str) {
    let (mut opener, mut sealer) = gcm(key_length);
    let mut packet = hex(RTCP);
    sealer.seal_rtcp(&mut packet).unwrap();
    assert_eq!(packet, hex(sealed));
    assert_eq!(opener.open_rtcp(&mut packet.clone()).unwrap(), hex(RTCP));
    assert_eq!(opener.open_rtcp(&mut packet), Err(SrtpError::Replayed));
}

#[test]
fn packets_are_those_of_rfc_7714_section_16_for_aes_128() {
    check_rtp_vector(
        16,
        "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf \
         8833899d 7f27beb1 6a9152cf 765ee439 0cce",
    );
}

#[test]
fn packets_are_those_of_rfc_7714_section_16_for_aes_256() {
    check_rtp_vector(
        32,
        "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 \
         b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
    );
}

#[test]
fn reports_are_those_of_rfc_7714_section_17() {
    check_rtcp_vector(
        16,
        "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda 4ce09b46 86303ded \
         0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
    );
    check_rtcp_vector(
        32,
        "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 110555be 8415f658 c61de047 \
         6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
    );
}

#[test]
fn keys_are_derived_as_in_rfc_3711_appendix_b_3() {
    let master = hex("e1f97a0d3e018be0d64fa32c06de4139");
    let salt = hex("0ec675ad498afeebb6960b3aabe6");
    let derived = |label: Label, length: usize| {
        let mut out = vec![0; length];
        derive(&master, &salt, label as u8, &mut out).unwrap();
        out
    };
    assert_eq!(derived(Label::Encryption, 16), hex("c61e7a93744f39ee10734afe3ff7a087"));
    assert_eq!(derived(Label::Salt, 14), hex("30cbbc08863d8c85d49db34a9ae1"));
    assert_eq!(derived(Label::Authentication, 20), hex("cebe321f6ff7716b6fd4ab49af256a156d38baa4"));
}

#[test]
fn the_key_stream_is_that_of_rfc_3711_appendix_b_2() {
    let key = counter_mode(&hex("2b7e151628aed2a6abf7158809cf4f3c")).unwrap();
    let salt: [u8; 14] = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd").try_into().unwrap();
    let mut stream = vec![0; 48];
    apply(&key, cm_iv(&salt, Ssrc(0), 0), &mut stream).unwrap();
    assert_eq!(
        stream,
        hex("e03ead0935c95e80e166b16dd92b4eb4 d23513162b02d0f72a43a2fe4a5f97ab 41e95b3bb0a2e8dd477901e4fca894c0")
    );
}

const PROFILES: [Profile; 3] = [Profile::Aes128CmSha1, Profile::Aes128Gcm, Profile::Aes256Gcm];

fn pair(profile: Profile) -> (Opener, Sealer) {
    let length = 2 * (profile.key_length() + profile.salt_length());
    let material: Vec<u8> = (0..length).map(|n| u8::try_from(n).unwrap() ^ 0x5a).collect();
    let (_, client) = contexts(profile, &material, true).unwrap();
    let (server, _) = contexts(profile, &material, false).unwrap();
    (server, client)
}

fn packet(sealer: &Sealer, window: &mut Window, index: u64) -> Vec<u8> {
    #[expect(clippy::cast_possible_truncation)]
    let sequence = index as u16;
    let mut packet = vec![0x80, 96];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 9]);
    packet.extend(b"voice");
    packet.resize(packet.len() + sealer.overhead(), 0);
    sealer.seal(window, Ssrc(9), index, &mut packet, 12).unwrap();
    packet
}

#[test]
fn a_stream_goes_on_over_rollovers_and_nothing_is_taken_twice() {
    for profile in PROFILES {
        let (opener, sealer) = pair(profile);
        let (mut sent, mut received) = (Window::default(), Window::default());
        for index in 65_000..200_000_u64 {
            let mut first = packet(&sealer, &mut sent, index);
            let mut again = first.clone();
            #[expect(clippy::cast_possible_truncation)]
            let sequence = index as u16;
            let opened = opener.open(&mut received, Ssrc(9), sequence, &mut first, 12).unwrap();
            assert_eq!((opened.index, &*opened.payload), (index, &b"voice"[..]));
            if index % 97 == 0 {
                let replay = opener.open(&mut received, Ssrc(9), sequence, &mut again, 12);
                assert_eq!(replay.unwrap_err(), SrtpError::Replayed);
            }
        }
    }
}

#[test]
fn an_index_is_never_sealed_twice() {
    for profile in PROFILES {
        let (_, mut sealer) = pair(profile);
        let mut window = Window::default();
        packet(&sealer, &mut window, 7);
        let mut other = vec![0; 60];
        assert_eq!(sealer.seal(&mut window, Ssrc(9), 7, &mut other, 12), Err(SrtpError::Used));
        sealer.rtcp_index = 0x7fff_ffff;
        assert_eq!(sealer.seal_rtcp(&mut vec![0x80, 201, 0, 1, 0, 0, 0, 9]), Err(SrtpError::Used));
    }
}

#[test]
fn reports_are_opened_once_each_whoever_sends_them() {
    for profile in PROFILES {
        let (mut opener, mut sealer) = pair(profile);
        for sender in 0..200_u8 {
            let plain = vec![0x80, 201, 0, 1, 0, 0, 0, sender % 3];
            let mut sealed = plain.clone();
            sealer.seal_rtcp(&mut sealed).unwrap();
            let mut forged = sealed.clone();
            forged[9] ^= 1;
            assert_eq!(opener.open_rtcp(&mut forged), Err(SrtpError::Forged), "{profile:?}");
            assert_eq!(opener.open_rtcp(&mut sealed.clone()).unwrap(), plain, "{profile:?}");
            assert_eq!(opener.open_rtcp(&mut sealed), Err(SrtpError::Replayed));
        }
    }
}

#[test]
fn senders_of_reports_are_bounded() {
    let (mut opener, mut sealer) = pair(Profile::Aes128Gcm);
    for sender in 0..1_000_u32 {
        let mut sealed = vec![0x80, 201, 0, 1];
        sealed.extend(sender.to_be_bytes());
        sealer.seal_rtcp(&mut sealed).unwrap();
        opener.open_rtcp(&mut sealed).unwrap();
    }
    assert_eq!(opener.senders.len(), MOST_RTCP_SENDERS);
}

#[test]
fn material_of_another_length_makes_no_keys() {
    for length in [0, 1, 55, 57, 59, 61, 87, 89, 1_000] {
        for profile in PROFILES {
            assert_eq!(contexts(profile, &vec![0; length], false).unwrap_err(), SrtpError::Keys);
        }
    }
}

proptest! {
    #[test]
    fn garbage_opens_nothing_and_breaks_nothing(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200), header in 0_usize..250, sequence: u16,
    ) {
        for profile in PROFILES {
            let (mut opener, _) = pair(profile);
            let mut window = Window::default();
            prop_assert!(opener.open(&mut window, Ssrc(1), sequence, &mut bytes, header).is_err());
            prop_assert!(opener.open_rtcp(&mut bytes).is_err());
            prop_assert_eq!(window.highest(), None);
            prop_assert!(opener.senders.is_empty());
        }
    }

    #[test]
    fn one_changed_bit_is_noticed(at in 0_usize..27, bit in 0_u8..8) {
        for profile in PROFILES {
            let (opener, sealer) = pair(profile);
            let mut sealed = packet(&sealer, &mut Window::default(), 40_000);
            sealed[at] ^= 1 << bit;
            let result = opener.open(&mut Window::default(), Ssrc(9), 40_000, &mut sealed, 12);
            prop_assert_eq!(result.unwrap_err(), SrtpError::Forged);
        }
    }
}
