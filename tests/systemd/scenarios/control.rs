//! The control interface, `handover reload` as `ExecReload=` and by hand, `handover status`, and
//! `varlinkctl`.

use serde_json::Value;

use super::web::{Setup, Type, UNIT, Web};
use crate::lab::{Container, Outcome, Output, Scenario, example, handover};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("control_exec_reload", exec_reload),
    Scenario::new("control_by_hand", by_hand),
    Scenario::new("control_by_hand_notify_reload", by_hand_notify_reload).since(253),
    Scenario::new("control_absent", absent),
    Scenario::new("control_queued", queued),
    Scenario::new("control_varlinkctl", varlinkctl).since(257),
    Scenario::new("control_other_user", other_user).system_only(),
];

const DIRECTORY: &str = "RuntimeDirectory=handover-web\n";
const WHY: &str = "reload failed: generation 3 exited with status 7";

pub(super) fn start<'a>(lab: &'a Container, kind: Type, lines: &str) -> Outcome<Web<'a>> {
    let tool = lab.install(handover(), "handover")?;
    Web::start(lab, Setup { kind, lines: &lines.replace("{handover}", &tool), ..Setup::default() })
}

/// `handover` with these arguments.
pub(super) fn tool(lab: &Container, arguments: &str) -> Outcome<Output> {
    let user = if lab.manager_pid() == 1 { "" } else { "--user" };
    let (command, rest) = arguments.split_once(' ').unwrap_or((arguments, ""));
    lab.sh(&format!("{}/handover {command} {user} {rest}", lab.dir().display()))
}

pub(super) fn tool_ok(lab: &Container, arguments: &str) -> Outcome<String> {
    let output = tool(lab, arguments)?;
    match output.success() {
        true => Ok(output.stdout),
        false => Err(format!("handover {arguments}: {}\n{}{}", output.status, output.stdout, output.stderr).into()),
    }
}

fn break_it(web: &Web<'_>) -> Outcome {
    let dir = web.lab.dir().display();
    let script = "#!/bin/sh\\necho no such setting >&2\\nexit 7\\n";
    web.lab.sh_ok(&format!("cd {dir} && printf '{script}' >new && chmod 755 new && mv new web")).map(drop)
}

fn repair(web: &Web<'_>) -> Outcome {
    web.lab.install(&example("web")?, "web").map(drop)
}

/// `systemctl reload` is over only when the next generation is main, and fails with the reason if
/// it never will be.
fn exec_reload(lab: &Container) -> Outcome {
    let lines = format!("{DIRECTORY}ExecReload=\nExecReload={{handover}} reload $MAINPID\n");
    let web = start(lab, Type::Notify, &lines)?;
    let first = lab.main_pid(UNIT)?;
    lab.systemctl_ok(&["reload", UNIT])?;
    let second = lab.main_pid(UNIT)?;
    assert_ne!(first, second, "main at once, without waiting");
    assert_eq!(web.pid()?, second, "who serves");
    assert!(web.state()?.is_running(), "{:?}", web.state()?);
    web.logged(&format!("generation 2 (pid {second}) is main"))?;

    break_it(&web)?;
    let refused = lab.systemctl(&["reload", UNIT])?;
    assert!(!refused.success() && refused.stderr.contains("journalctl"), "{refused:?}");
    let said = web.logged(&format!("handover: {WHY}; generation 2 (pid {second}) serves on"))?;
    assert!(said.message().starts_with("handover: "), "{said:?}");
    let state = web.until("running", super::web::State::is_running)?;
    assert!(state.main == second && state.status.contains(WHY), "{state:?}");
    assert_eq!(web.pid()?, second);

    repair(&web)?;
    lab.systemctl_ok(&["reload", UNIT])?;
    let third = lab.main_pid(UNIT)?;
    assert_ne!(second, third);
    assert_eq!(web.pid()?, third);
    assert_eq!(web.state()?.restarts, 0);
    Ok(())
}

fn by_hand(lab: &Container) -> Outcome {
    reload_by_hand(lab, Type::Notify)
}

fn by_hand_notify_reload(lab: &Container) -> Outcome {
    reload_by_hand(lab, Type::NotifyReload)
}

fn reload_by_hand(lab: &Container, kind: Type) -> Outcome {
    let web = start(lab, kind, DIRECTORY)?;
    let first = lab.main_pid(UNIT)?;
    let held = web.in_flight(40, std::time::Duration::from_millis(100))?;
    let said = tool_ok(lab, &format!("reload {UNIT}"))?;
    let second = lab.main_pid(UNIT)?;
    assert_ne!(first, second);
    for phase in [
        format!("generation 1 (pid {first}) reloads"),
        format!("generation 2 (pid {second}) is started"),
        format!("generation 2 (pid {second}) is ready"),
        "accepts, generation 1 does not any more".to_owned(),
        format!("generation 2 (pid {second}) is main"),
    ] {
        assert!(said.contains(&phase), "{phase} in\n{said}");
    }

    let status: Value = serde_json::from_str(&tool_ok(lab, &format!("status --json {UNIT}"))?)?;
    assert_eq!((&status["pid"], &status["state"]), (&second.into(), &"serving".into()), "{status}");
    let older = &status["draining"][0];
    assert_eq!((&older["pid"], &older["connections"]), (&first.into(), &1.into()), "{status}");
    assert!(older["work"][0].as_str().unwrap_or_default().contains("GET /stream"), "{status}");
    assert_eq!(status["past"][0]["outcome"], "handed_over", "{status}");
    assert_eq!(status["sockets"][0]["name"], "http", "{status}");
    let text = tool_ok(lab, &format!("status {UNIT}"))?;
    assert!(text.contains("web.service  serving, generation 2") && !text.contains('\u{1b}'), "{text}");

    break_it(&web)?;
    let refused = tool(lab, &format!("reload {second}"))?;
    assert!(!refused.success(), "{refused:?}");
    let why = format!("handover: {WHY}; generation 2 (pid {second}) serves on\n");
    assert_eq!(refused.stderr, why);
    repair(&web)?;
    tool_ok(lab, &format!("reload {second}"))?;
    assert_ne!(lab.main_pid(UNIT)?, second);
    drop(held.finish()?);
    Ok(())
}

/// Without `RuntimeDirectory=`: the outcome is what systemd says. And units that know nothing of
/// handover.
fn absent(lab: &Container) -> Outcome {
    let web = start(lab, Type::Notify, "ExecReload=\nExecReload={handover} reload $MAINPID\n")?;
    let first = lab.main_pid(UNIT)?;
    let said = tool_ok(lab, &format!("reload {UNIT}"))?;
    assert!(said.contains("no control interface") && said.contains("sending SIGHUP"), "{said}");
    let second = lab.main_pid(UNIT)?;
    assert_ne!(first, second);
    break_it(&web)?;
    for _ in 0..2 {
        // The same reason twice is the same text twice.
        let refused = tool(lab, &format!("reload {UNIT}"))?;
        assert!(!refused.success() && refused.stderr.contains(WHY), "{refused:?}");
    }
    repair(&web)?;
    lab.systemctl_ok(&["reload", UNIT])?;
    assert_ne!(lab.main_pid(UNIT)?, second, "within ExecReload= too");
    let text = tool_ok(lab, &format!("status {UNIT}"))?;
    assert!(text.contains("this is what systemd knows"), "{text}");

    let plain = "[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/sh -c 'test -e {dir}/good'\n";
    lab.write_unit("plain.service", &plain.replace("{dir}", &lab.dir().display().to_string()))?;
    lab.systemctl_ok(&["start", "plain.service"])?;
    let refused = tool(lab, "reload plain")?;
    assert!(!refused.success() && refused.stderr.contains("systemctl reload plain.service"), "{refused:?}");
    lab.sh_ok(&format!("touch {}/good", lab.dir().display()))?;
    tool_ok(lab, "reload plain")?;

    let missing = tool(lab, "reload nothing-of-that-name")?;
    assert!(missing.stderr.contains("there is no unit nothing-of-that-name.service"), "{missing:?}");
    Ok(())
}

/// Several at once: each is over only when a generation that was started after its request is main.
fn queued(lab: &Container) -> Outcome {
    let lines = format!("{DIRECTORY}ExecReload=\nExecReload={{handover}} reload $MAINPID\n");
    let web = start(lab, Type::Notify, &lines)?;
    let user = if lab.manager_pid() == 1 { "" } else { "--user" };
    let one = format!("{}/handover reload {user} --timeout 40s {UNIT} >/dev/null || exit 1", lab.dir().display());
    let all =
        format!("for n in 1 2 3 4 5; do ({one}) & pids=\"$pids $!\"; done; for p in $pids; do wait $p || exit 1; done");
    lab.sh_ok(&all)?;
    let state = web.until("running", super::web::State::is_running)?;
    let status: Value = serde_json::from_str(&tool_ok(lab, &format!("status --json {UNIT}"))?)?;
    assert_eq!(status["pid"], state.main, "{status}");
    assert!(status["generation"].as_u64().is_some_and(|n| (2..=6).contains(&n)), "{status}");
    Ok(())
}

fn varlinkctl(lab: &Container) -> Outcome {
    let web = start(lab, Type::Notify, DIRECTORY)?;
    let run = if lab.manager_pid() == 1 { "/run" } else { "$XDG_RUNTIME_DIR" };
    let socket = format!("{run}/handover-web/handover.sock");
    let info = lab.sh_ok(&format!("varlinkctl info {socket}"))?;
    assert!(info.contains("io.handover.Service"), "{info}");
    let described = lab.sh_ok(&format!("varlinkctl introspect {socket} io.handover.Service"))?;
    for part in ["method Reload(", "method Status(", "method Subscribe(", "error ReloadFailed"] {
        assert!(described.contains(part), "{part} in\n{described}");
    }
    let call = |more: &str, method: &str| {
        lab.sh(&format!("varlinkctl call {more} -j {socket} io.handover.Service.{method} '{{}}'"))
    };
    let status = call("", "Status")?;
    assert!(status.success(), "{status:?}");
    let status: Value = serde_json::from_str(&status.stdout)?;
    let first = lab.main_pid(UNIT)?;
    assert_eq!(status["status"]["pid"], first, "{status}");
    if lab.version() >= 260 && lab.manager_pid() == 1 {
        in_the_registry(lab, &socket)?;
    }
    let reloaded = call("--more", "Reload")?;
    assert!(reloaded.success() && reloaded.stdout.contains("handed_over"), "{reloaded:?}");
    assert_ne!(lab.main_pid(UNIT)?, first);
    break_it(&web)?;
    let refused = call("", "Reload")?;
    assert!(!refused.success() && refused.stderr.contains("io.handover.Service.ReloadFailed"), "{refused:?}");
    let unknown = call("", "Sing")?;
    // 262 has an errno for it instead of its name.
    assert!(!unknown.success() && unknown.stderr.contains("Sing() failed"), "{unknown:?}");
    assert!(call("", "Drain")?.success());
    web.until("stopped", |state| state.active == "inactive")?;
    Ok(())
}

/// A link names it to whoever lists the services of the machine.
fn in_the_registry(lab: &Container, socket: &str) -> Outcome {
    let line = format!("L /run/varlink/registry/io.handover.Service - - - - {socket}");
    lab.sh_ok(&format!(
        "mkdir -p /run/tmpfiles.d && echo '{line}' >/run/tmpfiles.d/web.conf && systemd-tmpfiles --create web.conf"
    ))?;
    let listed = lab.sh_ok("varlinkctl list-registry")?;
    assert!(listed.contains("io.handover.Service"), "{listed}");
    let status =
        lab.sh_ok("varlinkctl call -j /run/varlink/registry/io.handover.Service io.handover.Service.Status '{}'")?;
    assert!(status.contains("\"generation\":1"), "{status}");
    Ok(())
}

/// A service with a user of its own: that user and root may, nobody else.
fn other_user(lab: &Container) -> Outcome {
    let lines = format!("{DIRECTORY}User=daemon\nExecReload=\nExecReload={{handover}} reload $MAINPID\n");
    let web = start(lab, Type::Notify, &lines)?;
    let first = lab.main_pid(UNIT)?;
    lab.systemctl_ok(&["reload", UNIT])?;
    let second = lab.main_pid(UNIT)?;
    assert_ne!(first, second);
    let socket = "/run/handover-web/handover.sock";
    assert_eq!(lab.sh_ok(&format!("stat -c %a:%U {socket}"))?, "600:daemon");
    let by = |uid: u32| {
        lab.sh(&format!(
            "setpriv --reuid {uid} --clear-groups {}/handover reload --socket {socket}",
            lab.dir().display()
        ))
    };
    let stranger = by(65534)?;
    assert!(!stranger.success() && stranger.stderr.contains("be the service's user or root"), "{stranger:?}");
    assert_eq!(lab.main_pid(UNIT)?, second);
    let own = by(1)?;
    assert!(own.success(), "{own:?}");
    assert_ne!(web.pid()?, second);
    Ok(())
}
