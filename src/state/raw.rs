//! Memory that the application maps itself.

use crate::error::{Error, Kind, Result};
use crate::state::naming::{check_name, put_aside};
use crate::state::states::States;
use crate::sys::memfd::{self, Seals};
use crate::wire::store::RESERVED;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};

/// Shared memory for the application.
#[derive(Debug)]
#[non_exhaustive]
pub struct RawState {
    /// The memory file, to be mapped with `MAP_SHARED`.
    pub fd: OwnedFd,
    /// Whether it was made just now, so all zero.
    pub fresh: bool,
}

impl States {
    /// Returns memory of that many bytes, zero at first, for the application to map: what is
    /// written to it is kept as it is written.
    ///
    /// The first time it blocks for the manager's answer. Its size is sealed. The previous
    /// generation, while it drains, has the same memory.
    ///
    /// # Errors
    ///
    /// [`Error::is_invalid`]: there is memory of another size under that name, or the name cannot
    /// be used. Else as for [`FdStore::put`](crate::systemd::fdstore::FdStore::put).
    pub fn raw(&self, name: &str, size: u64) -> Result<RawState> {
        check_name(name)?;
        let entry = entry(name);
        if let Some(fd) = self.store.get(&entry)?.pop() {
            match size_of(&fd) {
                Ok(there) if there == size => return Ok(RawState { fd, fresh: false }),
                Ok(there) => {
                    let why = format!(
                        "the raw state {name:?} has {there} bytes, not {size}: its size never changes; use another name, \
                         and remove this one"
                    );
                    return Err(Error::new(Kind::Invalid, why));
                }
                // It was logged; where it cannot be put aside, the new one is beside it.
                Err(why) => drop(put_aside(&self.store, &entry, name, &why)),
            }
        }
        let os = |error| Error::os(format!("no memory of {size} bytes for {name:?}"), error);
        let fd = memfd::sized(c"handover-raw", size).map_err(os)?;
        self.store.put(&entry, &[&fd])?;
        Ok(RawState { fd, fresh: true })
    }

    /// Removes the raw state of that name. It returns false if there was none.
    ///
    /// # Errors
    ///
    /// It fails as [`FdStore::remove`](crate::systemd::fdstore::FdStore::remove) does.
    pub fn remove_raw(&self, name: &str) -> Result<bool> {
        self.store.remove(&entry(name))
    }
}

fn entry(name: &str) -> String {
    format!("{RESERVED}raw.{name}")
}

/// Returns the size of raw memory; the error says why it is none.
fn size_of(fd: &OwnedFd) -> Result<u64, String> {
    match memfd::seals(fd.as_fd()) {
        Ok(Seals::Sized) => {}
        Ok(Seals::NoMemfd) => return Err("is not a memfd".to_owned()),
        Ok(Seals::Loose | Seals::Growing) => {
            return Err("can change in size, so that a mapping of it may fault".to_owned());
        }
        Ok(Seals::Sealed) => return Err("cannot be written to".to_owned()),
        Err(error) => return Err(format!("cannot be looked at: {error}")),
    }
    let copy = fd.try_clone().map_err(|error| format!("cannot be looked at: {error}"))?;
    File::from(copy).metadata().map(|m| m.len()).map_err(|error| format!("cannot be looked at: {error}"))
}
