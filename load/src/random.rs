//! A small seeded generator (SplitMix64): the same seed, the same load. Not for secrets.

use std::ops::Range;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator of its own for each `stream` of one seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xA24B_AED4_963E_E407));
        random.bits();
        random
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in the range, which must not be empty. (The remainder's bias is of no matter for a
    /// load.)
    pub fn within(&mut self, range: Range<usize>) -> usize {
        let width = (range.end - range.start) as u64;
        range.start + usize::try_from(self.bits() % width).unwrap_or_default()
    }

    pub fn time(&mut self, milliseconds: Range<u64>) -> Duration {
        let width = (milliseconds.end - milliseconds.start) * 1000;
        Duration::from_micros(milliseconds.start * 1000 + self.bits() % width)
    }

    /// A time in the range; its beginning where it is empty.
    pub fn between(&mut self, range: &Range<Duration>) -> Duration {
        let width = range.end.saturating_sub(range.start).as_micros();
        let width = u64::try_from(width).unwrap_or(u64::MAX).max(1);
        range.start + Duration::from_micros(self.bits() % width)
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.bits().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
