//! Where each datagram of a socket with flows goes: here, or to an older generation. It is one task
//! for one socket.

use super::core::Phase;
use super::datagram::{Datagram, Datagrams};
use super::entering::Entering;
use super::guard::Guard;
use super::open_flows::{Change, KeyFn, OpenFlows};
use super::peer::DatagramPeer;
use super::relay::Relay;
use crate::wire::flows::{self, FlowMessage};
use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// How long a new generation waits for the old one to have told all its flows, before it receives.
/// Then it takes what comes for flows that it does not know.
pub const FLOWS_TIMEOUT: Duration = Duration::from_secs(1);
/// How often we look, in a drain, whether a datagram in the application's hands has opened a flow.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How often it is logged how many datagrams were lost.
const TOLD_AGAIN: Duration = Duration::from_secs(10);

pub(super) struct Router {
    datagrams: Datagrams,
    key: KeyFn,
    shared: Arc<OpenFlows>,
    gate: watch::Receiver<bool>,
    changes: mpsc::UnboundedReceiver<Change>,
    links: mpsc::UnboundedReceiver<OwnedFd>,
    queue: mpsc::Sender<Datagram>,
    /// The link to the generation before this one, while that has flows.
    older: Option<Relay>,
    /// The flows that older generations have.
    routes: HashSet<Vec<u8>>,
    /// The older generation has stopped to receive, and has told all its flows.
    told: bool,
    /// The link to the generation that receives, or will.
    newer: Option<Relay>,
    /// It knows our flows.
    announced: bool,
    /// A link to a next generation was closed: it failed, or receives and needs us no more. As
    /// nobody tells which, we do not receive in a drain.
    succeeded: bool,
    /// Holds this generation while it passes datagrams on to an older one.
    passing: Option<Guard>,
    lost: (u64, Option<Instant>),
}

/// What happened.
enum Happened {
    Look,
    Link(OwnedFd),
    Change(Change),
    Older(Option<FlowMessage>),
    Newer(Option<FlowMessage>),
    Flushed(bool),
    Room(Option<OwnedPermit<Datagram>>),
    Taken((Vec<u8>, DatagramPeer), Option<Entering>),
    Waited,
}

impl Router {
    pub(super) fn new(
        datagrams: Datagrams,
        key: KeyFn,
        shared: Arc<OpenFlows>,
        older: Option<Relay>,
        changes: mpsc::UnboundedReceiver<Change>,
        links: mpsc::UnboundedReceiver<OwnedFd>,
        queue: mpsc::Sender<Datagram>,
    ) -> Self {
        let gate = shared.drain.core.gate.subscribe();
        Self {
            datagrams,
            key,
            shared,
            gate,
            changes,
            links,
            queue,
            told: older.is_none(),
            older,
            routes: HashSet::new(),
            newer: None,
            announced: false,
            succeeded: false,
            passing: None,
            lost: (0, None),
        }
    }

    /// Routes until the drain has begun and no flow is left, or until the hammer falls.
    pub(super) async fn run(mut self) {
        let mut room = None;
        // From when on the gate is open and we wait for the older generation's flows.
        let mut waiting_since = None;
        loop {
            let open = *self.gate.borrow_and_update();
            let phase = self.shared.drain.phase();
            if !open {
                self.announce();
            } else if !self.told {
                waiting_since.get_or_insert_with(Instant::now);
            }
            let drains = phase != Phase::Open;
            self.hold();
            let idle = self.shared.own().is_empty() && self.routes.is_empty();
            if phase == Phase::Hammered || (drains && idle && self.datagrams.in_hand() == 0) {
                return;
            }
            // A service that stops, with nobody after it: its flows shall end in order, and nobody
            // else would receive.
            let alone = drains && !self.succeeded && self.newer.is_none() && !self.shared.own().is_empty();
            match self.next(room.is_some(), open && self.told, alone, idle && drains, waiting_since).await {
                Happened::Look => {}
                Happened::Link(fd) => match Relay::new(fd) {
                    Ok(newer) => (self.newer, self.announced, self.succeeded) = (Some(newer), false, false),
                    Err(error) => {
                        tracing::warn!(name = &*self.shared.name, %error, "the next generation will not know our flows");
                    }
                },
                Happened::Change(change) => self.tell(change),
                Happened::Older(message) => self.on_older(message),
                Happened::Newer(Some(FlowMessage::Datagram { from, bytes })) => {
                    self.route(bytes, from, None, &mut room);
                }
                Happened::Newer(Some(_)) | Happened::Flushed(true) => {}
                Happened::Newer(None) | Happened::Flushed(false) => {
                    (self.newer, self.succeeded) = (None, true);
                }
                Happened::Room(Some(permit)) => room = Some(permit),
                // The application does not receive any more.
                Happened::Room(None) => return,
                Happened::Taken((bytes, DatagramPeer::Udp(from)), entering) => {
                    // Alone, only for flows that are open: the service stops.
                    let ours = |key: Vec<u8>| self.shared.own().contains(&key);
                    if entering.is_some() || (self.key)(&bytes, from).is_some_and(ours) {
                        self.route(bytes, from, entering, &mut room);
                    }
                }
                Happened::Taken(..) => {}
                Happened::Waited => {
                    self.told = true;
                    tracing::warn!(
                        name = &*self.shared.name,
                        "the previous generation has not told its flows within {FLOWS_TIMEOUT:?}"
                    );
                }
            }
        }
    }

    async fn next(
        &mut self,
        room: bool,
        receives: bool,
        alone: bool,
        lingers: bool,
        waiting_since: Option<Instant>,
    ) -> Happened {
        let Self { datagrams, gate, changes, links, queue, older, newer, told, .. } = self;
        let flushes = newer.as_ref().is_some_and(Relay::has_queued);
        // Two borrows of it: it is flushed first, as what it answers comes after that.
        let (flushed, newer) = if flushes { (newer.as_mut(), None) } else { (None, newer.as_ref()) };
        let waited = waiting_since.filter(|_| !*told).map(|since| since + FLOWS_TIMEOUT);
        tokio::select! {
            biased;
            _ = gate.changed() => Happened::Look,
            Some(fd) = links.recv() => Happened::Link(fd),
            Some(change) = changes.recv() => Happened::Change(change),
            Some(message) = from(older.as_ref()) => Happened::Older(message),
            Some(sent) = flush(flushed) => Happened::Flushed(sent),
            room = queue.clone().reserve_owned(), if !room => Happened::Room(room.ok()),
            Some(message) = from(newer), if room => Happened::Newer(message),
            Some((taken, entering)) = take(datagrams, receives), if room && (receives || alone) => Happened::Taken(taken, entering),
            () = at(waited) => Happened::Waited,
            () = sleep(LOOK_AGAIN), if lingers => Happened::Look,
        }
    }

    /// Tells a new generation our flows, and that we do not receive any more.
    fn announce(&mut self) {
        let Some(newer) = self.newer.as_mut().filter(|_| !self.announced) else { return };
        let own = self.shared.own();
        newer.queue(flows::keys(true, own.iter().chain(&self.routes).map(Vec::as_slice)));
        newer.queue([flows::shut()]);
        self.announced = true;
    }

    fn tell(&mut self, change: Change) {
        match change {
            Change::Added(key) => self.pass_on(true, &[key]),
            Change::Removed(key) => self.pass_on(false, &[key]),
        }
    }

    fn pass_on(&mut self, added: bool, keys: &[Vec<u8>]) {
        if let Some(newer) = self.newer.as_mut().filter(|_| self.announced) {
            newer.queue(flows::keys(added, keys.iter().map(Vec::as_slice)));
        }
    }

    fn on_older(&mut self, message: Option<FlowMessage>) {
        match message {
            Some(FlowMessage::Added(keys)) => {
                self.pass_on(true, &keys);
                self.routes.extend(keys);
            }
            Some(FlowMessage::Removed(keys)) => {
                self.pass_on(false, &keys);
                keys.iter().for_each(|key| _ = self.routes.remove(key));
            }
            Some(FlowMessage::Shut) => self.told = true,
            Some(_) => {}
            None => {
                let keys: Vec<_> = self.routes.drain().collect();
                self.pass_on(false, &keys);
                (self.older, self.told) = (None, true);
            }
        }
    }

    /// Holds this generation while it passes datagrams on, also when its own flows are over.
    fn hold(&mut self) {
        if self.routes.is_empty() {
            self.passing = None;
        } else if self.passing.is_none() {
            let what = format!("{}: flows of an older generation", self.shared.name);
            self.passing = Some(self.shared.drain.register(what));
        }
    }

    fn route(
        &mut self,
        bytes: Vec<u8>,
        from: SocketAddr,
        entering: Option<Entering>,
        room: &mut Option<OwnedPermit<Datagram>>,
    ) {
        let key = (self.key)(&bytes, from);
        let elsewhere = key.is_some_and(|key| self.routes.contains(&key) && !self.shared.own().contains(&key));
        if let Some(older) = self.older.as_ref().filter(|_| elsewhere) {
            match older.try_send(&flows::datagram(from, &bytes)) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.lost(),
                // It is gone just now, and its flows with it: what comes for them is ours.
                Err(_) => {}
            }
        }
        let datagram = self.datagrams.datagram(bytes, DatagramPeer::Udp(from), entering);
        if let Some(room) = room.take() {
            room.send(datagram);
        }
    }

    fn lost(&mut self) {
        let (count, told) = &mut self.lost;
        *count += 1;
        if told.is_none_or(|at| at.elapsed() >= TOLD_AGAIN) {
            *told = Some(Instant::now());
            tracing::warn!(
                name = &*self.shared.name,
                lost = *count,
                "the previous generation does not take its datagrams: {count} dropped"
            );
        }
    }
}

async fn take(datagrams: &mut Datagrams, gated: bool) -> Option<((Vec<u8>, DatagramPeer), Option<Entering>)> {
    if gated {
        datagrams.take().await.map(|(taken, entering)| (taken, Some(entering)))
    } else {
        datagrams.take_ungated().await.map(|taken| (taken, None))
    }
}

async fn from(relay: Option<&Relay>) -> Option<Option<FlowMessage>> {
    Some(relay?.receive().await)
}

async fn flush(relay: Option<&mut Relay>) -> Option<bool> {
    Some(relay?.flush().await)
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
