//! Clients by rustls, which takes an end without close_notify for an error.

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, HandshakeKind};

use super::{DEADLINE, LINGER, Service, certs};
use crate::lab::Outcome;

/// Who asks less than this before the end of linger may be too late.
const MARGIN: Duration = Duration::from_millis(500);

type Result<T = (), E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

impl Service<'_> {
    /// One request of a new client.
    pub(super) fn one(&self, config: &Arc<ClientConfig>) -> Outcome<(HandshakeKind, CertificateDer<'static>)> {
        let one = self.lab.in_netns(|| {
            runtime()?.block_on(async {
                let mut client = Client::connect(self.address, config).await?;
                client.ask("close").await?;
                client.announced().await?;
                Ok::<_, Box<dyn Error + Send + Sync>>((client.kind()?, client.certificate()?))
            })
        })?;
        one.map_err(|e| e.to_string().into())
    }

    /// Clients ask while `f` runs; afterwards each finishes what it has begun.
    pub(super) fn under(&self, stats: &Arc<Stats>, load: Load, f: impl FnOnce() -> Outcome) -> Outcome {
        let (stop, stopped) = watch::channel(false);
        thread::scope(|scope| {
            let clients = scope.spawn(|| self.lab.in_netns(|| run(self.address, stats, load, stopped)));
            let outcome = panic::catch_unwind(AssertUnwindSafe(f));
            stop.send_replace(true);
            let ran = clients.join();
            match outcome {
                Ok(outcome) => outcome.map_err(|e| format!("{} ({stats})", e.message().unwrap_or_default()))?,
                Err(panic) => panic::resume_unwind(panic),
            }
            match ran {
                Ok(ran) => ran?.map_err(|e| e.to_string().into()),
                Err(panic) => panic::resume_unwind(panic),
            }
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// One in four asks now and then, the others are silent until they are sent away.
    pub(super) idle: usize,
    /// Each request on a new connection, with a full handshake.
    pub(super) fresh: usize,
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    /// That have connected.
    pub(super) idle: AtomicU64,
    pub(super) answered: AtomicU64,
    /// Connections of one request each, with a full handshake.
    pub(super) fresh: AtomicU64,
    pub(super) resumed: AtomicU64,
    pub(super) not_resumed: AtomicU64,
    /// Ends of idle connections, all with close_notify.
    pub(super) announced: AtomicU64,
    /// Requests that failed because their clients did not come to send them in time.
    pub(super) late: AtomicU64,
    shown: Mutex<BTreeSet<Vec<u8>>>,
    lost: Mutex<Vec<String>>,
}

impl Stats {
    pub(super) fn lost_nothing(&self) -> Outcome {
        let lost = lock(&self.lost);
        match lost.first() {
            None => Ok(()),
            Some(first) => Err(format!("{} lost, the first: {first}", lost.len()).into()),
        }
    }

    /// How many different ones new clients were shown.
    pub(super) fn certificates(&self) -> usize {
        lock(&self.shown).len()
    }

    /// `None`: it failed, but the client was not heard of for so long that it may be sent away at
    /// any moment, because this machine had others to run.
    fn unless_late<T>(&self, heard: Instant, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(_) if heard.elapsed() > LINGER - MARGIN => {
                count(&self.late);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn note(&self, outcome: Result) {
        if let Err(error) = outcome {
            lock(&self.lost).push(error.to_string());
        }
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (&self.answered, "answered on keep-alive connections"),
            (&self.announced, "of which ended, all with close_notify"),
            (&self.late, "late"),
            (&self.resumed, "sessions resumed"),
            (&self.not_resumed, "not resumed"),
            (&self.fresh, "answered after a full handshake"),
        ];
        for (count, what) in counts {
            write!(f, "{} {what}, ", count.load(Relaxed))?;
        }
        write!(f, "{} certificates shown, {} lost", self.certificates(), lock(&self.lost).len())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// With a session cache of its own.
pub(super) fn new_client() -> Arc<ClientConfig> {
    certs::client(&certs::VERSIONS, &["http/1.1"])
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn run(address: SocketAddr, stats: &Arc<Stats>, load: Load, stopped: watch::Receiver<bool>) -> Result {
    runtime()?.block_on(async {
        let mut clients = JoinSet::new();
        for at in 0..load.idle {
            let (stats, stopped) = (Arc::clone(stats), stopped.clone());
            clients.spawn(async move {
                // not all at once: the first handshakes of all are full ones
                sleep(Duration::from_millis(at as u64)).await;
                stats.note(idle(address, at, &stats, stopped).await);
            });
        }
        for _ in 0..load.fresh {
            let (stats, stopped) = (Arc::clone(stats), stopped.clone());
            clients.spawn(async move { stats.note(fresh(address, &stats, stopped).await) });
        }
        let all = async { while clients.join_next().await.is_some() {} };
        let mut stopped = stopped;
        let _ = stopped.wait_for(|stop| *stop).await;
        timeout(DEADLINE, all).await.map_err(|_| "clients that did not end".into())
    })
}

async fn fresh(address: SocketAddr, stats: &Stats, stopped: watch::Receiver<bool>) -> Result {
    while !*stopped.borrow() {
        let begun = Instant::now();
        let asked = async {
            let mut client = Client::connect(address, &new_client()).await?;
            client.ask("close").await.map(|_| client)
        };
        if let Some(mut client) = stats.unless_late(begun, asked.await)? {
            client.announced().await?;
            count(&stats.fresh);
            lock(&stats.shown).insert(client.certificate()?.to_vec());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn idle(address: SocketAddr, at: usize, stats: &Stats, stopped: watch::Receiver<bool>) -> Result {
    let config = certs::client(&[certs::VERSIONS[at / 4 % 2]], &["http/1.1"]);
    let mut first = true;
    while !*stopped.borrow() {
        let begun = Instant::now();
        if let Some(client) = stats.unless_late(begun, Client::connect(address, &config).await)? {
            match (std::mem::take(&mut first), client.kind()?) {
                (true, _) => count(&stats.idle),
                (false, HandshakeKind::Resumed) => count(&stats.resumed),
                (false, _) => count(&stats.not_resumed),
            }
            until_sent_away(client, begun, at, stats, stopped.clone()).await?;
        }
        // so that a thousand clients that were sent away at once do not come back at once
        sleep(Duration::from_micros(at as u64 * 500)).await;
    }
    Ok(())
}

async fn until_sent_away(
    mut client: Client,
    mut since: Instant,
    at: usize,
    stats: &Stats,
    mut stopped: watch::Receiver<bool>,
) -> Result {
    // Spread over less than linger, the same in each run.
    let pause = LINGER.mul_f64(0.2 + 0.3 * (at as f64 * 0.618).fract());
    let silent = !at.is_multiple_of(4);
    loop {
        let asked = Instant::now();
        let Some(last) = stats.unless_late(since, client.ask("keep-alive").await)? else { return Ok(()) };
        count(&stats.answered);
        since = asked;
        tokio::select! {
            biased;
            ended = client.announced() => {
                ended?;
                count(&stats.announced);
                // The server has waited from the last answer on, which came after it was asked for.
                return match silent || last || since.elapsed() >= LINGER {
                    true => Ok(()),
                    false => Err(format!("closed after {:?}, linger being {LINGER:?}", since.elapsed()).into()),
                };
            }
            () = async { drop(stopped.wait_for(|stop| *stop).await) }, if !last => return Ok(()),
            () = sleep(pause), if !silent && !last => {}
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

struct Client {
    stream: TlsStream<TcpStream>,
}

impl Client {
    async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        let connect = async {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            TlsConnector::from(Arc::clone(config)).connect("localhost".try_into()?, socket).await.map_err(Box::from)
        };
        let stream = timeout(DEADLINE, connect).await.map_err(|_| "no handshake in time")?;
        Ok(Self { stream: stream.map_err(|e: Box<dyn Error + Send + Sync>| format!("no handshake: {e}"))? })
    }

    /// A request and its answer; whether that was the last one.
    async fn ask(&mut self, connection: &str) -> Result<bool> {
        let request = format!("GET /pid HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n");
        let answer = async {
            self.stream.write_all(request.as_bytes()).await?;
            let mut received = Vec::new();
            // the body ends in the only newline without a carriage return
            while !received.ends_with(b"\n") || received.ends_with(b"\r\n") {
                if self.stream.read_buf(&mut received).await? == 0 {
                    return Err(format!("closed after {:?}", received.escape_ascii().to_string()).into());
                }
            }
            Result::<String>::Ok(String::from_utf8(received)?.to_ascii_lowercase())
        };
        let answer = timeout(DEADLINE, answer).await.map_err(|_| "no answer in time")?;
        let answer = answer.map_err(|e| format!("not answered: {e}"))?;
        if !answer.starts_with("http/1.1 200 ") {
            return Err(format!("answered {answer:?}").into());
        }
        Ok(answer.contains("\r\nconnection: close\r\n"))
    }

    /// Waits for the end, which must be TLS's: anything else is an error of rustls.
    async fn announced(&mut self) -> Result {
        match self.stream.read(&mut [0; 64]).await {
            Ok(0) => Ok(()),
            Ok(read) => Err(format!("{read} bytes that nobody asked for").into()),
            Err(error) => Err(format!("not announced: {error}").into()),
        }
    }

    fn kind(&self) -> Result<HandshakeKind> {
        self.stream.get_ref().1.handshake_kind().ok_or_else(|| "no handshake".into())
    }

    fn certificate(&self) -> Result<CertificateDer<'static>> {
        let shown = self.stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        shown.cloned().ok_or_else(|| "no certificate".into())
    }
}
