//! What may happen to connections that wait for the next start: it fails, it comes late, it has too
//! few files, it cannot read what the process before has left, or the clients have gone.
//!
//! `HANDOVER_KEPT_FILES` says how many files the next start may have open, where those are too few;
//! `HANDOVER_KEPT_RESTARTS`, over how many restarts the service shall hold no more than before.

use std::time::Duration;

use super::held::Held;
use super::restart::{Asks, KEEPS, PRESERVED, number, under};
use super::web::{Connection, DEADLINE, Setup, UNIT, Web};
use crate::lab::{Container, Outcome, Scenario};
use crate::mailbox_service::{EACH, FORMATS, Format, SERVICE};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("kept_over_failed_starts", |lab| after_failures(lab, true)).system_only().since(254),
    Scenario::new("kept_over_failed_starts_for_too_long", |lab| after_failures(lab, false)).system_only().since(254),
    Scenario::new("kept_not_for_too_long", waited_too_long).system_only().since(254),
    Scenario::new("kept_as_many_as_fit", few_files).system_only(),
    Scenario::new("kept_by_another_version", by_another_version).system_only(),
    Scenario::new("kept_whose_clients_have_gone", clients_have_gone).system_only().since(254),
    Scenario::new("kept_over_many_restarts", many_restarts).system_only(),
];

const FILES: usize = 1024;
const RESTARTS: usize = 20;
/// So many restarts come first: from then on each process is as those after it.
const FIRST: usize = 5;
const CLIENTS: usize = 50;
const OFTEN: Duration = Duration::from_millis(200);

/// Writes lines of `[Service]` beside those of the unit.
fn override_service(web: &Web<'_>, lines: &str) -> Outcome {
    web.lab.write_file(&format!("/run/systemd/system/{UNIT}.d/kept.conf"), &format!("[Service]\n{lines}"))?;
    web.lab.daemon_reload()
}

fn connected(web: &Web<'_>, count: usize) -> Outcome<Vec<Connection>> {
    let mut clients: Vec<_> = (0..count).map(|_| web.connect()).collect::<Outcome<_>>()?;
    clients.iter_mut().try_for_each(|client| client.pid().map(drop))?;
    Ok(clients)
}

/// A version that fails each time loses nobody who waits for a good one; who has waited for too
/// long then is told to go.
fn after_failures(lab: &Container, in_time: bool) -> Outcome {
    let within = if in_time { "" } else { "Environment=HANDOVER_RESUME_WITHIN=20ms\n" };
    let lines = format!("{KEEPS}{PRESERVED}{within}RestartSec=20ms\n");
    let web = Web::start(lab, Setup { lines: &lines, ..Setup::default() })?;
    let mut idle = web.connect()?;
    let old = idle.pid()?;
    // Five starts fail: the version before it is ready.
    lab.write_file(
        "/run/fails",
        "#!/bin/sh\nread n </run/count || n=0\necho $((n+1)) >/run/count\n[ $n -ge 5 ] || exit 1\nexec /lab/web\n",
    )?;
    lab.sh_ok("chmod +x /run/fails; echo 0 >/run/count")?;
    override_service(&web, "ExecStart=\nExecStart=/run/fails\nReadWritePaths=/run\n")?;
    let _fails = lab.systemctl(&["restart", UNIT])?;
    if in_time {
        assert_ne!(idle.pid()?, old);
    } else {
        idle.closed()?;
    }
    assert_eq!(lab.show(UNIT, "NRestarts")?, "5");
    let entry =
        web.logged(if in_time { "serves 1 connections that have waited for" } else { "1 are closed (late: 1)" })?;
    println!("{}", entry.message());
    assert_ne!(web.pid()?, old);
    Ok(())
}

/// Who has waited for longer than `resume_within` is told to go, and the journal says how many.
fn waited_too_long(lab: &Container) -> Outcome {
    let lines = format!("{KEEPS}{PRESERVED}Environment=HANDOVER_RESUME_WITHIN=0s\n");
    let web = Web::start(lab, Setup { lines: &lines, ..Setup::default() })?;
    let mut idle = web.connect()?;
    idle.pid()?;
    web.restart()?;
    idle.closed()?;
    let entry = web.logged("serves 0 connections that have waited for")?;
    assert!(entry.message().ends_with("1 are closed (late: 1)"), "{}", entry.message());
    web.pid()?;
    Ok(())
}

/// The table of files of the next process is too small for all.
fn few_files(lab: &Container) -> Outcome {
    let files = number("HANDOVER_KEPT_FILES", FILES);
    let lines = format!("{KEEPS}LimitNOFILE=65536\n");
    let web = Web::start(lab, Setup { lines: &lines, ..Setup::default() })?;
    let all = files + files / 5;
    let clients = connected(&web, all)?;
    override_service(&web, &format!("LimitNOFILE={files}\n"))?;
    web.restart()?;
    let entry = web.logged("connections that have waited for")?;
    println!("{all} connections, LimitNOFILE={files}: {}", entry.message());
    let (mut served, mut closed) = (Vec::new(), 0);
    for mut client in clients {
        match client.pid() {
            Ok(_) => served.push(client),
            Err(_) => closed += 1,
        }
    }
    let count = served.len();
    assert!(count > files / 2 && closed >= files / 5, "{count} served, {closed} closed");
    assert!(entry.message().contains(&format!("serves {count} ")), "{}", entry.message());
    assert!(entry.message().ends_with(&format!("{closed} are closed (no_fds: {closed})")), "{}", entry.message());
    // There is room for others, and nothing is left of those that were closed.
    web.pid()?;
    drop(served);
    nothing_leaked(&web)
}

/// Once its clients have gone, the process holds as much as one that has had none.
fn nothing_leaked(web: &Web<'_>) -> Outcome {
    let lab = web.lab;
    let entries = || lab.show(UNIT, "NFileDescriptorStore");
    lab.wait_until(DEADLINE, "the mailbox is removed", || Ok((entries()? == "0").then_some(())))?;
    let all_ended = || {
        let none = || Ok(lab.clients_of(web.address)?.is_empty().then_some(()));
        lab.wait_until(DEADLINE, "the connections have ended", none)
    };
    all_ended()?;
    // Low numbers are held free by a pipe, one for each fd that systemd has passed.
    let held = || -> Outcome<Vec<String>> {
        let fds = lab.proc_fds(lab.main_pid(UNIT)?)?;
        Ok(fds.into_values().filter(|to| !to.starts_with("pipe:")).collect())
    };
    let used = held()?;
    web.restart()?;
    web.pid()?;
    all_ended()?;
    let fresh = held()?;
    println!("{} fds when all had gone, {} in a process that has had none", used.len(), fresh.len());
    assert!(used.len() <= fresh.len() + 1, "{used:?} when all had gone, {fresh:?} in a process that has had none");
    Ok(())
}

/// What a process of the first version has left is served; what a later one, or a broken one has
/// left is named and closed.
fn by_another_version(lab: &Container) -> Outcome {
    let lines = format!("{KEEPS}Environment={SERVICE}=1\n");
    let web = Web::install(lab, Setup { command: "{dir}/leaves", lines: &lines, ..Setup::default() })?;
    lab.install(&std::env::current_exe()?, "leaves")?;
    lab.systemctl_ok(&["start", "web.socket"])?;
    lab.systemctl_ok(&["--no-block", "start", UNIT])?;
    let mut groups = Vec::new();
    for format in FORMATS {
        groups.push((format, (0..EACH).map(|_| web.connect()).collect::<Outcome<Vec<_>>>()?));
    }
    web.until("all has been left in the store", super::web::State::is_running)?;
    assert_eq!(lab.show(UNIT, "NFileDescriptorStore")?, "2");
    override_service(&web, &format!("ExecStart=\nExecStart={}/web\n", lab.dir().display()))?;
    web.restart()?;
    let entry = web.logged("are closed (")?;
    println!("{}", entry.message());
    let damaged = EACH * (FORMATS.len() - 1) + 1;
    let wanted = format!("serves {EACH} connections");
    assert!(entry.message().contains(&wanted), "{}", entry.message());
    assert!(entry.message().ends_with(&format!("{damaged} are closed (damaged: {damaged})")), "{}", entry.message());
    for (format, clients) in groups {
        for mut client in clients {
            match format {
                Format::First => drop(client.pid()?),
                _ => client.closed()?,
            }
        }
    }
    for line in ["parcels/0", "parcels/2", "are promised", "is damaged: "] {
        println!("{}", web.logged(line)?.message());
    }
    nothing_leaked(&web)
}

/// Nobody is there any more when the next start comes: no word is needed, and nothing is left.
fn clients_have_gone(lab: &Container) -> Outcome {
    let lines = format!("{KEEPS}{PRESERVED}Environment=HANDOVER_KEEP_ON_STOP=always\n");
    let web = Web::start(lab, Setup { lines: &lines, ..Setup::default() })?;
    let mut clients = connected(&web, 3 * CLIENTS)?;
    lab.systemctl_ok(&["stop", UNIT])?;
    drop(clients.split_off(2 * CLIENTS));
    clients.drain(CLIENTS..).try_for_each(Connection::reset)?;
    lab.systemctl_ok(&["start", UNIT])?;
    let entry = web.logged("connections that have waited for")?;
    println!("{}", entry.message());
    clients.iter_mut().try_for_each(|client| client.pid().map(drop))?;
    let wanted = format!("{CLIENTS} are closed (socket: {CLIENTS})");
    assert!(entry.message().ends_with(&wanted), "{}", entry.message());
    assert!(entry.message().contains(&format!("serves {} ", 2 * CLIENTS)), "{}", entry.message());
    drop(clients);
    nothing_leaked(&web)
}

/// As much is held after many restarts as after a few.
fn many_restarts(lab: &Container) -> Outcome {
    let restarts = number("HANDOVER_KEPT_RESTARTS", RESTARTS);
    let web = Web::start(lab, Setup { lines: KEEPS, ..Setup::default() })?;
    let mut held = None;
    let seen = under(lab, &[web.clients(Asks::Kept(OFTEN), CLIENTS)], |_| {
        let restart = |count: usize| (0..count).try_for_each(|_| web.restart());
        restart(FIRST)?;
        lab.wait_until(DEADLINE, "the mailbox is removed", || {
            Ok((lab.show(UNIT, "NFileDescriptorStore")? == "0").then_some(()))
        })?;
        let before = Held::alone(lab, UNIT)?;
        restart(restarts)?;
        held = Some((Held::settled(lab, UNIT, &before)?, before));
        Ok(())
    })?;
    if let Some((after, before)) = held {
        println!(
            "{restarts} restarts, {CLIENTS} connections: {} answered, {} lost; processes, entries, fds, KiB were \
             {before}, are {after}",
            seen.answered(),
            seen.lost()
        );
    }
    assert_eq!(seen.lost(), 0);
    Ok(())
}
