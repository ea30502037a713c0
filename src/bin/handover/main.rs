//! The command-line tool.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod check;
mod demo;
mod failure;
mod init;
mod out;
mod reload;
mod status;
mod target;
mod timeline;
mod upgrade;
// The demo runs exactly the published example, from this binary alone.
#[path = "../../../examples/web.rs"]
#[expect(dead_code, reason = "the example's own main is not called here")]
mod web;

use failure::{Failure, Outcome};

/// Reloads services under systemd without their clients noticing.
#[derive(Debug, Parser)]
#[command(name = "handover", version, max_term_width = 100, after_help = failure::EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reload a service, wait for the outcome, and fail with the reason if it failed
    Reload(reload::Options),
    /// Show the generations of a service, what they hold, and the last reloads
    Status(status::Options),
    /// Give a service a new program: fetched, verified, installed, reloaded, and put back if the service does not take it
    Upgrade(Box<upgrade::Options>),
    /// Say what in unit files would break a rolling reload, why, and what to write instead
    Check(check::Options),
    /// Write the .socket and .service units of a service, and with --rust a program
    Init(init::Options),
    /// Show the reloads of a unit as the journal has them: what each took, which failed and why
    Timeline(timeline::Options),
    /// Reload an example service under load, break it and kill it, and count what its clients lost
    Demo(demo::Options),
    /// The example service itself
    #[command(name = demo::SERVICE_COMMAND, hide = true, disable_help_flag = true)]
    Web {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
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
        Command::Status(options) => status::run(options).await,
        Command::Upgrade(options) => upgrade::run(*options).await,
        Command::Check(options) => check::run(options).await,
        Command::Init(options) => init::run(options).await,
        Command::Timeline(options) => timeline::run(options).await,
        Command::Demo(options) => demo::run(options).await,
        Command::Web { arguments } => {
            let name = OsString::from("handover web");
            web::main_with(std::iter::once(name).chain(arguments)).await.map_err(|e| Failure::failed(e.to_string()))?;
            Ok(Outcome::Success)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
