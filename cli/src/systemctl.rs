//! `systemctl`, by which the service manager is asked. Nothing else in the tool starts it.

use std::fmt;
use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

/// How long an answer to a question may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Problem(Why);

#[derive(Debug)]
enum Why {
    NotRun(io::Error),
    Late(Duration),
    Refused(Output),
}

/// Makes the command, for the system's manager or the user's own. What it writes goes where this
/// process writes.
pub(crate) fn command(user: bool, arguments: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    command.arg("--no-pager").args(user.then_some("--user")).args(arguments);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs the command to its end, whatever that is, and returns what it wrote.
pub(crate) async fn output(mut command: Command, limit: Duration) -> Result<Output, Problem> {
    let why = match tokio::time::timeout(limit, command.output()).await {
        Ok(Ok(output)) => return Ok(output),
        Ok(Err(e)) => Why::NotRun(e),
        Err(_) => Why::Late(limit),
    };
    Err(Problem(why))
}

/// Asks a question, and returns the answer. A failure of `systemctl` is a problem, too.
pub(crate) async fn ask(user: bool, arguments: &[&str], limit: Duration) -> Result<String, Problem> {
    let output = output(command(user, arguments), limit).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Problem(Why::Refused(output)))
}

/// The version of this machine's systemd, whoever is its PID 1.
pub(crate) async fn version() -> Option<u32> {
    let said = ask(false, &["--version"], TIMEOUT).await.ok()?;
    said.split_whitespace().nth(1)?.parse().ok()
}

impl Problem {
    /// Whether there is no `systemctl` that could be run here.
    pub(crate) fn is_not_run(&self) -> bool {
        matches!(self.0, Why::NotRun(_))
    }
}

/// What was asked is the tool's own business: whoever reads the message has not written that
/// command line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Why::NotRun(e) => write!(f, "systemctl cannot be run: {e}"),
            Why::Late(limit) => write!(f, "the service manager: no answer within {limit:?}"),
            Why::Refused(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                match said.trim().trim_end_matches('.') {
                    "" => write!(f, "the service manager cannot be asked: systemctl ended with {}", output.status),
                    said => write!(f, "the service manager cannot be asked: {}", crate::safe::terminal(said)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_goes_wrong_is_said() {
        let mut missing = Command::new("/nowhere/systemctl");
        missing.args(["--no-pager", "show"]);
        let problem = output(missing, TIMEOUT).await.unwrap_err();
        assert!(problem.is_not_run() && problem.to_string().contains("cannot be run"), "{problem}");
        let mut slow = Command::new("sleep");
        slow.arg("60").kill_on_drop(true);
        let problem = output(slow, Duration::from_millis(20)).await.unwrap_err();
        assert!(!problem.is_not_run() && problem.to_string().contains("no answer within 20ms"), "{problem}");
        assert!(!problem.to_string().contains("60"), "not its command line: {problem}");
        let no_such_unit = ask(false, &["no-such-verb", "-p", "LoadState"], TIMEOUT).await;
        assert!(!no_such_unit.unwrap_err().to_string().contains("LoadState"));
    }
}
