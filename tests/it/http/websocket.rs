//! WebSockets and CONNECT by clients of others: counted until they close, told of the drain, cut at
//! its end.

use crate::support::{Client, LINGER, Server, serve_service, within};
use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade, close_code};
use axum::routing::any;
use axum::{Extension, Router};
use futures_util::{SinkExt, StreamExt};
use handover::drain::Drain;
use handover::http::{ConnectionInfo, HttpOptions};
use handover::systemd::activation::Listener;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite;

/// Echoes; says goodbye when a drain begins, or never.
fn router() -> Router {
    let echo = |upgrade: WebSocketUpgrade, Extension(info): Extension<ConnectionInfo>, polite: bool, movable: bool| async move {
        let mut drain = info.drain();
        upgrade.on_upgrade(async move |mut socket| {
            loop {
                tokio::select! {
                    // nobody takes it
                    None = info.ready_to_move(), if movable => break,
                    () = &mut drain, if polite => break,
                    Some(Ok(message)) = socket.recv() => {
                        if socket.send(message).await.is_err() {
                            return;
                        }
                    }
                    else => return,
                }
            }
            let goodbye = CloseFrame { code: close_code::RESTART, reason: "again".into() };
            socket.send(Message::Close(Some(goodbye))).await.unwrap();
            while let Some(Ok(_)) = socket.recv().await {}
        })
    };
    Router::new()
        .route("/polite", any(move |upgrade, info| echo(upgrade, info, true, false)))
        .route("/deaf", any(move |upgrade, info| echo(upgrade, info, false, false)))
        .route("/movable", any(move |upgrade, info| echo(upgrade, info, false, true)))
}

fn serve() -> (Drain, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::new();
    handover::http::serve(&drain, "http", vec![Listener::Tcp(listener)], HttpOptions::new(), router()).unwrap();
    drain.accept(true);
    (drain, address)
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn connect(address: SocketAddr, path: &str) -> Socket {
    let (mut socket, _) =
        within("connect", tokio_tungstenite::connect_async(format!("ws://{address}{path}"))).await.unwrap();
    socket.send(tungstenite::Message::text("hello")).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap().unwrap(), tungstenite::Message::text("hello"));
    socket
}

async fn next(socket: &mut Socket) -> Option<tungstenite::Result<tungstenite::Message>> {
    within("a message", socket.next()).await
}

#[tokio::test]
async fn the_handler_says_goodbye_and_the_drain_waits_for_the_client() {
    for path in ["/polite", "/movable"] {
        let (drain, address) = serve();
        let mut socket = connect(address, path).await;
        assert_eq!(drain.active(), 1);
        drain.begin(LINGER);
        let Some(Ok(tungstenite::Message::Close(Some(close)))) = next(&mut socket).await else { panic!("no goodbye") };
        assert_eq!(u16::from(close.code), 1012);
        assert_eq!(drain.active(), 1, "until the client has answered");
        // tungstenite answers the close when it is polled again
        assert!(next(&mut socket).await.is_none());
        within("drained", drain.drained()).await;
    }
}

#[tokio::test]
async fn one_that_is_not_told_is_cut_and_named() {
    let (drain, address) = serve();
    let mut socket = connect(address, "/deaf").await;
    drain.begin(LINGER);
    socket.send(tungstenite::Message::text("still here")).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap().unwrap(), tungstenite::Message::text("still here"));
    let cuts: Vec<_> = drain.hammer().iter().map(ToString::to_string).collect();
    assert!(cuts.len() == 1 && cuts[0].contains("(upgraded, ") && cuts[0].contains("GET /deaf for "), "{cuts:?}");
    assert!(next(&mut socket).await.unwrap().is_err(), "no goodbye");
    within("drained", drain.drained()).await;
}

/// A proxy, to whatever the client names.
async fn forward(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let target = request.uri().authority().unwrap().to_string();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut to = tokio::net::TcpStream::connect(target).await.unwrap();
        let mut from = TokioIo::new(upgrade.await.unwrap());
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    });
    Ok(Response::new(Empty::new()))
}

#[tokio::test]
async fn curl_gets_through_a_tunnel_while_its_generation_drains() {
    let mut target = Server::ours();
    let (drain, address) = serve_service(hyper::service::service_fn(forward));
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "20", "--proxytunnel", "--noproxy", ""]);
    curl.args(["--proxy", &format!("http://{address}"), &format!("http://{}/hold", target.address)]);
    let curl = tokio::spawn(async move { curl.output().await.unwrap() });
    target.arrived("/hold").await;
    drain.begin(LINGER);
    assert_eq!(drain.active(), 1);
    target.release();
    let output = within("curl", curl).await.unwrap();
    assert_eq!((output.status.success(), output.stdout.as_slice()), (true, b"/hold".as_slice()), "{output:?}");
    within("drained", drain.drained()).await;
}

/// A proxy's side of CONNECT: what the client sends comes back.
async fn tunnel(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    assert_eq!(request.method(), Method::CONNECT);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        let mut bytes = [0; 64];
        while let Ok(read @ 1..) = io.read(&mut bytes).await {
            io.write_all(&bytes[..read]).await.unwrap();
        }
    });
    Ok(Response::new(Empty::new()))
}

fn serve_tunnel() -> (Drain, SocketAddr) {
    serve_service(hyper::service::service_fn(tunnel))
}

#[tokio::test]
async fn a_tunnel_counts_until_it_is_closed() {
    let (drain, address) = serve_tunnel();
    let mut client = Client::connect(address).await;
    client.send("CONNECT host:443 HTTP/1.1\r\nHost: host:443\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("http/1.1 200 "));
    drain.begin(LINGER);
    client.send("through").await;
    assert_eq!(client.take(7).await.unwrap(), b"through");
    assert_eq!(drain.active(), 1);
    drop(client);
    within("drained", drain.drained()).await;
}

#[tokio::test]
async fn a_tunnel_over_http2_counts_too() {
    let (drain, address) = serve_tunnel();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::connect("host:443").body(Empty::<Bytes>::new()).unwrap();
    let response = within("answered", sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    drain.begin(LINGER);
    tunnel.write_all(b"through").await.unwrap();
    let mut bytes = [0; 7];
    within("echoed", tunnel.read_exact(&mut bytes)).await.unwrap();
    assert_eq!((&bytes, drain.active()), (b"through", 1));
    let cuts: Vec<_> = drain.hammer().iter().map(ToString::to_string).collect();
    assert!(cuts.len() == 1 && cuts[0].ends_with(", idle but for upgraded streams"), "{cuts:?}");
    let _ = within("cut", tunnel.read(&mut bytes)).await;
    within("drained", drain.drained()).await;
    let _ = within("closed", connection).await;
}
