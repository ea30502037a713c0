//! What each kind of client does until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{Ask, Client, Expect};
use super::random::Random;
use super::stats::{Kind, Stats};

/// One head in so many is written in two pieces, so that some are half sent at any moment.
const SPLIT_HEADS: usize = 8;

/// Tells clients to end after their current request.
#[derive(Debug, Clone)]
struct Stop(watch::Receiver<bool>);

impl Stop {
    fn is_set(&self) -> bool {
        *self.0.borrow()
    }
}

/// Starts so many clients of each kind on the runtime that we are in.
pub(super) fn start(
    counts: &[(Kind, usize)],
    address: SocketAddr,
    stats: &Arc<Stats>,
    seed: u64,
    stopped: &watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    let kinds = counts.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count));
    for (kind, stream_of_randoms) in kinds.zip(1..) {
        let client = Client::new(kind, address, Arc::clone(stats));
        let (random, stop) = (Random::new(seed, stream_of_randoms), Stop(stopped.clone()));
        match kind {
            Kind::KeepAlive => clients.spawn(keep_alive(client, random, stop)),
            Kind::Fresh => clients.spawn(fresh(client, random, stop)),
            Kind::Slow => clients.spawn(slow(client, random, stop)),
            Kind::Upload => clients.spawn(upload(client, random, stop)),
            Kind::Stream => clients.spawn(stream(client, random, stop)),
            Kind::Probe => continue,
        };
    }
    clients
}

/// Asks again and again on one connection, for as long as the server keeps it.
async fn keep_alive(mut client: Client, mut random: Random, stop: Stop) {
    while !stop.is_set() {
        client.idle(random.time(20..60)).await;
        let mut ask = get("/pid", false);
        if random.within(0..SPLIT_HEADS) == 0 {
            split_head(&mut ask, &mut random);
        }
        client.ask(ask).await;
    }
}

/// A new connection for every request.
async fn fresh(mut client: Client, mut random: Random, stop: Stop) {
    while !stop.is_set() {
        tokio::time::sleep(random.time(20..40)).await;
        client.ask(get("/pid", true)).await;
    }
}

/// Requests that are in flight across reloads. A short one first tells which generation has the connection.
async fn slow(mut client: Client, mut random: Random, stop: Stop) {
    while !stop.is_set() {
        client.ask(get("/pid", false)).await;
        let time = random.time(800..2200);
        let mut ask = get(&format!("/sleep?duration={}ms", time.as_millis()), false);
        ask.takes = time;
        client.ask(ask).await;
    }
}

/// Bodies sent in pieces; the answer must be their digest and length.
async fn upload(mut client: Client, mut random: Random, stop: Stop) {
    while !stop.is_set() {
        client.ask(get("/pid", false)).await;
        let length = random.within(64 * 1024..256 * 1024);
        let body = random.bytes(length);
        let digest = format!("{:x} {}\n", Sha256::digest(&body), body.len());
        let head = format!("POST /upload HTTP/1.1\r\nHost: demo\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut pieces = vec![head.into_bytes()];
        pieces.extend(body.chunks(random.within(4..16) * 1024).map(<[u8]>::to_vec));
        let pause = random.time(2..10);
        let takes = pause * u32::try_from(pieces.len()).unwrap_or(u32::MAX);
        let ask = Ask { pieces, pause, takes, expect: Expect::Exactly(digest.into_bytes()), close: false };
        client.ask(ask).await;
    }
}

/// Answers that take their time; every byte of them must come.
async fn stream(mut client: Client, mut random: Random, stop: Stop) {
    while !stop.is_set() {
        client.ask(get("/pid", false)).await;
        let chunks = random.within(20..60);
        let interval = random.time(10..40);
        let mut ask = get(&format!("/stream?chunks={chunks}&interval={}us", interval.as_micros()), false);
        ask.takes = interval * u32::try_from(chunks).unwrap_or(u32::MAX);
        let body: String = (0..chunks).map(|chunk| format!("{chunk:>1023}\n")).collect();
        ask.expect = Expect::Exactly(body.into_bytes());
        client.ask(ask).await;
    }
}

pub(super) fn get(path: &str, close: bool) -> Ask {
    let last = if close { "Connection: close\r\n" } else { "" };
    let head = format!("GET {path} HTTP/1.1\r\nHost: demo\r\n{last}\r\n");
    Ask { pieces: vec![head.into_bytes()], pause: Duration::ZERO, takes: Duration::ZERO, expect: Expect::Pid, close }
}

fn split_head(ask: &mut Ask, random: &mut Random) {
    if let Some(mut head) = ask.pieces.pop() {
        let rest = head.split_off(random.within(1..head.len()));
        ask.pieces.extend([head, rest]);
        ask.pause = random.time(2..20);
        ask.takes = ask.pause;
    }
}
