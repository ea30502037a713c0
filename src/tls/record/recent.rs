//! What rustls has received last.
//!
//! Of a message of the handshake that comes in two records rustls has the first, says nothing of
//! it, and gives it to nobody. So the records that such a message may be in are kept, to be opened
//! once more when the connection leaves. After the handshake there is one: a key update of TLS 1.3.

use std::io;

use super::keys::{Keys, Material};
use super::version::{Kind, Version};

/// How long a key update is: a part of one is shorter, and no part is empty.
const MESSAGE: usize = 5;
/// The longest record that is kept, without padding it is 26 bytes; and how many are.
const LONGEST: usize = 64;
const MOST: usize = MESSAGE - 1;

/// The last records, as they came, as far as they are short.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    records: Vec<u8>,
    /// How long they are, the oldest first.
    lengths: [u8; MOST],
    count: usize,
}

impl Recent {
    /// Notes a record that rustls gets all of.
    #[inline]
    pub(crate) fn note(&mut self, record: &[u8]) {
        let length = match u8::try_from(record.len()) {
            Ok(length) if record.len() <= LONGEST => length,
            // a part of a message is what is last
            _ => return self.clear(),
        };
        if self.count == MOST {
            self.records.drain(..usize::from(self.lengths[0]));
            self.lengths.rotate_left(1);
            self.count -= 1;
        }
        self.records.extend_from_slice(record);
        self.lengths[self.count] = length;
        self.count += 1;
    }

    /// Notes one that is longer than what is kept.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.records.clear();
        self.count = 0;
    }

    /// Returns the part of a message that the last of them have, with the key for the next record.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn part_of_message(&self, version: Version, next: &Material) -> io::Result<Vec<u8>> {
        // What came before the key did is over.
        let count = self.count.min(usize::try_from(next.sequence()).unwrap_or(MOST));
        let Some(first) = next.before(count).filter(|_| count > 0 && version == Version::Tls13) else {
            return Ok(Vec::new());
        };
        let mut keys = Keys::new(version, first)?;
        let lengths = &self.lengths[self.count - count..self.count];
        let mut at = self.records.len() - lengths.iter().map(|length| usize::from(*length)).sum::<usize>();
        let mut part = Vec::new();
        for length in lengths {
            let mut record = self.records[at..at + usize::from(*length)].to_vec();
            at += record.len();
            match keys.open(&mut record) {
                Ok((kind, range)) if kind == Kind::Handshake as u8 => part.extend_from_slice(&record[range]),
                Ok(_) => part.clear(),
                Err(_) => return Ok(Vec::new()),
            }
        }
        // A longer one is no key update, and is refused when it is whole, here or there.
        Ok(part)
    }
}
