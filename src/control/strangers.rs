//! Who may not call: refused as soon as the kernel has told who it is, and told to the log now and
//! then.

use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use crate::drain::{Peer, Stream};
use crate::sys::scm;

/// A refusal is logged, and then no other before this time has passed.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// The answer to whatever the stranger wants, which nobody reads.
const REFUSAL: &[u8] = b"{\"error\":\"org.varlink.service.PermissionDenied\",\"parameters\":{}}\0";

/// Lets callers in, or refuses them.
#[derive(Debug, Default)]
pub(super) struct Door {
    told: Mutex<Refusals>,
}

#[derive(Debug, Default)]
struct Refusals {
    last: Option<Instant>,
    /// Those since then.
    untold: u64,
}

impl Door {
    /// Returns whether that caller is let in. Others get an answer that costs nothing: if it does
    /// not go out at once, it does not go out.
    pub(super) fn admits(&self, stream: &Stream, peer: &Peer) -> bool {
        let Err(why) = lets_in(peer) else { return true };
        let _ = scm::send(stream.as_fd(), REFUSAL, &[]);
        if let Some(more) = self.tells(Instant::now()) {
            warn!(%peer, "control: refused: {why}{}", if more > 0 { format!("; and {more} before") } else { String::new() });
        }
        false
    }

    /// Returns how many were refused and not told, if it is time to tell.
    fn tells(&self, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| now.duration_since(last) < TOLD_AGAIN) {
            told.untold += 1;
            return None;
        }
        told.last = Some(now);
        Some(std::mem::take(&mut told.untold))
    }
}

/// Lets in this user and root, as the kernel tells them.
pub(crate) fn lets_in(peer: &Peer) -> Result<(), String> {
    match peer {
        Peer::Unix { uid: Some(uid), .. } => {
            let own = nix::unistd::geteuid().as_raw();
            if *uid == 0 || *uid == own { Ok(()) } else { Err(format!("uid {uid} may not; uid {own} and root may")) }
        }
        _ => Err("the kernel does not tell who asks".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_the_kernel_does_not_vouch_for_stays_out() {
        let own = nix::unistd::geteuid().as_raw();
        let unix = |uid| Peer::Unix { pid: None, uid, gid: None };
        assert!(lets_in(&unix(Some(own))).is_ok() && lets_in(&unix(Some(0))).is_ok());
        for peer in [unix(Some(own + 77)), unix(None), Peer::Tcp(([127, 0, 0, 1], 1).into())] {
            assert!(lets_in(&peer).is_err(), "{peer:?}");
        }
    }

    #[test]
    fn a_flood_is_a_line_a_minute() {
        let (door, began) = (Door::default(), Instant::now());
        assert_eq!(door.tells(began), Some(0));
        for n in 0..1000 {
            assert_eq!(door.tells(began + Duration::from_millis(n)), None);
        }
        assert_eq!(door.tells(began + TOLD_AGAIN), Some(1000));
        assert_eq!(door.tells(began + TOLD_AGAIN), None);
    }
}
