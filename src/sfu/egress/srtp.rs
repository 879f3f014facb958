//! SRTP as we send it, SRTCP as both sides send it: AES-GCM (RFC 7714) and AES-CM with HMAC-SHA1 (RFC 3711), by keys
//! that a DTLS handshake gave (RFC 5764). Pure. Packets are numbered elsewhere, and no media is opened.
//!
//! ```text
//! RTP    header | payload, sealed | tag
//! RTCP   GCM  first 8 bytes | the rest, sealed | tag | E and index, 4 bytes
//!        CM   first 8 bytes | the rest, sealed | E and index, 4 bytes | tag
//! ```
//! Keys are expanded once. No number may be sealed twice with different content that both go out: who has both can read
//! them, and with GCM forge others.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey},
    constant_time::verify_slices_are_equal,
    hmac,
    iv::FixedLength,
};
use str0m::crypto::dtls::SrtpProfile;

/// The most that sealing adds to an RTP packet.
#[cfg(test)]
pub const RTP_OVERHEAD_MAX: usize = GCM_TAG_BYTES;
const GCM_TAG_BYTES: usize = 16;
const GCM_SALT_BYTES: usize = 12;
/// HMAC-SHA1, cut to 80 bits.
const CM_TAG_BYTES: usize = 10;
const CM_SALT_BYTES: usize = 14;
const CM_MAC_KEY_BYTES: usize = 20;

/// Of an RTCP packet, what stays readable: its first header and the sender's SSRC.
const RTCP_HEADER_BYTES: usize = 8;
/// Says with the index that the packet is encrypted.
const ENCRYPTED: u32 = 1 << 31;

/// Key derivation labels (RFC 3711, section 4.3.1): of encryption; those of authentication and salt follow.
const RTP_LABEL: u8 = 0;
const RTCP_LABEL: u8 = 3;

/// Senders of RTCP whose windows are kept; of more, those that were heard last.
const SENDERS_MAX: usize = 8;

/// Both ends of one connection's keys.
#[derive(Debug)]
pub struct Keys {
    pub sealer: Sealer,
    pub opener: Opener,
}

impl Keys {
    /// From what the handshake exported: keys of client and server, then their salts. `None` where that is not of the
    /// profile's length, or the profile unknown.
    pub fn new(profile: SrtpProfile, material: &[u8], is_client: bool) -> Option<Self> {
        let (key_bytes, salt_bytes) = match profile {
            SrtpProfile::AEAD_AES_256_GCM => (32, GCM_SALT_BYTES),
            SrtpProfile::AEAD_AES_128_GCM => (16, GCM_SALT_BYTES),
            SrtpProfile::AES128_CM_SHA1_80 => (16, CM_SALT_BYTES),
            _ => return None,
        };
        let (keys, salts) = material.split_at_checked(2 * key_bytes).filter(|(_, it)| it.len() == 2 * salt_bytes)?;
        let (client, server) = (keys.split_at(key_bytes), salts.split_at(salt_bytes));
        let client_and_server = [(client.0, server.0), (client.1, server.1)];
        let [ours, theirs] = if is_client { client_and_server } else { [client_and_server[1], client_and_server[0]] };
        let cipher = |(key, salt), label| Cipher::derive(profile, key, salt, label);
        let sealer = Sealer { rtp: cipher(ours, RTP_LABEL)?, rtcp: cipher(ours, RTCP_LABEL)? };
        let opener = Opener { rtcp: cipher(theirs, RTCP_LABEL)?, senders: Vec::with_capacity(SENDERS_MAX) };
        Some(Self { sealer, opener })
    }
}

/// Seals what we send.
pub struct Sealer {
    rtp: Cipher,
    rtcp: Cipher,
}

impl Sealer {
    /// What sealing adds to an RTP packet.
    #[cfg(test)]
    pub fn rtp_overhead(&self) -> usize {
        self.rtp.tag_bytes()
    }

    /// Seals the packet that lies in `arena` from `start` to its end, in place, and appends the tag. `index` is the
    /// rollover counter and the sequence number, 48 bits. Where it cannot be sealed, nothing of it stays in the arena:
    /// so it cannot go out readable.
    #[must_use]
    pub fn seal_rtp(&self, arena: &mut Vec<u8>, start: usize, header_len: usize, ssrc: u32, index: u64) -> bool {
        let end = arena.len();
        arena.resize(end + self.rtp.tag_bytes(), 0);
        let sealed = arena.get_mut(start..).zip(end.checked_sub(start)).and_then(|(packet, length)| {
            let (packet, tag) = packet.split_at_mut_checked(length)?;
            self.rtp.seal_rtp(packet, tag, header_len, ssrc, index)
        });
        if sealed.is_none() {
            arena.truncate(start.min(end));
        }
        sealed.is_some()
    }

    /// Seals a compound packet in place. Empties it where that cannot be.
    #[must_use]
    pub fn seal_rtcp(&self, compound: &mut Vec<u8>, index: u32) -> bool {
        let sealed = self.rtcp.seal_rtcp(compound, index).is_some();
        if !sealed {
            compound.clear();
        }
        sealed
    }

    /// Opens what was sealed with our own keys, and says its index. Sealed again under it, the first must not go out.
    #[must_use]
    pub fn open_own_rtcp(&self, packet: &[u8], out: &mut Vec<u8>) -> Option<u32> {
        out.clear();
        let (ssrc, index) = self.rtcp.rtcp_place(packet)?;
        self.rtcp.open_rtcp(packet, ssrc, index, out).then_some(index)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(***)")
    }
}

/// Opens the RTCP that they send, each packet once.
pub struct Opener {
    rtcp: Cipher,
    /// Who was heard last is last.
    senders: Vec<Window>,
}

impl Opener {
    /// Whether the packet is authentic and new; then `out` holds it as it was before sealing, else nothing.
    #[must_use]
    pub fn open_rtcp(&mut self, packet: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let Some((ssrc, index)) = self.rtcp.rtcp_place(packet) else { return false };
        let known = self.senders.iter().position(|it| it.ssrc == ssrc);
        let mut window = known.map_or_else(|| Window::new(ssrc, index), |at| self.senders[at]);
        if !window.is_new(index) || !self.rtcp.open_rtcp(packet, ssrc, index, out) {
            return false;
        }
        window.note(index);
        if let Some(gone) = known.or_else(|| (self.senders.len() == SENDERS_MAX).then_some(0)) {
            self.senders.remove(gone);
        }
        self.senders.push(window);
        true
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener(***)")
    }
}

/// Which of a sender's indices were seen (RFC 3711, section 3.3.2).
#[derive(Clone, Copy)]
struct Window {
    ssrc: u32,
    newest: u32,
    /// The newest is the lowest bit, the one before it the next.
    seen: u64,
}

impl Window {
    fn new(ssrc: u32, index: u32) -> Self {
        Self { ssrc, newest: index, seen: 0 }
    }

    fn is_new(&self, index: u32) -> bool {
        match self.newest.checked_sub(index) {
            None => true,
            // Too old to know.
            Some(age) => age < u64::BITS && self.seen & (1 << age) == 0,
        }
    }

    fn note(&mut self, index: u32) {
        if let Some(ahead) = index.checked_sub(self.newest) {
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0);
            self.newest = index;
        }
        self.seen |= 1u64.checked_shl(self.newest - index).unwrap_or(0);
    }
}

/// Session keys of one direction and one protocol.
enum Cipher {
    Gcm {
        key: LessSafeKey,
        salt: [u8; GCM_SALT_BYTES],
    },
    /// Boxed for their size: few clients take this one.
    Cm {
        key: Box<EncryptingKey>,
        mac: Box<hmac::Key>,
        salt: [u8; CM_SALT_BYTES],
    },
}

impl Cipher {
    fn derive(profile: SrtpProfile, key: &[u8], salt: &[u8], label: u8) -> Option<Self> {
        let prf = counter_mode(key)?;
        Some(match profile {
            SrtpProfile::AEAD_AES_256_GCM => {
                Self::gcm(&derive::<32>(&prf, salt, label)?, derive(&prf, salt, label + 2)?)?
            }
            SrtpProfile::AEAD_AES_128_GCM => {
                Self::gcm(&derive::<16>(&prf, salt, label)?, derive(&prf, salt, label + 2)?)?
            }
            _ => {
                let mac: [u8; CM_MAC_KEY_BYTES] = derive(&prf, salt, label + 1)?;
                Self::cm(&derive::<16>(&prf, salt, label)?, &mac, derive(&prf, salt, label + 2)?)?
            }
        })
    }

    fn gcm(key: &[u8], salt: [u8; GCM_SALT_BYTES]) -> Option<Self> {
        let algorithm = if key.len() == AES_256_GCM.key_len() { &AES_256_GCM } else { &AES_128_GCM };
        Some(Self::Gcm { key: LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?), salt })
    }

    fn cm(key: &[u8], mac: &[u8], salt: [u8; CM_SALT_BYTES]) -> Option<Self> {
        let mac = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, mac);
        Some(Self::Cm { key: Box::new(counter_mode(key)?), mac: Box::new(mac), salt })
    }

    fn tag_bytes(&self) -> usize {
        match self {
            Self::Gcm { .. } => GCM_TAG_BYTES,
            Self::Cm { .. } => CM_TAG_BYTES,
        }
    }

    fn seal_rtp(&self, packet: &mut [u8], tag: &mut [u8], header_len: usize, ssrc: u32, index: u64) -> Option<()> {
        let (header, payload) = packet.split_at_mut_checked(header_len)?;
        match self {
            Self::Gcm { key, salt } => {
                let nonce = Nonce::assume_unique_for_key(iv(salt, ssrc, index));
                let made = key.seal_in_place_separate_tag(nonce, Aad::from(header), payload).ok()?;
                tag.copy_from_slice(made.as_ref());
            }
            Self::Cm { key, mac, salt } => {
                apply(key, &iv(salt, ssrc, index), payload)?;
                let rollovers = ((index >> 16) as u32).to_be_bytes();
                tag.copy_from_slice(&cm_tag(mac, &[packet, &rollovers]));
            }
        }
        Some(())
    }

    fn seal_rtcp(&self, packet: &mut Vec<u8>, index: u32) -> Option<()> {
        let (header, rest) = packet.split_first_chunk_mut::<RTCP_HEADER_BYTES>()?;
        if index >= ENCRYPTED {
            return None;
        }
        let (ssrc, word) = (rtcp_ssrc(header), (ENCRYPTED | index).to_be_bytes());
        match self {
            Self::Gcm { key, salt } => {
                let nonce = Nonce::assume_unique_for_key(iv(salt, ssrc, index.into()));
                let tag = key.seal_in_place_separate_tag(nonce, rtcp_aad(header, word), rest).ok()?;
                packet.extend_from_slice(tag.as_ref());
                packet.extend_from_slice(&word);
            }
            Self::Cm { key, mac, salt } => {
                apply(key, &iv(salt, ssrc, index.into()), rest)?;
                packet.extend_from_slice(&word);
                let tag = cm_tag(mac, &[packet]);
                packet.extend_from_slice(&tag);
            }
        }
        Some(())
    }

    /// Whose packet this is, by its header, and its index. One that says that it is not encrypted is none: no profile
    /// of ours is without.
    fn rtcp_place(&self, packet: &[u8]) -> Option<(u32, u32)> {
        let (packet, word) = match self {
            Self::Gcm { .. } => packet.split_last_chunk::<4>()?,
            Self::Cm { .. } => packet.split_last_chunk::<CM_TAG_BYTES>()?.0.split_last_chunk::<4>()?,
        };
        let header = packet.first_chunk::<RTCP_HEADER_BYTES>()?;
        let word = u32::from_be_bytes(*word);
        (word & ENCRYPTED != 0).then_some((rtcp_ssrc(header), word & !ENCRYPTED))
    }

    fn open_rtcp(&self, packet: &[u8], ssrc: u32, index: u32, out: &mut Vec<u8>) -> bool {
        out.clear();
        let opened = self.try_open_rtcp(packet, ssrc, index, out).is_some();
        if !opened {
            out.clear();
        }
        opened
    }

    fn try_open_rtcp(&self, packet: &[u8], ssrc: u32, index: u32, out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Gcm { key, salt } => {
                let (packet, word) = packet.split_last_chunk::<4>()?;
                let (packet, tag) = packet.split_last_chunk::<GCM_TAG_BYTES>()?;
                let (header, sealed) = packet.split_first_chunk::<RTCP_HEADER_BYTES>()?;
                out.extend_from_slice(header);
                out.resize(packet.len(), 0);
                let nonce = Nonce::assume_unique_for_key(iv(salt, ssrc, index.into()));
                let opened = out.get_mut(RTCP_HEADER_BYTES..)?;
                key.open_separate_gather(nonce, rtcp_aad(header, *word), sealed, tag, opened).ok()
            }
            Self::Cm { key, mac, salt } => {
                let (authentic, tag) = packet.split_last_chunk::<CM_TAG_BYTES>()?;
                verify_slices_are_equal(&cm_tag(mac, &[authentic]), tag).ok()?;
                let (packet, _) = authentic.split_last_chunk::<4>()?;
                out.extend_from_slice(packet);
                apply(key, &iv(salt, ssrc, index.into()), out.get_mut(RTCP_HEADER_BYTES..)?)
            }
        }
    }
}

fn rtcp_ssrc(header: &[u8; RTCP_HEADER_BYTES]) -> u32 {
    let [.., a, b, c, d] = *header;
    u32::from_be_bytes([a, b, c, d])
}

/// What is authentic beside what is sealed.
fn rtcp_aad(header: &[u8; RTCP_HEADER_BYTES], word: [u8; 4]) -> Aad<[u8; RTCP_HEADER_BYTES + 4]> {
    let mut aad = [0; RTCP_HEADER_BYTES + 4];
    aad[..RTCP_HEADER_BYTES].copy_from_slice(header);
    aad[RTCP_HEADER_BYTES..].copy_from_slice(&word);
    Aad::from(aad)
}

/// The salt with SSRC and index, 48 bits, in its last ten bytes: alike for both ciphers and both protocols.
fn iv<const BYTES: usize>(salt: &[u8; BYTES], ssrc: u32, index: u64) -> [u8; BYTES] {
    let place = (u128::from(ssrc) << 48 | u128::from(index & ((1 << 48) - 1))).to_be_bytes();
    let mut iv = *salt;
    iv.iter_mut().rev().zip(place.iter().rev()).for_each(|(byte, place)| *byte ^= place);
    iv
}

/// What counter mode makes of zeros, by AES-128 (RFC 3711, section 4.3) or AES-256 (RFC 6188).
fn derive<const BYTES: usize>(prf: &EncryptingKey, salt: &[u8], label: u8) -> Option<[u8; BYTES]> {
    // A shorter salt counts as if zeros followed.
    let mut input = [0; CM_SALT_BYTES];
    input.get_mut(..salt.len())?.copy_from_slice(salt);
    input[7] ^= label;
    let mut key = [0; BYTES];
    apply(prf, &input, &mut key)?;
    Some(key)
}

fn counter_mode(key: &[u8]) -> Option<EncryptingKey> {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    EncryptingKey::ctr(UnboundCipherKey::new(algorithm, key).ok()?).ok()
}

/// Encrypts, or decrypts; the last two bytes of the block count.
fn apply(key: &EncryptingKey, iv: &[u8; CM_SALT_BYTES], bytes: &mut [u8]) -> Option<()> {
    let mut block = [0; 16];
    block[..CM_SALT_BYTES].copy_from_slice(iv);
    key.less_safe_encrypt(bytes, EncryptionContext::Iv128(FixedLength::from(block))).ok()?;
    Some(())
}

fn cm_tag(key: &hmac::Key, parts: &[&[u8]]) -> [u8; CM_TAG_BYTES] {
    let mut mac = hmac::Context::with_key(key);
    parts.iter().for_each(|part| mac.update(part));
    let mut tag = [0; CM_TAG_BYTES];
    tag.iter_mut().zip(mac.sign().as_ref()).for_each(|(byte, made)| *byte = *made);
    tag
}

#[cfg(test)]
mod tests;
