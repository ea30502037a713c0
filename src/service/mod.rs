//! The driver: the one event loop that feeds the lifecycle and performs what it says.

pub(crate) mod actions;
pub(crate) mod builder;
pub(crate) mod clock;
mod datagrams;
pub(crate) mod driver;
pub mod events;
mod handle;
pub mod hooks;
mod jobs;
mod keeper;
mod measure;
mod parties;
mod past;
mod pidfile;
pub(crate) mod reap;
mod runner;
pub mod settings;
pub mod signals;
mod sockets;
pub(crate) mod status;
pub mod steps;
mod streams;
mod tell;
pub(crate) mod watch;
pub(crate) mod watchdog;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

pub use builder::Builder;
pub use handle::{Handle, Reloaded};
pub use status::{ASK_TIMEOUT, MAX_WORK, Older, Open, SocketStatus, Status, StoreEntry, Supervising};

use crate::drain::Drain;
use crate::error::Result;
use crate::generation::{Inherited, Origin};
use crate::jobs::Jobs;
use crate::service::builder::StateFn;
use crate::service::driver::{Driver, Input};
use crate::service::hooks::Hooks;
use crate::service::pidfile::Pidfile;
use crate::service::settings::Effective;
use crate::service::signals::Signals;
use crate::service::sockets::Sockets;
use crate::service::steps::Chronicle;
use crate::service::watchdog::Check;
use crate::state::{State, States};
use crate::sys::spawn::Parent;
use crate::systemd::activation::{Listener, Socket};
use crate::systemd::fdstore::FdStore;
use crate::systemd::notify::Notifier;
use crate::systemd::watchdog::Watchdog;
use crate::wire::frame::Frame;

/// One generation of a service: it has its sockets, and is not ready yet.
///
/// Made by [`Service::builder`], given something to serve, and then run:
///
/// ```no_run
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> handover::Result<()> {
/// let service = handover::Service::builder()
///     .listen("http", "127.0.0.1:8080") // the name in the .socket unit; the address only without systemd
///     .drain_timeout(Duration::from_secs(30))
///     .start()?;
/// for listener in service.listeners("http")? {
///     println!("serving on {}", listener.local_addr()?);
/// }
/// service.run().await // ready, watchdog, SIGHUP → reload, SIGTERM → stop
/// # }
/// ```
#[derive(Debug)]
pub struct Service {
    generation: u64,
    handover_id: Option<String>,
    settings: Effective,
    hooks: Hooks,
    pidfile: Option<Pidfile>,
    /// Waits for adopted processes, if there are any.
    reaps: bool,
    sockets: Arc<Mutex<Sockets>>,
    states: States,
    drain: Drain,
    jobs: Jobs,
    notifier: Notifier,
    watchdog: Option<Watchdog>,
    check: Option<Check>,
    state: Option<StateFn>,
    chronicle: Chronicle,
    inherited: Option<Inherited>,
    origin: Origin,
    /// Whose child the next generation becomes.
    parent: Parent,
    managed: bool,
    signals: Signals,
    inputs: mpsc::UnboundedSender<Input>,
    waiting: mpsc::UnboundedReceiver<Input>,
}

impl Service {
    /// A builder with the defaults of [`settings`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The listening sockets of that name: those that systemd or the previous generation passed, in their order, else
    /// those bound to the address that was given to [`Builder::listen`].
    ///
    /// They are copies: the service keeps its own, so that the next generation can have them.
    ///
    /// # Errors
    /// With [`Error::is_socket`](crate::Error::is_socket): nobody passed a socket of that name, it is not a listening
    /// stream socket, or the name was taken before.
    pub fn listeners(&self, name: &str) -> Result<Vec<Listener>> {
        let sockets = lock(&self.sockets).take(name, Socket::check_listener)?;
        sockets.into_iter().map(Socket::into_listener).collect()
    }

    /// Fds that outlive this process: systemd's fd store, which comes back after a crash, and over reloads the next generation.
    /// Names are declared with [`Builder::store`].
    ///
    /// One generation at a time can change it, because systemd listens to the main process alone. Until this one is main, what
    /// it puts is kept [by itself](crate::systemd::fdstore::Kept::HeldOnly) and goes to the store with the handover; from the switch on,
    /// changes by the previous one are refused ([`Error::is_state`](crate::Error::is_state)).
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> handover::Result<()> {
    /// use handover::systemd::fdstore::Names;
    ///
    /// let service = handover::Service::builder().store(Names::new().name("queue")).start()?;
    /// let queue = match service.store().get("queue")?.pop() {
    ///     Some(fd) => std::net::UdpSocket::from(fd), // the one from before: what waits in it is still there
    ///     None => std::net::UdpSocket::bind("127.0.0.1:9000").expect("a free port"),
    /// };
    /// service.store().put("queue", &[&queue])?;
    /// # service.run().await
    /// # }
    /// ```
    #[must_use]
    pub fn store(&self) -> FdStore {
        lock(&self.sockets).store().clone()
    }

    /// A value that outlives this process: over reloads, crashes and restarts. See [`state`](crate::state).
    ///
    /// Its name needs no declaration. What nobody asks for stays where it is, so that an older version finds it after
    /// a rollback; [`State::remove`] ends it.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> handover::Result<()> {
    /// let service = handover::Service::builder().listen("http", "127.0.0.1:8080").start()?;
    /// let visits = service.state::<u64>("visits");
    /// visits.save(&(visits.load()?.value().unwrap_or(0) + 1))?; // from here on a SIGKILL cannot lose it
    /// # service.run().await
    /// # }
    /// ```
    #[must_use]
    pub fn state<T>(&self, name: impl Into<String>) -> State<T> {
        self.states.state(name)
    }

    /// All states of the service, for [`States::raw`].
    #[must_use]
    pub fn states(&self) -> &States {
        &self.states
    }

    /// The open connections of this generation, and whether it accepts.
    #[must_use]
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// The number of this generation. The first start of a service, and each restart, has 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What the previous generation's [`Builder::handover_state`] returned; `None` on a first start, after a crash, or
    /// if it had none.
    #[must_use]
    pub fn inherited_state(&self) -> Option<&[u8]> {
        self.inherited.as_ref()?.state.as_deref()
    }

    /// To reload or stop from elsewhere in the program.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { inputs: self.inputs.clone(), steps: self.chronicle.listeners.clone() }
    }

    /// Gives up before [`Service::run`]: if this is the next generation of a running service, the reload is rolled back
    /// with this reason, and the old generation serves on.
    pub fn fail(self, reason: impl fmt::Display) {
        if let Some(inherited) = &self.inherited {
            // If it cannot be told, it sees our end.
            let _ = inherited.link.send(&Frame::failed(&reason.to_string()), &[]);
        }
        let generation = self.generation;
        tracing::error!(message_id = events::FAILED, generation, "generation {generation} failed: {reason}");
    }

    /// Says that the service is ready, and runs it: watchdog pings, SIGHUP → reload, SIGTERM or SIGINT → stop (twice:
    /// cut what is left), SIGQUIT → cut what is left now, or what the [`SignalMap`](signals::SignalMap) says. Returns when this generation is over, because the service
    /// stopped or because it handed over and has drained; `main` should then return. After a handover the threads of this process
    /// have the scheduling policy `SCHED_IDLE` by then, so that what it does last, and freeing its memory, takes no processor from the new
    /// one (not in a unit with `SystemCallFilter=`, which might forbid it).
    ///
    /// # Errors
    /// With [`Error::is_generation`](crate::Error::is_generation): this next generation never came to serve, because it
    /// was told to go, or because the previous one died first.
    ///
    /// # Cancel safety
    /// Not cancel-safe: dropping it ends the generation without a drain, as a crash would.
    pub async fn run(self) -> Result<()> {
        Driver::new(self)?.run().await
    }
}

/// A panic elsewhere does not make the sockets unusable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
