//! Reloads that succeed: what the manager, the clients, and the journal see.

use super::web::{DEADLINE, Setup, Type, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("socket_activation", socket_activation),
    Scenario::new("reload_notify", reload_notify),
    Scenario::new("reload_notify_reload", reload_notify_reload).since(253),
    Scenario::new("connections_move_notify", |lab| connections_move(lab, Type::Notify)),
    Scenario::new("connections_move_notify_reload", |lab| connections_move(lab, Type::NotifyReload)).since(253),
];

/// Connections that are open through so many reloads.
const CLIENTS: usize = 100;
const RELOADS: usize = 6;

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

/// In the sandbox of the packaged units: connections are the same after each reload, and the old
/// process does not wait for its linger. When it is stopped, or the new one, in the middle of the
/// move, each still gets its answers.
fn connections_move(lab: &Container, kind: Type) -> Outcome {
    let web =
        Web::start(lab, Setup { kind, command: "{dir}/web --linger 60s --drain-timeout 60s", ..Setup::default() })?;
    let mut clients = (0..CLIENTS).map(|_| web.connect()).collect::<Outcome<Vec<_>>>()?;
    let mut old = lab.main_pid(UNIT)?;
    for client in &mut clients {
        assert_eq!(client.pid()?, old);
    }
    for reload in 0..RELOADS {
        let new = web.reload()?;
        if reload % 3 > 0 {
            let stopped = if reload % 3 == 1 { old } else { new };
            // It may have ended.
            lab.sh(&format!("kill -STOP {stopped} && sleep 0.2 && kill -CONT {stopped}"))?;
        }
        lab.wait_until(DEADLINE, "the old one is gone", || Ok((lab.pids(UNIT)? == [new]).then_some(())))?;
        for client in &mut clients {
            assert_eq!(client.pid()?, new, "on the same connection");
        }
        old = new;
    }
    assert_eq!(web.count_logged(" stayed (")?, 0);
    assert_eq!(web.count_logged(&format!("moved {CLIENTS} connections"))?, RELOADS);
    Ok(())
}
