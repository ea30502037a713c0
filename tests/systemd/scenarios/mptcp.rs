//! A socket of Multipath TCP from systemd.

use std::net::SocketAddr;
use std::thread;

use super::web::{DEADLINE, SOCKET, Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario, example, handover};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("mptcp_connections_move", connections_move).system_only().since(257),
    Scenario::new("mptcp_for_any_program", for_any_program).system_only().since(257),
];

/// A client by the protocol of that number: asks for the pid, waits for a file, asks again on the
/// same connection. It prints both, and whether the kernel speaks MPTCP on it (`MPTCP_INFO`).
const CLIENT: &str = r#"
import os, socket, sys, time
port, protocol, asked, go = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
def pid(s):
    s.sendall(b"GET /pid HTTP/1.1\r\nHost: lab\r\n\r\n")
    got = b""
    while not (b"\r\n\r\n" in got and got.endswith(b"\n") and got.split(b"\r\n\r\n", 1)[1]):
        more = s.recv(4096)
        if not more: sys.exit("closed after %r" % got)
        got += more
    return got.split(b"\r\n\r\n", 1)[1].decode().strip()
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
s.settimeout(20)
s.connect(("127.0.0.1", port))
def multipath():
    try: return len(s.getsockopt(284, 1, 256)) > 0
    except OSError: return False
first = pid(s)
open(asked, "w").close()
end = time.monotonic() + 20
while not os.path.exists(go):
    if time.monotonic() > end: sys.exit("nobody has said go")
    time.sleep(0.01)
print(first, pid(s), multipath())
"#;
const TCP: u32 = 6;
const MPTCP: u32 = 262;

fn start<'a>(lab: &'a Container, setup: Setup<'_>) -> Outcome<Web<'a>> {
    let web = Web::install(lab, setup)?;
    lab.sh_ok(&format!("cd /etc/systemd/system && sed -i 's/^ListenStream=.*/&\\nSocketProtocol=mptcp/' {SOCKET}"))?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", SOCKET, UNIT])?;
    Ok(web)
}

/// Under `handover run`, which asks the next one by its port whether it is ready.
fn for_any_program(lab: &Container) -> Outcome {
    let (tool, program) = (lab.install(handover(), "handover")?, lab.install(&example("web")?, "web")?);
    let web = Web { lab, address: SocketAddr::from(([127, 0, 0, 1], 8080)) };
    let listen = "ListenStream=127.0.0.1:8080\nSocketProtocol=mptcp\nFileDescriptorName=http\n";
    lab.write_unit(SOCKET, &format!("[Socket]\n{listen}"))?;
    // The probe looks at sockets by netlink, which the sandbox of the packaged unit has not.
    lab.write_unit(
        UNIT,
        &format!(
            "[Unit]\nRequires={SOCKET}\nAfter={SOCKET}\n[Service]\nType=notify\nExecReload=/bin/kill -HUP $MAINPID\n\
             ExecStart={tool} run --ready http:/pid -- {program}\n"
        ),
    )?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", SOCKET, UNIT])?;
    let (supervisor, first) = (lab.main_pid(UNIT)?, web.pid()?);
    lab.systemctl_ok(&["reload", UNIT])?;
    web.logged("generation 2 is main")?;
    let second = web.pid()?;
    web.until_only(&[supervisor, second])?;
    assert!(first != second && lab.main_pid(UNIT)? == supervisor);
    Ok(())
}

/// It is served, and both its MPTCP connections and those of plain TCP clients move to the next
/// generation in a reload, and wait for the next start in a restart.
fn connections_move(lab: &Container) -> Outcome {
    let lines = "Environment=HANDOVER_MIGRATE=restart\n";
    let web = start(lab, Setup { lines, ..Setup::default() })?;
    let client = lab.host_dir().join("client.py");
    std::fs::write(&client, CLIENT)?;
    for (verb, multipath) in [("reload", true), ("restart", true), ("reload", false)] {
        let old = lab.main_pid(UNIT)?;
        let protocol = if multipath { MPTCP } else { TCP };
        let said = over(&web, old, protocol, verb)?;
        let new = web.state()?.main;
        println!("{verb}, protocol {protocol}: {said}");
        assert_eq!(said, format!("{old} {new} {}", if multipath { "True" } else { "False" }), "{verb}");
    }
    Ok(())
}

/// What a client says whose connection lives through that.
fn over(web: &Web<'_>, old: u32, protocol: u32, verb: &str) -> Outcome<String> {
    let lab = web.lab;
    let [client, asked, go] = ["client.py", "asked", "go"].map(|name| lab.host_dir().join(name));
    for file in [&asked, &go].into_iter().filter(|file| file.exists()) {
        std::fs::remove_file(file)?;
    }
    let command = format!(
        "exec python3 {0} {3} {protocol} {1} {2}",
        client.display(),
        asked.display(),
        go.display(),
        web.address.port()
    );
    thread::scope(|scope| {
        let running = scope.spawn(|| lab.sh_beside(DEADLINE, &command));
        let reloaded = lab.wait_until(DEADLINE, "the client was answered", || Ok(asked.exists().then_some(())));
        let reloaded = reloaded.and_then(|()| lab.systemctl_ok(&[verb, UNIT]).map(drop));
        let reloaded = reloaded.and_then(|()| web.until("another main process", |s| s.is_running() && s.main != old));
        // It has gone when nobody is left where it was.
        let reloaded = reloaded.and_then(|state| web.until_only(&[state.main]));
        let reloaded = reloaded.and_then(|()| Ok(std::fs::write(&go, "")?));
        match running.join() {
            Ok(said) => {
                let said = said?;
                reloaded?;
                assert!(said.success(), "{said:?}");
                Ok(said.stdout.trim().to_owned())
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
