//! A program that is put into a scope before it executes: whatever it starts is in there, too.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream as Pair;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::Child;
use tracing::warn;

use super::core::JobsCore;
use super::spec::ProgramSpec;
use crate::error::{Error, Result};
use crate::sys::child::{GO, Setup, set_up};
use crate::systemd::scope::Scope;

/// The byte that is sent instead of [`GO`]: the start fails, as if the program could not be
/// executed.
const NO: u8 = b'n';

/// Starts the program in a scope. The child stops between fork and exec until the manager has moved
/// it: a program that was executed first could start others in the meantime, which would stay in
/// our cgroup.
pub(super) async fn start(
    core: &JobsCore,
    mut command: ProgramSpec,
    scope: &Scope,
    failed: impl Fn(io::Error) -> Error,
) -> Result<(Child, Option<String>)> {
    let (ours, theirs) = Pair::pair().map_err(&failed)?;
    let hold = Some((theirs.into(), ours.as_raw_fd()));
    let (death_signal, survives) = (command.death_signal(), command.survives);
    set_up(&mut command.command, Setup { death_signal, hold });
    let mut link = ours.set_nonblocking(true).and_then(|()| UnixStream::from_std(ours)).map_err(&failed)?;
    let limit = command.timeout.map(|t| t.saturating_add(command.term_grace));
    let name = command.name;
    let placed = async {
        let mut pid = [0; 4];
        // closed without a word: the fork has failed, and `spawn` says why
        link.read_exact(&mut pid).await.map_err(&failed)?;
        let placed = core.scopes.place(u32::from_ne_bytes(pid), &name, scope, limit, survives).await;
        let go = placed.is_ok() || !scope.is_required();
        link.write_all(&[if go { GO } else { NO }]).await.map_err(&failed)?;
        match placed {
            Ok(unit) => Ok(Some(unit)),
            Err(error) if scope.is_required() => Err(error),
            Err(error) => {
                warn!(job = name, %error, "the program of {name:?} runs in the service's own cgroup: a stop of the unit signals it");
                Ok(None)
            }
        }
    };
    let (child, placed) = tokio::join!(core.lanes.spawn(command.command), placed);
    match (child, placed) {
        (Ok(child), Ok(unit)) => Ok((child, unit)),
        // refused, and so not executed
        (Err(spawned), Err(placed)) => {
            Err(if placed.is_notify() || placed.is_timeout() { placed } else { failed(spawned) })
        }
        (Err(spawned), Ok(_)) => Err(failed(spawned)),
        (Ok(_), Err(placed)) => Err(placed),
    }
}
