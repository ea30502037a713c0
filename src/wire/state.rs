//! The first page of a state's memory: two copies of a header that says where its payload is.
//!
//! A header is written in one piece within one page, which a SIGKILL does not tear, and then its
//! copy; so both say the same, or one is that of a change that nobody was told of yet.

use crc32fast::Hasher;

/// The length of one header.
pub(crate) const HEADER: usize = 512;
/// What comes before the payloads.
pub(crate) const PAGE: usize = 4096;
/// Where in the page the two headers are.
pub(crate) const PLACES: [usize; 2] = [0, PAGE / 2];
/// The longest name of a state.
pub(crate) const MAX_NAME: usize = 200;

const MAGIC: &[u8; 16] = b"handover-state\r\n";
/// Changes when an older version of the crate could not make sense of what a newer one writes. (1
/// was a sealed file per save.)
const FORMAT: u32 = 2;
/// How the payload is written.
const JSON: u32 = 1;
const CHECKSUM: usize = 28;
const CURRENT: usize = 32;
const PREVIOUS: usize = 64;
const NAME: usize = 96;

/// One saved value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Payload {
    /// The application's version of it.
    pub(crate) version: u32,
    /// The sequence number, which begins at 1 and grows with each change.
    pub(crate) sequence: u64,
    /// Where the value begins, from the start of the memory, in whole pages.
    pub(crate) offset: u64,
    /// How long the value is, in bytes; 0 if there is no value.
    pub(crate) length: u64,
    pub(crate) checksum: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The application's name for it.
    pub(crate) name: String,
    pub(crate) current: Payload,
    /// The last one of another version, for a rollback.
    pub(crate) previous: Option<Payload>,
}

/// What a page says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// The newest valid header.
    pub(crate) header: Header,
    /// Which of the two [places](PLACES) it was in.
    pub(crate) place: usize,
    /// What is wrong with the other one.
    pub(crate) damage: Option<String>,
}

impl Page {
    /// Decodes the two headers. The error says what is wrong with both, as the end of a sentence
    /// about the state.
    ///
    /// One damaged header is no damage: before anybody is told of a change, both are written, and
    /// what the one before pointed at is there until then. So what the valid one says is never
    /// older than what was acknowledged.
    pub(crate) fn decode(page: &[u8; PAGE]) -> Result<Self, String> {
        let at = |place: usize| page.get(PLACES[place]..PLACES[place] + HEADER).and_then(|b| b.try_into().ok());
        let read = |place| at(place).ok_or(Damage::Other(String::new())).and_then(Header::decode);
        let found =
            |header, place, damage: Option<Damage>| Ok(Self { header, place, damage: damage.map(Damage::text) });
        match (read(0), read(1)) {
            (Ok(a), Ok(b)) if b.current.sequence > a.current.sequence => found(b, 1, None),
            (Ok(a), Ok(_)) => found(a, 0, None),
            // Written by a newer version of handover, whose rules are not known here.
            (Err(newer @ Damage::Format(_)), _) | (_, Err(newer @ Damage::Format(_))) => Err(newer.text()),
            (Ok(a), Err(damage)) => found(a, 0, Some(damage)),
            (Err(damage), Ok(b)) => found(b, 1, Some(damage)),
            (Err(damage), Err(_)) => Err(damage.text()),
        }
    }
}

#[derive(Debug)]
enum Damage {
    Format(u32),
    Other(String),
}

impl Damage {
    fn text(self) -> String {
        match self {
            Self::Format(format) => {
                format!("has format {format}, of which this version of handover knows only {FORMAT}")
            }
            Self::Other(text) => text,
        }
    }
}

impl Payload {
    fn encode(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&self.version.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        Self {
            version: u32_at(bytes, 0),
            checksum: u32_at(bytes, 4),
            sequence: u64_at(bytes, 8),
            offset: u64_at(bytes, 16),
            length: u64_at(bytes, 24),
        }
    }

    /// Returns whether the value lies where one may lie, also if somebody else has written the
    /// header.
    fn is_placed(&self) -> bool {
        let end = self.offset.checked_add(self.length).and_then(|end| i64::try_from(end).ok());
        let aligned = self.offset >= PAGE as u64 && self.offset.is_multiple_of(PAGE as u64);
        self.length == 0 || (aligned && end.is_some_and(|end| end <= i64::MAX - PAGE as i64))
    }
}

impl Header {
    /// Encodes the header. The name has at most [`MAX_NAME`] bytes; of a longer one the rest is
    /// left off.
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        let name = &self.name.as_bytes()[..self.name.len().min(MAX_NAME)];
        put(0, MAGIC);
        put(16, &FORMAT.to_le_bytes());
        put(20, &JSON.to_le_bytes());
        put(24, &u32::try_from(name.len()).unwrap_or_default().to_le_bytes());
        put(CURRENT, &self.current.encode());
        if let Some(previous) = &self.previous {
            put(PREVIOUS, &previous.encode());
        }
        put(NAME, name);
        let own = crc(&bytes);
        bytes[CHECKSUM..CHECKSUM + 4].copy_from_slice(&own.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER]) -> Result<Self, Damage> {
        let other = |why: &str| Damage::Other(why.to_owned());
        if bytes[..16] != MAGIC[..] {
            let start = bytes[..16].escape_ascii();
            return Err(Damage::Other(format!("does not begin as one, but with \"{start}\"")));
        }
        // Before the checksum: a newer format may compute another one.
        if u32_at(bytes, 16) != FORMAT {
            return Err(Damage::Format(u32_at(bytes, 16)));
        }
        let mut zeroed = *bytes;
        zeroed[CHECKSUM..CHECKSUM + 4].fill(0);
        if crc(&zeroed) != u32_at(bytes, CHECKSUM) {
            return Err(other("has a damaged header: its checksum differs"));
        }
        if u32_at(bytes, 20) != JSON {
            let encoding = u32_at(bytes, 20);
            return Err(Damage::Other(format!(
                "has encoding {encoding}, of which this version of handover knows only {JSON}"
            )));
        }
        let length = usize::try_from(u32_at(bytes, 24)).unwrap_or(HEADER).min(HEADER);
        let name = bytes.get(NAME..NAME + length).and_then(|name| std::str::from_utf8(name).ok());
        let current = Payload::decode(&bytes[CURRENT..PREVIOUS]);
        let previous = Some(Payload::decode(&bytes[PREVIOUS..NAME])).filter(|previous| previous.sequence > 0);
        if !current.is_placed() || previous.is_some_and(|previous| !previous.is_placed()) {
            return Err(other("has a header that points to no page of it"));
        }
        Ok(Self { name: name.ok_or(other("has a header without a name"))?.to_owned(), current, previous })
    }
}

/// Reads a number. The bytes are there: each caller has an array of a fixed size.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
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

    fn header(sequence: u64) -> Header {
        let current = Payload { version: 3, sequence, offset: 8192, length: 1 << 33, checksum: 0xdead_beef };
        let previous = Some(Payload { version: 2, sequence: 1, offset: 4096, length: 4000, checksum: 7 });
        Header { name: "sessions".into(), current, previous }
    }

    fn page(a: &[u8], b: &[u8]) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        page[..a.len()].copy_from_slice(a);
        page[PAGE / 2..][..b.len()].copy_from_slice(b);
        page
    }

    fn wrong(header: &[u8]) -> String {
        Page::decode(&page(header, header)).unwrap_err()
    }

    #[test]
    fn a_header_comes_back() {
        for header in [header(u64::MAX - 1), Header { previous: None, ..header(1) }] {
            assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        }
        let long = Header { name: "x".repeat(300), ..header(1) };
        assert_eq!(Header::decode(&long.encode()).unwrap().name.len(), MAX_NAME);
    }

    #[test]
    fn each_damage_is_named() {
        let with = |at: usize, value: u8| {
            let mut bytes = header(9).encode();
            bytes[at] = value;
            wrong(&bytes)
        };
        assert!(with(0, b'H').contains("but with \"Handover-state\\r\\n\""), "{}", with(0, b'H'));
        assert!(with(16, 9).contains("has format 9, of which this version of handover knows only 2"));
        assert!(with(40, 8).contains("checksum differs"));
        assert!(wrong(&[]).contains("does not begin as one"));
        for offset in [0, 4097, u64::MAX - 4095, i64::MAX as u64 - 4095] {
            let header = header(9);
            let lost = Header { current: Payload { offset, length: 1, ..header.current }, ..header };
            assert!(wrong(&lost.encode()).contains("points to no page"), "{offset}");
        }
    }

    #[test]
    fn the_newest_valid_header_counts() {
        let (old, new) = (header(8).encode(), header(9).encode());
        for (a, b, place) in [(&old, &new, 1), (&new, &old, 0), (&new, &new, 0)] {
            let found = Page::decode(&page(a, b)).unwrap();
            assert_eq!((found.header, found.place, found.damage), (header(9), place, None));
        }
        let mut torn = new;
        torn[200..].fill(0xff);
        let found = Page::decode(&page(&torn, &old)).unwrap();
        assert_eq!((found.header, found.place), (header(8), 1));
        assert!(found.damage.unwrap().contains("checksum differs"));
        let found = Page::decode(&page(&old, &[])).unwrap();
        assert_eq!((found.header, found.place), (header(8), 0));
        // Not the older one: what the newer program has promised is not known.
        let mut newer = new;
        newer[16] = 3;
        assert!(Page::decode(&page(&old, &newer)).unwrap_err().contains("has format 3"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() })]
        #[test]
        fn any_flipped_bit_is_seen(bit in 0..HEADER * 8) {
            let mut bytes = header(9).encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Header::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(tail in prop::collection::vec(any::<u8>(), HEADER - 20)) {
            let start = MAGIC.iter().copied().chain(FORMAT.to_le_bytes());
            let mut bytes: [u8; HEADER] = start.chain(tail).collect::<Vec<_>>().try_into().unwrap();
            let _ = Header::decode(&bytes);
            bytes[CHECKSUM..CHECKSUM + 4].fill(0);
            let own = crc(&bytes);
            bytes[CHECKSUM..CHECKSUM + 4].copy_from_slice(&own.to_le_bytes());
            let _ = Header::decode(&bytes);
        }
    }
}
