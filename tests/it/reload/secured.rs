//! TLS connections that go from one generation to the next, with clients that keep theirs.

mod client;
mod service;
mod tools;
mod verified;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use handover_testing::certs::{self, SUITES, VERSIONS};
use handover_testing::patience;
use handover_testing::processes::{End, until};
use handover_testing::waiting::within;
use handover_testing::world::{Who, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio_rustls::rustls::{self, ClientConfig, ClientConnection};
use tokio_tungstenite::tungstenite;

pub(crate) use self::client::next;
use self::client::{Client, connect, pause, request};
pub(crate) use self::service::EXTENSION;
use self::service::{Secured, extra};
use self::tools::{curl_keeps_its_connection, openssl_keeps_its_connection_over_key_updates};
use self::verified::{
    a_client_that_is_no_longer_trusted_is_not_taken, a_client_that_is_trusted_again_is_taken,
    a_client_without_a_certificate_is_not_taken_where_one_must_be_shown,
    by_setting_each_client_is_verified_by_a_handshake, by_setting_nobody_is_verified_again, verified,
};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    nothing_is_closed_with_any_suite,
    sessions_go_through_reloads,
    http2_goes_through_reloads,
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
    who_is_in_its_handshake_moves_after_it,
    curl_keeps_its_connection,
    openssl_keeps_its_connection_over_key_updates,
];

/// How many there are, unless a variable says so: the normal run has few.
const CONNECTIONS: u64 = 60;
const RELOADS: u64 = 5;
const LARGE: usize = 300_000;
const LONG: Duration = Duration::from_secs(60);

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

/// What a client does until it is told to stop: its connection is one and the same.
async fn keep(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    mut random: u64,
    stop: Arc<AtomicBool>,
    total: Arc<AtomicU64>,
) -> u64 {
    let mut client = Client::connect(address, &http1(&config)).await;
    let mut requests = 0;
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
    requests
}

/// The same client without HTTP/2.
fn http1(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn number(variable: &str, few: u64) -> u64 {
    std::env::var(variable).map_or(few, |number| number.parse().unwrap())
}

fn nothing_is_closed_with_any_suite() {
    through(&Secured::new(), number("HANDOVER_TLS_CONNECTIONS", CONNECTIONS), keep);
}

fn sessions_go_through_reloads() {
    through(&Secured::new(), 20, talk);
}

/// What a client does at an address, with a number of its own, until it is told to stop; it counts
/// in the last one, and returns how often it was answered.
type Runs<F> = fn(SocketAddr, Arc<ClientConfig>, u64, Arc<AtomicBool>, Arc<AtomicU64>) -> F;

/// So many clients with all suites, through reloads after which nothing is left to the generation
/// before.
fn through<F: Future<Output = u64> + Send + 'static>(secured: &Secured, count: u64, client: Runs<F>) {
    let reloads = number("HANDOVER_TLS_RELOADS", RELOADS);
    let (world, mut main, address) = start(secured);
    let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients = std::thread::spawn({
        let (stop, total) = (Arc::clone(&stop), Arc::clone(&total));
        move || {
            run(async move {
                let configs = SUITES.map(|suite| certs::client_as(&VERSIONS, &[suite], &["h2", "http/1.1"], None));
                let mut clients = JoinSet::new();
                for number in 1..=count {
                    let config = Arc::clone(&configs[usize::try_from(number).unwrap() % configs.len()]);
                    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    clients.spawn(client(address, config, random, Arc::clone(&stop), Arc::clone(&total)));
                }
                clients.join_all().await
            })
        }
    });
    for generation in 2..2 + reloads {
        let before = total.load(Relaxed);
        until("some talk", || (clients.is_finished() || total.load(Relaxed) > before + count).then_some(()));
        let old = main.pid;
        main = world.reload_to(generation);
        assert!(!clients.is_finished(), "a client has failed");
        assert_eq!(world.end_of(old), End::Exited(0), "nothing is left to it");
    }
    stop.store(true, Relaxed);
    let answers: u64 = clients.join().unwrap().into_iter().sum();
    println!("{count} connections, {reloads} reloads: {answers} answers, 0 closed");
    assert!(!world.log().contains(" stayed ("), "all moved");
    world.stop();
}

async fn talk(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    mut random: u64,
    stop: Arc<AtomicBool>,
    total: Arc<AtomicU64>,
) -> u64 {
    let stream = connect(address, &http1(&config)).await;
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

/// Two streams at a time on each connection, and small and large replies.
fn http2_goes_through_reloads() {
    let count = number("HANDOVER_TLS_CONNECTIONS", CONNECTIONS) / 3;
    through(&Secured::new(), count, multiplex);
}

async fn multiplex(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    mut random: u64,
    stop: Arc<AtomicBool>,
    total: Arc<AtomicU64>,
) -> u64 {
    let stream = connect(address, &config).await;
    let (sender, connection) = within("begun", h2::client::handshake(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut count = 0;
    while !stop.load(Relaxed) {
        let paths = if next(&mut random).is_multiple_of(8) { ["/large", "/n/a"] } else { ["/n/b", "/n/c"] };
        let mut replies = Vec::new();
        for path in paths {
            let request = http::Request::get(format!("https://localhost{path}")).body(()).unwrap();
            let mut ready = within("ready", sender.clone().ready()).await.unwrap();
            replies.push((path, ready.send_request(request, true).unwrap().0));
        }
        for (path, reply) in replies {
            let mut body = within("a reply", reply).await.unwrap().into_body();
            let mut received = 0;
            while let Some(data) = within("data", body.data()).await {
                let length = data.unwrap().len();
                received += length;
                body.flow_control().release_capacity(length).unwrap();
            }
            assert_eq!(received, if path == "/large" { LARGE } else { 1 });
            count += 1;
        }
        total.fetch_add(1, Relaxed);
        pause(&mut random).await;
    }
    drop(sender);
    within("the end", driver).await.unwrap().unwrap();
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

/// One has said nothing before the reload, and the others a part of their first record.
fn who_is_in_its_handshake_moves_after_it() {
    let (world, _, address) = start(&Secured::new());
    let config = certs::client_as(&VERSIONS, &[SUITES[0]], &["http/1.1"], None);
    let mut clients = Vec::new();
    for said in [0, 3, 40] {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        let mut session = ClientConnection::new(Arc::clone(&config), "localhost".try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        session.write_tls(&mut hello).unwrap();
        stream.write_all(&hello[..said]).unwrap();
        clients.push((stream, session, hello.split_off(said)));
    }
    run(async {
        // accepted after them, and by the same
        let mut last = Client::connect(address, &config).await;
        assert_eq!(last.ask("/n/1").await, "1");
        world.reload_to(2);
        assert_eq!(last.ask("/n/2").await, "2");
    });
    for (stream, session, rest) in &mut clients {
        stream.write_all(rest).unwrap();
        let mut stream = rustls::Stream::new(session, stream);
        for id in ["a", "b"] {
            stream.write_all(request(&format!("/n/{id}")).as_bytes()).unwrap();
            let mut reply = Vec::new();
            while !reply.ends_with(format!("\r\n\r\n{id}").as_bytes()) {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                reply.extend(byte);
            }
            assert!(!String::from_utf8(reply).unwrap().to_ascii_lowercase().contains("connection: close"));
        }
    }
    drop(clients);
    world.wait_for_log("moved 4 connections");
    assert!(!world.log().contains(" stayed ("), "all moved");
    world.stop();
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
