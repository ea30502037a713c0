//! One connection, of whichever protocol.

use std::time::{Duration, Instant};

use super::ask::Ask;
use super::http1;
use super::http2;
use super::message::{Broken, Idle, Response};
use super::target::{Stream, Target};

#[derive(Debug)]
pub(super) enum Connection {
    One(Box<http1::Connection>),
    Two(http2::Connection),
}

/// A response that is what it must be.
pub(super) struct Answer {
    pub(super) response: Response,
    /// Who says to have answered, by the body or by a header.
    pub(super) generation: Option<String>,
}

impl Connection {
    pub(super) async fn open(target: &Target, limit: Duration) -> Result<Self, Broken> {
        Ok(if target.http2 {
            Self::Two(http2::Connection::open(target, limit).await?)
        } else {
            Self::One(Box::new(http1::Connection::open(target, limit).await?))
        })
    }

    /// Sends the request, and reads and verifies its answer. `None`: it was handed back,
    /// unprocessed. `held` grows by the time of the client's own pauses.
    pub(super) async fn exchange(
        &mut self,
        ask: &Ask,
        target: &Target,
        held: &mut Duration,
    ) -> Result<Option<Answer>, Broken> {
        let response = match self {
            Self::One(one) => Some(one.exchange(ask, &target.host, held).await?),
            Self::Two(two) => two.exchange(ask, target, held).await?,
        };
        let Some(mut response) = response else { return Ok(None) };
        let told = ask.expect.check(&response)?;
        if let Self::One(one) = self {
            one.nothing_more()?;
        }
        let generation = told.or(response.generation.take());
        Ok(Some(Answer { response, generation }))
    }

    /// For those who want to know who has the other end. HTTP/2 keeps its stream to itself.
    pub(super) fn stream(&self) -> Option<&Stream> {
        match self {
            Self::One(one) => Some(one.stream()),
            Self::Two(_) => None,
        }
    }

    pub(super) fn opened(&self) -> Instant {
        match self {
            Self::One(one) => one.opened,
            Self::Two(two) => two.opened,
        }
    }

    pub(super) fn served_by(&self) -> Option<u32> {
        match self {
            Self::One(one) => one.served_by,
            Self::Two(two) => two.served_by,
        }
    }

    /// What is known of who serves it, unless it is no longer known now.
    pub(super) fn is_served_by(&mut self, by: Option<u32>) {
        let known = match self {
            Self::One(one) => &mut one.served_by,
            Self::Two(two) => &mut two.served_by,
        };
        *known = by.or(*known);
    }

    /// Whether the server has ended it, where something on it went wrong: in HTTP/2 a stream alone
    /// may have been reset.
    pub(super) async fn is_ended(&mut self) -> bool {
        match self {
            Self::One(_) => true,
            Self::Two(two) => two.ready().await != Idle::Open,
        }
    }

    /// Nothing more is wanted of it.
    pub(super) fn end(self) {
        if let Self::One(one) = self {
            one.end();
        }
    }
}
