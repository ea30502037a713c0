//! What needs a process of its own: this binary, started again to run one of the "tests" here that
//! are ignored otherwise.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use handover::Jobs;
use handover::drain::Drain;
use handover::jobs::Output;

use crate::commands::is_alive;
use crate::{soon, until};

const DIRECTORY: &str = "JOBS_TEST_DIRECTORY";

fn start(name: &str, directory: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("alone::{name}"), "--ignored", "--nocapture"]).env(DIRECTORY, directory);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn path(name: &str) -> Option<std::path::PathBuf> {
    Some(Path::new(&std::env::var_os(DIRECTORY)?).join(name))
}

#[test]
#[ignore = "the other process of a_crash_leaves_no_orphan"]
fn owner() {
    let Some(pid) = path("pid") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let jobs = Jobs::new(&Drain::new());
        let mut program = Command::new("sh");
        program.args(["-c", &format!("trap '' TERM HUP; echo $$ >{}; while :; do sleep 0.05; done", pid.display())]);
        let _ = jobs.command("endless", program).run().await;
    });
}

#[tokio::test]
async fn a_crash_leaves_no_orphan() {
    let directory = tempfile::tempdir().unwrap();
    let mut owner = start("owner", directory.path());
    let file = directory.path().join("pid");
    let pid = until("the program", || fs::read_to_string(&file).ok().filter(|t| t.ends_with('\n'))).await;
    assert!(is_alive(&pid));
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("the program's end", || (!is_alive(&pid)).then_some(())).await;
}

#[test]
#[ignore = "the other process of what_shall_survive_does"]
fn lender() {
    let (Some(pid), Some(end)) = (path("pid"), path("end")) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let jobs = Jobs::new(&Drain::new());
        let mut program = Command::new("sh");
        let script = format!("echo $$ >{}; while [ ! -e {} ]; do sleep 0.05; done", pid.display(), end.display());
        program.args(["-c", &script]);
        let _ = jobs.command("lasting", program).survives_us().output(Output::Inherit).run().await;
    });
}

#[tokio::test]
async fn what_shall_survive_does() {
    let directory = tempfile::tempdir().unwrap();
    let mut lender = start("lender", directory.path());
    let file = directory.path().join("pid");
    let pid = until("the program", || fs::read_to_string(&file).ok().filter(|t| t.ends_with('\n'))).await;
    lender.kill().unwrap();
    lender.wait().unwrap();
    // were it tied to that process, the signal would have been sent before its exit could be waited
    // for
    assert!(is_alive(&pid));
    fs::write(directory.path().join("end"), "").unwrap();
    until("the program's end", || (!is_alive(&pid)).then_some(())).await;
}

#[test]
#[ignore = "the other process of a_blocking_job_does_not_hold_up_the_exit"]
fn blocked() {
    let Some(ended) = path("ended") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let drain = Drain::new();
        let jobs = Jobs::new(&drain);
        let job = jobs.spawn_blocking("stubborn", |_| {
            loop {
                std::thread::park();
            }
        });
        drain.begin(Duration::ZERO);
        assert_eq!(drain.hammer().len(), 1);
        let outcome: handover::jobs::Outcome<()> = job.unwrap().await;
        assert_eq!(outcome, handover::jobs::Outcome::Cut);
    });
    drop(runtime); // as at the end of `#[tokio::main]`
    fs::write(ended, "").unwrap();
}

#[tokio::test]
async fn a_blocking_job_does_not_hold_up_the_exit() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = start("blocked", directory.path());
    let status = soon(until("its exit", || process.try_wait().unwrap())).await;
    assert!(status.success() && directory.path().join("ended").exists(), "{status}");
}
