//! Where the frames of a WebSocket end, so that nobody above has a part of one, or has read ahead.

/// A frame that is longer than this is passed on in pieces, as it comes; others are held back until
/// they are whole.
pub(super) const LARGEST: usize = 64 * 1024;

/// The bits of a frame's first two bytes (RFC 6455, 5.2).
const FINAL: u8 = 0x80;
const CONTROL: u8 = 0x08;
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// Follows what a client sends, frame by frame.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Of the current frame, what was not passed on yet.
    left: u64,
    /// The last frame with data was not the last one of its message.
    fragmented: bool,
    /// The client has said that it closes.
    closed: bool,
}

impl Frames {
    /// Returns how many of these bytes, the next ones, are passed on now if there is room for so
    /// many; 0 if there must be more of them. They never go beyond the end of a frame.
    pub(super) fn admit(&mut self, bytes: &[u8], room: usize) -> usize {
        let there = bytes.len().min(room);
        if there == 0 {
            return 0;
        }
        if self.left == 0 {
            let Some(length) = length(bytes) else { return 0 };
            if length > bytes.len() as u64 && length <= LARGEST as u64 {
                return 0;
            }
            self.left = length;
            let first = bytes[0];
            // Those of control come between the fragments of a message.
            if first & CONTROL == 0 {
                self.fragmented = first & FINAL == 0;
            }
            self.closed |= first & OPCODE == CLOSE;
        }
        let now = usize::try_from(self.left).map_or(there, |left| left.min(there));
        self.left -= now as u64;
        now
    }

    /// Returns whether what was passed on ends with a message, and the client may send another one.
    pub(super) fn is_between(&self) -> bool {
        self.left == 0 && !self.fragmented && !self.closed
    }
}

/// Returns the length of the frame that begins here, its header included, if it tells that yet.
fn length(bytes: &[u8]) -> Option<u64> {
    let [_, second, rest @ ..] = bytes else { return None };
    let mask = if second & MASKED == 0 { 0 } else { 4 };
    let (header, payload) = match second & LENGTH {
        126 => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*rest.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    Some(payload.saturating_add(header + mask))
}

/// Any bytes, cut anywhere: what goes in comes out, and pieces end where frames do.
#[cfg(all(feature = "settings", feature = "supervise", feature = "upgrade"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let [cut, room, bytes @ ..] = bytes else { return };
    let (cut, room) = (usize::from(*cut) + 1, usize::from(*room) + 1);
    let (mut frames, mut held, mut passed) = (Frames::default(), Vec::new(), 0);
    for piece in bytes.chunks(cut) {
        held.extend_from_slice(piece);
        loop {
            let now = frames.admit(&held, room);
            assert!(now <= room.min(held.len()), "more than there is");
            if now == 0 {
                break;
            }
            held.drain(..now);
            passed += now;
        }
        assert!(held.len() < LARGEST + 14, "held back although it is large");
    }
    assert_eq!(passed + held.len(), bytes.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload {
            0..=125 => bytes.push(MASKED | u8::try_from(payload).unwrap()),
            126..=0xffff => {
                bytes.push(MASKED | 126);
                bytes.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(MASKED | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.extend((0..payload).map(|at| u8::try_from(at % 251).unwrap()));
        bytes
    }

    const TEXT: u8 = FINAL | 1;
    const BEGINNING: u8 = 1;
    const MIDDLE: u8 = 0;
    const END: u8 = FINAL;
    const PING: u8 = FINAL | 9;

    #[test]
    fn a_frame_is_passed_on_whole_and_alone() {
        let mut frames = Frames::default();
        let (one, two) = (frame(TEXT, 5), frame(TEXT, 300));
        let both = [&one[..], &two[..]].concat();
        for part in 0..one.len() {
            assert_eq!(frames.admit(&one[..part], usize::MAX), 0, "{part} bytes are none");
            assert!(frames.is_between());
        }
        assert_eq!(frames.admit(&both, usize::MAX), one.len());
        assert_eq!(frames.admit(&two, 10), 10, "as much as there is room for");
        assert!(!frames.is_between());
        assert_eq!(frames.admit(&two[10..], usize::MAX), two.len() - 10);
        assert!(frames.is_between());
    }

    #[test]
    fn a_large_one_comes_in_pieces() {
        let mut frames = Frames::default();
        let whole = frame(TEXT, 200_000);
        assert_eq!(frames.admit(&whole[..9], usize::MAX), 0, "its length is not known yet");
        assert_eq!(frames.admit(&whole[..100], usize::MAX), 100);
        let more = [&whole[100..], b"next"].concat();
        assert!(!frames.is_between());
        assert_eq!(frames.admit(&more, usize::MAX), whole.len() - 100);
        assert!(frames.is_between());
    }

    #[test]
    fn a_message_ends_with_its_last_fragment() {
        let mut frames = Frames::default();
        let mut pass = |first| {
            let bytes = frame(first, 3);
            assert_eq!(frames.admit(&bytes, usize::MAX), bytes.len());
            frames.is_between()
        };
        let ends = [BEGINNING, PING, MIDDLE, PING, END, PING, TEXT].map(&mut pass);
        assert_eq!(ends, [false, false, false, false, true, true, true]);
        assert!(!pass(FINAL | CLOSE), "who closes says nothing more");
    }

    #[test]
    fn no_length_is_too_large() {
        let mut frames = Frames::default();
        let mut endless = vec![TEXT, MASKED | 127];
        endless.extend([0xff; 100]);
        assert_eq!((frames.admit(&endless, usize::MAX), frames.is_between()), (102, false));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(22), ..ProptestConfig::default() })]
        #[test]
        fn cut_anywhere_the_pieces_end_where_frames_do(
            sent in prop::collection::vec((prop::sample::select(vec![TEXT, BEGINNING, MIDDLE, END, PING]), prop_oneof![
                0..200_usize, Just(65_500), 65_530..65_540_usize, Just(70_000),
            ]), 1..6),
            cuts in prop::collection::vec(1..70_000_usize, 1..8),
            room in 1..100_000_usize,
        ) {
            let whole: Vec<Vec<u8>> = sent.iter().map(|(first, payload)| frame(*first, *payload)).collect();
            let mut ends: Vec<usize> = Vec::new();
            for frame in &whole {
                ends.push(ends.last().unwrap_or(&0) + frame.len());
            }
            let bytes = whole.concat();
            let (mut frames, mut held, mut passed) = (Frames::default(), Vec::new(), 0);
            let (mut rest, mut cuts) = (&bytes[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                rest = more;
                held.extend_from_slice(piece);
                loop {
                    let now = frames.admit(&held, room);
                    if now == 0 {
                        break;
                    }
                    let next = ends.iter().find(|end| **end > passed).unwrap();
                    passed += now;
                    prop_assert!(passed <= *next, "beyond the end of a frame");
                    held.drain(..now);
                }
                let mut fragmented = sent.iter().zip(&ends).filter(|((first, _), end)| **end <= passed && first & CONTROL == 0);
                let fragmented = fragmented.next_back().is_some_and(|((first, _), _)| first & FINAL == 0);
                let at_end = passed == 0 || ends.contains(&passed);
                prop_assert_eq!(frames.is_between(), at_end && !fragmented);
                prop_assert!(held.len() < LARGEST + 14);
            }
            prop_assert_eq!(passed, bytes.len());
        }
    }
}
