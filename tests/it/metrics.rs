//! What the recorder of the application gets to see. One process, one recorder: each test has a
//! listener name of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use handover::drain::{Acceptor, Drain};
use handover::http::HttpOptions;
use handover::metrics;
use handover::systemd::activation::Listener;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(20);
const LINGER: Duration = Duration::from_secs(60);

fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let handle = PrometheusBuilder::new().install_recorder().unwrap();
        metrics::describe();
        handle
    })
}

/// Waits until that line is exposed.
async fn exposed(line: &str) {
    let wait = async {
        while !recorder().render().lines().any(|l| l == line) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(DEADLINE, wait).await.is_err() {
        panic!("{line:?} is not in {}", recorder().render());
    }
}

async fn connections(name: &str, listener: &str, protocol: &str, number: u32) {
    exposed(&format!("{name}{{listener=\"{listener}\",protocol=\"{protocol}\"}} {number}")).await;
}

fn serve(name: &str) -> (Drain, SocketAddr) {
    recorder();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::new();
    let hold = || std::future::pending::<&str>();
    let router = Router::new().route("/", get(|| async { "hello" })).route("/hold", get(hold));
    handover::http::serve(&drain, name, vec![Listener::Tcp(listener)], HttpOptions::new(), router).unwrap();
    drain.accept(true);
    (drain, address)
}

async fn ask(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn connections_are_counted_by_listener_and_protocol() {
    let (drain, address) = serve("one");
    let silent = TcpStream::connect(address).await.unwrap();
    connections(metrics::ACTIVE, "one", "unknown", 1).await;
    let mut asking = ask(address, "/").await;
    asking.read_exact(&mut [0; 12]).await.unwrap();
    connections(metrics::CONNECTIONS, "one", "http1", 1).await;
    connections(metrics::ACTIVE, "one", "http1", 1).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (_client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    connections(metrics::CONNECTIONS, "one", "http2", 1).await;
    connections(metrics::ACTIVE, "one", "http2", 1).await;
    drop(silent);
    connections(metrics::CONNECTIONS, "one", "unknown", 1).await;
    connections(metrics::ACTIVE, "one", "unknown", 0).await;
    drop(asking);
    connections(metrics::ACTIVE, "one", "http1", 0).await;
    connection.abort();
    connections(metrics::ACTIVE, "one", "http2", 0).await;
    assert_eq!(drain.active(), 0);
    let text = recorder().render();
    assert!(!text.contains("drained_total{listener=\"one\""), "no drain has begun: {text}");
}

#[tokio::test]
async fn what_ends_in_a_drain_is_told_from_what_is_cut() {
    let (drain, address) = serve("two");
    let (mut idle, mut held) = (ask(address, "/").await, ask(address, "/hold").await);
    idle.read_exact(&mut [0; 12]).await.unwrap();
    connections(metrics::ACTIVE, "two", "http1", 2).await;
    drain.begin(LINGER);
    drop(idle);
    connections(metrics::DRAINED, "two", "http1", 1).await;
    assert_eq!(drain.hammer().len(), 1);
    connections(metrics::HAMMERED, "two", "http1", 1).await;
    assert_eq!(held.read(&mut [0; 64]).await.unwrap_or(0), 0, "cut");
    tokio::time::timeout(DEADLINE, drain.drained()).await.unwrap();
    connections(metrics::ACTIVE, "two", "http1", 0).await;
    connections(metrics::DRAINED, "two", "http1", 1).await;
}

#[tokio::test]
async fn an_upgrade_is_the_same_connection() {
    recorder();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::new();
    let router = Router::new().route(
        "/ws",
        axum::routing::any(async |upgrade: axum::extract::ws::WebSocketUpgrade| {
            upgrade.on_upgrade(async |mut socket| while let Some(Ok(_)) = socket.recv().await {})
        }),
    );
    handover::http::serve(&drain, "three", vec![Listener::Tcp(listener)], HttpOptions::new(), router).unwrap();
    drain.accept(true);
    let (socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}/ws")).await.unwrap();
    connections(metrics::ACTIVE, "three", "upgraded", 1).await;
    connections(metrics::ACTIVE, "three", "http1", 0).await;
    connections(metrics::CONNECTIONS, "three", "http1", 1).await;
    drop(socket);
    connections(metrics::ACTIVE, "three", "upgraded", 0).await;
}

#[tokio::test]
async fn other_protocols_are_streams() {
    recorder();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::new();
    let mut acceptor = Acceptor::new(&drain, "four", Listener::Tcp(listener));
    drain.accept(true);
    let _client = TcpStream::connect(address).await.unwrap();
    let (_stream, guard) = acceptor.accept().await.unwrap().register("echo");
    connections(metrics::CONNECTIONS, "four", "stream", 1).await;
    connections(metrics::ACTIVE, "four", "stream", 1).await;
    drop(guard);
    connections(metrics::ACTIVE, "four", "stream", 0).await;
}

#[tokio::test]
async fn a_handler_of_streams_is_counted() {
    recorder();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::new();
    let listeners = vec![Listener::Tcp(listener)];
    handover::drain::serve_stream(
        &drain,
        "five",
        listeners,
        handover::drain::StreamOptions::new(),
        async |mut connection| connection.stream.read(&mut [0]).await.map(drop),
    )
    .unwrap();
    drain.accept(true);
    let client = TcpStream::connect(address).await.unwrap();
    connections(metrics::ACTIVE, "five", "stream", 1).await;
    drain.begin(LINGER);
    drop(client);
    connections(metrics::DRAINED, "five", "stream", 1).await;
    connections(metrics::CONNECTIONS, "five", "stream", 1).await;
}
