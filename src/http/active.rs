//! The requests of a connection that are not answered yet, for whoever must say what a cut broke off.

use crate::drain::since;
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use std::fmt;
use tokio::time::Instant;

/// Longest path that a cut is logged with.
const PATH_SHOWN: usize = 200;

/// A request from its call to the end of its reply.
#[derive(Debug)]
pub(super) struct Active {
    number: u64,
    method: Method,
    target: Target,
    since: Instant,
}

/// Only what is shown is kept: each part of a `Uri` costs a clone.
#[derive(Debug)]
enum Target {
    Path(PathAndQuery),
    /// CONNECT names no path, but an authority.
    Whole(Box<Uri>),
}

impl Active {
    pub(super) fn new<B>(number: u64, request: &Request<B>) -> Self {
        let (method, uri) = (request.method(), request.uri());
        let target = match uri.path_and_query() {
            Some(path) if method != Method::CONNECT => Target::Path(path.clone()),
            _ => Target::Whole(Box::new(uri.clone())),
        };
        Self { number, method: method.clone(), target, since: Instant::now() }
    }
}

impl fmt::Display for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole;
        let path = match &self.target {
            Target::Path(path) => path.as_str(),
            Target::Whole(uri) => {
                whole = uri.to_string();
                &whole
            }
        };
        write!(f, "{} ", self.method)?;
        for (at, c) in path.chars().enumerate() {
            if at == PATH_SHOWN {
                f.write_str("…")?;
                break;
            }
            write!(f, "{}", c.escape_debug())?;
        }
        write!(f, " for {:?}", since(self.since))
    }
}

/// Each in a slot, so that its end finds it at once among HTTP/2's hundreds.
#[derive(Debug, Default)]
pub(super) struct Requests {
    slots: Vec<Option<Active>>,
    free: Vec<usize>,
}

impl Requests {
    /// Returns its slot.
    pub(super) fn begin(&mut self, active: Active) -> usize {
        if let Some(slot) = self.free.pop() {
            self.slots[slot] = Some(active);
            return slot;
        }
        if self.slots.is_empty() {
            self.slots.reserve_exact(1); // more than enough for HTTP/1
        }
        self.slots.push(Some(active));
        self.slots.len() - 1
    }

    pub(super) fn end(&mut self, slot: usize) -> Option<Active> {
        let ended = self.slots.get_mut(slot)?.take();
        if ended.is_some() {
            self.free.push(slot);
        }
        ended
    }

    pub(super) fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn oldest(&self) -> Option<&Active> {
        self.slots.iter().flatten().min_by_key(|active| active.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(number: u64, method: Method, uri: &str) -> Active {
        Active::new(number, &Request::builder().method(method).uri(uri).body(()).unwrap())
    }

    #[tokio::test]
    async fn slots_are_used_again_and_the_oldest_is_named() {
        let mut requests = Requests::default();
        let slots: Vec<_> = (1..=3).map(|n| requests.begin(active(n, Method::GET, "/"))).collect();
        assert_eq!((slots.as_slice(), requests.count()), ([0, 1, 2].as_slice(), 3));
        assert!(requests.end(0).is_some() && requests.end(0).is_none() && requests.end(9).is_none());
        assert_eq!(requests.oldest().unwrap().number, 2);
        assert_eq!(requests.begin(active(4, Method::GET, "/")), 0);
        assert_eq!((requests.oldest().unwrap().number, requests.count()), (2, 3));
    }

    #[tokio::test]
    async fn what_is_shown_is_short_and_harmless() {
        let long = format!("/{}", "x".repeat(500));
        let shown = active(1, Method::GET, &long).to_string();
        assert!(shown.starts_with("GET /xxx") && shown.contains("x… for ") && shown.len() < 250, "{shown}");
        assert!(active(1, Method::CONNECT, "host:443").to_string().starts_with("CONNECT host:443 for "));
        assert!(active(1, Method::OPTIONS, "*").to_string().starts_with("OPTIONS * for "));
    }
}
