//! `handover status`: what a service is doing just now.

mod text;

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::commands::reload::status_if_told;
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::target::{Target, Where, show};
use crate::terminal::Look;

/// How long a service may take to answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// Again and again, this often, until it is interrupted
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "1s", require_equals = true,
          value_parser = humantime::parse_duration)]
    watch: Option<Duration>,
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let target = options.place.find().await?;
    let Some(every) = options.watch else { return once(&options, &target, "").await };
    let clear = if options.json || !std::io::stdout().is_terminal() { "" } else { CLEAR };
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
    })?;
    let runs = asked["pid"].as_u64().is_some_and(|pid| pid != 0);
    if options.json {
        out::line(&asked);
    } else {
        out::line(format_args!("{clear}{}", text::text(&target.name(), &asked, Look::of_stdout()).trim_end()));
    }
    Ok(if runs { Outcome::Success } else { Outcome::Bad })
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
