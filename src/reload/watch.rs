//! Tasks that watch other generations and tell the driver.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::warn;

use crate::generation::Link;
use crate::generation::program::Process;
use crate::lifecycle::Event;
use crate::reload::input::{Input, InputSender};
use crate::reload::inquiry::Holding;
use crate::reload::moment::{Facts, Moment};
use crate::settings::END_TIMEOUT;
use crate::sys::pidfd::{self, Ended};
use crate::sys::socket::register;
use crate::wire::frame::Frame;

/// A process that closed its link usually is on its way out: wait so long to learn how it ended.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How often, and how many times, to ask the kernel for an exit status that its parent has not
/// collected yet.
const STATUS_RETRY: (Duration, u32) = (Duration::from_millis(5), 20);

/// The next generation, until it is main.
pub(crate) async fn next(id: u64, link: Arc<Link>, pidfd: OwnedFd, inputs: InputSender) {
    let Ok(pidfd) = register(pidfd, Interest::READABLE) else { return };
    let failed = loop {
        tokio::select! {
            biased;
            frame = link.receive() => match frame {
                Ok(Some((Frame::Failed { reason }, _))) => break format!("said that it failed: {reason}"),
                Ok(Some((frame, fds))) => _ = inputs.send(Input::FromNext(id, frame, fds)),
                Ok(None) => match timeout(LAST_WORDS, end_of(&pidfd)).await {
                    Ok(ended) => break ended.to_string(),
                    Err(_) => break "closed its end of the handover link".to_owned(),
                },
                Err(error) => break format!("cannot be understood: {error}"),
            },
            ended = end_of(&pidfd) => break ended.to_string(),
        }
    };
    let _ = inputs.send(Input::NextFailed(id, failed));
}

/// The generation that we handed over to, and those after it: they hold our link until the last one
/// is gone.
pub(crate) async fn successors(link: Arc<Link>, inputs: InputSender) {
    while let Ok(Some((frame, _))) = link.receive().await {
        let _ = inputs.send(match frame {
            Frame::Hurry => Input::Event(Event::Hurry),
            Frame::Hammer => Input::Event(Event::Quit),
            Frame::Ask => Input::Asked,
            Frame::Resume => Input::Resumed,
            _ => continue,
        });
    }
    let _ = inputs.send(Input::Event(Event::SuccessorGone));
}

/// The previous generation, until we are main. Afterwards it drains, and is watched as a drainer.
pub(crate) async fn predecessor(link: Arc<Link>, inputs: InputSender) {
    let last = loop {
        match link.receive().await {
            Ok(Some((Frame::Entries { names }, fds))) => _ = inputs.send(Input::Entries(names, fds)),
            Ok(Some((Frame::Gone { names }, _))) => _ = inputs.send(Input::Gone(names)),
            Ok(Some((Frame::Counted(carried), _))) => _ = inputs.send(Input::Counted(carried)),
            Ok(Some((Frame::Resume, _))) => _ = inputs.send(Input::Resumed),
            Ok(Some((Frame::Moving, fds))) => _ = inputs.send(Input::Moving(fds)),
            Ok(Some((Frame::Switch, _))) => _ = inputs.send(Input::Event(Event::Switch)),
            Ok(Some((Frame::Main { reload, stop }, _))) => break Event::Main { reload, stop },
            Ok(Some((Frame::Dismissed { reason }, _))) => {
                Moment::Dismissed.log(&Facts { reason: Some(&reason), ..Facts::default() });
                break Event::Dismissed;
            }
            Ok(Some(_)) => {}
            Ok(None) => break Event::PredecessorGone,
            Err(error) => {
                warn!(%error, "the previous generation cannot be understood");
                break Event::PredecessorGone;
            }
        }
    };
    let _ = inputs.send(Input::Event(last));
}

/// An older generation that drains; it is gone when its end of the link is closed. It has a
/// deadline of its own: if it is still there when that is `overdue`, it hangs, and nobody else
/// would end it.
pub(crate) async fn drainer(generation: u64, pid: u32, link: Arc<Link>, overdue: Instant, inputs: InputSender) {
    if timeout_at(overdue, gone(&link, &inputs)).await.is_err() {
        kill(generation, pid);
        gone(&link, &inputs).await;
    }
    let _ = inputs.send(Input::DrainerGone(generation));
}

/// Tells a drainer to cut what is left; ends it if it does not.
pub(crate) async fn hammer(generation: u64, pid: u32, link: Arc<Link>, inputs: InputSender) {
    let _ = link.send(&Frame::Hammer);
    if timeout(END_TIMEOUT, gone(&link, &inputs)).await.is_err() {
        kill(generation, pid);
    }
}

async fn gone(link: &Link, inputs: &InputSender) {
    while let Ok(Some((frame, _))) = link.receive().await {
        let _ = match frame {
            Frame::Counted(carried) => inputs.send(Input::Counted(carried)),
            Frame::Holds { generation, connections, work, moved, stayed } => {
                inputs.send(Input::Told(generation, Holding { connections, work, moved, stayed }))
            }
            _ => continue,
        };
    }
}

/// Its link is open, so the pid still is its own.
fn kill(generation: u64, pid: u32) {
    Moment::DrainerKilled.log(&Facts { old_pid: Some(pid), ..Facts::said(generation, "") });
    if let Err(error) = pidfd::open(pid).and_then(|fd| pidfd::send_signal(fd.as_fd(), Signal::SIGKILL)) {
        warn!(%error, "generation {generation} cannot be killed");
    }
}

/// Ends a generation that failed: it was dismissed; SIGTERM, and SIGKILL after the grace.
pub(crate) async fn end(generation: u64, process: Process, link: Option<Arc<Link>>, grace: Duration) {
    let pid = process.pid();
    if let Some(link) = &link {
        let _ = link.send(&Frame::Dismissed { reason: "this reload was rolled back".into() });
    }
    let watched = process.try_clone_pidfd().and_then(|fd| register(fd, Interest::READABLE));
    let Ok(pidfd) = watched else {
        let _ = process.signal(Signal::SIGKILL);
        return;
    };
    let _ = process.signal(Signal::SIGTERM);
    let how = match timeout(grace, end_of(&pidfd)).await {
        Ok(ended) => ended,
        Err(_) => {
            warn!(generation, new_pid = pid, "a rolled-back generation did not end within {grace:?}: killing it");
            let _ = process.signal(Signal::SIGKILL);
            end_of(&pidfd).await
        }
    };
    Moment::NextEnded.log(&Facts { new_pid: Some(pid), ..Facts::said(generation, &how.to_string()) });
}

/// # Cancel safety
/// Nothing is lost.
pub(crate) async fn end_of(pidfd: &AsyncFd<OwnedFd>) -> Ended {
    if pidfd.readable().await.is_err() {
        return Ended::Unknown;
    }
    let (pause, times) = STATUS_RETRY;
    for _ in 0..times {
        if let Some(ended) = pidfd::ended(pidfd.get_ref().as_fd()) {
            return ended;
        }
        sleep(pause).await;
    }
    Ended::Unknown
}
