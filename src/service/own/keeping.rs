//! Connections that wait for the next start of the service, and those that have waited for this
//! one.

use std::time::Duration;

use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use crate::drain::moving::{PARK_TIMEOUT, Resuming};
use crate::lifecycle::{Event, LifeState};
use crate::reload::driver::Lifecycles;
use crate::reload::input::Input;
use crate::reload::moment::{Facts, Moment};
use crate::service::own::OwnGeneration;
use crate::service::sockets::lock;
use crate::settings::{KeepOnStop, Migrate};
use crate::sys::fdtable::make_room;
use crate::systemd::fdstore::MAILBOX;
use crate::systemd::follows::Follows;

/// The end.
impl OwnGeneration {
    /// Returns how it is found out whether connections are kept for the next start; `None`: they
    /// are not.
    pub(super) fn keeps_connections(&self, state: LifeState) -> Option<KeepOnStop> {
        let serves = matches!(state, LifeState::Serving | LifeState::Reloading(_));
        let keeps = self.settings.migrate >= Migrate::Restart && lock(&self.sockets).store().is_there();
        (serves && keeps).then_some(self.settings.keep_on_stop)
    }

    pub(super) fn on_follows(&mut self, lives: &mut Lifecycles, follows: Follows) {
        if self.keeps_connections(lives.state(self.number)).is_none() {
            return debug!(?follows, "too late: the service stops already");
        }
        let event = match follows {
            Follows::Start => Event::Restart,
            Follows::Nothing => Event::Stop,
            Follows::Unknown(why) => {
                warn!(
                    generation = self.number,
                    "whether a start follows this stop is not known ({why}): connections are closed; with keep_on_stop = \
                     \"always\" they are kept at each stop, and nobody is asked"
                );
                Event::Stop
            }
        };
        lives.push(self.number, event);
        self.release_reloads(lives);
    }

    /// Serves on until what is in hand is finished, and the older generations are gone: from then
    /// on clients wait for the next start.
    pub(super) fn settle(&mut self) {
        self.ask_for_time();
        let (limit, hurry) = (self.settings.drain_timeout, self.settings.hurry_timeout);
        // The last moments are for those that are in the middle of something then.
        let within = limit.saturating_sub(hurry.min(limit / 4)).saturating_sub(PARK_TIMEOUT);
        let until = tokio::time::Instant::now() + within;
        self.keeping = Some(until);
        let (settled, inputs) = (self.drain.settled(until), self.inputs.clone());
        self.tasks.spawn(async move {
            settled.await;
            let _ = inputs.send(Input::Settled);
        });
    }

    /// The exit waits for older generations, and so would the clients.
    pub(super) fn leave_if_settled(&self, lives: &mut Lifecycles) {
        let late = self.keeping.is_some_and(|until| tokio::time::Instant::now() >= until);
        if self.settled && (self.drainers.is_empty() || late) {
            lives.push(self.number, Event::Settled);
        }
    }
}

/// The start.
impl OwnGeneration {
    /// Looks at what has waited for this start, without taking it. After a reload nothing has.
    pub(super) fn look_at_kept(&mut self) {
        if self.predecessor.is_some() {
            return;
        }
        let readers = lock(&self.sockets).store().get(MAILBOX).unwrap_or_else(|error| {
            warn!(%error, "the connections that have waited for this start are closed");
            Vec::new()
        });
        let left = self.left();
        if readers.is_empty() && left.is_empty() {
            // The next ones get a large table from us. Aside, as others need to wait only if they
            // outgrow the small one meanwhile.
            drop(spawn_blocking(|| make_room(0)));
        } else {
            self.resuming = Some(self.drain.look_at_kept(readers, left, self.resumes_within()));
        }
    }

    pub(super) fn resumes_within(&self) -> Option<Duration> {
        Some(self.settings.resume_within).filter(|_| self.settings.migrate != Migrate::Never)
    }

    /// Serves what has waited.
    pub(super) fn resume(&mut self) {
        if let Some(resuming) = self.resuming.take() {
            self.secure(resuming);
        }
    }

    /// Serves it: what it has waited in is empty from then on.
    pub(super) fn serve_kept(&mut self, mut resuming: Resuming) {
        let spent = resuming.take_spent(self.drainers.is_empty());
        let resumed = resuming.begin(&self.drain);
        // Not before: what is in a mailbox counts against what may be on its way to the manager.
        self.remove_spent(spent);
        let closed = match resumed.closed() {
            0 => String::new(),
            count => {
                let reasons: Vec<_> =
                    resumed.closed.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
                format!(", {count} are closed ({})", reasons.join(", "))
            }
        };
        // An empty one was emptied by a process that ended before it was removed.
        if resumed.resumed + resumed.closed() == 0 {
            return;
        }
        let waited = Duration::from_millis(u64::try_from(resumed.waited.as_millis()).unwrap_or(u64::MAX));
        let whose = if resumed.is_after_crash() { "a process left that ended" } else { "have waited for" };
        let ago = if resumed.is_after_crash() { " ago" } else { "" };
        let detail = &format!("serves {} connections that {whose} {waited:?}{ago}{closed}", resumed.resumed);
        let move_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        let facts = Facts { detail, moved: resumed.resumed, stayed: resumed.closed(), move_ms, ..self.facts() };
        self.narrator.tell(Moment::Resumed, &facts);
    }
}
