//! What kinds of clients there are, and for what causes a request counts as lost.

use std::fmt;

/// What kind of client sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    KeepAlive,
    Fresh,
    Slow,
    Upload,
    Stream,
    Pipelined,
    Late,
    HalfHead,
    WebSocket,
    Idle,
    Probe,
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::KeepAlive,
        Self::Fresh,
        Self::Slow,
        Self::Upload,
        Self::Stream,
        Self::Pipelined,
        Self::Late,
        Self::HalfHead,
        Self::WebSocket,
        Self::Idle,
        Self::Probe,
    ];

    /// For programs.
    pub fn slug(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Fresh => "fresh",
            Self::Slow => "slow",
            Self::Upload => "upload",
            Self::Stream => "download",
            Self::Pipelined => "pipelined",
            Self::Late => "late",
            Self::HalfHead => "half-head",
            Self::WebSocket => "websocket",
            Self::Idle => "idle",
            Self::Probe => "prober",
        }
    }

    /// Whether its clients go on with a connection for as long as the server lets them.
    pub(super) fn keeps_its_connection(self) -> bool {
        !matches!(self, Self::Fresh | Self::Late | Self::Probe)
    }

    /// Whether its waits say how fast the server answers: its requests are short and begin when
    /// they are meant to.
    pub(super) fn tells_latency(self) -> bool {
        matches!(self, Self::KeepAlive | Self::Fresh)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::KeepAlive => "keep-alive",
            Self::Fresh => "a connection per request",
            Self::Slow => "slow requests",
            Self::Upload => "uploads",
            Self::Stream => "streamed downloads",
            Self::Pipelined => "pipelined",
            Self::Late => "connected early, sent late",
            Self::HalfHead => "half a head",
            Self::WebSocket => "WebSocket echoes",
            Self::Idle => "idle connections",
            Self::Probe => "probes",
        })
    }
}

/// Why a request counts as lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The connection was refused.
    Refused,
    /// The connection could not be made for another reason.
    Connect,
    /// Written, or half written, and the connection was closed without an answer.
    Closed,
    /// The same by a reset.
    Reset,
    /// The answer began and broke off.
    Truncated,
    /// No answer in time.
    Timeout,
    /// Not a well-formed response.
    Malformed,
    /// A response with another status than 2xx.
    Status,
    /// A whole response with the wrong content.
    WrongBody,
    /// Bytes that belong to no request, as when one is answered twice.
    Unasked,
}

impl Cause {
    /// In the order of a request's life.
    pub const ALL: [Self; 10] = [
        Self::Refused,
        Self::Connect,
        Self::Reset,
        Self::Closed,
        Self::Truncated,
        Self::Timeout,
        Self::Malformed,
        Self::Status,
        Self::WrongBody,
        Self::Unasked,
    ];

    /// For programs.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Closed => "eof",
            Self::Truncated => "truncated",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::Status => "status",
            Self::WrongBody => "wrong_body",
            Self::Unasked => "unasked",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused => "connection refused",
            Self::Connect => "not connected",
            Self::Closed => "closed without an answer",
            Self::Reset => "reset without an answer",
            Self::Truncated => "answer cut off",
            Self::Timeout => "no answer in time",
            Self::Malformed => "malformed answer",
            Self::Status => "status other than 2xx",
            Self::WrongBody => "wrong content",
            Self::Unasked => "an answer nobody asked for",
        })
    }
}
