//! [`Program`], seen from outside: by `/proc`, on programs that know nothing of us.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;

use handover::{Error, Program};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};

use crate::{Case, cases};
use handover_testing::processes::{end_of, signal, status, until};
use handover_testing::world::{launch, try_launch, write_executable};

pub(crate) const CASES: &[Case] = cases![
    a_foreign_program_gets_what_systemd_would_give_it,
    without_sockets_nothing_is_passed,
    the_watchdog_variable_comes_only_with_a_watchdog,
    argv_and_directory_are_kept,
    what_cannot_be_executed_is_said,
    what_no_program_can_get_is_refused,
];

/// Sleeps, and has no signal handlers.
const SLEEP: &str = "/bin/sleep";

fn sleep() -> Program {
    Program::new(SLEEP).arg("1000")
}

fn environment(pid: u32) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let pairs = text.split_terminator('\0').map(|line| line.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn fds(pid: u32) -> BTreeMap<i32, String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(Result::unwrap);
    let read = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str().unwrap().parse().unwrap();
        Some((number, fs::read_link(entry.path()).ok()?.display().to_string()))
    };
    entries.filter_map(read).filter(|(number, _)| *number > 2).collect()
}

fn own_fd(fd: &impl std::os::fd::AsRawFd) -> String {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().display().to_string()
}

fn mask(pid: u32, name: &str) -> u64 {
    u64::from_str_radix(&status(pid, name), 16).unwrap()
}

fn end(pid: u32) {
    signal(pid, Signal::SIGKILL);
    end_of(pid);
}

fn a_foreign_program_gets_what_systemd_would_give_it() {
    let http = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let shown = [own_fd(&http), own_fd(&admin)];
    // What some library left open without close-on-exec, and a thread that blocks signals.
    let careless = fcntl(File::open("/dev/zero").unwrap(), FcntlArg::F_DUPFD(100)).unwrap();
    let blocked = SigSet::from_iter([Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1]);
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&blocked), Some(&mut before)).unwrap();
    let program = sleep().socket("http", http).socket("admin", admin).env("WATCHDOG_USEC", "1000000").env("A", "b=c");
    // Variables that only a start can know cannot be given.
    let stale = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID", "WATCHDOG_PID", "SYSTEMD_EXEC_PID"];
    let stale = stale.into_iter().chain(["HANDOVER_FD", "HANDOVER_PID"]);
    let pid = launch(program.envs(stale.map(|name| (name.into(), "1".into()))));
    let mut after = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), Some(&mut after)).unwrap();
    nix::unistd::close(careless).unwrap();
    assert_eq!(after, blocked, "the mask of the starting thread is as it was");

    let me = pid.to_string();
    let expected = [
        ("A", "b=c"),
        ("WATCHDOG_USEC", "1000000"),
        ("LISTEN_FDS", "2"),
        ("LISTEN_FDNAMES", "http:admin"),
        ("LISTEN_PID", &me),
        ("SYSTEMD_EXEC_PID", &me),
        ("WATCHDOG_PID", &me),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into();
    assert_eq!(environment(pid), expected);
    let passed = BTreeMap::from([(3, shown[0].clone()), (4, shown[1].clone())]);
    // While it is being loaded it has libraries open, for a moment.
    until("these fds and no others", || (fds(pid) == passed).then_some(()));
    assert_eq!(mask(pid, "SigBlk"), 0);
    assert_eq!(mask(pid, "SigCgt"), 0);
    // 32 and 33 are the C library's own, and stay as the starting process once found them.
    assert_eq!(mask(pid, "SigIgn") & !(3 << 31), 1, "SIGHUP, the first one, and no other");
    end(pid);
}

fn without_sockets_nothing_is_passed() {
    let pid = launch(sleep());
    let me = pid.to_string();
    let names: Vec<_> = environment(pid).into_iter().collect();
    let expected = [("LISTEN_FDNAMES", ""), ("LISTEN_FDS", "0"), ("LISTEN_PID", &me), ("SYSTEMD_EXEC_PID", &me)];
    assert_eq!(names, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    until("no fds", || fds(pid).is_empty().then_some(()));
    end(pid);
}

fn the_watchdog_variable_comes_only_with_a_watchdog() {
    let pid = launch(sleep().env("WATCHDOG_PID", "1"));
    assert!(!environment(pid).contains_key("WATCHDOG_PID"));
    end(pid);
}

fn argv_and_directory_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let argv = ["made up", "1000", "0"].map(OsString::from);
    let pid = launch(Program::new(SLEEP).argv(argv).directory(directory.path()));
    assert_eq!(fs::read(format!("/proc/{pid}/cmdline")).unwrap(), b"made up\x001000\x000\0");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), directory.path().canonicalize().unwrap());
    end(pid);
    let pid = launch(sleep());
    assert_eq!(fs::read(format!("/proc/{pid}/cmdline")).unwrap(), b"/bin/sleep\x001000\0");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), std::env::current_dir().unwrap());
    end(pid);
}

fn what_cannot_be_executed_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("plain"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at("plain"), fs::Permissions::from_mode(0o644)).unwrap();
    write_executable(&at("text"), b"hello\n");
    write_executable(&at("empty"), b"");
    write_executable(&at("no-interpreter"), b"#!/nowhere/sh\n");
    write_executable(&at("busy"), b"#!/bin/sh\n");
    let writing = File::options().write(true).open(at("busy")).unwrap();
    let missing = "it, or the interpreter that it names, is missing: No such file or directory";
    for (name, why) in [
        ("nothing", missing),
        ("no-interpreter", missing),
        ("plain", "it is not executable for this user: Permission denied"),
        ("", "it is not executable for this user: Permission denied"),
        ("text", "it is not a program for this machine: Exec format error"),
        ("empty", "it is not a program for this machine: Exec format error"),
        ("busy", "it is still being written; install new versions by renaming them into place: Text file busy"),
    ] {
        let error = try_launch(Program::new(at(name))).unwrap_err();
        assert!(error.is_generation(), "{error:?}");
        let start = format!("{} cannot be started: {why}", at(name).display());
        assert!(error.to_string().starts_with(&start), "{error}\n{start}");
        assert!(error.io().is_some());
    }
    drop(writing);

    let gone = at("gone");
    let error = try_launch(sleep().directory(&gone)).unwrap_err();
    assert!(error.is_generation());
    let start = format!("{SLEEP} cannot be started: its working directory {} is gone", gone.display());
    assert!(error.to_string().starts_with(&start), "{error}");
}

fn what_no_program_can_get_is_refused() {
    let refused = |program: Program, start: &str| {
        let error: Error = try_launch(program).unwrap_err();
        assert!(error.is_invalid(), "{error:?}");
        assert!(error.to_string().starts_with(start), "{error}");
    };
    let nul = || OsString::from_vec(b"a\0b".to_vec());
    let why = r#""a\0b" has a NUL byte, which no argument or variable can"#;
    refused(sleep().arg(nul()), why);
    refused(Program::new(nul()), why);
    refused(sleep().directory(nul()), why);
    refused(sleep().env("N", nul()), r#""N=a\0b" has a NUL byte"#);
    refused(sleep().env(nul(), "v"), r#""a\0b=v" has a NUL byte"#);
    let null = || OwnedFd::from(File::open("/dev/null").unwrap());
    refused(sleep().socket("a\0b", null()), r#""LISTEN_FDNAMES=a\0b" has a NUL byte"#);
    refused(sleep().socket("a", null()).socket("b:c", null()), r#"the socket name "b:c" has a colon"#);
}
