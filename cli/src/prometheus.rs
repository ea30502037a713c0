//! A status as Prometheus reads it: for the textfile collector, and for `handover run --metrics`.
//! Where the library has a metric of that meaning, the name is the same.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::believed;
use crate::safe;

/// The content type of the text format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Of whom a text is.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// The unit, or the program where there is none.
    pub(crate) unit: String,
}

/// What is known of a service, one line for each value.
#[derive(Debug)]
struct Text {
    text: String,
    unit: String,
}

impl Service {
    /// The text of a service that runs. `None`: it does not, or does not answer.
    pub(crate) fn render(&self, status: Option<&Value>) -> String {
        let mut text = Text { text: String::new(), unit: escaped(&self.unit) };
        let pid = status.and_then(|status| believed::pid(&status["pid"])).filter(|pid| *pid != 0);
        text.gauge(
            "handover_up",
            "1: the service runs and says so; 0: it does not",
            [(vec![], pid.map(|_| 1.0).or(Some(0.0)))],
        );
        let (Some(status), Some(pid)) = (status, pid) else { return text.text };
        text.service(status);
        text.reloads(status);
        text.drains(status);
        text.program(status, pid);
        text.text
    }
}

impl Text {
    fn service(&mut self, status: &Value) {
        self.gauge(
            "handover_generation",
            "the number of the main generation",
            [(vec![], number(&status["generation"]))],
        );
        let paused = if status["paused"].is_object() { 1.0 } else { 0.0 };
        self.gauge("handover_paused", "1: the service is paused, and its clients wait", [(vec![], Some(paused))]);
        self.gauge("handover_main_seconds", "for how long it is main", [(vec![], seconds(&status["main_ms"]))]);
        let open = list(&status["open"]).map(|open| {
            let label = |name: &'static str| (name, open[name].as_str().unwrap_or_default().to_owned());
            (vec![label("listener"), label("protocol")], number(&open["count"]))
        });
        self.gauge("handover_connections_active", "connections open in the main generation", open);
    }

    fn reloads(&mut self, status: &Value) {
        let last = list(&status["past"]).last();
        let of = |value: fn(&Value) -> Option<f64>| [(vec![], last.and_then(value))];
        let succeeded = |past: &Value| Some(f64::from(u8::from(past["outcome"] != "rolled_back")));
        self.gauge(
            "handover_last_reload_success",
            "1: the last reload succeeded; 0: it was rolled back",
            of(succeeded),
        );
        let ended = of(|past| seconds(&past["ended_unix_ms"]));
        self.gauge("handover_last_reload_timestamp_seconds", "when the last reload was over", ended);
        let took = of(|past| seconds(&past["took_ms"]));
        self.gauge("handover_last_reload_duration_seconds", "how long the last reload took", took);
        let failed = f64::from(u8::from(!status["failed_program"].is_null()));
        let help = "1: the program at its path is one that a reload failed with, and a restart would start it";
        self.gauge("handover_program_failed", help, [(vec![], Some(failed))]);
    }

    fn drains(&mut self, status: &Value) {
        let all: Vec<_> = list(&status["draining"]).collect();
        #[expect(clippy::cast_precision_loss, reason = "there are few")]
        let count = all.len() as f64;
        self.gauge("handover_generations_draining", "older generations that still drain", [(vec![], Some(count))]);
        let oldest = all.iter().filter_map(|older| seconds(&older["draining_ms"])).fold(0.0, f64::max);
        self.gauge("handover_drain_oldest_seconds", "for how long the oldest of them drains", [(vec![], Some(oldest))]);
        let open = all.iter().filter_map(|older| number(&older["connections"])).sum();
        self.gauge("handover_drain_connections", "what they still have open", [(vec![], Some(open))]);
        let limit = status["settings"]["drain_timeout"].as_str();
        let limit =
            limit.and_then(|text| humantime::parse_duration(text).ok()).map(|limit: Duration| limit.as_secs_f64());
        self.gauge("handover_drain_timeout_seconds", "how long a drain may take", [(vec![], limit)]);
    }

    fn program(&mut self, status: &Value, pid: u32) {
        let version = status["version"].as_str().unwrap_or_default().to_owned();
        let sha256 = sha256_of(pid).unwrap_or_default();
        let labels = vec![("sha256", sha256), ("handover", version)];
        self.gauge("handover_program_info", "the program that the main generation runs", [(labels, Some(1.0))]);
        let supervisor = &status["supervisor"];
        self.metric(
            "counter",
            "handover_crashes_total",
            "how often a process of the program ended that nobody had told to",
            [(vec![], number(&supervisor["crashes"]))],
        );
        let went_back = supervisor["went_back"].as_bool().map(|is| f64::from(u8::from(is)));
        let help = "1: after a loop of crashes an older version runs than the one at the path";
        self.gauge("handover_went_back", help, [(vec![], went_back)]);
    }

    fn gauge(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, Option<f64>)>) {
        self.metric("gauge", name, help, values);
    }

    /// Nothing where nothing is known.
    fn metric(&mut self, kind: &str, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, Option<f64>)>) {
        let known = values.into_iter().filter_map(|(labels, value)| Some((labels, value?)));
        for (place, (labels, value)) in known.enumerate() {
            if place == 0 {
                let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
            let labels: String =
                labels.iter().map(|(label, value)| format!(",{label}=\"{}\"", escaped(value))).collect();
            let _ = writeln!(self.text, "{name}{{unit=\"{}\"{labels}}} {value}", self.unit);
        }
    }
}

type Labels = Vec<(&'static str, String)>;

/// As it can stand between quotes. What a service says is somebody's text.
fn escaped(text: &str) -> String {
    safe::terminal(text).replace('\\', r"\\").replace('"', r#"\""#)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

/// Of milliseconds.
fn seconds(value: &Value) -> Option<f64> {
    Some(number(value)? / 1000.0)
}

/// The file that it was started from, whatever stands at its path by now. Nothing where this user
/// may not see it.
fn sha256_of(pid: u32) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(format!("/proc/{pid}/exe"))?, &mut hash)?;
    let mut digits = String::new();
    hash.finalize().iter().for_each(|byte| _ = write!(digits, "{byte:02x}"));
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(status: Option<&Value>) -> String {
        Service { unit: "web.service".to_owned() }.render(status)
    }

    #[test]
    fn what_does_not_run_is_down() {
        let down = "handover_up{unit=\"web.service\"} 0\n";
        assert!(render(None).ends_with(down));
        assert!(render(Some(&json!({"state": "stopped"}))).ends_with(down));
    }

    #[test]
    fn a_status_has_a_line_for_each_value() {
        let status = json!({
            "generation": 3, "pid": std::process::id(), "main_ms": 1500, "version": "1.2.3",
            "open": [{"listener": "a \"b\"\\\n", "protocol": "http1", "count": 2}],
            "draining": [{"draining_ms": 4000, "connections": 1}, {"draining_ms": 9000, "connections": null}],
            "settings": {"drain_timeout": "1m 30s"},
            "past": [{"outcome": "handed_over", "took_ms": 80, "ended_unix_ms": 1000},
                     {"outcome": "rolled_back", "took_ms": 90, "ended_unix_ms": 2000}],
        });
        let text = render(Some(&status));
        for line in [
            "handover_up{unit=\"web.service\"} 1",
            "handover_generation{unit=\"web.service\"} 3",
            "handover_paused{unit=\"web.service\"} 0",
            "handover_main_seconds{unit=\"web.service\"} 1.5",
            r#"handover_connections_active{unit="web.service",listener="a \"b\"\\ ",protocol="http1"} 2"#,
            "handover_last_reload_success{unit=\"web.service\"} 0",
            "handover_last_reload_timestamp_seconds{unit=\"web.service\"} 2",
            "handover_generations_draining{unit=\"web.service\"} 2",
            "handover_drain_oldest_seconds{unit=\"web.service\"} 9",
            "handover_drain_timeout_seconds{unit=\"web.service\"} 90",
            "# TYPE handover_up gauge",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("handover_crashes_total"), "no supervisor tells it:\n{text}");
        assert!(text.contains("handover_program_info{unit=\"web.service\",sha256=\""));
    }
}
