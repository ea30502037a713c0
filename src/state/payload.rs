//! Where in the memory a payload is, how it is written there, and how it is read.

use crate::sys::memfd;
use crate::wire::state::{PAGE, Payload};
use crc32fast::Hasher;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use tracing::debug;

/// How much one system call reads or writes; a state of 1 GiB is then 4096 of them.
pub(super) const BUFFER: usize = 256 * 1024;
/// The buffer for a small state, or one of unknown size.
pub(super) const SMALL_BUFFER: usize = 16 * 1024;
const PAGE_BYTES: u64 = PAGE as u64;
/// What a file offset can be.
const END: u64 = i64::MAX as u64 - PAGE_BYTES;

/// Returns the pages that belong to a payload.
fn pages(payload: &Payload) -> Range<u64> {
    payload.offset..payload.offset + payload.length.next_multiple_of(PAGE_BYTES)
}

/// Returns what is free beside these, in order; the last one has no end.
fn gaps(used: &[Payload]) -> Vec<Range<u64>> {
    let mut used: Vec<_> = used.iter().filter(|payload| payload.length > 0).map(pages).collect();
    used.sort_by_key(|pages| pages.start);
    let (mut gaps, mut from) = (Vec::new(), PAGE_BYTES);
    for pages in used {
        if pages.start > from {
            gaps.push(from..pages.start);
        }
        from = from.max(pages.end);
    }
    gaps.push(from..END.max(from));
    gaps
}

/// Gives back everything but the headers and these payloads: the ones before, and what a killed
/// writer has left.
pub(super) fn keep_only(file: &File, used: &[Payload]) {
    let done = file.metadata().and_then(|metadata| {
        // Of a page only a part of which is punched, nothing is given back.
        let end = metadata.len().next_multiple_of(PAGE_BYTES);
        let gaps = gaps(used).into_iter().map(|gap| gap.start..gap.end.min(end));
        gaps.filter(|gap| !gap.is_empty()).try_for_each(|gap| memfd::punch(file, gap.start, gap.end - gap.start))
    });
    // The next save tries again.
    let _ = done.inspect_err(|error| debug!(%error, "the memory of an old state cannot be given back"));
}

/// Writes a payload of unknown length into the free pages.
///
/// It begins where the one before would fit, and when it gets longer than that gap it moves on to
/// the next one. A first pass that only counts was rejected: it would serialize twice, and a
/// `Serialize` need not say the same twice.
pub(super) struct Writer<'a> {
    file: &'a File,
    gap: Range<u64>,
    /// The free ranges behind `gap`.
    gaps: std::vec::IntoIter<Range<u64>>,
    hasher: Hasher,
    length: u64,
    limit: u64,
}

impl<'a> Writer<'a> {
    /// Makes a writer. `used` are the payloads that stay; `expected` is a guess of the length.
    pub(super) fn new(file: &'a File, used: &[Payload], expected: u64, limit: u64) -> Self {
        let gaps: Vec<_> =
            gaps(used).into_iter().skip_while(|gap| gap.end - gap.start < expected.min(END / 4)).collect();
        let mut gaps = gaps.into_iter();
        // Only a foreign header can leave no gap: then the first write says so.
        let gap = gaps.next().unwrap_or(END..END);
        Self { file, gap, gaps, hasher: Hasher::new(), length: 0, limit }
    }

    pub(super) fn is_over_limit(&self) -> bool {
        self.length > self.limit
    }

    pub(super) fn finish(self, version: u32, sequence: u64) -> Payload {
        let checksum = self.hasher.finalize();
        Payload { version, sequence, offset: self.gap.start, length: self.length, checksum }
    }

    fn make_room(&mut self, written: u64) -> io::Result<()> {
        let fits = |gap: &Range<u64>| gap.end - gap.start >= self.length;
        if fits(&self.gap) {
            return Ok(());
        }
        let to = self.gaps.find(fits).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut buffer = vec![0; BUFFER];
        let mut at = 0;
        while at < written {
            let part = usize::try_from(written - at).unwrap_or(BUFFER).min(BUFFER);
            self.file.read_exact_at(&mut buffer[..part], self.gap.start + at)?;
            self.file.write_all_at(&buffer[..part], to.start + at)?;
            // At once, so that it is not there twice; a part of a page would only be zeroed.
            memfd::punch(self.file, self.gap.start + at, (part as u64).next_multiple_of(PAGE_BYTES))?;
            at += part as u64;
        }
        self.gap = to;
        Ok(())
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.length;
        self.length += bytes.len() as u64;
        if self.is_over_limit() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.make_room(written)?;
        self.hasher.update(bytes);
        self.file.write_all_at(bytes, self.gap.start + written)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The payload of a saved state, whose checksum was right.
#[derive(Debug, Clone)]
pub struct StateReader {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl StateReader {
    /// Checks everything but the JSON; what is wrong is the end of a sentence about the state. The
    /// caller has the lock for as long as it reads.
    pub(super) fn open(file: &Arc<File>, payload: &Payload, limit: u64) -> Result<Self, String> {
        let size = file.metadata().map_err(|error| format!("cannot be looked at: {error}"))?.len();
        let present = size.saturating_sub(payload.offset);
        if present < payload.length {
            return Err(format!("is truncated: {present} of {} bytes are there", payload.length));
        }
        if payload.length > limit {
            return Err(format!("has {} bytes, over its limit of {limit}: raise State::limit", payload.length));
        }
        let end = payload.offset + payload.length;
        let reader = Self { file: Arc::clone(file), position: payload.offset, end };
        // A pass of its own, so that nothing of a damaged state is ever acted on.
        let mut hasher = Hasher::new();
        reader
            .clone()
            .each(|part| {
                hasher.update(part);
                Ok(())
            })
            .map_err(|error| format!("cannot be read: {error}"))?;
        if hasher.finalize() != payload.checksum {
            return Err("is damaged: its checksum differs".to_owned());
        }
        Ok(reader)
    }

    /// Copies what is left into memory of its own, to be read when nobody has the lock any more.
    pub(super) fn detach(self) -> io::Result<Self> {
        let mut copy = memfd::create(c"handover-older")?;
        let end = self.remaining();
        self.each(|part| copy.write_all(part))?;
        Ok(Self { file: Arc::new(copy), position: 0, end })
    }

    /// Returns how many bytes there are to read.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.end - self.position
    }

    fn each(mut self, mut f: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; usize::try_from(self.remaining()).unwrap_or(BUFFER).min(BUFFER)];
        while self.remaining() > 0 {
            match self.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => f(&buffer[..read])?,
            }
        }
        Ok(())
    }
}

/// It reads on its own: the file's position is not used.
impl Read for StateReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.remaining()).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..room], self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64, length: u64) -> Payload {
        Payload { version: 1, sequence: 1, offset, length, checksum: 0 }
    }

    #[test]
    fn gaps_are_what_is_free() {
        let free = |used: &[Payload]| gaps(used).into_iter().map(|gap| (gap.start, gap.end)).collect::<Vec<_>>();
        assert_eq!(free(&[]), [(4096, END)]);
        assert_eq!(free(&[at(4096, 0)]), [(4096, END)]);
        assert_eq!(free(&[at(4096, 1)]), [(8192, END)]);
        assert_eq!(free(&[at(8192, 4097), at(4096, 4096)]), [(16384, END)]);
        assert_eq!(free(&[at(12288, 1), at(20480, 1)]), [(4096, 12288), (16384, 20480), (24576, END)]);
        // Only somebody else writes these.
        assert_eq!(free(&[at(4096, 9000), at(8192, 1)]), [(16384, END)]);
        assert_eq!(free(&[at(4096, END - 4096)]).len(), 1);
    }

    /// Writes `length` bytes in small pieces beside `used`; where they are in the end.
    fn write(used: &[Payload], expected: u64, length: usize) -> (File, u64) {
        let file = memfd::create(c"test").unwrap();
        let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut writer = Writer::new(&file, used, expected, 1 << 30);
        bytes.chunks(1000).for_each(|part| writer.write_all(part).unwrap());
        let payload = writer.finish(1, 1);
        let file = Arc::new(file);
        let mut read = Vec::new();
        StateReader::open(&file, &payload, 1 << 30).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == bytes);
        (Arc::into_inner(file).unwrap(), payload.offset)
    }

    #[test]
    fn it_goes_where_it_fits_and_moves_on_when_it_grows() {
        assert_eq!(write(&[], 0, 5000).1, 4096);
        assert_eq!(write(&[at(4096, 5000)], 5000, 5000).1, 12288);
        assert_eq!(write(&[at(12288, 5000)], 5000, 5000).1, 4096);
        let used = [at(12288, 5000), at(24576, 10)];
        assert_eq!(write(&used, 10, 8192).1, 4096, "exactly");
        let (file, offset) = write(&used, 10, 9000);
        assert_eq!(offset, 28672, "over both");
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(file.metadata().unwrap().blocks() * 512, 12288, "nothing is left where it was");
        assert_eq!(write(&[at(4096, 4096), at(12288, 1), at(20480, 1)], 1, 4097).1, 24576);
        assert_eq!(write(&[at(8192, 1), at(20480, 1)], 1, 4097).1, 12288, "into the second one");
    }
}
