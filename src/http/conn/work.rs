//! A connection as the drain sees it.

use super::Conn;
use crate::drain::{Work, since};
use crate::http::stage::Stage;
use crate::http::upgraded::Upgrade;
use crate::metrics::Counted;
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

impl Work for Conn {
    fn wake(&self) {
        self.wakers.wake_all();
        if let Some(upgrade) = self.upgrade() {
            upgrade.wake();
        }
    }

    fn doing(&self) -> Option<String> {
        let stage = self.stage();
        if stage == Stage::Closing {
            return None;
        }
        let protocol = match stage {
            Stage::Http2 | Stage::Preface => "HTTP/2",
            Stage::Upgraded => "upgraded",
            _ => "HTTP/1",
        };
        let mut text = format!(
            "{}: {} ({protocol}, open for {:?}), ",
            self.listener.escape_debug(),
            self.peer,
            since(self.opened)
        );
        let active = self.active();
        // of HTTP/1 the last one stays there when it is over; until its answer is out, it is not
        let unsent = stage == Stage::Replied;
        let some = self.http2.load(Relaxed) || self.answering.load(Relaxed) || unsent;
        // writing to a String cannot fail
        let _ = match (active.oldest().filter(|_| some), stage) {
            (Some(oldest), _) if unsent => write!(text, "{oldest}, the answer is not sent yet"),
            (Some(oldest), _) => write!(text, "{oldest}"),
            (None, Stage::Half) => write!(text, "half a request head"),
            (None, Stage::Head) => write!(text, "a request head"),
            (None, Stage::Preface) => write!(text, "half a preface"),
            (None, Stage::Http2) if self.progress.is_blocked() => write!(text, "an answer that is not sent yet"),
            (None, _) if self.tunnels.load(Relaxed) => write!(text, "idle but for upgraded streams"),
            (None, _) => write!(text, "idle"),
        };
        if let more @ 1.. = active.count().saturating_sub(1) {
            let _ = write!(text, ", and {more} more");
        }
        Some(text)
    }

    fn connection(&self) -> Option<&Counted> {
        Some(&self.metrics)
    }

    fn in_hand(&self) -> Option<u64> {
        let busy = match self.stage() {
            Stage::Head | Stage::Called | Stage::Replying | Stage::Replied => true,
            Stage::Http2 => !self.is_quiet(),
            _ => false,
        };
        (busy && self.may_move.load(Relaxed)).then(|| self.requests())
    }

    fn is_busy(&self) -> bool {
        let waiting = self.waiting.load(Relaxed);
        match self.stage() {
            Stage::Idle | Stage::Half | Stage::Preface | Stage::Closing => false,
            Stage::Http2 => self.tunnels.load(Relaxed) || self.progress.is_blocked() || self.active().count() > waiting,
            Stage::Upgraded => true,
            _ => waiting == 0,
        }
    }

    fn is_aside(&self) -> bool {
        self.aside
    }

    fn movable(&self) -> Result<(), &'static str> {
        match self.stage() {
            _ if !self.may_move.load(Relaxed) => Err(self.stays),
            Stage::Upgraded => self.upgrade().map_or(Err("upgraded"), Upgrade::movable),
            Stage::Unframed => Err("unframed"),
            Stage::Closing => Err("closing"),
            _ => Ok(()),
        }
    }
}
