//! Requests of every shape, through a drain.

use crate::support::{LINGER, Reply, Server, get, until, within};

const CHUNKED: &str = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn chunked_and_pipelined() {
    let mut server = Server::ours();
    let mut client = server.client().await;
    let body = "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n";
    client.send([get("/hold"), format!("{CHUNKED}{body}"), format!("{CHUNKED}0\r\n\r\n"), get("/4")].concat()).await;
    server.arrived("/hold").await;
    server.begin(LINGER).await;
    server.release();
    for expected in [Reply::ok("/hold"), Reply::ok("abcde"), Reply::ok(""), Reply::last("/4")] {
        assert_eq!(client.reply().await, Some(expected));
    }
    client.closed().await;
}

#[tokio::test]
async fn half_a_chunked_body() {
    let mut server = Server::ours();
    let mut client = server.client().await;
    client.send(format!("{CHUNKED}3\r\nab")).await;
    server.arrived("/echo").await;
    server.begin(LINGER).await;
    client.send("c\r\n0\r\n\r").await;
    client.send(["\n".to_owned(), get("/2")].concat()).await;
    assert_eq!(client.reply().await, Some(Reply::ok("abc")));
    assert_eq!(client.reply().await, Some(Reply::last("/2")));
}

#[tokio::test]
async fn half_a_body_and_a_request_behind_it() {
    let mut server = Server::ours();
    let mut client = server.client().await;
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\nabc").await;
    server.arrived("/echo").await;
    server.begin(LINGER).await;
    client.send(["def".to_owned(), get("/2"), get("/3")].concat()).await;
    for expected in [Reply::ok("abcdef"), Reply::ok("/2"), Reply::last("/3")] {
        assert_eq!(client.reply().await, Some(expected));
    }
    client.closed().await;
}

/// The second request arrives while the first is being answered: not read yet, but received.
#[tokio::test]
async fn a_request_received_during_the_reply_is_answered() {
    let mut server = Server::ours();
    let mut client = server.client().await;
    client.get("/hold").await;
    server.arrived("/hold").await;
    server.begin(LINGER).await;
    client.get("/2").await;
    server.release();
    assert_eq!(client.reply().await, Some(Reply::ok("/hold")));
    assert_eq!(client.reply().await, Some(Reply::last("/2")));
}

#[tokio::test]
async fn expect_100_continue() {
    let mut server = Server::ours();
    let mut client = server.client().await;
    client.send("POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("http/1.1 100"));
    server.arrived("/echo").await;
    server.begin(LINGER).await;
    client.send("ok").await;
    assert_eq!(client.reply().await, Some(Reply::last("ok")));
}

#[tokio::test]
async fn head_has_no_body_and_the_next_one_is_answered() {
    let server = Server::ours();
    let mut client = server.client().await;
    server.begin(LINGER).await;
    client.send(format!("HEAD /1 HTTP/1.1\r\nHost: test\r\n\r\n{}", get("/2"))).await;
    assert!(!client.head().await.unwrap().contains("close"));
    assert_eq!(client.reply().await, Some(Reply::last("/2")));
}

#[tokio::test]
async fn http_1_0_with_keep_alive() {
    let server = Server::ours();
    let mut client = server.client().await;
    let request = "GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    client.send(request).await;
    assert!(client.head().await.unwrap().contains("connection: keep-alive"));
    assert_eq!(client.take(2).await.unwrap(), b"/1");
    server.begin(LINGER).await;
    client.send(request).await;
    assert!(!client.head().await.unwrap().contains("keep-alive"));
    assert_eq!(client.take(2).await.unwrap(), b"/1");
    client.closed().await;
}

#[tokio::test]
async fn bare_line_feeds_and_leading_blank_lines() {
    let server = Server::ours();
    let mut client = server.client().await;
    server.begin(LINGER).await;
    client.send("\r\n\nGET /1 HTTP/1.1\nHost: test\n\n\r\nGET /2 HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.reply().await, Some(Reply::ok("/1")));
    assert_eq!(client.reply().await, Some(Reply::last("/2")));
}

/// The service answers without reading the body. The client sends all of it before it reads: the
/// reply must not be destroyed by a reset for what was left unread.
#[tokio::test]
async fn an_early_reply_survives_the_body_that_nobody_reads() {
    const LENGTH: usize = 8 << 20;
    let mut server = Server::ours();
    let mut client = server.client().await;
    client.send(format!("POST /early HTTP/1.1\r\nHost: test\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    server.arrived("/early").await;
    client.send(vec![b'x'; LENGTH]).await;
    let reply = client.reply().await.unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, "/early"));
    client.closed().await;
}

#[tokio::test]
async fn nonsense_is_answered_and_closed() {
    let server = Server::ours();
    for drain in [false, true] {
        until("the one before is gone", || server.drain().active() == 0).await;
        let mut client = server.client().await;
        if drain {
            server.begin(LINGER).await;
        }
        client.send("GET / HTTP/1.1\r\nno colon\r\n\r\nGET /2 HTTP/1.1\r\n\r\n").await;
        assert_eq!(client.reply().await.unwrap().status, 400);
        client.closed().await;
    }
    server.drained().await;
}

#[tokio::test]
async fn malformed_chunks_are_not_waited_for() {
    let mut server = Server::ours();
    let mut client = server.client().await;
    client.send(format!("{CHUNKED}zz\r\n")).await;
    server.arrived("/echo").await;
    within("closed", client.reply()).await;
    drop(client);
    server.begin(LINGER).await;
    server.drained().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    let mut server = Server::ours();
    let mut client = server.client().await;
    client.get("/hold").await;
    server.arrived("/hold").await;
    drop(client);
    server.begin(LINGER).await;
    server.drained().await;
}

#[tokio::test]
async fn connection_close_by_the_client() {
    let server = Server::ours();
    let mut client = server.client().await;
    client.send("GET /1 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.reply().await, Some(Reply::last("/1")));
    client.closed().await;
    until("not waited for", || server.drain().active() == 0).await;
}

/// Far more than one poll answers, and than a buffer holds.
#[tokio::test]
async fn a_thousand_pipelined() {
    let mut server = Server::ours();
    let mut client = server.client().await;
    let requests = get("/hold") + &get("/a-path-of-some-length").repeat(1000);
    client.send(requests).await;
    server.arrived("/hold").await;
    server.begin(LINGER).await;
    server.release();
    assert_eq!(client.reply().await, Some(Reply::ok("/hold")));
    for at in 1..=1000 {
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.status, reply.close), (200, at == 1000), "reply {at}");
    }
    client.closed().await;
}
