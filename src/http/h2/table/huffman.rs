//! How long a compressed string is when it is decoded (RFC 7541, appendix B).
//!
//! The code is canonical: shorter codes come before longer ones. So how many there are of each
//! length says where one ends; which symbol it is of need not be known.

/// How many codes there are, of 5 bits and more.
const CODES: [u64; LENGTHS] = [10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];
const SHORTEST: u32 = 5;
const LENGTHS: usize = 26;
/// The last one, of 30 bits, says that the string ends, and must not be in one.
const END: u64 = u32::MAX as u64 & !3;

/// For each length what its codes are below, as the first of 32 bits.
const LIMITS: [u64; LENGTHS] = {
    let (mut limits, mut code, mut at, mut behind) = ([0; LENGTHS], 0_u64, 0, 32 - SHORTEST);
    while at < LENGTHS {
        code = (code << 1) + CODES[at];
        limits[at] = code << behind;
        (at, behind) = (at + 1, behind - 1);
    }
    limits
};

/// Returns how many symbols there are; `None` if it is damaged.
pub(super) fn decoded_length(bytes: &[u8]) -> Option<usize> {
    let mut bytes = bytes.iter();
    // the next bits, from the highest one on, and how many there are
    let (mut bits, mut there) = (0_u64, 0_u32);
    let mut length = 0;
    loop {
        while there <= 56
            && let Some(byte) = bytes.next()
        {
            bits |= u64::from(*byte) << (56 - there);
            there += 8;
        }
        let next = bits >> 32;
        let code = SHORTEST + u32::try_from(LIMITS.iter().position(|limit| next < *limit)?).ok()?;
        if code > there {
            // what is left must be the beginning of the code that ends it, and less than a byte
            return (there < 8 && bits.leading_ones() >= there).then_some(length);
        }
        if next >= END {
            return None;
        }
        (bits, there) = (bits << code, there - code);
        length += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_the_rfcs_examples() {
        assert_eq!(CODES.iter().sum::<u64>(), 257, "256 symbols and the end");
        assert_eq!(LIMITS[LENGTHS - 1], 1 << 32, "all of them");
        let www = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decoded_length(&www), Some("www.example.com".len()));
        assert_eq!(decoded_length(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]), Some("no-cache".len()));
        assert_eq!(decoded_length(&[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f]), Some("custom-key".len()));
        assert_eq!(decoded_length(&[]), Some(0));
        for damaged in [&[0xff][..], &[0xff, 0xff, 0xff, 0xff], &[0x00], &[0x07, 0xff]] {
            assert_eq!(decoded_length(damaged), None, "{damaged:x?}");
        }
    }
}
