//! The end of a connection, so that the client gets all of the last reply.

use super::Framed;
use crate::http::framing::Framing;
use crate::http::stage::Stage;
use crate::http::transport::Transport;
use crate::sys::look::Look;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::ReadBuf;

/// How much of what the client still sends after the last reply is read and dropped at most, so
/// that no reset overtakes the reply. The time has a bound, too:
/// [`CLOSE_TIMEOUT`](crate::http::task::CLOSE_TIMEOUT).
const CLOSE_DISCARD: usize = 16 << 20;

impl<T: Transport> Framed<T> {
    /// Closes our side, then reads on for a while: closing with bytes unread would make the kernel
    /// send a reset, which destroys what the client has not yet read of the last reply.
    pub(super) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.conn.stage() == Stage::Upgraded {
            return Pin::new(&mut self.stream).poll_shutdown(cx);
        }
        if !self.shut {
            self.settle();
            // what it says from here on is the end
            self.lapse();
            ready!(self.poll_goodbye(cx))?;
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.shut = true;
            // the client's own wish, as a rule: then it sends no more
            let complete = self.swallowed.is_none()
                && self.held.is_empty()
                && matches!(self.framing, Framing::Done | Framing::Head(_));
            self.ended |= complete && !T::ANSWERS_CLOSE && !self.conn.closes() && self.stream.look() != Look::Bytes;
            self.conn.set_stage(Stage::Closing);
        }
        while !self.ended && self.discarded < CLOSE_DISCARD {
            let mut space = [0; 4096];
            let mut buf = ReadBuf::new(&mut space);
            let result = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf));
            self.ended = result.is_err() || buf.filled().is_empty();
            self.discarded += buf.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

/// Closed where no answer is due: the header timeout, or the hammer on an idle one.
impl<T: Transport> Drop for Framed<T> {
    fn drop(&mut self) {
        if self.conn.stage() == Stage::Upgraded {
            self.leave_upgraded();
        }
        if self.swallowed.is_some() && !self.shut && !self.moved {
            // as much as goes at once: nobody waits any more
            let _ = self.poll_goodbye(&mut Context::from_waker(Waker::noop()));
        }
        if !self.moved
            && !self.shut
            && !self.ended
            && matches!(self.conn.stage(), Stage::Idle | Stage::Half | Stage::Preface)
        {
            self.stream.last_word();
        }
        if self.copied && !self.moved {
            self.lapse();
            self.stream.end();
        }
    }
}
