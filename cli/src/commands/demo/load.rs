//! The demo's load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use handover_load::{Ask, Client, Conductor, Kind, Plan, Stats, Target, start};

/// How many clients of each kind.
const CLIENTS: [(Kind, usize); 5] =
    [(Kind::KeepAlive, 64), (Kind::Fresh, 8), (Kind::Slow, 5), (Kind::Upload, 4), (Kind::Stream, 3)];
/// The longest that a client needs to end once told: its request's own time, and what its answer may be late.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Running clients. Dropped, they end at once.
#[derive(Debug)]
pub(super) struct Load {
    target: Arc<Target>,
    plan: Arc<Plan>,
    stats: Arc<Stats>,
    clients: JoinSet<()>,
    conductor: Conductor,
}

impl Load {
    /// How many clients there are.
    pub(super) const CLIENTS: usize = {
        let [a, b, c, d, e] = CLIENTS;
        a.1 + b.1 + c.1 + d.1 + e.1
    };

    /// Starts all clients.
    pub(super) fn start(address: SocketAddr, seed: u64) -> Self {
        let (target, plan) = (Target::tcp(address), Arc::new(Plan::example()));
        let (stats, conductor) = (Arc::new(Stats::default()), Conductor::default());
        let clients = start(&CLIENTS, &target, &plan, &stats, seed, &conductor.signals());
        Self { target, plan, stats, clients, conductor }
    }

    /// How many clients there are of a kind.
    pub(super) fn count(kind: Kind) -> usize {
        CLIENTS.iter().find(|(k, _)| *k == kind).map_or(0, |(_, count)| *count)
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// One request on a new connection: the pid that answered it.
    pub(super) async fn probe(&self) -> Option<u32> {
        let ask = Ask::get(&self.plan.path, self.plan.expect.clone()).closing();
        let (target, stats) = (Arc::clone(&self.target), Arc::clone(&self.stats));
        Client::new(Kind::Probe, target, stats, self.plan.limit).ask(ask).await
    }

    /// Lets every client finish its request. `Err` tells how many did not.
    pub(super) async fn stop(mut self) -> Result<Arc<Stats>, usize> {
        self.conductor.stop();
        let all = async { while self.clients.join_next().await.is_some() {} };
        match tokio::time::timeout(STOP_LIMIT, all).await {
            Ok(()) => Ok(self.stats),
            Err(_) => Err(self.clients.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CLIENTS, Duration, Load};
    use handover_load::Summary;

    #[tokio::test]
    async fn all_kinds_verify_what_the_example_serves() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, crate::commands::web::router(1)).await });
        let load = Load::start(address, 7);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let every_kind = |summary: &Summary| {
            CLIENTS.iter().all(|(kind, _)| summary.counts.get(kind).is_some_and(|c| c.answered >= 4))
        };
        while !every_kind(&load.stats().summary()) {
            assert!(tokio::time::Instant::now() < deadline, "{:?}", load.stats().summary());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(load.probe().await, Some(std::process::id()));
        let summary = load.stop().await.unwrap().summary();
        server.abort();
        assert!(summary.lost.is_empty(), "{:?}", summary.lost);
    }
}
