//! What the server sends.

use super::{Fate, Follower, Told, replaced};
use crate::http::h2::frame::{DATA, GOAWAY, HEAD, Head, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, increment};

impl Follower {
    /// Returns how long the first frame is, if all of it is there; else 0.
    pub(in crate::http::h2) fn whole(bytes: &[u8]) -> usize {
        Head::of(bytes).map(Head::total).filter(|total| *total <= bytes.len()).unwrap_or(0)
    }

    /// Returns whether it may overtake those that wait for the client's window.
    pub(in crate::http::h2) fn overtakes(frame: &[u8]) -> bool {
        Head::of(frame).is_some_and(|head| matches!(head.kind, PING | WINDOW_UPDATE))
    }

    /// Says what becomes of the server's next bytes, which begin a frame.
    pub(in crate::http::h2) fn of_server(&mut self, bytes: &[u8]) -> Fate {
        let Some(head) = Head::of(bytes) else { return Fate::Unknown };
        let total = head.total();
        let Some(payload) = bytes.get(HEAD..total) else { return Fate::Unknown };
        match head.kind {
            DATA if i64::try_from(head.length).unwrap_or(i64::MAX) > self.send && self.debt > 0 => return Fate::Wait,
            SETTINGS if head.is_ack() && self.acks_made_up > 0 => {
                self.acks_made_up -= 1;
                return Fate::Drop(total);
            }
            // of a stream that the client knows nothing of
            RST_STREAM if head.id <= self.former && self.refusals > 0 => {
                self.refusals -= 1;
                return Fate::Drop(total);
            }
            WINDOW_UPDATE if head.id == 0 && self.excess > 0 => {
                let by = increment(payload).unwrap_or(0);
                let known = self.excess.min(i64::from(by));
                self.excess -= known;
                let more = by.saturating_sub(u32::try_from(known).unwrap_or(by));
                self.receive += i64::from(more);
                return replaced(total, more);
            }
            _ => {}
        }
        self.note_sent(head, payload);
        Fate::Pass(total)
    }

    /// Notes what the client gets of the server's, cut anywhere.
    #[inline]
    pub(in crate::http::h2) fn sent(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.server_left > 0 {
                let now = bytes.len().min(self.server_left);
                self.server_left -= now;
                bytes = &bytes[now..];
                continue;
            }
            let now = self.server_needs().min(bytes.len());
            let (part, rest) = bytes.split_at(now);
            self.server_head[self.server_has..self.server_has + now].copy_from_slice(part);
            self.server_has += now;
            bytes = rest;
            if self.server_needs() == 0
                && let Some(head) = Head::of(&self.server_head[..self.server_has])
            {
                let payload = self.server_head;
                self.note_sent(head, &payload[HEAD..self.server_has]);
                self.server_left = head.total() - self.server_has;
                self.server_has = 0;
            }
        }
    }

    /// Returns how many bytes are missing of the beginning of a frame: as much as has to be known.
    #[inline]
    fn server_needs(&self) -> usize {
        match Head::of(&self.server_head[..self.server_has]) {
            None => HEAD - self.server_has,
            Some(head) if head.kind == WINDOW_UPDATE && head.length == 4 => HEAD + 4 - self.server_has,
            Some(_) => 0,
        }
    }

    /// Returns whether what was sent ends with a frame.
    pub(in crate::http::h2) fn is_between(&self) -> bool {
        (self.server_has, self.server_left) == (0, 0)
    }

    /// Returns how many of these bytes go on with the frame that is not sent to its end; at least
    /// one, if there is one.
    pub(in crate::http::h2) fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        let rest = if self.server_left > 0 { self.server_left } else { self.server_needs() };
        rest.min(bytes.len())
    }

    #[inline]
    fn note_sent(&mut self, head: Head, payload: &[u8]) {
        match head.kind {
            DATA => self.send -= i64::try_from(head.length).unwrap_or(0),
            RST_STREAM => self.streams.reset(head.id),
            SETTINGS if head.is_ack() => self.acks_due = self.acks_due.saturating_sub(1),
            SETTINGS => {
                let by = if self.successor { Told::Successor } else { Told::Server };
                (self.successor, self.has_told) = (false, true);
                self.told.push_back(by);
            }
            PING if head.is_ack() => self.pings_due = self.pings_due.saturating_sub(1),
            PING => self.pings += 1,
            GOAWAY => self.ends = true,
            WINDOW_UPDATE if head.id == 0 => self.receive += i64::from(increment(payload).unwrap_or(0)),
            _ => {}
        }
        if head.ends_stream() {
            self.streams.server_done(head.id);
        }
    }
}
