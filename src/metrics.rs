#![doc = include_str!("docs/metrics.md")]

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::Duration;

#[cfg(feature = "metrics")]
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Connections accepted.
pub const CONNECTIONS: &str = "handover_connections_total";
/// Connections open.
pub const ACTIVE: &str = "handover_connections_active";
/// Connections that ended by themselves in a drain.
pub const DRAINED: &str = "handover_connections_drained_total";
/// Connections that were cut.
pub const HAMMERED: &str = "handover_connections_hammered_total";
/// Connections that went to the next generation.
pub const MOVED: &str = "handover_connections_moved_total";
/// Connections that wait for the next start of the service.
pub const KEPT: &str = "handover_connections_kept_total";
/// Connections that waited for this start and were closed, by reason.
pub const NOT_RESUMED: &str = "handover_connections_not_resumed_total";
/// Connections insured against a crash.
pub const INSURED: &str = "handover_connections_insured";
/// Connections that could not be insured.
pub const UNINSURED: &str = "handover_connections_uninsured_total";
/// Connections that a process left that ended without a word, and that are served on.
pub const RESCUED: &str = "handover_connections_rescued_total";
/// Connections that came from the previous generation, or had waited for this start.
pub const ADOPTED: &str = "handover_connections_adopted_total";
/// Connections that drained where others moved, by reason.
pub const STAYED: &str = "handover_connections_stayed_total";
/// Reloads, by outcome.
pub const RELOADS: &str = "handover_reloads_total";
/// From the request for a reload until the next generation was ready.
pub const READY_SECONDS: &str = "handover_ready_seconds";
/// From ready to main.
pub const SWITCH_SECONDS: &str = "handover_switch_seconds";
/// From the handover to the end of the drain.
pub const DRAIN_SECONDS: &str = "handover_drain_seconds";
/// The number of this generation.
pub const GENERATION: &str = "handover_generation";
/// Older generations that drain.
pub const DRAINING: &str = "handover_generations_draining";
/// Whether the service is paused.
pub const PAUSED: &str = "handover_paused";
/// Watchdog pings, by result.
pub const PINGS: &str = "handover_watchdog_pings_total";

/// Tells the recorder what each name means, and its unit: once, after it was installed.
#[cfg(feature = "metrics")]
pub fn describe() {
    use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(CONNECTIONS, Unit::Count, "connections accepted");
    describe_gauge!(ACTIVE, Unit::Count, "connections open in this generation");
    describe_counter!(DRAINED, Unit::Count, "connections that ended by themselves while their generation drained");
    describe_counter!(HAMMERED, Unit::Count, "connections that were cut at the end of the drain timeout");
    describe_counter!(MOVED, Unit::Count, "connections that went to the next generation");
    describe_counter!(KEPT, Unit::Count, "connections that wait for the next start of the service");
    describe_counter!(NOT_RESUMED, Unit::Count, "connections that waited for this start and were closed, by reason");
    describe_gauge!(INSURED, Unit::Count, "connections insured against a crash");
    describe_counter!(UNINSURED, Unit::Count, "connections that could not be insured");
    describe_counter!(RESCUED, Unit::Count, "connections that a crash left, and that are served on");
    describe_counter!(
        ADOPTED,
        Unit::Count,
        "connections that came from the previous generation, or had waited for this start"
    );
    describe_counter!(STAYED, Unit::Count, "connections that drained while others moved, by reason");
    describe_counter!(RELOADS, Unit::Count, "reloads by their outcome");
    describe_histogram!(
        READY_SECONDS,
        Unit::Seconds,
        "from the request for a reload until the next generation was ready"
    );
    describe_histogram!(SWITCH_SECONDS, Unit::Seconds, "from ready until the next generation was main");
    describe_histogram!(DRAIN_SECONDS, Unit::Seconds, "from the handover until the old generation had drained");
    describe_gauge!(GENERATION, Unit::Count, "the number of this generation");
    describe_gauge!(PAUSED, Unit::Count, "1 while the service is paused");
    describe_gauge!(DRAINING, Unit::Count, "older generations that still drain");
    describe_counter!(PINGS, Unit::Count, "watchdog pings by their result");
}

type Labels = [(&'static str, String)];

/// What one generation counts. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    /// Counted and not passed on yet.
    #[cfg(feature = "metrics")]
    tally: Arc<Mutex<Tally>>,
}

#[cfg(feature = "metrics")]
#[derive(Debug, Default)]
struct Tally {
    counts: BTreeMap<(String, Vec<(String, String)>), u64>,
    /// In µs, to two digits: so many different ones there are, and no more, however many reloads.
    times: BTreeMap<(String, u64), u64>,
}

/// Counts on their way from one generation to another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Carried {
    #[serde(default)]
    counts: Vec<Count>,
    #[serde(default)]
    times: Vec<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    name: String,
    #[serde(default)]
    labels: Vec<(String, String)>,
    by: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Time {
    name: String,
    micros: u64,
    times: u64,
}

impl Metrics {
    /// A connection that has just been accepted.
    pub(crate) fn connection(&self, listener: Arc<str>, protocol: Protocol) -> Counted {
        let connection = Counted {
            metrics: self.clone(),
            listener,
            protocol: AtomicU8::new(protocol as u8),
            counted: AtomicBool::new(false),
        };
        connection.open(protocol, 1.0);
        if protocol != Protocol::Unknown {
            connection.count_once();
        }
        connection
    }

    /// A connection that has just come from another generation, which has counted it if it has
    /// spoken there; or one that comes back, which is not new.
    pub(crate) fn adopted(&self, listener: Arc<str>, protocol: Protocol, is_new: bool) -> Counted {
        let connection = Counted {
            metrics: self.clone(),
            listener,
            protocol: AtomicU8::new(protocol as u8),
            counted: AtomicBool::new(protocol != Protocol::Unknown),
        };
        connection.open(protocol, 1.0);
        if is_new {
            connection.count(ADOPTED);
        }
        connection
    }

    /// So many connections that had waited for this start were closed, for this reason.
    pub(crate) fn not_resumed(&self, reason: &'static str, count: usize) {
        let by = u64::try_from(count).unwrap_or(u64::MAX);
        self.count(NOT_RESUMED, &[("reason", reason.to_owned())], by);
    }

    /// A connection cannot be insured.
    pub(crate) fn uninsured(&self) {
        self.count(UNINSURED, &[], 1);
    }

    /// So many connections that a crash left are served on.
    pub(crate) fn rescued(&self, count: usize) {
        self.count(RESCUED, &[], u64::try_from(count).unwrap_or(u64::MAX));
    }

    pub(crate) fn reload(&self, outcome: &str) {
        self.count(RELOADS, &[("outcome", outcome.to_owned())], 1);
    }

    pub(crate) fn ping(&self, sent: bool) {
        let result = if sent { "sent" } else { "withheld" };
        self.count(PINGS, &[("result", result.to_owned())], 1);
    }
}

#[cfg(feature = "metrics")]
impl Metrics {
    fn count(&self, name: &'static str, labels: &Labels, by: u64) {
        ::metrics::counter!(name, labels).increment(by);
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        *self.tally().counts.entry((name.to_owned(), labels)).or_default() += by;
    }

    /// For the next generation to record: this one is not asked any more.
    pub(crate) fn pass_time(&self, name: &'static str, time: Duration) {
        let micros = two_digits(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
        *self.tally().times.entry((name.to_owned(), micros)).or_default() += 1;
    }

    pub(crate) fn set_gauge(&self, name: &'static str, to: f64) {
        ::metrics::gauge!(name).set(to);
    }

    /// All that was not passed on yet, in parts with at most so many counts.
    pub(crate) fn take(&self, at_most: usize) -> Vec<Carried> {
        let Tally { counts, times } = std::mem::take(&mut *self.tally());
        let counts: Vec<_> = counts.into_iter().map(|((name, labels), by)| Count { name, labels, by }).collect();
        let times: Vec<_> = times.into_iter().map(|((name, micros), times)| Time { name, micros, times }).collect();
        let counts = counts.chunks(at_most).map(|part| Carried { counts: part.to_vec(), times: Vec::new() });
        let times = times.chunks(at_most).map(|part| Carried { counts: Vec::new(), times: part.to_vec() });
        counts.chain(times).collect()
    }

    /// What another generation has counted is ours now.
    pub(crate) fn adopt(&self, carried: Carried) {
        for Count { name, labels, by } in carried.counts {
            ::metrics::counter!(name.clone(), &labels).increment(by);
            *self.tally().counts.entry((name, labels)).or_default() += by;
        }
        for Time { name, micros, times } in carried.times {
            let times_here = usize::try_from(times).unwrap_or(usize::MAX);
            ::metrics::histogram!(name.clone()).record_many(Duration::from_micros(micros).as_secs_f64(), times_here);
            *self.tally().times.entry((name, micros)).or_default() += times;
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rest of the digits are 0.
#[cfg(feature = "metrics")]
fn two_digits(number: u64) -> u64 {
    let unit = 10_u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1));
    number / unit * unit
}

#[cfg(not(feature = "metrics"))]
#[expect(clippy::unused_self, reason = "nothing is counted")]
impl Metrics {
    fn count(&self, _: &'static str, _: &Labels, _: u64) {}
    pub(crate) fn pass_time(&self, _: &'static str, _: Duration) {}
    pub(crate) fn set_gauge(&self, _: &'static str, _: f64) {}
    pub(crate) fn take(&self, _: usize) -> Vec<Carried> {
        Vec::new()
    }
    pub(crate) fn adopt(&self, _: Carried) {}
}

/// What a connection speaks, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Protocol {
    Unknown,
    Http1,
    Http2,
    Upgraded,
    Stream,
}

const PROTOCOLS: [(Protocol, &str); 5] = [
    (Protocol::Unknown, "unknown"),
    (Protocol::Http1, "http1"),
    (Protocol::Http2, "http2"),
    (Protocol::Upgraded, "upgraded"),
    (Protocol::Stream, "stream"),
];

/// One open connection, in the gauge until it is dropped.
pub(crate) struct Counted {
    metrics: Metrics,
    listener: Arc<str>,
    protocol: AtomicU8,
    counted: AtomicBool,
}

impl Counted {
    #[cfg(feature = "http")]
    pub(crate) fn speaks(&self, protocol: Protocol) {
        let before = PROTOCOLS[usize::from(self.protocol.swap(protocol as u8, Relaxed))].0;
        if before != protocol {
            self.open(before, -1.0);
            self.open(protocol, 1.0);
        }
        self.count_once();
    }

    pub(crate) fn listener(&self) -> &str {
        &self.listener
    }

    /// Its listener and its protocol, as the labels have them.
    pub(crate) fn kind(&self) -> (String, &'static str) {
        (self.listener.to_string(), PROTOCOLS[usize::from(self.protocol.load(Relaxed))].1)
    }

    /// It ended by itself in a drain.
    pub(crate) fn drained(&self) {
        self.count(DRAINED);
    }

    /// It was cut.
    pub(crate) fn hammered(&self) {
        self.count(HAMMERED);
    }

    /// It went to the next generation.
    pub(crate) fn moved(&self) {
        self.count(MOVED);
    }

    /// It waits for the next start of the service.
    pub(crate) fn kept(&self) {
        self.count(KEPT);
    }

    /// It drains while others move, for this reason.
    pub(crate) fn stayed(&self, reason: &'static str) {
        let [listener, protocol] = self.labels(self.protocol());
        self.metrics.count(STAYED, &[listener, protocol, ("reason", reason.to_owned())], 1);
    }

    fn count_once(&self) {
        if !self.counted.swap(true, Relaxed) {
            self.count(CONNECTIONS);
        }
    }

    fn count(&self, name: &'static str) {
        self.metrics.count(name, &self.labels(self.protocol()), 1);
    }

    fn protocol(&self) -> Protocol {
        PROTOCOLS[usize::from(self.protocol.load(Relaxed))].0
    }

    fn labels(&self, protocol: Protocol) -> [(&'static str, String); 2] {
        [("listener", self.listener.to_string()), ("protocol", PROTOCOLS[protocol as usize].1.to_owned())]
    }

    fn open(&self, protocol: Protocol, by: f64) {
        #[cfg(feature = "metrics")]
        ::metrics::gauge!(ACTIVE, &self.labels(protocol)).increment(by);
        #[cfg(not(feature = "metrics"))]
        let _ = (ACTIVE, protocol, by);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count_once();
        self.open(self.protocol(), -1.0);
    }
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").field("listener", &self.listener).field("protocol", &self.protocol()).finish()
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on_is_neither_lost_nor_counted_twice() {
        let (old, new) = (Metrics::default(), Metrics::default());
        for listener in 0..5 {
            old.connection(format!("l{listener}").into(), Protocol::Stream);
        }
        old.reload("handed_over");
        old.pass_time(READY_SECONDS, Duration::from_micros(12_345));
        old.pass_time(READY_SECONDS, Duration::from_micros(12_999));
        let parts = old.take(2);
        assert!(parts.iter().all(|part| part.counts.len() + part.times.len() <= 2) && parts.len() == 4, "{parts:?}");
        assert!(old.take(2).is_empty());
        parts.clone().into_iter().for_each(|part| new.adopt(part));
        old.reload("handed_over");
        old.take(9).into_iter().for_each(|part| new.adopt(part));
        let all = new.take(100);
        assert_eq!(all[1].times, [Time { name: READY_SECONDS.into(), micros: 12_000, times: 2 }]);
        let reloads = all[0].counts.iter().find(|count| count.name == RELOADS).unwrap();
        assert_eq!((reloads.by, all[0].counts.len()), (2, 6));
    }

    #[test]
    fn each_name_is_documented() {
        let constants = include_str!("metrics.rs").lines().filter_map(|line| {
            let (_, value) = line.strip_prefix("pub const ")?.split_once(" = \"")?;
            value.strip_suffix("\";")
        });
        let documented = include_str!("docs/metrics.md").lines().filter_map(|line| {
            let (name, _) = line.strip_prefix("| `")?.split_once('`')?;
            Some(name)
        });
        assert_eq!(constants.collect::<Vec<_>>(), documented.collect::<Vec<_>>());
    }

    #[test]
    fn times_keep_two_digits() {
        for (number, kept) in
            [(0, 0), (7, 7), (99, 99), (101, 100), (12_999, 12_000), (u64::MAX, 18_000_000_000_000_000_000)]
        {
            assert_eq!(two_digits(number), kept);
        }
    }
}
