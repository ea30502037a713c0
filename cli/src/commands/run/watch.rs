//! `--watch`: the program is kept as its source has it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use handover::supervise::Supervised;
use handover::upgrade::{Done, Upgrade};
use handover::{Error, Result};
use tracing::warn;

use crate::commands::upgrade::{Candidate, invalid};
use crate::failure::Failure;
use crate::safe;

/// For what is installed when it is told to stop.
const SETTLE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Watching {
    /// Look there for new versions of the program, and upgrade to them as `handover upgrade` does:
    /// a path, https://…, github:OWNER/REPOSITORY, s3://BUCKET/KEY
    #[arg(long, value_name = "SOURCE")]
    watch: Option<String>,
    /// About how often
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    every: Duration,
    #[command(flatten)]
    candidate: Candidate,
}

/// What is watched, once the supervisor is there.
pub(super) struct Watch {
    upgrade: Upgrade,
    every: Duration,
}

impl Watching {
    /// `program` and `directory` as on the command line. Nothing is looked for yet.
    pub(super) fn check(&self, program: &Path, directory: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
        let Some(_) = &self.watch else {
            return match self.candidate.said() {
                Some(option) => Err(Failure::usage(format!("{option} is for --watch SOURCE"))),
                None => Ok(None),
            };
        };
        if !self.candidate.says_whom_to_trust() {
            return Err(Failure::usage("--watch needs --key, whose programs are taken; or --no-signature"));
        }
        let shown = program.display();
        if program.components().count() == 1 && !program.is_absolute() {
            return Err(Failure::usage(format!("--watch replaces the program's file: write {shown} with its path")));
        }
        if program.is_relative() && directory.is_some() {
            return Err(Failure::usage(format!("with --directory and --watch, write the whole path of {shown}")));
        }
        std::path::absolute(program).map(Some).map_err(|e| Failure::usage(format!("{shown}: {e}")))
    }

    pub(super) fn start(&self, program: Option<PathBuf>, supervised: &Supervised) -> Result<Option<Watch>, Failure> {
        let (Some(program), Some(from)) = (program, &self.watch) else { return Ok(None) };
        let builder = self.candidate.builder(program, Some(from))?;
        let upgrade = builder.handle(supervised.handle()).map_err(|e| invalid(&e))?;
        Ok(Some(Watch { upgrade, every: self.every }))
    }
}

impl Watch {
    /// Looks, for as long as `running` is; then nothing is left half done.
    pub(super) async fn while_it<T>(self, running: impl Future<Output = T>) -> T {
        let mut last = String::new();
        let told = |outcome: &Result<Done, Error>| {
            // What came of a new program is logged by the upgrade itself; here, once, why there was
            // none.
            let text = match outcome {
                Err(error) if error.is_fetch() || error.is_state() || error.is_invalid() => {
                    safe::terminal(&error.to_string())
                }
                _ => String::new(),
            };
            if !text.is_empty() && text != last {
                warn!("no new program can be looked for: {text}");
            }
            last = text;
        };
        let ended = tokio::select! {
            ended = running => ended,
            never = self.upgrade.poll(self.every, told) => never,
        };
        self.upgrade.settled(SETTLE).await;
        ended
    }
}
