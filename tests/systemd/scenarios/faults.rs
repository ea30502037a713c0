//! A reload is never worse than none: units as they are found, and what a reload did to them.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::web::{DEADLINE, Setup, Type, UNIT, Web};
use libtest_mimic::Failed;

use crate::lab::{Container, Entry, Outcome, Scenario, example, handover};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("faults_of_a_simple_service_refuses_reloads", a_simple_service_refuses_reloads),
    Scenario::new("faults_of_a_signal_that_would_end_it", a_signal_that_would_end_it),
    Scenario::new("faults_of_a_bad_file_at_the_path", a_bad_file_at_the_path),
    Scenario::new("faults_of_a_port_that_the_next_one_gave_up", a_port_that_the_next_one_gave_up),
    Scenario::new("faults_of_a_directory_that_a_deploy_moves", a_directory_that_a_deploy_moves),
    Scenario::new("faults_of_a_socket_of_another_name", a_socket_of_another_name),
    // systemd-notify knows --fd since then.
    Scenario::new("faults_of_entries_that_others_put", entries_that_others_put).since(254),
    Scenario::new("faults_of_a_reload_longer_than_allowed", |lab| longer_than_allowed(lab, Type::Notify)),
    Scenario::new("faults_of_a_notify_reload_longer_than_allowed", |lab| longer_than_allowed(lab, Type::NotifyReload))
        .since(253),
];

/// The commonest unit there is: `Type=simple`, and a signal for the reload.
fn a_simple_service_refuses_reloads(lab: &Container) -> Outcome {
    let web = Web::install(lab, Setup { binds: true, ..Setup::default() })?;
    let exec = format!("{} --listen {}", lab.dir().join("web").display(), web.address);
    let unit = format!("[Service]\nExecStart={exec}\nExecReload=/bin/kill -HUP $MAINPID\nRestart=on-failure\n");
    lab.write_unit(UNIT, &unit)?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", UNIT])?;
    web.logged("reloads are refused: ")?;
    let main = lab.main_pid(UNIT)?;
    lab.systemctl_ok(&["reload", UNIT])?;
    let refused = web.logged("reload failed: ")?;
    assert!(refused.message().contains("write Type=notify in the [Service] section"), "{}", refused.message());
    assert_eq!((web.pid()?, lab.main_pid(UNIT)?), (main, main));
    web.until_only(&[main])
}

/// Its reload signal is another one, and SIGHUP has its default action.
fn a_signal_that_would_end_it(lab: &Container) -> Outcome {
    let tool = lab.install(handover(), "handover")?;
    let says = "systemd-notify --ready --status=\"generation 1 serves\"; exec sleep 1000";
    lab.write_unit(UNIT, &format!("[Service]\nType=notify\nNotifyAccess=all\nExecStart=/bin/sh -c '{says}'\n"))?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", UNIT])?;
    let main = lab.main_pid(UNIT)?;
    let asked = lab.sh(&format!("{tool} reload {UNIT}"))?;
    assert!(asked.status.code() == Some(3) && asked.stderr.contains("neither handles nor ignores SIGHUP"), "{asked:?}");
    assert_eq!((lab.main_pid(UNIT)?, lab.show(UNIT, "ActiveState")?), (main, "active".into()));
    Ok(())
}

/// Rolled back, and still there when the old generation crashes.
fn a_bad_file_at_the_path(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let old = lab.main_pid(UNIT)?;
    script(lab, "exit 7")?;
    lab.systemctl_ok(&["reload", UNIT])?;
    let state = web.until("what a crash would start", |s| s.status.contains("; a crash would start the file that"))?;
    assert!(state.status.contains("/web, sha256 ") && state.main == old, "{}", state.status);
    lab.signal(old, "KILL")?;
    let waiting = web.connect()?;
    web.until("seven attempts", |s| s.restarts >= 7)?;
    lab.install(&example("web")?, "web")?;
    let state = web.until("the good file", |s| s.is_running() && s.status == "generation 1 serves")?;
    assert_eq!(lab.show("web.socket", "ActiveState")?, "active");
    // The client that came in between was served in the end.
    let mut waiting = waiting;
    assert_eq!(waiting.pid()?, state.main);
    Ok(())
}

/// The new version reads its address from a file. A drainer that kept listening on the old one
/// would take clients into a queue that nobody serves.
fn a_port_that_the_next_one_gave_up(lab: &Container) -> Outcome {
    let at = |wanted| Ok::<_, Failed>(SocketAddr::from(([127, 0, 0, 1], lab.port(wanted)?)));
    let (before, after) = (at(8012)?, at(8013)?);
    let command = format!("{{dir}}/web --listen {before}");
    let web = Web::start(lab, Setup { binds: true, command: &command, ..Setup::default() })?;
    let (first, second) = (Web { address: before, ..web }, Web { address: after, ..web });
    let old = lab.main_pid(UNIT)?;
    let dir = lab.dir().display().to_string();
    lab.write_file(&format!("{dir}/address"), &after.to_string())?;
    lab.sh_ok(&format!("cp {dir}/web {dir}/real"))?;
    script(lab, &format!("exec {dir}/real --listen \"$(cat {dir}/address)\""))?;
    let slow = first.in_flight(50, Duration::from_millis(100))?;
    let new = web.reload()?;
    assert_eq!(second.pid()?, new);
    // Between the word to systemd and the end of the old listener there is a moment. A connection
    // that is neither taken nor refused takes this long, and is an error of another kind.
    let hung = Duration::from_secs(1);
    lab.wait_until(Duration::from_secs(2), "the old port to be refused", || {
        match lab.in_netns(|| TcpStream::connect_timeout(&before, hung))? {
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(Some(())),
            Err(e) => Err(format!("{before}: {e}").into()),
            Ok(_) => Ok(None),
        }
    })?;
    assert!(lab.pids(UNIT)?.contains(&old), "the slow request was over before the old port was asked");
    slow.finish()?;
    web.until_only(&[new])
}

fn a_directory_that_a_deploy_moves(lab: &Container) -> Outcome {
    let command = "{dir}/current/web --listen {address}\nWorkingDirectory=/lab/current";
    let command = command.replace("/lab", &lab.dir().display().to_string());
    let web = Web::install(lab, Setup { binds: true, command: &command, ..Setup::default() })?;
    let dir = lab.dir().display().to_string();
    let deploy = |release: &str| {
        lab.sh_ok(&format!(
            "cd {dir} && mkdir -p releases/{release} && cp web releases/{release}/ && ln -s releases/{release} new && mv -T new current"
        ))
    };
    deploy("1")?;
    lab.systemctl_ok(&["start", UNIT])?;
    let first = lab.main_pid(UNIT)?;
    assert!(!lab.proc_environ(first)?.contains_key("PWD"), "systemd has come to set $PWD");
    deploy("2")?;
    lab.sh_ok(&format!("rm -r {dir}/releases/1"))?;
    let second = web.reload()?;
    let link = |name: &str| lab.sh_ok(&format!("readlink /proc/{second}/{name}"));
    assert_eq!((link("cwd")?, link("exe")?), (format!("{dir}/releases/2"), format!("{dir}/releases/2/web")));
    assert_eq!(web.pid()?, second);
    Ok(())
}

/// `FileDescriptorName=` is not there, so the name is the unit's. The program would bind the same
/// address, which is taken, or another one, where clients of the .socket unit would wait in vain.
fn a_socket_of_another_name(lab: &Container) -> Outcome {
    for listen in ["{address}", "127.0.0.1:8123"] {
        let command = format!("{{dir}}/web --listen {listen}");
        let web = Web::install(lab, Setup { command: &command, lines: "Restart=no\n", ..Setup::default() })?;
        lab.write_unit("web.socket", &format!("[Socket]\nListenStream={}\n", web.address))?;
        lab.daemon_reload()?;
        lab.systemctl_ok(&["start", "web.socket"])?;
        assert!(!lab.systemctl(&["start", UNIT])?.success());
        let start = lab.show(UNIT, "InvocationID")?;
        let said = lab.wait_until(DEADLINE, "the error of this start", || {
            let ours = |e: &Entry| e.get("_SYSTEMD_INVOCATION_ID").as_deref() == Some(&start);
            let mut errors = lab.journal_json(UNIT)?.into_iter().filter(ours);
            Ok(errors.find(|e| e.message().contains("nobody asks for the socket")))
        })?;
        for part in
            ["\"web.socket\"", "\"http\", which is asked for", "write FileDescriptorName=http in the [Socket] section"]
        {
            assert!(said.message().contains(part), "{listen}: {part:?} is not in {said:?}");
        }
        lab.systemctl_ok(&["stop", "web.socket"])?;
        lab.systemctl_ok(&["reset-failed", UNIT])?;
    }
    Ok(())
}

fn entries_that_others_put(lab: &Container) -> Outcome {
    let lines = "NotifyAccess=all\nExecStartPre=/bin/sh -c 'systemd-notify --fd=0 --fdname=key </etc/os-release'\n";
    let web = Web::start(lab, Setup { lines, ..Setup::default() })?;
    let stored = || lab.sh_ok(&format!("systemd-analyze fdstore {UNIT}"));
    web.reload()?;
    web.reload()?;
    lab.sh_ok("sleep 1")?;
    let stored = stored()?;
    assert!(stored.contains("key"), "{stored}");
    Ok(())
}

/// The next version needs 7 s to be ready, and `TimeoutStartSec=` is 3 s.
fn longer_than_allowed(lab: &Container, kind: Type) -> Outcome {
    let web = Web::start(lab, Setup { kind, lines: "TimeoutStartSec=3\n", ..Setup::default() })?;
    let old = lab.main_pid(UNIT)?;
    lab.sh_ok(&format!("cd {0} && cp web real", lab.dir().display()))?;
    script(lab, &format!("sleep 7\nexec {}/real", lab.dir().display()))?;
    lab.systemctl_ok(&["reload", UNIT])?;
    let state = lab.wait_until(DEADLINE, "generation 2", || {
        let state = web.state()?;
        assert!(state.active != "failed" && state.result == "success", "{state:?}");
        Ok(Some(state).filter(|s| s.is_running() && s.status == "generation 2 serves"))
    })?;
    assert!(state.main != old && state.restarts == 0, "{state:?}");
    assert_eq!(web.pid()?, state.main);
    assert!(web.state()?.is_running());
    assert_eq!(web.count_logged("timed out")?, 0);
    Ok(())
}

/// In the program's place, from now on.
fn script(lab: &Container, text: &str) -> Outcome {
    let dir = lab.dir().display();
    lab.write_file(&format!("{dir}/script"), &format!("#!/bin/sh\n{text}\n"))?;
    lab.sh_ok(&format!("cd {dir} && chmod 755 script && mv script web")).map(drop)
}
