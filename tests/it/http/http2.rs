//! HTTP/2 on the same port.

use crate::support::{Client, LINGER, Reply, SHORT, Server, pass, serve_service, within};
use handover::drain::Drain;
use handover::http::HttpOptions;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

type Connection = JoinHandle<hyper::Result<()>>;

async fn client(server: &Server) -> (SendRequest<Empty<Bytes>>, Connection) {
    handshake(server.client().await.stream).await
}

async fn handshake(stream: TcpStream) -> (SendRequest<Empty<Bytes>>, Connection) {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> hyper::Result<String> {
    let uri = format!("http://test{path}");
    let response = sender.send_request(Request::get(uri).body(Empty::new()).unwrap()).await?;
    assert_eq!(response.version(), Version::HTTP_2);
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn streams_in_flight_finish_and_the_client_is_told() {
    let mut server = Server::ours();
    let (mut sender, connection) = client(&server).await;
    assert_eq!(get(&mut sender, "/1").await.unwrap(), "/1");
    server.arrived("/1").await;
    let mut second = sender.clone();
    let held = tokio::spawn(async move { get(&mut second, "/hold").await });
    server.arrived("/hold").await;
    server.begin(LINGER).await;
    assert!(!held.is_finished());
    server.release();
    assert_eq!(within("in flight", held).await.unwrap().unwrap(), "/hold");
    within("closed, although the client still has a handle", connection).await.unwrap().unwrap();
    drop(sender);
    server.drained().await;
}

#[tokio::test]
async fn an_idle_one_is_closed_by_goaway_without_linger() {
    let server = Server::ours();
    let (mut sender, connection) = client(&server).await;
    assert_eq!(get(&mut sender, "/1").await.unwrap(), "/1");
    server.begin(LINGER).await;
    within("closed", connection).await.unwrap().unwrap();
    server.drained().await;
}

/// Accepted before the drain, but the preface comes after: answered once, then GOAWAY.
#[tokio::test]
async fn a_fresh_one_is_answered() {
    let server = Server::ours();
    let stream = server.client().await.stream;
    server.begin(LINGER).await;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    assert_eq!(get(&mut sender, "/1").await.unwrap(), "/1");
    within("closed", connection).await.unwrap().unwrap();
    server.drained().await;
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: u8 = 7;

/// Types of the frames received up to a GOAWAY.
async fn goaway(client: &mut Client) {
    loop {
        let head = client.take(9).await.expect("a GOAWAY");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        client.take(length).await.unwrap();
        if head[3] == GOAWAY {
            return;
        }
    }
}

#[tokio::test]
async fn half_a_preface_is_waited_for_and_linger_ends_it() {
    let server = Server::ours();
    let mut client = server.client().await;
    client.send(&PREFACE[..10]).await;
    server.begin(SHORT).await;
    client.send(&PREFACE[10..]).await;
    client.send(SETTINGS).await;
    goaway(&mut client).await;
}

#[tokio::test]
async fn the_hammer_counts_the_streams() {
    let mut server = Server::ours();
    let (sender, connection) = client(&server).await;
    for at in 0..3 {
        let mut sender = sender.clone();
        tokio::spawn(async move { get(&mut sender, "/hold").await });
        server.arrived("/hold").await;
        assert_eq!(server.drain().active(), 1, "stream {at}");
    }
    server.begin(LINGER).await;
    let cuts: Vec<_> = server.drain().hammer().iter().map(ToString::to_string).collect();
    assert_eq!(cuts.len(), 1);
    assert!(cuts[0].contains("(HTTP/2, open for ") && cuts[0].contains("GET /hold for "), "{cuts:?}");
    assert!(cuts[0].ends_with(", and 2 more"), "{cuts:?}");
    let _ = within("closed", connection).await;
    server.drained().await;
}

#[tokio::test]
async fn both_versions_on_one_port() {
    let server = Server::ours();
    let (mut sender, _connection) = client(&server).await;
    assert_eq!(get(&mut sender, "/1").await.unwrap(), "/1");
    assert_eq!(server.client().await.reply_to("/2").await, Some(Reply::ok("/2")));
}

/// Answers with the task that it is.
async fn task(request: Request<Incoming>, met: Arc<Barrier>) -> Result<Response<String>, Infallible> {
    match request.uri().path() {
        "/wait" => tokio::task::yield_now().await,
        "/panic" => panic!("as the test wants it"),
        "/spin" => {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(1) {}
        }
        "/meet" => _ = met.wait(), // blocks the thread
        _ => {}
    }
    Ok(Response::new(tokio::task::id().to_string()))
}

async fn tasks() -> (SendRequest<Empty<Bytes>>, Arc<Barrier>, Drain) {
    let barrier = Arc::new(Barrier::new(2));
    let met = Arc::clone(&barrier);
    let (drain, address) = serve_service(hyper::service::service_fn(move |request| task(request, Arc::clone(&met))));
    (handshake(TcpStream::connect(address).await.unwrap()).await.0, barrier, drain)
}

#[tokio::test]
async fn only_who_waits_is_a_task_of_its_own() {
    // a machine that stops us in the middle of an answer makes it a slow one; not each time
    for _ in 0..100 {
        let (mut sender, _, _drain) = tasks().await;
        let connection = get(&mut sender, "/").await.unwrap();
        assert_ne!(get(&mut sender, "/wait").await.unwrap(), connection);
        if get(&mut sender, "/").await.unwrap() == connection {
            return;
        }
    }
    panic!("each request was a task");
}

#[tokio::test]
async fn a_panic_ends_its_request_alone() {
    let (mut sender, _, _drain) = tasks().await;
    assert!(within("reset", get(&mut sender, "/panic")).await.is_err());
    assert!(within("answered", get(&mut sender, "/")).await.is_ok());
}

/// Who blocks its thread once holds up the others of its connection for that time, and then no
/// more.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn one_that_blocks_is_a_task_the_next_time() {
    let (mut sender, barrier, _drain) = tasks().await;
    get(&mut sender, "/spin").await.unwrap();
    let mut second = sender.clone();
    let blocked = tokio::spawn(async move { get(&mut second, "/meet").await });
    within("beside it", get(&mut sender, "/")).await.unwrap();
    assert!(!blocked.is_finished());
    tokio::task::spawn_blocking(move || barrier.wait()).await.unwrap();
    within("unblocked", blocked).await.unwrap().unwrap();
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A GET of that path, with END_STREAM and END_HEADERS.
fn headers(stream: u32, path: &str) -> Vec<u8> {
    // GET, http, authority "test" and the path, none of them Huffman-coded
    let mut block = b"\x82\x86\x41\x04test\x04".to_vec();
    block.push(u8::try_from(path.len()).unwrap());
    block.extend_from_slice(path.as_bytes());
    frame(1, 5, stream, &block)
}

/// The flags and the stream of the next frame of that type.
async fn take_frame(client: &mut Client, kind: u8) -> (u8, u32) {
    loop {
        let head = client.take(9).await.expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        client.take(length).await.unwrap();
        if head[3] == kind {
            return (head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        }
    }
}

/// Whatever it has said before, it says nothing more: no linger waits for a ping's answer, nor for
/// the rest of a preface.
#[tokio::test]
async fn a_mute_one_holds_no_drain_beyond_the_linger() {
    let all = [PREFACE, SETTINGS, &headers(1, "/1")].concat();
    for said in [10, PREFACE.len() - 1, PREFACE.len(), PREFACE.len() + SETTINGS.len(), all.len()] {
        let server = Server::ours();
        let mut client = server.client().await;
        client.send(&all[..said]).await;
        if said == all.len() {
            while take_frame(&mut client, 0).await != (1, 1) {}
        }
        let since = Instant::now();
        server.begin(SHORT).await;
        server.drained().await;
        let took = since.elapsed();
        assert!(took >= SHORT / 2 && took < Duration::from_secs(5), "after {said} bytes: {took:?}");
    }
}

/// One that was told to go because it was idle, and does not go.
#[tokio::test]
async fn a_mute_one_is_closed_by_the_keep_alive_timeout_too() {
    let server = Server::ours_with(HttpOptions::new().keep_alive_timeout(SHORT).http2_keep_alive_interval(None));
    let mut client = server.client().await;
    client.send([PREFACE, SETTINGS, &headers(1, "/1")].concat()).await;
    goaway(&mut client).await;
    while client.take(1).await.is_some() {}
}

/// The client takes nothing of the answer, by its window or by its socket; the linger is not what
/// ends that.
#[tokio::test]
async fn an_answer_that_the_client_does_not_take_is_in_progress() {
    let largest: [u8; 6] = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    let open = [frame(4, 0, 0, &largest), frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes())].concat();
    for window in [SETTINGS, &open] {
        let mut server = Server::ours();
        let mut client = server.client().await;
        client.send([PREFACE, window, &headers(1, "/big")].concat()).await;
        server.arrived("/big").await;
        let (flags, _) = take_frame(&mut client, 1).await;
        assert_eq!(flags & 1, 0, "the head alone");
        server.begin(SHORT).await;
        pass(SHORT * 2).await; // nothing must happen in this time
        assert_eq!(server.drain().active(), 1);
        let cuts: Vec<_> = server.drain().hammer().iter().map(ToString::to_string).collect();
        assert_eq!(cuts.len(), 1);
        assert!(cuts[0].contains("GET /big for ") && cuts[0].ends_with(", the answer is not sent yet"), "{cuts:?}");
        server.drained().await;
    }
}

/// It ends by itself once the client has taken it.
#[tokio::test]
async fn an_answer_that_is_taken_late_is_the_last() {
    let mut server = Server::ours();
    let mut client = server.client().await;
    client.send([PREFACE, SETTINGS, &headers(1, "/big")].concat()).await;
    server.arrived("/big").await;
    server.begin(SHORT).await;
    pass(SHORT * 2).await; // nothing must happen in this time
    let more = 0x4000_0000_u32.to_be_bytes();
    client.send([frame(8, 0, 0, &more), frame(8, 0, 1, &more)].concat()).await;
    while take_frame(&mut client, 0).await != (1, 1) {}
    server.drained().await;
}
