//! Settings, and taking over what systemd or the previous generation passes in.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime;
use tokio::sync::mpsc;

use crate::drain::Drain;
use crate::error::{BoxError, Error, Kind, Result};
use crate::generation::{Inherited, Known, Origin};
use crate::jobs::Jobs;
use crate::reload::history::History;
use crate::reload::hooks::{Event, Hook, Hooks, InPlace, Launch, When};
use crate::reload::steps::Listeners;
use crate::reload::watchdog::Check;
use crate::service::api::Service;
use crate::service::assembly::{Assembly, StateFn};
use crate::service::container;
use crate::service::handlers::Signals;
use crate::service::pidfile::Pidfile;
use crate::service::sockets::Sockets;
use crate::settings::signals::SignalMap;
use crate::settings::{Effective, ExitOnIdle, HurryUnderPressure, KeepOnStop, Migrate, Settings, each_setting};
use crate::state::States;
use crate::sys::spawn::Parent;
use crate::systemd::bind::Form;
use crate::systemd::environment::Environment;
use crate::systemd::fdstore::{Names, STORE_TIMEOUT};
use crate::systemd::notify::{Message, Notifier};
use crate::systemd::pressure::PressureSource;
use crate::systemd::wanted::{Wanted, listen_methods};
use crate::systemd::watchdog::Watchdog;
use crate::wire::frame::Frame;

/// What part of `ready_timeout` one message to the fd store may take at most, while the manager
/// does not answer: there are several in a reload.
const STORE_SHARE: u32 = 6;

/// Settings of a [`Service`]. Every wait has a default, named in
/// [`settings`](crate::service::settings).
#[derive(Debug, Default)]
#[must_use]
pub struct Builder {
    wanted: Vec<Wanted>,
    /// What was said by a call.
    settings: Settings,
    /// What was read by the application.
    read: Settings,
    signals: Option<SignalMap>,
    hooks: Hooks,
    no_reaping: bool,
    program: Option<PathBuf>,
    directory: Option<PathBuf>,
    check: Option<Check>,
    state: Option<StateFn>,
    names: Names,
    /// What else is served, once the service is there.
    pub(crate) extras: Vec<Extra>,
}

/// Part of [`Builder::start`].
pub(crate) struct Extra(pub(crate) Box<ExtraFn>);

type ExtraFn = dyn FnOnce(&Service) -> Result<()> + Send + Sync;

/// The Varlink error of a first start that failed.
const START_FAILED: &str = "io.handover.Service.StartFailed";

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Extra")
    }
}

impl Service {
    /// Returns a builder with the defaults of [`settings`](crate::service::settings).
    pub fn builder() -> Builder {
        Builder::default()
    }
}

/// Makes a method of each setting that has a default.
macro_rules! setters {
    (
        default {$(
            $(#[$doc:meta])*
            $name:ident: $type:ty = $const:ident: $value:expr, $default:literal $(, zero $zero:literal)?;
        )*}
        $($others:tt)*
    ) => {$(
        $(#[$doc])*
        ///
        #[doc = concat!("Default: [`", $default, "`](crate::service::settings::", stringify!($const), ").")]
        pub fn $name(mut self, value: $type) -> Self {
            self.settings.$name = Some(value);
            self
        }
    )*};
}

impl Builder {
    listen_methods! {
        /// Listens on the sockets of this name (`FileDescriptorName=` in the .socket unit). The
        /// address is bound only when nobody passes such a socket: without systemd, or without a
        /// .socket unit. See [`bind`](crate::systemd::activation::bind) for its forms.
        ///
        /// The path of a Unix socket that was bound stays as long as a generation or the fd store
        /// has the socket, and is removed when the service stops for good. With an fd store it
        /// stays over a stop, too, as a restart begins with one; what is dead then is replaced at
        /// the next start.
    }

    /// Declares the names under which [`Service::store`] keeps fds. What comes in under these
    /// names, from systemd or from the previous generation, is there again. What comes in under any
    /// other name, and is no socket that the service asks for, is closed. It is removed from the
    /// store if the previous generation has passed it, so that a new version leaves nothing behind;
    /// what systemd passes at a start may be what others have put there, and stays.
    pub fn store(mut self, names: Names) -> Self {
        self.names = names;
        self
    }

    each_setting!(setters);

    /// Takes settings that were read, from a file or the environment. What is said by a call of
    /// this builder wins, before or after this.
    pub fn settings(mut self, settings: Settings) -> Self {
        self.read = settings.over(self.read);
        self
    }

    /// Says which signal does what. Default: [`SignalMap::default`]. This wins over
    /// [`Settings::signals`].
    pub fn signals(mut self, map: SignalMap) -> Self {
        self.signals = Some(map);
        self
    }

    /// Writes the pid of the main generation into this file, atomically, and removes it when the
    /// service stops. This is for supervisors that know nothing of `NOTIFY_SOCKET`, and not for
    /// systemd, which has a trap of the name `PIDFile=`. Default: none.
    pub fn pidfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.pidfile = Some(path.into());
        self
    }

    /// Says whether to wait for adopted processes that ended, as an init does, if this process is
    /// PID 1 or a child subreaper. Default: yes. A program that starts children itself must wait
    /// for them within [`REAP_AFTER`](crate::service::settings::REAP_AFTER).
    pub fn reap(mut self, on: bool) -> Self {
        self.no_reaping = !on;
        self
    }

    /// Names the program that next generations are started from. Default: the path that this one
    /// was started from, as it is then, so that replacing the file is the upgrade.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Names the directory that next generations are started in. A link on the path is followed at
    /// each start: what a deploy moves, moves the next generation. Default: the working directory
    /// of this process at [`start`](Self::start), by the path that it was started with, as far as
    /// that can be known: `$PWD`, or a directory above the program, if that leads to the same one.
    /// One that is gone at a reload is warned of, and the next generation starts where this one is.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Pings the watchdog only while this check says `Ok`. It is asked at every ping (at 40 % of
    /// `WatchdogSec=`), and must answer before the next one. Without a watchdog it is never asked.
    /// The journal has its error, with all sources.
    ///
    /// ```
    /// let builder = handover::Service::builder().health(|| async {
    ///     tokio::net::TcpStream::connect("127.0.0.1:5432").await?; // the database
    ///     Ok(())
    /// });
    /// # drop(builder);
    /// ```
    pub fn health<F, R>(mut self, check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = std::result::Result<(), BoxError>> + Send + 'static,
    {
        self.check = Some(Check(Arc::new(move || Box::pin(check()))));
        self
    }

    /// Hands bytes over to the next generation, which has them from
    /// [`Service::handover_bytes`]. The function is called when that generation is started. It may
    /// block: it runs on a thread of its own, within the ready timeout.
    ///
    /// They are a parting word, good for a reload only: what shall outlive a crash, too, is a
    /// [state](crate::state).
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> handover::Result<()> {
    /// let service = handover::Service::builder().handover_bytes(|| b"warm keys".to_vec()).start()?;
    /// if let Some(bytes) = service.handover_bytes() {
    ///     println!("the previous generation says {}", String::from_utf8_lossy(bytes));
    /// }
    /// # service.run().await
    /// # }
    /// ```
    pub fn handover_bytes(mut self, state: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.state = Some(StateFn(Arc::new(state)));
        self
    }

    /// Takes the service's sockets, from systemd, from the previous generation or by binding, and
    /// installs its signal handlers. Nothing is served yet, and nobody is told that it is ready:
    /// [`Service::run`] does both.
    ///
    /// To be called once in a process, early, within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// With [`Error::is_invalid`]: the environment (`LISTEN_FDS`, `NOTIFY_SOCKET`, `WATCHDOG_USEC`,
    /// …), an address or a setting cannot be used. With [`Error::is_socket`]: a socket is missing
    /// or of another kind. With [`Error::is_state`]: no runtime, or a second service in this
    /// process. If this is the next generation of a running service, the previous one is told why.
    ///
    /// # Panics
    /// If the runtime was built without I/O or time (`enable_all` has both).
    pub fn start(mut self) -> Result<Service> {
        if runtime::Handle::try_current().is_err() {
            return Err(Error::new(Kind::State, "start() needs a tokio runtime: call it in an async main"));
        }
        let said = self.settings.clone().over(self.read.clone());
        let map = self.signals.clone().or_else(|| SignalMap::preset(said.signals.as_deref()?));
        let installed = Signals::install(map.unwrap_or_default());
        let environment = Environment::capture();
        let inherited = Inherited::from_env(&environment, std::process::id())?;
        let extras = std::mem::take(&mut self.extras);
        let assembled = installed.and_then(|signals| self.assemble(&environment, &said, signals, inherited.as_ref()));
        let assembled = assembled.and_then(|assembly| {
            let service = Service::new(assembly);
            extras.into_iter().try_for_each(|extra| (extra.0)(&service))?;
            Ok(service)
        });
        match assembled {
            Ok(service) => Ok(service.inheriting(inherited)),
            Err(error) => {
                match inherited {
                    Some(inherited) => _ = inherited.link.send(&Frame::failed(&error.to_string()), &[]),
                    None => tell_failed(&environment, &error),
                }
                Err(error)
            }
        }
    }

    fn assemble(
        self,
        environment: &Environment,
        said: &Settings,
        signals: Signals,
        inherited: Option<&Inherited>,
    ) -> Result<Assembly> {
        let Self { wanted, program, directory, check, state, names, hooks, no_reaping, .. } = self;
        let settings = Effective::of(said.clone())?;
        let hooks = hooks.checked()?;
        let notifier = Notifier::from_env(environment)?;
        let watchdog = Watchdog::from_env(environment)?;
        let (pressure, unheard) = pressure(environment, settings.hurry_under_pressure);
        // SYSTEMD_EXEC_PID names the process that the manager executed; behind a wrapper we are
        // only its child.
        let ours =
            environment.get("SYSTEMD_EXEC_PID").and_then(|v| v.to_str()) == Some(&std::process::id().to_string());
        let managed = notifier.has_manager();
        // The next generations of a service without a manager have such variables, too, by their
        // predecessors' hands.
        let untold = !managed && ours && inherited.is_none() && environment.get("INVOCATION_ID").is_some();
        let sockets = Sockets::open(environment, &notifier, &wanted, &names, (managed || untold, inherited.is_some()))?;
        // A reload waits for the store, and is not to fail because the manager is slow.
        drop(sockets.store().clone().timeout(STORE_TIMEOUT.min(settings.ready_timeout / STORE_SHARE)));
        if inherited.is_some_and(|i| i.hello.told) {
            sockets.store().told();
        }
        let states = States::new(sockets.store().clone());
        let known = Known {
            program: program.or_else(|| inherited.map(|i| i.hello.program.clone().into())),
            directory: directory.or_else(|| inherited.and_then(|i| i.hello.directory.clone()).map(Into::into)),
        };
        let mut origin = Origin::capture(environment, known, watchdog.is_some())?;
        origin.ignored = signals.map.ignored_at_first();
        let sibling = inherited.map_or(ours, |i| i.hello.managed);
        said.warnings.iter().for_each(|warning| tracing::warn!("settings: {warning}"));
        let shown = settings.to_string();
        if inherited.is_none_or(|i| i.hello.settings.as_deref() != Some(&*shown)) {
            let odd = [settings.oddities(said, watchdog.map(|w| w.timeout())), unheard].concat();
            odd.iter().for_each(|warning| tracing::warn!("settings: {warning}"));
            tracing::info!(generation = inherited.map_or(1, |i| i.hello.generation), "settings: {shown}");
        }
        let pidfile = settings.pidfile.clone().map(|path| Pidfile::new(path, managed));
        let ((requests, asked), (inputs, heard)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let drain = Drain::new();
        Ok(Assembly {
            number: inherited.map_or(1, |i| i.hello.generation),
            handover_id: inherited.map(|i| Arc::from(i.hello.handover_id.as_str())),
            settings,
            hooks,
            pidfile,
            reaps: !no_reaping,
            sockets: Arc::new(Mutex::new(sockets)),
            states,
            jobs: Jobs::new(&drain),
            drain,
            notifier,
            watchdog,
            pressure,
            check,
            state,
            listeners: Listeners::default(),
            history: History::open(inherited.map(|i| &i.hello)),
            inherited: None,
            origin,
            parent: if managed && sibling { Parent::Manager } else { Parent::Us },
            managed,
            untold,
            // Later generations are adopted by PID 1 when their predecessor is gone.
            ending_init: container::ending_init().filter(|_| inherited.is_none()),
            signals,
            requests,
            asked,
            inputs,
            heard,
        })
    }
}

/// Finds where pressure is told, and says why it is not: that is no reason not to serve.
fn pressure(environment: &Environment, under: HurryUnderPressure) -> (Vec<PressureSource>, Vec<String>) {
    let (mut sources, mut unheard) = (Vec::new(), Vec::new());
    for resource in under.resources() {
        let why = match PressureSource::from_env(environment, *resource) {
            Ok(Some(source)) => {
                sources.push(source);
                continue;
            }
            Ok(None) => format!("nobody tells of it: write {}on in the [Service] section", resource.setting()),
            Err(error) => error.to_string(),
        };
        unheard.push(format!("hurry_under_pressure = \"{under}\" has no effect for {resource}: {why}"));
    }
    (sources, unheard)
}

/// What `systemctl status` says of a first start that failed, beside the exit status. A next
/// generation tells the previous one, which serves on.
fn tell_failed(environment: &Environment, error: &Error) {
    let errno = error.io().and_then(io::Error::raw_os_error).and_then(|errno| u32::try_from(errno).ok());
    let message = Message::new().status(format!("start failed: {error}")).varlink_error(START_FAILED);
    let message = errno.into_iter().fold(message, Message::errno);
    let told = Notifier::from_env(environment).and_then(|notifier| notifier.send(&message));
    if let Err(error) = told {
        tracing::debug!(%error, "the service manager is not told why");
    }
}

impl Builder {
    /// Calls this hook at that moment. There may be several; they are called in the order that they
    /// were given.
    pub fn on(mut self, when: When, hook: Hook<Event>) -> Self {
        self.hooks.on.push((when, hook));
        self
    }

    /// May change the command that the next generation is started with, its environment included.
    /// An error fails the reload.
    ///
    /// Called in every generation: what it appends to the arguments comes once more with each
    /// reload, if it does not look whether it is there.
    pub fn before_spawn(mut self, hook: Hook<Launch, Launch>) -> Self {
        self.hooks.before_spawn.push(hook);
        self
    }

    /// A reload calls this, and is over if it says [`InPlace::Done`]: no new process, the same
    /// connections, the same pid. systemd is told of a reload as ever. An error fails the reload,
    /// [`Handle::reload`](crate::Handle::reload) included; the old settings hold, so it must not
    /// have changed any.
    ///
    /// In a process that is PID 1, of a container for example, this is the only reload that there
    /// can be.
    ///
    /// ```
    /// use handover::service::hooks::{Hook, InPlace};
    ///
    /// let builder = handover::Service::builder().on_reload_in_place(Hook::new(|_| async {
    ///     if std::path::Path::new("/run/web/upgrade").exists() {
    ///         return Ok(InPlace::NewGeneration);
    ///     }
    ///     // Read and check everything, and only then put it into place.
    ///     Ok(InPlace::Done)
    /// }));
    /// # drop(builder);
    /// ```
    pub fn on_reload_in_place(mut self, hook: Hook<Event, InPlace>) -> Self {
        self.hooks.in_place = Some(hook);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_end_is_no_overflow() {
        let (far, now) = (Duration::MAX, std::time::Instant::now());
        let builder =
            Builder::default().drain_timeout(far).ready_timeout(far).probation(far).linger(far).stop_linger(far);
        let config = Effective::of(builder.hurry_timeout(far).settings).unwrap().machine(true, false);
        for time in [config.ready_timeout, config.probation, config.drain_timeout, config.hurry_timeout] {
            assert!(now.checked_add(time).is_some());
        }
    }

    #[test]
    fn no_time_at_all_is_refused_by_name() {
        let error = Effective::of(Builder::default().drain_timeout(Duration::ZERO).settings).unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("drain_timeout"), "{error}");
        assert!(Effective::of(Builder::default().max_draining(0).settings).is_err());
    }
}
