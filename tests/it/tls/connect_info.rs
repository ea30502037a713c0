//! axum's own extractor of the client's address, behind TLS.

use crate::support::within;
use axum::Router;
use axum::extract::ConnectInfo;
use handover::drain::Drain;
use handover::http::{HttpOptions, serve_tls};
use handover::systemd::activation::Listener;
use handover::tls::Tls;
use handover_testing::certs::{VERSIONS, client, pair};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::net::TcpStream;

#[tokio::test]
async fn a_tls_client_has_its_address_in_both_versions() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (pair, drain) = (pair(), Drain::new());
    let tls = Tls::from_pem(&pair.chain, &pair.key).unwrap();
    let router = Router::new().fallback(async |ConnectInfo(client): ConnectInfo<SocketAddr>| client.to_string());
    let options = HttpOptions::new().with_address(ConnectInfo);
    serve_tls(&drain, "https", vec![Listener::Tcp(listener)], &tls, options, router).unwrap();
    drain.accept(true);
    for protocol in ["http/1.1", "h2"] {
        let stream = TcpStream::connect(address).await.unwrap();
        let own = stream.local_addr().unwrap().to_string();
        let connector = tokio_rustls::TlsConnector::from(client(&VERSIONS, &[protocol]));
        let stream = within("handshake", connector.connect("localhost".try_into().unwrap(), stream)).await.unwrap();
        let io = TokioIo::new(stream);
        let request =
            Request::get("https://localhost/").header("host", "localhost").body(Empty::<Bytes>::new()).unwrap();
        let answer = if protocol == "h2" {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            within("answered", sender.send_request(request)).await.unwrap()
        } else {
            let (mut sender, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            within("answered", sender.send_request(request)).await.unwrap()
        };
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), own, "{protocol}");
    }
}
