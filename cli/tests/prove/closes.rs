//! Connections that the server closed, those opened anew in their place, and when the old process
//! was gone.

use super::server::{Act, Server};
use super::tool::{kind, number, prove, report};
use super::web::Web;

/// Reloads that start nobody.
const NOTHING_NEW: [&str; 10] =
    ["--reload", "true", "--reloads", "2", "--every", "400ms", "--reload-timeout", "400ms", "--cadence", "5ms-15ms"];

fn in_all_reloads(report: &serde_json::Value, what: &str) -> u64 {
    report["reloads"].as_array().unwrap().iter().map(|row| number(&row[what])).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_pause_for_longer_than_the_linger_are_closed_and_come_again() {
    let directory = tempfile::tempdir().unwrap();
    let html = directory.path().join("report.html");
    let web = Web::start(&["--linger", "200ms", "--migrate", "never"]).await;
    let pid = web.pid().to_string();
    let reload = ["--signal", "HUP", "--pid", &pid, "--reloads", "2", "--every", "2s"];
    let clients = ["--keep-alive", "20", "--cadence", "400ms-900ms", "--fresh", "2"];
    let report = report(&web.url, &[&reload[..], &clients, &["--html", html.to_str().unwrap()]].concat()).await;
    let (total, rows) = (&report["total"], report["reloads"].as_array().unwrap());
    for row in rows {
        let [closed, anew] = ["closed", "opened_anew"].map(|what| number(&row[what]));
        // One each, whether it asked once more and was told, or did not.
        assert!((1..=20).contains(&closed) && (1..=closed).contains(&anew), "{row}");
        assert!(number(&row["closed_unannounced"]) <= closed, "{row}");
    }
    for what in ["closed", "closed_unannounced", "opened_anew"] {
        assert_eq!(in_all_reloads(&report, what), number(&total[what]), "{what}: {total}");
        assert_eq!(number(&kind(&report, "keep-alive")[what]), number(&total[what]), "the others end their own");
    }
    assert!(number(&total["closed_unannounced"]) > 0, "the linger ends before the pause does: {total}");
    // It stays for the linger, and ends when nobody is left; on a slow machine that may be late.
    let summary = &report["summary"];
    assert!(rows.iter().all(|row| row["old_gone_ms"].as_f64().is_none_or(|gone| gone >= 200.0)), "{report}");
    let known = rows.iter().filter(|row| !row["old_gone_ms"].is_null()).count() as u64;
    assert_eq!(known + number(&summary["old_still_there"]), 2, "{summary}");
    assert!(known == 0 || summary["old_gone_ms"]["median"].as_f64() > Some(0.0), "{summary}");
    assert!(summary["old_gone_ms"]["median"].as_f64() <= summary["old_gone_ms"]["max"].as_f64(), "{summary}");
    let page = std::fs::read_to_string(&html).unwrap();
    for shown in ["opened anew", "old gone after", "closed by the server"] {
        assert!(page.contains(shown), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_closes_shows_none_and_what_is_not_known_is_not_told() {
    let server = Server::start(|_, _| Act::Answer).await;
    let clients = ["--keep-alive", "4", "--pipelined", "2", "--idle", "10", "--half-head", "2"];
    let arguments = [&NOTHING_NEW[..], &clients].concat();
    let report = report(&server.url, &arguments).await;
    for what in ["closed", "closed_unannounced", "opened_anew", "closed_by_kill"] {
        assert_eq!(number(&report["total"][what]), 0, "{what}: {report}");
    }
    for row in report["reloads"].as_array().unwrap() {
        assert_eq!((number(&row["closed"]), number(&row["opened_anew"])), (0, 0), "{row}");
        assert!(row["old_gone_ms"].is_null(), "nobody was replaced: {row}");
    }
    let summary = &report["summary"];
    assert!(summary["old_gone_ms"].is_null() && summary["closed_per_reload"]["max"] == 0.0, "{summary}");
    assert_eq!(number(&summary["old_still_there"]), 0, "{summary}");
    let told = prove(&server.url, &arguments).await.stdout;
    assert!(told.contains("connections: 0 closed by the server, 0 opened anew\n"), "{told}");
    let gone = told.lines().find(|line| line.starts_with("old process gone after")).unwrap();
    assert_eq!(gone.split_whitespace().skip(4).collect::<Vec<_>>(), ["-", "-", "-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_of_closing_counts_and_belongs_to_its_reload() {
    // Every sixth request on a connection is its last one.
    for (act, announced) in [(Act::AnswerLast, true), (Act::AnswerAndClose, false), (Act::Close, false)] {
        let server = Server::start(move |_, here| if here == 6 { act } else { Act::Answer }).await;
        let clients = ["--keep-alive", "4", "--fresh", "2"];
        let report = report(&server.url, &[&NOTHING_NEW[..], &clients].concat()).await;
        let (total, acts) = (&report["total"], server.acts());
        let [closed, unannounced, anew] = ["closed", "closed_unannounced", "opened_anew"].map(|of| number(&total[of]));
        // The last one of each client may come when the load has ended.
        assert!(acts > 4 && (acts - 4..=acts).contains(&closed), "{act:?}, {acts} times: {total}");
        assert!(anew <= closed && closed <= anew + 4, "{act:?} {total}");
        assert_eq!(unannounced, if announced { 0 } else { closed }, "{act:?} {total}");
        let [closes_announced, idle, lost] =
            ["closes_announced", "closes_unannounced", "lost"].map(|of| number(&total[of]));
        assert_eq!(closed, closes_announced + idle + lost, "{act:?} {total}");
        let later = in_all_reloads(&report, "closed");
        assert!(later > 0 && later < closed, "{act:?}: some were closed before the first reload: {report}");
        assert_eq!(number(&kind(&report, "fresh")["closed"]), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_pause_for_longer_than_answers_may_take() {
    let server = Server::start(|_, _| Act::Answer).await;
    let arguments = ["--reloads", "0", "--every", "200ms", "--duration", "300ms", "--timeout", "5s"];
    let clients = ["--keep-alive", "200", "--pipelined", "1", "--cadence", "60s-90s"];
    let report = report(&server.url, &[&arguments[..], &clients].concat()).await;
    assert_eq!(report["verdict"], "nothing_lost", "{}", report["losses"]);
    assert!(number(&kind(&report, "keep-alive")["answered"]) >= 200);
}
