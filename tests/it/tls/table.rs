//! The rows of the HTTP tests' table, over TLS: what happens to each kind of connection when a
//! drain begins.

use crate::support::{Client, End, LINGER, Reply, SHORT, Server, get, moment, until, within};
use handover::http::HttpOptions;
use handover_testing::certs::{VERSIONS, client};
use std::sync::Arc;
use std::time::Instant;
use tokio_rustls::rustls::ClientConfig;

/// Both versions, and a client that negotiates the protocol as well as one that does not.
fn configs() -> impl Iterator<Item = Arc<ClientConfig>> {
    VERSIONS.into_iter().flat_map(|version| [client(&[version], &[]), client(&[version], &["http/1.1"])])
}

async fn last(mut client: Client, server: &Server, body: &str) {
    assert_eq!(client.reply().await, Reply::last(body));
    assert_eq!(client.closed().await, End::Announced);
    drop(client);
    server.drained().await;
}

#[tokio::test]
async fn without_a_byte_sent_it_is_answered() {
    for config in configs() {
        let server = Server::new();
        let mut client = server.connected(&config).await;
        server.begin(LINGER).await;
        client.handshake().await;
        client.get("/1").await;
        last(client, &server, "/1").await;
    }
}

#[tokio::test]
async fn fresh_is_answered() {
    for config in configs() {
        let server = Server::new();
        let mut client = server.client(&config).await;
        server.begin(LINGER).await;
        client.get("/1").await;
        last(client, &server, "/1").await;
    }
}

#[tokio::test]
async fn idle_is_answered() {
    for config in configs() {
        let server = Server::new();
        let mut client = server.client(&config).await;
        assert_eq!(client.reply_to("/1").await, Reply::ok("/1"));
        server.begin(LINGER).await;
        client.get("/2").await;
        last(client, &server, "/2").await;
    }
}

#[tokio::test]
async fn half_a_head_is_answered() {
    for config in configs() {
        let server = Server::new();
        let mut client = server.client(&config).await;
        assert_eq!(client.reply_to("/1").await, Reply::ok("/1"));
        let request = get("/2");
        let (some, rest) = request.split_at(20);
        client.send(some).await;
        server.begin(LINGER).await;
        client.send(rest).await;
        last(client, &server, "/2").await;
    }
}

/// Not one byte of it can be decrypted before its last one is here. It is a request on its way all
/// the same: it outlasts linger.
#[tokio::test]
async fn half_a_record_outlasts_linger() {
    for (config, used) in configs().flat_map(|config| [(Arc::clone(&config), false), (config, true)]) {
        let server = Server::new();
        let mut client = server.client(&config).await;
        if used {
            assert_eq!(client.reply_to("/1").await, Reply::ok("/1"));
        }
        let mut idle = server.client(&config).await;
        assert_eq!(idle.reply_to("/1").await, Reply::ok("/1"));
        let record = client.seal(get("/2"));
        let (some, rest) = record.split_at(record.len() / 2);
        client.send_raw(some).await;
        server.begin(SHORT).await;
        assert_eq!(idle.closed().await, End::Announced); // linger is over
        drop(idle);
        client.send_raw(rest).await;
        last(client, &server, "/2").await;
    }
}

#[tokio::test]
async fn half_a_record_is_closed_by_the_header_timeout() {
    let pair = handover_testing::certs::pair();
    let tls = handover::tls::Tls::from_pem(&pair.chain, &pair.key).unwrap();
    for config in configs() {
        let server = Server::with(&tls, HttpOptions::new().header_read_timeout(SHORT));
        let mut client = server.client(&config).await;
        assert_eq!(client.reply_to("/1").await, Reply::ok("/1"));
        let since = Instant::now();
        let record = client.seal(get("/2"));
        client.send_raw(&record[..7]).await;
        assert_eq!(client.closed().await, End::Announced);
        assert!(since.elapsed() >= SHORT);
    }
}

#[tokio::test]
async fn pipelined_are_all_answered_and_the_last_says_close() {
    for config in configs() {
        let mut server = Server::new();
        let mut client = server.client(&config).await;
        client.send([get("/hold"), get("/2"), get("/3")].concat()).await;
        server.arrived("/hold").await;
        server.begin(LINGER).await;
        server.release();
        assert_eq!(client.reply().await, Reply::ok("/hold"));
        assert_eq!(client.reply().await, Reply::ok("/2"));
        last(client, &server, "/3").await;
    }
}

/// The second is in a record of its own, and only half of that is here when the first is answered.
#[tokio::test]
async fn pipelined_in_half_a_record_is_answered() {
    for config in configs() {
        let mut server = Server::new();
        let mut client = server.client(&config).await;
        client.get("/hold").await;
        server.arrived("/hold").await;
        let record = client.seal(get("/2"));
        client.send_raw(&record[..9]).await;
        server.begin(LINGER).await;
        server.release();
        assert_eq!(client.reply().await, Reply::ok("/hold"));
        client.send_raw(&record[9..]).await;
        last(client, &server, "/2").await;
    }
}

#[tokio::test]
async fn in_flight_is_answered() {
    for config in configs() {
        let mut server = Server::new();
        let mut client = server.client(&config).await;
        client.get("/hold").await;
        server.arrived("/hold").await;
        server.begin(LINGER).await;
        server.release();
        last(client, &server, "/hold").await;
    }
}

#[tokio::test]
async fn head_already_sent_is_answered_once_more() {
    for config in configs() {
        let mut server = Server::new();
        let mut client = server.client(&config).await;
        client.get("/stream").await;
        server.arrived("/stream").await;
        let head = client.head().await.unwrap();
        assert!(!head.contains("close"), "{head}");
        server.begin(LINGER).await;
        server.release();
        assert_eq!(client.take(18).await.unwrap(), b"8\r\nstreamed\r\n0\r\n\r\n");
        client.get("/2").await;
        last(client, &server, "/2").await;
    }
}

/// Without ALPN it could still become HTTP/2's preface.
#[tokio::test]
async fn version_unknown_is_answered() {
    for config in configs() {
        let server = Server::new();
        let mut client = server.client(&config).await;
        client.send("P").await;
        server.begin(LINGER).await;
        client.send("OST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nok").await;
        last(client, &server, "ok").await;
    }
}

#[tokio::test]
async fn upgraded_counts_until_it_is_closed() {
    for config in configs() {
        let server = Server::new();
        let mut client = server.client(&config).await;
        client.send("GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n").await;
        assert!(client.head().await.unwrap().starts_with("http/1.1 101"));
        server.begin(LINGER).await;
        client.send("ping").await;
        assert_eq!(client.take(4).await.unwrap(), b"ping");
        assert_eq!(server.drain.active(), 1);
        client.tls.send_close_notify();
        client.flush().await;
        assert_eq!(client.closed().await, End::Announced);
        server.drained().await;
    }
}

/// The request is in the kernel when linger ends, and epoll has not been asked since: only a look
/// at the socket itself can know.
#[tokio::test]
async fn the_last_look_sees_what_epoll_has_not_told_yet() {
    for (config, fresh) in configs().flat_map(|config| [(Arc::clone(&config), false), (config, true)]) {
        let server = Server::new();
        let mut client = server.client(&config).await;
        if !fresh {
            assert_eq!(client.reply_to("/1").await, Reply::ok("/1"));
        }
        let record = client.seal(get("/2"));
        server.begin(SHORT).await;
        // as in the HTTP tests: this task's timer is due just before the connection's, and both are
        // overdue
        let just_before = tokio::time::sleep(SHORT / 2);
        std::thread::sleep(SHORT * 2);
        just_before.await;
        assert_eq!(client.socket.try_write(&record).unwrap(), record.len());
        tokio::task::yield_now().await;
        last(client, &server, "/2").await;
    }
}

#[tokio::test]
async fn hurry_closes_idle_ones_at_once() {
    for config in configs() {
        let mut server = Server::new();
        let (mut idle, mut busy) = (server.client(&config).await, server.client(&config).await);
        busy.get("/hold").await;
        server.arrived("/hold").await;
        server.begin(LINGER).await;
        server.drain.hurry();
        assert_eq!(idle.closed().await, End::Announced);
        drop(idle);
        server.release();
        last(busy, &server, "/hold").await;
    }
}

/// The client says at once that it will send no more, and reads late: a reset would destroy the
/// reply.
#[tokio::test]
async fn a_client_that_closes_its_side_first_gets_its_reply() {
    for config in configs() {
        let server = Server::new();
        let mut client = server.client(&config).await;
        client.send("GET /1 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
        moment().await; // the server has answered
        client.tls.send_close_notify();
        client.flush().await;
        moment().await; // a reset would have come
        assert_eq!(client.reply().await, Reply::last("/1"));
        assert_eq!(client.closed().await, End::Announced);
        drop(client);
        until("not waited for", || server.drain.active() == 0).await;
    }
}

/// The last reply comes while the client still sends, and it reads only when it has sent all.
#[tokio::test]
async fn the_last_reply_survives_what_the_client_still_sends() {
    for config in configs() {
        let server = Server::new();
        let mut client = server.client(&config).await;
        server.begin(LINGER).await;
        let length = 4 << 20;
        client.send(format!("POST /1 HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n")).await;
        client.send(vec![b'x'; length]).await;
        last(client, &server, "/1").await;
    }
}

/// What the hammer cuts must not look complete.
#[tokio::test]
async fn a_cut_reply_has_no_end() {
    for config in configs() {
        let mut server = Server::new();
        let (mut busy, mut idle) = (server.client(&config).await, server.client(&config).await);
        busy.get("/stream").await;
        server.arrived("/stream").await;
        assert!(busy.head().await.is_some());
        assert_eq!(idle.reply_to("/1").await, Reply::ok("/1"));
        server.begin(LINGER).await;
        let cuts = server.drain.hammer();
        assert_eq!(cuts.len(), 2, "{cuts:?}");
        assert_ne!(busy.closed().await, End::Announced);
        assert_eq!(idle.closed().await, End::Announced);
        within("drained", server.drain.drained()).await;
    }
}

#[tokio::test]
async fn handlers_know_of_it() {
    for version in VERSIONS {
        let server = Server::new();
        let config = client(&[version], &[]);
        let mut clients = Vec::new();
        for resumed in [false, true] {
            let mut client = server.client(&config).await;
            let expected = format!("{:?} Some(\"localhost\") {resumed}", client.tls.protocol_version().unwrap());
            assert_eq!(client.reply_to("/tls").await, Reply::ok(&expected));
            clients.push(client);
        }
    }
}
