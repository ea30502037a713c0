//! Lifecycle events where operators look for them: journald's own fields under systemd, readable
//! text elsewhere.
//!
//! The library logs with [`tracing`] and installs nothing by itself. Either add [`layer`] to your
//! subscriber, or call [`init`] in `main`.
//!
//! Under systemd each event of a reload carries the fields `GENERATION`, `HANDOVER_ID`, `OLD_PID`,
//! `NEW_PID` and its durations in milliseconds (`SPAWN_MS`, `READY_MS`, `HANDOVER_MS`, `DRAIN_MS`,
//! …), and a `MESSAGE_ID` of [`service::events`](crate::service::events), by which `journalctl -x`
//! explains it. In readable text the id is left out.
//!
//! ```sh
//! journalctl -u web.service -o json HANDOVER_ID=07e6aa55fc8e4dd4e046436619305fdf
//! ```

use std::fmt::Debug;
use std::os::unix::fs::MetadataExt as _;

use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput as _};
use tracing_subscriber::fmt::format::{DefaultVisitor, FormatFields, Writer};
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use crate::error::{Error, Kind, Result};

/// Whether stderr is a stream to journald, as [systemd.exec(5)] says to find out: `JOURNAL_STREAM`
/// holds its device and inode. It does not while stderr is redirected to a file or a terminal.
///
/// [systemd.exec(5)]: https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#%24JOURNAL_STREAM
#[must_use]
pub fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.dev(), stderr.ino())
}

/// A layer that logs to journald natively where stderr is the journal, and as text to stderr
/// elsewhere.
///
/// Native, because lines on an inherited stderr are credited to the first generation on old
/// versions of journald, and have no fields. If journald cannot be reached, this is text on stderr,
/// too.
///
/// ```
/// use tracing_subscriber::prelude::*;
/// let subscriber = tracing_subscriber::registry().with(handover::logging::layer());
/// # drop(subscriber);
/// ```
#[must_use]
pub fn layer<S>() -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    if stderr_is_journal()
        && let Ok(journald) = tracing_journald::layer()
    {
        return journald.with_field_prefix(None).boxed();
    }
    use std::io::IsTerminal as _;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    fmt::layer().with_writer(std::io::stderr).with_ansi(colours).with_target(false).fmt_fields(WithoutIds).boxed()
}

/// Installs [`layer`] as the program's subscriber, filtered by `RUST_LOG`, by default at `info`.
///
/// # Errors
/// With [`Error::is_state`]: the program has a subscriber already. With [`Error::is_invalid`]:
/// `RUST_LOG` cannot be read.
pub fn init() -> Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) => EnvFilter::try_new(&directives)
            .map_err(|e| Error::new(Kind::Invalid, format!("RUST_LOG={directives:?} cannot be read: {e}")))?,
        Err(_) => EnvFilter::new("info"),
    };
    Registry::default()
        .with(layer())
        .with(filter)
        .try_init()
        .map_err(|e| Error::new(Kind::State, format!("logging is set up already: {e}")))
}

/// As text is formatted by default, less the field `message_id`: it is for machines.
#[derive(Debug)]
struct WithoutIds;

impl<'writer> FormatFields<'writer> for WithoutIds {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> std::fmt::Result {
        let mut visitor = Skipping(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

struct Skipping<'writer>(DefaultVisitor<'writer>);

impl Visit for Skipping<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message_id" {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.record_error(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.record_debug(field, value);
    }
}
