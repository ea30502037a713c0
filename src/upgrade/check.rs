//! A command that a candidate must pass.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;

use crate::error::{Error, Kind, Result};

/// What a check has of this process's environment, beside what begins with `LC_`. The rest is not
/// for a program that is only about to be trusted: tokens, credentials, and what a service manager
/// gives to one process alone, such as `NOTIFY_SOCKET` and `LISTEN_FDS`.
const PASSED_ON: [&str; 9] = ["HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"];

/// Runs it by the shell in a process group of its own, which is killed when time is over or the
/// future is dropped.
pub(crate) async fn run(command: &str, candidate: &Path, timeout: Duration) -> Result<()> {
    let bad = |why: String| Error::new(Kind::Candidate, format!("the check `{command}` {why}"));
    let path = candidate.display().to_string();
    let line = command.replace("{}", &quoted(&path));
    // Its words are for the log: stdout is the caller's.
    let output = || std::io::stderr().as_fd().try_clone_to_owned().map_or_else(|_| Stdio::null(), Stdio::from);
    let mut child = Command::new("/bin/sh")
        .args(["-c", &line])
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| is_passed_on(name)))
        .env("CANDIDATE", &path)
        .stdin(Stdio::null())
        .stdout(output())
        .stderr(output())
        .process_group(0)
        .spawn()
        .map_err(|e| Error::os("/bin/sh cannot be run for the check", e))?;
    let group = CheckGroup(child.id().and_then(|pid| i32::try_from(pid).ok()));
    let waited = tokio::time::timeout(timeout, child.wait()).await;
    drop(group);
    match waited {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(bad(format!("fails: {status}"))),
        Ok(Err(e)) => Err(Error::os("the check cannot be waited for", e)),
        Err(_) => {
            let _ = child.wait().await;
            Err(bad(format!("is not over within {timeout:?}")))
        }
    }
}

fn is_passed_on(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("LC_") || PASSED_ON.contains(&name))
}

/// Kills the check with whatever it has started, when dropped.
struct CheckGroup(Option<i32>);

impl Drop for CheckGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn its_status_is_the_answer() {
        let path = Path::new("/tmp/it's here");
        run("test {} = \"$CANDIDATE\"", path, LONG).await.unwrap();
        let failed = run("exit 3", path, LONG).await.unwrap_err();
        assert!(failed.is_candidate() && failed.to_string().contains("exit status: 3"), "{failed}");
    }

    #[test]
    fn secrets_and_sockets_are_not_passed_on() {
        for name in ["PATH", "HOME", "LANG", "LC_ALL", "TZ"] {
            assert!(is_passed_on(OsStr::new(name)), "{name}");
        }
        for name in [
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
            "LISTEN_PID",
            "WATCHDOG_USEC",
            "MAINPID",
            "CREDENTIALS_DIRECTORY",
            "GITHUB_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "HANDOVER_AUTHORIZATION",
            "HANDOVER_LINK",
            "LD_PRELOAD",
        ] {
            assert!(!is_passed_on(OsStr::new(name)), "{name}");
        }
    }

    #[tokio::test]
    async fn nothing_of_it_is_left() {
        let slow = run("sleep 1000", Path::new("x"), Duration::from_millis(100)).await.unwrap_err();
        assert!(slow.is_candidate() && slow.to_string().contains("not over"), "{slow}");
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        let command = format!("sleep 1000 & echo $! >{0}.new && mv {0}.new {0}; wait", pid.display());
        let started = async {
            while !pid.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            ended = run(&command, Path::new("x"), LONG) => panic!("{ended:?}"),
            () = started => {}
        }
        let pid = std::fs::read_to_string(pid).unwrap();
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        tokio::time::timeout(LONG, async {
            while !gone() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
    }
}
