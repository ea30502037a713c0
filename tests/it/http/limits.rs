//! What a client may take: connections, requests, time.

use crate::support::{BIG, Client, LINGER, Reply, SHORT, Server, get, pass, until, within};
use handover::http::HttpOptions;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Longer than a client takes to ask, also on a slow machine.
const IDLE: Duration = Duration::from_secs(1);

async fn http2(server: &Server) -> (SendRequest<Empty<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let stream = Client::connect(server.address).await.stream;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://test{path}")).body(Empty::new()).unwrap()
}

#[tokio::test]
async fn without_keep_alive_the_first_reply_is_the_last() {
    let server = Server::ours_with(HttpOptions::new().keep_alive(false));
    let mut client = Client::connect(server.address).await;
    assert_eq!(client.reply_to("/1").await, Some(Reply::last("/1")));
    client.closed().await;
    // what was sent behind it is not answered, and is not a reset that destroys the reply either
    let mut eager = Client::connect(server.address).await;
    eager.send(get("/1") + &get("/2")).await;
    assert_eq!(eager.reply().await, Some(Reply::last("/1")));
    eager.closed().await;
    let (mut sender, _connection) = http2(&server).await;
    for _ in 0..3 {
        let answer = within("answered", sender.send_request(request("/1"))).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "/1");
    }
}

#[tokio::test]
async fn what_is_known_of_the_connection_can_be_left_out() {
    for (options, known) in [(HttpOptions::new(), true), (HttpOptions::new().connection_info(false), false)] {
        let server = Server::ours_with(options);
        let (mut sender, _connection) = http2(&server).await;
        let answer = within("answered", sender.send_request(request("/peer"))).await.unwrap();
        let over_http2 = answer.into_body().collect().await.unwrap().to_bytes();
        let mut client = Client::connect(server.address).await;
        let over_http1 = client.reply_to("/peer").await.unwrap();
        assert_eq!(over_http2 == "nobody knows", !known, "{over_http2:?}");
        assert_eq!(over_http1 == Reply::ok("nobody knows"), !known, "{over_http1:?}");
    }
}

#[tokio::test]
async fn a_connection_that_waits_for_its_turn_is_served_by_who_accepts_next() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let copy = listener.try_clone().unwrap();
    let options = HttpOptions::new().max_connections(1);
    let old = Server::ours_on(handover::systemd::activation::Listener::Tcp(listener), options.clone());
    let mut first = Client::connect(address).await;
    assert_eq!(first.reply_to("/1").await, Some(Reply::ok("/1")));
    let mut second = Client::connect(address).await;
    second.get("/2").await;
    old.begin(LINGER).await;
    let new = Server::ours_on(handover::systemd::activation::Listener::Tcp(copy), options);
    assert_eq!(second.reply().await, Some(Reply::ok("/2")));
    assert_eq!((old.drain().active(), new.drain().active()), (1, 1));
}

#[tokio::test]
async fn an_idle_http2_connection_is_told_to_go() {
    let server = Server::ours_with(HttpOptions::new().keep_alive_timeout(IDLE));
    let (mut sender, connection) = http2(&server).await;
    let answer = within("answered", sender.send_request(request("/1"))).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "/1");
    within("closed by a GOAWAY", connection).await.unwrap().unwrap();
    until("gone", || server.drain().active() == 0).await;
}

#[tokio::test]
async fn a_busy_http2_connection_is_not_idle() {
    let mut server = Server::ours_with(HttpOptions::new().keep_alive_timeout(IDLE));
    let (mut sender, connection) = http2(&server).await;
    let held = tokio::spawn(sender.send_request(request("/hold")));
    server.arrived("/hold").await;
    pass(IDLE * 2).await; // nothing must happen in this time
    let more = within("answered", sender.send_request(request("/1"))).await.unwrap();
    assert_eq!(more.into_body().collect().await.unwrap().to_bytes(), "/1");
    server.release();
    within("released", held).await.unwrap().unwrap();
    within("idle at last", connection).await.unwrap().unwrap();
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_by_name() {
    for (options, name) in [
        (HttpOptions::new().max_connections(0), "max_connections"),
        (HttpOptions::new().keep_alive_timeout(Duration::ZERO), "keep_alive_timeout"),
        (HttpOptions::new().http2_max_concurrent_streams(0), "http2_max_concurrent_streams"),
    ] {
        let service = axum::Router::new();
        let error =
            handover::http::serve(&handover::drain::Drain::new(), "http", Vec::new(), options, service).unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains(name), "{error}");
    }
}

/// A body that never comes, or an answer that nobody reads.
#[tokio::test]
async fn who_has_stopped_does_not_hold_the_limit() {
    // GET /big, and a window of 64 KiB, which stays closed
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x0e\x01\x05\0\0\0\x01\x82\x86\x41\x04test\x04\x04/big";
    let stopped: [&[u8]; 5] = [
        b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc",
        b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
        b"GET /big HTTP/1.1\r\nHost: test\r\n\r\n",
        http2,
    ];
    for sent in stopped {
        let options = HttpOptions::new().max_connections(2).body_read_timeout(SHORT).write_timeout(SHORT);
        let mut server = Server::ours_with(options);
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = Client::connect(server.address).await;
            client.send(sent).await;
            within("a request arrives", server.arrived.recv()).await;
            clients.push(client);
        }
        let mut third = Client::connect(server.address).await;
        assert_eq!(third.reply_to("/1").await, Some(Reply::ok("/1")), "{:?}", String::from_utf8_lossy(sent));
    }
}

/// It is the time without progress that counts.
#[tokio::test]
async fn who_is_slow_has_all_the_time() {
    let mut server = Server::ours_with(HttpOptions::new().body_read_timeout(IDLE).write_timeout(IDLE));
    let mut uploads = server.client().await;
    let mut downloads = server.client().await;
    let mut waits = server.client().await;
    uploads.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 8\r\n\r\n").await;
    downloads.get("/big").await;
    downloads.head().await.unwrap();
    waits.get("/stream").await;
    waits.head().await.unwrap();
    for byte in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        uploads.send(byte).await;
        downloads.take(BIG / 8).await.unwrap();
        pass(IDLE / 4).await; // all of them together are longer than the limit
    }
    assert_eq!(uploads.reply().await, Some(Reply::ok("abcdefgh")));
    server.release();
    assert_eq!(waits.take_line().await.as_deref(), Some("8\r\n"));
    for path in ["/echo", "/big", "/stream"] {
        let arrived = server.arrived.recv().await.unwrap();
        assert!(["/echo", "/big", "/stream"].contains(&arrived.as_str()), "{path}");
    }
}
