//! Several processes with one state: they count together, are killed, and are stopped.

use crate::PATIENCE;
use crate::manager::Manager;
use handover::state::{State, States};
use handover::systemd::activation::Activation;
use handover::systemd::environment::Environment;
use handover::systemd::fdstore::{FdStore, Names};
use handover::systemd::notify::Notifier;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// What the other process does; and the number of the fd with the state, and of the pipe that it
/// writes to.
const ROLE: &str = "HANDOVER_TEST_STATE";
const KILLS: u64 = 120;
const SEED: u64 = 0xCE11;
/// What two processes and this one add, each.
const EACH: u64 = 1500;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Count {
    n: u64,
    /// Its length follows from `n`, and goes up and down.
    padding: String,
}

impl Count {
    fn add(&mut self) -> u64 {
        self.n += 1;
        self.padding = "x".repeat(Self::length(self.n));
        self.n
    }

    fn length(n: u64) -> usize {
        usize::try_from(n * 7919 % 30_000).unwrap()
    }
}

fn open(environment: &Environment, entries: Vec<(String, OwnedFd)>) -> FdStore {
    let notifier = Notifier::from_env(environment).unwrap();
    let mut activation = Activation::from_fds(entries).unwrap();
    FdStore::open(environment, &notifier, &mut activation, &Names::new()).unwrap()
}

/// Not a test: the other process.
#[test]
#[ignore = "the other tests start it as a process of its own"]
fn other_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<_> = role.split(' ').collect();
    // SAFETY: they were made for this process, and nothing else in it knows their numbers.
    let take = |word: &str| unsafe { OwnedFd::from_raw_fd(word.parse().unwrap()) };
    let entries = vec![("handover.state.count".to_owned(), take(words[1]))];
    let state: State<Count> = States::new(open(&Environment::default(), entries)).state("count");
    let mut told = File::from(take(words[2]));
    let mut tell = |n: u64| told.write_all(&n.to_le_bytes()).unwrap();
    match words[0] {
        "add" => (0..EACH).for_each(|_| tell(state.blocking_update(Count::add).unwrap().result)),
        "add-for-ever" => loop {
            tell(state.blocking_update(Count::add).unwrap().result);
        },
        "add-and-say-no-more" => {
            tell(state.blocking_update(Count::add).unwrap().result);
            loop {
                state.blocking_update(Count::add).unwrap();
            }
        }
        "hold" => {
            let held = state.blocking_update(|count| {
                tell(0);
                std::io::stdin().read_exact(&mut [0]).unwrap();
                count.add()
            });
            tell(held.unwrap().result);
        }
        other => panic!("no role {other:?}"),
    }
}

/// A generation beside ours: it has the same open file as our store.
struct Other {
    child: Child,
    told: File,
    stdin: ChildStdin,
}

impl Other {
    fn start(role: &str, store: &FdStore) -> Self {
        let fd = store.get("handover.state.count").unwrap().pop().unwrap();
        let (told, tell) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "generations::other_process", "--ignored", "--nocapture"]);
        command.env(ROLE, format!("{role} {} {}", fd.as_raw_fd(), tell.as_raw_fd()));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let passed = [fd.as_raw_fd(), tell.as_raw_fd()];
        // SAFETY: between fork and exec it only calls fcntl.
        unsafe {
            command.pre_exec(move || {
                for number in passed {
                    if libc::fcntl(number, libc::F_SETFD, 0) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        Self { child, told: File::from(told), stdin }
    }

    /// The next number that it tells. None: it has ended.
    fn next(&mut self) -> Option<u64> {
        let mut fds = [PollFd::new(self.told.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).unwrap();
        assert!(poll(&mut fds, patience).unwrap() > 0, "it says nothing");
        let mut bytes = [0; 8];
        self.told.read_exact(&mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A fresh look, as the generation after a crash has it.
fn look(store: &FdStore) -> u64 {
    let state: State<Count> = States::new(store.clone()).state("count");
    let count = state.blocking_load().unwrap().value().expect("a whole value");
    assert_eq!(count.padding.len(), Count::length(count.n));
    count.n
}

fn started() -> (Manager, FdStore, State<Count>) {
    let manager = Manager::old(4);
    let store = manager.start(&Names::new());
    let state: State<Count> = States::new(store.clone()).state("count");
    state.blocking_save(&Count::default()).unwrap();
    (manager, store, state)
}

#[test]
fn three_processes_count_together() {
    let (_manager, store, state) = started();
    let mut others = [Other::start("add", &store), Other::start("add", &store)];
    others.iter_mut().for_each(|other| assert!(other.next().is_some()));
    let mut last = 0;
    for _ in 0..EACH {
        let now = state.blocking_update(Count::add).unwrap().result;
        assert!(now > last);
        last = now;
    }
    for other in &mut others {
        let mut told = 1;
        let mut last = 0;
        while let Some(n) = other.next() {
            assert!(n > last);
            (told, last) = (told + 1, n);
        }
        assert_eq!(told, EACH);
        assert!(other.child.wait().unwrap().success());
    }
    assert_eq!(look(&store), 3 * EACH);
}

/// Others who change it all the time do not keep one from it who comes now and then.
#[test]
fn everybody_has_a_turn() {
    let (_manager, store, state) = started();
    let mut others = [Other::start("add-and-say-no-more", &store), Other::start("add-and-say-no-more", &store)];
    others.iter_mut().for_each(|other| assert!(other.next().is_some()));
    let (mut last, mut most) = (0, 0);
    for _ in 0..EACH {
        let now = state.blocking_update(Count::add).unwrap().result;
        (last, most) = (now, most.max(now - last));
    }
    println!("at most {most} changes from one of ours to the next");
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    println!("seed {SEED:#x}");
    let (_manager, store, state) = started();
    let mut survivor = Other::start("add-for-ever", &store);
    let (mut random, mut victims, mut by_us) = (SEED, 0, 0);
    let mut newest = survivor.next().unwrap();
    let mut by_survivor = 1;
    for _ in 0..KILLS {
        let mut victim = Other::start("add-for-ever", &store);
        let mut acknowledged = victim.next().unwrap();
        victims += 1;
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // How long it lives is what the test is about.
        let end = Instant::now() + Duration::from_nanos((random >> 33) % 4_000_000);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        victim.signal(Signal::SIGKILL);
        while let Some(n) = victim.next() {
            assert!(n > acknowledged);
            (acknowledged, victims) = (n, victims + 1);
        }
        victim.child.wait().unwrap();
        // The lock went with it, and nothing is damaged or old.
        let there = look(&store);
        newest = newest.max(acknowledged);
        assert!(there >= newest, "{there} is older than {newest}");
        newest = state.blocking_update(Count::add).unwrap().result;
        by_us += 1;
        // So that its pipe does not fill up, in which it would wait.
        for _ in 0..20 {
            newest = newest.max(survivor.next().unwrap());
            by_survivor += 1;
        }
    }
    survivor.signal(Signal::SIGKILL);
    while survivor.next().is_some() {
        by_survivor += 1;
    }
    let (there, told) = (look(&store), by_us + by_survivor + victims);
    // Each one that was killed may have saved one that it could not tell any more.
    let unacknowledged = there - told;
    assert!(unacknowledged <= KILLS + 1, "{there} there, {told} told");
    println!("{KILLS} kills, {told} changes acknowledged, {unacknowledged} done but not acknowledged");
}

#[test]
fn a_stopped_generation_is_waited_for_and_no_longer() {
    let (_manager, store, state) = started();
    let mut other = Other::start("hold", &store);
    assert_eq!(other.next(), Some(0), "it has the lock");
    other.signal(Signal::SIGSTOP);
    let stopped = waitpid(other.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    let hasty: State<Count> = States::new(store.clone()).lock_timeout(Duration::from_millis(60)).state("count");
    let began = Instant::now();
    let errors = [
        hasty.blocking_update(Count::add).unwrap_err(),
        hasty.blocking_save(&Count::default()).unwrap_err(),
        hasty.blocking_load().unwrap_err(),
        hasty.blocking_read(|_| ()).unwrap_err(),
        hasty.blocking_remove().unwrap_err(),
    ];
    assert!(began.elapsed() >= Duration::from_millis(5 * 60));
    for error in errors {
        let text = error.to_string();
        assert!(error.is_timeout() && text.contains("\"count\" is held by another generation"), "{text}");
    }
    let waiting = std::thread::spawn(move || state.blocking_update(Count::add).unwrap().result);
    other.signal(Signal::SIGCONT);
    other.stdin.write_all(b"!").unwrap();
    assert_eq!(other.next(), Some(1));
    assert_eq!(waiting.join().unwrap(), 2);
    assert_eq!(look(&store), 2);
}
