//! Restarts, and what else ends a process and starts another: connections wait for it.
//!
//! `HANDOVER_RESTART_CLIENTS` and `HANDOVER_RESTARTS` say how many of each there are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::web::{DEADLINE, Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("restart_keeps_connections", |lab| keeps_connections(lab, "")).system_only(),
    Scenario::new("restart_keeps_connections_of_a_user", |lab| keeps_connections(lab, "User=www-data\n")).system_only(),
];

/// They ask as fast as they are answered.
const BUSY: usize = 8;
const CLIENTS: usize = 400;
const RESTARTS: usize = 5;
/// An idle client asks so often, on average.
const PAUSE: Duration = Duration::from_secs(1);
/// A connection may cost its client so much of a restart.
const OF_EACH: Duration = Duration::from_micros(20);

fn number(variable: &str, usual: usize) -> usize {
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
    fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.load(Relaxed))
    }

    fn note(&self, since: Instant) {
        self.answered.fetch_add(1, Relaxed);
        self.longest.fetch_max(u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}

/// How clients ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// On one connection for ever, with such a pause.
    Kept(Duration),
    /// On a new connection each time, without a pause.
    Anew,
}

async fn ask(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    stream.write_all(b"GET /pid HTTP/1.1\r\nHost: lab\r\n\r\n").await?;
    buffer.clear();
    // A head with a length, and a body that ends with the only newline without a return before it.
    while !(buffer.ends_with(b"\n") && !buffer.ends_with(b"\r\n")) {
        if stream.read_buf(buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    match buffer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn client(address: SocketAddr, asks: Asks, number: usize, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    let mut buffer = Vec::new();
    let mut kept = None;
    if let Asks::Kept(pause) = asks {
        kept = connect(address).await.ok();
        // They do not all ask at the same time.
        tokio::time::sleep(pause.mul_f64((number % 97) as f64 / 97.0)).await;
    }
    seen.open.fetch_add(1, Relaxed);
    while !stop.load(Relaxed) {
        let began = Instant::now();
        let asked = match (asks, &mut kept) {
            (Asks::Kept(_), Some(stream)) => ask(stream, &mut buffer).await,
            (Asks::Kept(_), None) => Err(std::io::ErrorKind::NotConnected.into()),
            (Asks::Anew, _) => match connect(address).await {
                Ok(mut stream) => ask(&mut stream, &mut buffer).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = asked {
            println!("client {number}, {asks:?}: {error}");
            seen.lost.fetch_add(1, Relaxed);
            return;
        }
        seen.note(began);
        if let Asks::Kept(pause) = asks {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Has these clients ask while `f` runs, which begins when all are connected.
fn under(web: &Web<'_>, clients: &[(Asks, usize)], f: impl FnOnce() -> Outcome) -> Outcome<Arc<Seen>> {
    let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| web.lab.in_netns(|| run(web.address, clients, &seen, &stop)));
        let all: usize = clients.iter().map(|(_, count)| count).sum();
        let outcome = web
            .lab
            .wait_until(DEADLINE, "all clients are connected and answered", || {
                let (open, answered) = (seen.open.load(Relaxed), seen.answered.load(Relaxed));
                Ok((open == all as u64 && answered > 0).then_some(()))
            })
            .and_then(|()| {
                seen.longest.store(0, Relaxed);
                f()
            });
        stop.store(true, Relaxed);
        running.join().map_err(|_| "a client panicked")??;
        outcome
    })?;
    Ok(seen)
}

fn run(address: SocketAddr, clients: &[(Asks, usize)], seen: &Arc<Seen>, stop: &Arc<AtomicBool>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for (asks, count) in clients {
            for number in 0..*count {
                tasks.spawn(client(address, *asks, number, Arc::clone(seen), Arc::clone(stop)));
                if number % 100 == 99 {
                    tokio::task::yield_now().await; // the listener's queue is not endless
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    });
}

fn restart(web: &Web<'_>, times: usize) -> Outcome {
    for _ in 0..times {
        let old = web.lab.main_pid(UNIT)?;
        web.lab.systemctl_ok(&["restart", UNIT])?;
        web.until("another main process", |state| state.is_running() && state.main != old)?;
    }
    Ok(())
}

fn kept(lines: &str) -> String {
    format!("Environment=HANDOVER_MIGRATE=restart\n{lines}")
}

fn keeps_connections(lab: &Container, lines: &str) -> Outcome {
    let (clients, restarts) = (number("HANDOVER_RESTART_CLIENTS", CLIENTS), number("HANDOVER_RESTARTS", RESTARTS));
    let web = Web::start(lab, Setup { lines: &kept(lines), ..Setup::default() })?;
    let bare = under(&web, &[(Asks::Anew, BUSY)], || restart(&web, restarts))?;
    let seen =
        under(&web, &[(Asks::Kept(PAUSE), clients), (Asks::Kept(Duration::ZERO), BUSY)], || restart(&web, restarts))?;
    let (base, longest) = (bare.longest(), seen.longest());
    let all = clients + BUSY;
    println!(
        "{restarts} restarts, {all} connections: {} answered, {} lost; longest wait {longest:?}, with nothing in hand \
         {base:?}",
        seen.answered.load(Relaxed),
        seen.lost.load(Relaxed)
    );
    assert_eq!((bare.lost.load(Relaxed), seen.lost.load(Relaxed)), (0, 0));
    // Few restarts on a busy machine say little of what one takes: that is asked of many.
    let times = if restarts > RESTARTS { 1.5 } else { 5.0 };
    let limit = base.mul_f64(times) + OF_EACH * u32::try_from(all)?;
    assert!(longest <= limit, "{longest:?} is longer than {limit:?}");
    let served = web.count_logged(&format!("serves {all} connections that have waited for"))?;
    assert_eq!(served, restarts, "each start has served all");
    Ok(())
}
