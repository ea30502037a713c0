//! Where a request ends. Pure: bytes in, positions out.
//!
//! hyper parses; this only has to agree with it on the last byte of a head and of a chunked body.
//! Where the two could differ it must never see an end *earlier* than hyper, which would then
//! wait for bytes that are held back.

/// The end of a request head: the first blank line after a line that is not blank.
#[derive(Debug, Default)]
pub(super) struct Head {
    line: HeadLine,
    started: bool,
}

/// What there is of the line that is not yet ended.
#[derive(Debug, Default, Clone, Copy)]
enum HeadLine {
    #[default]
    Empty,
    Cr,
    Text,
}

impl Head {
    /// Returns whether there is more than the blank lines that may come before a request.
    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    /// Takes the next bytes; returns how many of them belong to the head if it ends in them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        if let Some(end) = self.at_once(bytes) {
            self.started = true;
            return Some(end);
        }
        let mut start = 0;
        for (end, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            if self.ends_with(&bytes[start..end]) {
                return Some(end + 1);
            }
            start = end + 1;
        }
        self.line = match (self.line, &bytes[start..]) {
            (line, []) => line,
            (HeadLine::Empty, [b'\r']) => HeadLine::Cr,
            _ => HeadLine::Text,
        };
        self.started |= matches!(self.line, HeadLine::Text);
        None
    }

    /// Finds the end of one whole head with nothing else behind it, as nearly all come. Line by
    /// line it cost 3 % of a small request, by `memchr`, too.
    fn at_once(&self, bytes: &[u8]) -> Option<usize> {
        let fresh = !self.started && matches!(self.line, HeadLine::Empty);
        if !fresh || matches!(bytes.first()?, b'\r' | b'\n') || !bytes.ends_with(b"\r\n\r\n") {
            return None;
        }
        let last = bytes.len() - 1;
        (!near_line_feeds(&bytes[..last])).then_some(bytes.len())
    }

    /// Returns whether the head ends with this line, or the rest of one.
    fn ends_with(&mut self, line: &[u8]) -> bool {
        let blank = match self.line {
            HeadLine::Empty => matches!(line, [] | [b'\r']),
            HeadLine::Cr => line.is_empty(),
            HeadLine::Text => false,
        };
        self.line = HeadLine::Empty;
        let ends = blank && self.started;
        self.started |= !blank;
        ends
    }
}

/// Returns whether there are two line feeds with at most one byte between them. It is written so
/// that it becomes vector instructions.
fn near_line_feeds(bytes: &[u8]) -> bool {
    const BLOCK: usize = 16;
    fn near(bytes: &[u8]) -> bool {
        let feed = |byte: u8| byte == b'\n';
        let triples = bytes.iter().zip(&bytes[1..]).zip(&bytes[2..]);
        triples.fold(false, |any, ((a, b), c)| any | (feed(*c) & (feed(*b) | feed(*a))))
    }
    if let [b'\n', b'\n', ..] = bytes {
        return true;
    }
    let Some(last) = bytes.len().checked_sub(BLOCK + 2) else {
        return bytes.len() > 2 && near(bytes);
    };
    let mut at = 0;
    while at < last {
        if near(&bytes[at..at + BLOCK + 2]) {
            return true;
        }
        at += BLOCK;
    }
    near(&bytes[last..])
}

/// The end of a chunked body, step by step as hyper's decoder does it.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: Chunk,
    size: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Chunk {
    #[default]
    Start,
    Size,
    Space,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    TrailerLf,
    EndCr,
    EndLf,
}

/// The error of a body that is not chunked as it says. hyper will tell the client so.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed;

/// What [`Chunked::feed`] has taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fed {
    pub(super) taken: usize,
    /// The body ends with it.
    pub(super) ended: bool,
}

impl Chunked {
    /// Takes the next bytes, but the data of no more than one chunk: hyper asks for more when it
    /// wants the next. So it is known whether all of the body is read, which hyper does not tell.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Fed, Malformed> {
        let (mut at, mut some) = (0, false);
        while at < bytes.len() {
            if self.state == Chunk::Data {
                let there = bytes.len() - at;
                let skip = usize::try_from(self.size).map_or(there, |size| size.min(there));
                self.size -= skip as u64;
                at += skip;
                some |= skip > 0;
                if self.size == 0 {
                    self.state = Chunk::DataCr;
                }
                continue;
            }
            let byte = bytes[at];
            at += 1;
            self.state = match (self.state, byte) {
                (Chunk::EndLf, b'\n') => return Ok(Fed { taken: at, ended: true }),
                (Chunk::Start | Chunk::Size, digit) if digit.is_ascii_hexdigit() => {
                    let digit = char::from(digit).to_digit(16).map_or(0, u64::from);
                    self.size = self.size.checked_mul(16).ok_or(Malformed)? | digit;
                    Chunk::Size
                }
                (Chunk::Size | Chunk::Space, b' ' | b'\t') => Chunk::Space,
                (Chunk::Size | Chunk::Space, b';') => Chunk::Extension,
                (Chunk::Size | Chunk::Space | Chunk::Extension, b'\r') => Chunk::SizeLf,
                (Chunk::Extension, other) if other != b'\n' => Chunk::Extension,
                (Chunk::SizeLf, b'\n') if self.size == 0 => Chunk::EndCr,
                (Chunk::SizeLf, b'\n') if some => {
                    self.state = Chunk::Data;
                    break;
                }
                (Chunk::SizeLf, b'\n') => Chunk::Data,
                (Chunk::DataCr, b'\r') => Chunk::DataLf,
                (Chunk::DataLf, b'\n') => Chunk::Start,
                (Chunk::EndCr, b'\r') => Chunk::EndLf,
                (Chunk::Trailer, b'\r') => Chunk::TrailerLf,
                (Chunk::EndCr | Chunk::Trailer, _) => Chunk::Trailer,
                (Chunk::TrailerLf, b'\n') => Chunk::EndCr,
                _ => return Err(Malformed),
            };
        }
        Ok(Fed { taken: at, ended: false })
    }
}

/// Finds the end of a head, and of a chunked body, at once and byte by byte: however the bytes
/// come, it is the same.
#[cfg(all(feature = "settings", feature = "supervise", feature = "upgrade"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let (mut whole, mut parts) = (Head::default(), Head::default());
    let end = bytes.chunks(1).position(|byte| parts.feed(byte).is_some()).map(|at| at + 1);
    assert_eq!(whole.feed(bytes), end, "the end of a head");
    let end = |piece: usize| {
        let (mut chunked, mut at) = (Chunked::default(), 0);
        for mut piece in bytes.chunks(piece) {
            while !piece.is_empty() {
                let Fed { taken, ended } = chunked.feed(piece)?;
                at += taken;
                if ended {
                    return Ok(Some(at));
                }
                piece = &piece[taken..];
            }
        }
        Ok::<_, Malformed>(None)
    };
    assert_eq!(end(bytes.len().max(1)), end(1), "the end of a chunked body");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end that `feed` finds, whole and split at every point.
    fn head_end(bytes: &[u8]) -> Option<usize> {
        let whole = Head::default().feed(bytes);
        for split in 0..=bytes.len() {
            let mut head = Head::default();
            let found = head.feed(&bytes[..split]).or_else(|| head.feed(&bytes[split..]).map(|end| split + end));
            assert_eq!(found, whole, "split at {split}");
        }
        whole
    }

    #[test]
    fn heads_end_where_httparse_ends_them() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\n\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\n\r\n",
            "GET / HTTP/1.1\nHost: x\r\n\n",
            "\r\n\r\n\nGET /a-rather-long-path-to-cross-some-words HTTP/1.1\r\nHost: example\r\nA: b\r\n\r\n",
        ] {
            let mut headers = [httparse::EMPTY_HEADER; 4];
            let parsed = httparse::Request::new(&mut headers).parse(head.as_bytes()).unwrap();
            assert_eq!(parsed, httparse::Status::Complete(head.len()));
            assert_eq!(head_end(head.as_bytes()), Some(head.len()), "{head:?}");
            assert_eq!(head_end(format!("{head}GET /").as_bytes()), Some(head.len()), "{head:?}");
            assert_eq!(head_end(&head.as_bytes()[..head.len() - 1]), None, "{head:?}");
        }
    }

    #[test]
    fn blank_lines_alone_are_no_start() {
        let mut head = Head::default();
        assert_eq!(head.feed(b"\r\n\n\r"), None);
        assert!(!head.has_started());
        assert_eq!(head.feed(b"\nG"), None);
        assert!(head.has_started());
    }

    #[test]
    fn near_line_feeds_are_found_wherever_they_are() {
        for length in 0..60 {
            let mut bytes = vec![b'x'; length];
            for at in (0..length).step_by(3) {
                bytes[at] = b'\n';
            }
            assert!(!near_line_feeds(&bytes), "{bytes:?}");
            let bytes = vec![b'x'; length];
            for (first, second) in (0..length).flat_map(|at| [(at, at + 1), (at, at + 2)]) {
                let mut bytes = bytes.clone();
                if second < length {
                    (bytes[first], bytes[second]) = (b'\n', b'\n');
                    assert!(near_line_feeds(&bytes), "{bytes:?}");
                }
            }
        }
    }

    /// The fast way and the thorough one, which a head takes that comes in two pieces.
    #[test]
    fn in_one_piece_or_two_a_head_ends_in_the_same_place() {
        let mut random = 20_260_727_u64;
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..36)
                .map(|_| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    b"abc\r\n"[usize::try_from(random >> 40).unwrap() % 5]
                })
                .collect();
            if random & 1 == 1 {
                bytes.extend(b"\r\n\r\n");
            }
            let whole = Head::default().feed(&bytes);
            let mut head = Head::default();
            let pieces = match head.feed(&bytes[..1]) {
                None => head.feed(&bytes[1..]).map(|end| end + 1),
                end => end,
            };
            assert_eq!(whole, pieces, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    /// Feeds all of it, chunk by chunk.
    fn feed(chunked: &mut Chunked, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut at = 0;
        while at < bytes.len() {
            let fed = chunked.feed(&bytes[at..])?;
            at += fed.taken;
            if fed.ended {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn chunked_end(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let whole = feed(&mut Chunked::default(), bytes);
        for split in 0..=bytes.len() {
            let mut chunked = Chunked::default();
            let found = match feed(&mut chunked, &bytes[..split]) {
                Ok(None) => feed(&mut chunked, &bytes[split..]).map(|end| end.map(|end| split + end)),
                other => other,
            };
            assert_eq!(found, whole, "split at {split}");
        }
        whole
    }

    #[test]
    fn one_chunk_at_a_time() {
        let body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let mut chunked = Chunked::default();
        assert_eq!(chunked.feed(body), Ok(Fed { taken: 11, ended: false }), "with the size of the next");
        assert_eq!(chunked.feed(&body[11..]), Ok(Fed { taken: 9, ended: true }), "the last with the end");
        let mut chunked = Chunked::default();
        assert_eq!(chunked.feed(&body[..4]), Ok(Fed { taken: 4, ended: false }));
        assert_eq!(chunked.feed(&body[4..]), Ok(Fed { taken: 7, ended: false }));
    }

    #[test]
    fn chunked_bodies_end_after_their_trailers() {
        for body in [
            "0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\r\n",
            "a;name=value\r\n0123456789\r\n00 \t;x\r\nTrailer: x\r\nOther: y\r\n\r\n",
            "1\r\n\r\r\n0\r\n\r\n",
        ] {
            assert_eq!(chunked_end(body.as_bytes()), Ok(Some(body.len())), "{body:?}");
            assert_eq!(chunked_end(format!("{body}GET /").as_bytes()), Ok(Some(body.len())), "{body:?}");
            assert_eq!(chunked_end(&body.as_bytes()[..body.len() - 1]), Ok(None), "{body:?}");
        }
        for body in ["\r\n", "x\r\n", "3\r\nabcd", "0\n", "0\r\n\rx", "11111111111111111\r\n", "1;\n"] {
            assert_eq!(chunked_end(body.as_bytes()), Err(Malformed), "{body:?}");
        }
    }
}
