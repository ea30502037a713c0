//! The command-line tool. It is a library for the fuzz targets alone: nothing of it is an
//! interface.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod believed;
mod commands;
mod failure;
#[doc(hidden)]
pub mod fuzz;
mod out;
mod page;
mod prometheus;
mod roots;
mod safe;
mod svg;
mod systemctl;
mod target;
mod terminal;

use commands::{
    check, completions, demo, init, manual, pause, prove, reload, run as run_command, status, timeline, upgrade, web,
};
use failure::{Failure, Outcome};

// `after_help.txt` of this and of each command has lines of at most 80 columns: what is longer is
// broken anew, and the columns with it.
/// Reloads services under systemd without their clients noticing.
#[derive(Debug, Parser)]
#[command(name = "handover", version, max_term_width = 100, after_help = include_str!("after_help.txt").trim_end())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// What each is for is said where its options are.
#[derive(Debug, Subcommand)]
enum Command {
    Reload(reload::Options),
    Status(status::Options),
    Pause(pause::Options),
    Resume(pause::ResumeOptions),
    Run(Box<run_command::Options>),
    Upgrade(Box<upgrade::Options>),
    Check(check::Options),
    Init(init::Options),
    Timeline(timeline::Options),
    Prove(Box<prove::Options>),
    Demo(demo::Options),
    Completions(completions::Options),
    Man(manual::Options),
    /// The example service itself
    #[command(name = demo::SERVICE_COMMAND, hide = true, disable_help_flag = true)]
    Web {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Runs the tool with the arguments of this process.
#[must_use]
pub fn main() -> ExitCode {
    completions::answer();
    let cli = Cli::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::cannot_run(format!("the tokio runtime does not start: {e}")))
        .and_then(|runtime| runtime.block_on(run(cli.command)));
    match outcome {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            out::error(&failure);
            failure.into()
        }
    }
}

async fn run(command: Command) -> Result<Outcome, Failure> {
    match command {
        Command::Reload(options) => reload::run(options).await,
        Command::Run(options) => run_command::run(*options).await,
        Command::Status(options) => status::run(options).await,
        Command::Pause(options) => pause::run(options).await,
        Command::Resume(options) => pause::resume(options).await,
        Command::Upgrade(options) => upgrade::run(*options).await,
        Command::Check(options) => check::run(options).await,
        Command::Init(options) => init::run(options).await,
        Command::Timeline(options) => timeline::run(options).await,
        Command::Prove(options) => prove::run(*options).await,
        Command::Demo(options) => demo::run(options).await,
        Command::Completions(options) => completions::run(&options),
        Command::Man(options) => manual::run(&options),
        Command::Web { arguments } => {
            let name = OsString::from("handover web");
            web::main_with(std::iter::once(name).chain(arguments)).await.map_err(|e| Failure::failed(e.to_string()))?;
            Ok(Outcome::Success)
        }
    }
}

/// The command line as it is documented: without what is hidden.
fn published() -> clap::Command {
    let all = Cli::command();
    let shown: Vec<_> = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    // A command cannot be taken away, so all is built anew but the commands.
    let root = clap::Command::new("handover").version(env!("CARGO_PKG_VERSION")).subcommand_required(true);
    let root = root.about(all.get_about().cloned().unwrap_or_default());
    root.after_help(all.get_after_help().cloned().unwrap_or_default()).subcommands(shown)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
