//! Clients that ask all the time, through reloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use handover::http::HttpOptions;
use handover_testing::certs::{self, Pair, VERSIONS};
use handover_testing::processes::{End, until};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::SupportedProtocolVersion;

use super::{LONG, world};
use crate::secured::next;

/// How many connections there are, unless a variable says so.
const FEW: usize = 8;

fn times(variable: &str, few: usize) -> usize {
    std::env::var(variable).map_or(few, |times| times.parse().unwrap())
}

type Sender = SendRequest<Full<Bytes>>;

/// Asks again and again, with pauses of up to so many milliseconds, until it is told to stop.
async fn ask(mut sender: Sender, name: String, most: u64, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    let mut random = name.bytes().fold(1, |seed, byte| seed * 31 + u64::from(byte));
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = format!("{name}.{number}");
        // large and small, with and without a body
        let (request, expected) = match number % 4 {
            0 => (
                Request::post(format!("http://it/up/{id}")).body(Full::from(vec![b'x'; 20_000])),
                format!("{id} 20000"),
            ),
            1 => (Request::get(format!("http://it/large/{id}")).body(Full::default()), "y".repeat(100_000)),
            _ => (Request::get(format!("http://it/n/{id}")).header("x-name", &name).body(Full::default()), id.clone()),
        };
        let answer = sender.send_request(request.unwrap()).await.unwrap_or_else(|e| panic!("{id}: {e:?}"));
        let body = answer.into_body().collect().await.unwrap_or_else(|e| panic!("{id}: {e:?}")).to_bytes();
        assert!(body == expected.as_bytes(), "{id}: {} bytes", body.len());
        number += 1;
        answered.fetch_add(1, Ordering::Relaxed);
        if most > 0 {
            tokio::time::sleep(Duration::from_millis(next(&mut random) % most)).await;
        }
    }
}

/// Counts it if the server closes the connection.
async fn drive<T>(stream: T, stopped: Arc<AtomicBool>, closed: Arc<AtomicUsize>) -> Sender
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move {
        let end = driver.await;
        if !stopped.load(Ordering::Relaxed) {
            println!("closed: {end:?}");
            closed.fetch_add(1, Ordering::Relaxed);
        }
    });
    sender
}

/// `HANDOVER_HTTP2_CONNECTIONS=200 HANDOVER_HTTP2_RELOADS=50`, so many; `HANDOVER_HTTP2_REQUESTS`:
/// reloads until so many are answered.
pub(super) fn no_stream_is_lost_over_tcp() {
    // on a machine under load an answer may take longer than streams are held by default
    no_stream_is_lost(&[], LONG, 0);
}

pub(super) fn no_stream_is_lost_over_tls() {
    no_stream_is_lost(&VERSIONS, LONG, 0);
}

/// With the defaults and clients that pause, all the more of them the longer, so that they ask as
/// often in all. `HANDOVER_HTTP2_PAUSE_MS`: for so long at most, or not at all.
pub(super) fn no_stream_is_lost_by_default() {
    let pause = 40 * times("HANDOVER_HTTP2_CONNECTIONS", FEW).div_ceil(FEW);
    let pause = times("HANDOVER_HTTP2_PAUSE_MS", pause) as u64;
    no_stream_is_lost(&VERSIONS, HttpOptions::HTTP2_MOVE_WITHIN, pause);
}

/// Over TLS of these versions in turn, if there are any.
fn no_stream_is_lost(versions: &[&'static SupportedProtocolVersion], within: Duration, pause: u64) {
    const STREAMS: usize = 10;
    let connections = times("HANDOVER_HTTP2_CONNECTIONS", FEW);
    let reloads = times("HANDOVER_HTTP2_RELOADS", 4);
    let requests = times("HANDOVER_HTTP2_REQUESTS", 0);
    let (world, address, mut old) = world(|more| {
        let Pair { chain, key, .. } = certs::pair();
        more.notes = false;
        more.within = within;
        more.pair = (!versions.is_empty()).then_some((chain, key));
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (stop, answered, closed) =
        (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let mut tasks = JoinSet::new();
    for connection in 0..connections {
        let config = versions.get(connection % 2).map(|version| certs::client(&[*version], &["h2"]));
        let (stopped, closed) = (Arc::clone(&stop), Arc::clone(&closed));
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            let Some(config) = config else { return drive(stream, stopped, closed).await };
            let stream = TlsConnector::from(config).connect("localhost".try_into().unwrap(), stream).await.unwrap();
            drive(stream, stopped, closed).await
        });
        for stream in 0..STREAMS {
            let asks =
                ask(sender.clone(), format!("{connection}.{stream}"), pause, Arc::clone(&stop), Arc::clone(&answered));
            tasks.spawn_on(asks, runtime.handle());
        }
    }
    let since = Instant::now();
    let mut done = 0;
    while done < reloads || answered.load(Ordering::Relaxed) < requests {
        let before = answered.load(Ordering::Relaxed);
        until("answers", || (answered.load(Ordering::Relaxed) > before + connections).then_some(()));
        let new = world.reload_to(done as u64 + 2).pid;
        assert_eq!(world.end_of(old), End::Exited(0));
        old = new;
        done += 1;
    }
    let log = world.log();
    let stays: Vec<_> = log.lines().filter(|line| line.contains(" stayed (")).collect();
    assert!(stays.is_empty(), "all moved: {stays:#?}");
    stop.store(true, Ordering::Relaxed);
    while let Some(end) = runtime.block_on(tasks.join_next()) {
        end.unwrap();
    }
    let (answered, closed) = (answered.load(Ordering::Relaxed), closed.load(Ordering::Relaxed));
    println!(
        "{connections} connections of {STREAMS} streams, {done} reloads in {:.1?}: {answered} answered, {closed} closed",
        since.elapsed()
    );
    assert_eq!(closed, 0);
    drop(runtime);
    world.stop();
}
