//! The requests of a connection that are not answered yet, for whoever must say what a cut broke
//! off.

use crate::drain::since;
use http::{Method, Request};
use std::fmt;
use tokio::time::Instant;

/// Longest path that a cut is logged with.
const PATH_SHOWN: usize = 200;

/// A slot's memory for the path of its next request; more is given back, as HTTP/2 may have
/// hundreds of slots.
const PATH_KEPT: usize = 64;

/// A request from its call to the end of its reply; after that an empty slot for the next.
#[derive(Debug, Default)]
pub(super) struct Active {
    /// The number of the request; 0 for none.
    number: u64,
    method: Method,
    /// What is shown of it. A copy: a share in the request's own path would hold hyper's read
    /// buffer, and cost more.
    target: String,
    since: Option<Instant>,
    /// HTTP/2: all of the answer is with h2, which has not sent all of it.
    unsent: bool,
}

impl Active {
    #[inline]
    fn begin<B>(&mut self, number: u64, request: &Request<B>) {
        self.number = number;
        self.method.clone_from(request.method());
        self.since = Some(Instant::now());
        self.unsent = false;
        self.target.clear();
        match request.uri().path_and_query() {
            Some(path) if request.method() != Method::CONNECT => self.target.push_str(shown(path.as_str())),
            // CONNECT names no path, but an authority
            _ => self.target.push_str(shown(&request.uri().to_string())),
        }
    }

    fn is_some(&self) -> bool {
        self.number != 0
    }
}

/// Returns one character more than is shown, which tells that there are more.
#[inline]
fn shown(target: &str) -> &str {
    if target.len() <= PATH_SHOWN {
        return target;
    }
    let end = target.char_indices().nth(PATH_SHOWN + 1).map_or(target.len(), |(at, _)| at);
    &target[..end]
}

impl fmt::Display for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.method)?;
        for (at, c) in self.target.chars().enumerate() {
            if at == PATH_SHOWN {
                f.write_str("…")?;
                break;
            }
            write!(f, "{}", c.escape_debug())?;
        }
        if let Some(began) = self.since {
            write!(f, " for {:?}", since(began))?;
        }
        if self.unsent { f.write_str(", the answer is not sent yet") } else { Ok(()) }
    }
}

/// Each in a slot, so that its end finds it at once among HTTP/2's hundreds.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// Slot 0, all that HTTP/1 needs: not on the heap, which would be one more cache line to fetch
    /// for each request.
    first: Active,
    /// Slots from 1 on.
    more: Vec<Active>,
    /// The free places in `more`.
    free: Vec<usize>,
}

impl Requests {
    /// Notes the request of HTTP/1, in slot 0, in place of the one before.
    #[inline]
    pub(super) fn only<B>(&mut self, number: u64, request: &Request<B>) -> usize {
        self.first.begin(number, request);
        0
    }

    /// Returns its slot.
    #[inline]
    pub(super) fn begin<B>(&mut self, number: u64, request: &Request<B>) -> usize {
        if !self.first.is_some() {
            self.first.begin(number, request);
            return 0;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.more.push(Active::default());
            self.more.len()
        });
        if let Some(active) = self.more.get_mut(slot - 1) {
            active.begin(number, request);
        }
        slot
    }

    /// Notes that all of the answer is made, and not yet sent.
    #[inline]
    pub(super) fn unsent(&mut self, slot: usize) {
        if let Some(active) = self.in_slot(slot) {
            active.unsent = true;
        }
    }

    #[inline]
    fn in_slot(&mut self, slot: usize) -> Option<&mut Active> {
        let active = match slot {
            0 => Some(&mut self.first),
            more => self.more.get_mut(more - 1),
        };
        active.filter(|active| active.is_some())
    }

    #[inline]
    pub(super) fn end(&mut self, slot: usize) {
        if let Some(active) = self.in_slot(slot) {
            active.number = 0;
            if slot > 0 {
                if active.target.capacity() > PATH_KEPT {
                    active.target = String::new();
                }
                self.free.push(slot);
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len() - self.free.len()
    }

    pub(super) fn oldest(&self) -> Option<&Active> {
        let all = std::iter::once(&self.first).chain(&self.more);
        all.filter(|active| active.is_some()).min_by_key(|active| active.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, uri: &str) -> Request<()> {
        Request::builder().method(method).uri(uri).body(()).unwrap()
    }

    fn shown(method: Method, uri: &str) -> String {
        let mut requests = Requests::default();
        requests.begin(1, &request(method, uri));
        requests.oldest().unwrap().to_string()
    }

    #[tokio::test]
    async fn slots_are_used_again_and_the_oldest_is_named() {
        let mut requests = Requests::default();
        let get = request(Method::GET, "/");
        let slots: Vec<_> = (1..=3).map(|n| requests.begin(n, &get)).collect();
        assert_eq!((slots.as_slice(), requests.count()), ([0, 1, 2].as_slice(), 3));
        requests.end(0);
        requests.end(0);
        requests.end(9);
        assert_eq!((requests.oldest().unwrap().number, requests.count()), (2, 2));
        assert_eq!(requests.begin(4, &get), 0);
        assert_eq!((requests.oldest().unwrap().number, requests.count()), (2, 3));
        requests.end(1);
        requests.end(1);
        assert_eq!((requests.oldest().unwrap().number, requests.count()), (3, 2));
        assert_eq!((requests.begin(5, &get), requests.begin(6, &get), requests.count()), (1, 3, 4));
        (0..4).for_each(|slot| requests.end(slot));
        assert!(requests.oldest().is_none() && requests.count() == 0);
    }

    #[tokio::test]
    async fn a_slot_shows_nothing_of_the_request_before() {
        let mut requests = Requests::default();
        let slot = requests.begin(1, &request(Method::POST, "/a-long-one"));
        requests.end(slot);
        requests.begin(2, &request(Method::GET, "/"));
        assert!(requests.oldest().unwrap().to_string().starts_with("GET / for "));
    }

    #[tokio::test]
    async fn what_is_shown_is_short_and_harmless() {
        let long = shown(Method::GET, &format!("/{}", "x".repeat(500)));
        assert!(long.starts_with("GET /xxx") && long.contains("x… for ") && long.len() < 250, "{long}");
        let fits = shown(Method::GET, &format!("/{}", "x".repeat(PATH_SHOWN - 1)));
        assert!(fits.contains("x for "), "{fits}");
        assert!(shown(Method::CONNECT, "host:443").starts_with("CONNECT host:443 for "));
        assert!(shown(Method::OPTIONS, "*").starts_with("OPTIONS * for "));
    }
}
