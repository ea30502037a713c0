//! A program that comes from an extension of the unit's (`ExtensionDirectories=`).

use super::web::DEADLINE;
use crate::lab::{Container, Outcome, Scenario, example};

pub(super) const SCENARIOS: &[Scenario] =
    &[Scenario::new("a_program_from_an_extension", program_from_an_extension).system_only()];

const UNIT: &str = "ext.service";

fn reload(lab: &Container) -> Outcome<u32> {
    let old = lab.main_pid(UNIT)?;
    lab.systemctl_ok(&["reload", UNIT])?;
    lab.wait_until(DEADLINE, "another main process", || {
        Ok(lab.main_pid(UNIT).ok().filter(|new| *new != old && *new != 0))
    })
}

fn inode(lab: &Container, pid: u32) -> Outcome<String> {
    lab.sh_ok(&format!("stat -L -c %i /proc/{pid}/exe"))
}

/// Another extension in the place of the first one is taken by a restart, and by no reload: that
/// starts the program of the first one, as the mounts of the service are what they were.
fn program_from_an_extension(lab: &Container) -> Outcome {
    let web = lab.install(&example("web")?, "web")?;
    lab.write_file("/srv/app/usr/lib/extension-release.d/extension-release.app", "ID=_any\n")?;
    lab.sh_ok(&format!("mkdir -p /srv/app/usr/local/bin && cp {web} /srv/app/usr/local/bin/web"))?;
    lab.write_unit(
        UNIT,
        "[Service]\nType=notify\nNotifyAccess=main\nExecReload=/bin/kill -HUP $MAINPID\nExtensionDirectories=/srv/app\n\
         ExecStart=/usr/local/bin/web --listen 127.0.0.1:8080\n",
    )?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", UNIT])?;
    let first = inode(lab, lab.main_pid(UNIT)?)?;

    lab.sh_ok("cp -a /srv/app /srv/new && mv /srv/app /srv/old && mv /srv/new /srv/app")?;
    let next = reload(lab)?;
    assert_eq!(inode(lab, next)?, first, "a reload stays in the extension that it was started with");
    let warned = lab.journal_json(UNIT)?;
    assert!(warned.iter().any(|entry| entry.message().contains("/usr/local/bin/web lies in an extension")));
    lab.systemctl_ok(&["restart", UNIT])?;
    assert_ne!(inode(lab, lab.main_pid(UNIT)?)?, first);
    Ok(())
}
