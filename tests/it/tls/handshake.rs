//! Handshakes at the wrong moment.

use crate::support::{Client, End, LINGER, Reply, SHORT, Server, pass, settle, until, within};
use handover::drain::Acceptor;
use handover::http::HttpOptions;
use handover::systemd::activation::Listener;
use handover::tls::{Tls, TlsOptions};
use handover_testing::certs::{VERSIONS, client, pair};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server on which a handshake may take that long.
fn server(timeout: Duration) -> Server {
    let pair = pair();
    let options = TlsOptions::new().handshake_timeout(timeout);
    Server::with(&Tls::from_pem_with(&pair.chain, &pair.key, options).unwrap(), HttpOptions::new())
}

/// Sends as much of the first flight.
async fn begin(client: &mut Client, bytes: usize) -> Vec<u8> {
    let hello = client.take_sealed();
    let (some, rest) = hello.split_at(bytes.min(hello.len()));
    client.send_raw(some).await;
    settle().await;
    rest.to_vec()
}

#[tokio::test]
async fn one_in_progress_at_the_drain_is_finished_and_answered() {
    for version in VERSIONS {
        for bytes in [1, 60, usize::MAX] {
            let server = Server::new();
            let mut client = server.connected(&client(&[version], &["http/1.1"])).await;
            let rest = begin(&mut client, bytes).await;
            // linger is over long before the rest comes, and hurry would not shorten this either
            server.begin(SHORT).await;
            pass(SHORT * 2).await;
            client.send_raw(&rest).await;
            client.handshake().await;
            assert_eq!(client.reply_to("/1").await, Reply::last("/1"));
            assert_eq!(client.closed().await, End::Announced);
            drop(client);
            server.drained().await;
        }
    }
}

#[tokio::test]
async fn a_slow_one_is_cut_by_its_timeout_and_holds_no_drain_longer() {
    for bytes in [0, 1, 60] {
        for draining in [false, true] {
            let server = server(SHORT * 2);
            let since = Instant::now();
            let mut client = server.connected(&client(&VERSIONS, &[])).await;
            begin(&mut client, bytes).await;
            if draining {
                server.begin(LINGER).await;
            }
            assert_ne!(client.closed().await, End::Announced);
            assert!(since.elapsed() >= SHORT * 2, "{bytes} bytes: after {:?}", since.elapsed());
            until("gone", || server.drain.active() == 0).await;
        }
    }
}

/// Byte by byte, faster than any idle timeout could see.
#[tokio::test]
async fn a_dripping_one_gains_no_time() {
    let server = server(SHORT);
    let mut client = server.connected(&client(&VERSIONS, &[])).await;
    let hello = client.take_sealed();
    for byte in hello.chunks(1).cycle() {
        client.send_raw(byte).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        if server.drain.active() == 0 {
            return;
        }
    }
}

#[tokio::test]
async fn one_that_sent_nothing_is_closed_at_the_end_of_linger() {
    let server = Server::new();
    let mut client = server.connected(&client(&VERSIONS, &[])).await;
    let since = Instant::now();
    server.begin(SHORT).await;
    assert_eq!(client.closed().await, End::Truncated); // TLS has no word for it before it has begun
    let took = since.elapsed();
    assert!(took >= SHORT && took < TlsOptions::HANDSHAKE_TIMEOUT / 2, "{took:?}");
    server.drained().await;
}

#[tokio::test]
async fn the_hammer_cuts_and_names_it() {
    let server = Server::new();
    let mut clients = Vec::new();
    for bytes in [0, 60] {
        let mut client = server.connected(&client(&VERSIONS, &[])).await;
        begin(&mut client, bytes).await;
        clients.push(client);
    }
    server.begin(LINGER).await;
    let cuts: Vec<_> = server.drain.hammer().iter().map(ToString::to_string).collect();
    assert_eq!(cuts.len(), 2, "{cuts:?}");
    for (cut, client) in cuts.iter().zip(&clients) {
        assert!(cut.contains("TLS handshake"), "{cut}");
        assert!(cuts.iter().any(|cut| cut.contains(&client.socket.local_addr().unwrap().to_string())), "{cuts:?}");
    }
    server.drained().await;
}

/// The alert arrives, and no reset that would destroy it.
#[tokio::test]
async fn one_that_fails_is_told_why_and_counts_no_more() {
    for version in VERSIONS {
        let server = Server::new();
        let mut client = server.connected(&client(&[version], &["spdy/1"])).await;
        // behind the hello is more, which nobody will read
        client.flush().await;
        client.send_raw(&[0x17, 3, 3, 0, 1, 0]).await;
        assert_eq!(client.try_handshake().await, Some(End::Alert));
        drop(client);
        until("gone", || server.drain.active() == 0).await;
    }
}

#[tokio::test]
async fn beyond_max_connections_not_even_a_handshake_begins() {
    let pair = pair();
    let tls = Tls::from_pem(&pair.chain, &pair.key).unwrap();
    let server = Server::with(&tls, HttpOptions::new().max_connections(1));
    let mut first = server.client(&client(&VERSIONS, &[])).await;
    assert_eq!(first.reply_to("/1").await, Reply::ok("/1"));
    let mut second = Client::connect(server.address, &client(&VERSIONS, &[])).await;
    assert_eq!(first.reply_to("/2").await, Reply::ok("/2"));
    assert_eq!(server.drain.active(), 1);
    drop(first);
    second.handshake().await;
    assert_eq!(second.reply_to("/3").await, Reply::ok("/3"));
}

#[tokio::test]
async fn what_is_no_tls_is_refused() {
    let server = Server::new();
    let mut client = server.connected(&client(&VERSIONS, &[])).await;
    client.send_raw(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.closed().await, End::Alert);
    drop(client);
    until("gone", || server.drain.active() == 0).await;
    server.begin(LINGER).await;
    server.drained().await;
}

#[tokio::test]
async fn another_protocol_over_tls() {
    let (pair, drain) = (pair(), handover::drain::Drain::new());
    let tls = Tls::from_pem(&pair.chain, &pair.key).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut acceptor = Acceptor::new(&drain, "echo", Listener::Tcp(listener));
    drain.accept(true);
    let serving = tokio::spawn(async move {
        while let Some(accepted) = acceptor.accept().await {
            let what = format!("echo to {}", accepted.peer());
            let (mut stream, guard) = tls.accept(accepted, what).await.unwrap();
            assert_eq!(stream.info().protocol(), None, "nothing is chosen that nobody asked for");
            tokio::spawn(async move {
                let (mut from, mut to) = tokio::io::split(&mut stream);
                tokio::select! {
                    () = guard.cut() => {}
                    _ = tokio::io::copy(&mut from, &mut to) => { let _ = to.shutdown().await; }
                }
            });
        }
    });
    let mut client = Client::connect(address, &client(&VERSIONS, &["h2", "http/1.1"])).await;
    client.handshake().await;
    drain.begin(LINGER);
    client.send("hello").await;
    assert_eq!(client.take(5).await.unwrap(), b"hello");
    assert_eq!(drain.active(), 1);
    client.tls.send_close_notify();
    client.flush().await;
    assert_eq!(client.closed().await, End::Announced);
    within("drained", drain.drained()).await;
    within("the loop ends", serving).await.unwrap();
}

/// Neither the handshake nor what is left of it holds up others.
#[tokio::test]
async fn a_unix_socket_works_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tls");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (pair, drain) = (pair(), handover::drain::Drain::new());
    let tls = Tls::from_pem(&pair.chain, &pair.key).unwrap();
    let router = axum::Router::new().fallback(async || "here");
    let listeners = vec![Listener::Unix(listener)];
    handover::http::serve_tls(&drain, "unix", listeners, &tls, HttpOptions::new(), router).unwrap();
    drain.accept(true);
    let stream = within("connect", tokio::net::UnixStream::connect(&path)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(client(&VERSIONS, &["http/1.1"]));
    let mut stream = within("handshake", connector.connect("localhost".try_into().unwrap(), stream)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut reply = String::new();
    within("the reply, and an announced end", stream.read_to_string(&mut reply)).await.unwrap();
    assert!(reply.ends_with("here"), "{reply}");
}
