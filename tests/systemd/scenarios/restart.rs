//! Restarts, and what else ends a process and starts another: connections wait for it.
//!
//! `HANDOVER_RESTART_CLIENTS` and `HANDOVER_RESTARTS` say how many of each there are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::counter::{self, Binds, Counter, Memory};
use super::web::{DEADLINE, Setup, UNIT, Web, within};
use crate::lab::{Container, Outcome, Scenario, example};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("kept_over_restart", |lab| keeps_connections(lab, "")).system_only(),
    Scenario::new("kept_over_restart_of_a_user", |lab| keeps_connections(lab, "User=www-data\n")).system_only(),
    Scenario::new("kept_over_restart_of_all_protocols", |lab| keeps_all(lab, 3, restart_all)).system_only(),
    Scenario::new("kept_after_what_is_in_hand", finishes_what_is_in_hand).system_only(),
    Scenario::new("kept_not_over_a_stop", stop_keeps_nothing).system_only().since(254),
    Scenario::new("kept_over_soft_reboot", |lab| keeps_all(lab, 1, soft_reboot)).system_only().since(254),
    Scenario::new("survives_soft_reboot", survives_soft_reboot).system_only().since(254),
];

/// They ask as fast as they are answered.
const BUSY: usize = 8;
const CLIENTS: usize = 400;
/// Those of three protocols together.
const OF_THREE: usize = 60;
const RESTARTS: usize = 5;
/// An idle client asks so often, on average.
const PAUSE: Duration = Duration::from_secs(1);
/// A connection may cost its client so much of a restart.
const OF_EACH: Duration = Duration::from_micros(20);

pub(super) const KEEPS: &str = "Environment=HANDOVER_MIGRATE=restart\nLimitNOFILE=16384\n";
pub(super) const PRESERVED: &str = "FileDescriptorStorePreserve=yes\n";

pub(super) fn number(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}

/// What the clients have seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    open: AtomicU64,
    answered: AtomicU64,
    /// Connections that ended, or answers that did not come.
    lost: AtomicU64,
    /// In µs.
    longest: AtomicU64,
}

impl Seen {
    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    pub(super) fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.load(Relaxed))
    }

    fn note(&self, since: Instant) {
        self.answered.fetch_add(1, Relaxed);
        self.longest.fetch_max(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// How clients ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// On one connection for ever, with such a pause.
    Kept(Duration),
    /// On a new connection each time, without a pause.
    Anew,
}

#[derive(Debug, Clone, Copy)]
enum Speaks {
    Http,
    Chat,
    Echo,
}

/// Clients of one kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clients {
    speaks: Speaks,
    address: SocketAddr,
    asks: Asks,
    count: usize,
}

impl Clients {
    pub(super) fn of_http(address: SocketAddr, asks: Asks, count: usize) -> Self {
        Self { speaks: Speaks::Http, address, asks, count }
    }
}

/// The connection of a client.
enum Talk {
    Http(TcpStream),
    /// A WebSocket with one message said: the count of them is its state.
    Chat(Box<WebSocketStream<TcpStream>>),
    Echo(TcpStream),
}

fn odd(what: impl std::fmt::Display) -> std::io::Error {
    std::io::Error::other(what.to_string())
}

impl Talk {
    async fn begin(speaks: Speaks, address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(match speaks {
            Speaks::Http => Self::Http(stream),
            Speaks::Echo => Self::Echo(stream),
            Speaks::Chat => {
                let (mut socket, _) =
                    tokio_tungstenite::client_async(format!("ws://{address}/ws"), stream).await.map_err(odd)?;
                socket.send(Message::text("hello")).await.map_err(odd)?;
                Self::Chat(Box::new(socket))
            }
        })
    }

    async fn ask(&mut self, buffer: &mut Vec<u8>) -> std::io::Result<()> {
        buffer.clear();
        match self {
            Self::Http(stream) => {
                match stream.try_read(&mut [0]) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Ok(1..) => return Err(odd("answered twice")),
                    Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    Err(error) => return Err(error),
                }
                stream.write_all(b"GET /pid HTTP/1.1\r\nHost: lab\r\n\r\n").await?;
                // A head with a length, and a body that ends with the only plain newline.
                until(stream, buffer, |all| all.ends_with(b"\n") && !all.ends_with(b"\r\n")).await?;
                if buffer.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err(odd("not answered")) }
            }
            Self::Echo(stream) => {
                stream.write_all(b"a line\n").await?;
                until(stream, buffer, |all| all.ends_with(b"\n")).await?;
                if buffer == b"a line\n" { Ok(()) } else { Err(odd("another line")) }
            }
            Self::Chat(socket) => {
                socket.send(Message::text("/count")).await.map_err(odd)?;
                loop {
                    match socket.next().await.ok_or_else(|| odd("closed"))?.map_err(odd)? {
                        Message::Text(text) if text == "1" => return Ok(()),
                        Message::Text(text) if text == "hello" => {} // of another one
                        other => return Err(odd(format!("{other:?}"))),
                    }
                }
            }
        }
    }
}

async fn until(stream: &mut TcpStream, all: &mut Vec<u8>, enough: impl Fn(&[u8]) -> bool) -> std::io::Result<()> {
    while !enough(all) {
        if stream.read_buf(all).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

async fn client(of: Clients, number: usize, seen: Arc<Seen>, stop: Arc<AtomicBool>) -> std::io::Result<()> {
    let Clients { speaks, address, asks, .. } = of;
    let mut buffer = Vec::new();
    let mut kept = match asks {
        Asks::Kept(_) => Some(Talk::begin(speaks, address).await?),
        Asks::Anew => None,
    };
    seen.open.fetch_add(1, Relaxed);
    if let Asks::Kept(pause) = asks {
        // They do not all ask at the same time.
        tokio::time::sleep(pause.mul_f64((number % 97) as f64 / 97.0)).await;
    }
    loop {
        let began = Instant::now();
        match &mut kept {
            Some(talk) => talk.ask(&mut buffer).await?,
            None => Talk::begin(speaks, address).await?.ask(&mut buffer).await?,
        }
        seen.note(began);
        // Who pauses at the end asks once more: it may have been closed meanwhile.
        if stop.load(Relaxed) {
            return Ok(());
        }
        if let Asks::Kept(pause) = asks {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Has these clients ask while `f` runs, which begins when all are connected.
pub(super) fn under(lab: &Container, clients: &[Clients], f: impl FnOnce(&Seen) -> Outcome) -> Outcome<Arc<Seen>> {
    let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| lab.in_netns(|| run(clients, &seen, &stop)));
        let all: usize = clients.iter().map(|clients| clients.count).sum();
        let ready = || Ok((seen.open.load(Relaxed) == all as u64 && seen.answered() > 0).then_some(()));
        let outcome = lab.wait_until(DEADLINE, "all clients are connected", ready).and_then(|()| {
            seen.longest.store(0, Relaxed);
            f(&seen)
        });
        stop.store(true, Relaxed);
        running.join().map_err(|_| "a client panicked")??;
        outcome
    })?;
    Ok(seen)
}

fn run(clients: &[Clients], seen: &Arc<Seen>, stop: &Arc<AtomicBool>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for of in clients {
            for number in 0..of.count {
                let (of, seen, stop) = (*of, Arc::clone(seen), Arc::clone(stop));
                tasks.spawn(async move {
                    if let Err(error) = client(of, number, Arc::clone(&seen), stop).await {
                        println!("client {number}, {of:?}: {error}");
                        seen.lost.fetch_add(1, Relaxed);
                    }
                });
                if number % 100 == 99 {
                    tokio::task::yield_now().await; // the listener's queue is not endless
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    });
}

impl Web<'_> {
    pub(super) fn clients(&self, asks: Asks, count: usize) -> Clients {
        Clients::of_http(self.address, asks, count)
    }

    pub(super) fn restart(&self) -> Outcome {
        let old = self.lab.main_pid(UNIT)?;
        self.lab.systemctl_ok(&["restart", UNIT])?;
        self.until("another main process", |state| state.is_running() && state.main != old).map(drop)
    }
}

fn keeps_connections(lab: &Container, lines: &str) -> Outcome {
    let (clients, restarts) = (number("HANDOVER_RESTART_CLIENTS", CLIENTS), number("HANDOVER_RESTARTS", RESTARTS));
    let web = Web::start(lab, Setup { lines: &format!("{KEEPS}{lines}"), ..Setup::default() })?;
    // Those that have waited are answered before the next one, so that it is one that is measured.
    let restart = |answers: usize| {
        let web = &web;
        move |seen: &Seen| {
            for _ in 0..restarts {
                web.restart()?;
                let answered = seen.answered() + answers as u64;
                lab.wait_until(DEADLINE, "clients are answered", || Ok((seen.answered() > answered).then_some(())))?;
            }
            Ok(())
        }
    };
    let bare = under(lab, &[web.clients(Asks::Anew, BUSY)], restart(BUSY))?;
    let kept = [web.clients(Asks::Kept(PAUSE), clients), web.clients(Asks::Kept(Duration::ZERO), BUSY)];
    let seen = under(lab, &kept, restart(clients / 2))?;
    let (base, longest, all) = (bare.longest(), seen.longest(), clients + BUSY);
    println!(
        "{restarts} restarts, {all} connections: {} answered, {} lost; longest wait {longest:?}, with nothing in hand \
         {base:?}",
        seen.answered(),
        seen.lost()
    );
    assert_eq!((bare.lost(), seen.lost()), (0, 0));
    // Few restarts on a busy machine say little of what one takes: that is asked of many.
    let times = if restarts > RESTARTS { 1.5 } else { 5.0 };
    let limit = base.mul_f64(times) + OF_EACH * u32::try_from(all)?;
    assert!(longest <= limit, "{longest:?} is longer than {limit:?}");
    let served = web.count_logged(&format!("serves {all} connections that have waited for"))?;
    assert_eq!(served, restarts, "each start has served all");
    let stored = lab.show(UNIT, "NFileDescriptorStore")?;
    assert_eq!(stored, "0", "the mailbox is removed");
    Ok(())
}

/// The services of the three protocols, with what they have in common.
struct Three {
    units: [&'static str; 3],
    clients: Vec<Clients>,
}

fn three(lab: &Container, count: usize) -> Outcome<Three> {
    let mut clients = Vec::new();
    let services = [("web", Speaks::Http, 8080), ("chat", Speaks::Chat, 8090), ("echo", Speaks::Echo, 7007)];
    for (name, speaks, port) in services {
        lab.install(&example(name)?, name)?;
        let lab_dir = lab.dir().display();
        // What is mounted goes with a soft reboot: the program, and the units, lie elsewhere.
        // Without soft reboots there is no other place that can be written to.
        let program = if lab.version() >= 254 {
            lab.sh_ok(&format!("cp {lab_dir}/{name} /usr/local/bin/{name}"))?;
            format!("/usr/local/bin/{name}")
        } else {
            format!("{lab_dir}/{name}")
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let socket = if name == "echo" { "echo" } else { "http" };
        lab.write_unit(
            &format!("{name}.service"),
            &format!(
                "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nNotifyAccess=main\nRestart=on-failure\n\
                 RestartSec=100ms\nExecStart={program}\nFileDescriptorStoreMax=64\n{KEEPS}{}\
                 LimitNOFILE=16384\n[Install]\nWantedBy=lab.target\n",
                if lab.version() >= 254 { PRESERVED } else { "" }
            ),
        )?;
        lab.write_unit(
            &format!("{name}.socket"),
            &format!("[Socket]\nListenStream={address}\nFileDescriptorName={socket}\n[Install]\nWantedBy=lab.target\n"),
        )?;
        let kept = |asks, count| Clients { speaks, address, asks, count };
        // A sixth is WebSockets, and a sixth plain streams.
        let idle = if name == "web" { count - 2 * (count / 6) } else { count / 6 };
        clients.extend([kept(Asks::Kept(PAUSE), idle), kept(Asks::Kept(Duration::from_millis(1)), 2)]);
    }
    lab.daemon_reload()?;
    let units = ["web.service", "chat.service", "echo.service"];
    lab.systemctl_ok(&["start", "web.socket", "chat.socket", "echo.socket"])?;
    lab.systemctl_ok(&[&["start"], &units[..]].concat())?;
    Ok(Three { units, clients })
}

impl Three {
    fn mains(&self, lab: &Container) -> Outcome<Vec<u32>> {
        self.units.iter().map(|unit| lab.main_pid(unit)).collect()
    }

    fn until_others(&self, lab: &Container, old: &[u32]) -> Outcome {
        lab.wait_until(DEADLINE, "other main processes", || {
            let mut pairs = self.units.iter().zip(old);
            let others = pairs.all(|(unit, old)| lab.main_pid_if_told(unit).is_some_and(|new| new != *old));
            Ok(others.then_some(()))
        })
    }
}

/// HTTP, WebSockets and plain streams, all of which go on as if nothing had been.
fn keeps_all(lab: &Container, times: usize, event: fn(&Container, &Three) -> Outcome) -> Outcome {
    let three = three(lab, number("HANDOVER_RESTART_CLIENTS", OF_THREE))?;
    let seen = under(lab, &three.clients, |seen| {
        for _ in 0..times {
            let old = three.mains(lab)?;
            event(lab, &three)?;
            three.until_others(lab, &old)?;
            let answered = seen.answered();
            lab.wait_until(DEADLINE, "clients are answered", || Ok((seen.answered() > answered + 100).then_some(())))?;
        }
        Ok(())
    })?;
    let all: usize = three.clients.iter().map(|clients| clients.count).sum();
    println!(
        "{times} times, {all} connections: {} answered, {} lost, longest wait {:?}",
        seen.answered(),
        seen.lost(),
        seen.longest()
    );
    assert_eq!(seen.lost(), 0);
    Ok(())
}

fn restart_all(lab: &Container, three: &Three) -> Outcome {
    lab.systemctl_ok(&[&["restart"], &three.units[..]].concat()).map(drop)
}

/// The load is outside of the container's processes, and in its network.
fn soft_reboot(lab: &Container, three: &Three) -> Outcome {
    reboot_softly(lab, &three.units)
}

/// What is mounted is gone afterwards, `/lab` and the directory of units among it: they lie
/// elsewhere then.
pub(super) fn reboot_softly(lab: &Container, services: &[&str]) -> Outcome {
    let wanted = "/run/systemd/system/lab.target.wants";
    lab.sh_ok(&format!("mkdir -p {wanted} && cp -a /etc/systemd/system/. /run/systemd/system/"))?;
    for unit in services {
        let socket = unit.replace(".service", ".socket");
        lab.sh_ok(&format!(
            "cd {wanted} && ln -sf ../{unit} . && {{ [ ! -e ../{socket} ] || ln -sf ../{socket} .; }}"
        ))?;
    }
    lab.sh_ok("ln -sfT /run/systemd/system/lab.target /run/systemd/system/default.target")?;
    // systemd 257 forgets a stopped unit that nothing refers to, and its store with it. The lab's
    // own target is stopped, too.
    let named = format!("[Unit]\nAfter={}\n", services.join(" "));
    lab.write_file("/run/systemd/system/soft-reboot.target.d/keeps.conf", &named)?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["soft-reboot"]).map(drop)
}

/// A port that the service has bound, and its state: also with the settings as they are.
fn survives_soft_reboot(lab: &Container) -> Outcome {
    lab.install(&example("counter")?, "counter")?;
    let lab_dir = lab.dir().display();
    lab.sh_ok(&format!("cp {lab_dir}/counter /usr/local/bin/counter"))?;
    let started = Counter::start(lab, Binds::Service, "", "")?;
    for total in 1..=3 {
        assert_eq!(started.count()?.total, total);
    }
    started.wait_stored(2)?;
    let (old, memory) = (lab.main_pid(counter::UNIT)?, Memory::default());
    let unit = format!("/etc/systemd/system/{}", counter::UNIT);
    lab.sh_ok(&format!(
        "sed -i 's,{lab_dir}/counter,/usr/local/bin/counter,' {unit} && rm /etc/systemd/system/{}",
        counter::SOCKET
    ))?;
    started.under_clients(4, &memory, || {
        reboot_softly(lab, &[counter::UNIT])?;
        lab.wait_until(DEADLINE, "another main process", || {
            Ok(lab.main_pid_if_told(counter::UNIT).filter(|new| *new != old).map(drop))
        })
    })?;
    let seen = memory.look();
    assert!(seen.lost.is_empty() && seen.wrong.is_empty() && seen.answered > 0, "{seen:?}");
    assert!(started.count()?.total > 3 + seen.answered, "the state goes on");
    Ok(())
}

/// An idle client is served as long as a long request is in hand; then both go on.
fn finishes_what_is_in_hand(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup { lines: KEEPS, ..Setup::default() })?;
    let (mut idle, mut slow) = (web.connect()?, web.connect()?);
    let old = idle.pid()?;
    slow.send("/sleep?duration=6s")?;
    lab.systemctl_ok(&["--no-block", "restart", UNIT])?;
    web.logged("SIGTERM; connections open")?;
    let mut answered = 0;
    let pid = loop {
        let began = Instant::now();
        let pid = idle.pid()?;
        within(Duration::from_secs(5), began, "an idle client's request")?;
        if pid != old {
            break pid;
        }
        answered += 1;
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(answered > 20, "{answered} answered by the old process while it finished the other request");
    assert_eq!(slow.answered_pid()?, old, "it was finished");
    assert_eq!(slow.pid()?, pid, "and its connection goes on");
    Ok(())
}

/// A stop that is none says goodbye, also where the store stays.
fn stop_keeps_nothing(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup { lines: &format!("{KEEPS}{PRESERVED}"), ..Setup::default() })?;
    let mut idle = web.connect()?;
    idle.pid()?;
    lab.systemctl_ok(&["stop", "web.socket", UNIT])?;
    idle.closed()?;
    Ok(())
}
