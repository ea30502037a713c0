//! Another program at the same path: the reload is the upgrade.

use std::os::unix::fs::MetadataExt;

use super::web::{Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario, example};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] =
    &[Scenario::new("upgrade_by_rename", upgrade_by_rename), Scenario::new("upgrade_by_symlink", upgrade_by_symlink)];

fn upgrade_by_rename(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let path = lab.dir().join("web").display().to_string();
    let ((), stats) = load::under(lab, web.address, load::SHORT, |_| {
        for _ in 0..3 {
            let old = lab.main_pid(UNIT)?;
            lab.install(&example("web")?, "web")?;
            assert_eq!(executable(lab, old)?, format!("{path} (deleted)"));
            let new = web.reload()?;
            assert_eq!(executable(lab, new)?, path);
            let running = lab.sh_ok(&format!("stat -L -c %i /proc/{new}/exe"))?.parse::<u64>()?;
            assert_eq!(running, std::fs::metadata(lab.host_dir().join("web"))?.ino());
        }
        Ok(())
    })?;
    load::lost_nothing(&stats).map(drop)
}

fn upgrade_by_symlink(lab: &Container) -> Outcome {
    let version = |n: u32| -> Outcome<String> {
        lab.sh_ok(&format!("mkdir -p {}/v{n}", lab.dir().display()))?;
        lab.install(&example("web")?, &format!("v{n}/web"))
    };
    let point_at = |n: u32| lab.sh_ok(&format!("cd {} && ln -sfn v{n} new && mv -T new current", lab.dir().display()));
    let first = version(1)?;
    point_at(1)?;
    let web = Web::start(lab, Setup { command: "{dir}/current/web", ..Setup::default() })?;
    assert_eq!(executable(lab, lab.main_pid(UNIT)?)?, first);
    let ((), stats) = load::under(lab, web.address, load::SHORT, |_| {
        for n in 2..=3 {
            let path = version(n)?;
            point_at(n)?;
            let new = web.reload()?;
            assert_eq!(executable(lab, new)?, path);
        }
        // Back again, with the new ones gone: the oldest reason for such links.
        point_at(1)?;
        lab.sh_ok(&format!("cd {} && rm -r v2 v3", lab.dir().display()))?;
        let new = web.reload()?;
        assert_eq!(executable(lab, new)?, first);
        Ok(())
    })?;
    load::lost_nothing(&stats).map(drop)
}

fn executable(lab: &Container, pid: u32) -> Outcome<String> {
    lab.sh_ok(&format!("readlink /proc/{pid}/exe"))
}
