//! `handover timeline` and `handover status` tell what is true, and no more.

use std::time::Duration;

use serde_json::Value;

use super::web::{Setup, Type, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario, handover};

pub(super) const SCENARIOS: &[Scenario] =
    &[Scenario::new("timeline_of_40", timeline_of_40).system_only(), Scenario::new("status_of_units", status_of_units)];

const RELOADS: usize = 40;

/// Each is asked for by systemd, which sends the signal first and logs its job then: the service's
/// own words may stand before that, and on a busy machine they do.
fn timeline_of_40(lab: &Container) -> Outcome {
    let kind = if lab.version() < 253 { Type::Notify } else { Type::NotifyReload };
    let web = Web::start(lab, Setup { kind, lines: "LogRateLimitIntervalSec=0\n", ..Setup::default() })?;
    let tool = lab.install(handover(), "handover")?;
    let busy =
        lab.sh_ok("for n in 1 2 3 4; do timeout 60 sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $!; done")?;
    match kind {
        // One after the other, without a pause: systemd waits for each.
        Type::NotifyReload => drop(lab.sh_ok(&format!("for n in $(seq {RELOADS}); do systemctl reload {UNIT}; done"))?),
        Type::Notify => (0..RELOADS).try_for_each(|_| web.reload().map(drop))?,
    }
    lab.sh_ok(&format!("kill {}", busy.replace('\n', " ")))?;
    let last = lab.main_pid(UNIT)?;
    web.until_only(&[last])?;
    assert_eq!(web.count_logged("handed over to generation")?, RELOADS); // and the journal is on disk

    let json: Value = serde_json::from_str(&lab.sh_ok(&format!("{tool} timeline {UNIT} --json"))?)?;
    let rows = json["rows"].as_array().cloned().unwrap_or_default();
    let reloads: Vec<_> = rows.iter().filter(|row| row["row"] == "reload").collect();
    let phantoms: Vec<_> = reloads.iter().filter(|row| row["told_by"] != "handover").collect();
    assert!(phantoms.is_empty() && reloads.len() == RELOADS, "{} reloads, {phantoms:#?}", reloads.len());
    let mut ids = std::collections::BTreeSet::new();
    for (number, reload) in (1..).zip(reloads) {
        assert_eq!((&reload["number"], &reload["old"]["number"]), (&Value::from(number), &Value::from(number)));
        assert_eq!((&reload["outcome"], &reload["job"]["result"]), (&"handed_over".into(), &"done".into()), "{reload}");
        assert!(ids.insert(reload["job"]["id"].as_u64()), "a job of its own: {reload}");
    }
    let text = lab.sh_ok(&format!("LANG=C.UTF-8 {tool} timeline web"))?;
    assert!(text.starts_with("web.service: 40 reloads (40 handed over)\n"), "{text}");
    Ok(())
}

fn status_of_units(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup { lines: "RuntimeDirectory=handover-web\n", ..Setup::default() })?;
    let tool = lab.install(handover(), "handover")?;
    let user = if lab.manager_pid() == 1 { "" } else { "--user" };
    let status = |arguments: &str| lab.sh(&format!("{tool} status {user} {arguments}"));

    // Nobody is connected, and who asks is nobody.
    let json: Value = serde_json::from_str(&status("--json web")?.stdout)?;
    assert_eq!((&json["connections"], &json["open"]), (&Value::from(0), &Value::Array(Vec::new())), "{json}");
    let request = web.in_flight(100, Duration::from_millis(50))?;
    let json: Value = serde_json::from_str(&status("--json web.socket")?.stdout)?;
    assert_eq!((&json["connections"], &json["generation"]), (&Value::from(1), &Value::from(1)), "{json}");
    drop(request);

    let text = status("web.socket")?.stdout;
    assert!(text.starts_with("web.service  serving, generation 1, "), "{text}");
    lab.systemctl_ok(&["stop", "web.socket", UNIT])?;
    for name in ["web", "web.socket"] {
        let stopped = status(name)?;
        assert!(!stopped.success() && stopped.stdout.starts_with("web.service  stopped\n"), "{stopped:?}");
        assert!(!stopped.stdout.contains("pid"), "{stopped:?}");
    }
    for (name, words) in [("wbe", "there is no unit wbe.service"), ("wbe.socket", "there is no unit wbe.socket")] {
        let unknown = status(name)?;
        assert!(!unknown.success() && unknown.stderr.contains(words), "{unknown:?}");
    }
    // Without a manager that can be asked.
    let unasked = lab.sh(&format!(
        "DBUS_SESSION_BUS_ADDRESS=unix:path=/nowhere XDG_RUNTIME_DIR=/nowhere {tool} status --user web"
    ))?;
    assert!(!unasked.success() && unasked.stderr.contains("the service manager cannot be asked"), "{unasked:?}");
    assert!(!unasked.stderr.contains("LoadState") && !unasked.stderr.contains("show"), "{unasked:?}");
    Ok(())
}
