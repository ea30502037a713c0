//! How long a drain waits, and what it looks at before it closes.

use crate::support::{Client, LINGER, Reply, SHORT, Server, get, pass, within};
use handover::http::HttpOptions;
use std::io::Write;
use std::time::{Duration, Instant};

#[tokio::test]
async fn fresh_and_idle_are_closed_when_linger_is_over() {
    let server = Server::ours();
    let mut fresh = server.client().await;
    let mut idle = server.client().await;
    idle.get("/1").await;
    assert_eq!(idle.reply().await, Some(Reply::ok("/1")));
    let begun = Instant::now();
    server.begin(SHORT).await;
    fresh.closed().await;
    idle.closed().await;
    assert!(begun.elapsed() >= SHORT, "closed too early: {:?}", begun.elapsed());
    drop((fresh, idle));
    server.drained().await;
}

#[tokio::test]
async fn linger_is_measured_from_the_moment_a_connection_becomes_idle() {
    let mut server = Server::ours();
    let mut client = server.client().await;
    client.get("/stream").await;
    server.arrived("/stream").await;
    client.head().await.unwrap();
    server.begin(SHORT).await;
    pass(SHORT * 2).await; // linger after `begin` alone would be over
    server.release();
    client.take(b"8\r\nstreamed\r\n0\r\n\r\n".len()).await.unwrap();
    client.try_get("/2").await;
    assert_eq!(client.reply().await, Some(Reply::last("/2")));
}

#[tokio::test]
async fn hurry_closes_idle_ones_soon_and_lets_requests_finish() {
    let mut server = Server::ours();
    let mut idle = server.client().await;
    let mut busy = server.client().await;
    busy.get("/hold").await;
    server.arrived("/hold").await;
    server.begin(LINGER).await;
    server.drain().hurry();
    idle.closed().await;
    server.release();
    assert_eq!(busy.reply().await, Some(Reply::last("/hold")));
    drop((idle, busy));
    server.drained().await;
}

#[tokio::test]
async fn hurry_before_begin_means_a_short_linger() {
    let server = Server::ours();
    let mut idle = server.client().await;
    server.drain().hurry();
    idle.get("/1").await;
    assert_eq!(idle.reply().await, Some(Reply::ok("/1")), "nothing happens before the drain begins");
    server.begin(LINGER).await;
    idle.closed().await;
}

/// The request is in the kernel when linger ends, and epoll has not been asked since: only a look
/// at the socket itself can know.
#[tokio::test]
async fn the_last_look_sees_what_epoll_has_not_told_yet() {
    let server = Server::ours();
    let mut client = server.client().await;
    client.get("/1").await;
    assert_eq!(client.reply().await, Some(Reply::ok("/1")));
    let mut raw = client.stream.into_std().unwrap();
    server.begin(SHORT).await;
    // This task's timer is due just before the connection's. The runtime has one thread, so that
    // when it is stopped past both, one turn of the reactor finds both, with nothing received;
    // this task then runs first.
    let just_before = tokio::time::sleep(SHORT / 2);
    std::thread::sleep(SHORT * 2);
    just_before.await;
    raw.write_all(get("/2").as_bytes()).unwrap();
    tokio::task::yield_now().await;
    let mut client = Client::of(raw);
    assert_eq!(client.reply().await, Some(Reply::last("/2")));
}

/// The same on a connection that has sent nothing before.
#[tokio::test]
async fn the_last_look_at_a_fresh_one_lets_epoll_tell() {
    let server = Server::ours();
    let client = server.client().await;
    let mut raw = client.stream.into_std().unwrap();
    server.begin(SHORT).await;
    let just_before = tokio::time::sleep(SHORT / 2);
    std::thread::sleep(SHORT * 2);
    just_before.await;
    raw.write_all(get("/1").as_bytes()).unwrap();
    tokio::task::yield_now().await;
    assert_eq!(Client::of(raw).reply().await, Some(Reply::last("/1")));
}

fn impatient() -> HttpOptions {
    HttpOptions::new().header_read_timeout(SHORT)
}

#[tokio::test]
async fn half_a_head_is_closed_by_the_header_timeout() {
    let server = Server::ours_with(impatient());
    let mut client = server.client().await;
    client.get("/1").await;
    assert_eq!(client.reply().await, Some(Reply::ok("/1")));
    let since = Instant::now();
    client.send("GET / HTTP/1.1\r\nHo").await;
    client.closed().await;
    assert!(since.elapsed() >= SHORT);
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_closed_by_the_header_timeout() {
    Server::ours_with(impatient()).client().await.closed().await;
}

#[tokio::test]
async fn a_client_that_sends_half_a_preface_is_closed_by_the_header_timeout() {
    let mut client = Server::ours_with(impatient()).client().await;
    client.send("PRI * HTTP/2.0\r\n").await;
    client.closed().await;
}

#[tokio::test]
async fn a_head_byte_by_byte_gains_no_time() {
    let server = Server::ours_with(impatient());
    let mut client = server.client().await;
    let slow = within("the header timeout", async {
        let mut sent = 0;
        while tokio::io::AsyncWriteExt::write_all(&mut client.stream, b"x").await.is_ok() {
            sent += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sent
    });
    assert!(slow.await > 0);
}

/// The header timeout is not linger: half a head has until then although linger is over.
#[tokio::test]
async fn half_a_head_outlasts_linger() {
    let server = Server::ours();
    let mut half = server.client().await;
    let mut idle = server.client().await;
    half.send("GET /1 HTTP/1.1\r\nHo").await;
    server.begin(SHORT).await;
    idle.closed().await; // linger is over
    half.send("st: test\r\n\r\n").await;
    assert_eq!(half.reply().await, Some(Reply::last("/1")));
}

#[tokio::test]
async fn an_idle_connection_is_closed_by_the_keep_alive_timeout() {
    let server = Server::ours_with(HttpOptions::new().keep_alive_timeout(SHORT));
    let mut client = server.client().await;
    for _ in 0..3 {
        client.get("/1").await;
        assert_eq!(client.reply().await, Some(Reply::ok("/1")));
    }
    let since = Instant::now();
    client.closed().await;
    assert!(since.elapsed() >= SHORT / 2);
}

#[tokio::test]
async fn blank_lines_are_not_half_a_head() {
    let server = Server::ours();
    let mut fresh = server.client().await;
    let mut idle = server.client().await;
    idle.get("/1").await;
    assert_eq!(idle.reply().await, Some(Reply::ok("/1")));
    for client in [&mut fresh, &mut idle] {
        client.send("\r\n").await;
    }
    server.begin(SHORT).await;
    fresh.closed().await;
    idle.closed().await;
}

/// Not from its first byte: whoever says nothing for long has so much less for it.
#[tokio::test]
async fn the_first_head_has_its_time_from_connecting() {
    let timeout = Duration::from_secs(2);
    let server = Server::ours_with(HttpOptions::new().header_read_timeout(timeout));
    let since = tokio::time::Instant::now();
    let mut client = server.client().await;
    pass(timeout * 3 / 4).await;
    client.send("GET / HTTP/1.1\r\nHo").await;
    client.closed().await;
    let took = since.elapsed();
    assert!(took >= timeout && took < timeout * 3 / 2, "{took:?}");
}
