//! What each kind of client does until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::ask::{Ask, Hold};
use super::client::Client;
use super::expect::Expect;
use super::kind::Kind;
use super::plan::Plan;
use super::random::Random;
use super::stats::Stats;
use super::target::Target;
use super::until::Signals;
use super::websocket::WebSocket;

/// One head in so many is written in two pieces, so that some are half sent at any moment.
const SPLIT_HEADS: usize = 8;
/// Requests in one write.
const PIPELINED: usize = 4;
/// Between the openings of two connections at the beginning, and of two idle ones after a reload.
const OPENING: Duration = Duration::from_micros(200);
/// A server that keeps no connection is not asked more often, and the new process gets none back
/// before the old one has closed all.
const REOPENING: Duration = Duration::from_millis(500);
/// Servers wait 30 s and more for a request, reload or not.
const LONGEST_HOLD: Duration = Duration::from_secs(10);
/// An idle connection is looked after that often; its close is seen at once all the same.
const IDLE: Duration = Duration::from_secs(3600);

/// Starts so many clients of each kind on the runtime that we are in.
pub fn start(
    counts: &[(Kind, usize)],
    target: &Arc<Target>,
    plan: &Arc<Plan>,
    stats: &Arc<Stats>,
    seed: u64,
    signals: &Signals,
) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    let kinds = counts.iter().flat_map(|(kind, count)| (0..*count).map(|n| (*kind, n)));
    for ((kind, n), stream_of_randoms) in kinds.zip(1..) {
        let client = Client::new(kind, Arc::clone(target), Arc::clone(stats), plan.limit);
        let one = One {
            client,
            random: Random::new(seed, stream_of_randoms),
            plan: Arc::clone(plan),
            signals: signals.clone(),
        };
        let turn = OPENING * u32::try_from(n).unwrap_or(u32::MAX);
        match kind {
            Kind::KeepAlive => clients.spawn(one.keep_alive(turn)),
            Kind::Fresh => clients.spawn(one.fresh()),
            Kind::Slow => clients.spawn(one.slow()),
            Kind::Upload => clients.spawn(one.upload()),
            Kind::Stream => clients.spawn(one.download()),
            Kind::Pipelined => clients.spawn(one.pipelined(turn)),
            Kind::Late => clients.spawn(one.late()),
            Kind::HalfHead => clients.spawn(one.half_head()),
            Kind::Idle => clients.spawn(one.idle(turn)),
            Kind::WebSocket => {
                let socket = WebSocket::new(Arc::clone(target), Arc::clone(stats), Arc::clone(plan));
                clients.spawn(socket.run(one.random, one.signals, turn))
            }
            Kind::Probe => continue,
        };
    }
    clients
}

struct One {
    client: Client,
    random: Random,
    plan: Arc<Plan>,
    signals: Signals,
}

impl One {
    fn short(&self) -> Ask {
        Ask::get(&self.plan.path, self.plan.expect.clone())
    }

    /// A wait with nothing under way, ended early by the end of all.
    async fn pause(&mut self, time: Duration) {
        tokio::select! {
            () = self.client.idle(time) => {}
            () = self.signals.stopped() => {}
        }
    }

    /// The wait before the next request at the cadence, but `most`. That is the turn to connect at
    /// first: a long cadence must not keep clients away from the first reload.
    async fn cadence(&mut self, most: &mut Duration) {
        let time = self.random.between(&self.plan.cadence).min(*most);
        *most = Duration::MAX;
        self.pause(time).await;
    }

    /// Asks again and again on one connection, for as long as the server keeps it.
    async fn keep_alive(mut self, mut turn: Duration) {
        while !self.signals.is_stopped() {
            self.cadence(&mut turn).await;
            let mut ask = self.short();
            if self.random.within(0..SPLIT_HEADS) == 0 {
                ask.split = Some((self.random.within(1..999), Hold::For(self.random.time(2..20))));
            }
            self.client.ask(ask).await;
        }
    }

    /// A new connection for every request.
    async fn fresh(mut self) {
        while !self.signals.is_stopped() {
            let time = self.random.between(&self.plan.fresh);
            self.pause(time).await;
            self.client.ask(self.short().closing()).await;
        }
    }

    async fn short_first(&mut self) {
        if self.plan.short_first {
            self.client.ask(self.short()).await;
        }
    }

    /// Requests that are in flight across reloads.
    async fn slow(mut self) {
        while !self.signals.is_stopped() {
            self.short_first().await;
            let time = self.random.between(&self.plan.slow);
            let path = self.plan.slow_path.replace("{ms}", &time.as_millis().to_string());
            let ask = Ask { takes: time, ..Ask::get(&path, self.plan.slow_expect.clone()) };
            self.client.ask(ask).await;
        }
    }

    /// Bodies sent in pieces; the answer must be what belongs to them.
    async fn upload(mut self) {
        while !self.signals.is_stopped() {
            self.short_first().await;
            let length = self.random.within(64 * 1024..256 * 1024);
            let body = self.random.bytes(length);
            let pieces = body.chunks(self.random.within(4..16) * 1024).map(<[u8]>::to_vec).collect();
            let expect = Expect::Echo { body: body.into(), first: Arc::clone(&self.plan.upload_first) };
            let pause = self.random.time(2..10);
            let ask = Ask { method: "POST", body: pieces, pause, ..Ask::get(&self.plan.upload_path, expect) };
            self.client.ask(ask).await;
        }
    }

    /// Answers that take their time; every byte of them must come.
    async fn download(mut self) {
        while !self.signals.is_stopped() {
            self.short_first().await;
            let number = self.random.within(0..self.plan.downloads.len().max(1));
            let Some(download) = self.plan.downloads.get(number).cloned() else { return };
            let ask = Ask { takes: download.takes, ..Ask::get(&download.path, download.expect) };
            self.client.ask(ask).await;
        }
    }

    /// Several requests in one write.
    async fn pipelined(mut self, mut turn: Duration) {
        while !self.signals.is_stopped() {
            self.cadence(&mut turn).await;
            let asks: Vec<_> = std::iter::repeat_with(|| self.short()).take(PIPELINED).collect();
            self.client.pipeline(&asks).await;
        }
    }

    /// Connects, and has something to say only after the next reload has begun.
    async fn late(mut self) {
        while !self.signals.is_stopped() {
            if self.client.connect().await {
                let hold = self.over_a_reload();
                hold.wait().await;
                self.client.ask(self.short()).await;
                self.client.disconnect();
            }
        }
    }

    /// Sends a part of the head, and the rest only after the next reload has begun: on a new
    /// connection, or on the one that it has used before.
    async fn half_head(mut self) {
        while !self.signals.is_stopped() {
            if self.random.within(0..2) == 0 {
                self.client.disconnect();
            }
            let split = Some((self.random.within(1..999), self.over_a_reload()));
            self.client.ask(Ask { split, ..self.short() }).await;
        }
    }

    fn over_a_reload(&mut self) -> Hold {
        let (after, most) = (self.random.time(1..400), LONGEST_HOLD.min(self.plan.every * 2));
        Hold::Reload { after, most, signals: self.signals.clone() }
    }

    /// One request, and then nothing for as long as the server keeps the connection; then the same
    /// anew. `at`: its time to open one, from the beginning or from the close on, as thousands are
    /// closed at once.
    async fn idle(mut self, at: Duration) {
        while !self.signals.is_stopped() {
            if !self.client.is_connected() {
                self.pause(REOPENING + at).await;
                self.client.ask(self.short()).await;
            }
            tokio::select! {
                () = self.client.idle_until_closed(IDLE) => {}
                () = self.signals.stopped() => {}
            }
        }
    }
}
