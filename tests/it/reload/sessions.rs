//! Streams and WebSockets that go from one generation to the next with what their handlers know.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

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
use tokio_tungstenite::tungstenite;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::{Case, cases};
use handover_testing::processes::{End, look};
use handover_testing::service::Extension;
use handover_testing::waiting::within;
use handover_testing::world::{Who, World};

pub(crate) const CASES: &[Case] = cases![
    a_handler_that_never_asks_drains,
    who_is_not_taken_goes_on_where_it_was,
    a_version_that_refuses_says_so,
    nothing_moves_where_it_is_off,
];

/// What the service does besides, in a generation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Served {
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
pub(crate) fn start(served: &Served) -> (World, Who, SocketAddr, SocketAddr) {
    let world = World::new().configured(|config| config.extra = extra(served));
    let [lines, sockets] = [(), ()].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [&lines, &sockets].map(|listener| listener.local_addr().unwrap());
    let program = world.program().socket("lines", OwnedFd::from(lines)).socket("sockets", OwnedFd::from(sockets));
    let first = world.started(program);
    (world, first, addresses[0], addresses[1])
}

pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

pub(crate) struct Lines(pub(crate) BufReader<TcpStream>);

impl Lines {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(BufReader::new(within("connected", TcpStream::connect(address)).await.unwrap()))
    }

    /// Number, generation and length.
    pub(crate) async fn answer(&mut self) -> [u64; 3] {
        let mut line = String::new();
        within("an answer", self.0.read_line(&mut line)).await.unwrap();
        numbers(&line)
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        within("sent", self.0.get_mut().write_all(bytes)).await.unwrap();
    }

    pub(crate) async fn ask(&mut self, length: usize) -> [u64; 3] {
        self.write(&[&vec![b'x'; length][..], b"\n"].concat()).await;
        self.answer().await
    }
}

fn numbers(text: &str) -> [u64; 3] {
    let numbers: Vec<u64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("closed, or another answer: {text:?}"))
}

pub(crate) struct Socket(pub(crate) tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<TcpStream>>);

impl Socket {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let connecting = tokio_tungstenite::connect_async(format!("ws://{address}/"));
        Self(within("connected", connecting).await.unwrap().0)
    }

    pub(crate) async fn send(&mut self, message: tungstenite::Message) {
        within("sent", self.0.send(message)).await.unwrap();
    }

    pub(crate) async fn fragment(&mut self, first: bool, last: bool, length: usize) {
        let data = if first { Data::Text } else { Data::Continue };
        let frame = Frame::message(vec![b'x'; length], OpCode::Data(data), last);
        self.send(tungstenite::Message::Frame(frame)).await;
    }

    /// Sends a large message as one frame, with a pause in its middle.
    pub(crate) async fn large(&mut self, length: usize, at: usize, pause: impl Future<Output = ()>) {
        // Final, text; masked by zeroes, which changes nothing; its length in 8 bytes.
        let mut frame = vec![0x81, 0x80 | 127];
        frame.extend((length as u64).to_be_bytes());
        frame.extend([0; 4]);
        frame.resize(frame.len() + length, b'x');
        let (first, rest) = frame.split_at(at);
        within("sent", self.0.get_mut().write_all(first)).await.unwrap();
        pause.await;
        within("sent", self.0.get_mut().write_all(rest)).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Option<tungstenite::Message> {
        within("a message", self.0.next()).await.map(|message| message.unwrap())
    }

    pub(crate) async fn answer(&mut self) -> [u64; 3] {
        match self.next().await {
            Some(tungstenite::Message::Text(text)) => numbers(&text),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn ask(&mut self, length: usize) -> [u64; 3] {
        self.send(tungstenite::Message::text("x".repeat(length))).await;
        self.answer().await
    }

    pub(crate) async fn ping(&mut self) {
        self.send(tungstenite::Message::Ping("p".into())).await;
        assert_eq!(self.next().await, Some(tungstenite::Message::Pong("p".into())));
    }
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
            client.write(b"half").await;
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
