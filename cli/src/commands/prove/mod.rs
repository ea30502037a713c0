//! `handover prove`: a server under load is reloaded, and its clients are asked what they lost.

mod assemble;
mod family;
mod html;
mod journal;
mod options;
mod plot;
mod preflight;
mod prober;
mod progress;
mod report;
mod run;
mod target;
mod text;
mod trigger;
mod usage;
mod who;

use crate::failure::{Failure, Outcome};
use crate::out;
use assemble::{Header, assemble};
pub(crate) use options::Options;
use progress::Progress;
use report::Verdict;

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let progress = Progress::new(&options);
    let proving = async {
        let ready = preflight::preflight(&options).await?;
        let header = Header::new(&options, &ready);
        let clients: usize = options.clients.counts().iter().map(|(_, count)| count).sum();
        progress.line(format_args!(
            "{clients} clients start; reload: {}",
            crate::safe::terminal(&ready.trigger.describe())
        ));
        let record = run::run(&options, ready, &progress).await?;
        Ok(assemble(&options, header, record))
    };
    let report = tokio::select! {
        report = proving => report,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    progress.finish();
    // Whatever keeps it from being measured is one thing to whoever asks: not an answer.
    let report = report.map_err(Failure::into_usage)?;
    if let Some(path) = &options.html {
        std::fs::write(path, html::render(&report))
            .map_err(|e| Failure::usage(format!("--html {}: {e}", path.display())))?;
    }
    if options.json {
        out::line(report.json());
    } else {
        out::line(text::text(&report));
    }
    match report.verdict {
        Verdict::NothingLost => Ok(Outcome::Success),
        Verdict::Lost => Ok(Outcome::Bad),
        Verdict::NotMeasured => Err(Failure::usage(report.problems.join("; "))),
    }
}
