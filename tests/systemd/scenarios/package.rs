//! The Debian package: installed by apt into a clean root, used, upgraded under load, and taken
//! away again. And how exposed the units are.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::restart::{Asks, Clients, under};
use super::web::{DEADLINE, Setup, UNIT as WEB, Web};
use crate::TOP;
use crate::lab::{Container, Outcome, Output, Scenario, handover};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("package_life", life).whole_root(),
    Scenario::new("package_restart", restart).whole_root(),
    Scenario::new("package_units_exposure", exposure).system_only(),
    Scenario::new("package_units_hardest", hardest).system_only(),
    Scenario::new("package_units_without_close_range", without_close_range).system_only(),
];

const UNIT: &str = "handover-demo.service";
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// One of the catalog's.
const MESSAGE_ID: &str = "b5c8a6b0b0b3469393f9fcced9b0ecce";
const DOCS: &str = include_str!("../../../src/docs/install.md");
const REFUSED: &str = "handover-demo.service was not reloaded, its former version serves on";
/// An installation on a busy machine.
const APT_DEADLINE: Duration = Duration::from_secs(180);

fn life(lab: &Container) -> Outcome {
    // From the program of this test run: a release build would take minutes, and is the same but
    // for its speed.
    let (first, second) = (build(lab, "0.1.0-1")?, build(lab, "0.1.0-2")?);
    let broken = broken(lab)?;
    // apt wakes it, and it has directories of its own.
    lab.systemctl_ok(&["start", "systemd-logind.service"])?;
    let before = traces(lab)?;
    apt(lab, &format!("install {first}"))?;
    assert_eq!(lab.sh_ok("handover --version")?, concat!("handover ", env!("CARGO_PKG_VERSION")));
    let states = lab.sh(&format!("systemctl is-enabled {UNIT}; systemctl is-active {UNIT}"))?.stdout;
    assert_eq!(states, "disabled\ninactive\n", "installing starts nothing");
    let entry = lab.sh_ok(&format!("journalctl --list-catalog {MESSAGE_ID}"))?;
    assert!(entry.contains("handover: Generation @GENERATION@ serves"), "{entry}");
    lab.sh_ok("test -s /usr/share/man/man1/handover-reload.1.gz")?;

    lab.sh_ok(&format!("systemctl enable --now handover-demo.socket {UNIT} 2>&1"))?;
    let checked = lab.sh_ok(&format!("handover check --strict {UNIT} handover-demo.socket"))?;
    assert!(checked.starts_with("0 errors, 0 warnings in 2 units"), "{checked}");
    let started = (lab.main_pid(UNIT)?, lab.show(UNIT, "InvocationID")?);
    let ((), stats) = load::under(lab, ADDRESS, load::ALL, |_| {
        lab.systemctl_ok(&["reload", UNIT])?;
        let reloaded = lab.main_pid(UNIT)?;
        assert_ne!(reloaded, started.0, "another generation is main as soon as systemctl has returned");
        let said = apt(lab, &format!("install {second}"))?;
        let upgraded = lab.main_pid(UNIT)?;
        assert_ne!(upgraded, reloaded, "another generation is main as soon as apt has returned: {said}");
        lab.sh_ok(&format!("test /usr/bin/handover -ef /proc/{upgraded}/exe"))?;
        // A version that does not come up: apt says so and goes on, and so does the service.
        let refused = apt_get(lab, &format!("install {broken}"))?;
        assert!(refused.success() && refused.stdout.contains(REFUSED), "{}", refused.stdout);
        assert_eq!(lab.main_pid(UNIT)?, upgraded, "it serves on");
        Ok(())
    })?;
    let summary = load::lost_nothing(&stats)?;
    println!("systemd {}: reload and two upgrades: lost 0 of {} requests", lab.version(), summary.total.answered);
    assert_eq!(lab.sh_ok("dpkg-query -W -f '${Version}' handover")?, "0.1.0-3");
    let why = lab.sh_ok(&format!("journalctl -o cat -u {UNIT}"))?;
    assert!(why.contains("reload failed: generation 4 exited with status 7"), "{why}");
    assert_eq!(lab.show(UNIT, "InvocationID")?, started.1, "reloaded, not restarted");
    let status = lab.sh_ok("handover status handover-demo")?;
    assert!(status.contains("generation 3"), "{status}");
    assert_eq!(lab.systemctl(&["is-enabled", UNIT])?.stdout, "enabled\n", "as the administrator left it");

    apt(lab, "purge handover")?;
    let gone = lab.systemctl(&["show", "-p", "LoadState,ActiveState", UNIT])?.stdout;
    assert_eq!(gone, "LoadState=not-found\nActiveState=inactive\n");
    assert!(lab.in_netns(|| TcpStream::connect(ADDRESS))?.is_err(), "nobody listens any more");
    assert!(!lab.sh("pgrep -x handover")?.success(), "no process is left");
    assert!(!lab.sh_ok("journalctl --list-catalog")?.contains("handover: "), "no entry of the catalog is left");
    let after = traces(lab)?;
    let left: Vec<_> = after.symmetric_difference(&before).collect();
    assert!(left.is_empty(), "left behind, or missing: {left:#?}");
    Ok(())
}

/// A package whose upgrade restarts the service, as most do: it is as any other restart.
fn restart(lab: &Container) -> Outcome {
    const KEPT: usize = 100;
    let (first, second) = (build(lab, "0.1.0-1")?, restarting(lab)?);
    lab.systemctl_ok(&["start", "systemd-logind.service"])?;
    apt(lab, &format!("install {first}"))?;
    lab.write_file(
        &format!("/etc/systemd/system/{UNIT}.d/restart.conf"),
        "[Service]\nEnvironment=HANDOVER_MIGRATE=restart\n",
    )?;
    lab.daemon_reload()?;
    lab.sh_ok(&format!("systemctl enable --now handover-demo.socket {UNIT} 2>&1"))?;
    let (old, invocation) = (lab.main_pid(UNIT)?, lab.show(UNIT, "InvocationID")?);
    let clients = [Clients::of_http(ADDRESS, Asks::Kept(Duration::from_millis(100)), KEPT)];
    let seen = under(lab, &clients, |seen| {
        apt(lab, &format!("install {second}"))?;
        assert_ne!((lab.main_pid(UNIT)?, lab.show(UNIT, "InvocationID")?), (old, invocation), "it was restarted");
        let answered = seen.answered();
        lab.wait_until(DEADLINE, "all are answered", || Ok((seen.answered() > answered + KEPT as u64).then_some(())))
    })?;
    let why = lab.sh_ok(&format!("journalctl -o cat -u {UNIT}"))?;
    println!(
        "systemd {}: upgrade with a restart, {KEPT} connections: {} answered, {} lost, longest wait {:?}",
        lab.version(),
        seen.answered(),
        seen.lost(),
        seen.longest()
    );
    assert_eq!(seen.lost(), 0);
    assert!(why.contains(&format!("serves {KEPT} connections that have waited for")), "{why}");
    Ok(())
}

/// The second version, which is restarted.
fn restarting(lab: &Container) -> Outcome<String> {
    build(lab, "0.1.0-2")?;
    repack(
        lab,
        "sed -i 's/deb-systemd-invoke reload/deb-systemd-invoke restart/' all/DEBIAN/postinst; grep -q 'invoke restart' all/DEBIAN/postinst",
    )
}

/// As the container calls it.
fn build(lab: &Container, version: &str) -> Outcome<String> {
    let top = Path::new(TOP);
    let mut command = Command::new(top.join("packaging/build-deb"));
    command.args(["--fast", "--version", version, "--binary"]).arg(handover()).arg("--output").arg(lab.host_dir());
    let output = command.output().map_err(|e| format!("packaging/build-deb cannot be run: {e}"))?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let path = String::from_utf8(output.stdout)?;
    let name = Path::new(path.trim()).file_name().unwrap_or_default();
    Ok(lab.dir().join(name).display().to_string())
}

/// The third version: all of it works but the service.
fn broken(lab: &Container) -> Outcome<String> {
    repack(
        lab,
        "sed -i s/^Version:.*/Version:\\ 0.1.0-3/ all/DEBIAN/control
        mkdir -p all/usr/libexec; mv all/usr/bin/handover all/usr/libexec/handover
        printf '#!/bin/sh\\n[ \"$1\" != web ] || exit 7\\nexec /usr/libexec/handover \"$@\"\\n' >all/usr/bin/handover
        chmod 755 all/usr/bin/handover",
    )
}

/// Changes what the second version has, which is in `all`.
fn repack(lab: &Container, change: &str) -> Outcome<String> {
    let script = format!(
        "set -eu; dpkg-deb -R ./handover_0.1.0-2_*.deb all; {change}
        dpkg-deb --root-owner-group -Znone -b all changed.deb; rm -r all"
    );
    let output = Command::new("sh").args(["-c", &script]).current_dir(lab.host_dir()).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(lab.dir().join("changed.deb").display().to_string())
}

/// There is no network in the container: all that the package depends on must be in the root.
fn apt_get(lab: &Container, arguments: &str) -> Outcome<Output> {
    lab.sh_within(APT_DEADLINE, &format!("DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet {arguments} 2>&1"))
}

/// As [`apt_get`], without a complaint.
fn apt(lab: &Container, arguments: &str) -> Outcome<String> {
    let output = apt_get(lab, arguments)?;
    assert!(output.success(), "apt-get {arguments}: {}\n{}", output.status, output.stdout);
    for word in ["not reloaded", "warning:", "ailed"] {
        assert!(!output.stdout.contains(word), "{}", output.stdout);
    }
    Ok(output.stdout)
}

/// Every path of the system and every file of /etc with its content, but for what apt and dpkg keep
/// for themselves; what of ours is in /run; users and groups are in /etc.
fn traces(lab: &Container) -> Outcome<BTreeSet<String>> {
    let text = lab.sh_ok(
        "find / -xdev \\( -path /var/lib/apt -o -path /var/cache/apt -o -path /var/cache/debconf -o -path /var/log -o -path /lab \\) -prune -o \
           -path '/var/lib/dpkg/*-old' -o -path '/var/lib/dpkg/lock*' -o -path '/var/lib/dpkg/triggers/*' -o -print
         find /etc -type f -exec md5sum {} +
         find /etc/systemd/system
         find /run /dev/shm /tmp /var/tmp -name '*handover*' ! -path '/run/host/*'",
    )?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The bounds are those in the chapter "install" of the docs, in tenths, and 0.2 for what versions
/// to come may think of.
fn exposure(lab: &Container) -> Outcome {
    let bounds = [
        ("systemd/web.service", 26),
        ("systemd/web-notify-reload.service", 26),
        ("systemd/counter.service", 26),
        ("systemd/runner.service", 18),
        ("deb/handover-demo.service", 26),
    ];
    for (unit, bound) in bounds {
        let name = unit.rsplit('/').next().unwrap_or(unit);
        let row = DOCS.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap_or_default();
        assert!(row.contains(&format!(" {}.{} |", bound / 10, bound % 10)), "the docs say {row:?}");
        // As systemd 252 reads it: there is no such type.
        if unit.contains("notify-reload") && lab.version() < 253 {
            continue;
        }
        let text = std::fs::read_to_string(Path::new(TOP).join("packaging").join(unit))?;
        let path = format!("/run/exposure/{name}");
        lab.write_file(&path, &text)?;
        let script = format!("systemd-analyze security --no-pager --offline=yes --threshold={} {path}", bound + 2);
        let judged = lab.sh(&script)?;
        let overall = judged.stdout.lines().last().unwrap_or_default().to_owned();
        println!("systemd {}: {overall}", lab.version());
        assert!(judged.success() && overall.contains("exposure level"), "{}{}", judged.stdout, judged.stderr);
    }
    Ok(())
}

/// What the docs name beyond the packaged lines, all at once.
fn hardest(lab: &Container) -> Outcome {
    let more = ["User=", "PrivateNetwork=", "RestrictNamespaces=", "SystemCallFilter=~@privileged @resources"];
    assert!(more.iter().all(|line| DOCS.contains(&format!("`{line}`"))), "all in the docs: {more:?}");
    let lines = format!("{}nobody\n{}yes\n{}yes\n{}\n", more[0], more[1], more[2], more[3]);
    reloaded_twice(lab, &lines)?;
    let judged = lab.sh(&format!("systemd-analyze security --no-pager --threshold=13 {WEB}"))?;
    println!("systemd {}: with all four: {}", lab.version(), judged.stdout.lines().last().unwrap_or_default());
    assert!(judged.success(), "{}", judged.stdout);
    Ok(())
}

/// By that call the next generation gets rid of our fds. Forbidden, as on an old kernel: a start
/// copies them all.
fn without_close_range(lab: &Container) -> Outcome {
    reloaded_twice(lab, "SystemCallFilter=~close_range\nSystemCallErrorNumber=EPERM\n")?;
    let filter = lab.sh(&format!("systemctl show -P SystemCallFilter {WEB}"))?.stdout;
    assert!(filter.contains("execve") && !filter.contains("close_range"), "{filter}");
    Ok(())
}

/// With these lines in its unit, under load.
fn reloaded_twice(lab: &Container, lines: &str) -> Outcome {
    let web = Web::start(lab, Setup { lines, ..Setup::default() })?;
    let (main, stats) = load::under(lab, web.address, load::SHORT, |_| {
        web.reload()?;
        web.reload()
    })?;
    // With less it would have to enlarge its table of fds under load, at 10 ms and more each time.
    let entries: u32 = lab.proc_status(main, "FDSize")?.parse()?;
    assert!(entries >= 1024, "a table of {entries} fds");
    load::lost_nothing(&stats).map(drop)
}
