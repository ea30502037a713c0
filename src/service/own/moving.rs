//! Connections that go to the next generation, and those that come from the one before.

use std::os::fd::OwnedFd;

use tracing::{debug, warn};

use crate::reload::moment::{Facts, Moment};
use crate::service::own::OwnGeneration;
use crate::settings::Migrate;
use crate::transit::Channel;

impl OwnGeneration {
    /// Before the next generation is told that it is main: until then a rollback has nothing to
    /// bring back, and from then on its connections are welcome there.
    pub(super) fn open_channel(&self) {
        if self.settings.migrate == Migrate::Never {
            return;
        }
        match self.successor.channel() {
            Ok(Some((channel, takes))) => self.drain.move_to(channel, takes, self.settings.move_within),
            Ok(None) => debug!("the next generation takes no connections"),
            Err(error) => warn!(%error, "no connection can move: they drain here"),
        }
    }

    /// Takes what the previous generation gives.
    pub(super) fn take_connections(&mut self, fds: Vec<OwnedFd>) {
        for fd in fds {
            match Channel::new(fd) {
                Ok(channel) => {
                    let drain = self.drain.clone();
                    self.tasks.spawn(async move {
                        let adopted = drain.take_from(channel).await;
                        debug!(adopted, "all connections of the previous generation have come");
                    });
                }
                Err(error) => warn!(%error, "no connections of the previous generation can come"),
            }
        }
    }

    /// None is left that could move, or the drain is over. It is told once.
    pub(super) fn tell_moved(&mut self) {
        let Some(moved) = self.drain.moved().filter(|_| !self.told_moved) else { return };
        self.told_moved = true;
        if self.keeping.is_some() && moved.moved + moved.stayed() == 0 {
            return;
        }
        let stayed = match moved.stayed() {
            0 => String::new(),
            count => {
                let reasons: Vec<_> = moved.stayed.iter().map(|(reason, count)| format!("{reason}: {count}")).collect();
                format!(", {count} stayed ({})", reasons.join(", "))
            }
        };
        let (moment, verb) = match self.keeping {
            Some(_) => (Moment::Kept, "keeps"),
            None => (Moment::Moved, "moved"),
        };
        let detail = &format!("{verb} {} connections within {:?}{stayed}", moved.moved, moved.took);
        let move_ms = u64::try_from(moved.took.as_millis()).unwrap_or(u64::MAX);
        let facts = Facts { detail, moved: moved.moved, stayed: moved.stayed(), move_ms, ..self.facts() };
        self.narrator.tell(moment, &facts);
    }
}
