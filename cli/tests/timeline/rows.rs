//! What is read out of a journal.

use handover::service::events;
use serde_json::{Value, json};

use crate::journal::{Journal, PROCESS_EXIT, RELOADED, RELOADING, STARTED, STOPPED, Times};
use crate::tool::{json, reloads, timeline};

fn phases(reload: &Value) -> Vec<(String, u64, u64)> {
    let all = reload["phases"].as_array().unwrap().iter();
    let number = |phase: &Value, name: &str| phase[name].as_u64().unwrap();
    all.map(|p| (p["name"].as_str().unwrap().to_owned(), number(p, "start_ms"), number(p, "ms"))).collect()
}

#[test]
fn a_reload_with_all_its_phases() {
    let mut journal = Journal::new();
    journal.job(7, "done", |j| {
        j.reload(3, Times::USUAL);
    });
    let reloads = reloads(&journal.sorted().text);
    assert_eq!(reloads.len(), 1, "its job and its events are one: {reloads:?}");
    let reload = &reloads[0];
    assert_eq!((&reload["outcome"], &reload["told_by"]), (&json!("handed_over"), &json!("handover")));
    let expected = [("spawn", 0, 6), ("ready", 6, 42), ("switch", 48, 4), ("handover", 52, 6)];
    assert_eq!(phases(reload), expected.map(|(name, start, ms)| (name.to_owned(), start, ms)));
    assert_eq!(
        (&reload["old"], &reload["new"]),
        (&json!({"number": 3, "pid": 1003}), &json!({"number": 4, "pid": 1004}))
    );
    assert_eq!(reload["began"], "2026-11-21T10:00:00.003Z", "3 ms after its job");
    assert_eq!(reload["reload_ms"], 58);
    assert_eq!((&reload["drain"]["ms"], &reload["drain"]["end"]), (&json!(5010), &json!("drained")));
    assert_eq!(reload["drain"]["connections"], 12);
    assert_eq!(reload["job"], json!({"id": 7, "began": "2026-11-21T10:00:00Z", "ms": 62, "result": "done"}));
}

/// `ExecReload=/bin/kill` is over before the service has begun.
#[test]
fn a_job_that_only_asks_is_the_same_reload() {
    let mut journal = Journal::new();
    journal.job(1, "done", |_| {}).wait_ms(4).reload(1, Times::USUAL);
    journal.wait_ms(60_000).job(2, "done", |_| {}).wait_ms(60_000).reload(2, Times::USUAL);
    let reloads = reloads(&journal.sorted().text);
    let told: Vec<_> = reloads.iter().map(|r| (r["told_by"].as_str().unwrap(), r["job"]["id"].as_u64())).collect();
    assert_eq!(told, [("handover", Some(1)), ("systemd", Some(2)), ("handover", None)]);
}

#[test]
fn a_rollback_says_where_and_why() {
    let mut journal = Journal::new();
    journal.rolled_back(4, 30_001, "was not ready within 30s");
    let reload = &reloads(&journal.text)[0];
    assert_eq!(
        (&reload["outcome"], &reload["reason"]),
        (&json!("rolled_back"), &json!("generation 5 was not ready within 30s"))
    );
    assert_eq!(phases(reload), [("spawn".to_owned(), 0, 5), ("ready".to_owned(), 5, 29_996)]);
    assert_eq!(reload["phases"][1]["failed"], true);
}

#[test]
fn a_veto_comes_before_any_process() {
    let mut journal = Journal::new();
    let id = "a".repeat(32);
    let fields = [("HANDOVER_ID", id.as_str()), ("GENERATION", "1"), ("RELOAD_MS", "9"), ("REASON", "was not started")];
    journal.service(9, events::RELOAD_FAILED, &fields);
    let reload = &reloads(&journal.text)[0];
    assert_eq!(phases(reload), [("spawn".to_owned(), 0, 9)]);
    assert_eq!(reload["began"], "2026-11-21T10:00:00Z");
}

#[test]
fn a_service_that_does_not_use_handover() {
    let mut journal = Journal::new();
    journal.systemd(STARTED, &[]).wait_ms(1000);
    journal.job(1, "done", |j| {
        j.wait_ms(250);
    });
    journal.wait_ms(1000).job(2, "failed", |j| {
        let fields = [("COMMAND", "ExecReload"), ("MESSAGE", "web.service: Control process exited, status=1/FAILURE")];
        j.wait_ms(10).systemd(PROCESS_EXIT, &fields);
    });
    let json = json(&journal.text);
    assert_eq!(json["uses_handover"], false);
    let reloads = reloads(&journal.text);
    let outcomes: Vec<_> = reloads.iter().map(|r| (r["outcome"].as_str().unwrap(), r["reload_ms"].as_u64())).collect();
    assert_eq!(outcomes, [("reloaded", Some(254)), ("failed", Some(14))]);
    assert_eq!(reloads[1]["reason"], "web.service: Control process exited, status=1/FAILURE");
    let text = timeline(&[], &journal.text).stdout;
    assert!(text.contains("2 reloads (1 reloaded, 1 failed)") && text.contains("Control process exited"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn a_crash_ends_what_was_under_way() {
    let mut journal = Journal::new();
    journal.reload(1, Times { drain: 90_000, ..Times::USUAL }).wait_ms(1000);
    let id = "b".repeat(32);
    journal.service(0, events::RELOAD_STARTED, &[("HANDOVER_ID", &id), ("GENERATION", "2"), ("OLD_PID", "1002")]);
    let killed =
        [("COMMAND", "ExecStart"), ("MESSAGE", "web.service: Main process exited, code=killed, status=9/KILL")];
    journal.wait_ms(5).systemd(PROCESS_EXIT, &killed).wait_ms(5).systemd(STARTED, &[]);
    // What the killed one would have logged has not come.
    let text: String =
        journal.text.lines().filter(|l| !l.contains(events::DRAINED)).map(|l| format!("{l}\n")).collect();
    let all = json(&text);
    let rows = all["rows"].as_array().unwrap();
    let kinds: Vec<_> = rows.iter().map(|r| r["kind"].as_str().or(r["outcome"].as_str()).unwrap()).collect();
    assert_eq!(kinds, ["handed_over", "interrupted", "process_exit", "started"]);
    assert_eq!(rows[0]["drain"]["end"], "unknown");
}

#[test]
fn what_is_still_going_on() {
    let mut journal = Journal::new();
    journal.reload(1, Times::USUAL);
    let text: String =
        journal.text.lines().filter(|l| !l.contains(events::DRAINED)).map(|l| format!("{l}\n")).collect();
    assert_eq!(reloads(&text)[0]["drain"]["end"], "draining");
    let begun: String = journal.text.lines().take(3).map(|l| format!("{l}\n")).collect();
    assert_eq!(reloads(&begun)[0]["outcome"], "under_way");
    assert!(timeline(&[], &begun).stdout.contains("1 reload (1 under way)"));
}

#[test]
fn cut_connections_are_counted() {
    let mut journal = Journal::new();
    journal.reload(1, Times::USUAL);
    let hammered =
        [("HANDOVER_ID", &*format!("{:032x}", 1)), ("GENERATION", "1"), ("OLD_PID", "1001"), ("NEW_PID", "1002")];
    journal.service(30_000, events::HAMMERED, &[&hammered[..], &[("DRAIN_MS", "30000"), ("CUT", "3")]].concat());
    let text: String =
        journal.text.lines().filter(|l| !l.contains(events::DRAINED)).map(|l| format!("{l}\n")).collect();
    assert_eq!(reloads(&text)[0]["drain"]["cut"], 3);
    let shown = timeline(&[], &text).stdout;
    assert!(
        shown.contains("drain timeout over, connections cut: 3") && shown.contains("\nconnections cut: 3"),
        "{shown}"
    );
}

#[test]
fn what_moved_is_shown_in_every_form() {
    let mut journal = Journal::new();
    journal.reload(1, Times { drain: 2_000, ..Times::USUAL }).moved(1, (9_998, 2), 1_500);
    journal.wait_ms(60_000).reload(2, Times { drain: 2_000, ..Times::USUAL });
    let journal = journal.sorted().text;
    let all = reloads(&journal);
    assert_eq!(all[0]["drain"]["moves"], json!({"moved": 9_998, "stayed": 2, "ms": 1_500}));
    assert_eq!(all[1]["drain"]["moves"], Value::Null, "a generation that knows nothing of it");
    let text = timeline(&["--width", "100"], &journal).stdout;
    assert!(text.contains("▞▞ moving") && text.contains("\n   moved 9998 in 1.50 s, stayed 2\n"), "{text}");
    let bar = text.lines().find(|line| line.starts_with("1  ")).unwrap();
    let count = |cell: char| bar.chars().filter(|c| *c == cell).count();
    assert!(count('▄') > 0 && (2..=4).contains(&(count('▞') / count('▄'))), "three quarters of it: {bar}");
    assert!(text.contains("\nconnections moved: 9998, stayed: 2\nconnections cut: 0"), "{text}");
    assert!(timeline(&["--ascii"], &journal).stdout.contains("mmm"));
    for form in ["--svg", "--html"] {
        let picture = timeline(&[form, "-"], &journal).stdout;
        assert!(picture.contains("moved 9998 in 1.50 s, stayed 2") && picture.contains("#cc79a7"), "{form}");
    }
    let row = |name: &str| journal.lines().filter(|l| !l.contains(name)).map(|l| format!("{l}\n")).collect::<String>();
    let moving = timeline(&[], &row(events::DRAINED)).stdout;
    assert!(moving.contains('▞') && moving.contains('…'), "the drain goes on: {moving}");
}

/// The drain of a stop has the id of the reload that brought the generation, and is none of that
/// reload.
#[test]
fn a_stop_is_no_drain_of_a_reload() {
    let mut journal = Journal::new();
    journal.reload(1, Times::USUAL).wait_ms(10_000);
    let id = format!("{:032x}", 1);
    let own = [("HANDOVER_ID", id.as_str()), ("GENERATION", "2"), ("OLD_PID", "1002")];
    journal.service(0, events::DRAIN_STARTED, &own);
    journal.service(900, events::DRAINED, &[&own[..], &[("DRAIN_MS", "900")]].concat());
    journal.wait_ms(901).systemd(STOPPED, &[]);
    assert_eq!(reloads(&journal.sorted().text)[0]["drain"]["ms"], 5010);
}

/// A unit of `systemctl --user`, as the system's journal has it.
#[test]
fn units_of_a_user() {
    let mut journal = Journal::new();
    let user = [("_SYSTEMD_USER_UNIT", "mine.service")];
    let id = "c".repeat(32);
    let fields = [("HANDOVER_ID", id.as_str()), ("GENERATION", "1"), ("SPAWN_MS", "3")];
    journal.unit = "user@1000.service".into();
    journal.service(3, events::SPAWNED, &[&fields[..], &user].concat());
    let all = json(&journal.text);
    assert_eq!(all["unit"], "mine.service");
    let _ = (RELOADING, RELOADED);
}
