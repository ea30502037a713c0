//! What is written to a terminal fits it, whatever its width.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::colours::{Terminal, on_a_terminal};

const WIDTHS: [u16; 5] = [40, 60, 80, 120, 200];
const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";
const PROCESS_EXIT: &str = "98e322203f7a4ed290d09fe03c09fe15";

fn written(arguments: &[&str], columns: u16, colours: bool) -> String {
    let no_color = if colours { "" } else { "1" };
    on_a_terminal(arguments, &[("NO_COLOR", no_color), ("LANG", "C.UTF-8"), ("TZ", "UTC")], Terminal { columns })
}

/// Every line, without what colours it.
fn lines(text: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut parts = text.split('\u{1b}');
    plain += parts.next().unwrap_or_default();
    for part in parts {
        plain += part.split_once(['m', 'H', 'J']).map_or("", |(_, rest)| rest);
    }
    plain.replace('\r', "").lines().map(str::to_owned).collect()
}

fn too_long(lines: &[String], columns: u16) -> Vec<&String> {
    lines.iter().filter(|line| line.chars().count() > usize::from(columns)).collect()
}

/// Reloads of all kinds and lengths, as the journal has them.
fn journal(drains: bool) -> String {
    use handover::service::events;
    let mut text = String::new();
    let mut at = 1_795_255_200_000_000_u64;
    let mut entry = |at: u64, id: &str, fields: Value| {
        let mut entry = json!({"__REALTIME_TIMESTAMP": at.to_string(), "MESSAGE_ID": id, "_SYSTEMD_UNIT": "web.service", "UNIT": "web.service"});
        for (name, value) in fields.as_object().unwrap() {
            entry[name] = json!(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        text += &format!("{entry}\n");
    };
    entry(at, STARTED, json!({}));
    for generation in 1098..1112_u64 {
        at += 6_000_000_000;
        let own = |more: Value| {
            let mut own = json!({"HANDOVER_ID": format!("{generation:032x}"), "GENERATION": generation, "OLD_PID": 4_194_000 + generation, "NEW_PID": 4_194_001 + generation});
            own.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            own
        };
        match generation % 7 {
            0 => {
                let reason = "said that it failed: the configuration /etc/web/web.toml cannot be read: line 17 has a key that is not known";
                entry(at + 9_000, events::RELOAD_FAILED, own(json!({"RELOAD_MS": 9, "REASON": reason})));
            }
            1 => entry(at + 31_000, events::RELOADED_IN_PLACE, own(json!({"RELOAD_MS": 31}))),
            2 => {
                let message =
                    "web.service: Main process exited, code=killed, status=9/KILL, and a great many words besides";
                entry(at, PROCESS_EXIT, json!({"COMMAND": "ExecStart", "MESSAGE": message}));
            }
            late => {
                let late = late * 7;
                entry(at + 6_000, events::SPAWNED, own(json!({"SPAWN_MS": 6})));
                entry(at + 40_000, events::READY, own(json!({"READY_MS": 40 + late})));
                entry(at + 90_000, events::SWITCHED, own(json!({"SWITCH_MS": 52 + late})));
                entry(at + 91_000, events::HANDED_OVER, own(json!({"HANDOVER_MS": 60 + late})));
                if drains {
                    entry(at + 92_000, events::DRAIN_STARTED, own(json!({"CONNECTIONS": 12})));
                    entry(at + 1_000_000, events::HAMMERED, own(json!({"DRAIN_MS": 61_000 * late, "CUT": 3})));
                }
            }
        }
    }
    text
}

#[test]
fn a_timeline_fits_any_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.json");
    for (name, text) in [("drains", journal(true)), ("no drains", journal(false))] {
        std::fs::write(&path, text).unwrap();
        for columns in WIDTHS {
            let text = written(&["timeline", "web", "--file", path.to_str().unwrap()], columns, true);
            let lines = lines(&text);
            assert_eq!(too_long(&lines, columns), [""; 0], "{name}, {columns}:\n{text}");
            assert!(lines.iter().any(|line| line.chars().count() + 6 > columns.into()), "{columns} are used:\n{text}");
            for words in ["handed over", "reload", "▒", "▚", "✗", "median"] {
                assert!(text.contains(words), "{words}, {name}, {columns}:\n{text}");
            }
            assert_eq!(text.contains("▄"), name == "drains", "{columns}:\n{text}");
        }
    }
}

#[test]
fn ready_and_reload_have_colours_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.json");
    std::fs::write(&path, journal(true)).unwrap();
    let text = written(&["timeline", "web", "--file", path.to_str().unwrap()], 80, true);
    let colours: Vec<_> = ["░░", "▒▒", "▓▓", "██", "▚▚", "▄▄", "✗"]
        .iter()
        .map(|sign| text.split_once(sign).unwrap().0.rsplit_once("\u{1b}[").unwrap().1.to_owned())
        .collect();
    let different: std::collections::BTreeSet<_> = colours.iter().collect();
    assert_eq!(different.len(), colours.len(), "{colours:?}\n{text}");
}

fn status() -> Value {
    let long = "http: 192.0.2.17:51813 (HTTP/1, open for 12.7s), GET /a/rather/long/path/of/a/request?with=a&query=string for 12.6s";
    json!({
        "generation": 12, "pid": 4_194_303, "state": "serving", "age_ms": 999_000, "main_ms": 99_061_500, "connections": 1_234,
        "open": [{"listener": "http", "protocol": "http1", "count": 1_200}, {"listener": "a-longer-name-of-a-socket", "protocol": "upgraded", "count": 34}],
        "draining": [{"generation": 11, "pid": 4_194_301, "draining_ms": 150_000, "connections": 1, "work": [long]}],
        "sockets": [
            {"name": "http", "address": "[2001:db8:0:1:2:3:4:5]:8080", "kind": "a listening TCP socket", "waiting": 1, "backlog": 4096},
            {"name": "control", "address": "/run/web/handover.sock", "kind": "a listening Unix stream socket"},
        ],
        "store": [{"name": "queue", "fds": 1, "stored": true}],
        "past": [{"generation": 11, "outcome": "rolled_back", "took_ms": 12_345, "ended_unix_ms": 1_795_255_200_000_u64,
                  "reason": "generation 12 said that it failed: the configuration /etc/web/web.toml cannot be read"}],
        "settings": {"drain_timeout": "30s", "program": "/opt/web/releases/2026-11-21/bin/web"},
    })
}

/// A service's control interface, as far as `status` is concerned.
fn answer_once(listener: &UnixListener) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != [0] {}
    let answer = json!({"parameters": {"status": status()}}).to_string() + "\0";
    stream.write_all(answer.as_bytes()).unwrap();
}

#[test]
fn a_status_fits_any_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("handover.sock");
    let listener = UnixListener::bind(&path).unwrap();
    for columns in WIDTHS {
        let text = std::thread::scope(|scope| {
            scope.spawn(|| answer_once(&listener));
            written(&["status", "--socket", path.to_str().unwrap()], columns, true)
        });
        let lines = lines(&text);
        assert_eq!(too_long(&lines, columns), [""; 0], "{columns}:\n{text}");
        let words = lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
        for part in
            ["serving", "generation 12", "open: 1234", "1200", "4096", "rolled back", "drain_timeout = 30s", "stored"]
        {
            assert!(words.contains(part), "{part}, {columns}:\n{text}");
        }
        assert!(text.contains("\u{1b}[1m\u{1b}[32mserving"), "{text:?}");
    }
}
