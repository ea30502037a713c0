//! `handover prove`: a server under load is reloaded, and its clients are asked what they lost. The
//! demo is made of the same parts.

mod assemble;
mod family;
mod html;
mod options;
mod plan;
mod plot;
mod prober;
mod progress;
mod report;
mod run;
mod server;
mod text;
mod trigger;
mod usage;

use std::time::Instant;

use crate::failure::{Failure, Outcome};
use crate::out;
use crate::terminal::Look;
pub(crate) use family::Family;
pub(crate) use options::Options;
pub(crate) use plan::Plan;
pub(crate) use progress::Progress;
pub(crate) use report::{Report, Teller, json, ms};
pub(crate) use run::Run;
pub(crate) use server::Server;
pub(crate) use text::{closing, figures};
pub(crate) use trigger::{Asked, Reloads};

use plan::resolved;
use report::Verdict;

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let (quiet, html) = (options.json, options.html.clone());
    let report = tokio::select! {
        report = prove(options) => report,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    // Whatever keeps it from being measured is one thing to whoever asks: not an answer.
    let report = report.map_err(Failure::into_usage)?;
    if let Some(path) = &html {
        out::file(path, html::render(&report))
            .map_err(|e| Failure::usage(format!("--html {}: {e}", path.display())))?;
    }
    if quiet {
        out::line(json(&report));
    } else {
        let look = Look::of_stdout();
        out::line(figures(&report, look) + &closing(&report, look, text::verdict(&report)));
    }
    match report.verdict {
        Verdict::NothingLost => Ok(Outcome::Success),
        Verdict::Lost => Ok(Outcome::Bad),
        Verdict::NotMeasured => Err(Failure::usage(report.problems.join("; "))),
    }
}

async fn prove(options: Options) -> Result<Report, Failure> {
    let (plan, mut trigger) = resolved(options).await?;
    let progress = Progress::new(&plan);
    let server = Server::find(&plan, &trigger).await?;
    let how = trigger.describe();
    progress.line(&format!("{} clients start; reload: {how}", plan.clients_in_all()));
    for note in &server.notes {
        progress.line(&format!("note: {note}"));
    }
    let mut run = Run::start(&plan, server, &progress).await?;
    let begun = run.begun();
    for number in 1..=plan.reloads {
        run.reload(begun + plan.every * number, &mut trigger).await;
        run.tell(&[]);
    }
    run.wait((begun + plan.duration).max(Instant::now() + plan.every)).await;
    let report = run.end(how, &trigger).await;
    progress.finish();
    Ok(report)
}
