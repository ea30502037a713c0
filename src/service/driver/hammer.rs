//! The end of a drain: nothing is left, or what is left is cut.

use std::time::Duration;

use tracing::{info, warn};

use super::Driver;
use crate::lifecycle::End;
use crate::service::clock::millis;
use crate::service::hooks::When;
use crate::service::steps::What;
use crate::service::{events, lock};
use crate::systemd::notify::Message;
use crate::wire::frame::Frame;

/// The hammer names so many connections, one a line; of more it gives the number.
const MAX_CUT_LINES: usize = 100;

impl Driver {
    pub(crate) fn hammer(&mut self) {
        let cut = self.drain.hammer();
        for what in cut.iter().take(MAX_CUT_LINES) {
            warn!(
                message_id = events::CUT,
                generation = self.generation,
                handover_id = self.own_handover(),
                "cut {what}"
            );
        }
        if let Some(more @ 1..) = cut.len().checked_sub(MAX_CUT_LINES) {
            warn!(generation = self.generation, "cut {more} more like these");
        }
        warn!(
            message_id = events::HAMMERED,
            generation = self.generation,
            handover_id = self.own_handover(),
            old_pid = self.pid,
            new_pid = self.next_pid(),
            cut = cut.len(),
            drain_ms = millis(self.began),
            "hammered; connections cut: {}",
            cut.len()
        );
        self.tell(What::Hammered);
        self.fire(When::Hammered, |event| event.cut = cut.iter().map(ToString::to_string).collect());
        for older in &self.drainers {
            let _ = older.link.send(&Frame::Hammer);
        }
        // Programs of jobs get SIGTERM, and time for it.
        let grace = self.jobs.programs_end_within();
        let is_main = self.reload.as_ref().is_none_or(|r| r.ended);
        if is_main && !grace.is_zero() {
            self.outbox.send(Message::new().extend_timeout(grace + Duration::from_secs(1)));
        }
    }

    pub(crate) fn exit(&mut self, end: End) {
        self.pass_last_counts();
        if self.stopping {
            lock(&self.sockets).remove_paths();
        }
        match &end {
            End::Done => {
                info!(
                    message_id = events::DRAINED,
                    generation = self.generation,
                    handover_id = self.own_handover(),
                    old_pid = self.pid,
                    new_pid = self.next_pid(),
                    drain_ms = millis(self.began),
                    "generation {} has drained and exits",
                    self.generation
                );
            }
            End::Hammered => {}
            End::Failed(why) => {
                let generation = self.generation;
                warn!(message_id = events::FAILED, generation, "generation {generation} exits: {why}");
            }
        }
        self.tell(What::Exits);
        self.end = Some(end);
    }
}
