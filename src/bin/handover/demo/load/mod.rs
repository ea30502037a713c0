//! The load: clients of several kinds that follow their protocol, and count what they lost.
//!
//! What the server announced (`Connection: close`, then the close) is no loss, and neither is an idle connection closed before
//! the client wrote anything. Everything else that keeps a request from its whole, right answer is one, and nothing is repeated.

mod client;
mod http1;
mod kinds;
mod random;
mod stats;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use client::Client;
pub(crate) use random::Random;
pub(crate) use stats::{Cause, Count, Kill, Kind, Stats, Summary};

/// How many clients of each kind.
const CLIENTS: [(Kind, usize); 5] =
    [(Kind::KeepAlive, 64), (Kind::Fresh, 8), (Kind::Slow, 5), (Kind::Upload, 4), (Kind::Stream, 3)];
/// The longest that a client needs to end once told: its request's own time, and what its answer may be late.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Running clients. Dropped, they end at once.
#[derive(Debug)]
pub(crate) struct Load {
    address: SocketAddr,
    stats: Arc<Stats>,
    clients: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Load {
    /// How many clients there are.
    pub(crate) const CLIENTS: usize = {
        let [a, b, c, d, e] = CLIENTS;
        a.1 + b.1 + c.1 + d.1 + e.1
    };

    /// Starts all clients.
    pub(crate) fn start(address: SocketAddr, seed: u64) -> Self {
        let stats = Arc::new(Stats::default());
        let (stop, stopped) = watch::channel(false);
        let clients = kinds::start(&CLIENTS, address, &stats, seed, &stopped);
        Self { address, stats, clients, stop }
    }

    /// How many clients there are of a kind.
    pub(crate) fn count(kind: Kind) -> usize {
        CLIENTS.iter().find(|(k, _)| *k == kind).map_or(0, |(_, count)| *count)
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// One request on a new connection: the pid that answered it.
    pub(crate) async fn probe(&self) -> Option<u32> {
        Client::new(Kind::Probe, self.address, Arc::clone(&self.stats)).ask(kinds::get("/pid", true)).await
    }

    /// Lets every client finish its request. `Err` tells how many did not.
    pub(crate) async fn stop(mut self) -> Result<Arc<Stats>, usize> {
        self.stop.send_replace(true);
        let all = async { while self.clients.join_next().await.is_some() {} };
        match tokio::time::timeout(STOP_LIMIT, all).await {
            Ok(()) => Ok(self.stats),
            Err(_) => Err(self.clients.len()),
        }
    }
}

#[cfg(test)]
mod tests;
