//! Follows the frames of a connection in both directions, and says what becomes of each.
//!
//! It knows of them what a fresh HTTP/2 connection in another process has to know. The table that
//! the client's headers refer to is a part of that: a fresh decoder gets its entries by a stream
//! that no server can take for a request, and that the client hears nothing of. To have the client
//! empty it instead, by `SETTINGS_HEADER_TABLE_SIZE`, does not do: there are clients that
//! acknowledge that and go on as before. Our encoder begins anew while the client's decoder still
//! has the old one's entries. Indices count from the newest entry, and the client drops the oldest
//! first: all that the fresh encoder refers to, which is its own, is where it should be.

mod client;
#[cfg(all(feature = "settings", feature = "supervise", feature = "upgrade"))]
pub(super) mod fuzz;
mod headers;
mod server;
#[cfg(test)]
mod tests;

use super::frame::{FIRST_WINDOW, HEAD, window_update};
use super::state::Http2State;
use super::streams::OpenStreams;
use super::table::HeaderTable;
use std::collections::VecDeque;
use std::mem::take;

/// A WINDOW_UPDATE.
pub(super) type Update = [u8; HEAD + 4];

/// The settings of a client that are known; of one with more nothing is carried.
const MOST_SETTINGS: usize = 32;

/// What becomes of the next bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// There must be more of them before that is known.
    Unknown,
    /// So many go on.
    Pass(usize),
    /// So many are kept for the next process.
    Hold(usize),
    /// So many are nothing to the other side.
    Drop(usize),
    /// And this goes to the other side instead.
    Replace(usize, Update),
    /// And what was made of them goes on instead.
    Remake(usize),
    /// And this goes back.
    Answer(usize, Update),
    /// They wait until the client's window is large enough.
    Wait,
}

/// Whose settings the client acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Server,
    /// By the fresh server, which has been told that they were: the client knows them by and by,
    /// and until then it goes by those of the former one, which allow no more.
    Successor,
}

#[derive(Debug)]
pub(super) struct Follower {
    streams: OpenStreams,
    /// The highest stream of the client's, here and in processes before.
    last: u32,
    former: u32,
    client_settings: Vec<(u16, u32)>,
    /// What the client has granted on the connection, and was granted, and has not been used.
    send: i64,
    receive: i64,
    /// How much more than that a fresh server believes that it may send, and how much less it knows
    /// to have granted.
    debt: i64,
    excess: i64,
    stream_window: u32,
    frame_size: u32,
    /// Those of the server's, and of a former one's, that the client has not answered.
    pings: u64,
    former_pings: u64,
    /// The client's, that the server has not answered.
    pings_due: u64,
    acks_due: u64,
    /// What it answers to what the client has not said.
    acks_made_up: u64,
    told: VecDeque<Told>,
    /// Fresh, it has still to say its settings.
    successor: bool,
    has_told: bool,
    was_told: bool,
    /// The client's new streams are held.
    holds: bool,
    /// What its headers refer to.
    table: HeaderTable,
    /// The beginning of a block of headers that goes on.
    begun: Vec<u8>,
    /// What its headers refer to is not known.
    lost: bool,
    /// Streams that are for the table alone: the next one, and those that the server has still to
    /// refuse.
    made_up: u32,
    refusals: u32,
    /// What goes on in place of what came.
    remade: Vec<u8>,
    /// Whatever comes is for the server here: one of them says goodbye, or is not understood.
    ends: bool,
    preface_left: usize,
    /// Of the client's current frame, what was not passed on.
    client_left: usize,
    /// A block of headers goes on: the fate of its first frame.
    block: Option<Block>,
    /// The server's current frame, if all of it is not sent.
    server_head: [u8; HEAD + 4],
    server_has: usize,
    server_left: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Pass,
    Hold,
    /// Of a stream that was over.
    Late,
}

impl Follower {
    /// Follows a connection from its preface on. The server says that a stream has that window, and
    /// a frame that size.
    pub(super) fn new(preface: usize, stream_window: u32, frame_size: u32) -> Self {
        let state = Http2State { stream_window, frame_size, ..Http2State::default() };
        Self { preface_left: preface, successor: false, was_told: false, acks_made_up: 0, ..Self::resumed(&state) }
    }

    /// Follows one that was served elsewhere before.
    pub(super) fn resumed(state: &Http2State) -> Self {
        let table = HeaderTable::of(&state.table);
        let mut follower = Self {
            streams: OpenStreams::default(),
            last: state.last,
            former: state.last,
            client_settings: state.settings.clone(),
            send: state.send,
            receive: state.receive,
            debt: (FIRST_WINDOW - state.send).max(0),
            excess: (state.receive - FIRST_WINDOW).max(0),
            stream_window: state.stream_window,
            frame_size: state.frame_size,
            pings: 0,
            former_pings: state.pings,
            pings_due: 0,
            acks_due: 0,
            acks_made_up: 1,
            told: VecDeque::new(),
            successor: true,
            has_told: false,
            was_told: true,
            holds: false,
            lost: table.is_none(),
            ends: table.is_none(),
            table: table.unwrap_or_default(),
            begun: Vec::new(),
            made_up: 1,
            refusals: 0,
            remade: Vec::new(),
            preface_left: 0,
            client_left: 0,
            block: None,
            server_head: [0; HEAD + 4],
            server_has: 0,
            server_left: 0,
        };
        if !state.table.is_empty() {
            follower.remade = follower.for_the_table(&state.table);
        }
        follower
    }

    /// Takes what is to go on in place of what came; of one that was served elsewhere that is at
    /// first what makes the table.
    pub(super) fn take_remade(&mut self) -> Vec<u8> {
        take(&mut self.remade)
    }

    /// Returns what the next process has to know.
    pub(super) fn state(&self) -> Http2State {
        Http2State {
            last: self.last,
            settings: self.client_settings.clone(),
            send: self.send,
            receive: self.receive,
            stream_window: self.stream_window,
            frame_size: self.frame_size,
            pings: self.pings + self.former_pings,
            table: self.table.block(),
        }
    }

    /// Grants the client more than the server knows of; returns how it is told so.
    pub(super) fn grant(&mut self, by: u32) -> Update {
        self.receive += i64::from(by);
        window_update(by)
    }

    /// Returns how much less the client may send than a fresh server believes.
    pub(super) fn lacks(&self) -> u32 {
        u32::try_from((FIRST_WINDOW - self.receive).max(0)).unwrap_or(0)
    }

    /// Returns whether the client must not be heard yet: it may send more than a fresh server knows
    /// to have granted.
    pub(super) fn is_ahead(&self) -> bool {
        self.excess > 0
    }

    /// Returns whether what the server sends may have to be changed, or to wait.
    #[inline]
    pub(super) fn edits(&self) -> bool {
        self.debt > 0 || self.excess > 0 || self.acks_made_up > 0 || self.refusals > 0 || self.successor
    }

    /// Returns whether it can still leave, now or later.
    pub(super) fn can_leave(&self) -> bool {
        !self.ends
    }

    /// Returns whether it stays as what the client's headers refer to is not known.
    pub(super) fn has_lost_table(&self) -> bool {
        self.lost
    }

    /// Returns whether the client has still to acknowledge settings.
    pub(super) fn awaits_acknowledgement(&self) -> bool {
        !self.told.is_empty()
    }

    /// Returns whether both ends have told their settings: before that nobody leaves.
    pub(super) fn is_settled(&self) -> bool {
        self.has_told && self.was_told
    }

    /// From now on its new streams are held.
    pub(super) fn hold(&mut self) {
        self.holds = self.is_settled() && !self.ends;
    }

    #[inline]
    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// It stays: what was held comes once more, and passes.
    pub(super) fn stay(&mut self) {
        self.release();
        self.ends = true;
    }

    /// Holds nothing any more: what was held comes once more, and passes.
    pub(super) fn release(&mut self) {
        self.holds = false;
        if self.block == Some(Block::Hold) {
            self.block = None;
        }
    }

    /// Returns whether no stream is open.
    pub(super) fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    /// Returns whether one that is not above this one is open.
    pub(super) fn has_open_up_to(&self, id: u32) -> bool {
        self.streams.first().is_some_and(|first| first <= id)
    }

    /// Returns the highest stream that is open.
    pub(super) fn latest_open(&self) -> Option<u32> {
        self.streams.latest()
    }

    /// Returns how many streams are open.
    pub(super) fn open(&self) -> usize {
        self.streams.len()
    }

    /// Returns whether it can leave at this moment.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_settled()
            && !self.ends
            && self.streams.is_empty()
            && self.told.is_empty()
            && !matches!(self.block, Some(Block::Pass | Block::Late))
            && self.client_left == 0
            && (self.pings_due, self.acks_due, self.acks_made_up, self.refusals) == (0, 0, 0, 0)
            && self.is_between()
            && !self.is_ahead()
    }
}

/// What goes on in place of a WINDOW_UPDATE that is so long.
fn replaced(total: usize, by: u32) -> Fate {
    if by > 0 { Fate::Replace(total, window_update(by)) } else { Fate::Drop(total) }
}
