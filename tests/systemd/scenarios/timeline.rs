//! `handover timeline` on a machine's own journal, and the message catalog.

use std::time::Duration;

use super::web::{DEADLINE, Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario, handover};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("timeline_of_20", timeline_of_20).system_only(),
    Scenario::new("timeline_of_others", timeline_of_others).system_only(),
    Scenario::new("timeline_follows", timeline_follows).system_only(),
    Scenario::new("catalog_explains", catalog_explains).system_only(),
];

const RELOADS: usize = 20;
/// Of these, the one that fails.
const BROKEN: usize = 8;
const CATALOG: &str = include_str!("../../../packaging/handover.catalog");

/// Each step comes as it is taken, over a rotation of the journal, until somebody interrupts.
fn timeline_follows(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let tool = lab.install(handover(), "handover")?;
    let output = format!("{}/followed", lab.dir().display());
    lab.sh_ok(&format!(
        "touch {output} && systemd-run --quiet --unit=follow --property=StandardOutput=file:{output} \
         --property=StandardError=journal {tool} timeline --follow --since 1h web"
    ))?;
    let seen = |text: &str| {
        lab.wait_until(DEADLINE, &format!("{text:?} to be printed"), || {
            Ok(lab.sh_ok(&format!("cat {output}"))?.contains(text).then_some(()))
        })
    };
    seen("generation 1 serves")?;
    web.reload()?;
    seen("generation 2 is main")?;
    lab.sh_ok("journalctl --rotate && journalctl --vacuum-time=1s")?;
    web.reload()?;
    seen("generation 3 is main")?;
    broken(&web)?;
    seen("reload failed: generation 4 exited with status 7")?;
    lab.systemctl_ok(&["kill", "--signal=INT", "follow"])?;
    lab.wait_until(DEADLINE, "its end", || Ok((lab.show("follow", "ExecMainStatus")? == "130").then_some(())))?;
    let text = lab.sh_ok(&format!("cat {output}"))?;
    let is_time = |word: &str| word.len() == 12 && word.chars().all(|c| c.is_ascii_digit() || ":.".contains(c));
    assert!(text.lines().all(|line| line.split(' ').next().is_some_and(is_time)), "one line a step:\n{text}");
    assert_eq!(text.matches("generation 2 is main").count(), 1, "{text}");
    Ok(())
}

fn timeline_of_20(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let tool = lab.install(handover(), "handover")?;
    let mut requests = std::collections::VecDeque::new();
    for number in 1..=RELOADS {
        if number == BROKEN {
            broken(&web)?;
            continue;
        }
        // So that there is something to drain, also while the next reload is under way.
        requests.push_back(web.in_flight(5 + number * 7 % 5, Duration::from_millis(100))?);
        web.reload()?;
        if requests.len() > 2
            && let Some(oldest) = requests.pop_front()
        {
            oldest.finish()?;
        }
    }
    for request in requests {
        request.finish()?;
    }
    let last = lab.main_pid(UNIT)?;
    web.until_only(&[last])?;
    assert_eq!(web.count_logged("handed over to generation")?, RELOADS - 1); // and the journal is on disk

    let text = lab.sh_ok(&format!("LANG=C.UTF-8 {tool} timeline web"))?;
    assert!(text.starts_with("web.service: 20 reloads (19 handed over, 1 rolled back)\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains(": generation 9 exited with status 7"), "{text}");
    for words in [" 1→2 ", " 19→20 ", "connections cut: 0", "▒▒", "▄▄"] {
        assert!(text.contains(words), "{words}: {text}");
    }

    let json: serde_json::Value = serde_json::from_str(&lab.sh_ok(&format!("{tool} timeline {UNIT} --json"))?)?;
    let rows = json["rows"].as_array().cloned().unwrap_or_default();
    let reloads: Vec<_> = rows.iter().filter(|row| row["row"] == "reload").collect();
    assert_eq!(reloads.len(), RELOADS);
    for (number, reload) in (1..).zip(reloads) {
        let of = |field: &str| reload[field].clone();
        let names: Vec<_> = of("phases").as_array().into_iter().flatten().map(|p| p["name"].to_string()).collect();
        assert_eq!((of("number"), of("told_by")), (number.into(), "handover".into()));
        assert_eq!(reload["job"]["result"], "done", "each belongs to a job of systemd: {reload}");
        if number == BROKEN {
            assert_eq!(
                (of("outcome"), of("reason")),
                ("rolled_back".into(), "generation 9 exited with status 7".into())
            );
        } else {
            assert_eq!(of("outcome"), "handed_over", "{reload}");
            assert_eq!(names, ["\"spawn\"", "\"ready\"", "\"switch\"", "\"handover\""], "{reload}");
            assert!(reload["drain"]["ms"].is_u64() && reload["drain"]["end"] == "drained", "{reload}");
        }
    }

    let dir = lab.dir().display();
    lab.sh_ok(&format!("{tool} timeline web --svg {dir}/reloads.svg --html {dir}/reloads.html"))?;
    let svg = std::fs::read_to_string(lab.host_dir().join("reloads.svg"))?;
    assert!(svg.starts_with("<svg ") && svg.contains("generation 9 exited with status 7"), "{svg}");
    // To look at: HANDOVER_TIMELINE_DIR=/some/where
    if let Some(keep) = std::env::var_os("HANDOVER_TIMELINE_DIR") {
        let keep = std::path::Path::new(&keep);
        std::fs::write(keep.join(format!("{}.svg", lab.version())), svg)?;
        std::fs::write(keep.join(format!("{}.txt", lab.version())), text)?;
    }
    // What a machine exported elsewhere is the same.
    let piped = lab.sh_ok(&format!("journalctl -o json -u web | {tool} timeline --file - --json"))?;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&piped)?, json);
    // A user who may not read it is told which group may.
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let refused = lab.sh(&format!("cp {tool} /run/timeline-tool && {nobody} /run/timeline-tool timeline web 2>&1"))?;
    assert!(!refused.success() && refused.stdout.contains("usermod -aG systemd-journal"), "{}", refused.stdout);
    let unknown = lab.sh(&format!("{tool} timeline wbe 2>&1"))?;
    assert!(!unknown.success() && unknown.stdout.contains("nothing about wbe.service"), "{}", unknown.stdout);
    Ok(())
}

/// A reload to a version that exits; a good one is there again afterwards.
fn broken(web: &Web<'_>) -> Outcome {
    let dir = web.lab.dir().display();
    web.lab.write_file(&format!("{dir}/script"), "#!/bin/sh\nexit 7\n")?;
    web.lab.sh_ok(&format!("cd {dir} && cp web good && chmod 755 script && mv script web"))?;
    web.lab.systemctl_ok(&["reload", UNIT])?;
    web.until("rolled back", |s| s.is_running() && s.status.contains("reload failed"))?;
    web.lab.sh_ok(&format!("cd {dir} && mv good web")).map(drop)
}

/// A service that knows nothing of handover: systemd's account.
fn timeline_of_others(lab: &Container) -> Outcome {
    let tool = lab.install(handover(), "handover")?;
    let dir = lab.dir().display();
    let unit = format!(
        "[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/sh -c 'sleep 0.2; test ! -e {dir}/broken'\n\
         NotifyAccess=all\n"
    );
    lab.write_unit("other.service", &unit)?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", "other.service"])?;
    lab.systemctl_ok(&["reload", "other.service"])?;
    lab.sh_ok(&format!("touch {dir}/broken"))?;
    assert!(!lab.sh("systemctl reload other.service")?.success());
    lab.sh_ok("systemctl kill -s KILL other.service")?;
    lab.wait_until(DEADLINE, "the unit has failed", || {
        Ok((lab.show("other.service", "ActiveState")? == "failed").then_some(()))
    })?;
    lab.journal_json("other.service")?;
    let text = lab.sh_ok(&format!("LC_ALL=C {tool} timeline other"))?;
    assert!(text.starts_with("other.service: 2 reloads (1 reloaded, 1 failed)\n"), "{text}");
    for words in ["Control process exited", "started", "Main process exited, code=killed, status=9/KILL"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 80), "{text}");
    Ok(())
}

fn catalog_explains(lab: &Container) -> Outcome {
    // /usr may be read-only: with a copy in its place.
    let (copy, place) = (lab.dir().join("catalog"), "/usr/lib/systemd/catalog");
    let copy = copy.display();
    lab.sh_ok(&format!("cp -r {place} {copy} && mount --bind {copy} {place}"))?;
    lab.write_file(&format!("{place}/handover.catalog"), CATALOG)?;
    let updated = lab.sh("journalctl --update-catalog 2>&1")?;
    assert!(updated.success() && !updated.stdout.contains("handover.catalog:"), "{}", updated.stdout);
    let web = Web::start(lab, Setup::default())?;
    web.reload()?;
    broken(&web)?;
    web.logged("reload failed")?;
    let text = lab.sh_ok(&format!("journalctl -x --no-pager -u {UNIT}"))?;
    for words in [
        "Subject: Generation 1 serves",
        "Subject: A rolling reload of generation 1 begins",
        "Subject: The reload is done: the next generation is the main one",
        "Subject: A reload failed; generation 2 serves on",
        "The next generation exited with status 7.",
        "Put a working program",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let listed = lab.sh_ok("journalctl --list-catalog")?;
    for (name, id) in handover::service::events::ALL {
        assert!(listed.contains(id), "{name} {id}: {listed}");
    }
    Ok(())
}
