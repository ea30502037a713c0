//! What a service is doing just now: from what the main generation knows, and what the older ones tell it.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::lifecycle::State;
use crate::service::clock::millis;
use crate::service::driver::{Driver, Input};
use crate::service::lock;
use crate::service::steps::Past;
use crate::sys::queue;
use crate::systemd::activation::Socket;
use crate::systemd::fdstore::Kept;
use crate::wire::frame::Frame;

/// How long older generations may take to say what they hold.
pub const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// A generation names so many of its open connections; of more it gives the number.
pub const MAX_WORK: usize = 20;

/// Of what is open, in words.
const WORK_SHOWN: usize = 300;

/// What a service is doing just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The number of this generation.
    pub generation: u64,
    /// Its pid.
    pub pid: u32,
    /// Where it is in its life, as in [`docs::lifecycle`](crate::docs::lifecycle): `serving`, `reloading`, `draining`, …
    pub state: &'static str,
    /// For how long this generation is there, in milliseconds.
    pub age_ms: u64,
    /// For how long it is main, in milliseconds; `None`: it is not.
    pub main_ms: Option<u64>,
    /// How many connections are open, and how much other work is counted.
    pub connections: usize,
    /// The same by listener and protocol.
    pub open: Vec<Open>,
    /// How many reloads this generation has begun.
    pub reloads: u64,
    /// Of the last of them; before it, of the reload that it came with.
    pub handover_id: Option<String>,
    /// The older generations that drain, oldest first.
    pub draining: Vec<Older>,
    /// Its sockets.
    pub sockets: Vec<SocketStatus>,
    /// What outlives it in systemd's fd store.
    pub store: Vec<StoreEntry>,
    /// The settings that hold.
    pub settings: BTreeMap<String, String>,
    /// The last reloads, the oldest first; those of earlier generations too.
    pub past: Vec<Past>,
    /// The version of this crate.
    pub version: &'static str,
}

/// Open connections of one listener that speak one protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Open {
    /// The listener's name; empty for other work.
    pub listener: String,
    /// `http1`, `http2`, `upgraded`, `stream`, `datagram`, `unknown` before the first byte, or `job` for other work.
    pub protocol: &'static str,
    /// How many.
    pub count: usize,
}

/// An older generation that drains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Older {
    /// Its number.
    pub generation: u64,
    /// Its pid.
    pub pid: u32,
    /// For how long it drains, in milliseconds.
    pub draining_ms: u64,
    /// How much it still has open; `None`: it did not say so within [`ASK_TIMEOUT`].
    pub connections: Option<usize>,
    /// What that is, the oldest first, at most [`MAX_WORK`] of it.
    pub work: Vec<String>,
}

/// A socket of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SocketStatus {
    /// Its name.
    pub name: String,
    /// What it is, in words.
    pub kind: String,
    /// Where it is bound.
    pub address: Option<String>,
    /// How many connections wait to be accepted; of TCP only.
    pub waiting: Option<u32>,
    /// How many may wait; of TCP only.
    pub backlog: Option<u32>,
}

/// What is kept under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StoreEntry {
    /// The name.
    pub name: String,
    /// How many fds it has.
    pub fds: usize,
    /// Whether systemd has it, so that it outlives a crash.
    pub stored: bool,
}

/// About the status.
#[derive(Debug)]
pub(crate) enum Asking {
    /// Somebody wants it.
    Answer(oneshot::Sender<Status>),
    /// Who has not told by now does not count.
    Due,
    /// The main generation asks us, who drain.
    ByMain,
    /// What a drainer holds: its number, how much, and in words.
    Told(u64, usize, Vec<String>),
}

/// Who waits for a status, until the older generations have told.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    waiting: Vec<oneshot::Sender<Status>>,
    told: BTreeMap<u64, (usize, Vec<String>)>,
}

impl SocketStatus {
    pub(crate) fn of(name: &str, socket: &Socket) -> Self {
        let queue = queue::tcp_backlog(socket.as_fd()).filter(|_| socket.check_listener().is_ok());
        Self {
            name: name.to_owned(),
            kind: socket.kind().to_string(),
            address: queue::bound_to(socket.as_fd()),
            waiting: queue.map(|(waiting, _)| waiting),
            backlog: queue.map(|(_, backlog)| backlog),
        }
    }
}

impl Driver {
    pub(crate) fn on_asking(&mut self, asking: Asking) {
        match asking {
            Asking::Answer(answer) => self.asked_for_status(answer),
            Asking::Due => self.answer_status(),
            Asking::ByMain => self.tell_main(),
            Asking::Told(generation, connections, work) => self.on_told(generation, connections, work),
        }
    }

    fn asked_for_status(&mut self, answer: oneshot::Sender<Status>) {
        let first = self.asked.waiting.is_empty();
        self.asked.waiting.push(answer);
        if !first {
            return; // They are being asked already.
        }
        self.asked.told.clear();
        // The watchers of the links, which get the answers, are there only while we are main.
        let asked = match self.chronicle.main_since {
            Some(_) => self.drainers.iter().filter(|d| d.link.send(&Frame::Ask).is_ok()).count(),
            None => 0,
        };
        if asked == 0 {
            return self.answer_status();
        }
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(ASK_TIMEOUT).await;
            let _ = inputs.send(Input::Status(Asking::Due));
        });
    }

    fn on_told(&mut self, generation: u64, connections: usize, work: Vec<String>) {
        self.asked.told.insert(generation, (connections, work));
        if self.drainers.iter().all(|d| self.asked.told.contains_key(&d.generation)) {
            self.answer_status();
        }
    }

    fn answer_status(&mut self) {
        if self.asked.waiting.is_empty() {
            return;
        }
        let status = self.status();
        for answer in std::mem::take(&mut self.asked.waiting) {
            let _ = answer.send(status.clone());
        }
    }

    /// The main generation wants to know what we still hold.
    fn tell_main(&mut self) {
        let mut work = self.drain.work(MAX_WORK);
        for what in &mut work {
            *what = what.chars().take(WORK_SHOWN).collect();
        }
        let frame = Frame::Holds { generation: self.generation, connections: self.drain.active(), work };
        if let Some(coming) = self.reload.as_ref().and_then(|r| r.coming.as_ref()) {
            // If it cannot be told, nobody waits for long.
            let _ = coming.link.send(&frame);
        }
    }

    fn status(&self) -> Status {
        let sockets = lock(&self.sockets);
        let entries = sockets.store().list();
        Status {
            generation: self.generation,
            pid: self.pid,
            state: self.state().name(),
            age_ms: millis(self.chronicle.launched),
            main_ms: self.chronicle.main_since.filter(|_| self.state() != State::Draining).map(millis),
            connections: self.drain.active(),
            open: self
                .drain
                .open()
                .into_iter()
                .map(|(listener, protocol, count)| Open { listener, protocol, count })
                .collect(),
            reloads: self.reloads,
            handover_id: self.own_handover().map(str::to_owned),
            draining: self
                .drainers
                .iter()
                .map(|d| {
                    let told = self.asked.told.get(&d.generation);
                    Older {
                        generation: d.generation,
                        pid: d.pid,
                        draining_ms: millis(d.since),
                        connections: told.map(|(connections, _)| *connections),
                        work: told.map(|(_, work)| work.clone()).unwrap_or_default(),
                    }
                })
                .collect(),
            sockets: sockets.listed(),
            store: entries
                .into_iter()
                .map(|e| StoreEntry { name: e.name, fds: e.fds, stored: e.kept == Kept::Stored })
                .collect(),
            settings: self.settings.named().into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            past: self.chronicle.past.clone(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}
