//! A service's control interface: status, reload and lifecycle events over
//! [Varlink](https://varlink.org), off unless asked for by [`Builder::control`].
//!
//! It is what `handover reload` and `handover status` talk to; `varlinkctl` of systemd 257 and
//! later can, too:
//!
//! ```sh
//! varlinkctl introspect /run/web/handover.sock io.handover.Service
//! varlinkctl call /run/web/handover.sock io.handover.Service.Status '{}'
//! varlinkctl call --more /run/web/handover.sock io.handover.Service.Reload '{}'
//! ```
//!
//! The kernel tells who asks: the service's own user and root are let in. Others are answered
//! `PermissionDenied` and closed at once, whatever they say or do not say: they take none of the
//! [`MAX_CLIENTS`] places, nothing of theirs is read, and the log has a line a minute. The socket
//! is one of the service's own: it is handed over in a reload as the others are, and its
//! connections are counted and drained, so that who waits for the outcome of a reload gets it from
//! the generation that was asked.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> handover::Result<()> {
//! let service = handover::Service::builder()
//!     .listen("http", "127.0.0.1:8080")
//!     .control() // with RuntimeDirectory= in the unit
//!     .start()?;
//! # service.run().await
//! # }
//! ```

mod client;
mod strangers;
mod wire;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tracing::info;

pub use client::{Answer, Client, Failed, Server};
pub use wire::INTERFACE;

use crate::drain::{Connection, Drain, DrainSignal, Peer, Stream, StreamOptions, serve_admitted};
use crate::error::{Error, Result};
use crate::service::builder::Extra;
use crate::service::{Builder, Handle, Reloaded, Service, Status};
use crate::systemd::activation::Listener;
use strangers::Door;
#[cfg(feature = "admin")]
pub(crate) use strangers::lets_in;
#[cfg(all(feature = "http", feature = "settings", feature = "supervise", feature = "upgrade"))]
pub(crate) use wire::Call;
#[cfg(not(all(feature = "http", feature = "settings", feature = "supervise", feature = "upgrade")))]
use wire::Call;
pub(crate) use wire::Reply;
use wire::{MAX_CALL, Wire};

/// The name of the socket, as `FileDescriptorName=` in a .socket unit would have it.
pub const SOCKET_NAME: &str = "control";

/// The file in the runtime directory.
pub const SOCKET_FILE: &str = "handover.sock";

/// How many clients there may be at a time; more of them wait.
pub const MAX_CLIENTS: usize = 64;

/// How long a pause lasts at most, unless it is said otherwise.
pub const PAUSE_FOR: Duration = Duration::from_secs(10 * 60);

/// A variable of programs that `handover run` has started.
pub(crate) const SUPERVISED: &str = "HANDOVER_RUN_TAG";

/// The next generation is to blame, and this one serves on.
pub(crate) const RELOAD_FAILED: &str = "io.handover.Service.ReloadFailed";
const NOT_POSSIBLE: &str = "io.handover.Service.NotPossible";

const DESCRIPTION: &str = include_str!("io.handover.Service.varlink");

const VARLINK: &str = "org.varlink.service";
const VARLINK_DESCRIPTION: &str = "\
interface org.varlink.service

method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
";

impl Builder {
    /// Serves the [control interface](crate::control) at `$RUNTIME_DIRECTORY/handover.sock`, where
    /// `handover reload` finds it. systemd sets the variable for `RuntimeDirectory=`; without it
    /// there is no control interface, and a line in the log says so. Under `handover run` there is
    /// none either: that has one.
    pub fn control(self) -> Self {
        let directory = std::env::var_os("RUNTIME_DIRECTORY").and_then(|all| socket_in(all.to_str()?));
        match directory {
            // One for each generation would be in the way of the others; the supervisor has one for
            // them all.
            Some(_) if std::env::var_os(SUPERVISED).is_some() => self,
            Some(path) => self.control_at(path),
            None => self.with_extra(|_| {
                info!("no control interface: RuntimeDirectory= is not set in the unit");
                Ok(())
            }),
        }
    }

    /// Serves as [`control`](Self::control) does, at this path or `@name`;
    /// `handover reload --socket` takes paths.
    pub fn control_at(self, path: impl AsRef<Path>) -> Self {
        let address = path.as_ref().display().to_string();
        self.listen(SOCKET_NAME, address)
            .with_extra(|service| serve(service.drain(), service.listeners(SOCKET_NAME)?, service.handle()))
    }

    fn with_extra(mut self, extra: impl FnOnce(&Service) -> Result<()> + Send + Sync + 'static) -> Self {
        self.extras.push(Extra(Box::new(extra)));
        self
    }
}

/// Serves the interface for whatever has a handle, also if it is no [`Service`].
pub(crate) fn serve(drain: &Drain, listeners: Vec<Listener>, handle: Handle) -> Result<()> {
    let options = StreamOptions::new().max_connections(MAX_CLIENTS).aside();
    let door = Door::default();
    let admit = move |stream: &Stream, peer: &Peer| door.admits(stream, peer);
    serve_admitted(drain, SOCKET_NAME, listeners, options, admit, move |connection| {
        converse(connection, handle.clone())
    })
}

/// Returns the socket's path for a value of `RUNTIME_DIRECTORY`, which may name several.
#[must_use]
pub fn socket_in(runtime_directory: &str) -> Option<PathBuf> {
    let first = runtime_directory.split(':').next().filter(|first| first.starts_with('/'))?;
    Some(Path::new(first).join(SOCKET_FILE))
}

async fn converse(connection: Connection, handle: Handle) -> io::Result<()> {
    let Connection { stream, mut drain, .. } = connection;
    let mut wire = Wire::new(stream, MAX_CALL);
    loop {
        let call: Call = tokio::select! {
            // What was asked before the drain is answered.
            biased;
            call = wire.receive() => match call? {
                Some(call) => call,
                None => return Ok(()),
            },
            () = &mut drain => return Ok(()),
        };
        let oneway = call.oneway;
        let last = answer(&mut wire, &call, &handle, &mut drain).await?;
        if !oneway {
            wire.send(&last).await?;
        }
    }
}

/// Returns the last reply; those before it are sent.
async fn answer(wire: &mut Wire<Stream>, call: &Call, handle: &Handle, drain: &mut DrainSignal) -> io::Result<Reply> {
    let nothing = Map::new();
    let parameters = call.parameters.as_ref().unwrap_or(&nothing);
    let (interface, method) = call.method.rsplit_once('.').unwrap_or(("", &call.method));
    // Nobody hears about a `oneway`, so nothing is said on the way.
    let more = call.more && !call.oneway;
    Ok(match (interface, method) {
        _ if call.upgrade => refusal("org.varlink.service.MethodNotImplemented", &json!({ "method": call.method })),
        (VARLINK, "GetInfo") => done(&json!({
            "vendor": "handover",
            "product": INTERFACE,
            "version": env!("CARGO_PKG_VERSION"),
            "url": "https://docs.rs/handover",
            "interfaces": [VARLINK, INTERFACE],
        })),
        (VARLINK, "GetInterfaceDescription") => match parameters.get("interface").and_then(Value::as_str) {
            Some(VARLINK) => done(&json!({ "description": VARLINK_DESCRIPTION })),
            Some(INTERFACE) => done(&json!({ "description": DESCRIPTION })),
            Some(other) => refusal("org.varlink.service.InterfaceNotFound", &json!({ "interface": other })),
            None => refusal("org.varlink.service.InvalidParameter", &json!({ "parameter": "interface" })),
        },
        (INTERFACE, "Status") => perform(handle, Wish::Status { here: true }).await,
        (INTERFACE, "Reload") => reload(wire, handle, more).await?,
        (INTERFACE, "Drain") => perform(handle, Wish::Drain).await,
        (INTERFACE, "Pause") => match pause_for(parameters) {
            Some(at_most) => perform(handle, Wish::Pause(at_most)).await,
            None => refusal("org.varlink.service.InvalidParameter", &json!({ "parameter": "for_ms" })),
        },
        (INTERFACE, "Resume") => perform(handle, Wish::Resume).await,
        (INTERFACE, "Subscribe") if !more => refusal("org.varlink.service.ExpectedMore", &json!({})),
        (INTERFACE, "Subscribe") => subscribe(wire, handle, drain).await?,
        (VARLINK | INTERFACE, _) => refusal("org.varlink.service.MethodNotFound", &json!({ "method": call.method })),
        _ => refusal("org.varlink.service.InterfaceNotFound", &json!({ "interface": interface })),
    })
}

/// Returns how long a pause shall last at most; `None`: that is no such time.
fn pause_for(parameters: &Map<String, Value>) -> Option<Duration> {
    match parameters.get("for_ms") {
        None | Some(Value::Null) => Some(PAUSE_FOR),
        Some(ms) => ms.as_u64().map(Duration::from_millis),
    }
}

async fn reload(wire: &mut Wire<Stream>, handle: &Handle, more: bool) -> io::Result<Reply> {
    let mut steps = handle.steps();
    let mut outcome = match handle.ask_for_reload() {
        Ok(outcome) => outcome,
        Err(error) => return Ok(not_possible(&error)),
    };
    if more {
        wire.send(&step(&json!({}))).await?;
    }
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut outcome => break outcome,
            told = steps.recv(), if more => if let Ok(told) = told {
                wire.send(&step(&json!({ "step": told }))).await?;
            },
        }
    };
    // What was told before the outcome was known.
    let mut rest = more.then_some(steps);
    while let Some(steps) = &mut rest {
        match steps.try_recv() {
            Ok(told) => wire.send(&step(&json!({ "step": told }))).await?,
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => rest = None,
        }
    }
    Ok(match outcome {
        Ok(outcome) => ended(handle, outcome).await,
        Err(_) => refusal(NOT_POSSIBLE, &json!({ "reason": "the service is over" })),
    })
}

/// How a reload ended.
async fn ended(handle: &Handle, outcome: Result<Reloaded>) -> Reply {
    match outcome {
        Ok(Reloaded::HandedOver { generation, pid }) => {
            done(&json!({ "outcome": "handed_over", "generation": generation, "pid": pid }))
        }
        Ok(Reloaded::InPlace) => done(&json!({ "outcome": "in_place" })),
        Ok(Reloaded::PassedOn) => {
            let next = handle.status().await.map(|status| status.generation + 1).ok();
            done(&json!({ "outcome": "passed_on", "generation": next }))
        }
        Err(error) if error.is_generation() => {
            let own = handle.status().await.map(|status| (status.generation, status.pid)).unwrap_or_default();
            let reason = error.to_string();
            refusal(RELOAD_FAILED, &json!({ "reason": reason, "generation": own.0, "pid": own.1 }))
        }
        Err(error) => not_possible(&error),
    }
}

/// What is asked for, by whichever interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// `here`: over a connection of the control interface, which is not to be counted.
    Status {
        here: bool,
    },
    #[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "here, a reload is told step by step"))]
    Reload,
    Drain,
    Pause(Duration),
    Resume,
}

/// Does it, and says how that ended.
pub(crate) async fn perform(handle: &Handle, wish: Wish) -> Reply {
    match wish {
        Wish::Status { here } => match handle.status().await {
            Ok(status) => done(&json!({ "status": if here { without_asker(status) } else { status } })),
            Err(error) => not_possible(&error),
        },
        Wish::Reload => {
            let outcome = handle.reload().await;
            ended(handle, outcome).await
        }
        Wish::Drain => done_or_not(handle.stop()),
        Wish::Pause(at_most) => done_or_not(handle.pause(at_most).await),
        Wish::Resume => done_or_not(handle.resume().await),
    }
}

async fn subscribe(wire: &mut Wire<Stream>, handle: &Handle, drain: &mut DrainSignal) -> io::Result<Reply> {
    let mut steps = handle.steps();
    match handle.status().await {
        Ok(status) => wire.send(&step(&json!({ "status": without_asker(status) }))).await?,
        Err(error) => return Ok(not_possible(&error)),
    }
    loop {
        let told = tokio::select! {
            biased;
            told = steps.recv() => told,
            () = &mut *drain => break,
            () = wire.closed() => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        match told {
            Ok(told) => wire.send(&step(&json!({ "step": told }))).await?,
            Err(RecvError::Lagged(missed)) => wire.send(&step(&json!({ "missed": missed }))).await?,
            Err(RecvError::Closed) => break,
        }
    }
    Ok(done(&json!({})))
}

/// The connection that asks is the asker's, not the service's work: with it nothing would ever be
/// idle.
fn without_asker(mut status: Status) -> Status {
    if let Some(own) = status.open.iter_mut().find(|open| open.listener == SOCKET_NAME && open.count > 0) {
        own.count -= 1;
        status.connections = status.connections.saturating_sub(1);
    }
    status.open.retain(|open| open.count > 0);
    status
}

fn done(parameters: &impl Serialize) -> Reply {
    Reply { parameters: without_nulls(serde_json::to_value(parameters).unwrap_or_default()), ..Reply::default() }
}

fn done_or_not(outcome: Result<()>) -> Reply {
    outcome.map_or_else(|error| not_possible(&error), |()| done(&json!({})))
}

fn step(parameters: &impl Serialize) -> Reply {
    Reply { continues: true, ..done(parameters) }
}

fn refusal(error: &str, parameters: &Value) -> Reply {
    Reply { error: Some(error.to_owned()), parameters: parameters.clone(), continues: false }
}

fn not_possible(error: &Error) -> Reply {
    refusal(NOT_POSSIBLE, &json!({ "reason": error.to_string() }))
}

/// Leaves out what is null: in Varlink what is not there is left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(values) => Value::Array(values.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_runtime_directory_is_it() {
        assert_eq!(socket_in("/run/web:/run/more"), Some("/run/web/handover.sock".into()));
        assert_eq!(socket_in(""), None);
        assert_eq!(socket_in("run/web"), None);
    }

    #[test]
    fn nothing_is_null_on_the_wire() {
        assert_eq!(without_nulls(json!({"a": null, "b": [{"c": null, "d": 1}]})), json!({"b": [{"d": 1}]}));
    }

    /// Every field that a status or a step can have is in the description, so that `varlinkctl`
    /// shows it.
    #[test]
    fn the_description_names_every_method_that_there_is() {
        for method in ["Status", "Reload", "Drain", "Pause", "Resume", "Subscribe"] {
            assert!(DESCRIPTION.contains(&format!("method {method}(")), "{method}");
        }
    }
}
