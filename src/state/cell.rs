//! The memory of one state, which all generations share.

use crate::error::{Error, Kind, Result};
use crate::state::payload::{self, BUFFER, SMALL_BUFFER, StateReader, Writer};
use crate::state::waiting::Wait;
use crate::sys::memfd::{self, Lock, Seals};
use crate::wire::state::{Header, PAGE, PLACES, Page, Payload};
use nix::sys::stat::fstat;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracing::warn;

/// Between two looks at a lock that another generation has: as long as a small change takes, and
/// then longer.
const FIRST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);
/// The next one in turn may be stopped itself: nobody waits longer for it.
const LONGEST_TURN: Duration = Duration::from_millis(250);

/// Why there is no value.
#[derive(Debug)]
pub(super) enum Trouble {
    /// What is there cannot be used: the end of a sentence about the state.
    Damaged(String),
    Error(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// What a change says of itself.
#[derive(Debug, Clone)]
pub(super) struct CellForm {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) limit: u64,
}

/// How the JSON gets into the memory.
pub(super) type CellOutput<'a> = BufWriter<Writer<'a>>;

/// A state's memory, as an open file of this process alone: the lock is the open file's, and the
/// one that came in is shared with other generations and the manager.
#[derive(Debug)]
pub(super) struct Cell {
    /// A number that is never used twice in a process, as an inode number may be.
    pub(super) id: u64,
    file: Arc<File>,
    inode: (libc::dev_t, libc::ino_t),
    warned: AtomicBool,
}

impl Cell {
    /// Makes new memory with a first value, for the store.
    pub(super) fn create(
        form: &CellForm,
        produce: impl FnOnce(&mut CellOutput<'_>) -> serde_json::Result<()>,
    ) -> Result<OwnedFd> {
        let os = |error| Error::os(format!("no memfd for the state {:?}", form.name), error);
        let file = memfd::create(c"handover-state").map_err(os)?;
        let current = fill(&file, &[], form, 1, produce)?;
        let header = Header { name: form.name.clone(), current, previous: None };
        let bytes = header.encode();
        PLACES.iter().try_for_each(|place| file.write_all_at(&bytes, *place as u64)).map_err(os)?;
        // Whole pages, so that the first one can be read as one.
        file.set_len(file.metadata().map_err(os)?.len().max(PAGE as u64)).map_err(os)?;
        memfd::seal_growing(&file).map_err(os)?;
        Ok(file.into())
    }

    pub(super) fn open(fd: BorrowedFd<'_>, name: &str) -> Result<Self, Trouble> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let os = |error| Error::os(format!("the state {name:?} cannot be looked at"), error);
        let wrong = |why: &str| Err(Trouble::Damaged(why.to_owned()));
        match memfd::seals(fd).map_err(os)? {
            Seals::Growing => {}
            Seals::NoMemfd => return wrong("is not a memfd"),
            Seals::Loose => return wrong("is not sealed as one: it could shrink while it is read"),
            Seals::Sized | Seals::Sealed => return wrong("is sealed against changes, which a state never is"),
        }
        let file = memfd::reopen(fd).map_err(|error| {
            let why =
                format!("the state {name:?} cannot be opened through /proc/self/fd (LimitNOFILE=, or no /proc here)");
            Error::os(why, error)
        })?;
        let inode = inode(&file).map_err(os)?;
        // Nobody locks it against others, so it is there at once.
        Lock::Presence.try_take(&file, false).map_err(os)?;
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, file: Arc::new(file), inode, warned: AtomicBool::new(false) })
    }

    /// Returns whether `fd` is the same memory.
    pub(super) fn is(&self, fd: &OwnedFd) -> bool {
        inode(fd).is_ok_and(|inode| inode == self.inode)
    }

    /// Opens another file of the same memory.
    pub(super) fn reopen(&self) -> io::Result<File> {
        memfd::reopen(self.file.as_fd())
    }

    /// Returns whether another generation has it open.
    pub(super) fn is_shared(&self) -> bool {
        Lock::Presence.is_elsewhere(&self.file).unwrap_or(true)
    }

    /// Returns the sequence number of what is there, without the lock: at most one of the two
    /// headers is being written.
    pub(super) fn sequence(&self, name: &str) -> Result<u64, Trouble> {
        Ok(self.page(name)?.header.current.sequence)
    }

    /// Waits until no other generation has it, or with `exclusive` = false, until none writes.
    pub(super) fn lock(
        self: &Arc<Self>,
        mut wait: Wait<'_>,
        exclusive: bool,
        (deadline, timeout): (Instant, Duration),
    ) -> Result<LockedCell, Trouble> {
        let name = wait.name;
        let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
        let os = |error| Error::os(format!("the state {name:?} cannot be locked"), error);
        // Without turns a generation that changes it again and again would have it always, and one
        // that looks for it between two pauses never. A blocking F_OFD_SETLKW was rejected: only a
        // signal would end it.
        let mut turn = None;
        loop {
            if turn.is_none() && Lock::Turn.try_take(&self.file, true).map_err(os)? {
                turn = Some(Hold(Arc::clone(self), Lock::Turn));
            }
            let may = turn.is_some() || begun.elapsed() > LONGEST_TURN;
            if may && Lock::Content.try_take(&self.file, exclusive).map_err(os)? {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = format!(
                    "the state {name:?} is held by another generation, for longer than {timeout:?}: it is stopped, or its change \
                     takes so long (States::lock_timeout)"
                );
                return Err(Error::new(Kind::Timeout, why).into());
            }
            std::thread::sleep(pause.min(left));
            wait.goes_on();
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let hold = Hold(Arc::clone(self), Lock::Content);
        drop(turn);
        let Page { header, place, .. } = self.page(name)?;
        Ok(LockedCell { hold, header, place })
    }

    fn page(&self, name: &str) -> Result<Page, Trouble> {
        let mut bytes = [0; PAGE];
        self.file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Trouble::Damaged(format!("is truncated: it has less than the {PAGE} bytes of its headers"))
            }
            _ => Trouble::Damaged(format!("cannot be read: {error}")),
        })?;
        let page = Page::decode(&bytes).map_err(Trouble::Damaged)?;
        if page.header.name != name {
            return Err(Trouble::Damaged(format!("is that of {:?}", page.header.name)));
        }
        if let Some(damage) = &page.damage
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            warn!("the state {name:?} {damage}; the copy of the header is good, and nothing is lost");
        }
        Ok(page)
    }
}

/// The memory, while no other generation changes it.
#[derive(Debug)]
pub(super) struct LockedCell {
    hold: Hold,
    pub(super) header: Header,
    /// Which of the two places the header was read from.
    place: usize,
}

impl LockedCell {
    pub(super) fn id(&self) -> u64 {
        self.hold.0.id
    }

    /// Returns the version of the value that is there, if there is one.
    pub(super) fn version(&self) -> Option<u32> {
        Some(self.header.current).filter(|current| current.length > 0).map(|current| current.version)
    }

    pub(super) fn reader(&self, limit: u64) -> Result<StateReader, Trouble> {
        StateReader::open(&self.hold.0.file, &self.header.current, limit).map_err(Trouble::Damaged)
    }

    /// Makes it the value. After an error the one before is. What was of another version stays
    /// beside it, if `keep_previous`.
    pub(super) fn write(
        &mut self,
        form: &CellForm,
        keep_previous: bool,
        produce: impl FnOnce(&mut CellOutput<'_>) -> serde_json::Result<()>,
    ) -> Result<()> {
        let used = self.used();
        let payload = fill(&self.hold.0.file, &used, form, self.next(&form.name)?, produce);
        match payload {
            Ok(payload) => self.commit(payload, self.previous(form.version, keep_previous)),
            Err(error) => {
                payload::keep_only(&self.hold.0.file, &used);
                Err(error)
            }
        }
    }

    /// Takes the value away.
    pub(super) fn clear(&mut self, form: &CellForm, keep_previous: bool) -> Result<()> {
        let version = form.version.max(self.header.current.version);
        let none = Payload { version, sequence: self.next(&form.name)?, offset: 0, length: 0, checksum: 0 };
        self.commit(none, self.previous(version, keep_previous))
    }

    /// Gives back what was kept of another version.
    pub(super) fn settle(&mut self) -> Result<()> {
        let sequence = self.next(&self.header.name)?;
        self.commit(Payload { sequence, ..self.header.current }, None)
    }

    /// Makes the previous version's value the current one. Returns how many changes that undoes.
    pub(super) fn restore(&mut self, previous: &Payload) -> Result<u64, Trouble> {
        if previous.length > 0 {
            StateReader::open(&self.hold.0.file, previous, u64::MAX).map_err(Trouble::Damaged)?;
        }
        let undone = self.header.current.sequence.saturating_sub(previous.sequence);
        let sequence = self.next(&self.header.name)?;
        self.commit(Payload { sequence, ..*previous }, None)?;
        Ok(undone)
    }

    fn previous(&self, version: u32, keep: bool) -> Option<Payload> {
        let Header { current, previous, .. } = &self.header;
        if version == current.version { *previous } else { Some(*current) }.filter(|_| keep)
    }

    fn next(&self, name: &str) -> Result<u64> {
        let next = self.header.current.sequence.checked_add(1);
        next.ok_or_else(|| Error::new(Kind::State, format!("the state {name:?} was changed too often")))
    }

    fn used(&self) -> Vec<Payload> {
        self.header.previous.into_iter().chain([self.header.current]).collect()
    }

    fn commit(&mut self, current: Payload, previous: Option<Payload>) -> Result<()> {
        let header = Header { name: self.header.name.clone(), current, previous };
        let (bytes, file) = (header.encode(), &self.hold.0.file);
        // First over the one that does not count: a SIGKILL here leaves the other.
        let first = 1 - self.place.min(1);
        let written = file.write_all_at(&bytes, PLACES[first] as u64);
        written.map_err(|e| Error::os(format!("the state {:?} cannot be written", header.name), e))?;
        // From here on it is the value, whatever happens.
        if let Err(error) = file.write_all_at(&bytes, PLACES[1 - first] as u64) {
            warn!(%error, "the copy of the header of the state {:?} cannot be written", header.name);
        }
        (self.header, self.place) = (header, first);
        payload::keep_only(file, &self.used());
        Ok(())
    }
}

#[derive(Debug)]
struct Hold(Arc<Cell>, Lock);

impl Drop for Hold {
    fn drop(&mut self) {
        // It ends with the open file at the latest.
        let _ = self.1.release(&self.0.file);
    }
}

fn inode(fd: impl AsFd) -> io::Result<(libc::dev_t, libc::ino_t)> {
    let stat = fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Serializes straight into the memory: the state is there once as a value and once as JSON.
fn fill(
    file: &File,
    used: &[Payload],
    form: &CellForm,
    sequence: u64,
    produce: impl FnOnce(&mut CellOutput<'_>) -> serde_json::Result<()>,
) -> Result<Payload> {
    let CellForm { name, version, limit } = form;
    let expected = used.last().map_or(0, |current| current.length);
    let buffer = usize::try_from(expected + expected / 4).unwrap_or(BUFFER).clamp(SMALL_BUFFER, BUFFER);
    let mut output = BufWriter::with_capacity(buffer, Writer::new(file, used, expected, *limit));
    let written = produce(&mut output).and_then(|()| output.flush().map_err(serde_json::Error::io));
    // What an error has left in the buffer is not written.
    let writer = output.into_parts().0;
    if writer.is_over_limit() {
        let why = format!("the state {name:?} is longer than its limit of {limit} bytes: raise State::limit");
        return Err(Error::new(Kind::Invalid, why));
    }
    match written {
        Ok(()) => Ok(writer.finish(*version, sequence)),
        Err(e) if e.is_io() => Err(Error::os(format!("the state {name:?} cannot be written"), io::Error::from(e))),
        Err(e) => Err(Error::caused(
            Kind::Invalid,
            format!("the state {name:?} cannot be written as JSON"),
            io::Error::from(e),
        )),
    }
}
