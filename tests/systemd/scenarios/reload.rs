//! Reloads that succeed: what the manager, the clients, and the journal see.

use super::web::{DEADLINE, Setup, Type, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("socket_activation", socket_activation),
    Scenario::new("reload_notify", reload_notify),
    Scenario::new("reload_notify_reload", reload_notify_reload).since(253),
];

/// No more processes than this drain at a time: the cap would hammer the oldest, which is another
/// scenario.
const DRAINING: usize = 6;

fn socket_activation(lab: &Container) -> Outcome {
    let web = Web::install(lab, Setup::default())?;
    lab.systemctl_ok(&["start", "web.socket"])?;
    assert_eq!(web.state()?.active, "inactive");

    // The first one starts the service; all of them are in the queue before anybody accepts, or
    // soon after.
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = web.connect()?;
        client.send("/pid")?;
        clients.push(client);
    }
    let first = clients[0].answered_pid()?;
    assert_eq!(web.until("running", super::web::State::is_running)?.main, first);
    for client in &mut clients[1..] {
        assert_eq!(client.answered_pid()?, first);
    }
    assert_eq!(web.logged("generation 1 serves")?.get("GENERATION").as_deref(), Some("1"));
    Ok(())
}

fn reload_notify(lab: &Container) -> Outcome {
    reload_under_load(lab, Type::Notify)
}

fn reload_notify_reload(lab: &Container) -> Outcome {
    reload_under_load(lab, Type::NotifyReload)
}

fn reload_under_load(lab: &Container, kind: Type) -> Outcome {
    let web = Web::start(lab, Setup { kind, ..Setup::default() })?;
    let mut old = lab.main_pid(UNIT)?;
    let ((), stats) = load::under(lab, web.address, load::ALL, |_| {
        for _ in 0..12 {
            let new = match kind {
                Type::Notify => web.reload()?,
                Type::NotifyReload => {
                    lab.systemctl_ok(&["reload", UNIT])?;
                    lab.main_pid(UNIT)?
                }
            };
            assert_ne!(old, new);
            assert_eq!(web.pid()?, new, "who answers a new connection after the reload");
            lab.wait_until(DEADLINE, "few drain", || Ok((lab.pids(UNIT)?.len() <= DRAINING).then_some(())))?;
            old = new;
        }
        Ok(())
    })?;
    load::lost_nothing(&stats)?;
    assert_eq!(web.state()?.restarts, 0);
    assert_eq!(web.count_logged("handed over to generation")?, 12);
    assert_eq!(web.count_logged("cut http: ")?, 0);
    Ok(())
}
