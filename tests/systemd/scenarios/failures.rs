//! Reloads that fail: the old generation serves on, the unit is running again, and everybody is
//! told why.

use super::web::{Setup, Type, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("next_exits", next_exits),
    Scenario::new("next_exits_notify_reload", next_exits_notify_reload).since(253),
    Scenario::new("next_hangs", next_hangs),
    Scenario::new("next_is_missing", next_is_missing),
    Scenario::new("next_is_not_executable", next_is_not_executable),
    Scenario::new("next_is_half_written", next_is_half_written),
    Scenario::new("next_is_no_program", next_is_no_program),
    Scenario::new("next_refuses_its_options", next_refuses_its_options),
];

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
