//! What `FileDescriptorStorePreserve=` keeps in newer versions: over a failure or not, and over a
//! restart of a user's manager.

use std::net::SocketAddr;

use super::counter::{Binds, Counter, Memory, UNIT};
use super::web::DEADLINE;
use crate::lab::{Container, Outcome, Scenario, example};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("store_preserved_on_success", on_success).system_only().since(261),
    Scenario::new("store_over_a_restart_of_the_users_manager", over_a_restart).system_only(),
];

const MANAGER: &str = "user@1000.service";
const PORT: u16 = 8090;
/// Of them 252 knows only the first.
const STORE: &str = "FileDescriptorStoreMax=16\nFileDescriptorStorePreserve=yes\n";
const AS_USER: &str =
    "setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/run/user/1000 XDG_RUNTIME_DIR=/run/user/1000";

/// A stop keeps it, and a crash that is not the end, too; a failure drops it.
fn on_success(lab: &Container) -> Outcome {
    let lines = "FileDescriptorStorePreserve=on-success\nRestart=no";
    let counter = Counter::start(lab, Binds::Service, "", lines)?;
    assert_eq!(counter.count()?.total, 1);
    counter.wait_stored(2)?;
    lab.systemctl_ok(&["stop", UNIT])?;
    assert_eq!(counter.stored()?, 2, "a stop is a success");
    lab.systemctl_ok(&["start", UNIT])?;
    assert_eq!(counter.count()?.total, 2);

    lab.signal(lab.main_pid(UNIT)?, "KILL")?;
    lab.wait_until(DEADLINE, "the unit has failed", || Ok((lab.show(UNIT, "ActiveState")? == "failed").then_some(())))?;
    assert_eq!(counter.stored()?, 0, "a failure is none");
    lab.systemctl_ok(&["start", UNIT])?;
    assert_eq!(counter.count()?.total, 1);
    Ok(())
}

/// Its port and its state are kept from 261 on, where both units have a store that is preserved.
fn over_a_restart(lab: &Container) -> Outcome {
    let program = lab.install(&example("counter")?, "counter")?;
    lab.sh_ok("echo 'somebody:x:1000:1000::/:/bin/sh' >>/etc/passwd; echo 'somebody:x:1000:' >>/etc/group")?;
    lab.sh_ok("mkdir -p /run/user/1000/.config/systemd/user/default.target.wants")?;
    lab.write_file(
        "/run/user/1000/.config/systemd/user/counter.service",
        &format!(
            "[Service]\nType=notify\nNotifyAccess=main\nExecStart={program} --listen 127.0.0.1:{PORT}\n{STORE}\
             [Install]\nWantedBy=default.target\n"
        ),
    )?;
    lab.sh_ok(
        "cd /run/user/1000/.config/systemd/user && ln -s ../counter.service default.target.wants/ && \
         chown -R 1000:1000 /run/user/1000 && chmod 700 /run/user/1000",
    )?;
    lab.write_unit(
        MANAGER,
        &format!(
            "[Service]\nType=notify\nUser=1000\nDelegate=yes\nSlice=user-1000.slice\nKillMode=mixed\n{STORE}\
             Environment=XDG_RUNTIME_DIR=/run/user/1000 HOME=/run/user/1000\nExecStart=/lib/systemd/systemd --user\n"
        ),
    )?;
    lab.systemctl_ok(&["start", MANAGER])?;
    let main = || lab.sh_ok(&format!("{AS_USER} systemctl --user show -P MainPID counter.service"));
    let counter = Counter { lab, address: SocketAddr::from(([127, 0, 0, 1], PORT)) };
    lab.wait_until(DEADLINE, "the service serves", || Ok(counter.count().ok().map(drop)))?;
    let (old, before, memory) = (main()?, counter.count()?.total, Memory::default());
    counter.under_clients(2, &memory, || {
        lab.systemctl_ok(&["restart", MANAGER])?;
        lab.wait_until(DEADLINE, "another main process", || {
            Ok(main().ok().filter(|new| !new.is_empty() && *new != "0" && *new != old).map(drop))
        })?;
        lab.wait_until(DEADLINE, "the service serves", || Ok(counter.count().ok().map(drop)))
    })?;
    let (seen, after) = (memory.look(), counter.count()?.total);
    println!("{before}, then {after}: {seen:?}");
    if lab.version() >= 261 {
        assert!(after > before && seen.lost.is_empty() && seen.wrong.is_empty(), "{before}, {after}, {seen:?}");
    } else {
        assert!(!seen.lost.is_empty(), "clients are refused meanwhile");
    }
    Ok(())
}
