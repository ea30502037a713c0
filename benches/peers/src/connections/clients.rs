//! Keep-alive clients with a pause of random length between two requests, and what they saw.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Between two requests of a client. Short pauses are as frequent as long ones, on a logarithmic
/// scale: half of them are below 0.9 s.
pub(crate) const PAUSE: [Duration; 2] = [Duration::from_millis(40), Duration::from_secs(20)];
/// Clients do not all come at once: not in the beginning, and not when all have been closed.
pub(crate) const REOPEN: Duration = Duration::from_secs(2);
/// For one answer.
const LIMIT: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// Of an answer, its head included. Those of all servers are far shorter.
const LONGEST: usize = 1024;

/// How the server ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// An answer said so.
    Announced,
    /// Nothing was asked on it.
    Idle,
    /// With a request that has no answer.
    Lost,
}

/// What all clients of a trial saw, each with its moment.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When a request was sent, and how long the answer took.
    pub(crate) answered: Vec<(Instant, Duration)>,
    pub(crate) closed: Vec<(Instant, Close)>,
    /// Requests without a whole, right answer, and why: those that met a close among them.
    pub(crate) lost: Vec<(Instant, String)>,
}

#[derive(Default)]
struct Shared {
    open: AtomicUsize,
    seen: Mutex<Seen>,
}

impl Shared {
    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

pub(crate) struct Clients {
    shared: Arc<Shared>,
    stop: watch::Sender<()>,
    thread: JoinHandle<()>,
}

impl Clients {
    pub(crate) fn start(port: u16, count: usize, seed: u64) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (stop, mut stopped) = watch::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let theirs = shared.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                for client in 0..count {
                    let random = SmallRng::seed_from_u64(seed.wrapping_add(client as u64));
                    tokio::spawn(run(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), theirs.clone(), random));
                }
                let _ = stopped.changed().await;
            });
        });
        Ok(Self { shared, stop, thread })
    }

    /// How many connections there are.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(Relaxed)
    }

    /// Waits until there are so many.
    pub(crate) fn wait_for(&self, count: usize, deadline: Duration) -> io::Result<()> {
        let began = Instant::now();
        while self.open() < count {
            if began.elapsed() > deadline {
                return Err(io::Error::other(format!("{} of {count} connections after {deadline:?}", self.open())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Ends the clients and tells what they saw.
    pub(crate) fn stop(self) -> Seen {
        drop(self.stop);
        let _ = self.thread.join();
        std::mem::take(&mut *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One client, for ever.
async fn run(address: SocketAddr, shared: Arc<Shared>, mut random: SmallRng) {
    loop {
        sleep(random.random_range(Duration::ZERO..REOPEN)).await;
        match timeout(LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(mut stream)) => {
                let _ = stream.set_nodelay(true);
                shared.open.fetch_add(1, Relaxed);
                let close = connection(&mut stream, &shared, &mut random).await;
                shared.open.fetch_sub(1, Relaxed);
                shared.note(|seen| seen.closed.push((Instant::now(), close)));
            }
            Ok(Err(error)) => {
                shared.note(|seen| seen.lost.push((Instant::now(), format!("connect: {}", error.kind()))))
            }
            Err(_) => shared.note(|seen| seen.lost.push((Instant::now(), "connect: no answer".into()))),
        }
    }
}

/// Until the connection ends.
async fn connection(stream: &mut TcpStream, shared: &Shared, random: &mut SmallRng) -> Close {
    let [shortest, longest] = PAUSE.map(|pause| pause.as_secs_f64().ln());
    loop {
        let pause = Duration::from_secs_f64(random.random_range(shortest..longest).exp());
        // a client that sees a close in time does not ask there
        tokio::select! {
            biased;
            () = closed(stream) => return Close::Idle,
            () = sleep(pause) => {}
        }
        let sent = Instant::now();
        let lost = match timeout(LIMIT, ask(stream)).await {
            Ok(Ok(last)) => {
                let took = sent.elapsed();
                shared.note(|seen| seen.answered.push((sent, took)));
                if last {
                    return Close::Announced;
                }
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        shared.note(|seen| seen.lost.push((Instant::now(), lost)));
        return Close::Lost;
    }
}

/// Ends when the server has closed the connection, or sent what nobody asked for.
async fn closed(stream: &TcpStream) {
    loop {
        let _ = stream.readable().await;
        match stream.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// Whether the answer is the last one on this connection.
async fn ask(stream: &mut TcpStream) -> io::Result<bool> {
    stream.write_all(REQUEST).await.map_err(|error| io::Error::other(error.kind().to_string()))?;
    let (mut buffer, mut filled) = ([0; LONGEST], 0);
    loop {
        match stream.read(&mut buffer[filled..]).await {
            Ok(0) if filled == 0 => return Err(io::Error::other("closed before the answer")),
            Ok(0) => return Err(io::Error::other("closed within the answer")),
            Ok(read) => filled += read,
            Err(error) => return Err(io::Error::other(error.kind().to_string())),
        }
        if let Some(last) = whole(&buffer[..filled]).map_err(io::Error::other)? {
            return Ok(last);
        }
        if filled == LONGEST {
            return Err(io::Error::other("the answer is too long"));
        }
    }
}

/// Whether a whole answer is the last one of its connection; `None`: it is not whole yet.
fn whole(answer: &[u8]) -> Result<Option<bool>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(answer).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let length: usize =
        value("content-length").and_then(|text| text.parse().ok()).ok_or("an answer without a length")?;
    match answer.len().cmp(&(head + length)) {
        std::cmp::Ordering::Less => return Ok(None),
        std::cmp::Ordering::Greater => return Err("more than the answer".into()),
        std::cmp::Ordering::Equal => {}
    }
    if response.code != Some(200) || !answer[head..].starts_with(b"pid ") {
        return Err(format!("the answer is another one, with status {}", response.code.unwrap_or(0)));
    }
    Ok(Some(value("connection").is_some_and(|text| text.eq_ignore_ascii_case("close"))))
}
