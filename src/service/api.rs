//! A service before it runs.

use std::fmt;
use std::sync::MutexGuard;

use crate::drain::Drain;
use crate::error::Result;
use crate::generation::Inherited;
use crate::jobs::Jobs;
use crate::reload::handle::Handle;
use crate::reload::moment::{Facts, Moment};
use crate::service::assembly::Assembly;
use crate::service::own::OwnGeneration;
use crate::service::sockets::{Sockets, lock};
use crate::state::{State, States};
use crate::systemd::activation::Listener;
use crate::systemd::fdstore::FdStore;
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
    assembly: Assembly,
}

impl Service {
    pub(crate) fn new(assembly: Assembly) -> Self {
        Self { assembly }
    }

    /// What the previous generation has passed belongs to it, too.
    pub(crate) fn inheriting(mut self, inherited: Option<Inherited>) -> Self {
        self.assembly.inherited = inherited;
        self
    }

    pub(crate) fn sockets(&self) -> MutexGuard<'_, Sockets> {
        lock(&self.assembly.sockets)
    }

    /// Returns the listening sockets of that name: those that systemd or the previous generation
    /// passed, in their order, else those bound to the address that was given to
    /// [`Builder::listen`](crate::Builder::listen).
    ///
    /// They are copies: the service keeps its own, so that the next generation can have them.
    ///
    /// # Errors
    /// With [`Error::is_socket`](crate::Error::is_socket): nobody passed a socket of that name, it
    /// is not a listening stream socket, or the name was taken before.
    pub fn listeners(&self, name: &str) -> Result<Vec<Listener>> {
        self.sockets().take_as(name)
    }

    /// Returns the store of fds that outlive this process: systemd's fd store, which comes back
    /// after a crash, and over reloads the next generation. Names are declared with
    /// [`Builder::store`](crate::Builder::store).
    ///
    /// One generation at a time can change it, because systemd listens to the main process alone.
    /// Until this one is main, what it puts is kept [by
    /// itself](crate::systemd::fdstore::Kept::HeldOnly) and goes to the store with the handover;
    /// from the switch on, changes by the previous one are refused
    /// ([`Error::is_state`](crate::Error::is_state)).
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
        self.sockets().store().clone()
    }

    /// Returns a value that outlives this process: over reloads, crashes and restarts. See
    /// [`state`](crate::state), also for the other kinds of what comes after us.
    ///
    /// Its name needs no declaration. What nobody asks for stays where it is, so that an older
    /// version finds it after a rollback; [`State::remove`] ends it.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> handover::Result<()> {
    /// let service = handover::Service::builder().listen("http", "127.0.0.1:8080").start()?;
    /// let visits = service.state::<u64>("visits");
    /// visits.update(|count| *count += 1).await?; // from here on a SIGKILL cannot lose it
    /// # service.run().await
    /// # }
    /// ```
    #[must_use]
    pub fn state<T>(&self, name: impl Into<String>) -> State<T> {
        self.assembly.states.state(name)
    }

    /// Returns all states of the service, for [`States::raw`].
    #[must_use]
    pub fn states(&self) -> &States {
        &self.assembly.states
    }

    /// Returns the open connections of this generation, and whether it accepts.
    #[must_use]
    pub fn drain(&self) -> &Drain {
        &self.assembly.drain
    }

    /// Returns what starts jobs that a reload and a stop wait for, as they wait for connections.
    /// See [`jobs`](crate::jobs).
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> handover::Result<()> {
    /// let service = handover::Service::builder().start()?;
    /// let jobs = service.jobs();
    /// jobs.spawn("nightly report", |job| async move {
    ///     for part in 0..100 {
    ///         if job.draining().has_begun() {
    ///             return part; // the next generation goes on from here
    ///         }
    ///         tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    ///     }
    ///     100
    /// })?;
    /// service.run().await
    /// # }
    /// ```
    #[must_use]
    pub fn jobs(&self) -> Jobs {
        self.assembly.jobs.clone()
    }

    /// Returns the number of this generation. The first start of a service, and each restart, has
    /// 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.assembly.number
    }

    /// Returns what the previous generation's
    /// [`Builder::handover_bytes`](crate::Builder::handover_bytes) returned; `None` on a first
    /// start, after a crash, or if it had none.
    #[must_use]
    pub fn handover_bytes(&self) -> Option<&[u8]> {
        self.assembly.inherited.as_ref()?.state.as_deref()
    }

    /// Returns a handle, to reload or stop from elsewhere in the program.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::new(self.assembly.requests.clone(), self.assembly.listeners.clone())
    }

    /// Gives up before [`Service::run`]: if this is the next generation of a running service, the
    /// reload is rolled back with this reason, and the old generation serves on.
    pub fn fail(self, reason: impl fmt::Display) {
        let reason = reason.to_string();
        if let Some(inherited) = &self.assembly.inherited {
            // If it cannot be told, it sees our end.
            let _ = inherited.link.send(&Frame::failed(&reason), &[]);
        }
        let (generation, detail) = (self.assembly.number, &format!("failed: {reason}"));
        Moment::Failed.log(&Facts { generation, detail, ..Facts::default() });
    }

    /// Says that the service is ready, lets it accept, and returns when this generation is over:
    /// because the service stopped, or because it handed over and has drained. `main` should then
    /// return.
    ///
    /// Meanwhile it pings the watchdog and answers signals: SIGHUP → reload, SIGTERM or SIGINT →
    /// stop (twice: cut what is left), SIGQUIT → cut what is left now, or what the
    /// [`SignalMap`](crate::service::signals::SignalMap) says. After a handover the threads of this
    /// process have the scheduling policy `SCHED_IDLE` by then, so that what it does last, and
    /// freeing its memory, takes no processor from the new one (not in a unit with
    /// `SystemCallFilter=`, which might forbid it).
    ///
    /// # Errors
    /// With [`Error::is_generation`](crate::Error::is_generation): this next generation never came
    /// to serve, because it was told to go, or because the previous one died first.
    ///
    /// # Cancel safety
    /// Not cancel-safe: dropping it ends the generation without a drain, as a crash would.
    pub async fn run(self) -> Result<()> {
        OwnGeneration::run(self.assembly).await
    }
}
