//! The command-line tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    handover_cli::main()
}
