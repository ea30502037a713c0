//! Mailboxes into the fd store, and those that are half dead out of it.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::{Book, Books, Insurance, Phase};
use crate::error::{Error, Kind, Result};
use crate::systemd::fdstore::{FdStore, INSURED, Kept};
use crate::transit::channel::Arrival;
use crate::transit::mailbox::{self, Found, Opened, Put};
use crate::wire::parcel::{MAX_PARCELS, Record};

/// Empty mailboxes that stay in the store, to be used again: one is filled while another is
/// renewed.
const SPARE: usize = 2;
/// Empty mailboxes that are in the store before any connection comes: so many can be filled before
/// the store has answered for the first time.
const PROVIDED: usize = 3;
/// A mailbox of few that connections are put into is renewed if half of it has ended, and it is so
/// old: a copy keeps what has ended in the kernel's memory.
const RENEW_AFTER: Duration = Duration::from_secs(10);

impl Insurance {
    /// Stores what is new, and renews what is worn. It blocks for as long as the manager needs.
    ///
    /// # Errors
    /// The store does not take it; it is tried again the next time.
    pub(crate) fn renew(&self, store: &FdStore) -> Result<()> {
        let _one = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stores) = self.lock().may_store() else { return Ok(()) };
        if stores {
            if store.is_standby() {
                return Ok(());
            }
            self.store_new(store)?;
            self.retire(store)?;
        }
        let worn = self.lock().worn();
        // One after the other: what is in two counts twice among the fds in flight.
        for at in worn {
            self.repack(at)?;
            // What is in the store is not emptied before that is there which takes its place.
            if stores {
                self.store_new(store)?;
            }
            self.retire(store)?;
        }
        Ok(())
    }

    /// Puts what lives of a mailbox into another one.
    fn repack(&self, at: u64) -> Result<()> {
        let Some((mailbox, alive)) = self.lock().all.get(&at).map(|book| (book.mailbox.clone(), book.alive())) else {
            return Ok(());
        };
        if alive > 0 {
            let mut opened = Opened::look(mailbox.reader())?;
            let mut some: Vec<(Record, OwnedFd)> = Vec::with_capacity(MAX_PARCELS);
            while let Some(found) = opened.next()? {
                let Found::Parcels(arrivals) = found else { continue };
                for arrival in arrivals {
                    match arrival {
                        Arrival::Whole(parcel) => {
                            let (record, fd, _) = parcel.into_parts();
                            some.push((record, fd));
                        }
                        Arrival::Broken(record, _) if self.marks.has(record.id) => {
                            let why = "there are no fds to renew a mailbox of insured connections with (LimitNOFILE=)";
                            return Err(Error::new(Kind::Store, why));
                        }
                        Arrival::Broken(..) => {}
                    }
                }
                if some.len() >= MAX_PARCELS / 2 {
                    self.pack(at, &mut some)?;
                }
            }
            self.pack(at, &mut some)?;
        }
        if let Some(book) = self.lock().all.get_mut(&at) {
            book.moved = true;
        }
        Ok(())
    }

    /// Puts those of them that live into the mailbox of such as have lived for long.
    fn pack(&self, from: u64, some: &mut Vec<(Record, OwnedFd)>) -> Result<()> {
        let mut books = self.lock();
        // Under the lock: none of them ends meanwhile.
        some.retain(|(record, _)| self.marks.has(record.id) && books.homes.get(&record.id) == Some(&from));
        if some.is_empty() {
            return Ok(());
        }
        let records: Vec<Record> = some.iter().map(|(record, _)| record.clone()).collect();
        let fds: Vec<BorrowedFd<'_>> = some.iter().map(|(_, fd)| fd.as_fd()).collect();
        loop {
            let at = match books.packed {
                Some(at) => at,
                None => books.begin(self, false)?,
            };
            books.packed = Some(at);
            let Some(book) = books.all.get_mut(&at) else { return Ok(()) };
            match book.mailbox.put_copies(records.clone(), &fds)? {
                Put::In(count) => {
                    book.messages += 1;
                    book.entries += count;
                    for record in &records {
                        books.homes.insert(record.id, at);
                    }
                    if let Some(book) = books.all.get_mut(&from) {
                        book.dead += count;
                    }
                    drop(books);
                    some.clear();
                    return Ok(());
                }
                Put::Full if book.entries > 0 => books.seal(at),
                Put::Full | Put::TooMany => {
                    let why = "no mailbox takes the connections of another one (LimitNOFILE=)";
                    return Err(Error::new(Kind::Store, why));
                }
            }
        }
    }

    /// Has empty mailboxes in the store's books, for the first connections: they go there with the
    /// next offer, which does not ask first whether there is room, as that takes a while under a
    /// systemd before 254. False: some were there already.
    ///
    /// # Errors
    /// There are no fds for them.
    pub(crate) fn provide(&self, store: &FdStore) -> Result<bool> {
        // Before the lock: a change of the store takes as long as the manager takes.
        let names: Vec<String> = free_names(store).take(PROVIDED).collect();
        let mut books = self.lock();
        if books.phase == Phase::Over || books.all.values().any(|book| book.name.is_some()) {
            return Ok(false);
        }
        // What has come already is put where it is.
        let mut first = books.single;
        let mut provided = Vec::with_capacity(names.len());
        for name in names {
            let at = match first.take() {
                Some(at) => at,
                None => match books.begin(self, false) {
                    Ok(at) => {
                        books.spare.push(at);
                        at
                    }
                    Err(error) if provided.is_empty() => return Err(error),
                    Err(_) => break,
                },
            };
            let Some(book) = books.all.get_mut(&at) else { continue };
            book.name = Some(name.clone());
            provided.push((at, name, book.mailbox.clone()));
        }
        drop(books);
        for (at, name, mailbox) in provided {
            store.hold_unpolled(&name, mailbox.reader()).inspect_err(|_| self.call(at, None))?;
        }
        self.changed.notify_one();
        Ok(true)
    }

    /// Begins in earnest: what the store took unasked is there, or else nothing is insured.
    ///
    /// # Errors
    /// There is no store.
    pub(crate) fn confirm(&self, store: &FdStore) -> Result<()> {
        let entries = store.list().into_iter();
        let held: Vec<_> = entries.filter(|entry| entry.kept == Kept::HeldOnly && self.has(&entry.name)).collect();
        if held.is_empty() {
            self.activate();
            return Ok(());
        }
        for entry in held {
            let _ = store.remove(&entry.name);
        }
        Err(self.give_up())
    }

    fn give_up(&self) -> Error {
        self.end();
        let why = "no connection is insured against a crash: the service has no fd store; set \
                   FileDescriptorStoreMax= in the [Service] section, for example to 64";
        Error::new(Kind::Store, why)
    }

    fn store_new(&self, store: &FdStore) -> Result<()> {
        let new: Vec<_> = {
            let books = self.lock();
            let new = books.all.iter().filter(|(_, book)| book.name.is_none() && book.entries > 0 && !book.moved);
            new.map(|(at, book)| (*at, book.mailbox.clone())).collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let mut free = free_names(store);
        for (at, mailbox) in new {
            let Some(name) = free.next() else { return Ok(()) };
            // First the name: whoever looks at the store shall know whose it is.
            self.call(at, Some(name.clone()));
            let kept = store.put_unpolled(&name, &[mailbox.reader()]).inspect_err(|_| self.call(at, None))?;
            match kept {
                Kept::Stored => {}
                Kept::HeldOnly => {
                    let _ = store.remove(&name);
                    return Err(self.give_up());
                }
            }
        }
        Ok(())
    }

    fn call(&self, at: u64, name: Option<String>) {
        if let Some(book) = self.lock().all.get_mut(&at) {
            book.name = name;
        }
    }

    /// What lives is in the store elsewhere: a mailbox that was renewed is used again, or removed.
    fn retire(&self, store: &FdStore) -> Result<()> {
        let moved: Vec<_> = {
            let books = self.lock();
            let moved = books.all.iter().filter(|(_, book)| book.moved);
            moved.map(|(at, book)| (*at, book.mailbox.clone(), book.name.clone())).collect()
        };
        for (at, mailbox, name) in moved {
            let reuse = name.is_some() && self.lock().spare.len() < SPARE;
            if reuse {
                mailbox.begin_anew(self.generation, &self.postage())?;
            } else {
                mailbox::empty(mailbox.reader())?;
                if let Some(name) = name {
                    store.remove(&name)?;
                }
            }
            let mut books = self.lock();
            match books.all.get_mut(&at) {
                Some(book) if reuse => {
                    *book = Book::empty(book);
                    books.spare.push(at);
                }
                _ => drop(books.all.remove(&at)),
            }
        }
        Ok(())
    }
}

/// Returns the names for mailboxes that the store has nothing under.
fn free_names(store: &FdStore) -> impl Iterator<Item = String> {
    let taken: BTreeSet<String> = store.list().into_iter().map(|entry| entry.name).collect();
    (0_u64..).map(|number| format!("{INSURED}{number}")).filter(move |name| !taken.contains(name))
}

impl Books {
    /// Returns whether mailboxes may be stored now; `None`: all stays as it is. A first one is
    /// there before the store was asked, which takes a while, and is full within less.
    fn may_store(&self) -> Option<bool> {
        match self.phase {
            Phase::Active => Some(true),
            Phase::Waiting => Some(self.all.values().any(|book| book.name.is_some())),
            Phase::Frozen | Phase::Over => None,
        }
    }

    /// Returns those that are to be renewed; nothing more is put into them.
    fn worn(&mut self) -> Vec<u64> {
        let old = |book: &Book| book.is_half_dead() && book.since.elapsed() >= RENEW_AFTER;
        self.single = self.single.filter(|at| !self.all.get(at).is_some_and(old));
        self.packed = self.packed.filter(|at| !self.all.get(at).is_some_and(old));
        let filled = |at: &u64| Some(*at) == self.single || Some(*at) == self.packed || self.spare.contains(at);
        self.all.iter().filter(|(at, book)| !filled(at) && book.is_worn()).map(|(at, _)| *at).collect()
    }
}

impl Book {
    fn alive(&self) -> usize {
        self.entries.saturating_sub(self.dead)
    }

    /// The same one, with nothing in it.
    fn empty(was: &Self) -> Self {
        Self {
            mailbox: was.mailbox.clone(),
            name: was.name.clone(),
            since: Instant::now(),
            messages: 0,
            entries: 0,
            dead: 0,
            moved: false,
        }
    }
}
