//! `handover pause` and `handover resume`: clients wait while something is done beside the service.

use std::time::Duration;

use clap::Args;
use handover::control::{Answer, PAUSE_FOR};
use serde_json::{Map, Value, json};

use crate::commands::reload::{POLL, status};
use crate::failure::{Failure, Outcome};
use crate::out;
use crate::safe;
use crate::target::{Target, Where};

/// How long a service may take to take such a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// So many pieces of work that are still in hand are named.
const MOST_NAMED: usize = 5;

/// Pauses a service, for a migration of its data in place, and waits until it has nothing in hand.
///
/// Clients wait until `handover resume`, or until the time of --for is over. The service needs the
/// control interface.
#[derive(Debug, Args)]
#[command(after_help = include_str!("after_help.txt").trim_end())]
pub(crate) struct Options {
    #[command(flatten)]
    place: Where,
    /// How long the pause may last; after that the service serves again by itself [default: 10m]
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    at_most: Option<Duration>,
    /// How long to wait until nothing is in hand; if something still is, the service serves again
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Do not wait for what is in hand
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,
}

/// Ends the pause of a service: whoever has waited is served.
#[derive(Debug, Args)]
#[command(after_help = include_str!("resume_after_help.txt").trim_end())]
pub(crate) struct ResumeOptions {
    #[command(flatten)]
    place: Where,
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let target = options.place.find().await?;
    let at_most = options.at_most.unwrap_or(PAUSE_FOR);
    let for_ms = u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX);
    ask(&target, "Pause", json!({ "for_ms": for_ms })).await?;
    let shown = humantime::format_duration(at_most);
    if options.no_wait {
        out::line(format_args!("{} is paused, for {shown} at most", target.name()));
        return Ok(Outcome::Success);
    }
    let mut seen = Value::Null;
    let failure = tokio::select! {
        rested = tokio::time::timeout(options.timeout, at_rest(&target, &mut seen)) => match rested {
            Ok(Ok(())) => {
                let name = target.name();
                out::line(format_args!("{name} is paused, for {shown} at most, and has nothing in hand"));
                return Ok(Outcome::Success);
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::failed(format!(
                "{} still has something in hand after {}{}; it serves again",
                target.name(),
                humantime::format_duration(options.timeout),
                named(&seen)
            )),
        },
        _ = tokio::signal::ctrl_c() => Failure::interrupted(),
    };
    // Who has not got what was asked for does nothing meanwhile, so nobody need wait.
    match ask(&target, "Resume", json!({})).await {
        Ok(()) => Err(failure),
        Err(also) => Err(failure.with(&format!("and it cannot be resumed: {also}"))),
    }
}

pub(crate) async fn resume(options: ResumeOptions) -> Result<Outcome, Failure> {
    let target = options.place.find().await?;
    ask(&target, "Resume", json!({})).await?;
    out::line(format_args!("{} serves", target.name()));
    Ok(Outcome::Success)
}

/// Waits until neither the service nor its older generations have anything in hand.
async fn at_rest(target: &Target, seen: &mut Value) -> Result<(), Failure> {
    loop {
        *seen = status(target).await?;
        match &seen["paused"] {
            Value::Null => return Err(Failure::failed(format!("{} is not paused any more", target.name()))),
            paused if paused["at_rest"] == true => return Ok(()),
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// What a service has in hand, its older generations included.
fn named(status: &Value) -> String {
    let all = |of: &Value| of["work"].as_array().cloned().unwrap_or_default();
    let older = status["draining"].as_array().into_iter().flatten().flat_map(all);
    let work: Vec<String> = all(&status["paused"])
        .into_iter()
        .chain(older)
        .filter_map(|work| Some(safe::terminal(work.as_str()?)))
        .collect();
    let more = work.len().saturating_sub(MOST_NAMED);
    let mut text: String = work.iter().take(MOST_NAMED).map(|work| format!("\n  {work}")).collect();
    if more > 0 {
        text += &format!("\n  and {more} more");
    }
    if text.is_empty() { text } else { format!(":{text}\n") }
}

async fn ask(target: &Target, method: &str, parameters: Value) -> Result<(), Failure> {
    let parameters = match parameters {
        Value::Object(parameters) => parameters,
        _ => Map::new(),
    };
    let asked = async {
        let mut client = target.connect().await?.ok_or_else(|| target.needs_control())?;
        client.call_with(method, parameters, false).await.map_err(|e| Failure::failed(e.to_string()))
    };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| {
        Err(Failure::failed(format!(
            "{} did not answer within {ANSWER_TIMEOUT:?}: it starts, stops, or hangs",
            target.name()
        )))
    });
    match answer? {
        Answer::Done(_) => Ok(()),
        Answer::Failed(failed) if failed.error == "org.varlink.service.MethodNotFound" => Err(Failure::cannot_run(
            format!("{} has a version of handover that knows nothing of pauses", target.name()),
        )),
        Answer::Failed(failed) => {
            Err(Failure::cannot_run(format!("{}: {}", target.name(), safe::terminal(failed.reason()))))
        }
        _ => Err(Failure::failed(format!("{} ended the connection: look at `handover status`", target.name()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_hand_is_named_and_no_more_than_a_few() {
        assert_eq!(named(&json!({})), "");
        let work: Vec<String> = (0..4).map(|n| format!("GET /{n}\u{1b}")).collect();
        let status = json!({"paused": {"work": work}, "draining": [{"work": ["old"]}, {"work": ["older"]}]});
        let text = named(&status);
        assert!(text.starts_with(":\n  GET /0\\u{1b}\n") && text.ends_with("\n  old\n  and 1 more\n"), "{text}");
    }
}
