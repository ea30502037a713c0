//! Without the product: the lab itself.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::lab::{Container, Entry, Outcome, Scenario, example, handover};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("boots", boots).system_only(),
    Scenario::new("socket_activation_smoke", socket_activation_smoke),
    Scenario::new("notify_smoke", notify_smoke),
    Scenario::new("install_smoke", install_smoke),
    Scenario::new("notify_reload_is_known", notify_reload_is_known).since(253),
];

const DEADLINE: Duration = Duration::from_secs(10);

fn boots(lab: &Container) -> Outcome {
    let state = lab.systemctl(&["is-system-running", "--wait"])?.stdout;
    let failed = lab.systemctl_ok(&["--failed", "--no-legend", "--plain"])?;
    assert_eq!((state.trim(), failed.as_str()), ("running", ""));
    let version = lab.systemctl_ok(&["--version"])?;
    assert!(version.starts_with(&format!("systemd {} ", lab.version())), "{version}");
    assert_eq!(lab.sh_ok("cat /proc/1/comm")?, "systemd");
    Ok(())
}

fn socket_activation_smoke(lab: &Container) -> Outcome {
    let port = lab.port(7777)?;
    lab.write_unit("echo.socket", &format!("[Socket]\nListenStream=127.0.0.1:{port}\nAccept=yes\n"))?;
    lab.write_unit("echo@.service", "[Service]\nExecStart=/usr/bin/cat\nStandardInput=socket\n")?;
    lab.systemctl_ok(&["start", "echo.socket"])?;
    let answer = lab.in_netns(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"anybody there?")?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })??;
    assert_eq!(answer, "anybody there?");
    assert_eq!(lab.show("echo.socket", "NAccepted")?, "1");
    Ok(())
}

fn notify_smoke(lab: &Container) -> Outcome {
    lab.write_unit(
        "ready.service",
        "[Service]\nType=notify\nNotifyAccess=all\nEnvironment=COLOUR=blue\n\
         ExecStart=/bin/sh -c 'echo hello; systemd-notify --ready --status=up; sleep 1000; true'\n",
    )?;
    lab.systemctl_ok(&["start", "ready.service"])?;
    assert_eq!(lab.show("ready.service", "StatusText")?, "up");

    let pid = lab.main_pid("ready.service")?;
    let environ = lab.proc_environ(pid)?;
    assert_eq!(environ.get("COLOUR").map(String::as_str), Some("blue"));
    assert!(environ.contains_key("NOTIFY_SOCKET"), "{environ:?}");
    assert_eq!(lab.proc_fds(pid)?.get(&0).map(String::as_str), Some("/dev/null"));
    assert_eq!(lab.proc_status(pid, "PPid")?, lab.manager_pid().to_string());
    assert!(lab.pids("ready.service")?.contains(&pid));

    let journal = lab.journal_json("ready.service")?;
    let hello: &Entry = journal.iter().find(|e| e.message() == "hello").ok_or("no hello in the journal")?;
    assert_eq!(hello.get("_PID"), Some(pid.to_string().into()));

    lab.signal(pid, "KILL")?;
    lab.wait_until(DEADLINE, "ready.service failed", || {
        Ok((lab.show("ready.service", "ActiveState")? == "failed").then_some(()))
    })?;
    assert!(lab.main_pid("ready.service").is_err());
    Ok(())
}

/// A program built here runs in there, and is replaced while it runs.
fn install_smoke(lab: &Container) -> Outcome {
    let tool = lab.install(handover(), "handover")?;
    lab.sh_ok(&format!("{tool} --version"))?;
    if Path::new("examples/web.rs").exists() {
        let web = lab.install(&example("web")?, "web")?;
        lab.sh_ok(&format!("{web} --help"))?;
    }
    let sleep = lab.install("/usr/bin/sleep".as_ref(), "program")?;
    lab.write_unit("program.service", &format!("[Service]\nType=exec\nExecStart={sleep} 1000\n"))?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", "program.service"])?;
    let pid = lab.main_pid("program.service")?;
    lab.install("/usr/bin/true".as_ref(), "program")?;
    assert_eq!(lab.sh_ok(&format!("readlink /proc/{pid}/exe"))?, format!("{sleep} (deleted)"));
    lab.write_file(&format!("{}/deep/er/note", lab.dir().display()), "there\n")?;
    assert_eq!(std::fs::read_to_string(lab.host_dir().join("deep/er/note"))?, "there\n");
    assert!(lab.outside(lab.dir()).join("program").exists());
    Ok(())
}

fn notify_reload_is_known(lab: &Container) -> Outcome {
    lab.write_unit("r.service", "[Service]\nType=notify-reload\nExecStart=/usr/bin/sleep 1000\n")?;
    assert_eq!(lab.show("r.service", "Type")?, "notify-reload");
    Ok(())
}
