//! What Prometheus reads from whoever is main: counters that only grow, whatever is reloaded.

use std::cell::Cell;

use super::web::{DEADLINE, Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario, example};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("metrics_over_reloads", metrics_over_reloads),
    Scenario::new("metrics_over_moves", metrics_over_moves),
];

fn metrics_over_reloads(lab: &Container) -> Outcome {
    lab.install(&example("metrics")?, "metrics")?;
    let web = Web::start(lab, Setup { command: "{dir}/metrics", ..Setup::default() })?;
    for _ in 0..10 {
        web.connect()?.pid()?;
    }
    let connections = "handover_connections_total{listener=\"http\",protocol=\"http1\"}";
    let (mut before, mut main) = (10.0, lab.main_pid(UNIT)?);
    for reload in 1..=3_u32 {
        let old = main;
        main = web.reload()?;
        // The old generation's last words come when it has drained.
        web.until_only(&[main])?;
        assert_ne!(old, main);
        let counted = f64::from(reload);
        until(&web, "handover_drain_seconds_count", counted)?;
        until(&web, "handover_reloads_total{outcome=\"handed_over\"}", counted)?;
        until(&web, "handover_ready_seconds_count", counted)?;
        until(&web, "handover_switch_seconds_count", counted)?;
        until(&web, "handover_generation", counted + 1.0)?;
        until(&web, "handover_generations_draining", 0.0)?;
        let now = value(&scrape(&web)?, connections).ok_or("no connections are counted")?;
        assert!(now > before, "{now} connections after {before}");
        before = now;
    }
    // Connections that wait for their clients while the generation drains: they move.
    let waiting = web.connect()?;
    let idle = {
        let mut idle = web.connect()?;
        idle.pid()?;
        idle
    };
    lab.sh_ok(&format!(
        "cd {} && echo 'exit 3' >broken && chmod 755 broken && mv metrics good && mv broken metrics",
        lab.dir().display()
    ))?;
    lab.systemctl_ok(&["reload", UNIT])?;
    web.until("rolled back", |s| s.is_running() && s.status.contains("reload failed"))?;
    until(&web, "handover_reloads_total{outcome=\"rolled_back\"}", 1.0)?;
    lab.sh_ok(&format!("cd {} && mv good metrics", lab.dir().display()))?;
    let new = web.reload()?;
    web.until_only(&[new])?;
    drop((waiting, idle));
    until(&web, "handover_reloads_total{outcome=\"rolled_back\"}", 1.0)?;
    until(&web, "handover_reloads_total{outcome=\"handed_over\"}", 4.0)?;
    until(&web, "handover_drain_seconds_count", 4.0)?;
    let text = scrape(&web)?;
    // The idle one at least: of the other nobody knows what it speaks.
    let of_http1 = |name: &str| value(&text, &format!("{name}{{listener=\"http\",protocol=\"http1\"}}"));
    let [moved, adopted] = ["moved", "adopted"].map(|what| of_http1(&format!("handover_connections_{what}_total")));
    assert!(moved >= Some(1.0) && adopted >= Some(1.0), "{text}");
    assert!(value(&text, "handover_watchdog_pings_total{result=\"sent\"}").is_some_and(|n| n >= 4.0), "{text}");
    assert_eq!(value(&text, "handover_connections_hammered_total"), None, "{text}");
    Ok(())
}

/// A connection is counted once, whichever generations serve it, and each move as one.
fn metrics_over_moves(lab: &Container) -> Outcome {
    const CLIENTS: u32 = 10;
    const RELOADS: u32 = 4;
    lab.install(&example("metrics")?, "metrics")?;
    let web = Web::start(lab, Setup { command: "{dir}/metrics", ..Setup::default() })?;
    let mut clients = (0..CLIENTS).map(|_| web.connect()).collect::<Outcome<Vec<_>>>()?;
    let mut main = lab.main_pid(UNIT)?;
    for _ in 0..RELOADS {
        for client in &mut clients {
            assert_eq!(client.pid()?, main);
        }
        main = web.reload()?;
        web.until_only(&[main])?;
    }
    // Each on the connection that it has had from the beginning.
    for client in &mut clients {
        assert_eq!(client.pid()?, main);
    }
    // What asks is a connection, too.
    let scrapes = Cell::new(0);
    let scrape = || {
        scrapes.set(scrapes.get() + 1);
        scrape(&web)
    };
    let labels = "{listener=\"http\",protocol=\"http1\"}";
    let counter = |text: &str, what: &str| value(text, &format!("handover_connections_{what}{labels}"));
    let moves = f64::from(CLIENTS * RELOADS);
    // The last words of the last generation that drained come by themselves.
    let text = lab.wait_until(DEADLINE, "all moves to be counted", || {
        Ok(Some(scrape()?).filter(|text| counter(text, "moved_total") == Some(moves)))
    })?;
    assert_eq!(counter(&text, "adopted_total"), Some(moves), "{text}");
    assert_eq!(counter(&text, "total"), Some(f64::from(CLIENTS + scrapes.get())), "{text}");
    assert!(!text.contains("_stayed_total{") && !text.contains("_drained_total{"), "{text}");
    drop(clients);
    lab.wait_until(DEADLINE, "none but who asks", || Ok((counter(&scrape()?, "active") == Some(1.0)).then_some(())))?;
    assert_eq!(counter(&scrape()?, "total"), Some(f64::from(CLIENTS + scrapes.get())));
    Ok(())
}

fn scrape(web: &Web<'_>) -> Outcome<String> {
    web.connect()?.text("/metrics")
}

fn until(web: &Web<'_>, name: &str, expected: f64) -> Outcome {
    let mut last = None;
    let waited = web.lab.wait_until(DEADLINE, name, || {
        last = value(&scrape(web)?, name);
        Ok((last == Some(expected)).then_some(()))
    });
    waited.map_err(|_| format!("{name} is {last:?} instead of {expected}").into())
}

fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
