//! A pause beside what else happens to a service: connections that stay, a restart, an older
//! version.

use serde_json::Value;

use super::control::{tool, tool_ok};
use super::web::{Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario, example, former, handover};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("pause_of_who_does_not_move", of_who_does_not_move),
    Scenario::new("pause_and_restart", |lab| and_restart(lab, "reload")),
    Scenario::new("pause_and_restart_that_keeps", |lab| and_restart(lab, "restart")),
    Scenario::new("pause_and_an_older_version", and_an_older_version),
];

fn start<'a>(lab: &'a Container, options: &str, lines: &str) -> Outcome<Web<'a>> {
    let tool = lab.install(handover(), "handover")?;
    let lines = format!("RuntimeDirectory=handover-web\nExecReload=\nExecReload={tool} reload $MAINPID\n{lines}");
    let command = format!("{{dir}}/web {options}");
    Web::start(lab, Setup { command: &command, lines: &lines, ..Setup::default() })
}

fn paused(lab: &Container) -> Outcome<Value> {
    let status: Value = serde_json::from_str(&tool_ok(lab, &format!("status --json {UNIT}"))?)?;
    Ok(status["paused"].clone())
}

/// Who has asked in the pause, and stays where it is, is answered there when the pause is over,
/// though another generation is main by then.
fn of_who_does_not_move(lab: &Container) -> Outcome {
    let web = start(lab, "--migrate never --linger 60s", "")?;
    let (mut idle, mut asks) = (web.connect()?, web.connect()?);
    let first = idle.pid()?;
    assert_eq!(asks.pid()?, first);
    tool_ok(lab, &format!("pause {UNIT} --for 1m"))?;
    asks.send("/pid")?;
    lab.systemctl_ok(&["reload", UNIT])?;
    let second = lab.main_pid(UNIT)?;
    assert_ne!(first, second);
    let mut new = web.connect()?;
    new.send("/pid")?;
    assert!(paused(lab)?["left_ms"].as_u64().is_some_and(|left| left > 0), "a reload keeps the pause");
    assert_eq!(lab.pids(UNIT)?.len(), 2, "who waits is not cut");
    tool_ok(lab, &format!("resume {UNIT}"))?;
    assert_eq!((asks.answered_pid()?, new.answered_pid()?), (first, second));
    assert_eq!(idle.pid()?, first, "it has its linger");
    drop((asks, idle));
    web.until_only(&[second])?;
    assert_eq!(web.count_logged("cut http: ")?, 0);
    Ok(())
}

/// A restart ends the pause: who waits is answered, by the old process or, where connections are
/// kept, by the new one.
fn and_restart(lab: &Container, migrate: &str) -> Outcome {
    let web = start(lab, &format!("--migrate {migrate}"), "FileDescriptorStoreMax=64\n")?;
    let mut asks = web.connect()?;
    let first = asks.pid()?;
    tool_ok(lab, &format!("pause {UNIT} --for 1m"))?;
    asks.send("/pid")?;
    let mut new = web.connect()?;
    new.send("/pid")?;
    lab.systemctl_ok(&["restart", UNIT])?;
    let second = lab.main_pid(UNIT)?;
    assert_ne!(first, second);
    let answered = asks.answered_pid()?;
    assert_eq!(answered, if migrate == "restart" { second } else { first }, "who waited");
    new.answered_pid()?;
    assert_eq!(paused(lab)?, Value::Null, "a service that was started anew is not paused");
    assert_eq!(web.pid()?, second);
    assert_eq!(web.state()?.restarts, 0);
    Ok(())
}

/// One that knows nothing of pauses is not handed over to in a pause, as it would serve; and says
/// so itself when it is asked for one.
fn and_an_older_version(lab: &Container) -> Outcome {
    for former in &former()? {
        let web = start(lab, "", "")?;
        let first = lab.main_pid(UNIT)?;
        tool_ok(lab, &format!("pause {UNIT} --for 1m"))?;
        lab.install(&former.example("web"), "web")?;
        assert!(!lab.systemctl(&["reload", UNIT])?.success());
        web.logged("knows nothing of a pause, and would serve: end the pause first")?;
        assert_eq!(lab.main_pid(UNIT)?, first);
        assert_ne!(paused(lab)?, Value::Null, "it goes on");
        tool_ok(lab, &format!("resume {UNIT}"))?;
        assert_eq!(web.pid()?, first);

        lab.systemctl_ok(&["reload", UNIT])?;
        let second = web.pid()?;
        let refused = tool(lab, &format!("pause {UNIT}"))?;
        println!("{}, asked for a pause: {}", former.name, refused.stderr.trim());
        assert!(!refused.success(), "{refused:?}");
        assert_eq!(web.pid()?, second, "it serves on");

        lab.install(&example("web")?, "web")?;
        lab.systemctl_ok(&["reload", UNIT])?;
        tool_ok(lab, &format!("pause {UNIT} --for 1m"))?;
        tool_ok(lab, &format!("resume {UNIT}"))?;
        assert_ne!(web.pid()?, second);
        lab.systemctl_ok(&["stop", "web.socket", UNIT])?;
    }
    Ok(())
}
