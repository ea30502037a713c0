//! `handover status`: what a service is doing just now.

mod text;

use std::fs::Permissions;
use std::io::{self, IsTerminal, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::commands::reload::status_if_told;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::prometheus::Service;
use crate::roots::OldRoot;
use crate::target::{Target, Where, show};
use crate::terminal::Look;

/// How long a service may take to answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to compare roots.
const ROOT_TIMEOUT: Duration = Duration::from_secs(2);

/// Grows when a field of `--json` changes its meaning; new fields do not count.
const FORMAT: u32 = 1;

/// Home and erase, see console_codes(4).
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// Shows the generations of a service, their connections, who still drains and why, its sockets, fd
/// store, settings and last reloads.
///
/// Of a service without the control interface it shows what systemd knows.
#[derive(Debug, Args)]
#[command(after_help = include_str!("after_help.txt").trim_end())]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    /// As JSON, one object a line; its fields are described in the chapter "operate" of the docs
    #[arg(long)]
    json: bool,
    /// For Prometheus; with FILE, which is replaced as a whole, for the textfile collector of
    /// node_exporter
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, conflicts_with = "json")]
    prometheus: Option<Option<PathBuf>>,
    /// Again and again, this often, until it is interrupted
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "1s", require_equals = true,
          value_parser = humantime::parse_duration)]
    watch: Option<Duration>,
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let target = options.place.find().await?;
    let Some(every) = options.watch else { return once(&options, &target, "").await };
    let clear = if options.json || options.prometheus.is_some() || !io::stdout().is_terminal() { "" } else { CLEAR };
    let watching = async {
        loop {
            // A service that is just restarted is worth waiting for.
            if let Err(failure) = once(&options, &target, clear).await {
                out::error(&failure);
            }
            tokio::time::sleep(every.max(Duration::from_millis(100))).await;
        }
    };
    tokio::select! {
        never = watching => never,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

async fn once(options: &Options, target: &Target, clear: &str) -> Result<Outcome, Failure> {
    let asked = tokio::time::timeout(STATUS_TIMEOUT, ask(target)).await.unwrap_or_else(|_| {
        Err(Failure::cannot_run(format!(
            "{} did not answer within {STATUS_TIMEOUT:?}: it is starting, stopping, or hangs",
            target.name()
        )))
    });
    if let Some(file) = &options.prometheus {
        // Of one that cannot be asked, too, that is a number.
        tell_prometheus(target, asked.as_ref().ok(), file.as_deref())?;
    }
    let mut asked = asked?;
    let runs = asked["pid"].as_u64().is_some_and(|pid| pid != 0);
    if options.prometheus.is_some() {
        return Ok(if runs { Outcome::Success } else { Outcome::Bad });
    }
    // systemd is asked, which may hang while the service does not, and not many times a second.
    if options.watch.is_none()
        && let Ok(Some(old)) = tokio::time::timeout(ROOT_TIMEOUT, OldRoot::of(target)).await
    {
        asked["old_root"] = json!(old.to_string());
    }
    if options.json {
        asked["format"] = json!(FORMAT);
        out::line(&asked);
    } else {
        out::line(format_args!("{clear}{}", text::text(&target.name(), &asked, Look::of_stdout()).trim_end()));
    }
    Ok(if runs { Outcome::Success } else { Outcome::Bad })
}

fn tell_prometheus(target: &Target, status: Option<&Value>, file: Option<&Path>) -> Result<(), Failure> {
    let text = Service { unit: target.unit.clone().unwrap_or_else(|| target.name()) }.render(status);
    match file {
        None => out::line(text.trim_end()),
        Some(file) => replace(file, &text)
            .map_err(|e| Failure::cannot_run(format!("{} cannot be written: {e}", file.display())))?,
    }
    Ok(())
}

/// Whoever reads it sees the text of before or this one.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new =
        tempfile::Builder::new().prefix(".handover-").permissions(Permissions::from_mode(0o644)).tempfile_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.persist(file)?;
    Ok(())
}

async fn ask(target: &Target) -> Result<Value, Failure> {
    match (status_if_told(target).await?, &target.unit) {
        (Some(status), _) => Ok(status),
        (None, Some(unit)) => {
            let unit = show(unit, target.user).await?;
            let mut known = json!({
                "state": unit.state(),
                "status_text": unit.status,
                "note": format!("{}: this is what systemd knows", target.no_control()),
            });
            match unit.main {
                // Without a process there is nobody who could have an interface.
                0 => known["note"] = json!(format!("systemd says: {} ({})", unit.active, unit.sub)),
                pid => known["pid"] = json!(pid),
            }
            Ok(known)
        }
        (None, None) => Err(target.needs_control()),
    }
}
