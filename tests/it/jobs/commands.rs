//! Programs as jobs, really run.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use handover::jobs::{End, Outcome, Output};
use tokio::sync::oneshot;

use crate::{PATIENCE, jobs, soon, until};

const LINGER: Duration = Duration::from_secs(5);

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn what_it_reads_and_writes() {
    let (_drain, jobs) = jobs();
    let report = soon(jobs.command("cat", sh("cat; echo oops >&2")).stdin("hello").run()).await.unwrap();
    assert!(report.success() && report.status.unwrap().success());
    assert_eq!((report.stdout.text(), report.stderr.text()), ("hello".into(), "oops\n".into()));
    // without: an end at once
    let report = soon(jobs.command("cat", sh("cat")).run()).await.unwrap();
    assert!(report.success() && report.stdout.bytes.is_empty());
    // more than is kept, and more than a pipe holds
    let loud = jobs.command("loud", sh("head -c 300000 /dev/zero; printf end")).output(Output::Capture(10));
    let report = soon(loud.run()).await.unwrap();
    assert_eq!((report.stdout.omitted, &report.stdout.bytes[7..]), (299_993, &b"end"[..]));
    let logged = soon(jobs.command("log", sh("echo line")).output(Output::Log).run()).await.unwrap();
    assert!(logged.success() && logged.stdout.bytes.is_empty());
}

#[tokio::test]
async fn how_it_ended() {
    let (_drain, jobs) = jobs();
    let report = soon(jobs.command("three", sh("exit 3")).run()).await.unwrap();
    assert_eq!((report.end, report.end.to_string().as_str()), (End::Exited(3), "exited with status 3"));
    let report = soon(jobs.command("killed", sh("kill -USR1 $$")).run()).await.unwrap();
    assert_eq!(report.end.to_string(), "was killed by SIGUSR1");
    let error = soon(jobs.command("none", Command::new("/no/such/program")).run()).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/program") && error.to_string().contains("none"), "{error}");
    assert_eq!(jobs.report().failed, 3);
}

#[tokio::test]
async fn its_surroundings() {
    let (_drain, jobs) = jobs();
    let mut command = sh(
        "ps -o pid=,pgid=,sid= -p $$; echo \"[$NOTIFY_SOCKET|$LISTEN_FDS]\"; ls /proc/$$/fd; grep -E \"Sig(Blk|Ign)\" /proc/self/status",
    );
    command.env("LISTEN_FDS", "given");
    let report = soon(jobs.command("look", command).run()).await.unwrap();
    let text = report.stdout.text().into_owned();
    let mut lines = text.lines();
    let ids: Vec<u32> = lines.next().unwrap().split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert!(ids[0] == ids[1] && ids[0] == ids[2], "a session and a group of its own: {ids:?}");
    assert_eq!(lines.next(), Some("[|given]"), "what is set for it stays");
    let signals = text.lines().filter(|line| line.starts_with("Sig")).map(|line| {
        let set = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        set & !(0b11 << 31) // without the two that the C library keeps for itself
    });
    assert_eq!(signals.collect::<Vec<_>>(), [0, 0], "none blocked, none ignored: {text}");
    let fds: Vec<_> = lines.take_while(|line| !line.starts_with("Sig")).collect();
    // nothing but what this test was started with
    let plain = sh("ls /proc/$$/fd").output().unwrap();
    assert_eq!(fds, String::from_utf8_lossy(&plain.stdout).lines().collect::<Vec<_>>());
}

#[tokio::test]
async fn its_timeout_lets_it_clean_up() {
    let (_drain, jobs) = jobs();
    let script = "trap 'echo cleaned; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let limit = Duration::from_millis(1500);
    let report = soon(jobs.command("tidy", sh(script)).timeout(limit).term_grace(PATIENCE).run()).await.unwrap();
    assert_eq!((report.end, report.status.unwrap().code()), (End::TimedOut(limit), Some(5)));
    assert!(report.stdout.text().contains("cleaned"), "{report:?}");
}

#[tokio::test]
async fn what_does_not_end_is_killed_with_its_whole_group() {
    let (_drain, jobs) = jobs();
    let script = "trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000";
    let command = jobs.command("stubborn", sh(script)).timeout(Duration::from_secs(1));
    let began = Instant::now();
    let report = soon(command.term_grace(Duration::from_millis(200)).run()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1200));
    assert!(matches!(report.end, End::TimedOut(_)));
    let other = report.stdout.text().into_owned();
    until("the end of what it started", || (!is_alive(&other)).then_some(())).await;
}

#[tokio::test]
async fn what_it_leaves_behind_is_killed() {
    let (_drain, jobs) = jobs();
    let began = Instant::now();
    let report = soon(jobs.command("sloppy", sh("sleep 1000 & echo $!")).run()).await.unwrap();
    assert!(report.success() && began.elapsed() < PATIENCE);
    let left = report.stdout.text().into_owned();
    until("the end of what it left", || (!is_alive(&left)).then_some(())).await;
}

#[tokio::test]
async fn the_hammer_ends_it_in_order() {
    let (drain, jobs) = jobs();
    let directory = tempfile::tempdir().unwrap();
    let (ready, cleaned) = (directory.path().join("ready"), directory.path().join("cleaned"));
    let script = format!(
        "trap 'sleep 0.1; echo yes >{}; exit' TERM; echo $$ >{}; while :; do sleep 0.05; done",
        cleaned.display(),
        ready.display()
    );
    let alone = jobs.command("program", sh(&script)).term_grace(PATIENCE).spawn().unwrap();
    let within =
        jobs.spawn("outer", |job| async move { job.command("inner", sh("sleep 1000")).run().await.is_ok() }).unwrap();
    let pid = until("the program", || fs::read_to_string(&ready).ok().filter(|t| t.ends_with('\n'))).await;
    until("all jobs", || (drain.active() == 3).then_some(())).await;
    drain.begin(LINGER);
    assert!(is_alive(&pid), "the drain waits for it");
    let mut cut: Vec<_> = drain.hammer().iter().map(ToString::to_string).collect();
    cut.sort();
    assert!(cut.len() == 2 && cut[1].starts_with("job program, running for "), "{cut:?}");
    assert_eq!(soon(alone).await.finished().map(|r| r.is_ok()), None);
    assert_eq!(soon(within).await, Outcome::Cut);
    assert!(soon(jobs.programs_ended()).await, "all of them");
    assert_eq!(fs::read_to_string(cleaned).unwrap(), "yes\n", "SIGTERM, and time for it");
    assert!(!is_alive(&pid));
    assert!(soon(jobs.programs_ended()).await);
}

/// A shell dies of SIGTERM at once; what it runs has the grace, too.
#[tokio::test]
async fn the_grace_is_for_the_whole_group() {
    let (drain, jobs) = jobs();
    let directory = tempfile::tempdir().unwrap();
    let (ready, cleaned) = (directory.path().join("ready"), directory.path().join("cleaned"));
    let script = format!(
        "(trap 'sleep 0.2; echo yes >{}; exit' TERM; echo >{}; while :; do sleep 0.05; done) & wait",
        cleaned.display(),
        ready.display()
    );
    let job = jobs.command("wrapped", sh(&script)).term_grace(PATIENCE).spawn().unwrap();
    until("the inner program", || ready.exists().then_some(())).await;
    drain.begin(LINGER);
    assert_eq!(drain.hammer().len(), 1);
    assert!(soon(job).await.finished().is_none());
    assert!(soon(jobs.programs_ended()).await);
    assert_eq!(fs::read_to_string(cleaned).unwrap(), "yes\n");
}

/// The kernel ties a program's life to the thread that started it: that one must not be the
/// caller's.
#[tokio::test]
async fn it_survives_the_thread_that_asked_for_it() {
    let (_drain, jobs) = jobs();
    let (tell, told) = oneshot::channel();
    let handle = tokio::runtime::Handle::current();
    let asked = jobs.clone();
    let thread = std::thread::spawn(move || {
        let _entered = handle.enter();
        tell.send(asked.command("long", sh("sleep 0.3; echo done")).spawn().unwrap()).unwrap();
    });
    let job = soon(told).await.unwrap();
    thread.join().unwrap();
    let report = soon(job).await.finished().unwrap().unwrap();
    assert_eq!((report.success(), report.stdout.text().as_ref()), (true, "done\n"), "{report:?}");
}

#[cfg(feature = "scope")]
#[tokio::test]
async fn a_scope_without_a_bus() {
    use handover::systemd::scope::Scope;

    if std::path::Path::new("/run/dbus/system_bus_socket").exists() {
        return; // there is a bus: the scenarios show what happens then
    }
    let (_drain, jobs) = jobs();
    let error = soon(jobs.command("scoped", sh("echo ran")).scope(Scope::required()).run()).await.unwrap_err();
    assert!(error.is_notify() && error.to_string().contains("scoped"), "{error}");
    let report = soon(jobs.command("scoped", sh("echo ran")).scope(Scope::if_possible()).run()).await.unwrap();
    assert_eq!(report.stdout.text(), "ran\n");
}
