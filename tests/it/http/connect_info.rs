//! axum's own extractor of the client's address.

use crate::support::{Client, Reply, within};
use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use handover::drain::{Drain, Peer};
use handover::http::HttpOptions;
use handover::systemd::activation::Listener;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn address(ConnectInfo(client): ConnectInfo<SocketAddr>) -> String {
    client.to_string()
}

async fn peer(ConnectInfo(peer): ConnectInfo<Peer>) -> String {
    format!("{peer:?}")
}

fn serve(listener: Listener, options: HttpOptions) -> Drain {
    let drain = Drain::new();
    let router = Router::new().route("/address", get(address)).route("/peer", get(peer));
    handover::http::serve(&drain, "http", vec![listener], options, router).unwrap();
    drain.accept(true);
    drain
}

fn tcp(options: HttpOptions) -> (Drain, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (serve(Listener::Tcp(listener), options), address)
}

#[tokio::test]
async fn a_tcp_client_has_its_address_in_both_versions_with_and_without_our_own() {
    for options in [HttpOptions::new(), HttpOptions::new().connection_info(false)] {
        let (_drain, server) = tcp(options.with_address(ConnectInfo));
        let mut client = Client::connect(server).await;
        let own = client.stream.local_addr().unwrap().to_string();
        for _ in 0..2 {
            assert_eq!(client.reply_to("/address").await, Some(Reply::ok(&own)));
        }
        let stream = Client::connect(server).await.stream;
        let own = stream.local_addr().unwrap().to_string();
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..2 {
            let request = Request::get("http://test/address").body(Empty::<Bytes>::new()).unwrap();
            let answer = within("answered", sender.send_request(request)).await.unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), own);
        }
    }
}

#[tokio::test]
async fn a_unix_client_has_what_on_connect_makes_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let options = HttpOptions::new().with_address(ConnectInfo::<SocketAddr>);
    let options = options.on_connect(|info, extensions| {
        extensions.insert(ConnectInfo(info.peer()));
    });
    let _drain = serve(Listener::Unix(listener), options);
    let ask = async |path_and_query: &str| {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        let request = format!("GET {path_and_query} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        within("the reply", stream.read_to_string(&mut reply)).await.unwrap();
        reply
    };
    let own = Peer::Unix {
        pid: Some(std::process::id().cast_signed()),
        uid: Some(nix::unistd::getuid().as_raw()),
        gid: Some(nix::unistd::getgid().as_raw()),
    };
    let reply = ask("/peer").await;
    assert!(reply.ends_with(&format!("{own:?}")), "{reply}");
    let reply = ask("/address").await;
    assert!(reply.starts_with("HTTP/1.1 500 "), "it has no address: {reply}");
}
