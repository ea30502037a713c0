//! What a TLS connection that has moved gives, beside one that rustls has: the same service twice,
//! of which one was reloaded after its clients had connected.
//!
//! ```sh
//! cargo bench --bench moved --features http,journald,tls        # about half a minute
//! ```
//!
//! Slices of load go to both in turn. The servers have one thread, on the last processor; the
//! client has the first. The processor time of the server per reply is given too: it does not
//! depend on the client, which has its own part of TLS to do.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and fails by panicking")]

use std::io;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use handover::tls::{Tls, TlsOptions};
use handover_testing::certs;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::CipherSuite;

/// Says where this process is to serve.
const SERVES: &str = "HANDOVER_BENCH_ADDRESS";
const CHAIN: &str = "HANDOVER_BENCH_CHAIN";
const KEY: &str = "HANDOVER_BENCH_KEY";
const CONNECTIONS: usize = 8;
const SLICE: Duration = Duration::from_millis(100);
const ROUNDS: usize = 20;
const DEADLINE: Duration = Duration::from_secs(20);
const REPLIES: [(&str, usize); 2] = [("/small", 100), ("/large", 300_000)];
const SUITES: [CipherSuite; 4] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
];

fn main() {
    if let Ok(address) = std::env::var(SERVES) {
        return runtime().block_on(serve(&address));
    }
    // `cargo test --benches` only wants to see it run
    let measured = std::env::args().any(|arg| arg == "--bench");
    let (rounds, slice) = if measured { (ROUNDS, SLICE) } else { (1, SLICE / 10) };
    println!("{rounds} rounds of slices of {slice:?}, {CONNECTIONS} connections; medians");
    println!(
        "{:46} {:>9} {:>12} {:>12} {:>8} {:>10} {:>10} {:>8}",
        "", "reply", "rustls/s", "moved/s", "ratio", "rustls µs", "moved µs", "ratio"
    );
    runtime().block_on(async {
        for suite in SUITES {
            compare(suite, rounds, slice).await;
        }
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn serve(address: &str) {
    let read = |name| std::env::var(name).unwrap();
    let tls = Tls::from_pem_with(read(CHAIN), read(KEY), TlsOptions::new().alpn(["http/1.1"])).unwrap();
    let service = handover::Service::builder().listen("https", address).start().unwrap();
    let router = Router::new()
        .route("/pid", get(async || std::process::id().to_string()))
        .route("/small", get(async || vec![b'x'; REPLIES[0].1]))
        .route("/large", get(async || vec![b'x'; REPLIES[1].1]));
    service.serve_https("https", &tls, router).unwrap();
    service.run().await.unwrap();
}

/// What one server did in one slice.
#[derive(Clone, Copy)]
struct Sample {
    per_second: f64,
    /// Processor time of the server per reply.
    micros: f64,
}

async fn compare(suite: CipherSuite, rounds: usize, slice: Duration) {
    let mut servers = [Server::start(suite).await, Server::start(suite).await];
    servers[1].reload().await;
    for (path, length) in REPLIES {
        let mut samples = [Vec::new(), Vec::new()];
        for server in &mut servers {
            server.run(path, length, slice).await; // warm
        }
        for round in 0..rounds {
            for at in [round % 2, 1 - round % 2] {
                samples[at].push(servers[at].run(path, length, slice).await);
            }
        }
        let [rustls, moved] = &samples;
        let speed = [rustls, moved].map(|samples| median(samples.iter().map(|sample| sample.per_second)));
        let cost = [rustls, moved].map(|samples| median(samples.iter().map(|sample| sample.micros)));
        let pairs = || rustls.iter().zip(moved);
        let ratio = median(pairs().map(|(rustls, moved)| moved.per_second / rustls.per_second));
        let cheaper = median(pairs().map(|(rustls, moved)| rustls.micros / moved.micros));
        println!(
            "{:46} {length:>9} {:>12.0} {:>12.0} {ratio:>8.3} {:>10.2} {:>10.2} {cheaper:>8.3}",
            format!("{suite:?}"),
            speed[0],
            speed[1],
            cost[0],
            cost[1]
        );
    }
}

struct Server {
    child: Child,
    /// Of the generation that serves.
    pid: Pid,
    clients: Vec<TlsStream<TcpStream>>,
}

impl Server {
    async fn start(suite: CipherSuite) -> Self {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let pair = certs::pair();
        let child = Command::new(std::env::current_exe().unwrap())
            .envs([(SERVES, address.to_string()), (CHAIN, pair.chain.clone()), (KEY, pair.key.clone())])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        pin(pid);
        let config = certs::client_as(&certs::VERSIONS, &[suite], &["http/1.1"], None);
        let mut server = Self { child, pid, clients: Vec::new() };
        for _ in 0..CONNECTIONS {
            let stream = connect(address).await;
            stream.set_nodelay(true).unwrap();
            let connector = TlsConnector::from(Arc::clone(&config));
            server.clients.push(connector.connect("localhost".try_into().unwrap(), stream).await.unwrap());
        }
        assert_eq!(server.serves().await, pid);
        server
    }

    /// The process that answers the first client.
    async fn serves(&mut self) -> Pid {
        let client = &mut self.clients[0];
        let reply = ask(client, "/pid").await;
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(!head.contains("connection: close"), "{head}");
        Pid::from_raw(body.parse().unwrap())
    }

    /// All its connections move to a new generation.
    async fn reload(&mut self) {
        let (old, begun) = (self.pid, Instant::now());
        kill(old, Signal::SIGHUP).unwrap();
        while self.pid == old {
            assert!(begun.elapsed() < DEADLINE, "no new generation");
            self.pid = self.serves().await;
        }
        // it ends when all have moved
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < DEADLINE, "some do not move");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pin(self.pid);
    }

    async fn run(&mut self, path: &str, length: usize, slice: Duration) -> Sample {
        let before = processor_time(self.pid);
        let begun = Instant::now();
        let run = self.clients.iter_mut().map(async |client| {
            let mut replies = 0_u32;
            while begun.elapsed() < slice {
                send(client, path).await;
                receive(client, length).await;
                replies += 1;
            }
            replies
        });
        let replies: u32 = futures_util::future::join_all(run).await.into_iter().sum();
        let took = begun.elapsed();
        let spent = processor_time(self.pid) - before;
        let replies = f64::from(replies);
        Sample { per_second: replies / took.as_secs_f64(), micros: spent.as_secs_f64() * 1e6 / replies }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => return stream,
            Err(error) => assert!(begun.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn send(client: &mut TlsStream<TcpStream>, path: &str) {
    client.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    client.flush().await.unwrap();
}

/// A whole reply, whose body is that long.
async fn receive(client: &mut TlsStream<TcpStream>, length: usize) {
    let (mut space, mut received, mut head) = ([0; 16_384], 0, None);
    while head.is_none_or(|head| received < head + length) {
        let read = client.read(&mut space).await.unwrap();
        assert_ne!(read, 0, "closed");
        if head.is_none() {
            head = Some(space[..read].windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4);
        }
        received += read;
    }
}

async fn ask(client: &mut TlsStream<TcpStream>, path: &str) -> String {
    send(client, path).await;
    let mut space = [0; 4096];
    let read = client.read(&mut space).await.unwrap();
    String::from_utf8(space[..read].to_vec()).unwrap()
}

fn processor_time(process: Pid) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of = |thread: io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        stat.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    Duration::from_nanos(threads.map(of).sum())
}

/// The client's processor, and the servers', if there are two.
static PROCESSORS: LazyLock<Option<[usize; 2]>> = LazyLock::new(|| {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut all = (0..CpuSet::count()).filter(|at| allowed.is_set(*at).unwrap_or(false));
    Some([all.next()?, all.next_back()?])
});

/// Puts the server on the last processor, and this process on the first.
fn pin(server: Pid) {
    let Some(processors) = *PROCESSORS else { return };
    for (process, processor) in [Pid::from_raw(0), server].into_iter().zip(processors) {
        let mut set = CpuSet::new();
        set.set(processor).unwrap();
        sched_setaffinity(process, &set).unwrap();
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
