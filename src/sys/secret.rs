//! Bytes that are wiped when they are dropped.
//!
//! # References
//! explicit_bzero(3).

use std::fmt;
use std::ops::Deref;

/// Bytes that nobody shall find in memory after their use, nor in a log. A default one is empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret(Vec<u8>);

impl Secret {
    /// Appends bytes. Where they do not fit, what was there moves, and its old place is wiped.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut larger = Vec::with_capacity((self.0.len() + bytes.len()).next_power_of_two());
            larger.extend_from_slice(&self.0);
            drop(Self(std::mem::replace(&mut self.0, larger)));
        }
        self.0.extend_from_slice(bytes);
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for Secret {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Writes zeros over bytes, also where nobody reads them again.
pub(crate) fn wipe(bytes: &mut [u8]) {
    // SAFETY: these bytes are ours to write.
    unsafe { libc::explicit_bzero(bytes.as_mut_ptr().cast(), bytes.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wiped_is_zero_and_what_is_shown_says_nothing() {
        let mut bytes = b"key".to_vec();
        wipe(&mut bytes);
        assert_eq!(bytes, [0; 3]);
        let mut secret = Secret::from(b"key".to_vec());
        secret.extend(&[b'y'; 100]);
        assert_eq!((&secret[..4], secret.len()), (&b"keyy"[..], 103));
        assert_eq!(format!("{secret:?}"), "Secret(103 bytes)");
    }
}
