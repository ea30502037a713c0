//! The table that a client's headers refer to (RFC 7541), as the decoder here has it.
//!
//! What is in it is kept as it came: nothing has to be decoded but lengths, by which old entries
//! make room for new ones.

mod huffman;
#[cfg(test)]
mod tests;

use self::huffman::decoded_length;
use std::collections::VecDeque;

/// The entries that all tables begin with, and that nobody changes.
const STATIC: usize = 61;
/// How long their names are, in their order.
const STATIC_NAMES: [u8; STATIC] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4,
    4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];
/// What each entry counts for beside its name and its value.
const OVERHEAD: usize = 32;
/// How large it is as long as the client says nothing of it, and at most: it is told nothing else.
const MOST: usize = 4096;
/// At the beginning of a field: it comes into the table.
const ADDED: u8 = 0x40;
/// Or it is no field, but a new size.
const RESIZED: u8 = 0x20;
/// In the length of a string: it is compressed.
const COMPRESSED: u8 = 0x80;

/// It can have the same entries as a decoder that has got the same blocks.
#[derive(Debug)]
pub(super) struct HeaderTable {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    most: usize,
}

#[derive(Debug)]
struct Entry {
    /// How another table is told of it: a field that is added, and refers to no other one.
    field: Box<[u8]>,
    /// Where its name ends there, and how long that is when it is decoded.
    name_end: usize,
    name_length: usize,
    size: usize,
}

impl Default for HeaderTable {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, most: MOST }
    }
}

impl HeaderTable {
    /// Makes the table that these blocks have made elsewhere; `None` if they are damaged.
    pub(super) fn of(block: &[u8]) -> Option<Self> {
        let mut table = Self::default();
        table.note(block)?;
        Some(table)
    }

    /// Returns a block that makes an empty table equal to this one; nothing, if that is what it is.
    pub(super) fn block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        if self.most != MOST {
            push_integer(&mut block, RESIZED, 5, self.most);
        }
        self.entries.iter().rev().for_each(|entry| block.extend_from_slice(&entry.field));
        block
    }

    /// Notes a block of headers; `None` if no decoder would know what it makes of the table.
    #[inline]
    pub(super) fn note(&mut self, mut block: &[u8]) -> Option<()> {
        while let Some(&first) = block.first() {
            match first {
                0x80.. => {
                    let index;
                    (index, block) = integer(block, 7)?;
                    if index == 0 || index > STATIC + self.entries.len() {
                        return None;
                    }
                }
                ADDED.. => block = self.add(block)?,
                RESIZED.. => {
                    (self.most, block) = integer(block, 5)?;
                    if self.most > MOST {
                        return None;
                    }
                    self.shrink(self.most);
                }
                _ => {
                    let index;
                    (index, block) = integer(block, 4)?;
                    if index > STATIC + self.entries.len() {
                        return None;
                    }
                    if index == 0 {
                        block = behind_string(block)?;
                    }
                    block = behind_string(block)?;
                }
            }
        }
        Some(())
    }

    /// Adds the first field, and returns what comes behind it.
    fn add<'a>(&mut self, block: &'a [u8]) -> Option<&'a [u8]> {
        let (index, rest) = integer(block, 6)?;
        let (name_length, first, name, behind) = match index {
            0 => {
                let (length, behind) = string(rest)?;
                (length, Some(ADDED), between(rest, behind), behind)
            }
            1..=STATIC => {
                let first = ADDED | u8::try_from(index).ok()?;
                (usize::from(STATIC_NAMES[index - 1]), Some(first), &[][..], rest)
            }
            _ => {
                let named = self.entries.get(index - STATIC - 1)?;
                (named.name_length, None, named.field.get(..named.name_end)?, rest)
            }
        };
        let (value_length, rest) = string(behind)?;
        let size = name_length + value_length + OVERHEAD;
        if size > self.most {
            self.shrink(0);
            return Some(rest);
        }
        let value = between(behind, rest);
        let name_end = usize::from(first.is_some()) + name.len();
        let mut field = Vec::with_capacity(name_end + value.len());
        field.extend(first);
        field.extend_from_slice(name);
        field.extend_from_slice(value);
        self.shrink(self.most - size);
        self.entries.push_front(Entry { field: field.into(), name_end, name_length, size });
        self.size += size;
        Some(rest)
    }

    /// Drops the oldest until it is no larger than that.
    fn shrink(&mut self, most: usize) {
        while self.size > most
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size;
        }
    }
}

/// Returns what is in the first and not in the second, which is its end.
fn between<'a>(all: &'a [u8], end: &[u8]) -> &'a [u8] {
    &all[..all.len() - end.len()]
}

/// Returns how long the string is that is first, when it is decoded, and what comes behind it.
#[inline]
fn string(block: &[u8]) -> Option<(usize, &[u8])> {
    let compressed = block.first()? & COMPRESSED != 0;
    let (length, rest) = integer(block, 7)?;
    let (bytes, rest) = rest.split_at_checked(length)?;
    Some((if compressed { decoded_length(bytes)? } else { length }, rest))
}

/// Returns what comes behind the string that is first, which nothing refers to later. Whether it
/// can be decoded is the server's to say.
#[inline]
fn behind_string(block: &[u8]) -> Option<&[u8]> {
    let (length, rest) = integer(block, 7)?;
    rest.get(length..)
}

/// Reads a number whose first byte has so many bits for it.
#[inline]
fn integer(block: &[u8], bits: u8) -> Option<(usize, &[u8])> {
    let (first, mut rest) = block.split_first()?;
    let most = (1_u8 << bits) - 1;
    let mut value = usize::from(first & most);
    if value < usize::from(most) {
        return Some((value, rest));
    }
    for shift in [0, 7, 14, 21] {
        let (next, behind) = rest.split_first()?;
        rest = behind;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

/// Writes a number behind a pattern whose byte has so many bits for it.
fn push_integer(to: &mut Vec<u8>, pattern: u8, bits: u8, value: usize) {
    let most = (1_u8 << bits) - 1;
    if let Some(small) = u8::try_from(value).ok().filter(|small| *small < most) {
        to.push(pattern | small);
        return;
    }
    to.push(pattern | most);
    let mut rest = value - usize::from(most);
    while rest > 0x7f {
        to.push(0x80 | rest.to_le_bytes()[0]);
        rest >>= 7;
    }
    to.push(rest.to_le_bytes()[0]);
}
