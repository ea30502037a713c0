//! Connections that the server closed although their clients would have gone on with them, and
//! those that the clients opened in their place.

/// What a close is laid to: whatever happened last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Since {
    /// Nothing has happened yet.
    #[default]
    Start,
    Reload(u32),
    /// The main process was killed on purpose.
    Kill,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turnover {
    /// By the server, however it did it.
    pub closed: u64,
    /// Those of them that it had not announced: idle ones, and those with a request under way,
    /// which is lost then.
    pub unannounced: u64,
    /// By clients in the place of such a one.
    pub opened_anew: u64,
}

/// How the server closed a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    Announced,
    Unannounced,
}

impl Turnover {
    pub(super) fn close(&mut self, how: Close) {
        self.closed += 1;
        self.unannounced += u64::from(how == Close::Unannounced);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.closed += other.closed;
        self.unannounced += other.unannounced;
        self.opened_anew += other.opened_anew;
    }
}
