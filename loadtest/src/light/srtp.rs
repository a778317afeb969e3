//! SRTP and SRTCP with AES-GCM (RFC 7714), in place, with keys that are made once. A server that chooses anything else
//! for a client that offers GCM is not one to be measured.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::iv::FixedLength;
use str0m::crypto::dtls::SrtpProfile;

use super::keys::Agreed;

/// Tag of AES-GCM (RFC 7714, section 13.2: 16 octets).
pub(super) const TAG: usize = 16;
/// The E flag and the index behind an SRTCP packet (RFC 3711, section 3.4).
const INDEX: usize = 4;
/// What stays in the clear of an RTCP packet (RFC 7714, section 9.2).
const RTCP_HEADER: usize = 8;
/// RFC 7714, section 12.1.
const SALT: usize = 12;

/// The keys of one direction.
pub(super) struct Keys {
    rtp: Gcm,
    rtcp: Gcm,
}

struct Gcm {
    key: LessSafeKey,
    salt: [u8; SALT],
}

/// The keys that we receive with, and those that we send with (RFC 5764, section 4.2). `None`: it is not AES-GCM.
pub(super) fn both_ways(agreed: &Agreed) -> Option<(Keys, Keys)> {
    let length = match agreed.profile {
        SrtpProfile::AEAD_AES_128_GCM => 16,
        SrtpProfile::AEAD_AES_256_GCM => 32,
        _ => return None,
    };
    let (client_key, rest) = agreed.material.split_at_checked(length)?;
    let (server_key, rest) = rest.split_at_checked(length)?;
    let (client_salt, server_salt) = rest.split_at_checked(SALT)?;
    let client = Keys::derive(client_key, client_salt).ok()?;
    let server = Keys::derive(server_key, server_salt).ok()?;
    Some(if agreed.we_are_client { (server, client) } else { (client, server) })
}

impl Keys {
    fn derive(master: &[u8], salt: &[u8]) -> Result<Self, Unspecified> {
        // Labels: RFC 3711, section 4.3.2.
        Ok(Self { rtp: Gcm::derive(master, salt, 0)?, rtcp: Gcm::derive(master, salt, 3)? })
    }

    /// Seals the RTP packet whose header is this long, and appends the tag. An index must not be used twice.
    pub(super) fn seal(&self, packet: &mut Vec<u8>, header: usize, ssrc: u32, index: u64) -> Option<()> {
        let (header, payload) = packet.split_at_mut_checked(header)?;
        let nonce = self.rtp.rtp_nonce(ssrc, index);
        let tag = self.rtp.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload).ok()?;
        packet.extend_from_slice(tag.as_ref());
        Some(())
    }

    /// Opens an RTP packet; gives its payload. `None`: it is not authentic.
    pub(super) fn open<'a>(&self, packet: &'a mut [u8], header: usize, ssrc: u32, index: u64) -> Option<&'a [u8]> {
        let (header, payload) = packet.split_at_mut_checked(header)?;
        let nonce = self.rtp.rtp_nonce(ssrc, index);
        self.rtp.key.open_in_place(nonce, Aad::from(&*header), payload).ok().map(|plain| &*plain)
    }

    /// Seals an RTCP packet, and appends tag and index.
    pub(super) fn seal_rtcp(&self, packet: &mut Vec<u8>, index: u32) -> Option<()> {
        let ssrc = sender(packet)?;
        let word = (0x8000_0000 | index).to_be_bytes();
        let (header, body) = packet.split_at_mut_checked(RTCP_HEADER)?;
        let aad = rtcp_aad(header, word)?;
        let tag =
            self.rtcp.key.seal_in_place_separate_tag(self.rtcp.rtcp_nonce(ssrc, index), Aad::from(aad), body).ok()?;
        packet.extend_from_slice(tag.as_ref());
        packet.extend_from_slice(&word);
        Some(())
    }

    /// Opens an RTCP packet; gives the compound. `None`: it is not authentic.
    pub(super) fn open_rtcp<'a>(&self, packet: &'a mut [u8]) -> Option<&'a [u8]> {
        let ssrc = sender(packet)?;
        let (compound, word) = packet.split_at_mut_checked(packet.len().checked_sub(INDEX)?)?;
        let word: [u8; INDEX] = (&*word).try_into().ok()?;
        let (header, body) = compound.split_at_mut_checked(RTCP_HEADER)?;
        let aad = rtcp_aad(header, word)?;
        let nonce = self.rtcp.rtcp_nonce(ssrc, u32::from_be_bytes(word) & 0x7fff_ffff);
        let length = self.rtcp.key.open_in_place(nonce, Aad::from(aad), body).ok()?.len();
        compound.get(..RTCP_HEADER + length)
    }
}

impl Gcm {
    fn derive(master: &[u8], salt: &[u8], first_label: u8) -> Result<Self, Unspecified> {
        let mut key = [0; 32];
        let key = key.get_mut(..master.len()).ok_or(Unspecified)?;
        derive(master, salt, first_label, key)?;
        let mut session_salt = [0; SALT];
        derive(master, salt, first_label + 2, &mut session_salt)?;
        Self::new(key, session_salt)
    }

    fn new(key: &[u8], salt: [u8; SALT]) -> Result<Self, Unspecified> {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        Ok(Self { key: LessSafeKey::new(UnboundKey::new(algorithm, key)?), salt })
    }

    /// RFC 7714, section 8.1: two zero octets, SSRC, rollover counter, sequence number; the salt on top.
    fn rtp_nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let [s0, s1, s2, s3] = ssrc.to_be_bytes();
        let [_, _, i0, i1, i2, i3, i4, i5] = index.to_be_bytes();
        self.salted([0, 0, s0, s1, s2, s3, i0, i1, i2, i3, i4, i5])
    }

    /// RFC 7714, section 9.1: two zero octets, SSRC, two zero octets, SRTCP index; the salt on top.
    fn rtcp_nonce(&self, ssrc: u32, index: u32) -> Nonce {
        let [s0, s1, s2, s3] = ssrc.to_be_bytes();
        let [i0, i1, i2, i3] = index.to_be_bytes();
        self.salted([0, 0, s0, s1, s2, s3, 0, 0, i0, i1, i2, i3])
    }

    fn salted(&self, mut nonce: [u8; SALT]) -> Nonce {
        for (byte, salt) in nonce.iter_mut().zip(&self.salt) {
            *byte ^= salt;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Key derivation with AES in counter mode and a key derivation rate of zero (RFC 3711, section 4.3.3; RFC 7714,
/// section 11, pads its shorter salt with zeros on the right).
fn derive(master: &[u8], salt: &[u8], label: u8, out: &mut [u8]) -> Result<(), Unspecified> {
    let mut iv = [0; 16];
    iv.iter_mut().zip(salt).for_each(|(byte, salt)| *byte = *salt);
    iv[7] ^= label;
    out.fill(0);
    let algorithm = if master.len() == 32 { &AES_256 } else { &AES_128 };
    let key = EncryptingKey::ctr(UnboundCipherKey::new(algorithm, master)?)?;
    key.less_safe_encrypt(out, EncryptionContext::Iv128(FixedLength::from(iv)))?;
    Ok(())
}

fn sender(packet: &[u8]) -> Option<u32> {
    packet.get(4..8)?.try_into().ok().map(u32::from_be_bytes)
}

/// RFC 7714, section 9.2: the first eight octets of the packet, then E flag and index.
fn rtcp_aad(header: &[u8], word: [u8; INDEX]) -> Option<[u8; 12]> {
    let mut aad = [0; 12];
    let (first, last) = aad.split_at_mut(RTCP_HEADER);
    first.copy_from_slice(header.get(..RTCP_HEADER)?);
    last.copy_from_slice(&word);
    Some(aad)
}

#[cfg(test)]
mod tests {
    use str0m::crypto::dtls::KeyingMaterial;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> =
            text.chars().filter_map(|digit| digit.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// RFC 7714, section 15: keys count from zero, and the salt is «Quid pro quo».
    fn keys(length: u8) -> Keys {
        let key: Vec<u8> = (0..length).collect();
        let gcm = || Gcm::new(&key, *b"Quid pro quo").unwrap();
        Keys { rtp: gcm(), rtcp: gcm() }
    }

    #[test]
    fn packets_are_those_of_rfc_7714_section_16() {
        let plain = hex("8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 \
                         61727465 73207472 6573");
        for (length, sealed) in [
            (
                16,
                "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b \
                 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
            ),
            (
                32,
                "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f \
                 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
            ),
        ] {
            let keys = keys(length);
            let mut packet = plain.clone();
            keys.seal(&mut packet, 12, 0x5501_a0b2, 0xf17b).unwrap();
            assert_eq!(packet, hex(sealed));
            assert_eq!(keys.open(&mut packet.clone(), 12, 0x5501_a0b2, 0xf17b).unwrap(), &plain[12..]);
            assert_eq!(keys.open(&mut packet, 12, 0x5501_a0b2, 0x1_f17b), None, "another rollover");
        }
    }

    #[test]
    fn reports_are_those_of_rfc_7714_section_17() {
        let plain = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef \
                         deadbeef deadbeef deadbeef");
        for (length, sealed) in [
            (
                16,
                "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda 4ce09b46 \
                 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
            ),
            (
                32,
                "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 110555be 8415f658 \
                 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
            ),
        ] {
            let keys = keys(length);
            let mut packet = plain.clone();
            keys.seal_rtcp(&mut packet, 0x5d4).unwrap();
            assert_eq!(packet, hex(sealed));
            assert_eq!(keys.open_rtcp(&mut packet.clone()).unwrap(), plain);
            packet[10] ^= 1;
            assert_eq!(keys.open_rtcp(&mut packet), None);
        }
    }

    #[test]
    fn keys_are_derived_as_in_rfc_3711_appendix_b_3() {
        let master = hex("e1f97a0d3e018be0d64fa32c06de4139");
        let salt = hex("0ec675ad498afeebb6960b3aabe6");
        for (label, length, expected) in
            [(0, 16, "c61e7a93744f39ee10734afe3ff7a087"), (2, 14, "30cbbc08863d8c85d49db34a9ae1")]
        {
            let mut out = vec![0; length];
            derive(&master, &salt, label, &mut out).unwrap();
            assert_eq!(out, hex(expected));
        }
    }

    #[test]
    fn what_one_side_seals_the_other_opens() {
        for (profile, length) in [(SrtpProfile::AEAD_AES_128_GCM, 56), (SrtpProfile::AEAD_AES_256_GCM, 88)] {
            let material: Vec<u8> = (0..length).collect();
            let side = |we_are_client| {
                both_ways(&Agreed { profile, material: KeyingMaterial::new(&material), we_are_client }).unwrap()
            };
            let ((_, client), (server, _)) = (side(true), side(false));
            let mut packet = b"\x80\x6f\0\0\0\0\0\0\0\0\0\x09voice".to_vec();
            client.seal(&mut packet, 12, 9, 65_536).unwrap();
            assert_eq!(server.open(&mut packet, 12, 9, 65_536), Some(&b"voice"[..]));
        }
        let material = KeyingMaterial::new(&[0; 60]);
        let other = Agreed { profile: SrtpProfile::AES128_CM_SHA1_80, material, we_are_client: true };
        assert!(both_ways(&other).is_none());
    }
}
