//! The example counter under its packaged units, and clients that remember what they were told.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::web::DEADLINE;
use crate::lab::{Container, Outcome, example};

pub(super) const UNIT: &str = "counter.service";
pub(super) const SOCKET: &str = "counter.socket";
const PACKAGED: &str = include_str!("../../../packaging/systemd/counter.service");
const PACKAGED_SOCKET: &str = include_str!("../../../packaging/systemd/counter.socket");
const PACKAGED_PORT: u16 = 8081;
/// A client that is not answered for so long has lost its request.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether systemd binds, or the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binds {
    Systemd,
    Service,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Counter<'a> {
    pub(super) lab: &'a Container,
    pub(super) address: SocketAddr,
}

/// An answer.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Counts {
    pub(super) total: u64,
    pub(super) yours: u64,
    pub(super) generation: u64,
    pub(super) pid: u32,
}

impl<'a> Counter<'a> {
    /// Installed, with these lines more for `[Unit]` and for `[Service]`, and started.
    pub(super) fn start(lab: &'a Container, binds: Binds, unit: &str, service: &str) -> Outcome<Self> {
        let program = lab.install(&example("counter")?, "counter")?;
        let address = SocketAddr::from(([127, 0, 0, 1], lab.port(PACKAGED_PORT)?));
        let command = format!("{program} --listen {address}");
        let text = PACKAGED
            .replace("ExecStart=/usr/bin/counter\n", &format!("ExecStart={command}\n"))
            .replace("\n[Service]\n", &format!("{unit}\n[Service]\n"))
            .replace("\n[Install]\n", &format!("{service}\n[Install]\n"));
        assert!(text.contains(&command) && text.contains(service), "{text}");
        let text = match binds {
            Binds::Systemd => text,
            Binds::Service => text.lines().filter(|line| !line.ends_with(SOCKET)).collect::<Vec<_>>().join("\n"),
        };
        lab.write_unit(UNIT, &text)?;
        let socket = PACKAGED_SOCKET.replace(&PACKAGED_PORT.to_string(), &address.port().to_string());
        lab.write_unit(SOCKET, &socket)?;
        lab.daemon_reload()?;
        let units: &[&str] = match binds {
            Binds::Systemd => &["start", SOCKET, UNIT],
            Binds::Service => &["start", UNIT],
        };
        lab.systemctl_ok(units)?;
        Ok(Self { lab, address })
    }

    /// One more, by a client of its own.
    pub(super) fn count(&self) -> Outcome<Counts> {
        let counted = self.lab.in_netns(|| Session::default().count(self.address))?;
        counted.map_err(|lost| format!("not counted: {lost:?}").into())
    }

    pub(super) fn stored(&self) -> Outcome<usize> {
        Ok(self.lab.show(UNIT, "NFileDescriptorStore")?.parse()?)
    }

    pub(super) fn wait_stored(&self, wanted: usize) -> Outcome {
        let what = format!("{wanted} entries in the fd store");
        self.lab.wait_until(DEADLINE, &what, || Ok((self.stored()? == wanted).then_some(())))
    }

    /// The names in the fd store, where systemd tells them (254).
    pub(super) fn stored_names(&self) -> Outcome<Vec<String>> {
        if self.lab.version() < 254 {
            return Ok(Vec::new());
        }
        let table = self.lab.sh_ok(&format!("systemd-analyze fdstore {UNIT}"))?;
        let entries = table.lines().skip(1).take_while(|line| !line.is_empty());
        let mut names: Vec<_> = entries.filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Clients that connect anew for each request count while `f` runs.
    pub(super) fn under_clients<T>(
        &self,
        clients: usize,
        memory: &Memory,
        f: impl FnOnce() -> Outcome<T>,
    ) -> Outcome<T> {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let running = scope.spawn(|| {
                self.lab.in_netns(|| {
                    thread::scope(|inside| {
                        for _ in 0..clients {
                            inside.spawn(|| memory.ask_until(&stop, self.address));
                        }
                    });
                })
            });
            // Also when `f` panics: the scope waits for the clients.
            struct Stop<'s>(&'s AtomicBool);
            impl Drop for Stop<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let stopping = Stop(&stop);
            let result = f();
            drop(stopping);
            match running.join() {
                Ok(ran) => ran.and(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// What became of a request that was not answered.
#[derive(Debug, Clone)]
pub(super) enum Lost {
    Refused,
    /// Another answer than a count.
    Wrong(String),
    /// It was accepted, or in the queue, and then nothing came.
    Broken(String),
}

impl Lost {
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Refused => "refused",
            Self::Wrong(why) | Self::Broken(why) => why,
        }
    }
}

/// A client and its cookie.
#[derive(Debug, Default)]
pub(super) struct Session {
    cookie: Option<String>,
}

impl Session {
    pub(super) fn count(&mut self, address: SocketAddr) -> Result<Counts, Lost> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| match e.kind() {
            io::ErrorKind::ConnectionRefused => Lost::Refused,
            _ => Lost::Broken(format!("connect: {e}")),
        })?;
        let cookie = self.cookie.as_ref().map_or(String::new(), |cookie| format!("Cookie: {cookie}\r\n"));
        let request =
            format!("POST /count HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n{cookie}Content-Length: 0\r\n\r\n");
        let mut reply = Vec::new();
        let asked = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.write_all(request.as_bytes()))
            .and_then(|()| stream.read_to_end(&mut reply));
        if let Err(error) = asked {
            return Err(Lost::Broken(error.to_string()));
        }
        let reply = String::from_utf8_lossy(&reply);
        let Some((head, body)) = reply.split_once("\r\n\r\n") else { return Err(Lost::Broken(format!("{reply:?}"))) };
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(Lost::Wrong(reply.into_owned()));
        }
        let set = head.lines().find_map(|l| l.strip_prefix("set-cookie: ")?.split(';').next());
        if let Some(cookie) = set {
            self.cookie = Some(cookie.to_owned());
        }
        serde_json::from_str(body).map_err(|_| Lost::Broken(format!("{reply:?}")))
    }
}

/// What all clients together have seen.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The highest total that anybody was told.
    acknowledged: AtomicU64,
    seen: Mutex<Seen>,
    /// Somebody new has answered.
    news: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) answered: u64,
    /// When it began and when it was over.
    pub(super) lost: Vec<(Instant, Instant, Lost)>,
    /// A count that is older than what was acknowledged, in words.
    pub(super) wrong: Vec<String>,
    /// The highest count that was told; who told it; and everybody who answered, by pid.
    highest: u64,
    pub(super) newest: u32,
    pub(super) generations: BTreeMap<u32, u64>,
}

impl Memory {
    pub(super) fn look(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// Waits for answers until that is so; false: it was not in time.
    pub(super) fn wait_until(&self, limit: Duration, wanted: impl Fn(&Seen) -> bool) -> bool {
        let waited = self.news.wait_timeout_while(self.look(), limit, |seen| !wanted(seen));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn ask_until(&self, stop: &AtomicBool, address: SocketAddr) {
        let mut session = Session::default();
        // What this session was told, and how many requests since may have been counted although
        // nobody was told.
        let (mut told, mut unsure) = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            let (began, floor) = (Instant::now(), self.acknowledged());
            let had_cookie = session.cookie.is_some();
            match session.count(address) {
                Ok(counts) => {
                    self.acknowledged.fetch_max(counts.total, Ordering::SeqCst);
                    let mut seen = self.look();
                    seen.answered += 1;
                    if counts.total <= floor {
                        seen.wrong.push(format!("{counts:?} after {floor} was acknowledged"));
                    }
                    if counts.yours <= told || counts.yours > told + unsure + 1 {
                        seen.wrong.push(format!("{counts:?} in a session that had {told}, {unsure} more perhaps"));
                    }
                    seen.generations.insert(counts.pid, counts.generation);
                    // Not who was first seen last: an answer may be on its way for longer than the
                    // next one.
                    if counts.total > seen.highest {
                        (seen.highest, seen.newest) = (counts.total, counts.pid);
                        self.news.notify_all();
                    }
                    (told, unsure) = (counts.yours, 0);
                }
                Err(lost) => {
                    let refused = matches!(lost, Lost::Refused);
                    self.look().lost.push((began, Instant::now(), lost));
                    if had_cookie {
                        unsure += 1;
                    }
                    if refused {
                        thread::sleep(Duration::from_millis(1)); // Not a thousand lines of the same.
                    }
                }
            }
        }
    }
}
