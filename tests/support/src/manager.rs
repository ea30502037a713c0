//! A service manager as far as sd_notify(3) goes: it reads what it is told.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};

use crate::patience;
use crate::processes::until;

#[derive(Debug, Clone)]
pub struct Datagram {
    pub pid: u32,
    pub text: String,
    pub at: Instant,
}

impl Datagram {
    pub fn has(&self, line: &str) -> bool {
        self.text.lines().any(|l| l == line)
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

#[derive(Debug, Default)]
struct Told {
    datagrams: Vec<Datagram>,
    /// Barriers after the next change of MAINPID are not answered.
    hold_at_handover: bool,
    /// Barriers are not answered now; these wait.
    holding: bool,
    held: Vec<OwnedFd>,
}

#[derive(Debug, Clone)]
pub struct Manager {
    told: Arc<(Mutex<Told>, Condvar)>,
}

impl Manager {
    pub fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        setsockopt(&socket, sockopt::PassCred, &true).unwrap();
        let told = Arc::<(Mutex<Told>, Condvar)>::default();
        let weak = Arc::downgrade(&told);
        // Ends when the case is over: then nobody wants to know any more.
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        thread::spawn(move || {
            loop {
                let received = receive(&socket);
                let Some(told) = weak.upgrade() else { return };
                let Some((datagram, fds)) = received else { continue };
                let mut told_now = told.0.lock().unwrap();
                told_now.holding |= told_now.hold_at_handover && datagram.field("MAINPID").is_some();
                if told_now.holding {
                    told_now.held.extend(fds);
                }
                told_now.datagrams.push(datagram);
                told.1.notify_all();
            }
        });
        Self { told }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn all(&self) -> Vec<Datagram> {
        self.lock().datagrams.clone()
    }

    /// How many there are by now; [`Manager::wait_from`] looks at those after.
    pub fn mark(&self) -> usize {
        self.lock().datagrams.len()
    }

    pub fn wait_from(&self, mark: usize, what: &str, wanted: impl Fn(&Datagram) -> bool) -> Datagram {
        let deadline = Instant::now() + patience();
        let mut told = self.lock();
        loop {
            if let Some(found) = told.datagrams[mark..].iter().find(|d| wanted(d)) {
                return found.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(told);
                panic!("the service manager was never told {what}");
            }
            told = self.told.1.wait_timeout(told, left).unwrap().0;
        }
    }

    pub fn wait(&self, what: &str, wanted: impl Fn(&Datagram) -> bool) -> Datagram {
        self.wait_from(0, what, wanted)
    }

    /// Leaves the barrier of a handover unanswered until [`Manager::release_barriers`]; not those of the fd store before it.
    pub fn hold_at_handover(&self) {
        self.lock().hold_at_handover = true;
    }

    /// The new main has been announced, and this is not confirmed.
    pub fn wait_for_held_barrier(&self) {
        until("the barrier of a handover", || (!self.lock().held.is_empty()).then_some(()));
    }

    pub fn release_barriers(&self) {
        let mut told = self.lock();
        (told.hold_at_handover, told.holding) = (false, false);
        told.held.clear();
    }

    /// Every RELOADING has its READY, and it is the next change of state.
    pub fn check_states(&self) {
        let mut reloading = false;
        for Datagram { text, .. } in self.all() {
            for line in text.lines() {
                match line {
                    "RELOADING=1" => {
                        assert!(!reloading, "RELOADING twice");
                        let fields: Vec<_> = text.lines().filter_map(|l| Some(l.split_once('=')?.0)).collect();
                        assert!(fields.contains(&"MONOTONIC_USEC"), "{text}");
                        reloading = true;
                    }
                    "READY=1" => reloading = false,
                    "STOPPING=1" => return,
                    _ => {}
                }
            }
        }
        assert!(!reloading, "RELOADING without READY");
    }
}

fn receive(socket: &UnixDatagram) -> Option<(Datagram, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 8192];
    let mut space = nix::cmsg_space!(nix::sys::socket::UnixCredentials, [std::os::fd::RawFd; 4]);
    let (mut pid, mut fds) = (0, Vec::new());
    let length = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
        for control in message.cmsgs().ok()? {
            match control {
                ControlMessageOwned::ScmCredentials(sender) => pid = sender.pid().cast_unsigned(),
                ControlMessageOwned::ScmRights(rights) => {
                    // SAFETY: the kernel just installed these fds for us; nobody else knows them.
                    #[expect(unsafe_code, reason = "received fds have numbers and no owner yet")]
                    fds.extend(rights.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
                _ => {}
            }
        }
        message.bytes
    };
    let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
    Some((Datagram { pid, text, at: Instant::now() }, fds))
}
