//! Running a command with a deadline that kills it.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Output {
    pub(crate) fn success(&self) -> bool {
        self.status.success()
    }
}

/// Runs `command` with `stdin` until it has ended *and* closed its output: redirect that of
/// whatever stays behind.
pub(crate) fn run(command: &mut Command, stdin: &[u8], deadline: Duration) -> Result<Output, Failed> {
    let started = Instant::now();
    let what = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that the deadline also ends what it started (nsenter forks).
        .process_group(0)
        .spawn()
        .map_err(|e| format!("cannot start {what}: {e}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        let input = stdin.to_vec();
        // Its end is the child's: a child that does not read is no error here.
        thread::spawn(move || pipe.write_all(&input).is_ok());
    }
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let left = || deadline.saturating_sub(started.elapsed());
    let texts = stdout.recv_timeout(left()).and_then(|out| Ok((out, stderr.recv_timeout(left())?)));
    let Ok((stdout, stderr)) = texts else {
        kill_group(&child)?;
        child.wait()?;
        return Err(format!("not done after {deadline:?}, killed: {what}").into());
    };
    let status = child.wait()?;
    Ok(Output { status, stdout, stderr, took: started.elapsed() })
}

fn kill_group(child: &Child) -> Result<(), Failed> {
    killpg(Pid::from_raw(child.id().try_into()?), Signal::SIGKILL)?;
    Ok(())
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        tx.send(String::from_utf8_lossy(&bytes).into_owned())
    });
    rx
}
