//! The table that the client's headers refer to.

use super::{Fate, Follower};
use crate::http::h2::FRAME_SIZE;
use crate::http::h2::frame::{Head, headers_frame};
use std::mem::take;

/// The longest block that goes on in further frames and is followed. Servers take none that is
/// longer.
const MOST_BLOCK: usize = 256 << 10;

/// A field that no request may have, and that is in no table: `connection: x`.
const NO_REQUEST: &[u8] = b"\x00\x0aconnection\x01x";

impl Follower {
    /// Notes headers that the server gets.
    #[inline]
    pub(super) fn note_headers(&mut self, head: Head, payload: &[u8]) {
        if head.depends_on_itself(payload) {
            self.lose_table(); // the server refuses it before it reads the headers
        } else {
            self.note_block(head.block(payload), head.ends_headers());
        }
    }

    /// Notes a part of a block of headers.
    #[inline]
    pub(super) fn note_block(&mut self, part: &[u8], ends: bool) {
        if self.ends {
            return; // it matters to nobody any more
        }
        let known = if ends && self.begun.is_empty() {
            self.table.note(part)
        } else if self.begun.len() + part.len() > MOST_BLOCK {
            None
        } else {
            self.begun.extend_from_slice(part);
            if ends { self.table.note(&take(&mut self.begun)) } else { Some(()) }
        };
        if known.is_none() {
            self.lose_table();
        }
    }

    fn lose_table(&mut self) {
        (self.lost, self.ends) = (true, true);
        self.begun = Vec::new();
    }

    /// Has the server read headers of a stream that was over before: for the table, and for nothing
    /// else.
    pub(super) fn late_block(&mut self, total: usize, part: &[u8], ends: bool) -> Fate {
        self.begun.extend_from_slice(part);
        let fits = self.begun.len() + NO_REQUEST.len() <= FRAME_SIZE as usize && self.made_up <= self.former;
        if !fits {
            // No client says so much where nobody listens: the server is to say that it is wrong.
            self.lose_table();
            return Fate::Pass(0);
        }
        if !ends {
            return Fate::Drop(total);
        }
        let block = take(&mut self.begun);
        self.remade = self.for_the_table(&block);
        self.note_block(&block, true);
        Fate::Remake(total)
    }

    /// Makes headers that the server reads and refuses, of a stream that was over before.
    pub(super) fn for_the_table(&mut self, block: &[u8]) -> Vec<u8> {
        let id = self.made_up;
        self.made_up += 2;
        self.refusals += 1;
        headers_frame(id, &[block, NO_REQUEST].concat())
    }
}
