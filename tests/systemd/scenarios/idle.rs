//! `exit_on_idle`: a service that nobody needs is gone, and no client notices.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::control::{start, tool_ok};
use super::web::{DEADLINE, Setup, Type, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};
use crate::load::{Random, seed};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new("exit_on_idle", exit_on_idle)];

const IDLE: &str = "Environment=HANDOVER_EXIT_ON_IDLE=200ms\n";
/// Between clients: around the moment in which the service ends.
const PAUSES_MS: std::ops::Range<u64> = 150..280;
const FOR: Duration = Duration::from_secs(4);
/// At a time.
const CLIENTS: usize = 3;
/// It ends at least so often meanwhile.
const ENDS: usize = 3;

/// Clients come in the very moments of exits; also after a reload, and while somebody asks for the
/// status. Then the same with a port of the service's own, which nobody would keep.
fn exit_on_idle(lab: &Container) -> Outcome {
    let web = start(lab, Type::Notify, &format!("RuntimeDirectory=handover-web\n{IDLE}"))?;
    let (mut random, began) = (Random::new(seed(), 0), Instant::now());
    let mut pids = BTreeSet::new();
    while began.elapsed() < FOR {
        let clients = (0..CLIENTS).map(|_| web.connect()).collect::<Outcome<Vec<_>>>()?;
        for client in clients {
            let text = client.text("/pid").map_err(|e| format!("lost: {e:?} (seed {})", seed()))?;
            pids.insert(text.trim().parse::<u32>()?);
        }
        sleep(random.time(PAUSES_MS));
    }
    assert!(pids.len() >= ENDS, "it has hardly ever ended: {pids:?}");

    // A next generation ends likewise, and who asks for its status does not keep it.
    let held = web.connect()?;
    let first = web.pid()?;
    let second = web.reload()?;
    assert_ne!(first, second);
    drop(held);
    let gone = web.until("gone", |state| {
        let _ = tool_ok(lab, &format!("status {UNIT}"));
        state.active == "inactive"
    })?;
    assert_eq!((gone.restarts, &*gone.result), (0, "success"), "{gone:?}");
    assert!(lab.main_pid(UNIT).is_err() && lab.systemctl(&["is-active", "web.socket"])?.success());
    web.logged("has had nothing to do for 200ms: it exits until a client comes")?;
    assert!(web.pid()? > 0, "a client starts it");
    own_port(lab)
}

fn own_port(lab: &Container) -> Outcome {
    lab.systemctl_ok(&["stop", UNIT, "web.socket"])?;
    let command = "{dir}/web --listen {address}";
    let lines = &format!("RuntimeDirectory=handover-web\n{IDLE}");
    let web = Web::start(lab, Setup { command, lines, binds: true, ..Setup::default() })?;
    web.logged("exit_on_idle has no effect: http is bound by the service itself")?;
    let pid = lab.main_pid(UNIT)?;
    lab.wait_until(DEADLINE, "three times as long", || {
        let status: Value = serde_json::from_str(&tool_ok(lab, &format!("status --json {UNIT}"))?)?;
        Ok(status["age_ms"].as_u64().filter(|age| *age >= 600))
    })?;
    assert_eq!(web.pid()?, pid);
    Ok(())
}
