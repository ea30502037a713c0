//! One request on a connection of its own, with the connection left to be looked at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{Ask, Connection};
use super::expect::Expect;
use super::http1::{self, Broken, broken};
use super::http2;
use super::stats::{Cause, Kind, Loss, Stats};
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
    /// HTTP/2 keeps its stream to itself.
    pub fn stream(&self) -> Option<&Stream> {
        match &self.0 {
            Connection::One(one) => Some(one.stream()),
            Connection::Two(_) => None,
        }
    }

    pub fn end(self) {
        if let Connection::One(one) = self.0 {
            one.end();
        }
    }
}

impl Probe {
    /// Connects and asks; who answered, if the answer says so. What is lost is counted; an answer
    /// is counted by [`Probe::answered`].
    pub async fn ask(&self) -> Result<(Answered, Option<u32>), ()> {
        self.stats.sent(Kind::Probe);
        let begun = Instant::now();
        match tokio::time::timeout(self.limit, self.exchange()).await {
            Ok(Ok((connection, generation))) => Ok((Answered(connection), self.stats.tag(generation))),
            Ok(Err(broken)) => self.lost(begun, broken),
            Err(_) => self.lost(begun, broken(Cause::Timeout, format!("nothing complete within {:?}", self.limit))),
        }
    }

    pub fn answered(&self, begun: Instant, by: Option<u32>) {
        self.stats.answered(Kind::Probe, begun, Duration::ZERO, by);
    }

    async fn exchange(&self) -> Result<(Connection, Option<String>), Broken> {
        let ask = Ask::get(&self.path, self.expect.clone());
        let mut held = Duration::ZERO;
        if self.target.http2 {
            let mut two = http2::Connection::open(&self.target, self.limit).await?;
            let response = two.exchange(&ask, &self.target, &mut held).await?;
            let response =
                response.ok_or_else(|| broken(Cause::Reset, "the first request on a connection was refused"))?;
            let generation = ask.expect.check(&response)?;
            return Ok((Connection::Two(two), generation.or(response.generation)));
        }
        let mut one = http1::Connection::open(&self.target, self.limit).await?;
        let response = one.exchange(&ask, &self.target.host, &mut held).await?;
        let generation = ask.expect.check(&response)?;
        one.nothing_more()?;
        Ok((Connection::One(Box::new(one)), generation.or(response.generation)))
    }

    fn lost<T>(&self, begun: Instant, broken: Broken) -> Result<T, ()> {
        self.stats.lost(Loss {
            kind: Kind::Probe,
            cause: broken.cause,
            detail: broken.detail,
            connected: None,
            sent: Some(begun),
            failed: Instant::now(),
            served_by: None,
        });
        Err(())
    }
}
