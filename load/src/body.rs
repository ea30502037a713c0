//! The body of an answer, of any length: its beginning, and what tells it from another one.

use std::borrow::Cow;
use std::fmt;

use sha2::{Digest, Sha256};

/// What is kept of a body. Of a longer one its digests are kept: hundreds of clients that read
/// large files at a time shall not need their memory.
const KEPT: usize = 64 * 1024;
/// What an error shows of it.
const SHOWN: usize = 80;

/// A body, as far as it has been read.
#[derive(Clone, Default)]
pub struct Body {
    length: u64,
    beginning: Vec<u8>,
    /// Of a body that is longer than its kept beginning.
    digests: Option<Box<Digests>>,
}

#[derive(Clone, Default)]
struct Digests {
    whole: Sha256,
    but_numbers: ButNumbers,
}

impl Body {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.digests.is_none() && self.length > KEPT as u64 {
            let mut digests = Box::<Digests>::default();
            digests.push(&self.beginning);
            self.digests = Some(digests);
        }
        match &mut self.digests {
            Some(digests) => digests.push(bytes),
            None => self.beginning.extend_from_slice(bytes),
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// All of it, where it is short enough to be kept.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        self.digests.is_none().then_some(&*self.beginning)
    }

    /// The beginning as text.
    pub(super) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.beginning)
    }

    pub(super) fn shown(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.beginning[..self.beginning.len().min(SHOWN)])
    }

    /// Whether it is these bytes.
    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        self.length == bytes.len() as u64
            && match &self.digests {
                None => self.beginning == bytes,
                Some(digests) => digests.whole.clone().finalize() == Sha256::digest(bytes),
            }
    }

    /// Whether it is another one, numbers apart.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.but_numbers() == other.but_numbers()
    }

    fn but_numbers(&self) -> [u8; 32] {
        let digest = match &self.digests {
            Some(digests) => digests.but_numbers.clone(),
            None => {
                let mut digest = ButNumbers::default();
                digest.push(&self.beginning);
                digest
            }
        };
        digest.hash.finalize().into()
    }
}

impl Digests {
    fn push(&mut self, bytes: &[u8]) {
        self.whole.update(bytes);
        self.but_numbers.push(bytes);
    }
}

/// A digest for which each run of digits is one.
#[derive(Clone, Default)]
struct ButNumbers {
    hash: Sha256,
    in_number: bool,
}

impl ButNumbers {
    fn push(&mut self, bytes: &[u8]) {
        for run in bytes.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()) {
            let number = run[0].is_ascii_digit();
            if !number {
                self.hash.update(run);
            } else if !self.in_number {
                self.hash.update(b"0");
            }
            self.in_number = number;
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes: {:?}", self.length, self.shown())
    }
}

impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Self {
        let mut body = Self::default();
        body.push(bytes);
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In pieces of any size, below and above what is kept.
    #[test]
    fn is_what_was_read() {
        for length in [0, 1, 1000, KEPT - 1, KEPT, KEPT + 1, 5 * KEPT] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            for piece in [1000, 8192, KEPT + 7] {
                let mut body = Body::default();
                bytes.chunks(piece).for_each(|piece| body.push(piece));
                assert!(body.is(&bytes), "{length} in {piece}");
                assert!(body.is_like(&Body::from(&*bytes)));
                assert_eq!(body.length(), length as u64);
                assert_eq!(body.whole().is_some(), length <= KEPT);
                let mut other = bytes.clone();
                if let Some(last) = other.last_mut() {
                    *last = b'x';
                    assert!(!body.is(&other) && !body.is_like(&Body::from(&*other)));
                }
                other.push(b'x');
                assert!(!body.is(&other));
            }
        }
    }

    /// However the pieces cut the numbers, and whether the whole is kept or not.
    #[test]
    fn numbers_do_not_count() {
        let like = |a: &str, b: &str| Body::from(a.as_bytes()).is_like(&Body::from(b.as_bytes()));
        assert!(like("pid 7, generation 9\n", "pid 123, generation 10\n"));
        assert!(!like("pid 7, generation 9\n", "pid 123, gen\n"));
        let text = "line 17 of 9999\n".repeat(3 * KEPT / 16);
        let mut cut = Body::default();
        text.replace("17", "4711").as_bytes().chunks(7).for_each(|piece| cut.push(piece));
        assert!(cut.is_like(&Body::from(text.as_bytes())));
        let short = format!("{}x", &text[..KEPT - 1]);
        let long = short.replace("17", "171717");
        assert!(Body::from(long.as_bytes()).whole().is_none() && like(&short, &long));
    }

    /// A hundred clients with 64 MiB each: what one keeps is bounded.
    #[test]
    fn keeps_little() {
        let mut body = Body::default();
        let piece = [b'a'; 16 * 1024];
        for _ in 0..4096 {
            body.push(&piece);
        }
        assert_eq!(body.length(), 64 << 20);
        assert!(body.beginning.capacity() <= 2 * KEPT, "{}", body.beginning.capacity());
    }
}
