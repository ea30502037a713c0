//! Many sessions that talk, over streams and WebSockets, while the service is reloaded.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::SinkExt;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite;

use crate::moves::times;
use crate::sessions::{Lines, Served, Socket, run, start};
use crate::{Case, cases};
use handover_testing::processes::{End, until};

pub(crate) const CASES: &[Case] = cases![sessions_go_through_reloads];

/// WebSockets, and as many streams; `HANDOVER_MOVE_SESSIONS=200` of each.
const SESSIONS: u64 = 50;
/// `HANDOVER_MOVE_SESSION_RELOADS=20`, as often as that.
const RELOADS: u64 = 10;
/// A client pauses for so long at most: some wait, and some are in the middle, when a reload comes.
const PAUSE_MS: u64 = 40;
const LARGE: usize = 200_000;

/// How many answers each generation has given, and what was sent in parts, with a pause in its
/// middle.
#[derive(Debug, Default)]
struct Answers {
    count: u64,
    by: BTreeMap<u64, u64>,
    parts: u64,
    pings: u64,
    large: u64,
}

/// What was said, and counted so that the test can wait for it.
#[derive(Debug, Default)]
struct Talk {
    stop: AtomicBool,
    total: AtomicU64,
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

async fn line_client(address: SocketAddr, mut random: u64, talk: Arc<Talk>) -> Answers {
    let (mut client, mut answers) = (Lines::connect(address).await, Answers::default());
    while !talk.stop.load(Relaxed) {
        match random >> 60 {
            // half a line when the reload comes, and two at once
            0..=5 => {
                client.write(b"xxx").await;
                pause(&mut random).await;
                client.write(b"xx\nxxx\n").await;
                answers.check(client.answer().await, 5);
                answers.check(client.answer().await, 3);
                answers.parts += 1;
            }
            6 => {
                let line = [&vec![b'x'; LARGE][..], b"\n"].concat();
                let (first, rest) = line.split_at(usize::try_from(random >> 33).unwrap() % LARGE);
                client.write(first).await;
                pause(&mut random).await;
                client.write(rest).await;
                answers.check(client.answer().await, LARGE);
                answers.large += 1;
            }
            length => {
                answers.check(client.ask(usize::try_from(length).unwrap()).await, usize::try_from(length).unwrap())
            }
        }
        talk.total.fetch_add(1, Relaxed);
        pause(&mut random).await;
    }
    answers
}

async fn socket_client(address: SocketAddr, mut random: u64, talk: Arc<Talk>) -> Answers {
    let (mut client, mut answers) = (Socket::connect(address).await, Answers::default());
    while !talk.stop.load(Relaxed) {
        match random >> 60 {
            0..=4 => {
                client.fragment(true, false, 10).await;
                pause(&mut random).await;
                client.ping().await;
                client.fragment(false, false, 20).await;
                pause(&mut random).await;
                client.fragment(false, true, 30).await;
                answers.check(client.answer().await, 60);
                answers.parts += 1;
                answers.pings += 1;
            }
            5 => {
                let at = usize::try_from(random >> 33).unwrap() % LARGE;
                client.large(LARGE, at, pause(&mut random)).await;
                answers.check(client.answer().await, LARGE);
                answers.large += 1;
            }
            6 | 7 => {
                client.ping().await;
                answers.pings += 1;
            }
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
        talk.total.fetch_add(1, Relaxed);
        pause(&mut random).await;
    }
    answers
}

fn sessions_go_through_reloads() {
    let (sessions, reloads) =
        (times("HANDOVER_MOVE_SESSIONS", SESSIONS), times("HANDOVER_MOVE_SESSION_RELOADS", RELOADS));
    let (world, mut main, lines, sockets) = start(&Served::default());
    let talk = Arc::new(Talk::default());
    let clients = std::thread::spawn({
        let talk = Arc::clone(&talk);
        move || {
            run(async move {
                let (mut streams, mut websockets) = (JoinSet::new(), JoinSet::new());
                for number in 1..=sessions {
                    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    streams.spawn(line_client(lines, random, Arc::clone(&talk)));
                    websockets.spawn(socket_client(sockets, random, Arc::clone(&talk)));
                }
                [streams.join_all().await, websockets.join_all().await]
            })
        }
    });
    for generation in 2..2 + reloads {
        // all have said something to this one
        let before = talk.total.load(Relaxed);
        until("some talk", || (talk.total.load(Relaxed) > before + sessions).then_some(()));
        let old = main.pid;
        main = world.reload_to(generation);
        assert_eq!(world.end_of(old), End::Exited(0), "nothing is left to it");
        assert!(!clients.is_finished(), "a client has failed");
    }
    talk.stop.store(true, Relaxed);
    let [streams, websockets] = clients.join().unwrap();
    assert!(!world.log().contains(" stayed ("), "all moved");
    for (what, answers) in [("streams", streams), ("WebSockets", websockets)] {
        assert_eq!(answers.len() as u64, sessions);
        let sum = |of: fn(&Answers) -> u64| answers.iter().map(of).sum::<u64>();
        let generations = answers.iter().map(|answers| answers.by.len()).min().unwrap();
        println!(
            "{sessions} {what}, {reloads} reloads: none closed; {} messages, none lost, none twice, {} of them in \
             fragments and {} of {LARGE} bytes in two parts; {} pings; each was answered by {generations} generations \
             or more",
            sum(|answers| answers.count),
            sum(|answers| answers.parts),
            sum(|answers| answers.large),
            sum(|answers| answers.pings)
        );
        let last = answers.iter().filter(|answers| answers.by.keys().next_back() == Some(&main.generation)).count();
        assert!(last > answers.len() / 2, "{last} of them have got to the last generation");
    }
    world.stop();
}
