//! Whether a client has emptied the table that its headers are compressed with (RFC 7541).

/// The entries that all tables begin with, and that nobody changes.
const STATIC: usize = 61;
/// At the beginning of a block: from now on the table has a size of 0.
const EMPTIED: u8 = 0x20;

/// What a block of headers says of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableUse {
    /// It is emptied first.
    Emptied,
    /// It is neither referred to nor added to.
    None,
    /// It is, or that cannot be told.
    Some,
}

impl TableUse {
    /// Looks at a block that ends there, or goes on.
    pub(super) fn of(block: &[u8], ends: bool) -> Self {
        if block.first() == Some(&EMPTIED) {
            return Self::Emptied;
        }
        if is_without(block).unwrap_or(!ends) { Self::None } else { Self::Some }
    }
}

/// `None` if it is damaged, or goes on.
fn is_without(mut block: &[u8]) -> Option<bool> {
    while let Some(first) = block.first() {
        let index;
        match first {
            0x80.. => (index, block) = integer(block, 7)?,
            0x20.. => return Some(false), // added, or a size
            _ => {
                (index, block) = integer(block, 4)?;
                for _ in 0..=usize::from(index == 0) {
                    block = behind_string(block)?;
                }
            }
        }
        if index > STATIC {
            return Some(false);
        }
    }
    Some(true)
}

fn behind_string(block: &[u8]) -> Option<&[u8]> {
    let (length, rest) = integer(block, 7)?;
    rest.get(length..)
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_block_says_of_the_table() {
        let of = |block: &[u8]| TableUse::of(block, true);
        assert_eq!(of(&[0x20, 0x82]), TableUse::Emptied);
        assert_eq!(of(&[0x20, 0x3f, 0xe1, 0x1f, 0xbe]), TableUse::Emptied, "and is larger again");
        assert_eq!(of(&[0x3f, 0xe1, 0x1f, 0x82]), TableUse::Some, "another size, and the old entries");
        let plain =
            [&[0x82, 0x86, 0x01, 2][..], b"it", &[0x04, 4], b"/n/x", &[0, 1], b"a", &[1], b"b", &[0x10, 1], b"c", &[0]];
        assert_eq!(of(&plain.concat()), TableUse::None);
        assert_eq!(TableUse::of(&plain.concat()[..7], false), TableUse::None, "as far as it is there");
        assert_eq!(TableUse::of(&[0x82, 0x41, 2, b'i'], false), TableUse::Some);
        assert_eq!(of(&[0x82, 0xbe]), TableUse::Some, "refers to 62");
        assert_eq!(of(&[0xbd]), TableUse::None, "61 is the last that all have");
        assert_eq!(of(&[0x41, 2, b'i', b't']), TableUse::Some, "adds");
        assert_eq!(of(&[0x0f, 0x2f, 0]), TableUse::Some, "a name of 62");
        for damaged in [&[0x00][..], &[0x00, 5, b'a'], &[0x04, 4, b'/'], &[0xff], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]]
        {
            assert_eq!(of(damaged), TableUse::Some);
        }
        assert_eq!(of(&[]), TableUse::None);
    }
}
