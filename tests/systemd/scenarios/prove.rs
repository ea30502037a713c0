//! `handover prove`, on the example's own unit: what must be 0 is 0, and where a setting makes it
//! lose requests it says so.

use serde_json::Value;

use super::web::{Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario, handover};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("prove_unit", prove_unit).system_only(),
    Scenario::new("demo_by_systemd", demo_by_systemd).system_only(),
];

fn prove_unit(lab: &Container) -> Outcome {
    let program = lab.install(handover(), "handover")?;
    let web = Web::start(lab, Setup::default())?;
    let report =
        prove(&web, &program, "--reloads 5 --every 1s --keep-alive 40 --fresh 4 --slow 2 --late 4 --half-head 4", 0)?;
    assert_eq!((&report["verdict"], &report["total"]["lost"]), (&"nothing_lost".into(), &0.into()), "{report}");
    assert_eq!(report["generation_told_by"], "process");
    for closed in ["closed", "closed_unannounced", "opened_anew"] {
        assert_eq!(report["total"][closed], 0, "{closed}: {}", report["total"]);
    }
    let reloads = report["reloads"].as_array().ok_or("no reloads")?;
    assert_eq!(reloads.len(), 5);
    for (n, reload) in reloads.iter().enumerate() {
        assert!(reload["first_new_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{reload}");
        assert_eq!(reload["new"], reload["main_pid"].to_string(), "{reload}");
        assert!(reload["usage"]["peak"]["processes"].as_u64() >= Some(2), "{reload}");
        let journal = &reload["journal"];
        assert_eq!(journal["outcome"], "handed_over", "{reload}");
        let [ready, all] = ["ready_ms", "reload_ms"].map(|phase| journal[phase].as_u64());
        assert!(ready.is_some() && ready <= all, "{reload}");
        if let Some(next) = reloads.get(n + 1) {
            assert_eq!(reload["new"], next["old"]);
        }
    }
    assert_eq!(reloads[4]["main_pid"], lab.main_pid(UNIT)?);

    // Where none moves, and without a linger, a connection that has said nothing yet is closed:
    // what is said on it then is lost.
    let web = Web::install(lab, Setup { command: "{dir}/web --linger 0s --migrate never", ..Setup::default() })?;
    lab.systemctl_ok(&["restart", UNIT])?;
    let report = prove(&web, &program, "--reloads 3 --every 1s --keep-alive 20 --late 20", 1)?;
    assert_eq!(report["verdict"], "lost", "{report}");
    let by = &report["total"]["lost_by"];
    let crossed = ["eof", "reset"].iter().filter_map(|cause| by[*cause].as_u64()).sum::<u64>();
    assert_eq!(Some(crossed), report["total"]["lost"].as_u64(), "nothing is lost in another way: {by}");
    let reloads = report["reloads"].as_array().ok_or("no reloads")?;
    assert!(reloads.iter().all(|reload| reload["lost"].as_u64() > Some(0)), "{report}");
    Ok(())
}

/// The demo with the real one in the place of its receiver: the same outcome, and nothing is left.
fn demo_by_systemd(lab: &Container) -> Outcome {
    let program = lab.install(handover(), "handover")?;
    let output = lab.sh(&format!("{program} demo --systemd --json --reloads 3 --duration 3s"))?;
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stdout} {stderr}");
    let report: Value = serde_json::from_str(stdout)?;
    assert_eq!((&report["verdict"], &report["total"]["lost"]), (&"nothing_lost".into(), &0.into()), "{report}");
    let demo = &report["demo"];
    assert!(demo["supervisor"].as_str().is_some_and(|by| by.contains("the system's manager")), "{demo}");
    let versions: Vec<_> = demo["reloads"].as_array().into_iter().flatten().map(|step| &step["version"]).collect();
    assert_eq!(versions, ["exits", "hangs", "good"].map(Value::from).iter().collect::<Vec<_>>(), "{demo}");
    assert!(demo["kill"]["pid"].is_u64(), "{demo}");
    assert_eq!(lab.systemctl(&["list-units", "--all", "--no-legend", "handover-demo-*"])?.stdout, "");
    Ok(())
}

fn prove(web: &Web<'_>, program: &str, options: &str, code: i32) -> Outcome<Value> {
    let output =
        web.lab.sh(&format!("{program} prove --url http://{}/ --unit {UNIT} --json {options}", web.address))?;
    if output.status.code() != Some(code) {
        return Err(format!("exit {:?}, not {code}: {} {}", output.status.code(), output.stdout, output.stderr).into());
    }
    Ok(serde_json::from_str(&output.stdout)?)
}
