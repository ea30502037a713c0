//! A stand-in for systemd: it receives notifications, and keeps fds by the rules of
//! `src/core/service.c`.

use handover::systemd::activation::Activation;
use handover::systemd::environment::Environment;
use handover::systemd::fdstore::{FdStore, Names};
use handover::systemd::notify::Notifier;
use handover_testing::mailbox::{self, ProcessMessage};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long the stand-in takes to close what it refuses, where it does that in the background.
const LATE: Duration = Duration::from_millis(30);

#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) poll: bool,
    pub(crate) fd: OwnedFd,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) max: usize,
    /// Newest first, as in systemd.
    pub(crate) store: Vec<Stored>,
    /// All datagrams: what they said, and how many fds they had.
    pub(crate) log: Vec<(String, usize)>,
    /// So many datagrams are processed; then the service is dead, or the manager does not listen.
    pub(crate) deaf_after: Option<usize>,
    closes_late: bool,
    /// What a barrier that is never answered holds.
    held: Vec<OwnedFd>,
}

#[derive(Debug)]
pub(crate) struct Manager {
    path: std::path::PathBuf,
    _directory: tempfile::TempDir,
    pub(crate) state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
    /// As `$FDSTORE`, from 254 on.
    pub(crate) says_max: bool,
    /// What .socket units pass beside the store.
    pub(crate) sockets: Vec<(String, OwnedFd)>,
}

impl Manager {
    /// As systemd up to 253: no `$FDSTORE`, and what is refused is closed at once.
    pub(crate) fn old(max: usize) -> Self {
        Self::new(max, false)
    }

    /// As systemd from 254 on.
    pub(crate) fn new_style(max: usize) -> Self {
        Self::new(max, true)
    }

    fn new(max: usize, recent: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let state = Arc::new(Mutex::new(State { max, closes_late: recent, ..State::default() }));
        let thread = {
            let state = Arc::clone(&state);
            std::thread::spawn(move || while receive(&socket, &state) {})
        };
        Self { path, _directory: directory, state, thread: Some(thread), says_max: recent, sockets: Vec::new() }
    }

    pub(crate) fn environment(&self) -> Environment {
        let mut pairs = vec![("NOTIFY_SOCKET".to_owned(), self.path.display().to_string())];
        let max = self.state.lock().unwrap().max;
        if self.says_max && max > 0 {
            pairs.push(("FDSTORE".to_owned(), max.to_string()));
        }
        Environment::from_pairs(pairs)
    }

    /// The process starts (again): it gets what there is, and nothing of what it had.
    pub(crate) fn start(&self, names: &Names) -> FdStore {
        self.start_with(names).0
    }

    pub(crate) fn start_with(&self, names: &Names) -> (FdStore, Activation) {
        let environment = self.environment();
        let notifier = Notifier::from_env(&environment).unwrap();
        let mut activation = Activation::from_fds(self.passed()).unwrap();
        let store = FdStore::open(&environment, &notifier, &mut activation, names).unwrap();
        (store, activation)
    }

    fn passed(&self) -> Vec<(String, OwnedFd)> {
        let mut state = self.state.lock().unwrap();
        state.deaf_after = None;
        state.held.clear();
        state.drop_dead();
        let sockets = self.sockets.iter().map(|(name, fd)| (name.clone(), fd.try_clone().unwrap()));
        sockets.chain(state.store.iter().map(|s| (s.name.clone(), s.fd.try_clone().unwrap()))).collect()
    }

    /// The names in the store, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        // Removals are not waited for by who sent them.
        if self.state.lock().unwrap().deaf_after.is_none() {
            Notifier::from_env(&self.environment()).unwrap().barrier(crate::PATIENCE).unwrap();
        }
        let mut state = self.state.lock().unwrap();
        state.drop_dead();
        let mut names: Vec<_> = state.store.iter().map(|s| s.name.clone()).collect();
        names.sort();
        names
    }

    pub(crate) fn deaf_after(&self, datagrams: usize) {
        self.state.lock().unwrap().deaf_after = Some(datagrams);
    }

    pub(crate) fn log(&self) -> Vec<(String, usize)> {
        self.state.lock().unwrap().log.clone()
    }

    /// Puts something in as if an older version of the service had done it.
    pub(crate) fn insert(&self, name: &str, fd: impl Into<OwnedFd>) {
        let stored = Stored { name: name.to_owned(), poll: true, fd: fd.into() };
        self.state.lock().unwrap().store.insert(0, stored);
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"EXIT", &self.path));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn receive(socket: &UnixDatagram, state: &Mutex<State>) -> bool {
    // More is longer than systemd reads.
    let ProcessMessage { bytes, fds, .. } = mailbox::receive(socket, 4096).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    if text == "EXIT" {
        return false;
    }
    let mut state = state.lock().unwrap();
    state.log.push((text.clone(), fds.len()));
    match &mut state.deaf_after {
        Some(0) => {
            state.held.extend(fds);
            return true;
        }
        Some(left) => *left -= 1,
        None => {}
    }
    state.process(&text, fds);
    true
}

impl State {
    fn process(&mut self, text: &str, fds: Vec<OwnedFd>) {
        self.drop_dead();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let name = field("FDNAME").unwrap_or("stored").to_owned();
        if field("BARRIER").is_some() {
            assert_eq!(fds.len(), 1);
        } else if field("FDSTOREREMOVE").is_some() {
            self.store.retain(|s| s.name != name);
        } else if field("FDSTORE").is_some() {
            assert!((1..=253).contains(&fds.len()));
            self.add(&name, field("FDPOLL") != Some("0"), fds);
        }
    }

    fn add(&mut self, name: &str, poll: bool, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        for fd in fds.by_ref() {
            // Before the look for duplicates: a full store refuses also those.
            if self.store.len() >= self.max {
                self.refuse(vec![fd]);
                break;
            }
            if !self.store.iter().any(|s| same(&s.fd, &fd)) {
                self.store.insert(0, Stored { name: name.to_owned(), poll, fd });
            }
        }
        self.refuse(fds.collect());
    }

    fn refuse(&self, fds: Vec<OwnedFd>) {
        if self.closes_late && !fds.is_empty() {
            std::thread::spawn(move || {
                std::thread::sleep(LATE);
                drop(fds);
            });
        }
    }

    fn drop_dead(&mut self) {
        self.store.retain(|s| {
            let mut fds = [PollFd::new(s.fd.as_fd(), PollFlags::empty())];
            !(s.poll && poll(&mut fds, PollTimeout::ZERO).unwrap() > 0)
        });
    }
}

fn same(a: &OwnedFd, b: &OwnedFd) -> bool {
    let pid = std::process::id();
    // SAFETY: kcmp reads no memory of ours; KCMP_FILE is 0.
    unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, 0, a.as_raw_fd(), b.as_raw_fd()) == 0 }
}
