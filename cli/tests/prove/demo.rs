//! The demo: a script over what `prove` does, on any terminal.

use serde_json::Value;

use super::terminal::{assert_fits, lines, on_a_terminal};
use super::tool::{number, run};

const SHORT: [&str; 5] = ["demo", "--reloads", "3", "--duration", "1s"];

#[tokio::test(flavor = "multi_thread")]
async fn its_figures_are_those_of_prove_and_its_own_stand_beside_them() {
    let run = run(&[&SHORT[..], &["--json"]].concat()).await;
    let report: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {run:?}"));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    assert_eq!((&report["format"], &report["verdict"]), (&1.into(), &"nothing_lost".into()), "{}", report["problems"]);
    let (total, demo) = (&report["total"], &report["demo"]);
    let ended = ["answered", "handed_back", "lost", "lost_to_kill"].map(|of| number(&total[of])).iter().sum::<u64>();
    assert_eq!(number(&total["sent"]), ended, "{total}");
    assert_eq!(number(&total["clients"]), 84);
    let (rows, steps) = (report["reloads"].as_array().unwrap(), demo["reloads"].as_array().unwrap());
    let versions: Vec<_> = steps.iter().map(|step| step["version"].as_str().unwrap()).collect();
    assert_eq!((rows.len(), versions), (3, vec!["exits", "hangs", "good"]));
    for (row, step) in rows.iter().zip(steps) {
        assert_eq!((&row["n"], &row["main_pid"]), (&step["n"], &step["main"]), "{row} {step}");
        let good = step["version"] == "good";
        assert_eq!((row["failed"].is_null(), row["new"].is_null()), (good, !good), "{row}");
        if !good {
            assert_eq!((number(&row["closed"]), &row["old_gone_ms"]), (0, &Value::Null), "nobody is replaced: {row}");
        }
        assert!(step["ready_ms"].as_f64() > Some(0.0) && step["ready_ms"].as_f64() <= row["asked_ms"].as_f64());
    }
    // Those that ended with the killed process are set apart.
    let closed: u64 = rows.iter().map(|row| number(&row["closed"])).sum();
    assert_eq!(number(&total["closed"]), closed, "{total}");
    assert!(number(&total["closed_by_kill"]) >= 64, "{total}");
    assert_eq!(rows[2]["new"], steps[2]["main"].to_string());
    assert_eq!((number(&demo["generations"]), &demo["kill"]["main"]), (3, &steps[2]["main_before"]));
}

#[test]
fn it_fits_a_narrow_terminal_and_a_wide_one() {
    for columns in [40, 60, 80, 120, 200] {
        let (written, code) = on_a_terminal(columns, &SHORT);
        assert_eq!(code, Some(0), "{written}");
        assert_fits(&written, columns);
        assert_eq!(lines(&written).last().map(String::as_str), Some("No client noticed a reload."), "{written}");
        let (reload, ready) = ("\u{1b}[35mreload 1\u{1b}[0m", "\u{1b}[36mready");
        assert!(written.contains(reload) && written.contains(ready), "each has its colour: {written}");
    }
}
