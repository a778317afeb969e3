//! SRTP and SRTCP (RFC 3711) with AES in counter mode and HMAC-SHA1, and with AES-GCM (RFC 7714): in place, with keys
//! that are made once.
//!
//! A context holds keys only. What was seen of a stream is in its [`Window`], which the caller keeps beside the rest of
//! what it knows of that stream. The same index is never sealed twice: with GCM that would give the key away.

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::Ssrc;
use super::sequence::Window;

/// Most bytes that sealing adds to an RTP packet.
pub const RTP_OVERHEAD: usize = 16;

/// Most bytes that sealing adds to an RTCP packet: the tag and the index.
pub const RTCP_OVERHEAD: usize = 20;

/// Senders of SRTCP whose replay windows are kept; the one unheard of for the longest is forgotten. A browser has one
/// for every stream that it sends, and one for those that it only receives.
const MOST_RTCP_SENDERS: usize = 64;

/// Length of the E flag and the SRTCP index (RFC 3711 §3.4).
const INDEX_LENGTH: usize = 4;

/// Tag of AES-GCM (RFC 7714 §13.2: 16 octets).
const GCM_TAG: usize = 16;

/// Tag of HMAC-SHA1-80 (RFC 3711 §4.2.1).
const SHA1_TAG: usize = 10;

/// How packets are protected: what DTLS agreed on (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// `SRTP_AES128_CM_HMAC_SHA1_80`: for clients without GCM.
    Aes128CmSha1,
    /// `SRTP_AEAD_AES_128_GCM`.
    Aes128Gcm,
    /// `SRTP_AEAD_AES_256_GCM`.
    Aes256Gcm,
}

impl Profile {
    const fn key_length(self) -> usize {
        match self {
            Self::Aes128CmSha1 | Self::Aes128Gcm => 16,
            Self::Aes256Gcm => 32,
        }
    }

    const fn salt_length(self) -> usize {
        match self {
            Self::Aes128CmSha1 => 14,
            Self::Aes128Gcm | Self::Aes256Gcm => 12,
        }
    }
}

/// Why a packet was refused, or not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SrtpError {
    /// Too short to hold a header and a tag. The peer's fault.
    #[error("the packet is too short")]
    Short,
    /// Its index was seen before, or is too old to tell. The peer's fault, or the network's.
    #[error("the packet was seen before")]
    Replayed,
    /// Its tag is wrong. The peer's fault, or an attack.
    #[error("the packet is not authentic")]
    Forged,
    /// This index was sealed before, or none is left. Ours.
    #[error("the index was used already")]
    Used,
    /// Keys of the wrong length.
    #[error("the keying material has the wrong length")]
    Keys,
}

/// Both directions of one DTLS session's keying material (RFC 5764 §4.2): what we receive with, and what we send with.
///
/// # Errors
/// [`SrtpError::Keys`] if the material is not of the profile's length.
pub fn contexts(profile: Profile, material: &[u8], we_are_client: bool) -> Result<(Opener, Sealer), SrtpError> {
    let (key, salt) = (profile.key_length(), profile.salt_length());
    if material.len() != 2 * (key + salt) {
        return Err(SrtpError::Keys);
    }
    let (keys, salts) = material.split_at_checked(2 * key).ok_or(SrtpError::Keys)?;
    let (client_key, server_key) = keys.split_at_checked(key).ok_or(SrtpError::Keys)?;
    let (client_salt, server_salt) = salts.split_at_checked(salt).ok_or(SrtpError::Keys)?;
    let client = || Keys::derive(profile, client_key, client_salt).map_err(|Unspecified| SrtpError::Keys);
    let server = || Keys::derive(profile, server_key, server_salt).map_err(|Unspecified| SrtpError::Keys);
    let (theirs, ours) = if we_are_client { (server()?, client()?) } else { (client()?, server()?) };
    Ok((Opener { keys: theirs, senders: Vec::new() }, Sealer { keys: ours, rtcp_index: 0 }))
}

/// Opens what a peer sealed.
pub struct Opener {
    keys: Keys,
    senders: Vec<(Ssrc, Window)>,
}

/// Seals what goes to a peer.
pub struct Sealer {
    keys: Keys,
    rtcp_index: u32,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

/// An RTP packet that was opened.
#[derive(Debug)]
pub struct Opened<'a> {
    /// Its extended sequence number.
    pub index: u64,
    /// Payload and padding.
    pub payload: &'a mut [u8],
}

impl Opener {
    /// Opens an RTP packet in place. `window` is that of its stream, and is changed only if the packet is authentic.
    ///
    /// # Errors
    /// [`SrtpError`] says why it is not to be used.
    pub fn open<'a>(
        &self,
        window: &mut Window,
        ssrc: Ssrc,
        sequence: u16,
        packet: &'a mut [u8],
        header_length: usize,
    ) -> Result<Opened<'a>, SrtpError> {
        let index = window.extend(sequence).ok_or(SrtpError::Replayed)?;
        if !window.is_new(index) {
            return Err(SrtpError::Replayed);
        }
        let (header, body) = packet.split_at_mut_checked(header_length).ok_or(SrtpError::Short)?;
        let payload = match &self.keys.rtp {
            Cipher::Gcm { key, salt } => {
                if body.len() < GCM_TAG {
                    return Err(SrtpError::Short);
                }
                key.open_in_place(gcm_rtp_nonce(salt, ssrc, index), Aad::from(&*header), body)
                    .map_err(|Unspecified| SrtpError::Forged)?
            }
            Cipher::Cm { key, salt, mac } => {
                let end = body.len().checked_sub(SHA1_TAG).ok_or(SrtpError::Short)?;
                let (payload, tag) = body.split_at_mut_checked(end).ok_or(SrtpError::Short)?;
                let rollover = rollover(index).to_be_bytes();
                verify_tag(mac, &[header, payload, &rollover], tag)?;
                apply(key, cm_iv(salt, ssrc, index), payload).map_err(|Unspecified| SrtpError::Forged)?;
                payload
            }
        };
        window.accept(index);
        Ok(Opened { index, payload })
    }

    /// Opens an RTCP packet in place; returns the compound.
    ///
    /// # Errors
    /// [`SrtpError`] says why it is not to be used.
    pub fn open_rtcp<'a>(&mut self, packet: &'a mut [u8]) -> Result<&'a [u8], SrtpError> {
        let ssrc = packet.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        let ssrc = Ssrc(ssrc.ok_or(SrtpError::Short)?);
        let tag_after_index = if matches!(self.keys.rtcp, Cipher::Cm { .. }) { SHA1_TAG } else { 0 };
        let index_at = packet.len().checked_sub(INDEX_LENGTH + tag_after_index).ok_or(SrtpError::Short)?;
        let (compound, tail) = packet.split_at_mut_checked(index_at).ok_or(SrtpError::Short)?;
        let (word, tag) = tail.split_at_checked(INDEX_LENGTH).ok_or(SrtpError::Short)?;
        let word: [u8; 4] = word.try_into().map_err(|_| SrtpError::Short)?;
        let (encrypted, index) = (word[0] & 0x80 != 0, u32::from_be_bytes(word) & 0x7fff_ffff);
        let known = self.senders.iter().position(|(sender, _)| *sender == ssrc);
        let window = known.and_then(|at| self.senders.get(at)).map(|(_, window)| window);
        if window.is_some_and(|window| !window.is_new(u64::from(index))) {
            return Err(SrtpError::Replayed);
        }
        let length = match &self.keys.rtcp {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_rtcp_nonce(salt, ssrc, index);
                if encrypted {
                    let (header, body) = compound.split_at_mut_checked(8).ok_or(SrtpError::Short)?;
                    let aad = rtcp_aad(header, word)?;
                    let plain = key.open_in_place(nonce, Aad::from(aad), body);
                    8 + plain.map_err(|Unspecified| SrtpError::Forged)?.len()
                } else {
                    // RFC 7714 §9.3 allows packets that are authenticated only; DTLS-SRTP negotiates encryption.
                    return Err(SrtpError::Forged);
                }
            }
            Cipher::Cm { key, salt, mac } => {
                verify_tag(mac, &[compound, &word], tag)?;
                let body = compound.get_mut(8..).ok_or(SrtpError::Short)?;
                if encrypted {
                    apply(key, cm_iv(salt, ssrc, u64::from(index)), body).map_err(|Unspecified| SrtpError::Forged)?;
                }
                compound.len()
            }
        };
        self.note_rtcp(ssrc, known, u64::from(index));
        compound.get(..length).ok_or(SrtpError::Short)
    }

    /// Only the authentic get here, so strangers cannot push senders out.
    fn note_rtcp(&mut self, ssrc: Ssrc, known: Option<usize>, index: u64) {
        let mut sender = match known {
            // Kept in order of last use, so that the first is the one unheard of for the longest.
            Some(at) if at + 1 == self.senders.len() => {
                if let Some((_, window)) = self.senders.last_mut() {
                    window.accept(index);
                }
                return;
            }
            Some(at) => self.senders.remove(at),
            None => {
                if self.senders.len() >= MOST_RTCP_SENDERS {
                    self.senders.remove(0);
                }
                (ssrc, Window::default())
            }
        };
        sender.1.accept(index);
        self.senders.push(sender);
    }
}

impl Sealer {
    /// Bytes that sealing adds to an RTP packet.
    pub fn overhead(&self) -> usize {
        match self.keys.rtp {
            Cipher::Gcm { .. } => GCM_TAG,
            Cipher::Cm { .. } => SHA1_TAG,
        }
    }

    /// Seals an RTP packet in place. `packet` is header, payload and room for the tag ([`Sealer::overhead`]); `window`
    /// holds what was sealed of its stream.
    ///
    /// # Errors
    /// [`SrtpError::Used`] if the index was sealed before; nothing is to be sent then.
    pub fn seal(
        &self,
        window: &mut Window,
        ssrc: Ssrc,
        index: u64,
        packet: &mut [u8],
        header_length: usize,
    ) -> Result<(), SrtpError> {
        // RFC 3711 §9.2: no more than 2^48 packets under one key.
        if !window.is_new(index) || index >> 48 != 0 {
            return Err(SrtpError::Used);
        }
        let end = packet.len().checked_sub(self.overhead()).ok_or(SrtpError::Short)?;
        let (content, room) = packet.split_at_mut_checked(end).ok_or(SrtpError::Short)?;
        let (header, payload) = content.split_at_mut_checked(header_length).ok_or(SrtpError::Short)?;
        match &self.keys.rtp {
            Cipher::Gcm { key, salt } => {
                let tag =
                    key.seal_in_place_separate_tag(gcm_rtp_nonce(salt, ssrc, index), Aad::from(&*header), payload);
                room.copy_from_slice(tag.map_err(|Unspecified| SrtpError::Short)?.as_ref());
            }
            Cipher::Cm { key, salt, mac } => {
                apply(key, cm_iv(salt, ssrc, index), payload).map_err(|Unspecified| SrtpError::Short)?;
                write_tag(mac, &[content, &rollover(index).to_be_bytes()], room);
            }
        }
        window.accept(index);
        Ok(())
    }

    /// Seals an RTCP compound in place; tag and index are appended.
    ///
    /// # Errors
    /// [`SrtpError::Used`] after 2^31 packets (RFC 3711 §9.2), [`SrtpError::Short`] if it has no header.
    pub fn seal_rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        let ssrc = packet.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        let ssrc = Ssrc(ssrc.ok_or(SrtpError::Short)?);
        let index = self.rtcp_index + 1;
        if index >> 31 != 0 {
            return Err(SrtpError::Used);
        }
        self.rtcp_index = index;
        let word = (0x8000_0000 | index).to_be_bytes();
        let (header, body) = packet.split_at_mut_checked(8).ok_or(SrtpError::Short)?;
        match &self.keys.rtcp {
            Cipher::Gcm { key, salt } => {
                let aad = rtcp_aad(header, word)?;
                let tag = key.seal_in_place_separate_tag(gcm_rtcp_nonce(salt, ssrc, index), Aad::from(aad), body);
                packet.extend_from_slice(tag.map_err(|Unspecified| SrtpError::Short)?.as_ref());
                packet.extend_from_slice(&word);
            }
            Cipher::Cm { key, salt, mac } => {
                apply(key, cm_iv(salt, ssrc, u64::from(index)), body).map_err(|Unspecified| SrtpError::Short)?;
                packet.extend_from_slice(&word);
                let mut tag = [0; SHA1_TAG];
                write_tag(mac, &[packet], &mut tag);
                packet.extend_from_slice(&tag);
            }
        }
        Ok(())
    }
}

/// The session keys of one direction.
struct Keys {
    rtp: Cipher,
    rtcp: Cipher,
}

#[expect(clippy::large_enum_variant, reason = "two of each per session, and a box would cost a cache miss a packet")]
enum Cipher {
    Gcm { key: LessSafeKey, salt: [u8; 12] },
    Cm { key: EncryptingKey, salt: [u8; 14], mac: hmac::Key },
}

/// What a derived key is for (RFC 3711 §4.3.2); SRTCP's are three up.
#[derive(Clone, Copy)]
enum Label {
    Encryption = 0,
    Authentication = 1,
    Salt = 2,
}

impl Keys {
    fn derive(profile: Profile, master: &[u8], salt: &[u8]) -> Result<Self, Unspecified> {
        Ok(Self { rtp: Cipher::derive(profile, master, salt, 0)?, rtcp: Cipher::derive(profile, master, salt, 3)? })
    }
}

impl Cipher {
    fn derive(profile: Profile, master: &[u8], master_salt: &[u8], offset: u8) -> Result<Self, Unspecified> {
        let derive = |label: Label, out: &mut [u8]| derive(master, master_salt, label as u8 + offset, out);
        let mut key = [0; 32];
        let key = key.get_mut(..profile.key_length()).ok_or(Unspecified)?;
        derive(Label::Encryption, key)?;
        match profile {
            Profile::Aes128CmSha1 => {
                let (mut salt, mut mac) = ([0; 14], [0; 20]);
                derive(Label::Salt, &mut salt)?;
                derive(Label::Authentication, &mut mac)?;
                Self::cm(key, salt, &mac)
            }
            Profile::Aes128Gcm | Profile::Aes256Gcm => {
                let mut salt = [0; 12];
                derive(Label::Salt, &mut salt)?;
                Self::gcm(key, salt)
            }
        }
    }

    fn cm(key: &[u8], salt: [u8; 14], mac: &[u8]) -> Result<Self, Unspecified> {
        let key = counter_mode(key)?;
        Ok(Self::Cm { key, salt, mac: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, mac) })
    }

    fn gcm(key: &[u8], salt: [u8; 12]) -> Result<Self, Unspecified> {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        Ok(Self::Gcm { key: LessSafeKey::new(UnboundKey::new(algorithm, key)?), salt })
    }
}

/// Key derivation with AES in counter mode and a key derivation rate of zero (RFC 3711 §4.3.3; RFC 7714 §11 pads its
/// shorter salt with zeros on the right).
fn derive(master: &[u8], salt: &[u8], label: u8, out: &mut [u8]) -> Result<(), Unspecified> {
    let mut iv = [0; 16];
    iv.get_mut(..salt.len().min(14)).ok_or(Unspecified)?.copy_from_slice(salt.get(..14).unwrap_or(salt));
    iv[7] ^= label;
    out.fill(0);
    apply(&counter_mode(master)?, iv, out)
}

fn counter_mode(key: &[u8]) -> Result<EncryptingKey, Unspecified> {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    EncryptingKey::ctr(UnboundCipherKey::new(algorithm, key)?)
}

/// Adds the key stream: the same to encrypt and to decrypt.
fn apply(key: &EncryptingKey, iv: [u8; 16], bytes: &mut [u8]) -> Result<(), Unspecified> {
    if !bytes.is_empty() {
        key.less_safe_encrypt(bytes, EncryptionContext::Iv128(FixedLength::from(iv)))?;
    }
    Ok(())
}

fn verify_tag(mac: &hmac::Key, parts: &[&[u8]], tag: &[u8]) -> Result<(), SrtpError> {
    let mut expected = [0; SHA1_TAG];
    write_tag(mac, parts, &mut expected);
    verify_slices_are_equal(&expected, tag).map_err(|Unspecified| SrtpError::Forged)
}

fn write_tag(mac: &hmac::Key, parts: &[&[u8]], out: &mut [u8]) {
    let mut context = hmac::Context::with_key(mac);
    for part in parts {
        context.update(part);
    }
    for (out, byte) in out.iter_mut().zip(context.sign().as_ref()) {
        *out = *byte;
    }
}

/// The rollover counter of an index (RFC 3711 §3.3.1).
#[expect(clippy::cast_possible_truncation, reason = "an index has 48 bits")]
fn rollover(index: u64) -> u32 {
    (index >> 16) as u32
}

/// RFC 7714 §8.1: two zero octets, SSRC, rollover counter, sequence number; the salt on top.
fn gcm_rtp_nonce(salt: &[u8; 12], ssrc: Ssrc, index: u64) -> Nonce {
    let [s0, s1, s2, s3] = ssrc.0.to_be_bytes();
    let [_, _, i0, i1, i2, i3, i4, i5] = index.to_be_bytes();
    salted([0, 0, s0, s1, s2, s3, i0, i1, i2, i3, i4, i5], salt)
}

/// RFC 7714 §9.1: two zero octets, SSRC, two zero octets, SRTCP index; the salt on top.
fn gcm_rtcp_nonce(salt: &[u8; 12], ssrc: Ssrc, index: u32) -> Nonce {
    let [s0, s1, s2, s3] = ssrc.0.to_be_bytes();
    let [i0, i1, i2, i3] = index.to_be_bytes();
    salted([0, 0, s0, s1, s2, s3, 0, 0, i0, i1, i2, i3], salt)
}

fn salted(mut nonce: [u8; 12], salt: &[u8; 12]) -> Nonce {
    for (byte, salt) in nonce.iter_mut().zip(salt) {
        *byte ^= salt;
    }
    Nonce::assume_unique_for_key(nonce)
}

/// RFC 3711 §4.1.1: salt, SSRC and index, each shifted to its place. For SRTCP the index has 31 bits.
fn cm_iv(salt: &[u8; 14], ssrc: Ssrc, index: u64) -> [u8; 16] {
    let [s0, s1, s2, s3] = ssrc.0.to_be_bytes();
    let [_, _, i0, i1, i2, i3, i4, i5] = index.to_be_bytes();
    let mut iv = [0, 0, 0, 0, s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, 0, 0];
    for (byte, salt) in iv.iter_mut().zip(salt) {
        *byte ^= salt;
    }
    iv
}

/// RFC 7714 §9.2: the first eight octets of the packet, then E flag and index.
fn rtcp_aad(header: &[u8], word: [u8; 4]) -> Result<[u8; 12], SrtpError> {
    let mut aad = [0; 12];
    let (first, last) = aad.split_at_mut(8);
    first.copy_from_slice(header.get(..8).ok_or(SrtpError::Short)?);
    last.copy_from_slice(&word);
    Ok(aad)
}

#[cfg(test)]
mod tests;
