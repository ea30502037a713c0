//! Taking from a socket that generations share: at the gate, within a limit, and through a shortage
//! of descriptors.

use super::core::Phase;
use super::entering::Entering;
use super::handle::Drain;
use super::limit::Limit;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::watch;

/// The first pause after a failure for want of descriptors or memory; it is doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause: a client waits no longer than this in the kernel's queue once the shortage is
/// over.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Takes from a shared socket when it is this generation's turn. `R` is the socket as the reactor
/// has it.
#[derive(Debug)]
pub(crate) struct Turn<R> {
    name: Arc<str>,
    /// What the log says cannot be done when it fails, and what goes on afterwards.
    words: (&'static str, &'static str),
    drain: Drain,
    gate: watch::Receiver<bool>,
    /// Out of the reactor while the gate is shut: another generation takes from the same socket
    /// then, and whatever comes for it would wake us.
    registered: Option<R>,
    limit: Option<Limit>,
    /// It is for who asks about the service, in a pause, too.
    aside: bool,
    /// The pause after the next failure; above the least one: an episode is going on.
    pause: Duration,
}

impl<R> Turn<R> {
    pub(crate) fn new(drain: &Drain, name: &str, words: (&'static str, &'static str)) -> Self {
        Self {
            name: name.into(),
            words,
            drain: drain.clone(),
            gate: drain.gate(),
            registered: None,
            limit: None,
            aside: false,
            pause: PAUSE_MIN,
        }
    }

    pub(crate) fn limit(&mut self, limit: &Limit) {
        self.limit = Some(limit.clone());
    }

    /// Takes for who asks about the service, in a pause, too.
    #[cfg(any(feature = "control", feature = "admin"))]
    pub(crate) fn aside(&mut self) {
        self.aside = true;
        self.drain.note_aside(&self.name);
        self.gate = self.drain.core.gate.subscribe();
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Returns what `poll` takes, counted from before it did; `None` once the drain has begun.
    ///
    /// Cancel-safe: what was taken is returned.
    pub(crate) async fn next<T>(
        &mut self,
        register: impl Fn() -> io::Result<R>,
        mut poll: impl FnMut(&R, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Option<(T, Entering)> {
        loop {
            let open = *self.gate.borrow_and_update();
            if self.drain.phase() != Phase::Open {
                return None;
            }
            if !open {
                self.registered = None;
                // the sender lives in our own `drain`, so this cannot fail
                let _ = self.gate.changed().await;
                continue;
            }
            let taken = match self.registered(&register) {
                Ok(()) => {
                    let Self { drain, gate, registered, limit, aside, .. } = self;
                    tokio::select! {
                        biased;
                        _ = gate.changed() => continue,
                        taken = poll_fn(|cx| poll_take((drain, *aside), registered.as_ref(), limit.as_ref(), &mut poll, cx)) => taken,
                    }
                }
                Err(error) => Err(error),
            };
            match taken {
                Ok(Some(taken)) => {
                    if self.pause > PAUSE_MIN {
                        self.pause = PAUSE_MIN;
                        tracing::info!(listener = &*self.name, "{} again", self.words.1);
                    }
                    return Some(taken);
                }
                Ok(None) => self.full().await,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(listener = &*self.name, %error, "something that was received is of no use");
                }
                Err(error) if is_of_one_peer(&error) => {
                    tracing::debug!(listener = &*self.name, %error, "a client was gone before its turn");
                }
                Err(error) => self.starved(&error).await,
            }
        }
    }

    fn registered(&mut self, register: impl Fn() -> io::Result<R>) -> io::Result<()> {
        if self.registered.is_none() {
            self.registered = Some(register()?);
        }
        Ok(())
    }

    async fn full(&mut self) {
        let Some(limit) = &self.limit else { return };
        limit.tell_full(&self.name);
        tokio::select! {
            _ = self.gate.changed() => {}
            () = limit.freed() => {}
        }
    }

    async fn starved(&mut self, error: &io::Error) {
        if self.pause == PAUSE_MIN {
            tracing::error!(
                listener = &*self.name, %error,
                "cannot {}; clients wait in the kernel's queue until it works again (for \"too many open files\" raise \
                 LimitNOFILE=)",
                self.words.0
            );
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// Polls within the gate and the limit. It returns `None` when there is as much in hand as there
/// may be.
fn poll_take<R, T>(
    (drain, aside): (&Drain, bool),
    registered: Option<&R>,
    limit: Option<&Limit>,
    poll: &mut impl FnMut(&R, &mut Context<'_>) -> Poll<io::Result<T>>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Option<(T, Entering)>>> {
    let Some(mut entering) = drain.enter(aside) else {
        return Poll::Pending; // shut just now: the gate's change wakes us
    };
    let Some(registered) = registered else { return Poll::Pending };
    if let Some(limit) = limit {
        // Held only while we look: a listener that nobody connects to shall not keep the last slot
        // from another one.
        let Some(slot) = limit.take() else { return Poll::Ready(Ok(None)) };
        entering.slot = Some(slot);
    }
    let taken = ready!(poll(registered, cx))?;
    Poll::Ready(Ok(Some((taken, entering))))
}

/// Returns whether the error concerns one client, and not the socket; see accept(2), "Error
/// handling".
fn is_of_one_peer(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::ECONNREFUSED
                | libc::EINTR
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
                | libc::ETIMEDOUT
        )
    )
}
