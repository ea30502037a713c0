//! The servers, each in a process of its own: this program again, told by a variable which one it
//! is.

use handover::Service;
use handover::drain::Drain;
use handover::http::{HttpOptions, HyperService};
use handover::service::settings::Migrate;
use handover::systemd::activation::Listener;
use handover_testing::manager::Manager;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

/// Names the server that this process is to be.
pub(crate) const KIND: &str = "HANDOVER_BENCH_SERVER";

/// Of each server's runtime.
pub(crate) fn threads() -> usize {
    std::env::var("HANDOVER_THREADS").ok().and_then(|threads| threads.parse().ok()).unwrap_or(1)
}

/// Whether each request waits once before it is answered.
static WAITS: LazyLock<bool> = LazyLock::new(|| std::env::var_os("HANDOVER_WAITS").is_some());

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    OursHttp1,
    /// Without a `ConnectionInfo` in each request, which bare hyper has not either.
    PlainHttp1,
    BareHttp1,
    /// Without the header timeout, which hyper sets a timer for at each request.
    UntimedHttp1,
    /// A whole service, with a stand-in for the manager that keeps its fds.
    ServiceHttp1,
    /// The same, whose connections are insured against a crash.
    InsuredHttp1,
    OursHttp2,
    PlainHttp2,
    /// Its connections do not move: nothing is followed.
    StayingHttp2,
    BareHttp2,
    /// Each request gets who the client is, as axum does for hyper.
    KnowingHttp2,
}

impl Kind {
    pub(crate) const ALL: [Self; 11] = [
        Self::OursHttp1,
        Self::PlainHttp1,
        Self::BareHttp1,
        Self::UntimedHttp1,
        Self::ServiceHttp1,
        Self::InsuredHttp1,
        Self::OursHttp2,
        Self::PlainHttp2,
        Self::StayingHttp2,
        Self::BareHttp2,
        Self::KnowingHttp2,
    ];
    /// Whose figures are divided by whose.
    pub(crate) const RATIOS: [(Self, Self); 8] = [
        (Self::OursHttp1, Self::BareHttp1),
        (Self::PlainHttp1, Self::BareHttp1),
        (Self::OursHttp1, Self::UntimedHttp1),
        (Self::InsuredHttp1, Self::ServiceHttp1),
        (Self::OursHttp2, Self::BareHttp2),
        (Self::OursHttp2, Self::StayingHttp2),
        (Self::PlainHttp2, Self::BareHttp2),
        (Self::OursHttp2, Self::KnowingHttp2),
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::OursHttp1 => "HTTP/1, handover",
            Self::PlainHttp1 => "HTTP/1, handover, no ConnectionInfo",
            Self::BareHttp1 => "HTTP/1, hyper",
            Self::UntimedHttp1 => "HTTP/1, hyper, no header timeout",
            Self::ServiceHttp1 => "HTTP/1, a service",
            Self::InsuredHttp1 => "HTTP/1, a service, insured",
            Self::OursHttp2 => "HTTP/2, handover",
            Self::PlainHttp2 => "HTTP/2, handover, no ConnectionInfo",
            Self::StayingHttp2 => "HTTP/2, handover, does not move",
            Self::BareHttp2 => "HTTP/2, hyper",
            Self::KnowingHttp2 => "HTTP/2, hyper, peer in extensions",
        }
    }

    pub(crate) fn is_http2(self) -> bool {
        matches!(self, Self::OursHttp2 | Self::PlainHttp2 | Self::StayingHttp2 | Self::BareHttp2 | Self::KnowingHttp2)
    }
}

pub(crate) struct Child {
    process: std::process::Child,
    pub(crate) address: SocketAddr,
}

impl Child {
    pub(crate) fn start(kind: Kind) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .env(KIND, format!("{kind:?}"))
            .env("NOTIFY_SOCKET", std::env::temp_dir().join(format!("handover-bench.{}.{kind:?}", std::process::id())))
            .env("FDSTORE", "64")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, address: line.trim().parse().unwrap() }
    }

    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.process.id().cast_signed())
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).unwrap()
    }

    /// Of its threads, so far.
    pub(crate) fn processor_time(&self) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let of = |thread: std::io::Result<std::fs::DirEntry>| {
            // One that has just ended had nothing to do.
            let stat = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            stat.split_whitespace().next()?.parse::<u64>().ok()
        };
        Duration::from_nanos(threads.filter_map(of).sum())
    }

    /// Bytes of memory.
    pub(crate) fn resident(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.stdin.take()); // it ends itself
        let _ = self.process.wait();
    }
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if *WAITS {
        tokio::task::yield_now().await;
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"Hello, World!"))))
}

#[derive(Clone)]
#[expect(dead_code, reason = "what is measured is that it is there")]
struct Client(SocketAddr);

pub(crate) fn main(kind: &str) {
    let kind = Kind::ALL.into_iter().find(|k| format!("{k:?}") == kind).unwrap();
    let migrate = match kind {
        Kind::ServiceHttp1 => Some(Migrate::Reload),
        Kind::InsuredHttp1 => Some(Migrate::Crash),
        _ => None,
    };
    // Before its environment is read.
    let manager = migrate.map(|_| manager());
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let mut runtime = match threads() {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.worker_threads(threads()).enable_all().build().unwrap();
    runtime.block_on(async {
        if let Some(migrate) = migrate {
            return service(migrate, manager).await;
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        println!("{}", listener.local_addr().unwrap());
        let plain = matches!(kind, Kind::PlainHttp1 | Kind::PlainHttp2);
        if plain || matches!(kind, Kind::OursHttp1 | Kind::OursHttp2 | Kind::StayingHttp2) {
            let drain = Drain::new();
            let options = HttpOptions::new().connection_info(!plain).migrate_http2(kind != Kind::StayingHttp2);
            let service = HyperService(service_fn(answer));
            handover::http::serve(&drain, "http", vec![Listener::Tcp(listener)], options, service).unwrap();
            drain.accept(true);
            return std::future::pending().await;
        }
        bare(kind, listener).await;
    });
}

fn manager() -> Manager {
    let path = PathBuf::from(std::env::var_os("NOTIFY_SOCKET").unwrap());
    let _ = std::fs::remove_file(&path);
    let manager = Manager::listen(&path);
    manager.keep_fds();
    manager
}

async fn service(migrate: Migrate, _manager: Option<Manager>) {
    // A service tells nobody which port it was given.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let service = Service::builder().migrate(migrate).listen("http", address.as_str()).start().unwrap();
    service.serve_http("http", HyperService(service_fn(answer))).unwrap();
    println!("{address}");
    service.run().await.unwrap();
}

/// hyper as its documentation shows it, with handover's settings, and nothing that tells the
/// versions apart.
async fn bare(kind: Kind, listener: std::net::TcpListener) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, peer) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let io = TokioIo::new(stream);
        match kind {
            Kind::BareHttp1 | Kind::UntimedHttp1 => {
                let timeout = (kind == Kind::BareHttp1).then_some(HttpOptions::HEADER_READ_TIMEOUT);
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(timeout);
                tokio::spawn(builder.serve_connection(io, service_fn(answer)).with_upgrades());
            }
            _ => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(HttpOptions::HTTP2_MAX_CONCURRENT_STREAMS)
                    .keep_alive_interval(HttpOptions::HTTP2_KEEP_ALIVE_INTERVAL);
                if kind == Kind::BareHttp2 {
                    tokio::spawn(builder.serve_connection(io, service_fn(answer)));
                    continue;
                }
                let knowing = service_fn(move |mut request| {
                    request.extensions_mut().insert(Client(peer));
                    answer(request)
                });
                tokio::spawn(builder.serve_connection(io, knowing));
            }
        }
    }
}
