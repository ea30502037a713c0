//! Transient scopes: a cgroup of its own for a program, made by the service manager at our request.
//!
//! systemd signals a unit's whole cgroup when it stops the unit. A program in a scope is in another
//! cgroup: a stop of the service that started it sends it nothing, while it stays that service's
//! child. The request goes over the message bus: that of the system, or the user's. A unit that is
//! `After=dbus.service` still has it while the machine shuts down.
//!
//! | we are | the manager asked | right |
//! |---|---|---|
//! | root | the system's | yes, also without capabilities |
//! | another user, with `XDG_RUNTIME_DIR` | the user's | yes, if the service itself runs under it |
//! | another user of a system service (`User=`, `DynamicUser=`) | the system's | only with a polkit rule for `org.freedesktop.systemd1.manage-units` |
//!
//! # What else a scope changes
//! `MemoryMax=`, `TasksMax=` and `CPUWeight=` of the service's unit do not hold in the scope: name
//! a slice that has such limits ([`Scope::slice`]). `systemctl status` of the service does not show
//! the program, `systemctl list-units --type=scope` does. The scope has no default dependencies: a
//! shutdown stops the service first, which waits for its jobs, and the scope with the rest.

use std::env;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::Stream as _;
use nix::unistd::geteuid;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::{debug, warn};
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, Value};
use zbus::{Connection, MatchRule, MessageStream};

use crate::error::{Error, Kind, Result};

/// How long the manager may take to put a program into its scope.
pub const SCOPE_TIMEOUT: Duration = Duration::from_secs(5);
/// A program without a timeout of its own is ended by the manager after this time, whatever became
/// of us: one day.
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

    /// Where no scope can be had (no right, no systemd) the program runs in the service's own
    /// cgroup, and the log says so: a reload leaves it alone, a stop of the unit does not.
    pub fn if_possible() -> Self {
        Self { required: false, ..Self::required() }
    }

    /// `Slice=` of the scope. Default: the manager's choice, `system.slice`. A slice with default
    /// dependencies is stopped at shutdown, and its scopes with it.
    pub fn slice(mut self, slice: impl Into<String>) -> Self {
        self.slice = Some(slice.into());
        self
    }

    /// `RuntimeMaxSec=`: the manager ends the program after this time. Default: the command's own
    /// timeout and grace, else [`SCOPE_RUNTIME_MAX`].
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
    /// Puts a process of ours into a scope of its own; the scope's name. `limit` is for a scope
    /// that has none; one that `survives` us is nobody's orphan.
    ///
    /// # Errors
    /// With [`Error::is_notify`]: there is no manager, or it refuses. With [`Error::is_timeout`].
    pub(crate) async fn place(
        &self,
        pid: u32,
        what: &str,
        scope: &Scope,
        limit: Option<Duration>,
        survives: bool,
    ) -> Result<String> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let kind = if survives { "kept" } else { "job" };
        let unit = format!("handover-{kind}-{}-{}-{number}.scope", unit_of("self"), std::process::id());
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

    /// See [`Jobs::kill_orphans`](crate::Jobs::kill_orphans).
    pub(crate) async fn kill_orphans(&self) -> Result<usize> {
        let prefix = format!("handover-job-{}-", unit_of("self"));
        let listed = timeout(SCOPE_TIMEOUT, async {
            let connection = self.connect().await?;
            let patterns = (Vec::<&str>::new(), vec![format!("{prefix}*.scope")]);
            connection.call_method(Some(SYSTEMD), PATH, Some(MANAGER), "ListUnitsByPatterns", &patterns).await
        });
        let failed = |why: String| Error::new(Kind::Notify, format!("the scopes of jobs cannot be listed: {why}"));
        let reply = match listed.await {
            Ok(reply) => reply.map_err(|e| failed(explain(&e)))?,
            Err(_) => return Err(failed(format!("the service manager does not answer within {SCOPE_TIMEOUT:?}"))),
        };
        let body = reply.body();
        let units: Vec<Unit<'_>> = body.deserialize().map_err(|e| failed(e.to_string()))?;
        let mut killed = 0;
        for (unit, ..) in units {
            let owner = unit.strip_prefix(&prefix).and_then(|rest| rest.split('-').next());
            // alive, and not a stranger with the same number by now
            if owner.is_none_or(|pid| unit_of(pid) == unit_of("self")) {
                continue;
            }
            warn!(unit, "killing what a process of this service left behind when it died");
            self.kill(unit).await;
            killed += 1;
        }
        Ok(killed)
    }

    async fn try_place(&self, unit: &str, pid: u32, what: &str, scope: &Scope, limit: Option<Duration>) -> Result<()> {
        let refused =
            |error: &zbus::Error| Error::new(Kind::Notify, format!("no scope for {what:?}: {}", explain(error)));
        let had = self.connection.lock().await.is_some();
        match self.start(unit, pid, what, scope, limit).await {
            // The bus was started anew: nothing was done over the old connection.
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

/// As `ListUnitsByPatterns` has it: its name, its description, four states and relations, its path,
/// and its job.
type Unit<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, &'a str, ObjectPath<'a>, u32, &'a str, ObjectPath<'a>);

/// The service that a process (`self`, or a pid) belongs to, as far as its name can be part of a
/// scope's; `none` if it is gone.
fn unit_of(process: &str) -> String {
    let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    let unit = unified.rsplit('/').find(|part| part.ends_with(".service")).unwrap_or("none");
    unit.trim_end_matches(".service").chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

async fn open() -> zbus::Result<Connection> {
    // The manager's own socket (/run/systemd/private) would need no bus, but it signs with a name
    // that zbus 5 panics over.
    let is_users = !geteuid().is_root() && env::var_os("XDG_RUNTIME_DIR").is_some();
    let bus = if is_users { Builder::session() } else { Builder::system() };
    let connection = bus?.build().await?;
    // its signals come only to those who ask
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
            format!("the message bus cannot be reached: {error}")
        }
        other => other.to_string(),
    }
}
