//! One request on a connection of its own, with the connection left to be looked at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ask::Ask;
use super::connection::Connection;
use super::expect::Expect;
use super::kind::{Cause, Kind};
use super::message::{Broken, broken};
use super::stats::{Loss, Stats};
use super::target::{Stream, Target};

#[derive(Debug)]
pub struct Probe {
    pub target: Arc<Target>,
    pub stats: Arc<Stats>,
    pub path: String,
    pub expect: Expect,
    pub limit: Duration,
}

/// A connection whose request has been answered.
#[derive(Debug)]
pub struct Answered(Connection);

impl Answered {
    /// The connection's own end. HTTP/2 keeps its stream to itself.
    pub fn stream(&self) -> Option<&Stream> {
        self.0.stream()
    }

    pub fn end(self) {
        self.0.end();
    }
}

impl Probe {
    /// Connects and asks; who answered, if the answer says so. What is lost is counted; an answer
    /// is counted by [`Probe::answered`].
    pub async fn ask(&self) -> Result<(Answered, Option<u32>), ()> {
        self.stats.sent(Kind::Probe);
        let (begun, mut connected) = (Instant::now(), None);
        let broken = match tokio::time::timeout(self.limit, self.exchange(&mut connected)).await {
            Ok(Ok((connection, generation))) => return Ok((Answered(connection), self.stats.tag(generation))),
            Ok(Err(broken)) => broken,
            Err(_) => broken(Cause::Timeout, format!("nothing complete within {:?}", self.limit)),
        };
        self.stats.lost(Loss {
            kind: Kind::Probe,
            cause: broken.cause,
            detail: broken.detail,
            connected,
            sent: Some(connected.unwrap_or(begun)),
            failed: Instant::now(),
            served_by: None,
        });
        Err(())
    }

    pub fn answered(&self, begun: Instant, by: Option<u32>) {
        self.stats.answered(Kind::Probe, begun, Duration::ZERO, by);
    }

    async fn exchange(&self, connected: &mut Option<Instant>) -> Result<(Connection, Option<String>), Broken> {
        let ask = Ask::get(&self.path, self.expect.clone());
        let mut connection = Connection::open(&self.target, self.limit).await?;
        *connected = Some(connection.opened());
        let answer = connection.exchange(&ask, &self.target, &mut Duration::default()).await?;
        let answer = answer.ok_or_else(|| broken(Cause::Reset, "the first request on a connection was refused"))?;
        Ok((connection, answer.generation))
    }
}
