//! Streams and WebSockets that go from one generation to the next with what their handlers know.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::any;
use axum::{Extension as Given, Router};
use futures_util::{SinkExt, StreamExt};
use handover::Service;
use handover::drain::{Connection, Inherited, StreamOptions};
use handover::http::ConnectionInfo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::{Case, cases};
use handover_testing::processes::{End, look};
use handover_testing::service::Extension;
use handover_testing::waiting::within;
use handover_testing::world::{Who, World};

pub(crate) const CASES: &[Case] = cases![
    sessions_go_through_reloads,
    a_handler_that_never_asks_drains,
    who_is_not_taken_goes_on_where_it_was,
    a_version_that_refuses_says_so,
    nothing_moves_where_it_is_off,
];

const SESSIONS: u64 = 50;
const RELOADS: u64 = 10;
/// A client pauses for so long at most: some wait, and some are in the middle, when a reload comes.
const PAUSE_MS: u64 = 40;
const LARGE: usize = 200_000;

/// What the service does besides, in a generation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Served {
    /// Streams at most.
    limit: Option<usize>,
    /// Handlers do not know how to move.
    deaf: bool,
    /// There is no WebSocket in this version.
    refuses: bool,
    never: bool,
}

pub(crate) const EXTENSION: Extension = Extension { builder, started };

fn extra(served: &Served) -> serde_json::Value {
    serde_json::json!({ "sessions": served })
}

fn served(extra: &serde_json::Value) -> Option<Served> {
    extra.get("sessions").map(|served| serde_json::from_value(served.clone()).unwrap())
}

fn builder(builder: handover::Builder, _: &Path, extra: &serde_json::Value) -> handover::Builder {
    let Some(served) = served(extra) else { return builder };
    let builder = if served.never { builder.migrate(handover::service::settings::Migrate::Never) } else { builder };
    builder.listen("lines", "127.0.0.1:0").listen("sockets", "127.0.0.1:0")
}

fn started(service: &Service, extra: &serde_json::Value) -> handover::Result<()> {
    let Some(Served { limit, deaf, refuses, .. }) = served(extra) else { return Ok(()) };
    let options = StreamOptions::new().migrate(true);
    let options = limit.map_or(options.clone(), |limit| options.max_connections(limit));
    let generation = service.generation();
    service.serve_stream_with("lines", options, move |connection| lines(connection, generation, deaf))?;
    let router = if refuses { Router::new() } else { Router::new().route("/", any(socket)) };
    service.serve_http("sockets", router.layer(Given(deaf)).layer(Given(generation)))
}

/// What a session has had.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Session {
    count: u64,
}

/// Each line is answered with its number, the generation, and its length.
async fn lines(connection: Connection, generation: u64, deaf: bool) -> io::Result<()> {
    let Connection { mut stream, mut mover, inherited, .. } = connection;
    let mut received = inherited.as_ref().map_or_else(Vec::new, |inherited| inherited.unread().to_vec());
    let mut session: Session = inherited.as_ref().map_or(Ok(Session::default()), Inherited::state)?;
    loop {
        while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            received.drain(..=end);
            session.count += 1;
            stream.write_all(format!("{} {generation} {end}\n", session.count).as_bytes()).await?;
        }
        tokio::select! {
            Some(pass) = mover.ready(), if !deaf => return pass.give(stream, &received, &session),
            read = stream.read_buf(&mut received) => if read? == 0 { return Ok(()) },
        }
    }
}

/// Each message is answered so.
async fn socket(
    upgrade: WebSocketUpgrade,
    Given(info): Given<ConnectionInfo>,
    Given(deaf): Given<bool>,
    Given(generation): Given<u64>,
) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        let mut session: Session = info.inherited().map_or_else(Session::default, |state| state.state().unwrap());
        loop {
            let length = tokio::select! {
                Some(pass) = info.ready_to_move(), if !deaf => return pass.give(&session).unwrap(),
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => text.len(),
                    Some(Ok(_)) => continue,
                    _ => return,
                },
            };
            session.count += 1;
            let answer = format!("{} {generation} {length}", session.count);
            if socket.send(Message::text(answer)).await.is_err() {
                return;
            }
        }
    })
}

/// A service whose two more listeners are ours, and their addresses.
fn start(served: &Served) -> (World, Who, SocketAddr, SocketAddr) {
    let world = World::new().configured(|config| config.extra = extra(served));
    let [lines, sockets] = [(), ()].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [&lines, &sockets].map(|listener| listener.local_addr().unwrap());
    let program = world.program().socket("lines", OwnedFd::from(lines)).socket("sockets", OwnedFd::from(sockets));
    let first = world.started(program);
    (world, first, addresses[0], addresses[1])
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

struct Lines(BufReader<TcpStream>);

impl Lines {
    async fn connect(address: SocketAddr) -> Self {
        Self(BufReader::new(within("connected", TcpStream::connect(address)).await.unwrap()))
    }

    /// Number, generation and length.
    async fn answer(&mut self) -> [u64; 3] {
        let mut line = String::new();
        within("an answer", self.0.read_line(&mut line)).await.unwrap();
        numbers(&line)
    }

    async fn ask(&mut self, length: usize) -> [u64; 3] {
        let line = [&vec![b'x'; length][..], b"\n"].concat();
        within("sent", self.0.get_mut().write_all(&line)).await.unwrap();
        self.answer().await
    }
}

fn numbers(text: &str) -> [u64; 3] {
    let numbers: Vec<u64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("closed, or another answer: {text:?}"))
}

struct Socket(tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn connect(address: SocketAddr) -> Self {
        let connecting = tokio_tungstenite::connect_async(format!("ws://{address}/"));
        Self(within("connected", connecting).await.unwrap().0)
    }

    async fn send(&mut self, message: tungstenite::Message) {
        within("sent", self.0.send(message)).await.unwrap();
    }

    async fn fragment(&mut self, first: bool, last: bool, length: usize) {
        let data = if first { Data::Text } else { Data::Continue };
        let frame = Frame::message(vec![b'x'; length], OpCode::Data(data), last);
        self.send(tungstenite::Message::Frame(frame)).await;
    }

    async fn next(&mut self) -> Option<tungstenite::Message> {
        within("a message", self.0.next()).await.map(|message| message.unwrap())
    }

    async fn answer(&mut self) -> [u64; 3] {
        match self.next().await {
            Some(tungstenite::Message::Text(text)) => numbers(&text),
            other => panic!("{other:?}"),
        }
    }

    async fn ask(&mut self, length: usize) -> [u64; 3] {
        self.send(tungstenite::Message::text("x".repeat(length))).await;
        self.answer().await
    }

    async fn ping(&mut self) {
        self.send(tungstenite::Message::Ping("p".into())).await;
        assert_eq!(self.next().await, Some(tungstenite::Message::Pong("p".into())));
    }
}

/// How many answers each generation has given.
#[derive(Debug, Default)]
struct Answers {
    count: u64,
    by: BTreeMap<u64, u64>,
}

impl Answers {
    fn check(&mut self, [number, generation, length]: [u64; 3], expected: usize) {
        self.count += 1;
        assert_eq!((number, length), (self.count, expected as u64), "lost, or twice");
        *self.by.entry(generation).or_default() += 1;
    }
}

async fn pause(random: &mut u64) {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    tokio::time::sleep(Duration::from_millis((*random >> 33) % PAUSE_MS)).await;
}

async fn line_client(address: SocketAddr, mut random: u64, stop: Arc<AtomicBool>, total: Arc<AtomicU64>) -> Answers {
    let (mut client, mut answers) = (Lines::connect(address).await, Answers::default());
    while !stop.load(Relaxed) {
        match random >> 60 {
            // half a line when the reload comes, and two at once
            0..=5 => {
                client.0.get_mut().write_all(b"xxx").await.unwrap();
                pause(&mut random).await;
                client.0.get_mut().write_all(b"xx\nxxx\n").await.unwrap();
                answers.check(client.answer().await, 5);
                answers.check(client.answer().await, 3);
            }
            6 => answers.check(client.ask(LARGE).await, LARGE),
            length => {
                answers.check(client.ask(usize::try_from(length).unwrap()).await, usize::try_from(length).unwrap())
            }
        }
        total.fetch_add(1, Relaxed);
        pause(&mut random).await;
    }
    answers
}

async fn socket_client(address: SocketAddr, mut random: u64, stop: Arc<AtomicBool>, total: Arc<AtomicU64>) -> Answers {
    let (mut client, mut answers) = (Socket::connect(address).await, Answers::default());
    while !stop.load(Relaxed) {
        match random >> 60 {
            0..=4 => {
                client.fragment(true, false, 10).await;
                pause(&mut random).await;
                client.ping().await;
                client.fragment(false, false, 20).await;
                pause(&mut random).await;
                client.fragment(false, true, 30).await;
                answers.check(client.answer().await, 60);
            }
            5 => answers.check(client.ask(LARGE).await, LARGE),
            6 | 7 => client.ping().await,
            // two at once
            8 => {
                client.0.feed(tungstenite::Message::text("one")).await.unwrap();
                client.send(tungstenite::Message::text("three")).await;
                answers.check(client.answer().await, 3);
                answers.check(client.answer().await, 5);
            }
            length => {
                answers.check(client.ask(usize::try_from(length).unwrap()).await, usize::try_from(length).unwrap())
            }
        }
        total.fetch_add(1, Relaxed);
        pause(&mut random).await;
    }
    answers
}

fn sessions_go_through_reloads() {
    let (world, mut main, lines, sockets) = start(&Served::default());
    let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients = std::thread::spawn({
        let (stop, total) = (Arc::clone(&stop), Arc::clone(&total));
        move || {
            run(async move {
                let mut clients = JoinSet::new();
                for number in 1..=SESSIONS {
                    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    clients.spawn(line_client(lines, random, Arc::clone(&stop), Arc::clone(&total)));
                    clients.spawn(socket_client(sockets, random, Arc::clone(&stop), Arc::clone(&total)));
                }
                clients.join_all().await
            })
        }
    });
    for generation in 2..2 + RELOADS {
        // all have said something to this one
        let before = total.load(Relaxed);
        handover_testing::processes::until("some talk", || (total.load(Relaxed) > before + SESSIONS).then_some(()));
        let old = main.pid;
        main = world.reload_to(generation);
        assert_eq!(world.end_of(old), End::Exited(0), "nothing is left to it");
        assert!(!clients.is_finished(), "a client has failed");
    }
    stop.store(true, Relaxed);
    let answers = clients.join().unwrap();
    assert_eq!(answers.len() as u64, 2 * SESSIONS);
    let last = answers.iter().filter(|answers| answers.by.keys().next_back() == Some(&main.generation)).count();
    assert!(last > answers.len() / 2, "{last} of them have got to the last generation");
    world.stop();
}

fn a_handler_that_never_asks_drains() {
    let (world, first, lines, sockets) = start(&Served { deaf: true, ..Served::default() });
    run(async {
        let (mut line, mut socket) = (Lines::connect(lines).await, Socket::connect(sockets).await);
        assert_eq!((line.ask(1).await, socket.ask(1).await), ([1, 1, 1], [1, 1, 1]));
        world.reload_to(2);
        assert_eq!((line.ask(2).await, socket.ask(2).await), ([2, 1, 2], [2, 1, 2]), "served where they were");
        assert!(look(first.pid).is_some());
        drop((line, socket));
    });
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    world.stop();
}

fn who_is_not_taken_goes_on_where_it_was() {
    let (mut world, first, lines, _) = start(&Served::default());
    run(async {
        let mut clients = [Lines::connect(lines).await, Lines::connect(lines).await];
        for client in &mut clients {
            assert_eq!(client.ask(1).await, [1, 1, 1]);
            client.0.get_mut().write_all(b"half").await.unwrap();
        }
        world.configure(|c| c.extra = extra(&Served { limit: Some(1), ..Served::default() }));
        world.reload_to(2);
        world.wait_for_log("moved 1 connections");
        let mut generations = Vec::new();
        for client in &mut clients {
            let [number, generation, length] = client.ask(2).await;
            assert_eq!((number, length), (2, 6), "with all that it was");
            generations.push(generation);
        }
        generations.sort_unstable();
        assert_eq!(generations, [1, 2], "one is refused, and comes back");
    });
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    world.stop();
}

fn a_version_that_refuses_says_so() {
    let (mut world, first, _, sockets) = start(&Served::default());
    run(async {
        let mut socket = Socket::connect(sockets).await;
        assert_eq!(socket.ask(1).await, [1, 1, 1]);
        world.configure(|c| c.extra = extra(&Served { refuses: true, ..Served::default() }));
        world.reload_to(2);
        let Some(tungstenite::Message::Close(Some(close))) = socket.next().await else { panic!("no goodbye") };
        assert_eq!((u16::from(close.code), close.reason.as_str()), (1012, "service restart"));
        assert_eq!(socket.next().await, None);
    });
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    world.stop();
}

fn nothing_moves_where_it_is_off() {
    let (world, first, lines, sockets) = start(&Served { never: true, ..Served::default() });
    run(async {
        let (mut line, mut socket) = (Lines::connect(lines).await, Socket::connect(sockets).await);
        assert_eq!((line.ask(1).await, socket.ask(1).await), ([1, 1, 1], [1, 1, 1]));
        world.reload_to(2);
        assert_eq!((line.ask(2).await, socket.ask(2).await), ([2, 1, 2], [2, 1, 2]));
    });
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    world.stop();
}
