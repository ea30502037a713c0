//! HTTP/2 as ALPN chooses it.

use crate::support::{End, LINGER, SHORT, Server, within};
use handover_testing::certs::{VERSIONS, client};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

type Connection = JoinHandle<hyper::Result<()>>;

async fn handshake(server: &Server) -> tokio_rustls::client::TlsStream<TcpStream> {
    let before = server.drain.active();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(client(&VERSIONS, &["http/1.1", "h2"]));
    let stream = within("handshake", connector.connect("localhost".try_into().unwrap(), stream)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "the server's order counts");
    crate::support::until("accepted", || server.drain.active() > before).await;
    crate::support::settle().await;
    stream
}

async fn connect(server: &Server) -> (SendRequest<Empty<Bytes>>, Connection) {
    http(handshake(server).await).await
}

async fn http(stream: tokio_rustls::client::TlsStream<TcpStream>) -> (SendRequest<Empty<Bytes>>, Connection) {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> hyper::Result<String> {
    let uri = format!("https://localhost{path}");
    let response = sender.send_request(Request::get(uri).body(Empty::new()).unwrap()).await?;
    assert_eq!(response.version(), Version::HTTP_2);
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn streams_in_flight_finish_and_the_client_is_told() {
    let mut server = Server::new();
    let (mut sender, connection) = connect(&server).await;
    assert_eq!(get(&mut sender, "/1").await.unwrap(), "/1");
    server.arrived("/1").await;
    let mut second = sender.clone();
    let held = tokio::spawn(async move { get(&mut second, "/hold").await });
    server.arrived("/hold").await;
    server.begin(LINGER).await;
    assert!(!held.is_finished());
    server.release();
    assert_eq!(within("in flight", held).await.unwrap().unwrap(), "/hold");
    within("closed by GOAWAY, and announced by TLS", connection).await.unwrap().unwrap();
    server.drained().await;
}

#[tokio::test]
async fn an_idle_one_is_closed_by_goaway() {
    let server = Server::new();
    let (mut sender, connection) = connect(&server).await;
    assert_eq!(get(&mut sender, "/1").await.unwrap(), "/1");
    server.begin(LINGER).await;
    within("closed", connection).await.unwrap().unwrap();
    server.drained().await;
}

/// Its handshake was before the drain, its preface comes after: answered, then GOAWAY.
#[tokio::test]
async fn a_fresh_one_is_answered() {
    let server = Server::new();
    let stream = handshake(&server).await;
    server.begin(LINGER).await;
    let (mut sender, connection) = http(stream).await;
    assert_eq!(get(&mut sender, "/1").await.unwrap(), "/1");
    within("closed", connection).await.unwrap().unwrap();
    server.drained().await;
}

#[tokio::test]
async fn a_fresh_one_that_stays_silent_is_closed_when_linger_is_over() {
    let server = Server::new();
    let mut client = server.client(&client(&VERSIONS, &["h2"])).await;
    server.begin(SHORT).await;
    assert_eq!(client.closed().await, End::Announced);
    drop(client);
    server.drained().await;
}

/// It stops in the middle of a record, of the preface, or of HTTP/2's own handshake.
#[tokio::test]
async fn a_mute_one_holds_no_drain_beyond_the_linger() {
    for said in [0, 10, 24] {
        let server = Server::new();
        let mut client = server.client(&client(&VERSIONS, &["h2"])).await;
        match said {
            0 => client.send_raw(&[0x17, 3, 3, 0, 60]).await,
            said => client.send(&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..said]).await,
        }
        crate::support::settle().await;
        let since = std::time::Instant::now();
        server.begin(SHORT).await;
        server.drained().await;
        let took = since.elapsed();
        assert!(took >= SHORT / 2 && took < std::time::Duration::from_secs(5), "after {said} bytes: {took:?}");
    }
}

#[tokio::test]
async fn a_client_that_agreed_on_it_must_speak_it() {
    let server = Server::new();
    let mut client = server.client(&client(&VERSIONS, &["h2"])).await;
    client.get("/1").await;
    assert_eq!(client.reply().await, None);
}

/// With prior knowledge, as without TLS.
#[tokio::test]
async fn without_alpn_the_preface_decides() {
    let server = Server::new();
    let mut client = server.client(&client(&VERSIONS, &[])).await;
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let head = client.take(9).await.unwrap();
    assert_eq!(head[3], 4, "SETTINGS: {head:?}");
}
