//! A pause, as connections of HTTP see it.

use super::{HttpOptions, HyperService, serve};
use crate::drain::Drain;
use crate::systemd::activation;
use bytes::Bytes;
use handover_testing::waiting::{never, pass};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What the handlers have seen.
#[derive(Default)]
struct Seen {
    called: AtomicUsize,
    in_a_pause: AtomicUsize,
    /// Ends the request to `/held`.
    let_go: Notify,
}

fn server(drain: &Drain, options: HttpOptions) -> (SocketAddr, Arc<Seen>) {
    let listeners = activation::bind("127.0.0.1:0").unwrap();
    let activation::Listener::Tcp(tcp) = &listeners[0] else { unreachable!() };
    let (address, seen) = (tcp.local_addr().unwrap(), Arc::new(Seen::default()));
    let (of, paused) = (Arc::clone(&seen), drain.clone());
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (of, paused) = (Arc::clone(&of), paused.clone());
        async move {
            of.called.fetch_add(1, Ordering::SeqCst);
            of.in_a_pause.fetch_add(usize::from(paused.is_paused()), Ordering::SeqCst);
            if request.uri().path() == "/held" {
                of.let_go.notified().await;
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
        }
    });
    serve(drain, "http", listeners, options, HyperService(service)).unwrap();
    (address, seen)
}

/// Reads one answer.
async fn answered(stream: &mut TcpStream) {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\nok") {
        let read = timeout(LONG, stream.read_buf(&mut text)).await.unwrap().unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&text));
    }
    assert!(text.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&text));
}

/// Kept connections, one with half a head that is older than its time, one behind a request in
/// hand, and a new one.
#[tokio::test]
async fn nobody_is_answered_in_a_pause_and_all_are_afterwards() {
    let drain = Drain::new();
    let (address, seen) = server(&drain, HttpOptions::new().header_read_timeout(Duration::from_millis(300)));
    drain.accept(true);
    let (mut kept, mut half, mut busy) = (
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
        TcpStream::connect(address).await.unwrap(),
    );
    for stream in [&mut kept, &mut half] {
        stream.write_all(GET).await.unwrap();
        answered(stream).await;
    }
    // the second request comes while the first one is in hand
    busy.write_all(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    while seen.called.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    drain.pause();
    kept.write_all(GET).await.unwrap();
    half.write_all(&GET[..10]).await.unwrap();
    busy.write_all(GET).await.unwrap();
    let mut new = TcpStream::connect(address).await.unwrap();
    new.write_all(GET).await.unwrap();
    never("one is in hand", drain.at_rest()).await;
    pass(Duration::from_millis(500)).await; // longer than half a head may take
    assert!(drain.in_hand_now(9).work[0].contains("GET /held"), "{:?}", drain.in_hand_now(9));
    seen.let_go.notify_one();
    answered(&mut busy).await;
    timeout(LONG, drain.at_rest()).await.unwrap();
    assert_eq!(seen.called.load(Ordering::SeqCst), 3);
    drain.resume();
    half.write_all(&GET[10..]).await.unwrap();
    for stream in [&mut kept, &mut half, &mut busy, &mut new] {
        answered(stream).await;
    }
    assert_eq!((seen.called.load(Ordering::SeqCst), seen.in_a_pause.load(Ordering::SeqCst)), (7, 0));
}

/// Over HTTP/2 frames are read in a pause, and requests wait before their handlers.
#[tokio::test]
async fn a_request_over_http2_waits_for_the_end_of_a_pause() {
    let drain = Drain::new();
    let (address, seen) = server(&drain, HttpOptions::new());
    drain.accept(true);
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let driven = tokio::spawn(connection);
    let mut ask = |path: &str| {
        let request = Request::get(format!("http://a{path}")).body(()).unwrap();
        client.send_request(request, true).unwrap().0
    };
    let held = ask("/held");
    while seen.called.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    drain.pause();
    let waits = ask("/");
    never("one is in hand", drain.at_rest()).await;
    seen.let_go.notify_one();
    assert_eq!(timeout(LONG, held).await.unwrap().unwrap().status(), 200);
    timeout(LONG, drain.at_rest()).await.unwrap();
    let mut waits = std::pin::pin!(waits);
    never("it is answered in the pause", waits.as_mut()).await;
    assert_eq!(seen.called.load(Ordering::SeqCst), 1);
    drain.resume();
    assert_eq!(timeout(LONG, waits).await.unwrap().unwrap().status(), 200);
    assert_eq!(seen.in_a_pause.load(Ordering::SeqCst), 0);
    driven.abort();
}
