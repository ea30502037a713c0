//! The header of a saved state: 512 bytes that say everything about what follows.

use crc32fast::Hasher;

pub(crate) const HEADER: usize = 512;
const MAGIC: &[u8; 16] = b"handover-state\r\n";
/// Changes when an older version of the crate could not make sense of what a newer one writes.
const FORMAT: u32 = 1;
const NAME: usize = 64;
/// The longest name of a state.
pub(crate) const MAX_NAME: usize = 200;

/// How the payload is written.
const JSON: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The application's name for it.
    pub(crate) name: String,
    /// The application's version of it.
    pub(crate) version: u32,
    /// Grows with each save.
    pub(crate) sequence: u64,
    /// Of the payload.
    pub(crate) length: u64,
    pub(crate) checksum: u32,
}

impl Header {
    /// The name has at most [`MAX_NAME`] bytes; of a longer one the rest is left off.
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        let name = &self.name.as_bytes()[..self.name.len().min(MAX_NAME)];
        put(0, MAGIC);
        put(16, &FORMAT.to_le_bytes());
        put(20, &JSON.to_le_bytes());
        put(24, &self.version.to_le_bytes());
        put(28, &u32::try_from(name.len()).unwrap_or_default().to_le_bytes());
        put(32, &self.sequence.to_le_bytes());
        put(40, &self.length.to_le_bytes());
        put(48, &self.checksum.to_le_bytes());
        put(NAME, name);
        let own = crc(&bytes);
        bytes[52..56].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    /// What is wrong with it, as the end of a sentence about the state.
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Result<Self, String> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[..16] != MAGIC[..] {
            return Err(format!("does not begin as one, but with \"{}\"", bytes[..16].escape_ascii()));
        }
        // Before the checksum: a newer format may compute another one.
        if u32_at(16) != FORMAT {
            return Err(format!("has format {}, of which this version of handover knows only {FORMAT}", u32_at(16)));
        }
        let mut zeroed = *bytes;
        zeroed[52..56].fill(0);
        if crc(&zeroed) != u32_at(52) {
            return Err("has a damaged header: its checksum differs".to_owned());
        }
        if u32_at(20) != JSON {
            return Err(format!("has encoding {}, of which this version of handover knows only {JSON}", u32_at(20)));
        }
        let name = usize::try_from(u32_at(28)).ok().and_then(|length| bytes.get(NAME..NAME + length.min(HEADER)));
        let name = name.and_then(|name| std::str::from_utf8(name).ok()).ok_or("has a header without a name")?;
        Ok(Self {
            name: name.to_owned(),
            version: u32_at(24),
            sequence: u64_at(32),
            length: u64_at(40),
            checksum: u32_at(48),
        })
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn header() -> Header {
        Header { name: "sessions".into(), version: 3, sequence: u64::MAX - 1, length: 1 << 33, checksum: 0xdead_beef }
    }

    #[test]
    fn a_header_comes_back() {
        assert_eq!(Header::decode(&header().encode()).unwrap(), header());
        let long = Header { name: "x".repeat(300), ..header() };
        assert_eq!(Header::decode(&long.encode()).unwrap().name.len(), MAX_NAME);
    }

    #[test]
    fn each_damage_is_named() {
        let with = |at: usize, value: u8| {
            let mut bytes = header().encode();
            bytes[at] = value;
            Header::decode(&bytes).unwrap_err()
        };
        assert!(with(0, b'H').contains("but with \"Handover-state\\r\\n\""), "{}", with(0, b'H'));
        assert!(with(16, 2).contains("has format 2, of which this version of handover knows only 1"));
        assert!(with(40, 9).contains("checksum differs"));
        assert!(Header::decode(&[0; HEADER]).unwrap_err().contains("does not begin as one"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]
        #[test]
        fn any_flipped_bit_is_seen(bit in 0..HEADER * 8) {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Header::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(tail in prop::collection::vec(any::<u8>(), HEADER - 16)) {
            let bytes: Vec<u8> = MAGIC.iter().copied().chain(tail).collect();
            let _ = Header::decode(&bytes.try_into().unwrap());
        }
    }
}
