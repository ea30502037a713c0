//! What all the servers serve, with the same hyper, on one thread.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::hint::black_box;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long an old process waits for its connections.
pub const DRAIN: Duration = Duration::from_secs(10);
/// The address to listen on.
pub const ADDRESS: &str = "PEERS_ADDRESS";
/// Where a server may put files.
pub const DIRECTORY: &str = "PEERS_DIRECTORY";
/// The listening socket, where it is inherited.
pub const FD: &str = "PEERS_FD";

/// `/` says who answers, `/sleep?duration=5ms` takes its time, `/ballast?mib=7` makes the process
/// as large as that.
///
/// # Errors
/// Never.
pub async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = || {
        let digits: String = request.uri().query()?.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<u64>().ok()
    };
    match (request.uri().path(), number()) {
        ("/sleep", Some(ms)) => tokio::time::sleep(Duration::from_millis(ms)).await,
        ("/ballast", Some(mib)) => {
            let touched = vec![1_u8; usize::try_from(mib).unwrap_or(0) << 20];
            black_box(Box::leak(touched.into_boxed_slice()));
        }
        _ => {}
    }
    Ok(Response::new(Full::new(format!("pid {}\n", std::process::id()).into())))
}

/// As one serves with hyper by itself; `graceful` has been told of it.
pub fn serve(stream: TcpStream, graceful: &GracefulShutdown) {
    let _ = stream.set_nodelay(true);
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service_fn(answer));
    tokio::spawn(graceful.watch(connection));
}

/// As one ends with hyper by itself.
pub async fn drain(graceful: GracefulShutdown) {
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}

/// Of this server alone, where one needs files.
#[must_use]
pub fn directory() -> PathBuf {
    std::env::var_os(DIRECTORY).unwrap_or_default().into()
}

#[must_use]
pub fn address() -> String {
    std::env::var(ADDRESS).unwrap_or_else(|_| "127.0.0.1:8080".into())
}

/// The listening socket: inherited, or bound and left open for those who inherit it.
///
/// # Panics
/// When there is none to be had. Call it before there are threads.
#[must_use]
pub fn inherited() -> TcpListener {
    let listener = match std::env::var(FD).ok().and_then(|fd| fd.parse().ok()) {
        // SAFETY: who started us left it open for us alone.
        Some(fd) => unsafe { TcpListener::from_raw_fd(fd) },
        None => {
            let listener = TcpListener::bind(address()).unwrap();
            nix::fcntl::fcntl(&listener, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
            // SAFETY: there are no threads yet.
            unsafe { std::env::set_var(FD, listener.as_raw_fd().to_string()) };
            listener
        }
    };
    listener.set_nonblocking(true).unwrap();
    listener
}
