//! A `.socket` unit that stays over a soft reboot.

use super::counter::{Binds, Counter, Memory, SOCKET, UNIT};
use super::restart::reboot_softly;
use super::web::DEADLINE;
use crate::lab::{Container, Outcome, Scenario, example};

pub(super) const SCENARIOS: &[Scenario] =
    &[Scenario::new("a_socket_over_a_soft_reboot", over_a_soft_reboot).system_only().since(254)];

/// What `handover init --preserve` writes beside `[Unit]` and `[Socket]`.
const STAYS: &str = "DefaultDependencies=no\\nIgnoreOnIsolate=yes\\nAfter=sysinit.target\\nBefore=sockets.target";
const DEFERS: &str = "DeferTrigger=patient\\nDeferTriggerMaxSec=90s";

/// It is not stopped, and its clients wait in the queue; their wish to have the service started
/// waits until the next boot has begun. Without `DeferTrigger=` (258) it contradicts the reboot,
/// and is the end of the `.socket` unit.
fn over_a_soft_reboot(lab: &Container) -> Outcome {
    lab.install(&example("counter")?, "counter")?;
    let lab_dir = lab.dir().display();
    lab.sh_ok(&format!("cp {lab_dir}/counter /usr/local/bin/counter"))?;
    let counter = Counter::start(lab, Binds::Systemd, "", "")?;
    lab.systemctl_ok(&["stop", SOCKET, UNIT])?;
    lab.sh_ok(&format!(
        "cd /etc/systemd/system && sed -i 's,{lab_dir}/counter,/usr/local/bin/counter,' {UNIT} && \
         sed -i 's/^\\[Unit\\]$/&\\n{STAYS}/; s/^\\[Socket\\]$/&\\n{DEFERS}/' {SOCKET}"
    ))?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", SOCKET, UNIT])?;
    let (total, old, memory) = (counter.count()?.total, lab.main_pid(UNIT)?, Memory::default());
    counter.under_clients(4, &memory, || {
        reboot_softly(lab, &[UNIT])?;
        lab.wait_until(DEADLINE, "another main process", || {
            Ok(lab.main_pid_if_told(UNIT).filter(|new| *new != old).map(drop))
        })
    })?;
    let seen = memory.look();
    if lab.version() >= 258 {
        assert!(seen.lost.is_empty() && seen.wrong.is_empty(), "{:?}, {:?}", seen.lost, seen.wrong);
        assert!(seen.generations.len() == 2 && counter.count()?.total > total + seen.answered, "the state goes on");
    } else {
        assert!(!seen.lost.is_empty(), "clients are refused until it is bound anew");
        let failed = lab.journal_json(SOCKET)?;
        assert!(failed.iter().any(|entry| entry.message().contains("Failed with result 'resources'")), "{failed:?}");
    }
    Ok(())
}
