//! TLS connections that go from one generation to the next, with clients that keep theirs.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Extension as Given, Path as Part};
use axum::response::Response;
use axum::routing::{any, get, post};
use futures_util::{SinkExt as _, StreamExt as _};
use handover::Service;
use handover::http::{ConnectionInfo, HttpOptions};
use handover::tls::{MovedClients, Tls, TlsOptions};
use handover_testing::certs::{self, Pair, SUITES, VERSIONS};
use handover_testing::processes::{End, end_of, end_within, signal, until};
use handover_testing::service::Extension;
use handover_testing::waiting::within;
use handover_testing::world::{Who, World};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite;

use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    nothing_is_closed_with_any_suite,
    sessions_go_through_reloads,
    what_a_handler_knows_stays_the_same,
    a_client_that_is_no_longer_trusted_is_not_taken,
    a_client_that_is_trusted_again_is_taken,
    by_setting_nobody_is_verified_again,
    by_setting_each_client_is_verified_by_a_handshake,
    a_client_without_a_certificate_is_not_taken_where_one_must_be_shown,
    what_comes_back_goes_on,
    plaintext_takes_no_tls,
    a_log_of_keys_hears_all_and_moves,
    half_a_record_goes_along,
    curl_keeps_its_connection,
    openssl_keeps_its_connection_over_key_updates,
];

/// How many there are, unless a variable says so: the normal run has few.
const CONNECTIONS: u64 = 60;
const RELOADS: u64 = 5;
const PAUSE_MS: u64 = 40;
const LARGE: usize = 300_000;
const LONG: Duration = Duration::from_secs(60);

/// What a generation does with the socket "tls".
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Secured {
    chain: String,
    key: String,
    /// The certificates of clients that are trusted, in PEM; none are asked for if this is empty.
    trusted: String,
    /// Who shows none is let in, too.
    optional: bool,
    moved: Option<String>,
    most: Option<usize>,
    plain: bool,
    /// A file for the names of secrets that a log of keys has heard of.
    logs: Option<String>,
}

impl Secured {
    fn new() -> Self {
        let Pair { chain, key, .. } = certs::pair();
        Self { chain, key, ..Self::default() }
    }
}

pub(crate) const EXTENSION: Extension = Extension { builder, started };

fn extra(secured: &Secured) -> serde_json::Value {
    serde_json::json!({ "secured": secured })
}

fn secured(extra: &serde_json::Value) -> Option<Secured> {
    extra.get("secured").map(|secured| serde_json::from_value(secured.clone()).unwrap())
}

fn builder(builder: handover::Builder, _: &Path, extra: &serde_json::Value) -> handover::Builder {
    if secured(extra).is_some() { builder.socket("tls") } else { builder }
}

fn started(service: &Service, extra: &serde_json::Value) -> handover::Result<()> {
    let Some(secured) = secured(extra) else { return Ok(()) };
    let options = secured.most.into_iter().fold(HttpOptions::new(), HttpOptions::max_connections);
    let router = Router::new()
        .route("/n/{id}", get(async |Part(id): Part<String>| id))
        .route("/large", get(async || vec![b'x'; LARGE]))
        .route("/up", post(async |body: axum::body::Bytes| body.len().to_string()))
        .route("/tls", get(info))
        .route("/socket", any(socket))
        .layer(Given(service.generation()))
        .layer(axum::extract::DefaultBodyLimit::disable());
    if secured.plain {
        return service.serve_http_with("tls", options, router);
    }
    service.serve_https_with("tls", &tls(&secured), options, router)
}

fn tls(secured: &Secured) -> Tls {
    let mut options = TlsOptions::new().alpn(["http/1.1"]);
    if !secured.trusted.is_empty() {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(secured.trusted.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = if secured.optional { verifier.allow_unauthenticated() } else { verifier };
        options = options.client_verifier(verifier.build().unwrap());
    }
    options = match secured.moved.as_deref() {
        Some("take") => options.moved_clients(MovedClients::Take),
        Some("leave") => options.moved_clients(MovedClients::Leave),
        _ => options,
    };
    if let Some(path) = secured.logs.clone() {
        options = options.configure(move |config| config.key_log = Arc::new(Log(path.clone())));
    }
    Tls::from_pem_with(&secured.chain, &secured.key, options).unwrap()
}

#[derive(Debug)]
struct Log(String);

impl tokio_rustls::rustls::KeyLog for Log {
    fn log(&self, label: &str, _: &[u8], _: &[u8]) {
        let mut file = std::fs::File::options().create(true).append(true).open(&self.0).unwrap();
        file.write_all(format!("{label}\n").as_bytes()).unwrap();
    }
}

async fn info(Given(info): Given<ConnectionInfo>) -> String {
    let tls = info.tls().unwrap();
    let certificates: Vec<_> = tls.client_certificates().iter().map(|certificate| certificate.len()).collect();
    let protocol = tls.protocol().map(|protocol| protocol.escape_ascii().to_string());
    format!("{:?} {protocol:?} {:?} {} {certificates:?}", tls.server_name(), tls.version(), tls.is_resumed())
}

/// Answers each message with its number and its length.
async fn socket(upgrade: WebSocketUpgrade, Given(info): Given<ConnectionInfo>) -> Response {
    upgrade.max_message_size(1 << 20).on_upgrade(async move |mut socket| {
        let mut count: u64 = info.inherited().and_then(|state| state.state().ok()).unwrap_or(0);
        loop {
            let length = tokio::select! {
                Some(pass) = info.ready_to_move() => return pass.give(&count).unwrap(),
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => text.len(),
                    Some(Ok(_)) => continue,
                    _ => return,
                },
            };
            count += 1;
            if socket.send(Message::text(format!("{count} {length}"))).await.is_err() {
                return;
            }
        }
    })
}

fn start(secured: &Secured) -> (World, Who, SocketAddr) {
    let world = World::new().configured(|config| {
        config.extra = extra(secured);
        // connections that stay would hold the old generation for long
        (config.linger, config.drain_timeout) = (LONG, LONG);
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let first = world.started(world.program().socket("tls", OwnedFd::from(listener)));
    (world, first, address)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

async fn pause(random: &mut u64) {
    tokio::time::sleep(Duration::from_millis(next(random) % PAUSE_MS)).await;
}

async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = within("connected", TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let connector = TlsConnector::from(Arc::clone(config));
    within("a handshake", connector.connect("localhost".try_into().unwrap(), stream)).await.unwrap()
}

struct Client {
    stream: TlsStream<TcpStream>,
    received: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        Self { stream: connect(address, config).await, received: Vec::new() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sent", self.stream.write_all(bytes.as_ref())).await.unwrap();
        within("sent", self.stream.flush()).await.unwrap();
    }

    /// The head of a reply, and its body.
    async fn reply(&mut self) -> io::Result<(String, Vec<u8>)> {
        loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(self.received[..end].to_vec()).unwrap().to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1).unwrap();
                let length: usize = length.lines().next().unwrap().parse().unwrap();
                if self.received.len() >= end + 4 + length {
                    let body = self.received[end + 4..end + 4 + length].to_vec();
                    self.received.drain(..end + 4 + length);
                    return Ok((head, body));
                }
            }
            if within("a reply", self.stream.read_buf(&mut self.received)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn expect(&mut self, expected: &str) {
        let (head, body) = self.reply().await.unwrap();
        assert_eq!(body.escape_ascii().to_string(), expected, "{head}");
    }

    async fn ask(&mut self, path: &str) -> String {
        self.send(request(path)).await;
        String::from_utf8(self.reply().await.unwrap().1).unwrap()
    }

    /// Whether the connection is still there after one more reply.
    async fn stays_after_reply(&mut self) -> bool {
        self.send(request("/n/last")).await;
        let (head, body) = self.reply().await.unwrap();
        assert_eq!(body, b"last");
        let closes = head.contains("connection: close");
        if closes {
            assert_eq!(within("the end", self.stream.read(&mut [0])).await.unwrap(), 0, "by TLS's own");
        }
        !closes
    }
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: it\r\n\r\n")
}

/// What a client does until it is told to stop: its connection is one and the same.
async fn keep(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    mut random: u64,
    stop: Arc<AtomicBool>,
    total: Arc<AtomicU64>,
) -> (u64, u64) {
    let mut client = Client::connect(address, &config).await;
    let (mut requests, mut updates) = (0, 0);
    while !stop.load(Relaxed) {
        let id = format!("{requests}");
        match next(&mut random) % 16 {
            0 => {
                // half a head, sealed at once
                client.send(format!("GET /n/{id} HTTP/1.1\r\nHo")).await;
                pause(&mut random).await;
                client.send("st: it\r\n\r\n").await;
                client.expect(&id).await;
            }
            1 => {
                client.send([request("/n/a"), request("/n/b"), request("/n/c")].concat()).await;
                for one in ["a", "b", "c"] {
                    client.expect(one).await;
                }
                requests += 2;
            }
            2 => {
                client.send(request("/large")).await;
                let (_, body) = client.reply().await.unwrap();
                assert!(body.len() == LARGE && body.iter().all(|byte| *byte == b'x'));
            }
            3 => {
                let length = next(&mut random) % 100_000;
                let length = usize::try_from(length).unwrap();
                client.send(format!("POST /up HTTP/1.1\r\nHost: it\r\nContent-Length: {length}\r\n\r\n")).await;
                client.send(vec![b'y'; length]).await;
                client.expect(&length.to_string()).await;
            }
            // TLS 1.2 has none
            4 | 5 if client.stream.get_mut().1.refresh_traffic_keys().is_ok() => {
                updates += 1;
                assert_eq!(client.ask(&format!("/n/{id}")).await, id);
            }
            _ => assert_eq!(client.ask(&format!("/n/{id}")).await, id),
        }
        requests += 1;
        total.fetch_add(1, Relaxed);
        pause(&mut random).await;
    }
    // nothing was left of it
    client.stream.shutdown().await.unwrap();
    assert_eq!(within("the end", client.stream.read(&mut [0])).await.unwrap(), 0, "by TLS's own");
    (requests, updates)
}

fn number(variable: &str, few: u64) -> u64 {
    std::env::var(variable).map_or(few, |number| number.parse().unwrap())
}

fn nothing_is_closed_with_any_suite() {
    let (count, reloads) = (number("HANDOVER_TLS_CONNECTIONS", CONNECTIONS), number("HANDOVER_TLS_RELOADS", RELOADS));
    let (world, mut main, address) = start(&Secured::new());
    let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients = std::thread::spawn({
        let (stop, total) = (Arc::clone(&stop), Arc::clone(&total));
        move || {
            run(async move {
                let configs = SUITES.map(|suite| certs::client_as(&VERSIONS, &[suite], &["http/1.1"], None));
                let mut clients = JoinSet::new();
                for number in 1..=count {
                    let config = Arc::clone(&configs[usize::try_from(number).unwrap() % configs.len()]);
                    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    clients.spawn(keep(address, config, random, Arc::clone(&stop), Arc::clone(&total)));
                }
                clients.join_all().await
            })
        }
    });
    for generation in 2..2 + reloads {
        // all have said something to this one
        let before = total.load(Relaxed);
        until("some talk", || (clients.is_finished() || total.load(Relaxed) > before + count).then_some(()));
        let old = main.pid;
        main = world.reload_to(generation);
        assert!(!clients.is_finished(), "a client has failed");
        assert_eq!(world.end_of(old), End::Exited(0), "nothing is left to it");
    }
    stop.store(true, Relaxed);
    let done = clients.join().unwrap();
    let (requests, updates) = done.iter().fold((0, 0), |(r, u), (requests, updates)| (r + requests, u + updates));
    println!("{count} TLS connections, {reloads} reloads: {requests} requests, {updates} key updates, 0 closed");
    assert!(updates > 0 && requests > count * reloads);
    assert!(!world.log().contains(" stayed ("), "all moved");
    world.stop();
}

fn sessions_go_through_reloads() {
    const SESSIONS: u64 = 20;
    let (world, mut main, address) = start(&Secured::new());
    let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients = std::thread::spawn({
        let (stop, total) = (Arc::clone(&stop), Arc::clone(&total));
        move || {
            run(async move {
                let configs = SUITES.map(|suite| certs::client_as(&VERSIONS, &[suite], &["http/1.1"], None));
                let mut clients = JoinSet::new();
                for number in 1..=SESSIONS {
                    let config = Arc::clone(&configs[usize::try_from(number).unwrap() % configs.len()]);
                    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    clients.spawn(talk(address, config, random, Arc::clone(&stop), Arc::clone(&total)));
                }
                clients.join_all().await
            })
        }
    });
    for generation in 2..2 + RELOADS {
        let before = total.load(Relaxed);
        until("some talk", || (clients.is_finished() || total.load(Relaxed) > before + SESSIONS).then_some(()));
        let old = main.pid;
        main = world.reload_to(generation);
        assert!(!clients.is_finished(), "a client has failed");
        assert_eq!(world.end_of(old), End::Exited(0), "nothing is left to it");
    }
    stop.store(true, Relaxed);
    let messages: u64 = clients.join().unwrap().into_iter().sum();
    println!("{SESSIONS} sessions of wss, {RELOADS} reloads: {messages} messages, 0 closed");
    world.stop();
}

async fn talk(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    mut random: u64,
    stop: Arc<AtomicBool>,
    total: Arc<AtomicU64>,
) -> u64 {
    let stream = connect(address, &config).await;
    let connecting = tokio_tungstenite::client_async("wss://localhost/socket", stream);
    let (mut socket, _) = within("upgraded", connecting).await.unwrap();
    let mut count = 0;
    while !stop.load(Relaxed) {
        let lengths = match next(&mut random) % 8 {
            0 => vec![200_000],
            1 => vec![3, 5],
            some => vec![usize::try_from(some).unwrap()],
        };
        for length in &lengths {
            within("fed", socket.feed(tungstenite::Message::text("x".repeat(*length)))).await.unwrap();
        }
        within("sent", socket.flush()).await.unwrap();
        for length in lengths {
            count += 1;
            let answer = within("an answer", socket.next()).await.unwrap().unwrap();
            assert_eq!(answer, tungstenite::Message::text(format!("{count} {length}")), "lost, or twice");
        }
        total.fetch_add(1, Relaxed);
        pause(&mut random).await;
    }
    count
}

fn what_a_handler_knows_stays_the_same() {
    let identity = certs::pair();
    let secured = Secured { trusted: identity.chain.clone(), optional: true, ..Secured::new() };
    let (world, _, address) = start(&secured);
    run(async {
        let with = certs::client_as(&VERSIONS, &SUITES, &["http/1.1"], Some(&identity));
        let tls12 = certs::client_as(&VERSIONS[..1], &SUITES, &[], None);
        let mut clients = Vec::new();
        for config in [&with, &with, &tls12] {
            let mut client = Client::connect(address, config).await;
            let before = client.ask("/tls").await;
            clients.push((client, before));
        }
        assert!(clients[1].1.contains("TLSv1_3) true ["), "it has come back: {}", clients[1].1);
        for generation in 2..=4 {
            world.reload_to(generation);
            for (client, before) in &mut clients {
                assert_eq!(client.ask("/tls").await, *before);
            }
        }
        let seen: BTreeSet<_> = clients.into_iter().map(|(_, seen)| seen).collect();
        println!("{seen:?}");
        assert_eq!(seen.len(), 3);
    });
    world.stop();
}

/// A client that was let in with a certificate, or none; whether it moves to a generation that is
/// otherwise.
fn verified(identity: Option<&Pair>, first: &Secured, then: &Secured, moves: Result<(), &str>) {
    for version in VERSIONS {
        let (mut world, _, address) = start(first);
        run(async {
            let config = certs::client_as(&[version], &SUITES, &["http/1.1"], identity);
            let mut client = Client::connect(address, &config).await;
            assert_eq!(client.ask("/n/1").await, "1");
            world.configure(|config| config.extra = extra(then));
            world.reload_to(2);
            match moves {
                Ok(()) => world.wait_for_log("moved 1 connections"),
                Err(why) => world.wait_for_log(&format!("1 stayed ({why}: 1)")),
            }
            assert_eq!(client.stays_after_reply().await, moves.is_ok());
        });
        world.stop();
    }
}

fn a_client_that_is_no_longer_trusted_is_not_taken() {
    let (identity, other) = (certs::pair(), certs::pair());
    let first = Secured { trusted: identity.chain.clone(), ..Secured::new() };
    verified(Some(&identity), &first, &Secured { trusted: other.chain, ..first.clone() }, Err("client"));
}

fn a_client_that_is_trusted_again_is_taken() {
    let (identity, other) = (certs::pair(), certs::pair());
    let first = Secured { trusted: identity.chain.clone(), ..Secured::new() };
    let both = [identity.chain.as_str(), &other.chain].concat();
    verified(Some(&identity), &first, &Secured { trusted: both, ..first.clone() }, Ok(()));
    verified(Some(&identity), &first, &Secured { trusted: String::new(), ..first.clone() }, Ok(()));
}

fn by_setting_nobody_is_verified_again() {
    let (identity, other) = (certs::pair(), certs::pair());
    let first = Secured { trusted: identity.chain.clone(), ..Secured::new() };
    let then = Secured { trusted: other.chain, moved: Some("take".into()), ..first.clone() };
    verified(Some(&identity), &first, &then, Ok(()));
}

fn by_setting_each_client_is_verified_by_a_handshake() {
    let identity = certs::pair();
    let first = Secured { trusted: identity.chain.clone(), moved: Some("leave".into()), ..Secured::new() };
    verified(Some(&identity), &first, &first, Err("client"));
}

fn a_client_without_a_certificate_is_not_taken_where_one_must_be_shown() {
    let first = Secured::new();
    let optional = Secured { trusted: certs::pair().chain, optional: true, ..first.clone() };
    verified(None, &first, &optional, Ok(()));
    verified(None, &optional, &Secured { optional: false, ..optional.clone() }, Err("client"));
}

/// With the record layer that it has got on its way, where it was.
fn what_comes_back_goes_on() {
    let first = Secured::new();
    let (mut world, main, address) = start(&first);
    run(async {
        let config = certs::client(&VERSIONS, &["http/1.1"]);
        let mut clients = [Client::connect(address, &config).await, Client::connect(address, &config).await];
        for client in &mut clients {
            assert_eq!(client.ask("/n/1").await, "1");
            client.send("GET /n/2 HTTP/1.1\r\nHo").await;
        }
        world.configure(|config| config.extra = extra(&Secured { most: Some(1), ..first.clone() }));
        world.reload_to(2);
        world.wait_for_log("1 stayed (full: 1)");
        for client in &mut clients {
            client.stream.get_mut().1.refresh_traffic_keys().unwrap();
            client.send("st: it\r\n\r\n").await;
            client.expect("2").await;
        }
    });
    assert_eq!(world.end_of(main.pid), End::Exited(0));
    world.stop();
}

fn plaintext_takes_no_tls() {
    let first = Secured::new();
    verified(None, &first, &Secured { plain: true, ..first.clone() }, Err("protocol"));
}

fn a_log_of_keys_hears_all_and_moves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("labels");
    let logs = Secured { logs: Some(path.to_str().unwrap().into()), ..Secured::new() };
    verified(None, &logs, &logs, Ok(()));
    let heard: BTreeSet<_> = std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
    let labels = [
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_RANDOM",
        "CLIENT_TRAFFIC_SECRET_0",
        "EXPORTER_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_TRAFFIC_SECRET_0",
    ];
    assert_eq!(heard.into_iter().collect::<Vec<_>>(), labels);
}

/// The rest of it comes to each generation a little, and to the last one all.
fn half_a_record_goes_along() {
    for suite in SUITES {
        let (world, _, address) = start(&Secured::new());
        run(async {
            let config = certs::client_as(&VERSIONS, &[suite], &["http/1.1"], None);
            let mut client = Client::connect(address, &config).await;
            assert_eq!(client.ask("/n/1").await, "1");
            let (socket, session) = client.stream.get_mut();
            session.writer().write_all(request("/n/2").as_bytes()).unwrap();
            let mut sealed = Vec::new();
            session.write_tls(&mut sealed).unwrap();
            let pieces = [2, 9, 12];
            let mut sent = 0;
            for (generation, piece) in (2..).zip(pieces) {
                socket.write_all(&sealed[sent..sent + piece]).await.unwrap();
                sent += piece;
                world.reload_to(generation);
                world.wait_for_log("moved 1 connections");
            }
            socket.write_all(&sealed[sent..]).await.unwrap();
            client.expect("2").await;
            assert_eq!(client.ask("/n/3").await, "3");
        });
        world.stop();
    }
}

/// `None`: this machine does not have it.
fn spawn(command: &mut Command) -> Option<Child> {
    match command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
        Ok(child) => Some(child),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

fn curl_keeps_its_connection() {
    const REQUESTS: usize = 25;
    /// Several of its requests.
    const BETWEEN: Duration = Duration::from_millis(300);
    for version in ["1.2", "1.3"] {
        let (world, _, address) = start(&Secured::new());
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--insecure", "--http1.1", "--noproxy", "*", "--max-time", "60"]);
        curl.args([format!("--tlsv{version}"), "--tls-max".into(), version.into(), "--rate".into(), "10/s".into()]);
        curl.args(["--write-out", " %{num_connects} %{http_version}\n"]);
        curl.arg(format!("https://{address}/n/[1-{REQUESTS}]"));
        let Some(curl) = spawn(&mut curl) else { return };
        let mut reloads = 0;
        while end_within(curl.id(), BETWEEN).is_none() {
            reloads += 1;
            world.reload_to(reloads + 1);
        }
        let ended = end_of(curl.id());
        let errors = io::read_to_string(curl.stderr.unwrap()).unwrap();
        assert_eq!((ended, errors.as_str()), (End::Exited(0), ""));
        let said = io::read_to_string(curl.stdout.unwrap()).unwrap();
        let expected: String = (1..=REQUESTS).map(|id| format!("{id} {} 1.1\n", u8::from(id == 1))).collect();
        assert_eq!(said, expected, "one connection");
        println!("curl with TLS {version}: {REQUESTS} requests on 1 connection, {reloads} reloads");
        assert!(reloads >= 3);
        world.stop();
    }
}

/// Its commands: `K` changes its key and wants ours changed, `k` changes its own.
fn openssl_keeps_its_connection_over_key_updates() {
    const COMMANDS: [&str; 6] = ["K", "k", "k", "K", "K", "k"];
    for (version, commands) in [("-tls1_3", COMMANDS), ("-tls1_2", [""; 6])] {
        let mut openssl = Command::new("openssl");
        let (world, _, address) = start(&Secured::new());
        openssl.args(["s_client", "-connect", &address.to_string(), version, "-crlf", "-servername", "localhost"]);
        let Some(mut openssl) = spawn(&mut openssl) else { return };
        let mut to = openssl.stdin.take().unwrap();
        let mut out = BufReader::new(openssl.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut err = BufReader::new(openssl.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut ask = |command: &str, id: u64| {
            if !command.is_empty() {
                to.write_all(format!("{command}\n").as_bytes()).unwrap();
                assert!(err.any(|line| line == "KEYUPDATE"), "closed before {command}");
            }
            // its reply has no end of line, and that of the next one tells where it is over
            let both = [request(&format!("/n/{id}")), request("/n/-")].concat().replace('\r', "");
            to.write_all(both.as_bytes()).unwrap();
            let wanted = format!("{id}HTTP/1.1 200 OK");
            assert!(out.any(|line| line.ends_with(&wanted)), "closed before {id}");
        };
        ask("", 1);
        for (generation, command) in (2..).zip(commands) {
            world.reload_to(generation);
            ask(command, generation);
            ask(command, generation + 100);
        }
        let updates = commands.concat().len() * 2;
        println!("openssl s_client {version}: 1 connection, {} reloads, {updates} key updates", commands.len());
        signal(openssl.id(), Signal::SIGKILL);
        world.stop();
    }
}
