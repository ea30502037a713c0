//! The keys of one direction: records are sealed and opened with them, where they are.

use std::fmt;
use std::io;
use std::ops::Range;

use ring::aead::{self, AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, HKDF_SHA384, KeyType, Prk};
use zeroize::Zeroize as _;

use super::version::{Kind, Version};
use crate::sys::hidden::Hidden;

/// The header of a record: type, version, length.
pub(super) const HEADER: usize = 5;
/// The most plain bytes of a record.
pub(super) const MAX_PLAIN: usize = 16 << 10;
const TAG: usize = 16;
/// The part of the nonce that TLS 1.2 sends with each record of AES-GCM.
const EXPLICIT: usize = 8;
const VERSION: [u8; 2] = [3, 3];
const MAX_KEY: usize = 32;
const MAX_SECRET: usize = 48;
/// With one key of AES-GCM no more records are sealed: an attacker's advantage stays below 2^-57 or
/// so. RFC 8446, 5.5.
const AES_LIMIT: u64 = 1 << 24;

/// The most that a record is longer than its plain bytes.
pub(super) const OVERHEAD: usize = HEADER + EXPLICIT + TAG;

/// How records are encrypted. With TLS 1.3, each has one hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Cipher {
    pub(super) const ALL: [Self; 3] = [Self::Aes128Gcm, Self::Aes256Gcm, Self::ChaCha20Poly1305];

    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    pub(super) fn secret_length(self) -> usize {
        if self == Self::Aes256Gcm { 48 } else { 32 }
    }

    fn limit(self) -> u64 {
        if self == Self::ChaCha20Poly1305 { u64::MAX } else { AES_LIMIT }
    }
}

/// Secret bytes of a length that is known late.
pub(super) struct Bytes<const MAX: usize> {
    bytes: [u8; MAX],
    length: usize,
}

impl<const MAX: usize> Bytes<MAX> {
    pub(super) fn new(bytes: &[u8]) -> Option<Self> {
        let mut this = Self { bytes: [0; MAX], length: bytes.len() };
        this.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(this)
    }

    pub(super) fn get(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl<const MAX: usize> Drop for Bytes<MAX> {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// A secret that keys are made from.
pub(super) type TrafficSecret = Bytes<MAX_SECRET>;

/// What the keys of one direction are made from, to be read and written.
pub(crate) struct Material {
    pub(super) cipher: Cipher,
    key: Bytes<MAX_KEY>,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    /// What the next key is made from. There is none with TLS 1.2.
    secret: Option<TrafficSecret>,
}

impl Material {
    /// Takes a key of the right length.
    pub(crate) fn new(cipher: Cipher, key: &[u8], iv: &[u8], sequence: u64) -> Option<Self> {
        let key = Bytes::new(key).filter(|key| key.get().len() == cipher.algorithm().key_len())?;
        Some(Self { cipher, key, iv: iv.try_into().ok()?, sequence, secret: None })
    }

    /// Returns the same key as it was so many records before.
    pub(super) fn before(&self, records: usize) -> Option<Self> {
        let sequence = self.sequence.checked_sub(u64::try_from(records).ok()?)?;
        Self::new(self.cipher, self.key(), self.iv(), sequence)
    }

    pub(super) fn with_secret(mut self, secret: &[u8]) -> Option<Self> {
        self.secret = Some(TrafficSecret::new(secret).filter(|s| s.get().len() == self.cipher.secret_length())?);
        Some(self)
    }

    /// Finds the secret of this key, beginning with the one of the handshake. None is found if
    /// there were more updates since than anybody makes; then the next one ends the connection.
    pub(crate) fn with_secret_from(mut self, first: &[u8]) -> Self {
        const MOST: usize = 10_000;
        let Some(mut secret) = TrafficSecret::new(first).filter(|s| s.get().len() == self.cipher.secret_length())
        else {
            return self;
        };
        for _ in 0..MOST {
            let mut key = [0; MAX_KEY];
            let key = &mut key[..self.key.get().len()];
            expand(self.cipher, secret.get(), "key", key);
            let same = *key == *self.key.get();
            key.zeroize();
            if same {
                self.secret = Some(secret);
                return self;
            }
            secret = next(self.cipher, &secret);
        }
        self
    }

    pub(super) fn key(&self) -> &[u8] {
        self.key.get()
    }

    pub(super) fn iv(&self) -> &[u8] {
        &self.iv
    }

    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn secret(&self) -> Option<&[u8]> {
        self.secret.as_ref().map(Bytes::get)
    }
}

impl Drop for Material {
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}

struct Ready {
    material: Material,
    aead: LessSafeKey,
    limit: u64,
}

/// The keys of one direction, ready for use.
pub(super) struct Keys {
    version: Version,
    ready: Hidden<Ready>,
}

/// A record that cannot be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    /// It was not made with this key, or was changed.
    Forged,
    /// It has more plain bytes than a record may.
    TooLong,
    /// It has no type.
    Untyped,
}

impl Keys {
    /// # Errors
    /// There is no memory.
    pub(super) fn new(version: Version, material: Material) -> io::Result<Self> {
        let aead = aead_of(&material)?;
        let limit = material.cipher.limit();
        Ok(Self { version, ready: Hidden::new(Ready { material, aead, limit })? })
    }

    pub(super) fn material(&self) -> &Material {
        &self.ready.material
    }

    /// Returns whether this key must not seal more than so many records.
    pub(super) fn is_used_up(&self, records: u64) -> bool {
        self.ready.material.sequence.saturating_add(records) >= self.ready.limit
    }

    #[cfg(test)]
    pub(super) fn set_limit(&mut self, limit: u64) {
        self.ready.limit = limit;
    }

    /// Goes over to the next key.
    ///
    /// # Errors
    /// What it is made from is not known.
    pub(super) fn update(&mut self) -> io::Result<()> {
        let Ready { material, aead, .. } = &mut *self.ready;
        let secret = material.secret.as_ref().ok_or_else(|| io::Error::other("the secret of the keys is not known"))?;
        let secret = next(material.cipher, secret);
        let length = material.key.length;
        expand(material.cipher, secret.get(), "key", &mut material.key.bytes[..length]);
        expand(material.cipher, secret.get(), "iv", &mut material.iv);
        material.secret = Some(secret);
        material.sequence = 0;
        *aead = aead_of(material)?;
        Ok(())
    }

    fn nonce(&self) -> [u8; NONCE_LEN] {
        let Material { mut iv, sequence, .. } = self.ready.material;
        iv[NONCE_LEN - 8..].iter_mut().zip(sequence.to_be_bytes()).for_each(|(byte, by)| *byte ^= by);
        iv
    }

    fn explicit(&self) -> usize {
        let none = self.version == Version::Tls13 || self.ready.material.cipher == Cipher::ChaCha20Poly1305;
        if none { 0 } else { EXPLICIT }
    }

    /// What TLS 1.2 authenticates beside the bytes.
    fn beside(&self, kind: u8, version: [u8; 2], length: usize) -> [u8; 13] {
        let mut beside = [0; 13];
        beside[..8].copy_from_slice(&self.ready.material.sequence.to_be_bytes());
        beside[8] = kind;
        beside[9..11].copy_from_slice(&version);
        beside[11..].copy_from_slice(&short(length));
        beside
    }

    /// Appends a record with these bytes, at most [`MAX_PLAIN`].
    ///
    /// # Errors
    /// The numbers of records are used up.
    pub(super) fn seal(&mut self, kind: u8, parts: &[&[u8]], to: &mut Vec<u8>) -> io::Result<()> {
        let used_up = || io::Error::other("the numbers of TLS records are used up");
        let after = self.ready.material.sequence.checked_add(1).ok_or_else(used_up)?;
        let plain: usize = parts.iter().map(|part| part.len()).sum();
        let (nonce, explicit) = (self.nonce(), self.explicit());
        let inner = usize::from(self.version == Version::Tls13);
        let body = explicit + plain + inner + TAG;
        let outer = if self.version == Version::Tls13 { Kind::Data as u8 } else { kind };
        to.reserve(HEADER + body);
        let header = [outer, VERSION[0], VERSION[1], short(body)[0], short(body)[1]];
        to.extend_from_slice(&header);
        to.extend_from_slice(&nonce[NONCE_LEN - explicit..]);
        let from = to.len();
        parts.iter().for_each(|part| to.extend_from_slice(part));
        let unique = Nonce::assume_unique_for_key(nonce);
        let tag = if self.version == Version::Tls13 {
            to.push(kind);
            self.ready.aead.seal_in_place_separate_tag(unique, Aad::from(header), &mut to[from..])
        } else {
            let beside = self.beside(kind, VERSION, plain);
            self.ready.aead.seal_in_place_separate_tag(unique, Aad::from(beside), &mut to[from..])
        };
        to.extend_from_slice(tag.map_err(|_| io::Error::other("a TLS record cannot be encrypted"))?.as_ref());
        self.ready.material.sequence = after;
        Ok(())
    }

    /// Opens a whole record where it is; returns its type, and where its plain bytes are.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(u8, Range<usize>), Unopened> {
        let after = self.ready.material.sequence.checked_add(1).ok_or(Unopened::Forged)?;
        let (mut nonce, explicit) = (self.nonce(), self.explicit());
        let Some((header, body)) = record.split_first_chunk_mut::<HEADER>() else { return Err(Unopened::Forged) };
        let Some(plain) = body.len().checked_sub(explicit + TAG) else { return Err(Unopened::Forged) };
        nonce[NONCE_LEN - explicit..].copy_from_slice(&body[..explicit]);
        let (from, unique) = (HEADER + explicit, Nonce::assume_unique_for_key(nonce));
        let sealed = &mut body[explicit..];
        let opened = if self.version == Version::Tls13 {
            let beside = [Kind::Data as u8, VERSION[0], VERSION[1], header[3], header[4]];
            self.ready.aead.open_in_place(unique, Aad::from(beside), sealed)
        } else {
            let beside = self.beside(header[0], [header[1], header[2]], plain);
            self.ready.aead.open_in_place(unique, Aad::from(beside), sealed)
        };
        let opened = opened.map_err(|_| Unopened::Forged)?;
        self.ready.material.sequence = after;
        let (kind, length) = match self.version {
            Version::Tls12 => (header[0], opened.len()),
            Version::Tls13 if opened.len() > MAX_PLAIN + 1 => return Err(Unopened::TooLong),
            // its type is behind the bytes, and zeros may be behind that
            Version::Tls13 => {
                let at = opened.iter().rposition(|byte| *byte != 0).ok_or(Unopened::Untyped)?;
                (opened[at], at)
            }
        };
        if length > MAX_PLAIN { Err(Unopened::TooLong) } else { Ok((kind, from..from + length)) }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Material { cipher, sequence, .. } = &self.ready.material;
        f.debug_struct("Keys").field("cipher", cipher).field("sequence", sequence).finish_non_exhaustive()
    }
}

fn aead_of(material: &Material) -> io::Result<LessSafeKey> {
    let key = UnboundKey::new(material.cipher.algorithm(), material.key.get());
    key.map(LessSafeKey::new).map_err(|_| io::Error::other("a key of TLS has the wrong length"))
}

/// The secret after this one.
fn next(cipher: Cipher, secret: &TrafficSecret) -> TrafficSecret {
    let mut after = Bytes { bytes: [0; MAX_SECRET], length: cipher.secret_length() };
    let length = after.length;
    expand(cipher, secret.get(), "traffic upd", &mut after.bytes[..length]);
    after
}

/// HKDF-Expand-Label of RFC 8446, 7.1, without a context.
fn expand(cipher: Cipher, secret: &[u8], label: &str, to: &mut [u8]) {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let hash = if cipher == Cipher::Aes256Gcm { HKDF_SHA384 } else { HKDF_SHA256 };
    let prk = Prk::new_less_safe(hash, secret);
    let (length, prefix) = (short(to.len()), b"tls13 ");
    let named = short(prefix.len() + label.len())[1];
    let info: [&[u8]; 5] = [&length, &[named], prefix, label.as_bytes(), &[0]];
    let filled = prk.expand(&info, Length(to.len())).and_then(|bytes| bytes.fill(to));
    debug_assert!(filled.is_ok(), "no more than a hash");
}

/// As the wire has lengths.
#[expect(clippy::cast_possible_truncation, reason = "no record is longer than 16 bits say")]
fn short(length: usize) -> [u8; 2] {
    (length as u16).to_be_bytes()
}
