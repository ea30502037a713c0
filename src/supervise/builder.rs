//! What a supervisor is told before it starts.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::control;
use crate::drain::{Drain, FAR};
use crate::error::{Error, Kind, Result};
use crate::generation::program::own_path;
use crate::reload::handle::Handle;
use crate::reload::steps::Listeners;
use crate::settings::{Effective, Settings};
use crate::supervise::child::{ProgramCommand, Recipe};
use crate::supervise::crash::GOOD_AFTER;
use crate::supervise::inheritance::Inheritance;
use crate::supervise::notified::Inbox;
use crate::supervise::passing::Passing;
use crate::supervise::place::NotifyPlace;
use crate::supervise::ready::{Probe, Ready};
use crate::supervise::renew::{OwnProgram, Resumed};
use crate::supervise::stop::StopSignals;
use crate::supervise::supervision::Supervision;
use crate::supervise::terms::{Foundation, OnCrash, Senders, Terms};
use crate::sys::random;
use crate::sys::spawn::LISTEN_FDS_START;
use crate::systemd::activation::{self, Listener};
use crate::systemd::bind::Form;
use crate::systemd::environment::Environment;
use crate::systemd::notify::Notifier;
use crate::systemd::wanted::{Wanted, listen_methods};
use crate::systemd::watchdog::Watchdog;

/// What a program is to be started with, and how it is reloaded. See the
/// [module](crate::supervise).
#[derive(Debug, Clone)]
#[must_use = "nothing is supervised before start()"]
pub struct Supervisor {
    command: ProgramCommand,
    terms: Terms,
    wanted: Vec<Wanted>,
    settings: Settings,
    control: Option<Option<PathBuf>>,
}

impl Supervisor {
    /// Supervises the program at this path. A name without a slash is looked for in `PATH`, each
    /// time that the program is started.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            command: ProgramCommand {
                program: program.into(),
                arguments: Vec::new(),
                directory: None,
                ways: vec![Passing::Listen],
                first_fd: LISTEN_FDS_START,
            },
            terms: Terms {
                ready: Ready::default(),
                senders: Senders::default(),
                notify_group: None,
                stop_signals: StopSignals::default(),
                drain_delay: Duration::ZERO,
                on_crash: OnCrash::default(),
                good_after: GOOD_AFTER,
                workers: 1,
                at_a_time: 1,
            },
            wanted: Vec::new(),
            settings: Settings::default(),
            control: None,
        }
    }

    /// Adds one argument. `{fd}` in it becomes the number of the first socket, `{fd:NAME}` that of
    /// a socket by name, `{generation}` the number of the generation, `{{` a brace.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.command.arguments.push(argument.into());
        self
    }

    /// Adds several arguments, see [`arg`](Self::arg).
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets the directory in which the program works. It is looked up at each start, so that a
    /// symbolic link such as `/srv/web/current` means the newest release. Default: that of the
    /// supervisor.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.command.directory = Some(directory.into());
        self
    }

    listen_methods! {
        /// Listens for the program on the sockets of this name (`FileDescriptorName=` in the
        /// .socket unit). The address is bound only when nobody passes such a socket; see
        /// [`bind`](crate::systemd::activation::bind) for its forms. If no socket is asked for, the
        /// program gets all that was passed.
    }

    /// Says how the program is told of its sockets. Default: [`Passing::Listen`] alone.
    pub fn passing(mut self, ways: impl IntoIterator<Item = Passing>) -> Self {
        self.command.ways = ways.into_iter().collect();
        self
    }

    /// Sets the number of the first fd; the others follow it. Default 3. 0 is for one socket as
    /// standard input. With another number than 3 there is no `LISTEN_FDS`, whose readers look from
    /// 3 on.
    pub fn first_fd(mut self, number: u16) -> Self {
        self.command.first_fd = number.into();
        self
    }

    /// Says when a generation is ready. Default [`Ready::Notify`].
    pub fn ready(mut self, ready: Ready) -> Self {
        self.terms.ready = ready;
        self
    }

    /// Says whose `READY=1` and other notifications count. Default [`Senders::Main`].
    pub fn senders(mut self, senders: Senders) -> Self {
        self.terms.senders = senders;
        self
    }

    /// Lets processes of this group reach the socket for notifications, by its number. Without,
    /// only those of the supervisor's own user and of root can, so that a program which changes its
    /// user before it says `READY=1` is not heard.
    pub fn notify_group(mut self, group: u32) -> Self {
        self.terms.notify_group = Some(group);
        self
    }

    /// Says how a generation is told to go. Default SIGTERM.
    pub fn stop_signals(mut self, signals: StopSignals) -> Self {
        self.terms.stop_signals = signals;
        self
    }

    /// Says how long a generation serves on beside its successor, which is main already, before it
    /// is told to go. Default: not at all. It counts in the drain timeout, which must be longer.
    /// When the service stops, there is no such pause.
    pub fn drain_delay(mut self, pause: Duration) -> Self {
        self.terms.drain_delay = pause;
        self
    }

    /// Says what happens when the program ends by itself. Default [`OnCrash::Restart`].
    pub fn on_crash(mut self, on_crash: OnCrash) -> Self {
        self.terms.on_crash = on_crash;
        self
    }

    /// Says how long a version must serve until it is one to go back to after a loop of crashes.
    /// Default [`GOOD_AFTER`].
    pub fn good_after(mut self, time: Duration) -> Self {
        self.terms.good_after = time;
        self
    }

    /// Runs so many processes of the program on the same sockets, of which a reload replaces
    /// `at_a_time` at once. Default 1. Each is a generation of its own; a reload has succeeded when
    /// all are replaced, and if one fails, those that were replaced go back.
    pub fn workers(mut self, workers: NonZeroUsize, at_a_time: NonZeroUsize) -> Self {
        (self.terms.workers, self.terms.at_a_time) = (workers.get(), at_a_time.get());
        self
    }

    /// Takes settings, of which `ready_timeout`, `drain_timeout`, `probation` and `max_draining`
    /// count; what a program cannot be told of by a signal does not.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Serves the [control interface](crate::control) at `$RUNTIME_DIRECTORY/handover.sock`, if the
    /// variable is set.
    pub fn control(mut self) -> Self {
        self.control = Some(None);
        self
    }

    /// As [`control`](Self::control), at this path.
    pub fn control_at(mut self, path: impl Into<PathBuf>) -> Self {
        self.control = Some(Some(path.into()));
        self
    }

    /// Takes the sockets, and nothing else yet.
    ///
    /// # Errors
    /// With [`Error::is_socket`]: one was not passed, or cannot be bound. With
    /// [`Error::is_invalid`]: something cannot work as it was said.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time.
    pub fn start(self) -> Result<Supervised> {
        self.start_in(&Environment::capture())
    }

    pub(crate) fn start_in(self, environment: &Environment) -> Result<Supervised> {
        let settings = Effective::of(self.settings)?;
        self.terms.ready.check()?;
        if self.terms.drain_delay >= settings.drain_timeout {
            let (delay, timeout) = (self.terms.drain_delay, settings.drain_timeout);
            let why = format!(
                "a drain delay of {delay:?} leaves nothing of the drain timeout, {timeout:?}: make that longer"
            );
            return Err(Error::new(Kind::Invalid, why));
        }
        let mut resumed = Resumed::from_env(environment)?;
        let inheritance = match &mut resumed {
            Some(resumed) => std::mem::take(&mut resumed.inheritance),
            None => Inheritance::open(environment, &self.wanted)?,
        };
        if self.command.first_fd < LISTEN_FDS_START && (self.command.first_fd != 0 || inheritance.items.len() != 1) {
            let why = "the fds begin at 3 or above; 0 is for exactly one socket";
            return Err(Error::new(Kind::Invalid, format!("first fd {}: {why}", self.command.first_fd)));
        }
        let probe = Probe::of(&self.terms.ready, &inheritance.items)?;
        let notifier = Notifier::from_env(environment)?;
        let (mailed, run) = match &resumed {
            Some(resumed) => (
                resumed.mail.try_clone().and_then(|mail| Ok((NotifyPlace::resumed(&mail)?, mail))),
                resumed.record.run.clone(),
            ),
            None => (NotifyPlace::make(environment, self.terms.notify_group), random::id()),
        };
        let (place, mail) = mailed.map_err(|e| {
            let where_to = "in a unit, RuntimeDirectory= makes a directory for it";
            Error::os(format!("no socket for the notifications of the program ({where_to})"), e)
        })?;
        let watchdog = Watchdog::from_env(environment)?;
        let env: Vec<_> = environment.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let recipe = Recipe {
            place: self.command.place(&env),
            command: self.command,
            env,
            notify: place.path().to_owned(),
            watchdog: watchdog.map(|watchdog| watchdog.timeout()),
            managed: notifier.has_manager(),
            run,
        };
        let path = match self.control {
            Some(Some(path)) => Some(path),
            Some(None) => environment.get("RUNTIME_DIRECTORY").and_then(|all| control::socket_in(all.to_str()?)),
            None => None,
        };
        let listener = match (path, resumed.as_mut().and_then(|resumed| resumed.control.take())) {
            (Some(_), Some(fd)) => Some(Listener::Unix(fd.into())),
            (Some(path), None) => activation::bind(&path.display().to_string())?.pop(),
            (None, _) => None,
        };
        let listening = listener.as_ref().map(|listener| listener.as_fd().try_clone_to_owned()).transpose();
        let drain = Drain::new();
        let terms = Terms {
            good_after: self.terms.good_after.min(FAR),
            at_a_time: self.terms.at_a_time.min(self.terms.workers),
            ..self.terms
        };
        let (requests, asked) = mpsc::unbounded_channel();
        let listeners = Listeners::default();
        let handle = Handle::new(requests.clone(), listeners.clone());
        let foundation = Foundation {
            terms,
            settings,
            recipe,
            probe,
            inheritance,
            inbox: Inbox::open(mail)?,
            place,
            control: listening.map_err(|e| Error::os("the control interface cannot be kept", e))?,
            own: own_program(environment),
            resumed,
            notifier,
            watchdog,
            drain: drain.clone(),
            listeners,
            requests,
            asked,
        };
        if let Some(listener) = listener {
            control::serve(&drain, vec![listener], handle.clone())?;
        }
        Ok(Supervised { foundation, handle, drain })
    }
}

/// Finds the program that we are, for when it is to be started anew in place.
fn own_program(environment: &Environment) -> Result<OwnProgram, String> {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let directory = std::env::current_dir().map_err(|e| format!("the working directory is gone: {e}"))?;
    let path = own_path(argv.first().map(OsString::as_os_str), environment.get("PATH"), &directory);
    Ok(OwnProgram { path: path.map_err(|e| e.to_string())?, argv })
}

/// A supervisor that has its sockets, and has started nothing yet.
#[derive(Debug)]
pub struct Supervised {
    foundation: Foundation,
    handle: Handle,
    drain: Drain,
}

impl Supervised {
    /// Returns what reloads, stops and watches it: the same as that of a
    /// [`Service`](crate::Service). The outcome of [`Handle::reload`] is that of the next
    /// generation, and [`Handle::steps`] tells of all generations for as long as the supervisor
    /// runs.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Starts the program and keeps it running. Returns when the service has been stopped and no
    /// process of it is left.
    ///
    /// # Errors
    /// With [`Error::is_generation`]: the program never came to be ready, or ended and was not to
    /// be started again.
    ///
    /// # Cancel safety
    /// This is not cancel-safe: dropping it leaves the program running, without anybody who looks
    /// after it.
    pub async fn run(self) -> Result<()> {
        self.drain.accept(true);
        Supervision::run(self.foundation).await
    }
}
