//! For people.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{Table, presets};
use serde_json::Value;

use crate::out;
use crate::safe::terminal;

/// Whether there are colours: only on a terminal that has them, and not with `NO_COLOR`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn detect() -> Self {
        Self(out::colours())
    }

    fn with(self, style: Style, text: &str) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    fn state(self, state: &str) -> String {
        let colour = match state {
            "serving" => AnsiColor::Green,
            "reloading" | "handing over" | "trial" | "standby" | "starting" => AnsiColor::Yellow,
            _ => AnsiColor::Red,
        };
        self.with(Style::new().bold().fg_color(Some(colour.into())), state)
    }
}

/// Of a status as JSON, which a service of another version may have written: what is not there is left out.
pub(super) fn text(name: &str, status: &Value, paint: Paint) -> String {
    let state = terminal(status["state"].as_str().unwrap_or("?"));
    let mut head = vec![paint.state(&state)];
    head.extend(status["generation"].as_u64().map(|number| format!("generation {number}")));
    head.extend(status["pid"].as_u64().map(|pid| format!("pid {pid}")));
    head.extend(status["main_ms"].as_u64().map(|ms| format!("main for {}", time(ms))));
    head.extend(status["connections"].as_u64().map(|open| format!("open: {open}")));
    let mut text = format!("{}  {}\n", paint.with(Style::new().bold(), name), head.join(", "));
    for key in ["status_text", "note"] {
        if let Some(line) = status[key].as_str().filter(|line| !line.is_empty()) {
            let _ = writeln!(text, "  {}", terminal(line));
        }
    }
    let mut section = |title: &str, lines: Option<String>| {
        if let Some(lines) = lines {
            let _ = write!(text, "\n{}\n{lines}", paint.with(Style::new().bold(), title));
        }
    };
    section("Supervisor", supervisor(status));
    section("Open", open(status));
    section("Draining", draining(status));
    section("Sockets", sockets(status));
    section("Fd store", store(status));
    section("Last reloads", past(status));
    section("A crash would start a file that failed", failed_program(status));
    section("Settings", settings(status));
    text
}

fn supervisor(status: &Value) -> Option<String> {
    let of = status["supervisor"].as_object()?;
    let number = |key: &str| of.get(key).and_then(Value::as_u64).unwrap_or_default();
    let workers: Vec<String> = of.get("workers")?.as_array()?.iter().map(ToString::to_string).collect();
    let mut text = format!("  handover run, pid {} for {}\n", number("pid"), time(number("age_ms")));
    let _ = writeln!(text, "  {}, pids {}, crashes: {}", shown(&of["program"]), workers.join(" "), number("crashes"));
    if of.get("went_back").is_some_and(|back| *back == true) {
        let _ = writeln!(text, "  after a loop of crashes the last good version runs, not what is at the path");
    }
    if let Some(says) = of.get("says").and_then(Value::as_str) {
        let _ = writeln!(text, "  says: {}", terminal(says));
    }
    Some(text)
}

fn open(status: &Value) -> Option<String> {
    let row = |open: &Value| {
        let listener = shown(&open["listener"]);
        vec![
            if listener.is_empty() { "(jobs)".into() } else { listener },
            shown(&open["protocol"]),
            shown(&open["count"]),
        ]
    };
    table(&["listener", "protocol", "count"], rows(&status["open"], row))
}

fn draining(status: &Value) -> Option<String> {
    let mut text = String::new();
    for older in status["draining"].as_array()? {
        let open = older["connections"].as_u64().map_or("not told".to_owned(), |open| open.to_string());
        let since = time(older["draining_ms"].as_u64().unwrap_or_default());
        let _ = writeln!(
            text,
            "  generation {} (pid {}) for {since}, open: {open}",
            shown(&older["generation"]),
            shown(&older["pid"])
        );
        for work in older["work"].as_array().into_iter().flatten() {
            let _ = writeln!(text, "    {}", shown(work));
        }
    }
    (!text.is_empty()).then_some(text)
}

fn sockets(status: &Value) -> Option<String> {
    let row = |socket: &Value| {
        let waiting = match (socket["waiting"].as_u64(), socket["backlog"].as_u64()) {
            (Some(waiting), Some(backlog)) => format!("{waiting} of {backlog}"),
            _ => String::new(),
        };
        vec![shown(&socket["name"]), shown(&socket["address"]), shown(&socket["kind"]), waiting]
    };
    table(&["name", "address", "what", "waiting"], rows(&status["sockets"], row))
}

fn store(status: &Value) -> Option<String> {
    let row = |entry: &Value| {
        let kept = if entry["stored"] == true { "stored" } else { "in this process only" };
        vec![shown(&entry["name"]), shown(&entry["fds"]), kept.to_owned()]
    };
    table(&["name", "fds", ""], rows(&status["store"], row))
}

fn failed_program(status: &Value) -> Option<String> {
    let of = status["failed_program"].as_object()?;
    let when = UNIX_EPOCH + Duration::from_millis(of.get("failed_unix_ms")?.as_u64()?);
    let field = |name: &str| of.get(name).map(shown).unwrap_or_default();
    let when = humantime::format_rfc3339_seconds(when);
    let (program, generation, sha256) = (field("program"), field("generation"), field("sha256"));
    Some(format!("  {program}, as generation {generation}, at {when}\n  sha256 {sha256}\n"))
}

fn past(status: &Value) -> Option<String> {
    let row = |past: &Value| {
        let ended = UNIX_EPOCH + Duration::from_millis(past["ended_unix_ms"].as_u64().unwrap_or_default());
        vec![
            humantime::format_rfc3339_seconds(ended).to_string(),
            format!("generation {}", shown(&past["generation"])),
            shown(&past["outcome"]).replace('_', " "),
            time(past["took_ms"].as_u64().unwrap_or_default()),
            shown(&past["reason"]),
        ]
    };
    table(&["when", "by", "outcome", "took", "why"], rows(&status["past"], row))
}

fn settings(status: &Value) -> Option<String> {
    let all: Vec<_> =
        status["settings"].as_object()?.iter().map(|(k, v)| format!("  {} = {}", terminal(k), shown(v))).collect();
    (!all.is_empty()).then(|| all.join("\n") + "\n")
}

fn rows(values: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    values.as_array().into_iter().flatten().map(row).collect()
}

fn table(head: &[&str], rows: Vec<Vec<String>>) -> Option<String> {
    if rows.is_empty() {
        return None;
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head).add_rows(rows);
    Some(table.lines().map(|line| format!(" {}\n", line.trim_end())).collect())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => terminal(text),
        other => other.to_string(),
    }
}

fn time(ms: u64) -> String {
    // Of long times the fractions are noise.
    let whole = if ms < 10_000 { ms } else { ms / 1000 * 1000 };
    humantime::format_duration(Duration::from_millis(whole)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_is_shown_whole_and_without_colours() {
        let status = json!({
            "generation": 3, "pid": 42, "state": "serving", "main_ms": 61_500, "connections": 2,
            "open": [{"listener": "http", "protocol": "HTTP/1", "count": 2}],
            "draining": [{"generation": 2, "pid": 40, "draining_ms": 1500, "connections": 1, "work": ["http: GET /\u{1b}[31m"]}],
            "sockets": [{"name": "http", "address": "127.0.0.1:80", "kind": "a listening TCP socket", "waiting": 1, "backlog": 4096}],
            "store": [{"name": "queue", "fds": 1, "stored": true}],
            "past": [{"generation": 2, "outcome": "handed_over", "took_ms": 12, "ended_unix_ms": 0}],
            "settings": {"drain_timeout": "30s"},
            "failed_program": {"program": "/opt/web", "generation": 4, "sha256": "ab12", "failed_unix_ms": 1000},
        });
        let text = text("web.service", &status, Paint(false));
        for part in [
            "web.service  serving, generation 3, pid 42, main for 1m 1s, open: 2",
            "generation 2 (pid 40) for 1s 500ms, open: 1",
            "GET /\\u{1b}[31m",
            "1 of 4096",
            "1970-01-01T00:00:00Z",
            "handed over",
            "drain_timeout = 30s",
            "  /opt/web, as generation 4, at 1970-01-01T00:00:01Z\n  sha256 ab12",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn what_another_version_leaves_out_is_left_out() {
        assert_eq!(text("web", &json!({}), Paint(false)), "web  ?\n");
        let strange =
            json!({"state": 1, "open": {}, "draining": [1, null], "sockets": "x", "past": [[]], "settings": []});
        assert!(text("web", &strange, Paint(false)).starts_with("web  ?"));
    }
}
