//! The example service under its packaged units, and what scenarios ask of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use crate::lab::{Container, Entry, Outcome, example};

/// Everything that is waited for comes sooner than this, also on a slow machine.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);
pub(super) const UNIT: &str = "web.service";
pub(super) const SOCKET: &str = "web.socket";
const SOCKET_UNIT: &str = include_str!("../../../packaging/systemd/web.socket");
const PACKAGED_PORT: u16 = 8080;

/// The packaged unit that is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Notify,
    NotifyReload,
}

impl Type {
    fn unit(self) -> &'static str {
        match self {
            Self::Notify => include_str!("../../../packaging/systemd/web.service"),
            Self::NotifyReload => include_str!("../../../packaging/systemd/web-notify-reload.service"),
        }
    }
}

/// How the service is set up, where it differs from what is packaged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup<'a> {
    pub(super) kind: Type,
    /// The program and its arguments; `{dir}` is the directory of the case, `{address}` where it
    /// shall listen if it binds.
    pub(super) command: &'a str,
    /// More lines for `[Service]`.
    pub(super) lines: &'a str,
    /// There is no .socket unit: the service binds.
    pub(super) binds: bool,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { kind: Type::Notify, command: "{dir}/web", lines: "", binds: false }
    }
}

/// The service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Web<'a> {
    pub(super) lab: &'a Container,
    pub(super) address: SocketAddr,
}

/// What the manager says about the unit at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) main: u32,
    pub(super) active: String,
    pub(super) sub: String,
    pub(super) status: String,
    pub(super) result: String,
    pub(super) restarts: u32,
}

impl State {
    /// Up, and no reload under way.
    pub(super) fn is_running(&self) -> bool {
        self.main != 0 && self.active == "active" && self.sub == "running"
    }
}

impl<'a> Web<'a> {
    /// Installs the example and its units. Nothing runs yet.
    pub(super) fn install(lab: &'a Container, setup: Setup<'_>) -> Outcome<Self> {
        lab.install(&example("web")?, "web")?;
        let port = lab.port(PACKAGED_PORT)?;
        let packaged = setup.kind.unit();
        let (exec, install) = ("ExecStart=/usr/bin/web\n", "\n[Install]");
        assert!(packaged.contains(exec) && packaged.contains(install), "{packaged}");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let command = setup.command.replace("{dir}", &lab.dir().display().to_string());
        let command = command.replace("{address}", &address.to_string());
        // A user manager may not drop capabilities or mount.
        let (service, hardening) = packaged.split_once("\n# Hardening").unwrap_or((packaged, ""));
        let hardened = lab.manager_pid() == 1 && !hardening.is_empty();
        let unhardened = format!("{service}{install}\n");
        let unit = if hardened { packaged } else { &unhardened };
        let unit = unit
            .replace(exec, &format!("ExecStart={command}\n"))
            .replace(install, &format!("{}\n[Install]", setup.lines));
        let unit = match setup.binds {
            true => unit.lines().filter(|line| !line.ends_with("web.socket")).collect::<Vec<_>>().join("\n") + "\n",
            false => unit,
        };
        lab.write_unit("web.socket", &SOCKET_UNIT.replace(&PACKAGED_PORT.to_string(), &port.to_string()))?;
        lab.write_unit(UNIT, &unit)?;
        lab.daemon_reload()?;
        Ok(Self { lab, address })
    }

    pub(super) fn start(lab: &'a Container, setup: Setup<'_>) -> Outcome<Self> {
        let web = Self::install(lab, setup)?;
        let units: &[&str] = if setup.binds { &["start", UNIT] } else { &["start", "web.socket", UNIT] };
        lab.systemctl_ok(units)?;
        assert!(web.state()?.is_running(), "{:?}", web.state()?);
        Ok(web)
    }

    pub(super) fn state(&self) -> Outcome<State> {
        let properties = "MainPID,ActiveState,SubState,StatusText,Result,NRestarts";
        let text = self.lab.systemctl_ok(&["show", "-p", properties, UNIT])?;
        let value = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            found.unwrap_or_default().to_owned()
        };
        Ok(State {
            main: value("MainPID").parse()?,
            active: value("ActiveState"),
            sub: value("SubState"),
            status: value("StatusText"),
            result: value("Result"),
            restarts: value("NRestarts").parse()?,
        })
    }

    /// Waits until the manager's word about the unit is that.
    pub(super) fn until(&self, what: &str, wanted: impl Fn(&State) -> bool) -> Outcome<State> {
        let mut last = None;
        let waited = self.lab.wait_until(DEADLINE, what, || {
            let state = self.state()?;
            let found = wanted(&state);
            last = Some(state.clone());
            Ok(found.then_some(state))
        });
        waited.map_err(|e| format!("{}: {last:?}", e.message().unwrap_or_default()).into())
    }

    /// Asks for a reload that must succeed; the new main process.
    pub(super) fn reload(&self) -> Outcome<u32> {
        let old = self.lab.main_pid(UNIT)?;
        self.lab.systemctl_ok(&["reload", UNIT])?;
        // ExecReload=/bin/kill only asks: systemctl may return before the answer.
        Ok(self.until("another main process", |s| s.is_running() && s.main != old)?.main)
    }

    /// No process is left but these.
    pub(super) fn until_only(&self, pids: &[u32]) -> Outcome {
        let what = format!("only {pids:?} in the unit");
        self.lab.wait_until(DEADLINE, &what, || Ok((self.lab.pids(UNIT)? == pids).then_some(())))
    }

    /// Waits for a message; returns it.
    pub(super) fn logged(&self, text: &str) -> Outcome<Entry> {
        self.lab.wait_until(DEADLINE, &format!("{text:?} in the journal"), || {
            Ok(self.lab.journal_json(UNIT)?.into_iter().find(|e| e.message().contains(text)))
        })
    }

    /// How many messages have that text, those of a generation that was gone too soon among them.
    pub(super) fn count_logged(&self, text: &str) -> Outcome<usize> {
        Ok(self.lab.journal_and_lost(UNIT)?.iter().filter(|e| e.message().contains(text)).count())
    }

    /// A client of its own, connected.
    pub(super) fn connect(&self) -> Outcome<Connection> {
        let stream = self.lab.in_netns(|| TcpStream::connect(self.address))??;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, received: Vec::new() })
    }

    /// The pid that answers a new connection.
    pub(super) fn pid(&self) -> Outcome<u32> {
        self.connect()?.pid()
    }

    /// A request under way: its answer has begun and goes on for `chunks` times `interval`.
    pub(super) fn in_flight(&self, chunks: usize, interval: Duration) -> Outcome<InFlight> {
        self.connect()?.stream(chunks, interval)
    }
}

/// A plain HTTP/1 connection, kept alive.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(super) fn send(&mut self, path: &str) -> Outcome {
        Ok(write!(self.stream, "GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n")?)
    }

    /// The pid that answers on this connection.
    pub(super) fn pid(&mut self) -> Outcome<u32> {
        self.send("/pid")?;
        self.answered_pid()
    }

    /// The answer to a request for a pid that was sent before.
    pub(super) fn answered_pid(&mut self) -> Outcome<u32> {
        self.head()?;
        let end = self.until(b"\n")?;
        Ok(String::from_utf8_lossy(&self.received.drain(..end).collect::<Vec<_>>()).trim().parse()?)
    }

    /// Asks for an answer that takes its time, and reads its beginning.
    pub(super) fn stream(mut self, chunks: usize, interval: Duration) -> Outcome<InFlight> {
        self.send(&format!("/stream?chunks={chunks}&interval={}us", interval.as_micros()))?;
        self.head()?;
        self.until(b"\n")?;
        Ok(InFlight { connection: self, chunks })
    }

    /// What is at that path, on a connection that ends with it.
    pub(super) fn text(mut self, path: &str) -> Outcome<String> {
        write!(self.stream, "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        self.head()?;
        self.stream.read_to_end(&mut self.received)?;
        Ok(String::from_utf8_lossy(&self.received).into_owned())
    }

    /// Waits until the other side closes, and nothing else may come.
    pub(super) fn closed(mut self) -> Outcome {
        match self.stream.read(&mut [0; 64])? {
            0 => Ok(()),
            n => Err(format!("{n} bytes that nobody asked for").into()),
        }
    }

    /// Ends it as a client does whose machine has no use for it any more: by a reset.
    pub(super) fn reset(self) -> Outcome {
        Ok(setsockopt(&self.stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?)
    }

    fn head(&mut self) -> Outcome {
        let end = self.until(b"\r\n\r\n")?;
        let head: Vec<u8> = self.received.drain(..end).collect();
        let head = String::from_utf8_lossy(&head);
        if head.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(format!("not answered: {head:?}").into()) }
    }

    /// Reads until that has come; where it ends.
    fn until(&mut self, mark: &[u8]) -> Outcome<usize> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(at) = self.received.windows(mark.len()).position(|w| w == mark) {
                return Ok(at + mark.len());
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err(format!("closed after {:?}", String::from_utf8_lossy(&self.received)).into()),
                n => self.received.extend(&buffer[..n]),
            }
        }
    }
}

/// A request whose answer has begun.
#[derive(Debug)]
pub(super) struct InFlight {
    connection: Connection,
    chunks: usize,
}

impl InFlight {
    /// Reads to the end; every chunk must come.
    pub(super) fn finish(mut self) -> Outcome<Connection> {
        let end = self.connection.until(b"\r\n0\r\n\r\n")?;
        let body: Vec<u8> = self.connection.received.drain(..end).collect();
        let numbers = String::from_utf8_lossy(&body);
        for chunk in 0..self.chunks {
            assert!(numbers.contains(&format!("{chunk:>1023}\n")), "chunk {chunk} of {} is missing", self.chunks);
        }
        Ok(self.connection)
    }

    /// It was cut: the end never comes.
    pub(super) fn ended_cut(self) -> bool {
        self.finish().is_err()
    }
}

/// Fails with the text of both if it took longer.
pub(super) fn within(limit: Duration, since: Instant, what: &str) -> Outcome {
    let took = since.elapsed();
    if took <= limit { Ok(()) } else { Err(format!("{what} took {took:?}, more than {limit:?}").into()) }
}
