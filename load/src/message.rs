//! What a client reads, whatever the protocol: responses, and what came in their place.

use super::body::Body;
use super::kind::Cause;

/// A request that got no proper answer, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) cause: Cause,
    pub(super) detail: String,
}

impl Broken {
    /// Whether the connection came to its end with it. Otherwise the client gave it up.
    pub(super) fn is_end(&self) -> bool {
        matches!(self.cause, Cause::Closed | Cause::Reset | Cause::Truncated)
    }
}

pub(super) fn broken(cause: Cause, detail: impl Into<String>) -> Broken {
    Broken { cause, detail: detail.into() }
}

#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    /// The server announced that it closes the connection after this response.
    pub(super) close: bool,
    pub(super) body: Body,
    /// What the header that names the generation says.
    pub(super) generation: Option<String>,
}

/// What an idle connection did while the client had nothing to say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Idle {
    Open,
    Closed,
    /// Closed, or about to be, as HTTP/2 announces it.
    Announced,
    /// Bytes that nobody asked for.
    Spoke,
}
