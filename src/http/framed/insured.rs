//! Insurance against a crash: where the connection is, for whoever finds it.

use super::Framed;
use crate::http::framing::Framing;
use crate::http::stage::Stage;
use crate::http::transport::Transport;
use crate::transit::Policy;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::ReadBuf;

impl<T: Transport> Framed<T> {
    /// Has it insured, from now on; `copied`: there is a copy of it already.
    pub(in crate::http) fn insured(mut self, mut policy: Option<Policy>, copied: bool) -> Self {
        self.copied = copied || policy.is_some();
        if let Some(policy) = &mut policy {
            policy.cover(self.held.is_empty());
        }
        self.policy = policy;
        self
    }

    /// Reads from the socket. What is taken from it would be lost in a crash, so that is noted
    /// first.
    #[inline]
    pub(super) fn poll_take(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let was_between = self.policy.as_mut().is_some_and(Policy::begin);
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if was_between
            && buf.filled().len() == before
            && let Some(policy) = &mut self.policy
        {
            policy.wait();
        }
        read
    }

    /// Notes when nothing is in progress any more: the reply is written, and nothing was read
    /// ahead.
    #[inline]
    pub(super) fn note_between(&mut self) {
        if let Some(policy) = &mut self.policy
            && !policy.is_between()
            && self.held.is_empty()
            && self.conn.stage() == Stage::Idle
            && matches!(&self.framing, Framing::Head(head) if !head.has_started())
        {
            policy.wait();
        }
    }

    /// Ends the insurance: nobody could go on with it. The copy is still there.
    #[inline]
    pub(super) fn lapse(&mut self) {
        self.policy = None;
    }
}
