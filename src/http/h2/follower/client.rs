//! What the client sends.

use super::{Block, Fate, Follower, MOST_SETTINGS, Told, replaced};
use crate::http::h2::frame::{
    CONTINUATION, DATA, GOAWAY, HEAD, HEADERS, Head, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, increment, settings,
};

impl Follower {
    /// Says what becomes of the client's next bytes, of which no more than `room` pass at a time.
    #[inline]
    pub(in crate::http::h2) fn of_client(&mut self, bytes: &[u8], room: usize) -> Fate {
        let there = bytes.len().min(room);
        for left in [&mut self.preface_left, &mut self.client_left] {
            if *left > 0 {
                let now = there.min(*left);
                *left -= now;
                return if now == 0 { Fate::Unknown } else { Fate::Pass(now) };
            }
        }
        let Some(head) = Head::of(bytes) else { return Fate::Unknown };
        let large = head.length > self.frame_size as usize;
        self.ends |= large; // the server will not have it
        let passes = large || (head.kind == DATA && self.data_passes(head));
        if !passes && bytes.len() < head.total() {
            return Fate::Unknown;
        }
        let payload = bytes.get(HEAD..head.total()).unwrap_or_default();
        let fate = if passes { Fate::Pass(0) } else { self.fate(head, payload) };
        let Fate::Pass(_) = fate else { return fate };
        if there == 0 {
            return Fate::Unknown;
        }
        self.note_passed(head, payload);
        let now = there.min(head.total());
        self.client_left = head.total() - now;
        Fate::Pass(now)
    }

    /// Its beginning passes as soon as it is there.
    fn data_passes(&self, head: Head) -> bool {
        self.block.is_none() && head.id > self.former && (head.id <= self.last || !self.holds())
    }

    /// Says what becomes of a frame that is all there, and changes nothing if it passes.
    fn fate(&mut self, head: Head, payload: &[u8]) -> Fate {
        let total = head.total();
        if let Some(block) = self.block {
            let ends = head.kind == CONTINUATION && head.ends_headers();
            if ends && block != Block::Pass {
                self.block = None;
            }
            return match block {
                Block::Pass => Fate::Pass(0),
                Block::Hold => Fate::Hold(total),
                Block::Late => self.late_block(total, payload, ends),
            };
        }
        let new = head.id > self.last;
        let held = new && self.holds();
        // Its stream was over in the process before, where the client did not know that yet.
        let late = head.id != 0 && head.id <= self.former;
        match head.kind {
            HEADERS if held => {
                self.block = (!head.ends_headers()).then_some(Block::Hold);
                Fate::Hold(total)
            }
            HEADERS if late => {
                self.block = (!head.ends_headers()).then_some(Block::Late);
                self.late_block(total, head.block(payload), head.ends_headers())
            }
            DATA | RST_STREAM | WINDOW_UPDATE if held => Fate::Hold(total),
            DATA if late => {
                let length = u32::try_from(head.length).unwrap_or(0);
                self.receive -= i64::from(length);
                if length > 0 { Fate::Answer(total, self.grant(length)) } else { Fate::Drop(total) }
            }
            RST_STREAM | WINDOW_UPDATE if late => Fate::Drop(total),
            SETTINGS if head.is_ack() => match self.told.front() {
                Some(Told::Server) | None => Fate::Pass(0),
                Some(Told::Successor) => {
                    self.told.pop_front();
                    Fate::Drop(total)
                }
            },
            PING if head.is_ack() && self.former_pings > 0 => {
                self.former_pings -= 1;
                Fate::Drop(total)
            }
            // what is held comes before
            GOAWAY if self.holds() => {
                self.ends = true;
                Fate::Hold(total)
            }
            WINDOW_UPDATE if head.id == 0 && self.debt > 0 => {
                let Some(by) = increment(payload) else { return Fate::Pass(0) };
                let pays = self.debt.min(i64::from(by));
                if pays == 0 {
                    return Fate::Pass(0);
                }
                self.debt -= pays;
                self.send += i64::from(by);
                let rest = by.saturating_sub(u32::try_from(pays).unwrap_or(by));
                replaced(total, rest)
            }
            _ => Fate::Pass(0),
        }
    }

    /// Notes a frame that the server gets. Of DATA and of what is too large there may be no more
    /// than the head.
    #[inline]
    fn note_passed(&mut self, head: Head, payload: &[u8]) {
        match head.kind {
            DATA => {
                self.receive -= i64::try_from(head.length).unwrap_or(0);
                if head.ends_stream() {
                    self.streams.client_done(head.id);
                }
            }
            HEADERS => {
                self.note_headers(head, payload);
                if head.id > self.last {
                    self.last = head.id;
                    self.streams.open(head.id, head.ends_stream());
                } else if head.ends_stream() {
                    self.streams.client_done(head.id);
                }
                self.block = (!head.ends_headers()).then_some(Block::Pass);
            }
            CONTINUATION => {
                self.note_block(payload, head.ends_headers());
                if head.ends_headers() {
                    self.block = None;
                }
            }
            WINDOW_UPDATE if head.id == 0 => self.send += i64::from(increment(payload).unwrap_or(0)),
            RST_STREAM => self.streams.reset(head.id),
            SETTINGS if head.is_ack() => _ = self.told.pop_front(),
            SETTINGS => {
                self.was_told = true;
                self.acks_due += 1;
                settings(payload).for_each(|(key, value)| self.note_setting(key, value));
            }
            PING if head.is_ack() => self.pings = self.pings.saturating_sub(1),
            PING => self.pings_due += 1,
            GOAWAY => self.ends = true,
            _ => {}
        }
    }

    fn note_setting(&mut self, key: u16, value: u32) {
        let few = self.client_settings.len() < MOST_SETTINGS;
        match self.client_settings.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = value,
            None if few => self.client_settings.push((key, value)),
            None => self.ends = true,
        }
    }
}
