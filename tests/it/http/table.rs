//! The hyper table: what happens to each kind of connection when the server wants to stop. Every
//! row's client runs against handover, where it loses nothing, and against bare hyper, whose
//! behaviour is asserted as well: if hyper changes, a test here says so.

use crate::support::{Client, LINGER, Reply, Server, get};

/// What a client made of its last request.
type Outcome = Option<Reply>;

async fn begin(server: &Server) {
    server.begin(LINGER).await;
}

async fn fresh(server: &mut Server) -> Outcome {
    let mut client = server.client().await;
    begin(server).await;
    client.try_get("/1").await;
    client.reply().await
}

#[tokio::test]
async fn fresh_is_answered() {
    assert_eq!(fresh(&mut Server::ours()).await, Some(Reply::last("/1")));
}

#[tokio::test]
async fn fresh_is_lost_by_bare_hyper() {
    assert_eq!(fresh(&mut Server::bare().await).await, None);
}

async fn idle(server: &mut Server) -> Outcome {
    let mut client = server.client().await;
    client.get("/1").await;
    assert_eq!(client.reply().await, Some(Reply::ok("/1")));
    begin(server).await;
    client.try_get("/2").await;
    client.reply().await
}

#[tokio::test]
async fn idle_is_answered() {
    assert_eq!(idle(&mut Server::ours()).await, Some(Reply::last("/2")));
}

#[tokio::test]
async fn idle_is_lost_by_bare_hyper() {
    assert_eq!(idle(&mut Server::bare().await).await, None);
}

async fn half_a_head(server: &mut Server) -> Outcome {
    let mut client = server.client().await;
    client.get("/1").await;
    assert_eq!(client.reply().await, Some(Reply::ok("/1")));
    let request = get("/2");
    let (some, rest) = request.split_at(20);
    client.send(some).await;
    begin(server).await;
    client.try_send(rest.as_bytes()).await;
    client.reply().await
}

#[tokio::test]
async fn half_a_head_is_answered() {
    assert_eq!(half_a_head(&mut Server::ours()).await, Some(Reply::last("/2")));
}

#[tokio::test]
async fn half_a_head_is_lost_by_bare_hyper() {
    assert_eq!(half_a_head(&mut Server::bare().await).await, None);
}

/// Three requests in one segment, the drain begins during the first.
async fn pipelined(server: &mut Server) -> Vec<Outcome> {
    let mut client = server.client().await;
    client.send([get("/hold"), get("/2"), get("/3")].concat()).await;
    server.arrived("/hold").await;
    begin(server).await;
    server.release();
    vec![client.reply().await, client.reply().await, client.reply().await]
}

#[tokio::test]
async fn pipelined_are_all_answered_and_the_last_says_close() {
    let replies = pipelined(&mut Server::ours()).await;
    assert_eq!(replies, [Some(Reply::ok("/hold")), Some(Reply::ok("/2")), Some(Reply::last("/3"))]);
}

#[tokio::test]
async fn pipelined_are_lost_by_bare_hyper() {
    let replies = pipelined(&mut Server::bare().await).await;
    assert_eq!(replies, [Some(Reply::last("/hold")), None, None]);
}

async fn in_flight(server: &mut Server) -> Outcome {
    let mut client = server.client().await;
    client.get("/hold").await;
    server.arrived("/hold").await;
    begin(server).await;
    server.release();
    client.reply().await
}

#[tokio::test]
async fn in_flight_is_answered() {
    assert_eq!(in_flight(&mut Server::ours()).await, Some(Reply::last("/hold")));
}

#[tokio::test]
async fn in_flight_is_answered_by_bare_hyper_too() {
    assert_eq!(in_flight(&mut Server::bare().await).await, Some(Reply::last("/hold")));
}

/// The head of the reply went out before the drain, so it could not say `close`.
async fn head_already_sent(server: &mut Server) -> Outcome {
    let mut client = server.client().await;
    client.get("/stream").await;
    let head = client.head().await.unwrap();
    assert!(!head.contains("close"), "{head}");
    begin(server).await;
    server.release();
    assert_eq!(client.take(b"8\r\nstreamed\r\n0\r\n\r\n".len()).await.unwrap(), b"8\r\nstreamed\r\n0\r\n\r\n");
    client.try_get("/2").await;
    client.reply().await
}

#[tokio::test]
async fn head_already_sent_is_answered_once_more() {
    assert_eq!(head_already_sent(&mut Server::ours()).await, Some(Reply::last("/2")));
}

#[tokio::test]
async fn head_already_sent_is_lost_by_bare_hyper() {
    assert_eq!(head_already_sent(&mut Server::bare().await).await, None);
}

/// The version is not known yet: what has arrived could still become HTTP/2's preface.
async fn version_unknown(server: &mut Server) -> Outcome {
    let mut client = server.client().await;
    client.send("P").await;
    begin(server).await;
    let rest = b"OST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\nok";
    client.try_send(rest).await;
    client.reply().await
}

#[tokio::test]
async fn version_unknown_is_answered() {
    assert_eq!(version_unknown(&mut Server::ours()).await, Some(Reply::last("ok")));
}

#[tokio::test]
async fn version_unknown_is_lost_by_bare_hyper() {
    assert_eq!(version_unknown(&mut Server::bare().await).await, None);
}

const UPGRADE: &str = "GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";

async fn upgraded(server: &Server) -> Client {
    let mut client = server.client().await;
    client.send(UPGRADE).await;
    assert!(client.head().await.unwrap().starts_with("http/1.1 101"));
    begin(server).await;
    client.send("ping").await;
    assert_eq!(client.take(4).await.unwrap(), b"ping");
    client
}

#[tokio::test]
async fn upgraded_counts_until_it_is_closed() {
    let server = Server::ours();
    let mut client = upgraded(&server).await;
    assert_eq!(server.drain().active(), 1);
    let drained = tokio::spawn(server.drain().drained());
    client.send("more").await;
    assert_eq!(client.take(4).await.unwrap(), b"more");
    assert!(!drained.is_finished());
    drop(client);
    server.drained().await;
    drained.await.unwrap();
}

#[tokio::test]
async fn upgraded_is_not_counted_by_bare_hyper() {
    let server = Server::bare().await;
    let mut client = upgraded(&server).await;
    server.drained().await;
    client.send("more").await;
    assert_eq!(client.take(4).await.unwrap(), b"more", "still in use, and yet drained");
}
