//! Processes by what no other process ever has: the numbers that systemd passes, and the pidfds of
//! those who send.

use super::control::tool;
use super::web::{Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario, handover};
use crate::reloads::{DEADLINE, Served};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("a_reload_names_the_main_process", reload_names_main),
    Scenario::new("sockets_for_another_process", sockets_for_another_process).system_only(),
    Scenario::new("datagrams_with_pidfds", datagrams_with_pidfds).system_only().since(258),
];

/// Sends datagrams, each of which must be echoed, and tries to send an fd.
const SENDER: &str = r#"
import array, socket, sys
to, count = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("\0sender-of-datagrams"); s.connect(to); s.settimeout(10)
for i in range(count):
    s.send(b"%d" % i)
    assert s.recv(100) == b"%d" % i
try:
    s.sendmsg([b"fd"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
    print("an fd was taken")
except PermissionError:
    print("no fd was taken")
"#;
const DATAGRAMS: usize = 300;

/// systemd passes `$MAINPIDFDID` to `ExecReload=` from 258 on, and `handover reload` refuses a
/// process that is not of that number.
fn reload_names_main(lab: &Container) -> Outcome {
    let tool_path = lab.install(handover(), "handover")?;
    let told = lab.dir().join("told").display().to_string();
    lab.write_file(
        &format!("{}/reload", lab.dir().display()),
        &format!("#!/bin/sh\necho \"id=$MAINPIDFDID\" >>{told}\nexec {tool_path} reload $MAINPID\n"),
    )?;
    lab.sh_ok(&format!("chmod 755 {0}/reload && touch {told} && chmod 666 {told}", lab.dir().display()))?;
    let lines = format!(
        "RuntimeDirectory=handover-web\nReadWritePaths={0}\nExecReload=\nExecReload={0}/reload\n",
        lab.dir().display()
    );
    let web = Web::start(lab, Setup { lines: &lines, ..Setup::default() })?;
    let first = lab.main_pid(UNIT)?;
    lab.systemctl_ok(&["reload", UNIT])?;
    let second = lab.main_pid(UNIT)?;
    lab.systemctl_ok(&["reload", UNIT])?;
    let third = web.pid()?;
    assert!(first != second && second != third);
    let ids: Vec<_> = lab.sh_ok(&format!("cat {told}"))?.lines().map(str::to_owned).collect();
    if lab.version() >= 258 {
        let numbers: Vec<u64> = ids.iter().map(|id| id.trim_start_matches("id=").parse()).collect::<Result<_, _>>()?;
        assert!(matches!(numbers[..], [one, other] if one != other && one > 1), "each process has its own: {ids:?}");
    } else {
        assert_eq!(ids, ["id=", "id="], "an older systemd passes none");
    }

    let refused = lab.sh(&format!("MAINPID={third} MAINPIDFDID=1 {tool_path} reload {third}"))?;
    assert!(!refused.success() && refused.stderr.contains("is another process by now ($MAINPIDFDID=1"), "{refused:?}");
    assert_eq!(lab.main_pid(UNIT)?, third);
    assert!(tool(lab, &format!("reload {UNIT}"))?.success(), "without the variables the unit is meant");
    Ok(())
}

/// systemd names by `LISTEN_PIDFDID` (259) whose the sockets are; a program that is given them with
/// another number does not take them, and says so when it cannot bind them itself.
fn sockets_for_another_process(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let has = lab.proc_environ(lab.main_pid(UNIT)?)?.get("LISTEN_PIDFDID").cloned();
    assert_eq!(has.is_some_and(|id| id.parse::<u64>().is_ok_and(|id| id > 1)), lab.version() >= 259);
    lab.write_file(
        &format!("/run/systemd/system/{UNIT}.d/other.conf"),
        &format!(
            "[Service]\nRestart=no\nExecStart=\nExecStart=/bin/sh -c 'LISTEN_PIDFDID=1 exec {}/web'\n",
            lab.dir().display()
        ),
    )?;
    lab.daemon_reload()?;
    assert!(!lab.systemctl(&["restart", UNIT])?.success());
    web.logged("LISTEN_PIDFDID is not its")?;
    Ok(())
}

/// Neither pidfds of those who send, nor fds that they add, fill the table of the service.
fn datagrams_with_pidfds(lab: &Container) -> Outcome {
    let path = |name: &str| lab.host_dir().join(name).display().to_string();
    let listen = format!("ListenDatagram={}/pidfds.sock", lab.dir().display());
    let lines = format!("{listen}\nPassPIDFD=yes\nPassCredentials=yes\nAcceptFileDescriptors=no");
    let _echo = Served::start(lab, "echo", &[("echo-datagrams", lines)], "")?;
    std::fs::write(path("sender.py"), SENDER)?;
    let [sender, to] = ["sender.py", "pidfds.sock"].map(path);
    let said = lab.sh_beside(DEADLINE, &format!("exec python3 {sender} {to} {DATAGRAMS}"))?;
    assert_eq!((said.stdout.as_str(), said.success()), ("no fd was taken\n", true), "{said:?}");
    let fds = lab.proc_fds(lab.main_pid("echo.service")?)?;
    let pidfds = fds.values().filter(|to| to.contains("pidfd")).count();
    assert!(pidfds < DATAGRAMS / 10, "{fds:?}");
    Ok(())
}
