//! This test binary once more, started with sockets in its hands.

use handover::systemd::activation::{Activation, Listener};
use handover::systemd::environment::Environment;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};

/// What the child does, one command per line; its presence makes `run` the child.
pub(crate) const SCRIPT: &str = "HANDOVER_IT_SCRIPT";

/// Set: the child makes a tokio runtime before it looks.
pub(crate) const RUNTIME: &str = "HANDOVER_IT_RUNTIME";

/// A child that has done its script, and waits with its fds open until it is dropped.
pub(crate) struct Started {
    child: Child,
    _stdin: ChildStdin,
    /// What each command of the script led to.
    pub(crate) report: Vec<String>,
}

impl Started {
    /// Starts this binary with `fds` from fd 3 on; `$$` in a variable's value is the child's pid.
    pub(crate) fn new(fds: &[OwnedFd], variables: &[(&str, &str)], script: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let assignments: String = variables.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        command.arg("-c").arg(format!("{assignments} exec \"$0\" \"$@\"")).arg(std::env::current_exe().unwrap());
        command.args(arguments()).env(SCRIPT, script.join("\n"));
        for variable in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET"] {
            command.env_remove(variable);
        }
        let from: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        // SAFETY: between fork and exec it only calls dup2 and close_range, on a list that was
        // allocated before.
        unsafe {
            command.pre_exec(move || {
                // Out of the way first: one's place may be another's.
                const AWAY: RawFd = 200;
                for (index, fd) in from.iter().enumerate() {
                    let away = libc::dup2(*fd, AWAY + index as RawFd);
                    if away < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                for index in 0..from.len() as RawFd {
                    if libc::dup2(AWAY + index, 3 + index) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                // What else the test runner happened to inherit is not part of the test.
                let beyond = 3 + from.len() as libc::c_uint;
                match libc::close_range(beyond, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        Self::spawn(command, script.len())
    }

    pub(crate) fn spawn(mut command: Command, commands: usize) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let report = lines.filter_map(|line| Some(line.strip_prefix("@ ")?.to_owned())).take(commands + 1).collect();
        Self { child, _stdin: stdin, report }
    }

    /// The flags of each of its fds from 3 on, as the kernel tells them.
    pub(crate) fn flags(&self) -> BTreeMap<RawFd, libc::c_int> {
        let fds = format!("/proc/{}/fd", self.child.id());
        let numbers = std::fs::read_dir(fds).unwrap().map(|entry| entry.unwrap().file_name());
        let numbers = numbers.map(|name| name.to_str().unwrap().parse().unwrap()).filter(|fd: &RawFd| *fd >= 3);
        numbers.map(|fd| (fd, self.flags_of(fd))).collect()
    }

    fn flags_of(&self, fd: RawFd) -> libc::c_int {
        let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.child.id())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        libc::c_int::from_str_radix(flags.trim(), 8).unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn arguments() -> [&'static str; 4] {
    ["child::run", "--exact", "--nocapture", "--test-threads=1"]
}

/// Not a test, unless started by one.
#[test]
fn run() {
    let environment = Environment::capture();
    let Some(script) = environment.get(SCRIPT) else {
        return;
    };
    // The harness has begun a line.
    println!();
    let mut kept: Vec<OwnedFd> = Vec::new();
    if environment.get(RUNTIME).is_some() {
        // Nothing was passed: the first numbers that are free are the runtime's.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        match Activation::from_env(&environment) {
            Err(error) => println!("@ error {error}"),
            Ok(activation) => println!("@ {:?}", activation.names()),
        }
        runtime.block_on(async { tokio::time::sleep(std::time::Duration::from_millis(1)).await });
        println!("@ the runtime is well");
        return;
    }
    match Activation::from_env(&environment) {
        Err(error) => println!("@ error {error}"),
        Ok(mut activation) => {
            println!("@ {:?} {:?}", activation.source(), activation.names());
            for command in script.to_str().unwrap().lines() {
                println!("@ {}", perform(&mut activation, command, &environment, &mut kept));
            }
        }
    }
    // The fds stay until the parent has looked at them.
    let _ = std::io::stdin().read(&mut [0]);
}

fn perform(activation: &mut Activation, command: &str, environment: &Environment, kept: &mut Vec<OwnedFd>) -> String {
    let (verb, name) = command.split_once(' ').unwrap_or((command, ""));
    let done = match verb {
        "listeners" => activation.listeners(name).map(|listeners| {
            let text: Vec<_> = listeners.iter().map(describe).collect();
            kept.extend(listeners.into_iter().map(OwnedFd::from));
            text.join(" ")
        }),
        "hello" => activation.listeners(name).and_then(|listeners| {
            // As README has it, with one client.
            for listener in listeners {
                let Listener::Tcp(listener) = listener.into_blocking()? else { continue };
                let mut connection = listener.incoming().next().unwrap().unwrap();
                connection.write_all(b"hello\n").unwrap();
                kept.push(listener.into());
            }
            Ok("served".to_owned())
        }),
        "take" => activation.take(name).map(|sockets| {
            let text: Vec<_> = sockets.iter().map(|socket| socket.kind().to_string()).collect();
            kept.extend(sockets.into_iter().map(OwnedFd::from));
            text.join(", ")
        }),
        "close" => Ok(format!("{:?}", activation.close_unclaimed())),
        "again" => Activation::from_env(environment).map(|again| format!("{:?}", again.source())),
        "variables" => {
            Ok(format!("{:?} {:?}", std::env::var("LISTEN_PID").is_ok(), std::env::var("LISTEN_FDS").is_ok()))
        }
        _ => unreachable!("{command}"),
    };
    done.unwrap_or_else(|error| format!("error {error}"))
}

fn describe(listener: &Listener) -> String {
    format!("{} {}", listener.as_fd().as_raw_fd(), listener.local_addr().unwrap())
}
