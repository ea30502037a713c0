//! A service whose program lies in an extension image of `/usr`.

use super::web::{DEADLINE, Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario, example};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("sysext_refresh", refresh).whole_root(),
    Scenario::new("sysext_that_a_sandbox_keeps", kept).whole_root(),
];

/// From this version of systemd on an image says which units follow it.
const LISTS: u32 = 262;

/// Puts another image in the place of the one that is there, by rename. Whoever has that one merged
/// keeps it.
fn image(lab: &Container, version: &str) -> Outcome {
    let web = lab.install(&example("web")?, "web")?;
    let release = include_str!("../../../packaging/sysext/extension-release.web");
    lab.sh_ok("mkdir -p /var/lib/extensions /var/new/usr/lib/extension-release.d /var/new/usr/lib/web")?;
    lab.write_file("/var/new/usr/lib/extension-release.d/extension-release.web", release)?;
    // What stands behind an ELF file is not looked at.
    lab.sh_ok(&format!(
        "cp {web} /var/new/usr/lib/web/web && printf '\nversion {version}' >>/var/new/usr/lib/web/web"
    ))?;
    lab.sh_ok(&format!(
        "cd /var/lib/extensions && if [ -e web ]; then mv web /var/before-{version}; fi && mv /var/new web"
    ))?;
    Ok(())
}

/// Which version the main process runs.
fn runs(lab: &Container) -> Outcome<String> {
    lab.version_of(lab.main_pid(UNIT)?)
}

fn start<'a>(lab: &'a Container, lines: &str) -> Outcome<Web<'a>> {
    image(lab, "1")?;
    lab.sh_ok("systemd-sysext merge")?;
    // In its sandbox it does not see what PID 1 has mounted.
    let web = Web::start(lab, Setup { command: "/usr/lib/web/web", lines, ..Setup::default() })?;
    assert_eq!(runs(lab)?, "version 1");
    Ok(web)
}

/// A refresh and a reload, which from 262 on the refresh asks for itself: the packaged unit, in its
/// sandbox, is at the new program, and no request is lost.
fn refresh(lab: &Container) -> Outcome {
    let web = start(lab, "")?;
    let ((), stats) = load::under(lab, web.address, load::ALL, |_| {
        for version in ["2", "3", "4"] {
            let old = lab.main_pid(UNIT)?;
            image(lab, version)?;
            lab.sh_ok("systemd-sysext refresh")?;
            if lab.version() < LISTS {
                web.reload()?;
            }
            web.until("another main process", |s| s.is_running() && s.main != old)?;
            assert_eq!(runs(lab)?, format!("version {version}"));
        }
        Ok(())
    })?;
    let summary = load::lost_nothing(&stats)?;
    println!("systemd {}: 3 refreshes of an extension, {} answered, 0 lost", lab.version(), summary.total.answered);
    assert_eq!(web.state()?.restarts, 0);
    assert_eq!(web.count_logged("handed over to generation")?, 3);
    Ok(())
}

/// A mount of the service's own below `/usr` keeps the image from before: a reload is refused, as
/// it would start the old program as if it were the new one. A restart takes the new one.
fn kept(lab: &Container) -> Outcome {
    let web = start(lab, "InaccessiblePaths=/usr/share\n")?;
    let old = lab.main_pid(UNIT)?;
    image(lab, "2")?;
    lab.sh_ok("systemd-sysext refresh")?;
    if lab.version() < LISTS {
        lab.systemctl_ok(&["reload", UNIT])?;
    }
    let refused = web.until("the reload is refused", |s| s.status.contains("would be the old program again"))?;
    assert_eq!((refused.main, web.pid()?, runs(lab)?), (old, old, "version 1".to_owned()), "{refused:?}");
    println!("systemd {}: {}", lab.version(), refused.status);
    lab.systemctl_ok(&["restart", UNIT])?;
    lab.wait_until(DEADLINE, "the new program", || Ok((runs(lab)? == "version 2").then_some(())))
}
