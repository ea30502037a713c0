//! WebSockets and server-sent events through reloads: the former go along, the latter are told to
//! come again before they are closed.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{self, Message};

use super::protocols::{Watched, join, reloads_under};
use super::web::{DEADLINE, Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario, example};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("load_websockets_and_events", websockets_and_events_are_told),
    Scenario::new("websocket_that_stays_is_cut", websocket_that_stays_is_cut),
];

const SOCKETS: u64 = 200;
const EVENT_STREAMS: u64 = 4;
/// A client shows so often that it is alive.
const PING_EVERY: Duration = Duration::from_millis(250);
/// The service restarts: come again.
const RESTART: u16 = 1012;

pub(super) fn chat(lab: &Container) -> Outcome<Web<'_>> {
    lab.install(&example("chat")?, "chat")?;
    Web::start(lab, Setup { command: "{dir}/chat", ..Setup::default() })
}

#[derive(Default)]
struct Seen {
    open: AtomicU64,
    pongs: AtomicU64,
    told: AtomicU64,
    cut: AtomicU64,
    /// Sessions that were whole at their end.
    kept: AtomicU64,
}

async fn client(address: SocketAddr, stop: Arc<AtomicBool>, seen: Arc<Seen>) -> tungstenite::Result<()> {
    while !stop.load(Relaxed) {
        let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}/ws")).await?;
        seen.open.fetch_add(1, Relaxed);
        let mut pings = tokio::time::interval(PING_EVERY);
        socket.send(Message::text("hello")).await?;
        let (mut told, mut asked) = (false, false);
        loop {
            tokio::select! {
                _ = pings.tick(), if !told && !asked => {
                    if stop.load(Relaxed) {
                        socket.send(Message::text("/count")).await?;
                        asked = true;
                    } else if socket.send(Message::Ping(Default::default())).await.is_err() {
                        told = false; // what is received says more
                    }
                }
                message = socket.next() => match message {
                    Some(Ok(Message::Pong(_))) => _ = seen.pongs.fetch_add(1, Relaxed),
                    Some(Ok(Message::Text(text))) if asked && text == "1" => {
                        seen.kept.fetch_add(1, Relaxed);
                        socket.close(None).await?;
                        told = true;
                    }
                    Some(Ok(Message::Close(Some(close)))) if u16::from(close.code) == RESTART => {
                        seen.told.fetch_add(1, Relaxed);
                        told = true;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break,
                },
            }
        }
        seen.open.fetch_sub(1, Relaxed);
        if !told {
            seen.cut.fetch_add(1, Relaxed);
        }
    }
    Ok(())
}

/// curl, which tells an end from a cut: its exit status is 18 when a body is not complete.
fn events(address: SocketAddr, stop: &AtomicBool) -> Watched {
    let mut watched = Watched::default();
    while !stop.load(Relaxed) {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--no-buffer", &format!("http://{address}/events")]);
        let Ok(mut curl) = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn() else {
            watched.lost("curl is missing");
            return watched;
        };
        loop {
            match curl.try_wait() {
                Ok(Some(status)) if status.success() => watched.answered += 1,
                Ok(Some(status)) => watched.lost(format!("events by curl: {status}")),
                Ok(None) if stop.load(Relaxed) => {
                    let _ = curl.kill().and_then(|()| curl.wait());
                }
                Ok(None) => {
                    thread::sleep(Duration::from_millis(10));
                    continue;
                }
                Err(error) => watched.lost(format!("curl: {error}")),
            }
            break;
        }
    }
    watched
}

fn websockets_and_events_are_told(lab: &Container) -> Outcome {
    let web = chat(lab)?;
    let address = web.address;
    let seen = Arc::new(Seen::default());
    let told = Arc::clone(&seen);
    let reloads = reloads_under(&web, 20, |stop| async move {
        let mut tasks = JoinSet::new();
        for _ in 0..SOCKETS {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            tasks.spawn(async move {
                let mut watched = Watched::default();
                if let Err(error) = client(address, stop, seen).await {
                    watched.lost(error.to_string());
                }
                watched
            });
        }
        for _ in 0..EVENT_STREAMS {
            let stop = Arc::clone(&stop);
            tasks.spawn_blocking(move || events(address, &stop));
        }
        join(tasks).await
    })?;
    let [count, cut, pongs, kept] = [&told.told, &told.cut, &told.pongs, &told.kept].map(|number| number.load(Relaxed));
    let Watched { answered, .. } = reloads.watched;
    println!(
        "{SOCKETS} WebSockets, {} reloads: {kept} sessions kept, {count} closes announced, {cut} not; {pongs} pongs; {answered} event streams ended",
        reloads.reloads
    );
    assert_eq!(cut, 0, "closed without a word");
    assert_eq!((kept, count), (SOCKETS, 0), "none is closed by a reload");
    assert!(answered > EVENT_STREAMS * reloads.reloads as u64 / 2, "{answered} event streams ended");
    assert!(pongs > 0, "nobody said a word");
    assert_eq!(web.count_logged("cut ")?, 0);
    Ok(())
}

fn websocket_that_stays_is_cut(lab: &Container) -> Outcome {
    lab.install(&example("chat")?, "chat")?;
    let lines = "Environment=HANDOVER_CHAT_DRAIN_SECONDS=2\n";
    let web = Web::start(lab, Setup { command: "{dir}/chat", lines, ..Setup::default() })?;
    let old = lab.main_pid(UNIT)?;
    // A raw client: it never answers a close.
    let mut client = lab.in_netns(|| std::net::TcpStream::connect(web.address))??;
    client.set_read_timeout(Some(DEADLINE))?;
    let request = "GET /ws HTTP/1.1\r\nHost: lab\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    std::io::Write::write_all(&mut client, request.as_bytes())?;
    // In the middle of a message it does not move: the first fragment, and a ping that shows that
    // it was read.
    std::io::Write::write_all(&mut client, &[0x01, 0x80, 0, 0, 0, 0, 0x89, 0x80, 0, 0, 0, 0])?;
    let mut received = Vec::new();
    while !received.ends_with(&[0x8a, 0]) {
        let mut byte = [0];
        std::io::Read::read_exact(&mut client, &mut byte)?;
        received.extend(byte);
    }
    web.reload()?;
    assert!(lab.pids(UNIT)?.contains(&old), "it drains");
    let cut = web.logged("(upgraded, ")?;
    assert!(cut.message().contains("GET /ws for "), "{}", cut.message());
    web.until_only(&[lab.main_pid(UNIT)?])
}
