//! Reloads that fail: the old generation serves on, the unit is running again, and everybody is
//! told why.

use super::web::{Setup, Type, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario, handover};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("next_exits", next_exits),
    Scenario::new("next_exits_notify_reload", next_exits_notify_reload).since(253),
    Scenario::new("next_hangs", next_hangs),
    Scenario::new("reload_signal_must_be_caught", reload_signal_must_be_caught).since(253),
    Scenario::new("post_after_a_reload", post_after_a_reload).system_only().since(259),
    Scenario::new("next_is_missing", next_is_missing),
    Scenario::new("next_is_not_executable", next_is_not_executable),
    Scenario::new("next_is_half_written", next_is_half_written),
    Scenario::new("next_is_no_program", next_is_no_program),
    Scenario::new("next_refuses_its_options", next_refuses_its_options),
    Scenario::new("first_start_says_why", first_start_says_why),
];

/// systemd is told why a first start fails, in each form that it knows.
fn first_start_says_why(lab: &Container) -> Outcome {
    let setup =
        Setup { command: "{dir}/web --listen {address}", lines: "Restart=no\n", binds: true, ..Setup::default() };
    let web = Web::install(lab, setup)?;
    let taken = lab.in_netns(|| std::net::TcpListener::bind(web.address))??;
    assert!(!lab.systemctl(&["start", UNIT])?.success());
    let state = web.state()?;
    assert!(state.status.starts_with("start failed: ") && state.status.contains("in use"), "{state:?}");
    assert_eq!(lab.show(UNIT, "StatusErrno")?, (nix::errno::Errno::EADDRINUSE as i32).to_string());
    if lab.version() >= 257 {
        assert_eq!(lab.show(UNIT, "StatusVarlinkError")?, "io.handover.Service.StartFailed");
    }
    drop(taken);
    lab.systemctl_ok(&["start", UNIT])?;
    assert!(web.state()?.status.starts_with("generation 1 serves"), "{:?}", web.state()?);
    Ok(())
}

fn next_exits(lab: &Container) -> Outcome {
    exits(lab, Type::Notify)
}

fn next_exits_notify_reload(lab: &Container) -> Outcome {
    exits(lab, Type::NotifyReload)
}

fn exits(lab: &Container, kind: Type) -> Outcome {
    fails(lab, kind, "exited", |web| script(web, "echo 'no such setting: colour' >&2; exit 7"))?;
    let journal = lab.journal_json(UNIT)?;
    assert!(journal.iter().any(|e| e.message() == "no such setting: colour"), "its own words");
    Ok(())
}

/// A service that is ready before it has a handler for its reload signal dies of the first reload;
/// from 262 on systemd does not take it for started. Ours has one by then.
fn reload_signal_must_be_caught(lab: &Container) -> Outcome {
    let serve = "/bin/sh -c 'systemd-notify --ready; sleep infinity; true'";
    lab.write_unit("bare.service", &format!("[Service]\nType=notify-reload\nNotifyAccess=all\nExecStart={serve}\n"))?;
    lab.daemon_reload()?;
    let started = lab.systemctl(&["start", "bare.service"])?.success();
    let result = lab.show("bare.service", "Result")?;
    match lab.version() {
        262.. => assert_eq!((started, result.as_str()), (false, "protocol")),
        _ => assert_eq!((started, result.as_str()), (true, "success")),
    }
    lab.systemctl(&["stop", "bare.service"])?;
    lab.systemctl(&["reset-failed", "bare.service"])?;
    Web::start(lab, Setup { kind: Type::NotifyReload, ..Setup::default() })?.reload()?;
    Ok(())
}

/// `ExecReloadPost=` is for after a reload that went well. Whether it did, systemd only knows where
/// a command waits for the outcome.
fn post_after_a_reload(lab: &Container) -> Outcome {
    let tool = lab.install(handover(), "handover")?;
    let post = "RuntimeDirectory=web\nRuntimeDirectoryPreserve=restart\nExecReloadPost=/bin/sh -c 'echo $MAINPID >>/run/web/post'";
    let waits = format!("{post}\nExecReload=\nExecReload={tool} reload $MAINPID");
    for (kind, lines) in [(Type::Notify, waits.as_str()), (Type::NotifyReload, post)] {
        let web = Web::start(lab, Setup { kind, lines, ..Setup::default() })?;
        let called = || -> Outcome<Vec<u32>> {
            let text = lab.sh_ok("cat /run/web/post 2>/dev/null || true")?;
            Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
        };
        let main = web.reload()?;
        assert_eq!(called()?, [main], "{kind:?}: the new main process is known by then");
        script(&web, "exit 7")?;
        let reloaded = lab.systemctl(&["reload", UNIT])?.success();
        web.until("running again", super::web::State::is_running)?;
        match kind {
            Type::Notify => assert_eq!((reloaded, called()?), (false, vec![main])),
            // READY=1 ends the reload, and it cannot say that it failed.
            Type::NotifyReload => assert_eq!((reloaded, called()?), (true, vec![main, main])),
        }
        lab.systemctl_ok(&["stop", "web.socket", UNIT])?;
        lab.sh_ok("rm -rf /run/web")?;
    }
    Ok(())
}

fn next_hangs(lab: &Container) -> Outcome {
    fails(lab, Type::Notify, "was not ready within 1s", |web| script(web, "exec sleep 1000"))
}

fn next_is_missing(lab: &Container) -> Outcome {
    fails(lab, Type::Notify, "is missing", |web| Ok(std::fs::remove_file(program(web))?))
}

fn next_is_not_executable(lab: &Container) -> Outcome {
    fails(lab, Type::Notify, "is not executable for this user", |web| {
        web.lab.sh_ok(&format!("chmod a-x {}/web", web.lab.dir().display())).map(drop)
    })
}

/// Cut off within its code: it is executed, and dies by a signal.
fn next_is_half_written(lab: &Container) -> Outcome {
    fails(lab, Type::Notify, "generation 2 was killed by SIG", |web| {
        let dir = web.lab.dir().display();
        web.lab.sh_ok(&format!("cd {dir} && head -c 100000 web >half && chmod 755 half && mv half web")).map(drop)
    })
}

fn next_is_no_program(lab: &Container) -> Outcome {
    fails(lab, Type::Notify, "is not a program for this machine", |web| {
        let dir = web.lab.dir().display();
        web.lab.sh_ok(&format!("cd {dir} && echo 'neither ELF nor #!' >new && chmod 755 new && mv new web")).map(drop)
    })
}

/// A new version that no longer knows an option: the commonest of all.
fn next_refuses_its_options(lab: &Container) -> Outcome {
    fails(lab, Type::Notify, "exited with status 2", |web| {
        let real = web.lab.dir().join("real").display().to_string();
        web.lab.sh_ok(&format!("cp {} {real}", web.lab.dir().join("web").display()))?;
        script(web, &format!("exec {real} --no-such-option"))
    })
}

fn fails(lab: &Container, kind: Type, reason: &str, break_it: impl FnOnce(&Web<'_>) -> Outcome) -> Outcome {
    let web = Web::start(lab, Setup { kind, command: "{dir}/web --ready-timeout 1s", ..Setup::default() })?;
    let old = lab.main_pid(UNIT)?;
    let ((), stats) = load::under(lab, web.address, load::SHORT, |_| {
        break_it(&web)?;
        lab.systemctl_ok(&["reload", UNIT])?;
        let state = web.until("rolled back", |s| s.is_running() && s.status.contains("reload failed"))?;
        assert_eq!(state.main, old);
        assert!(state.status.starts_with("generation 1 serves; ") && state.status.contains(reason), "{}", state.status);
        assert_eq!(web.pid()?, old);
        let entry = web.logged("reload failed")?;
        assert!(entry.message().contains(reason), "{}", entry.message());
        assert_eq!(entry.get("PRIORITY").as_deref(), Some("3"));
        web.until_only(&[old])?;

        web.lab.install(&crate::lab::example("web")?, "web")?;
        let new = web.reload()?;
        assert_eq!(web.pid()?, new);
        web.until_only(&[new])
    })?;
    load::lost_nothing(&stats)?;
    let state = web.state()?;
    assert_eq!((state.restarts, state.status.as_str()), (0, "generation 2 serves"));
    Ok(())
}

fn program(web: &Web<'_>) -> std::path::PathBuf {
    web.lab.host_dir().join("web")
}

/// In the program's place, from now on.
fn script(web: &Web<'_>, text: &str) -> Outcome {
    let dir = web.lab.dir().display();
    web.lab.write_file(&format!("{dir}/script"), &format!("#!/bin/sh\n{text}\n"))?;
    web.lab.sh_ok(&format!("cd {dir} && chmod 755 script && mv script web")).map(drop)
}
