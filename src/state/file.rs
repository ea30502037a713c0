//! One saved state: a sealed memfd, a header and then JSON.

use crate::error::{Error, Kind, Result};
use crate::sys::memfd::{self, Seals};
use crate::wire::state::{HEADER, Header};
use crc32fast::Hasher;
use serde::Serialize;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

/// What `/proc/PID/fd` shows.
const MEMFD_NAME: &CStr = c"handover-state";
/// For each system call; a state of 1 GiB is then 4096 of them.
const BUFFER: usize = 256 * 1024;

/// Serializes straight into the memfd: the state is in memory once as `value` and once as JSON.
pub(super) fn write<T: Serialize>(value: &T, name: &str, version: u32, sequence: u64, limit: u64) -> Result<OwnedFd> {
    let os = |error| Error::os(format!("no memfd for the state {name:?}"), error);
    let mut file = memfd::create(MEMFD_NAME).map_err(os)?;
    file.write_all(&[0; HEADER]).map_err(os)?;
    let mut payload = BufWriter::with_capacity(BUFFER, Payload { file, hasher: Hasher::new(), length: 0, limit });
    let written = serde_json::to_writer(&mut payload, value).map_err(io::Error::from).and_then(|()| payload.flush());
    let over = payload.get_ref().length > limit;
    if over {
        let why = format!("the state {name:?} is longer than its limit of {limit} bytes: raise State::limit");
        return Err(Error::new(Kind::Invalid, why));
    }
    written.map_err(|e| Error::io(Kind::Invalid, format!("the state {name:?} cannot be written as JSON"), e))?;
    // Flushed already, so that nothing can be left in it.
    let Payload { file, hasher, length, .. } = payload.into_parts().0;
    let header = Header { name: name.to_owned(), version, sequence, length, checksum: hasher.finalize() };
    file.write_all_at(&header.encode(), 0).map_err(os)?;
    memfd::seal(&file).map_err(os)?;
    Ok(file.into())
}

struct Payload {
    file: File,
    hasher: Hasher,
    length: u64,
    limit: u64,
}

impl Write for Payload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.length += bytes.len() as u64;
        if self.length > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.hasher.update(bytes);
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The payload of a saved state, whose checksum was right.
///
/// It reads on its own: the position of the file is shared with every process that has the memfd, so it is not used.
#[derive(Debug)]
pub struct StateReader {
    file: File,
    position: u64,
    end: u64,
}

impl StateReader {
    /// How many bytes there are to read.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.end - self.position
    }

    fn rewind(&mut self) {
        self.position = HEADER as u64;
    }
}

impl Read for StateReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.remaining()).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..room], self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// Reads the header alone, whatever follows.
pub(super) fn header(file: &File) -> Result<Header, String> {
    match memfd::seals(file.as_fd()) {
        Ok(Seals::Sealed) => {}
        Ok(Seals::NoMemfd) => return Err("is not a memfd".to_owned()),
        Ok(Seals::Loose | Seals::Sized) => return Err("is not sealed: it could change while it is read".to_owned()),
        Err(error) => return Err(format!("cannot be looked at: {error}")),
    }
    let mut bytes = [0; HEADER];
    file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => format!("is truncated: it has less than the {HEADER} bytes of its header"),
        _ => format!("cannot be read: {error}"),
    })?;
    Header::decode(&bytes)
}

/// Checks everything but the JSON; what is wrong is the end of a sentence about the state.
pub(super) fn open(fd: OwnedFd, name: &str, limit: u64) -> Result<(Header, StateReader), String> {
    let file = File::from(fd);
    let header = header(&file)?;
    if header.name != name {
        return Err(format!("is that of {:?}", header.name));
    }
    let size = file.metadata().map_err(|error| format!("cannot be looked at: {error}"))?.len();
    let present = size.saturating_sub(HEADER as u64);
    if present < header.length {
        return Err(format!("is truncated: {present} of {} bytes are there", header.length));
    }
    if present > header.length {
        return Err(format!("has {} bytes too many", present - header.length));
    }
    if header.length > limit {
        return Err(format!("has {} bytes, over its limit of {limit}: raise State::limit", header.length));
    }
    let mut reader = StateReader { file, position: HEADER as u64, end: size };
    // A pass of its own, so that nothing of a damaged state is ever acted on.
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) => return Err(format!("cannot be read: {error}")),
        }
    }
    if hasher.finalize() != header.checksum {
        return Err("is damaged: its checksum differs".to_owned());
    }
    reader.rewind();
    Ok((header, reader))
}

/// Raw memory of that size.
pub(super) fn raw(name: &str, size: u64) -> Result<OwnedFd> {
    memfd::sized(c"handover-raw", size).map_err(|e| Error::os(format!("no memory of {size} bytes for {name:?}"), e))
}

/// Whether it is raw memory, and of which size; else what is wrong.
pub(super) fn raw_size(fd: &OwnedFd) -> Result<u64, String> {
    match memfd::seals(fd.as_fd()) {
        Ok(Seals::Sized) => {}
        Ok(Seals::NoMemfd) => return Err("is not a memfd".to_owned()),
        Ok(Seals::Loose) => return Err("can change in size, so that a mapping of it may fault".to_owned()),
        Ok(Seals::Sealed) => return Err("cannot be written to".to_owned()),
        Err(error) => return Err(format!("cannot be looked at: {error}")),
    }
    let copy = fd.try_clone().map_err(|error| format!("cannot be looked at: {error}"))?;
    File::from(copy).metadata().map(|m| m.len()).map_err(|error| format!("cannot be looked at: {error}"))
}
