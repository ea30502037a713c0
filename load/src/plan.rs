//! What the clients of one load ask for.

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::body::Body;
use super::expect::Expect;

#[derive(Debug, Clone)]
pub struct Plan {
    /// Of short requests.
    pub path: String,
    pub expect: Expect,
    /// Between two requests of a keep-alive client.
    pub cadence: Range<Duration>,
    /// Between two requests of one that connects for each.
    pub fresh: Range<Duration>,
    /// `{ms}` stands for how long it shall take.
    pub slow_path: String,
    pub slow_expect: Expect,
    pub slow: Range<Duration>,
    pub upload_path: String,
    pub upload_first: Arc<OnceLock<Body>>,
    /// One of them at a time.
    pub downloads: Vec<Download>,
    pub websocket_path: String,
    /// Begin slow requests, uploads and downloads with a short one, so that it is known who has the
    /// connection.
    pub short_first: bool,
    /// How much later than by its nature an answer may come.
    pub limit: Duration,
    /// Between two reloads, at most.
    pub every: Duration,
}

#[derive(Debug, Clone)]
pub struct Download {
    pub path: String,
    pub takes: Duration,
    pub expect: Expect,
}

impl Download {
    /// What the example has at `/stream`.
    pub fn chunks(chunks: u32, interval: Duration) -> Self {
        let path = format!("/stream?chunks={chunks}&interval={}us", interval.as_micros());
        let body: String = (0..chunks).map(|chunk| format!("{chunk:>1023}\n")).collect();
        Self { path, takes: interval * chunks, expect: Expect::Exactly(body.into_bytes().into()) }
    }
}

impl Plan {
    /// For the example service.
    pub fn example() -> Self {
        let ms = Duration::from_millis;
        let downloads = [(20, 40), (30, 15), (40, 25), (50, 30), (60, 10)];
        Self {
            path: "/pid".to_owned(),
            expect: Expect::Pid,
            cadence: ms(20)..ms(60),
            fresh: ms(20)..ms(40),
            slow_path: "/sleep?duration={ms}ms".to_owned(),
            slow_expect: Expect::Pid,
            slow: ms(800)..ms(2200),
            upload_path: "/upload".to_owned(),
            upload_first: Arc::default(),
            downloads: downloads.map(|(chunks, interval)| Download::chunks(chunks, ms(interval))).into(),
            websocket_path: "/ws".to_owned(),
            short_first: true,
            limit: Duration::from_secs(10),
            every: Duration::from_secs(2),
        }
    }
}
