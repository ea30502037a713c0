//! What a reload takes from an edited unit: nothing. A restart takes all.

use std::net::{SocketAddr, TcpStream};

use super::web::{DEADLINE, Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    // A credential of the unit is for the system's manager alone.
    Scenario::new("a_reload_reads_no_unit", a_reload_reads_no_unit).system_only(),
    Scenario::new("fds_of_a_listener", fds_of_a_listener).system_only(),
];

const OTHER_PORT: u16 = 8090;

/// What the main process has of its unit.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    line: String,
    file: String,
    program: String,
    open_files: String,
    credential: String,
}

fn seen(lab: &Container) -> Outcome<Seen> {
    let pid = lab.main_pid(UNIT)?;
    let environment = lab.proc_environ(pid)?;
    let variable = |name: &str| environment.get(name).cloned().unwrap_or_default();
    let command = lab.proc_read(pid, "cmdline")?;
    let limits = lab.proc_read(pid, "limits")?;
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    Ok(Seen {
        line: variable("LINE"),
        file: variable("FILE"),
        program: command.split('\0').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default().to_owned(),
        // The soft limit is the program's own affair.
        open_files: open_files.split_whitespace().nth(1).unwrap_or_default().to_owned(),
        credential: lab.sh_ok("cat /run/credentials/web.service/word")?,
    })
}

fn a_reload_reads_no_unit(lab: &Container) -> Outcome {
    let dir = lab.dir().display().to_string();
    let lines = |word: &str, open_files: u32| {
        format!(
            "Environment=LINE={word}\nEnvironmentFile={dir}/environment\n\
             SetCredential=word:{word}\nLimitNOFILE={open_files}\n"
        )
    };
    let is = |word: &str, program: &str, open_files: &str| Seen {
        line: word.to_owned(),
        file: word.to_owned(),
        program: program.to_owned(),
        open_files: open_files.to_owned(),
        credential: word.to_owned(),
    };
    lab.write_file(&format!("{dir}/environment"), "FILE=before\n")?;
    let web = Web::start(lab, Setup { lines: &lines("before", 5000), ..Setup::default() })?;
    let before = is("before", "web", "5000");
    assert_eq!(seen(lab)?, before);

    lab.write_file(&format!("{dir}/environment"), "FILE=after\n")?;
    lab.sh_ok(&format!("cp {dir}/web {dir}/web-2"))?;
    Web::install(lab, Setup { command: "{dir}/web-2", lines: &lines("after", 6000), ..Setup::default() })?;
    let other = SocketAddr::from(([127, 0, 0, 1], lab.port(OTHER_PORT)?));
    lab.write_unit("web.socket", &format!("[Socket]\nListenStream={other}\nFileDescriptorName=http\n"))?;
    lab.daemon_reload()?;
    let main = web.reload()?;
    assert_eq!((seen(lab)?, web.pid()?), (before, main));
    let connects = || -> Outcome<bool> { Ok(lab.in_netns(|| TcpStream::connect(other))?.is_ok()) };
    assert!(!connects()?, "the edited .socket listens already");

    // Which restarts the service too, as that requires it.
    lab.systemctl_ok(&["restart", "web.socket"])?;
    lab.wait_until(DEADLINE, "the other port", || Ok(connects()?.then_some(())))?;
    web.until("running", super::web::State::is_running)?;
    assert_eq!(seen(lab)?, is("after", "web-2", "6000"));
    Ok(())
}

/// The generation keeps one for the next, one so that the fd store is not given it twice, and
/// accepts on a third. A reload leaves no more.
fn fds_of_a_listener(lab: &Container) -> Outcome {
    let most = || -> Outcome<usize> {
        let fds = lab.proc_fds(lab.main_pid(UNIT)?)?;
        let sockets: Vec<_> = fds.values().filter(|to| to.starts_with("socket:")).collect();
        Ok(sockets.iter().map(|to| sockets.iter().filter(|other| *other == to).count()).max().unwrap_or(0))
    };
    for binds in [false, true] {
        let web = Web::start(lab, Setup { binds, ..Setup::default() })?;
        assert_eq!(most()?, 3, "binds: {binds}");
        let main = web.reload()?;
        web.until_only(&[main])?;
        assert_eq!(most()?, 3, "after a reload, binds: {binds}");
        lab.systemctl_ok(&["stop", "web.socket", UNIT])?;
    }
    Ok(())
}
