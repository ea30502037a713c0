//! Transient scopes: a cgroup of its own for a program, made by the service manager at our request.
//!
//! systemd signals a unit's whole cgroup when it stops the unit. A program in a scope is in another cgroup: a stop of the service
//! that started it sends it nothing, while it stays that service's child. The request goes to the manager's own socket
//! (`/run/systemd/private`), which needs no message bus, and where that is not there, over the bus.
//!
//! | we are | the manager asked | right |
//! |---|---|---|
//! | root | the system's | yes, also without capabilities |
//! | another user, with `XDG_RUNTIME_DIR` | the user's | yes, if the service itself runs under it |
//! | another user of a system service (`User=`, `DynamicUser=`) | the system's | only with a polkit rule for `org.freedesktop.systemd1.manage-units` |
//!
//! # What else a scope changes
//! `MemoryMax=`, `TasksMax=` and `CPUWeight=` of the service's unit do not hold in the scope: name a slice that has such limits
//! ([`Scope::slice`]). `systemctl status` of the service does not show the program, `systemctl list-units --type=scope` does. The
//! scope has no default dependencies: a shutdown stops the service first, which waits for its jobs, and the scope with the rest.

use std::borrow::Cow;
use std::env;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::Stream as _;
use nix::unistd::geteuid;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::debug;
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, Value};
use zbus::{Connection, MatchRule, MessageStream};

use crate::error::{Error, Kind, Result};

/// How long the manager may take to put a program into its scope.
pub const SCOPE_TIMEOUT: Duration = Duration::from_secs(5);
/// A program without a timeout of its own is ended by the manager after this time, whatever became of us: one day.
pub const SCOPE_RUNTIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const SYSTEMD: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// That a program shall run in a scope, and in which.
#[derive(Debug, Clone)]
#[must_use]
pub struct Scope {
    slice: Option<String>,
    runtime_max: Option<Duration>,
    required: bool,
}

impl Scope {
    /// Without a scope the program is not started.
    pub fn required() -> Self {
        Self { slice: None, runtime_max: None, required: true }
    }

    /// Where no scope can be had (no right, no systemd) the program runs in the service's own cgroup, and the log says so: a
    /// reload leaves it alone, a stop of the unit does not.
    pub fn if_possible() -> Self {
        Self { required: false, ..Self::required() }
    }

    /// `Slice=` of the scope. Default: the manager's choice, `system.slice`. A slice with default dependencies is stopped at
    /// shutdown, and its scopes with it.
    pub fn slice(mut self, slice: impl Into<String>) -> Self {
        self.slice = Some(slice.into());
        self
    }

    /// `RuntimeMaxSec=`: the manager ends the program after this time. Default: the command's own timeout and grace, else
    /// [`SCOPE_RUNTIME_MAX`].
    pub fn runtime_max(mut self, time: Duration) -> Self {
        self.runtime_max = Some(time);
        self
    }

    pub(crate) fn is_required(&self) -> bool {
        self.required
    }
}

/// The connection to the manager, made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Scopes {
    connection: Mutex<Option<Connection>>,
    number: AtomicU64,
}

impl Scopes {
    /// Puts a process of ours into a scope of its own; the scope's name. `limit` is for a scope that has none.
    ///
    /// # Errors
    /// With [`Error::is_notify`]: there is no manager, or it refuses. With [`Error::is_timeout`].
    pub(crate) async fn place(&self, pid: u32, what: &str, scope: &Scope, limit: Option<Duration>) -> Result<String> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let unit = format!("handover-job-{}-{number}.scope", std::process::id());
        match timeout(SCOPE_TIMEOUT, self.try_place(&unit, pid, what, scope, limit)).await {
            Ok(placed) => placed.map(|()| unit),
            Err(_) => {
                self.forget().await;
                let text =
                    format!("no scope for {what:?}: the service manager did not make it within {SCOPE_TIMEOUT:?}");
                Err(Error::new(Kind::Timeout, text))
            }
        }
    }

    /// Kills whatever is left in it; then it is gone.
    pub(crate) async fn kill(&self, unit: &str) {
        let killed = timeout(SCOPE_TIMEOUT, async {
            let connection = self.connect().await?;
            let kill = (unit, "all", libc::SIGKILL);
            connection.call_method(Some(SYSTEMD), PATH, Some(MANAGER), "KillUnit", &kill).await
        });
        match killed.await {
            Ok(Ok(_)) => {}
            // as a rule: it was empty, and is gone
            Ok(Err(error)) => debug!(unit, %error, "nothing to kill in the scope"),
            Err(_) => debug!(unit, "the service manager does not answer"),
        }
    }

    async fn try_place(&self, unit: &str, pid: u32, what: &str, scope: &Scope, limit: Option<Duration>) -> Result<()> {
        let refused =
            |error: &zbus::Error| Error::new(Kind::Notify, format!("no scope for {what:?}: {}", explain(error)));
        let had = self.connection.lock().await.is_some();
        match self.start(unit, pid, what, scope, limit).await {
            // The manager was executed anew (daemon-reexec): its old connections are closed, and nothing was done.
            Err(zbus::Error::InputOutput(_)) if had => {
                self.forget().await;
                self.start(unit, pid, what, scope, limit).await.map_err(|e| refused(&e))
            }
            result => result.map_err(|e| refused(&e)),
        }
    }

    async fn start(
        &self,
        unit: &str,
        pid: u32,
        what: &str,
        scope: &Scope,
        limit: Option<Duration>,
    ) -> zbus::Result<()> {
        let connection = self.connect().await?;
        // before the request: the answer to the job may come before that to the call
        let rule = MatchRule::builder().msg_type(Type::Signal).interface(MANAGER)?.member("JobRemoved")?.build();
        let mut removed = MessageStream::for_match_rule(rule, &connection, None).await?;
        let runtime_max = scope.runtime_max.or(limit).unwrap_or(SCOPE_RUNTIME_MAX);
        let mut properties = vec![
            ("Description", Value::from(what.escape_debug().to_string())),
            ("PIDs", Value::from(vec![pid])),
            ("CollectMode", Value::from("inactive-or-failed")),
            ("DefaultDependencies", Value::from(false)),
            ("RuntimeMaxUSec", Value::from(u64::try_from(runtime_max.as_micros()).unwrap_or(u64::MAX))),
        ];
        if let Some(slice) = &scope.slice {
            properties.push(("Slice", Value::from(slice.as_str())));
        }
        let none: Vec<(&str, Vec<(&str, Value<'_>)>)> = Vec::new();
        let request = (unit, "fail", properties, none);
        let reply = connection.call_method(Some(SYSTEMD), PATH, Some(MANAGER), "StartTransientUnit", &request).await?;
        let job: OwnedObjectPath = reply.body().deserialize()?;
        loop {
            let Some(message) = poll_fn(|cx| Pin::new(&mut removed).poll_next(cx)).await else {
                return Err(zbus::Error::Failure("the connection to the service manager has ended".into()));
            };
            let message = message?;
            let body = message.body();
            let (_, path, _, result): (u32, ObjectPath<'_>, &str, &str) = body.deserialize()?;
            match result {
                _ if path != *job => {}
                "done" => return Ok(()),
                other => return Err(zbus::Error::Failure(format!("the manager's job for it ended with {other:?}"))),
            }
        }
    }

    async fn connect(&self) -> zbus::Result<Connection> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = &*kept {
            return Ok(connection.clone());
        }
        let connection = open().await?;
        *kept = Some(connection.clone());
        Ok(connection)
    }

    async fn forget(&self) {
        self.connection.lock().await.take();
    }
}

async fn open() -> zbus::Result<Connection> {
    let runtime_directory = env::var_os("XDG_RUNTIME_DIR").filter(|_| !geteuid().is_root()).map(PathBuf::from);
    let (private, bus) = match &runtime_directory {
        Some(directory) => (Cow::from(directory.join("systemd/private")), Builder::session()),
        None => (Path::new("/run/systemd/private").into(), Builder::system()),
    };
    if let Ok(stream) = UnixStream::connect(&private).await {
        return Builder::unix_stream(stream).p2p().build().await;
    }
    let connection = bus?.build().await?;
    // over the bus its signals come only to those who ask
    connection.call_method(Some(SYSTEMD), PATH, Some(MANAGER), "Subscribe", &()).await?;
    Ok(connection)
}

fn explain(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, text, _) => {
            let text = text.as_deref().unwrap_or_default();
            match name.as_str() {
                "org.freedesktop.DBus.Error.AccessDenied"
                | "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired" => format!(
                    "the service manager refuses it to uid {}: run the service as root, or under that user's own manager, \
                     or allow org.freedesktop.systemd1.manage-units by a polkit rule ({text})",
                    geteuid()
                ),
                name => format!("the service manager refuses: {text} ({name})"),
            }
        }
        zbus::Error::InputOutput(error) => {
            format!("neither the service manager's socket nor a message bus can be reached: {error}")
        }
        other => other.to_string(),
    }
}
