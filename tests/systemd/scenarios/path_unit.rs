//! The recipe of a .path unit that reloads a service when its program is replaced.

use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use super::web::{DEADLINE, Setup, State, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario, example};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new("path_unit_recipe", recipe)];

const PATH_UNIT: &str = "web-upgrade.path";
const WATCH: &str = include_str!("../../../packaging/recipes/web-upgrade.path");
const UPGRADE: &str = include_str!("../../../packaging/recipes/web-upgrade.service");

fn recipe(lab: &Container) -> Outcome {
    let web = Web::install(lab, Setup::default())?;
    let program = lab.dir().join("web").display().to_string();
    let systemctl = if lab.manager_pid() == 1 { "/usr/bin/systemctl" } else { "/usr/bin/systemctl --user" };
    assert!(WATCH.contains("PathChanged=/usr/bin/web\n") && UPGRADE.contains("=/usr/bin/systemctl "));
    lab.write_unit(PATH_UNIT, &WATCH.replace("/usr/bin/web", &program))?;
    lab.write_unit("web-upgrade.service", &UPGRADE.replace("/usr/bin/systemctl", systemctl))?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", "web.socket", UNIT, PATH_UNIT])?;

    let ((), stats) = load::under(lab, web.address, load::SHORT, |_| {
        // By rename, as dpkg does it.
        lab.install(&example("web")?, "web")?;
        runs_what_is_there(&web)?;

        // A burst: whatever comes meanwhile, the last one is it. The recipe waits a second before
        // each reload.
        let (reloads, began) = (web.count_logged("reload: starting generation")?, Instant::now());
        for _ in 0..20 {
            lab.install(&example("web")?, "web")?;
        }
        runs_what_is_there(&web)?;
        let reloads = web.count_logged("reload: starting generation")? - reloads;
        let took = began.elapsed();
        assert!(reloads >= 1 && reloads as u64 <= took.as_secs() + 2, "{reloads} reloads in {took:?}");

        // Half a file, at its place. The reload fails, and nothing is lost; the other half is a
        // change too.
        let failed = web.count_logged("reload failed")?;
        lab.sh_ok(&format!("cd {} && mv web good && head -c 100000 good >web && chmod 755 web", lab.dir().display()))?;
        lab.wait_until(DEADLINE, "a reload that failed", || {
            Ok((web.count_logged("reload failed")? > failed).then_some(()))
        })?;
        assert!(runs(&web, &web.until("idle", State::is_running)?, "good")?, "it serves on");
        lab.wait_until(DEADLINE, "watching again", || {
            Ok((lab.show(PATH_UNIT, "SubState")? == "waiting").then_some(()))
        })?;
        // "Text file busy" if a last reload tries it just now.
        let whole = format!("cd {} && cat good >web", lab.dir().display());
        lab.wait_until(DEADLINE, "the whole file", || Ok(lab.sh(&whole)?.success().then_some(())))?;
        runs_what_is_there(&web)
    })?;
    load::lost_nothing(&stats)?;
    let state = web.state()?;
    assert!(state.is_running() && state.restarts == 0, "{state:?}");
    assert_eq!(lab.show(PATH_UNIT, "SubState")?, "waiting", "no limit was hit");

    // A service that does not run is not started by it.
    lab.systemctl_ok(&["stop", "web.socket", UNIT])?;
    assert_eq!(lab.show(PATH_UNIT, "ActiveState")?, "inactive", "it goes with the service");
    lab.systemctl_ok(&["start", "web-upgrade.service"])?;
    assert_eq!(lab.show(UNIT, "ActiveState")?, "inactive");
    Ok(())
}

/// Waits until the main process runs the file that is at its path now.
fn runs_what_is_there(web: &Web<'_>) -> Outcome {
    web.lab.wait_until(DEADLINE, "the new program is main", || {
        let state = web.state()?;
        Ok((state.is_running() && runs(web, &state, "web")?).then_some(()))
    })
}

/// Whether the main process is that file of the case.
fn runs(web: &Web<'_>, state: &State, name: &str) -> Outcome<bool> {
    let file = std::fs::metadata(web.lab.host_dir().join(name))?.ino();
    Ok(web.lab.sh(&format!("stat -L -c %i /proc/{}/exe", state.main))?.stdout.trim() == file.to_string())
}
