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
pub(crate) struct Problem {
    asked: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    NotRun(io::Error),
    Late(Duration),
    Refused(Output),
}

/// Makes the command, for the system's manager or the user's own. What it writes goes where this process writes.
pub(crate) fn command(user: bool, arguments: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    command.arg("--no-pager").args(user.then_some("--user")).args(arguments);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs the command to its end, whatever that is, and returns what it wrote.
pub(crate) async fn output(mut command: Command, limit: Duration) -> Result<Output, Problem> {
    let words = command.as_std().get_args().skip(1).map(|word| word.to_string_lossy());
    let asked = words.collect::<Vec<_>>().join(" ");
    let why = match tokio::time::timeout(limit, command.output()).await {
        Ok(Ok(output)) => return Ok(output),
        Ok(Err(e)) => Why::NotRun(e),
        Err(_) => Why::Late(limit),
    };
    Err(Problem { asked, why })
}

/// Asks a question, and returns the answer. A failure of `systemctl` is a problem, too.
pub(crate) async fn ask(user: bool, arguments: &[&str], limit: Duration) -> Result<String, Problem> {
    let output = output(command(user, arguments), limit).await?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Problem { asked: arguments.join(" "), why: Why::Refused(output) })
}

impl Problem {
    /// Whether there is no `systemctl` that could be run here.
    pub(crate) fn is_not_run(&self) -> bool {
        matches!(self.why, Why::NotRun(_))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, why } = self;
        match why {
            Why::NotRun(e) => write!(f, "systemctl cannot be run: {e}"),
            Why::Late(limit) => write!(f, "systemctl {asked}: no answer within {limit:?}"),
            Why::Refused(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                match said.trim().trim_end_matches('.') {
                    "" => write!(f, "systemctl {asked}: {}", output.status),
                    said => write!(f, "systemctl {asked}: {}", crate::safe::terminal(said)),
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
    }
}
