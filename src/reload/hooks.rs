//! Hooks: functions of the application that are called on the way through a reload and to the end.
//!
//! A hook is [asynchronous](Hook::new) or [blocking](Hook::blocking), has a timeout
//! ([`HOOK_TIMEOUT`](crate::settings::HOOK_TIMEOUT), or its [own](Hook::timeout)), and runs beside
//! the event loop of the service. One that fails, panics or hangs is reported in the journal. Which
//! wait for which:
//!
//! | hook | what waits for it | its failure |
//! |---|---|---|
//! | [`When::BeforeReload`] | the start of the next generation, within the ready timeout | a veto: the reload fails with this reason |
//! | [`Builder::on_reload_in_place`](crate::Builder::on_reload_in_place) | the end of the reload, within the ready timeout | the reload fails with this reason |
//! | [`Builder::before_spawn`](crate::Builder::before_spawn) | the start of the next generation, within the ready timeout | the reload fails with this reason |
//! | [`When::BeforeSignal`] | the response to the signal, but never a stop | reported |
//! | [`When::BeforeExit`] | the exit of the process, or until one more signal to stop | reported |
//! | all others | nothing | reported |
//!
//! Their errors are [`BoxError`]s, so that `?` works on whatever a hook calls; the journal and the
//! reload's reason have the error with all of its sources.
//!
//! The hooks of the last two rows are called one after the other, in the order of events. A stop
//! never waits for the hooks of a reload: the reload is given up, whatever they say later.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::drain::FAR;
use crate::error::{BoxError, in_full};
use crate::generation::Origin;
use crate::settings::signals::Signal;

/// When a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum When {
    /// A reload was asked for. An error is a veto, for example of a check of the configuration.
    BeforeReload,
    /// This generation is ready: it has said so to systemd, or to the previous generation.
    Ready,
    /// This generation begins to accept, or stops accepting because the next one has begun:
    /// [`Event::accepts`]. The next one may still fail.
    Switch,
    /// The next generation failed, and this one serves on: [`Event::reason`].
    RolledBack,
    /// The next generation is main now.
    HandedOver,
    /// This generation is main now.
    Main,
    /// This generation finishes what it has accepted: [`Event::connections`].
    DrainStarted,
    /// The drain was over time, or somebody wanted it so: [`Event::cut`].
    Hammered,
    /// All is over; [`Service::run`](crate::Service::run) returns after this.
    BeforeExit,
    /// A signal came: [`Event::signal`].
    BeforeSignal,
    /// A signal was responded to. What it started, a reload for example, goes on.
    AfterSignal,
}

/// What a hook is told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event {
    /// When this is.
    pub when: When,
    /// The number of this generation: of this process.
    pub generation: u64,
    /// Of the reload, where there is one.
    pub handover_id: Option<String>,
    /// [`When::Switch`]: whether this generation accepts now.
    pub accepts: bool,
    /// [`When::RolledBack`]: why.
    pub reason: Option<String>,
    /// [`When::DrainStarted`]: how many are open.
    pub connections: usize,
    /// [`When::Hammered`]: what was cut, one line each.
    pub cut: Vec<String>,
    /// [`When::BeforeSignal`] and [`When::AfterSignal`]: which one.
    pub signal: Option<Signal>,
}

impl Event {
    pub(crate) fn new(when: When, generation: u64) -> Self {
        Self {
            when,
            generation,
            handover_id: None,
            accepts: false,
            reason: None,
            connections: 0,
            cut: Vec::new(),
            signal: None,
        }
    }
}

/// How a service reloads itself in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InPlace {
    /// The new settings hold; no new process is needed.
    Done,
    /// This takes a new process after all: the reload goes on with the next generation.
    NewGeneration,
}

/// The command that a next generation is started with. It inherits all of it: what is changed here
/// is what *it* was started with, and what the generation after it starts from.
#[derive(Debug, Clone)]
#[must_use]
pub struct Launch {
    pub(crate) origin: Origin,
}

impl Launch {
    /// The file that is executed.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.origin.program
    }

    /// All arguments, the name of the program first.
    #[must_use]
    pub fn argv(&self) -> &[OsString] {
        &self.origin.argv
    }

    /// A variable that it is started with.
    #[must_use]
    pub fn get_env(&self, name: &str) -> Option<&OsStr> {
        self.origin.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_os_str())
    }

    /// Executes another file.
    pub fn with_program(mut self, path: impl Into<PathBuf>) -> Self {
        self.origin.program = path.into();
        self
    }

    /// Gives all arguments anew, the name of the program first.
    pub fn with_argv(mut self, argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.origin.argv = argv.into_iter().map(Into::into).collect();
        self
    }

    /// Sets a variable. What names a process or its sockets (`LISTEN_PID`, `WATCHDOG_PID`, …)
    /// cannot be given.
    pub fn with_env(self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let (name, value) = (name.into(), value.into());
        let mut launch = self.without_env(&name);
        launch.origin.env.push((name, value));
        launch
    }

    /// Removes a variable.
    pub fn without_env(mut self, name: impl AsRef<OsStr>) -> Self {
        self.origin.env.retain(|(n, _)| n != name.as_ref());
        self
    }
}

type Running<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// A function of the application, to be called with an `E`.
///
/// ```
/// use std::time::Duration;
/// use handover::service::hooks::{Event, Hook, Launch, When};
///
/// let check_config = |_| async {
///     let text = tokio::fs::read_to_string("/etc/web.toml").await?; // an io::Error is a veto
///     if text.is_empty() { Err("/etc/web.toml is empty".into()) } else { Ok(()) }
/// };
/// let builder = handover::Service::builder()
///     .on(When::BeforeReload, Hook::new(check_config).timeout(Duration::from_secs(5)))
///     .on(When::RolledBack, Hook::new(|event: Event| async move {
///         Err(format!("nobody was told of {:?}", event.reason).into())
///     }))
///     .before_spawn(Hook::blocking(|launch: Launch| Ok(launch.with_env("COLOUR", "blue"))));
/// # drop(builder);
/// ```
pub struct Hook<E, T = ()> {
    run: Arc<dyn Fn(E) -> Running<T> + Send + Sync>,
    timeout: Option<Duration>,
}

impl<E: Send + 'static, T: Send + 'static> Hook<E, T> {
    /// Makes an asynchronous one. It must not block: the service may share its thread.
    ///
    /// A function with another type of error is called in a closure:
    /// `|event| async { Ok(function(event).await?) }`.
    // Rejected: a type parameter `X: Into<BoxError>` for the error. Then such a function could be
    // given by its name, but `?`, `Err("no".into())` and a bare `Ok(())` would not compile in a
    // closure, as nothing would say which error they make.
    pub fn new<F, R>(hook: F) -> Self
    where
        F: Fn(E) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T, BoxError>> + Send + 'static,
    {
        Self { run: Arc::new(move |event| Box::pin(hook(event))), timeout: None }
    }

    /// Makes one that may block: it runs on a thread of its own. If it is over time that thread is
    /// left alone, and ends with the process.
    pub fn blocking<F>(hook: F) -> Self
    where
        F: Fn(E) -> Result<T, BoxError> + Send + Sync + 'static,
    {
        let hook = Arc::new(hook);
        Self::new(move |event| {
            let hook = Arc::clone(&hook);
            let over = on_thread(move || hook(event).map_err(|error| in_full(&*error)));
            async { Ok(over.await?) }
        })
    }

    /// Sets how long it may take. Default: [`Builder::hook_timeout`](crate::Builder::hook_timeout).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    pub(crate) fn limit(&self, default: Duration) -> Duration {
        self.timeout.unwrap_or(default).min(FAR)
    }

    pub(crate) async fn call(&self, event: E, default: Duration) -> Result<T, String> {
        let (run, limit) = (Arc::clone(&self.run), self.limit(default));
        // A task of its own: a panic ends that, and nothing else.
        let mut task = tokio::spawn(async move { run(event).await });
        match timeout(limit, &mut task).await {
            Ok(Ok(result)) => result.map_err(|error| in_full(&*error)),
            Ok(Err(error)) if error.is_panic() => Err(panicked(&*error.into_panic())),
            Ok(Err(_)) => Err("was cancelled".into()),
            Err(_) => {
                task.abort();
                Err(format!("was not over within {limit:?}"))
            }
        }
    }
}

impl<E, T> Clone for Hook<E, T> {
    fn clone(&self) -> Self {
        Self { run: Arc::clone(&self.run), timeout: self.timeout }
    }
}

impl<E, T> fmt::Debug for Hook<E, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Not `spawn_blocking`: at its end a runtime waits for that, and one that hangs would keep the
/// process for ever.
pub(crate) async fn on_thread<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("hook".into()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| Err(panicked(&*panic)));
        let _ = done.send(result);
    });
    thread.map_err(|e| format!("has no thread: {e}"))?;
    result.await.unwrap_or_else(|_| Err("ended without a result".into()))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    match text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)) {
        Some(text) => format!("panicked: {text}"),
        None => "panicked".into(),
    }
}

/// All hooks of a service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) on: Vec<(When, Hook<Event>)>,
    pub(crate) before_spawn: Vec<Hook<Launch, Launch>>,
    pub(crate) in_place: Option<Hook<Event, InPlace>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn whatever_a_hook_does_its_caller_gets_a_result() {
        let said = |result: Result<u8, String>| result.unwrap_err();
        fn no_file() -> std::io::Result<Vec<u8>> {
            std::fs::read("/no/such/file")
        }
        assert_eq!(Hook::new(|x: u8| async move { Ok(x + 1) }).call(1, LONG).await, Ok(2));
        assert_eq!(Hook::blocking(|x: u8| Ok(x + 1)).call(1, LONG).await, Ok(2));
        assert_eq!(said(Hook::new(|_: u8| async { Err("no".into()) }).call(1, LONG).await), "no");
        assert_eq!(said(Hook::new(|x: u8| async move { panic!("at {x}") }).call(1, LONG).await), "panicked: at 1");
        assert!(said(Hook::new(|_: u8| async { Ok(no_file()?[0]) }).call(1, LONG).await).starts_with("No such file"));
        let listen = |_: u8| Err(crate::Error::os("cannot listen", no_file().unwrap_err()).into());
        let listens = said(Hook::blocking(listen).call(1, LONG).await);
        assert_eq!(listens, "cannot listen: No such file or directory (os error 2)");
        let at_once = Hook::<u8, u8>::new(|_| -> std::future::Pending<_> { panic!("at once") });
        assert_eq!(said(at_once.call(1, LONG).await), "panicked: at once");
        assert_eq!(said(Hook::blocking(|_: u8| panic!("there")).call(1, LONG).await), "panicked: there");
        let over = "was not over within 50ms";
        assert_eq!(said(Hook::<u8, u8>::new(|_| std::future::pending()).call(1, SHORT).await), over);
        let parked = Hook::<u8, u8>::blocking(|_| {
            loop {
                std::thread::park();
            }
        });
        assert_eq!(said(parked.call(1, SHORT).await), over);
        assert_eq!(said(parked.timeout(Duration::from_millis(1)).call(1, LONG).await), "was not over within 1ms");
    }
}
