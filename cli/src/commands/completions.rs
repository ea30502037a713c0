//! `handover completions`: a shell asks this program what may come next, so it knows of commands
//! and options what `--help` knows, and the names of units from systemd.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use clap::{Arg, Args};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::Shells;
use clap_complete::{CompleteEnv, Shell};

use crate::failure::{Failure, Outcome};
use crate::out;

/// Prints the completions of a shell.
///
/// The Debian package has installed those of bash, zsh and fish already.
#[derive(Debug, Args)]
#[command(after_help = include_str!("completions_after_help.txt").trim_end())]
pub(crate) struct Options {
    /// The shell that reads them
    shell: Shell,
}

const NAME: &str = "handover";
/// Set by the script of a shell that asks.
const ASKED: &str = "HANDOVER_COMPLETE";
/// zsh reads the script as the body of the completing function, when it is needed for the first
/// time.
const ZSH_FIRST: &str = "[[ $funcstack[1] == _handover ]] && _clap_dynamic_completer_handover";

pub(crate) fn run(options: &Options) -> Result<Outcome, Failure> {
    let (shells, mut script) = (Shells::builtins(), Vec::new());
    let shell = shells.completer(&options.shell.to_string());
    let shell = shell.ok_or_else(|| Failure::usage(format!("no completions for {}", options.shell)))?;
    shell
        .write_registration(ASKED, NAME, NAME, NAME, &mut script)
        .map_err(|e| Failure::failed(format!("the completions cannot be made: {e}")))?;
    out::line(String::from_utf8_lossy(&script).trim_end());
    if options.shell == Shell::Zsh {
        out::line(ZSH_FIRST);
    }
    Ok(Outcome::Success)
}

/// Answers a shell that asks, and ends this process then; else it does nothing.
pub(crate) fn answer() {
    CompleteEnv::with_factory(completed).var(ASKED).complete();
}

/// The command line, with names of units wherever one is taken.
fn completed() -> clap::Command {
    let is_unit = |arg: &Arg| arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.contains("UNIT")));
    let with_units = |arg: Arg| if is_unit(&arg) { arg.add(ArgValueCandidates::new(units)) } else { arg };
    crate::published().mut_subcommands(|command| command.mut_args(with_units))
}

/// What systemd has loaded: of the user's own manager if `--user` stands in the line.
fn units() -> Vec<CompletionCandidate> {
    let user = std::env::args_os().any(|word| word == OsStr::new("--user"));
    let mut command = Command::new("systemctl");
    command.args(user.then_some("--user"));
    command.args(["list-units", "--all", "--type=service,socket", "--plain", "--no-legend", "--no-pager"]);
    let listed = command.stdin(Stdio::null()).stderr(Stdio::null()).output().map(|output| output.stdout);
    let text = String::from_utf8_lossy(&listed.unwrap_or_default()).into_owned();
    let loaded = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| row.get(1) == Some(&"loaded"));
    loaded.map(|row| CompletionCandidate::new(row[0])).collect()
}
