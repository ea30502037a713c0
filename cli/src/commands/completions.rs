//! `handover completions`: what a shell completes, from the same definitions as `--help`.

use clap::Args;
use clap_complete::Shell;

use crate::failure::{Failure, Outcome};
use crate::out;

/// Prints the completions of a shell.
///
/// The Debian package has installed those of bash, zsh and fish already.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Options {
    /// The shell that reads them
    shell: Shell,
}

// Lines of at most 80 columns: what is longer is broken anew, and the columns with it.
const AFTER_HELP: &str = "\
Examples:
  source <(handover completions bash)      in this shell
  handover completions bash >~/.local/share/bash-completion/completions/handover
  handover completions zsh >~/.zfunc/_handover
      with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  handover completions fish >~/.config/fish/completions/handover.fish

Exit codes:
  0  printed
  2  the command line is wrong";

// Async as the other commands are; there is nothing to wait for.
#[expect(clippy::unused_async, reason = "all commands are called alike")]
pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    let mut command = crate::published();
    clap_complete::generate(options.shell, &mut command, "handover", &mut script);
    out::line(String::from_utf8_lossy(&script).trim_end());
    Ok(Outcome::Success)
}
