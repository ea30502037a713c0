//! How a state may be called, and under which name a damaged one is kept.

use crate::error::{Error, Kind, Result};
use crate::systemd::fdstore::FdStore;
use crate::wire::state::MAX_NAME;
use crate::wire::store::{self, RESERVED};
use tracing::warn;

/// Puts a damaged state aside, and returns the name that it is kept under now.
pub(super) fn put_aside(store: &FdStore, entry: &str, name: &str, why: &str) -> Result<String> {
    let aside = format!("{RESERVED}aside.{name}");
    match store.put_aside(entry, &aside) {
        Ok(()) => {
            warn!("the state {name:?} {why}; it is kept aside as {aside:?} in the fd store");
            Ok(aside)
        }
        Err(error) => {
            warn!(%error, "the state {name:?} {why}; it cannot be kept aside");
            Err(error)
        }
    }
}

/// Refuses a name that no state can have.
pub(super) fn check_name(name: &str) -> Result<()> {
    if name.len() > MAX_NAME {
        let why = format!("the state's name {name:?} has {} bytes, at most {MAX_NAME} are possible", name.len());
        return Err(Error::new(Kind::Invalid, why));
    }
    if name.is_empty() {
        return Err(Error::new(Kind::Invalid, "the state's name is empty"));
    }
    store::check(name)
}
