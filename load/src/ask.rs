//! What clients ask for.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::body::Body;
use super::expect::Expect;
use super::until::Signals;

/// A request and what its answer must be.
#[derive(Debug, Clone)]
pub struct Ask {
    pub(super) method: &'static str,
    pub(super) path: String,
    /// The body in the pieces in which it is written; none: the request has no body.
    pub(super) body: Vec<Vec<u8>>,
    /// The wait before each piece of the body.
    pub(super) pause: Duration,
    /// Where the head is written in two pieces, at this part of its length in thousandths, and what
    /// comes between.
    pub(super) split: Option<(usize, Hold)>,
    pub(super) expect: Expect,
    /// The time that the server takes for it by its nature.
    pub(super) takes: Duration,
    /// Whether the client says that it closes afterwards.
    pub(super) close: bool,
}

/// A wait of the client's own.
#[derive(Debug, Clone)]
pub(super) enum Hold {
    For(Duration),
    /// Until so long after the next reload begins; if none does, until `most`.
    Reload {
        after: Duration,
        most: Duration,
        signals: Signals,
    },
}

impl Hold {
    pub(super) async fn wait(&self) {
        match self {
            Self::For(time) => tokio::time::sleep(*time).await,
            Self::Reload { after, most, signals } => signals.clone().reload(*after, *most).await,
        }
    }

    pub(super) fn most(&self) -> Duration {
        match self {
            Self::For(time) => *time,
            Self::Reload { most, after, .. } => *most + *after,
        }
    }
}

impl Ask {
    pub fn get(path: &str, expect: Expect) -> Self {
        Self {
            method: "GET",
            path: path.to_owned(),
            body: Vec::new(),
            pause: Duration::ZERO,
            split: None,
            expect,
            takes: Duration::ZERO,
            close: false,
        }
    }

    /// A body in one piece, and its echo.
    pub fn upload(path: &str, body: Vec<u8>, first: &Arc<OnceLock<Body>>) -> Self {
        let expect = Expect::Echo { body: body.as_slice().into(), first: Arc::clone(first) };
        Self { method: "POST", body: vec![body], ..Self::get(path, expect) }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn taking(mut self, time: Duration) -> Self {
        self.takes = time;
        self
    }

    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// As HTTP/1 has it.
    pub(super) fn head(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", self.method, self.path);
        if !self.body.is_empty() {
            let length: usize = self.body.iter().map(Vec::len).sum();
            head += &format!("Content-Length: {length}\r\n");
        }
        if self.close {
            head += "Connection: close\r\n";
        }
        (head + "\r\n").into_bytes()
    }
}
