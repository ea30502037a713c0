//! Passes entries from one generation to the next: what the next one is started with, what comes
//! after that, and what it adds.

use crate::error::{Error, Kind, Result};
use crate::systemd::fdstore::entry::{Polling, copies};
use crate::systemd::fdstore::group::{Group, Held, Mode};
use crate::systemd::fdstore::store::FdStore;
use crate::systemd::fdstore::table::{Table, slot};
use crate::wire::store::Slot;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// What there was at some time, by name, to be compared with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot(BTreeMap<String, SeenSlots>);

/// What is compared of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SeenSlots {
    /// Which replacement it was.
    number: u64,
    fds: usize,
}

impl SeenSlots {
    fn of(group: &Group) -> Self {
        Self { number: group.number, fds: group.fds.len() }
    }
}

/// What the next generation is told before it accepts; and the names of what it added itself.
pub(crate) type Transfer = (Changes, Vec<String>);

/// What has come since a [`Snapshot`], and what has gone.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) entries: Vec<(String, OwnedFd)>,
    pub(crate) gone: Vec<String>,
}

impl FdStore {
    /// Does what [`entries`](Self::entries) does, and says what to compare with later.
    pub(crate) fn estate(&self) -> Result<(Vec<(String, OwnedFd)>, Snapshot)> {
        let mut table = self.lock();
        table.prune();
        let snapshot = table.groups.iter().map(|(name, group)| (name.clone(), SeenSlots::of(group)));
        let snapshot = Snapshot(snapshot.collect());
        Ok((table.entries(|_, _| true)?, snapshot))
    }

    /// Freezes, and says what the next generation does not have yet. Its own additions are kept
    /// before, so that they are in the store when it accepts: they are among the changes, as
    /// entries that are stored. Their names are returned too.
    pub(crate) fn hand_over(&self, additions: Vec<(String, OwnedFd)>, since: &Snapshot) -> Result<Transfer> {
        handed_over(&mut self.lock(), additions, since)
    }

    /// Does what [`hand_over`](Self::hand_over) does, for a next generation that adds nothing: the
    /// manager need not be asked, so it does not block. `None`: it would, for somebody is changing
    /// the store.
    pub(crate) fn try_hand_over(&self, since: &Snapshot) -> Option<Result<Transfer>> {
        self.table.try_lock().map(|mut table| handed_over(&mut table, Vec::new(), since))
    }

    /// Copies what this process has put and the store does not have.
    pub(crate) fn additions(&self) -> Result<Vec<(String, OwnedFd)>> {
        self.lock().entries(|_, group| !group.inherited && group.fds.iter().all(|held| !held.stored))
    }

    /// Drops what the previous generation says that it has removed, which is not to come back.
    pub(crate) fn forget(&self, names: &[String]) {
        let mut table = self.lock();
        for name in names {
            table.groups.remove(name);
        }
    }

    /// Ends the standby, and pushes what is not in the store without asking whether there is room:
    /// for the main generation, before it says that it is ready. [`sync`](Self::sync) follows and
    /// finds out.
    pub(crate) fn offer(&self) -> Result<()> {
        self.lock().offer()
    }

    /// Does what [`sync`](Self::sync) does, and removes what was added for a next generation that
    /// failed.
    pub(crate) fn thaw(&self, added: &[String]) -> Result<()> {
        self.sync()?;
        for name in added {
            self.remove(name)?;
        }
        Ok(())
    }

    /// Holds an fd under a new name, so that the next offer or sync puts it, which systemd shall
    /// keep also when it hangs up. Nobody is asked.
    ///
    /// # Errors
    ///
    /// There is no fd left.
    pub(crate) fn hold_unpolled(&self, name: &str, fd: BorrowedFd<'_>) -> Result<()> {
        let fds = copies(name, &[fd])?.into_iter().map(|fd| Held { fd, kind: None, stored: false }).collect();
        let group = Group { number: 0, polling: Polling::Off, inherited: false, fds };
        self.lock().groups.insert(name.to_owned(), group);
        Ok(())
    }

    /// Notes that a generation before this one has said that there is no store to outlive a crash.
    pub(crate) fn told(&self) {
        self.lock().warned = true;
    }

    /// Tells whether it was said.
    pub(crate) fn was_told(&self) -> bool {
        self.lock().warned
    }
}

impl Table {
    /// Copies the entries that are wanted, each fd under the name of its slot.
    fn entries(&self, wanted: impl Fn(&str, &Group) -> bool) -> Result<Vec<(String, OwnedFd)>> {
        let mut entries = Vec::new();
        for (name, group) in self.groups.iter().filter(|(name, group)| wanted(name, group)) {
            for held in &group.fds {
                let slot = Slot { name: name.clone(), number: group.number, stored: held.stored };
                entries.extend(copies(name, &[&held.fd])?.into_iter().map(|fd| (slot.to_string(), fd)));
            }
        }
        Ok(entries)
    }

    /// Puts those of names that are not there; of others ours are the newer ones. What the store
    /// has no room for is only logged: the next generation says it again when it is main.
    fn add_for_next(&mut self, additions: Vec<(String, OwnedFd)>) -> Vec<String> {
        let mut names: BTreeMap<String, Vec<OwnedFd>> = BTreeMap::new();
        for (name, fd) in additions {
            match Slot::parse(&name) {
                Some(slot) if !self.groups.contains_key(&slot.name) => names.entry(slot.name).or_default().push(fd),
                Some(_) => {}
                None => tracing::warn!("the next generation named {name:?}, which is no name of the fd store"),
            }
        }
        let mut added = Vec::new();
        for (name, fds) in names {
            match self.put(&name, fds, Polling::On) {
                Ok(_) => added.push(name),
                // It would not answer for the others either, and a reload waits for this.
                Err(error) if error.is_timeout() || error.is_notify() => {
                    tracing::warn!(%error, "what the next generation adds is not kept over a crash until it is main");
                    break;
                }
                Err(error) => tracing::warn!(%error, "{name:?} of the next generation is not kept over a crash"),
            }
        }
        added
    }

    fn offer(&mut self) -> Result<()> {
        self.mode = Mode::Active;
        let Some(line) = self.reachable() else { return Ok(()) };
        let mut sent = false;
        for (name, group) in &self.groups {
            let fds: Vec<_> = group.fds.iter().filter(|held| !held.stored).map(|held| held.fd.as_fd()).collect();
            if !fds.is_empty() {
                line.push(&slot(name, group.number), &fds, group.polling)?;
                sent = true;
            }
        }
        if sent { line.barrier() } else { Ok(()) }
    }
}

/// Pairs the other end's names and fds, one for each.
pub(crate) fn zip(names: Vec<String>, fds: Vec<OwnedFd>) -> Result<Vec<(String, OwnedFd)>> {
    if names.len() != fds.len() {
        let why = format!("{} entries of the fd store came with {} fds", names.len(), fds.len());
        return Err(Error::new(Kind::Protocol, why));
    }
    Ok(names.into_iter().zip(fds).collect())
}

fn handed_over(table: &mut Table, additions: Vec<(String, OwnedFd)>, since: &Snapshot) -> Result<Transfer> {
    let added = table.add_for_next(additions);
    table.freeze();
    table.prune();
    let entries = table.entries(|name, group| since.0.get(name) != Some(&SeenSlots::of(group)))?;
    let gone = since.0.keys().filter(|name| !table.groups.contains_key(*name)).cloned().collect();
    Ok((Changes { entries, gone }, added))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::activation::Activation;
    use crate::systemd::environment::Environment;
    use crate::systemd::fdstore::Names;
    use crate::systemd::notify::Notifier;

    /// Starts a generation without a manager, with these.
    fn generation(passed: Vec<(String, OwnedFd)>) -> FdStore {
        let environment = Environment::default();
        let notifier = Notifier::from_env(&environment).unwrap();
        let mut activation = Activation::from_fds(passed).unwrap();
        FdStore::open(&environment, &notifier, &mut activation, &Names::new().prefix("")).unwrap()
    }

    fn memory() -> OwnedFd {
        crate::sys::memfd::create(c"test").unwrap().into()
    }

    fn names(entries: &[(String, OwnedFd)]) -> Vec<&str> {
        entries.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn the_next_one_ends_with_what_the_old_one_has() {
        let old = generation(Vec::new());
        for name in ["stays", "goes", "grows", "changes"] {
            old.put(name, &[memory()]).unwrap();
        }
        let (entries, snapshot) = old.estate().unwrap();
        let new = generation(entries);
        new.standby();
        old.remove("goes").unwrap();
        old.put("grows", &[memory()]).unwrap();
        old.replace("changes", &[memory()]).unwrap();
        old.put("comes", &[memory()]).unwrap();
        new.put("own", &[memory()]).unwrap();
        new.put("comes", &[memory(), memory()]).unwrap();

        let additions = new.additions().unwrap();
        let (changes, added) = old.hand_over(additions, &snapshot).unwrap();
        assert_eq!(added, ["own"]);
        assert_eq!(names(&changes.entries), ["changes~1~", "comes~", "grows~", "grows~", "own~"]);
        assert_eq!(changes.gone, ["goes"]);
        assert!(old.put("late", &[memory()]).unwrap_err().is_state());
        new.adopt(changes.entries).unwrap();
        new.forget(&changes.gone);
        assert_eq!(new.list(), old.list());
        for entry in new.list() {
            for (ours, theirs) in new.get(&entry.name).unwrap().iter().zip(old.get(&entry.name).unwrap()) {
                assert!(crate::sys::socket::same(ours.as_fd(), theirs.as_fd()).unwrap(), "{}", entry.name);
            }
        }

        old.thaw(&added).unwrap();
        assert!(old.get("own").unwrap().is_empty(), "a rollback takes back what the next one added");
        old.put("late", &[memory()]).unwrap();
    }

    #[test]
    fn names_that_nobody_can_have_given_are_left_out() {
        let old = generation(Vec::new());
        let (_, snapshot) = old.estate().unwrap();
        let odd = vec![("a:b".to_owned(), memory()), ("x~0".to_owned(), memory()), ("fine~".to_owned(), memory())];
        let (_, added) = old.hand_over(odd, &snapshot).unwrap();
        assert_eq!(added, ["fine"]);
        assert!(zip(vec!["one".into()], Vec::new()).unwrap_err().is_protocol());
    }
}
