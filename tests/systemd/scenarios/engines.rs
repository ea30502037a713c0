//! Engines that bring a new program by themselves, as `docs/engines.md` has them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::lab::{Container, Outcome, Scenario, example};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new("sysext_refresh", sysext_refresh).since(262).system_only()];

const UNIT: &str = "web.service";
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const DEADLINE: Duration = Duration::from_secs(20);
const SERVICE: &str = include_str!("../../../packaging/systemd/web.service");
const SOCKET: &str = include_str!("../../../packaging/systemd/web.socket");
const RELEASE: &str = include_str!("../../../packaging/sysext/extension-release.web");

/// The program and its units are in an extension image, and `systemd-sysext refresh` brings the
/// next version under load: the shipped unit with its sandbox, and the lists of units of 262.
fn sysext_refresh(lab: &Container) -> Outcome {
    let web = lab.install(&example("web")?, "web")?;
    let next = "/var/lib/extensions/.next";
    lab.sh_ok(&format!("mkdir -p {next}/usr/bin {next}/usr/lib/systemd/system {next}/usr/lib/extension-release.d"))?;
    lab.write_file(&format!("{next}/usr/lib/systemd/system/{UNIT}"), SERVICE)?;
    lab.write_file(&format!("{next}/usr/lib/systemd/system/web.socket"), SOCKET)?;
    lab.write_file(&format!("{next}/usr/lib/extension-release.d/extension-release.web"), RELEASE)?;
    // What is merged is replaced as a whole, never written into.
    let bring = format!(
        "cd /var/lib/extensions && if [ -e web ]; then cp -a web .next; fi && rm -f .next/usr/bin/web && cp {web} .next/usr/bin/web \
         && echo \"$1\" >>.next/usr/bin/web && if [ -e web ]; then rm -rf .last; mv web .last; fi && mv .next web && systemd-sysext refresh"
    );
    let bring = |version: &str| lab.sh_ok(&format!("set -- {version}; {bring}"));
    bring("first")?;
    lab.systemctl_ok(&["start", "web.socket", UNIT])?;
    let runs = |version: &str| -> Outcome<Option<u32>> {
        let main = lab.main_pid(UNIT)?;
        let last = lab.sh(&format!("tail -n 1 /proc/{main}/exe"))?.stdout;
        Ok((last.trim_end() == version).then_some(main))
    };
    let first = lab.wait_until(DEADLINE, "the first version", || runs("first"))?;
    let started = lab.show(UNIT, "InvocationID")?;
    let ((), stats) = load::under(lab, ADDRESS, load::SHORT, |_| {
        bring("second")?;
        let second = lab.wait_until(DEADLINE, "the second version", || runs("second"))?;
        assert_ne!(first, second);
        // One that does not come up: the version of before serves on, from an image that is merged
        // no more.
        lab.sh_ok("cd /var/lib/extensions && cp -a web .next && cp /bin/false .next/usr/bin/web && rm -rf .last && mv web .last && mv .next web")?;
        lab.sh("systemd-sysext refresh")?;
        lab.wait_until(DEADLINE, "a reload that failed", || {
            Ok(lab.sh_ok(&format!("journalctl -o cat -u {UNIT}"))?.contains("reload failed").then_some(()))
        })?;
        assert_eq!(lab.main_pid(UNIT)?, second, "it serves on");
        bring("third")?;
        lab.wait_until(DEADLINE, "the third version", || runs("third"))?;
        Ok(())
    })?;
    let summary = load::lost_nothing(&stats)?;
    assert_eq!(lab.show(UNIT, "InvocationID")?, started, "reloaded, not restarted");
    println!(
        "systemd {}: two versions by refresh, and one that failed: lost 0 of {}",
        lab.version(),
        summary.total.answered
    );
    Ok(())
}
