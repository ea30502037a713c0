//! For people, on terminals of any width.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use comfy_table::{Table, presets};
use serde_json::Value;

use crate::safe::terminal;
use crate::terminal::{Ink, Look};

fn painted_state(look: Look, state: &str) -> String {
    let ink = match state {
        "serving" => Ink::Good,
        "reloading" => Ink::Whole,
        "handing over" | "trial" | "standby" | "starting" => Ink::Switch,
        // Somebody wanted it so.
        "stopped" => Ink::Plain,
        _ => Ink::Bad,
    };
    look.paint(Ink::Bold, &look.paint(ink, state))
}

/// Of a status as JSON, which a service of another version may have written: what is not there is
/// left out.
pub(super) fn text(name: &str, status: &Value, look: Look) -> String {
    let state = terminal(status["state"].as_str().unwrap_or("?"));
    let mut head = vec![state.clone()];
    head.extend(status["generation"].as_u64().map(|number| format!("generation {number}")));
    head.extend(status["pid"].as_u64().map(|pid| format!("pid {pid}")));
    head.extend(status["main_ms"].as_u64().map(|ms| format!("main for {}", time(ms))));
    head.extend(status["connections"].as_u64().map(|open| format!("open: {open}")));
    let mut text = first(&terminal(name), &state, &head.join(", "), look);
    for key in ["status_text", "note"] {
        if let Some(line) = status[key].as_str().filter(|line| !line.is_empty()) {
            text += &look.fit(2, &terminal(line));
        }
    }
    let mut section = |title: &str, lines: Option<String>| {
        if let Some(lines) = lines {
            let _ = write!(text, "\n{}\n{lines}", look.paint(Ink::Bold, title));
        }
    };
    section("Paused", paused(status, look));
    section("Supervisor", supervisor(status, look));
    section("Open", open(status, look));
    section("Moved", moves(status, look));
    section("Draining", draining(status, look));
    section("Sockets", sockets(status, look));
    section("Fd store", store(status, look));
    section("Last reloads", past(status, look));
    section("A crash would start a file that failed", failed_program(status, look));
    section("A reload stays in the old root", old_root(status, look));
    section("Settings", settings(status, look));
    text
}

/// The name, and what goes for the whole service.
fn first(name: &str, state: &str, facts: &str, look: Look) -> String {
    let painted = |facts: &str| match facts.strip_prefix(state) {
        Some(rest) => painted_state(look, state) + rest,
        None => facts.to_owned(),
    };
    let long = name.chars().count() + 2 + facts.chars().count();
    if long <= look.width() {
        return format!("{}  {}\n", look.paint(Ink::Bold, name), painted(facts));
    }
    let names = look.fit(0, name);
    let mut text: String = names.lines().map(|line| look.paint(Ink::Bold, line) + "\n").collect();
    for (number, line) in look.fit(2, facts).lines().enumerate() {
        text += &if number == 0 { format!("  {}\n", painted(line.trim_start())) } else { format!("{line}\n") };
    }
    text
}

fn paused(status: &Value, look: Look) -> Option<String> {
    let of = status["paused"].as_object()?;
    let number = |key: &str| of.get(key).and_then(Value::as_u64).unwrap_or_default();
    let rest = match of.get("at_rest") {
        Some(Value::Bool(true)) => "nothing is in hand".to_owned(),
        _ => format!("in hand: {}", number("in_hand")),
    };
    let (since, left) = (time(number("since_ms")), time(number("left_ms")));
    let mut text = look.fit(2, &format!("for {since}, serves again by itself in {left}, {rest}"));
    for work in of.get("work").and_then(Value::as_array).into_iter().flatten() {
        text += &look.fit(4, &shown(work));
    }
    Some(text)
}

fn supervisor(status: &Value, look: Look) -> Option<String> {
    let of = status["supervisor"].as_object()?;
    let number = |key: &str| of.get(key).and_then(Value::as_u64).unwrap_or_default();
    let workers: Vec<String> = of.get("workers")?.as_array()?.iter().map(ToString::to_string).collect();
    let mut text = look.fit(2, &format!("handover run, pid {} for {}", number("pid"), time(number("age_ms"))));
    let crashes = number("crashes");
    text += &look.fit(2, &format!("{}, pids {}, crashes: {crashes}", shown(&of["program"]), workers.join(" ")));
    if of.get("went_back").is_some_and(|back| *back == true) {
        text += &look.fit(2, "after a loop of crashes the last good version runs, not what is at the path");
    }
    if let Some(says) = of.get("says").and_then(Value::as_str) {
        text += &look.fit(2, &format!("says: {}", terminal(says)));
    }
    Some(text)
}

fn open(status: &Value, look: Look) -> Option<String> {
    let row = |open: &Value| {
        let listener = shown(&open["listener"]);
        vec![
            if listener.is_empty() { "(jobs)".into() } else { listener },
            shown(&open["protocol"]),
            shown(&open["count"]),
        ]
    };
    table(&["listener", "protocol", "count"], &rows(&status["open"], row), look)
}

/// Of connections, what came from the previous generation and what went to the next one.
fn moves(status: &Value, look: Look) -> Option<String> {
    let of = &status["moves"];
    let count = |key: &str| of[key].as_u64().filter(|count| *count > 0);
    let came = count("adopted").map(|count| format!("from the previous generation: {count}"));
    let went = count("moved").map(|count| format!("to the next generation: {count}"));
    let all: Vec<String> = [came, went, stayed(&of["stayed"])].into_iter().flatten().collect();
    (!all.is_empty()).then(|| look.fit(2, &all.join(", ")))
}

/// `stayed: 3 (streams: 2, off: 1)`
fn stayed(reasons: &Value) -> Option<String> {
    let reasons = reasons.as_object().filter(|reasons| !reasons.is_empty())?;
    let counted = || reasons.iter().map(|(reason, count)| (reason, count.as_u64().unwrap_or_default()));
    let sum = counted().map(|(_, count)| count).fold(0, u64::saturating_add);
    let each: Vec<String> = counted().map(|(reason, count)| format!("{}: {count}", terminal(reason))).collect();
    Some(format!("stayed: {sum} ({})", each.join(", ")))
}

fn draining(status: &Value, look: Look) -> Option<String> {
    let mut text = String::new();
    for older in status["draining"].as_array()? {
        let open = older["connections"].as_u64().map_or("not told".to_owned(), |open| open.to_string());
        let since = time(older["draining_ms"].as_u64().unwrap_or_default());
        let (number, pid) = (shown(&older["generation"]), shown(&older["pid"]));
        let moved = older["moved"].as_u64().map(|count| format!(", moved: {count}")).unwrap_or_default();
        let stayed = stayed(&older["stayed"]).map(|stayed| format!(", {stayed}")).unwrap_or_default();
        text += &look.fit(2, &format!("generation {number} (pid {pid}) for {since}, open: {open}{moved}{stayed}"));
        for work in older["work"].as_array().into_iter().flatten() {
            text += &look.fit(4, &shown(work));
        }
    }
    (!text.is_empty()).then_some(text)
}

fn sockets(status: &Value, look: Look) -> Option<String> {
    let row = |socket: &Value| {
        let waiting = match (socket["waiting"].as_u64(), socket["backlog"].as_u64()) {
            (Some(waiting), Some(backlog)) => format!("{waiting} of {backlog}"),
            _ => String::new(),
        };
        vec![shown(&socket["name"]), shown(&socket["address"]), shown(&socket["kind"]), waiting]
    };
    table(&["name", "address", "what", "waiting"], &rows(&status["sockets"], row), look)
}

fn store(status: &Value, look: Look) -> Option<String> {
    let row = |entry: &Value| {
        let kept = if entry["stored"] == true { "stored" } else { "in this process only" };
        vec![shown(&entry["name"]), shown(&entry["fds"]), kept.to_owned()]
    };
    table(&["name", "fds", ""], &rows(&status["store"], row), look)
}

fn old_root(status: &Value, look: Look) -> Option<String> {
    status["old_root"].as_str().map(|text| look.fit(2, &terminal(text)))
}

fn failed_program(status: &Value, look: Look) -> Option<String> {
    let of = status["failed_program"].as_object()?;
    let when = UNIX_EPOCH + Duration::from_millis(of.get("failed_unix_ms")?.as_u64()?);
    let field = |name: &str| of.get(name).map(shown).unwrap_or_default();
    let when = humantime::format_rfc3339_seconds(when);
    let mut text = look.fit(2, &format!("{}, as generation {}, at {when}", field("program"), field("generation")));
    if of.contains_key("sha256") {
        text += &look.fit(2, &format!("sha256 {}", field("sha256")));
    }
    Some(text)
}

fn past(status: &Value, look: Look) -> Option<String> {
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
    table(&["when", "by", "outcome", "took", "why"], &rows(&status["past"], row), look)
}

fn settings(status: &Value, look: Look) -> Option<String> {
    let line = |(key, value): (&String, &Value)| look.fit(2, &format!("{} = {}", terminal(key), shown(value)));
    let all: String = status["settings"].as_object()?.iter().map(line).collect();
    (!all.is_empty()).then_some(all)
}

fn rows(values: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    values.as_array().into_iter().flatten().map(row).collect()
}

/// A row of a table that is too wide for the terminal is a paragraph: what it is about, and below
/// it the rest with their names.
fn table(head: &[&str], rows: &[Vec<String>], look: Look) -> Option<String> {
    if rows.is_empty() {
        return None;
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head).add_rows(rows);
    let lines: Vec<String> = table.lines().map(|line| format!(" {}", line.trim_end())).collect();
    if lines.iter().all(|line| line.chars().count() <= look.width()) {
        return Some(lines.iter().map(|line| format!("{line}\n")).collect());
    }
    let mut text = String::new();
    for row in rows {
        let mut cells = head.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        text += &look.fit(2, cells.next().map(|(_, cell)| cell.as_str()).unwrap_or_default());
        let rest = cells.map(|(name, cell)| if name.is_empty() { cell.clone() } else { format!("{name}: {cell}") });
        text += &look.fit(4, &rest.collect::<Vec<_>>().join(", "));
    }
    Some(text)
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
            "moves": {"adopted": 97, "moved": 0, "stayed": {}},
            "draining": [{"generation": 2, "pid": 40, "draining_ms": 1500, "connections": 1, "moved": 97, "stayed": {"off": 1, "streams": 2}, "work": ["http: GET /\u{1b}[31m"]}],
            "sockets": [{"name": "http", "address": "127.0.0.1:80", "kind": "a listening TCP socket", "waiting": 1, "backlog": 4096}],
            "store": [{"name": "queue", "fds": 1, "stored": true}],
            "past": [{"generation": 2, "outcome": "handed_over", "took_ms": 12, "ended_unix_ms": 0}],
            "settings": {"drain_timeout": "30s"},
            "paused": {"since_ms": 2000, "left_ms": 598_400, "at_rest": false, "in_hand": 1, "work": ["http: GET /slow"]},
            "failed_program": {"program": "/opt/web", "generation": 4, "sha256": "ab12", "failed_unix_ms": 1000},
        });
        let text = text("web.service", &status, Look::plain(usize::MAX));
        for part in [
            "web.service  serving, generation 3, pid 42, main for 1m 1s, open: 2",
            "generation 2 (pid 40) for 1s 500ms, open: 1, moved: 97, stayed: 3 (off: 1, streams: 2)",
            "Paused\n  for 2s, serves again by itself in 9m 58s, in hand: 1\n    http: GET /slow\n",
            "Moved\n  from the previous generation: 97\n",
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
        assert_eq!(text("web", &json!({}), Look::plain(usize::MAX)), "web  ?\n");
        let strange =
            json!({"state": 1, "open": {}, "draining": [1, null], "sockets": "x", "past": [[]], "settings": []});
        assert!(text("web", &strange, Look::plain(usize::MAX)).starts_with("web  ?"));
    }
}
