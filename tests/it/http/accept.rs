//! The accept loop: the gate, other sockets, and a shortage of descriptors.

use crate::support::{Client, DEADLINE, LINGER, Reply, Server, get, within};
use handover::http::HttpOptions;
use handover::systemd::activation::Listener;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

#[tokio::test]
async fn a_shut_gate_keeps_clients_in_the_backlog_and_a_rollback_serves_them() {
    let server = Server::ours();
    let mut before = server.client().await;
    server.drain().accept(false);
    let mut waiting = Client::connect(server.address).await;
    waiting.get("/2").await;
    // connections that were accepted go on
    before.get("/1").await;
    assert_eq!(before.reply().await, Some(Reply::ok("/1")));
    assert_eq!(server.drain().active(), 1, "nobody accepts");
    server.drain().accept(true);
    assert_eq!(waiting.reply().await, Some(Reply::ok("/2")));
    assert_eq!(server.client().await.reply_to("/3").await, Some(Reply::ok("/3")));
}

#[tokio::test]
async fn after_the_drain_has_begun_the_gate_stays_shut() {
    let server = Server::ours();
    server.begin(LINGER).await;
    server.drain().accept(true);
    within("drained", server.drain().drained()).await;
    assert_eq!(server.drain().active(), 0);
}

#[tokio::test]
async fn the_peer_and_the_drain_are_in_the_extensions() {
    let server = Server::ours();
    let mut client = server.client().await;
    let address = client.stream.local_addr().unwrap();
    let body = client.reply_to("/peer").await.unwrap().body;
    assert_eq!(body, format!("Tcp({address}) false"));
    server.begin(LINGER).await;
    assert_eq!(client.reply_to("/peer").await, Some(Reply::last(&format!("Tcp({address}) true"))));
}

#[tokio::test]
async fn unix_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http.socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = Server::ours_on(Listener::Unix(listener), HttpOptions::default());
    let socket = std::os::unix::net::UnixStream::connect(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let exchange = move |path: &'static str, mut socket: std::os::unix::net::UnixStream| {
        tokio::task::spawn_blocking(move || {
            socket.write_all(get(path).as_bytes()).unwrap();
            let mut bytes = [0; 1024];
            let n = socket.read(&mut bytes).unwrap();
            (String::from_utf8_lossy(&bytes[..n]).into_owned(), socket)
        })
    };
    let (reply, socket) = exchange("/peer", socket).await.unwrap();
    let pid = std::process::id();
    assert!(reply.contains(&format!("Unix {{ pid: Some({pid}), uid: Some(")), "{reply}");
    server.begin(LINGER).await;
    let (reply, socket) = exchange("/2", socket).await.unwrap();
    assert!(reply.contains("connection: close"), "{reply}");
    drop(socket);
    server.drained().await;
}

#[tokio::test]
async fn beyond_max_connections_clients_wait() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::ours_on(Listener::Tcp(listener), HttpOptions::new().max_connections(1));
    let mut first = Client::connect(address).await;
    assert_eq!(first.reply_to("/1").await, Some(Reply::ok("/1")));
    let mut second = Client::connect(address).await;
    second.get("/2").await;
    assert_eq!(first.reply_to("/3").await, Some(Reply::ok("/3")));
    assert_eq!(server.drain().active(), 1);
    drop(first);
    assert_eq!(second.reply().await, Some(Reply::ok("/2")));
}

#[test]
fn outside_of_a_runtime_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let service = tower();
    let drain = handover::drain::Drain::new();
    let result = handover::http::serve(&drain, "http", vec![Listener::Tcp(listener)], HttpOptions::default(), service);
    assert!(result.unwrap_err().is_state());
}

fn tower() -> axum::Router {
    axum::Router::new().route("/", axum::routing::get(|| async { "axum" }))
}

#[tokio::test]
async fn an_axum_router() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let drain = handover::drain::Drain::new();
    handover::http::serve(&drain, "http", vec![Listener::Tcp(listener)], HttpOptions::default(), tower()).unwrap();
    drain.accept(true);
    let mut client = Client::connect(address).await;
    assert_eq!(client.reply_to("/").await, Some(Reply::ok("axum")));
}

const CLIENTS: usize = 40;
const DESCRIPTORS: usize = 30;

/// A server with few descriptors and more clients than that: those that are left wait in the
/// backlog, and are served as soon as others go.
#[tokio::test]
async fn too_many_open_files() {
    let exe = std::env::current_exe().unwrap();
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -n {DESCRIPTORS}; exec \"$0\" --exact accept::few_descriptors --ignored --nocapture"))
        .arg(exe)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address =
        lines.find_map(|line| line.unwrap().split("address=").nth(1).map(|a| a.trim().parse().unwrap())).unwrap();

    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(address).await;
        client.get("/1").await;
        clients.push(client);
    }
    // each leaves when it has been answered, and that lets another in
    let mut answered = 0;
    for mut client in clients {
        assert_eq!(client.reply().await, Some(Reply::ok("/1")), "client {answered}");
        answered += 1;
    }
    assert_eq!(answered, CLIENTS);

    drop(stdin);
    let mut log = String::new();
    let mut stderr = child.stderr.take().unwrap();
    let log = tokio::task::spawn_blocking(move || stderr.read_to_string(&mut log).map(|_| log)).await.unwrap().unwrap();
    assert!(child.wait().unwrap().success(), "{log}");
    assert!(log.contains("Too many open files"), "{log}");
    let complaints = log.matches("cannot accept").count();
    let recoveries = log.matches("accepting again").count();
    assert!(complaints >= 1 && complaints - recoveries <= 1, "one line per episode:\n{log}");
}

#[test]
#[ignore = "the child process of too_many_open_files"]
fn few_descriptors() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::ours();
        writeln!(std::io::stdout(), "address={}", server.address).unwrap();
        let mut line = String::new();
        let end = tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line));
        tokio::time::timeout(DEADLINE + Duration::from_secs(10), end).await.unwrap().unwrap().unwrap();
    });
}
