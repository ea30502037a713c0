//! Another program at the same path: the reload is the upgrade. By hand, and by `handover upgrade`.

use std::fs;
use std::os::unix::fs::MetadataExt;

use minisign::KeyPair;

use handover::service::events;

use super::web::{Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario, example, handover};
use crate::load;

/// As minisign(1) writes it of itself.
const COMMENT: &str = "timestamp:1700000000\tfile:web\thashed";

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("upgrade_by_rename", upgrade_by_rename),
    Scenario::new("upgrade_by_symlink", upgrade_by_symlink),
    Scenario::new("upgrade_by_tool", upgrade_by_tool),
];

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
            assert_eq!(running, fs::metadata(lab.host_dir().join("web"))?.ino());
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

/// As a unit does it that a timer starts: bad ones are taken back or refused, and then a good one
/// is taken.
fn upgrade_by_tool(lab: &Container) -> Outcome {
    let tool = lab.install(handover(), "handover")?;
    let web = Web::start(lab, Setup { lines: "RuntimeDirectory=handover-web\n", ..Setup::default() })?;
    let (dir, host) = (lab.dir().display(), lab.host_dir());
    let key = KeyPair::generate_unencrypted_keypair()?;
    lab.write_file(&format!("{dir}/web.pub"), &key.pk.to_box()?.to_string())?;
    let user = if lab.manager_pid() == 1 { "" } else { "--user" };
    let command = format!("{tool} upgrade {user} web --from {dir}/new --key {dir}/web.pub --check \"test -x {{}}\"");
    lab.write_unit("web-upgrade.service", &format!("[Service]\nType=oneshot\nExecStart={command}\n"))?;
    lab.daemon_reload()?;
    let put = |bytes: &[u8]| -> Outcome {
        fs::write(host.join("new"), bytes)?;
        let signature = minisign::sign(Some(&key.pk), &key.sk, bytes, Some(COMMENT), None)?;
        Ok(fs::write(host.join("new.minisig"), signature.into_string())?)
    };
    let upgrade = || -> Outcome<bool> { Ok(lab.systemctl(&["start", "web-upgrade.service"])?.success()) };
    let old = fs::read(host.join("web"))?;
    let first = lab.main_pid(UNIT)?;
    let ((), stats) = load::under(lab, web.address, load::SHORT, |_| {
        put(&old[..old.len() / 2])?;
        assert!(!upgrade()?, "half of it");
        // It is a program, and not this service.
        put(&fs::read(lab.outside("/bin/false"))?)?;
        for why in ["refused by the service", "known to be bad"] {
            assert!(!upgrade()?, "{why}");
            assert_eq!((lab.main_pid(UNIT)?, web.pid()?), (first, first));
            assert!(fs::read(host.join("web"))? == old, "the old file");
        }
        let new = [&old[..], b"another version"].concat();
        put(&new)?;
        assert!(upgrade()?);
        let second = lab.main_pid(UNIT)?;
        assert!(second != first && fs::read(host.join("web"))? == new);
        assert_eq!(web.pid()?, second);
        assert_eq!(executable(lab, second)?, format!("{dir}/web"));
        lab.sh_ok(&format!("{tool} upgrade {user} web --back"))?;
        assert!(fs::read(host.join("web"))? == old);
        assert_ne!(lab.main_pid(UNIT)?, second);
        Ok(())
    })?;
    load::lost_nothing(&stats)?;
    assert_eq!(web.state()?.restarts, 0);
    let journal = lab.journal_json("web-upgrade.service")?;
    let told =
        |id: &str| journal.iter().filter(|entry| entry.get("MESSAGE_ID").as_deref() == Some(id)).collect::<Vec<_>>();
    assert_eq!(told(events::UPGRADE_REFUSED).len(), 1);
    assert_eq!((told(events::UPGRADE_INSTALLED).len(), told(events::UPGRADED).len()), (2, 1));
    let failed = told(events::UPGRADE_FAILED);
    let reason = failed[0].get("REASON").unwrap_or_default();
    assert!(failed.len() == 1 && reason.contains("generation 2 exited with status 1"), "{reason}");
    assert!(failed[0].get("SHA256").is_some_and(|sum| sum.len() == 64));
    assert!(journal.iter().any(|entry| entry.message().contains("known to be bad")));
    Ok(())
}

fn executable(lab: &Container, pid: u32) -> Outcome<String> {
    lab.sh_ok(&format!("readlink /proc/{pid}/exe"))
}
