//! The promises that hold for any program.

use std::time::Instant;

use nix::sys::signal::Signal;

use super::served::{DEADLINE, Instance};
use crate::lab::{Container, Outcome, Scenario, example};
use crate::load::{self, Clients, Kill, Kind, Stats};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("run_reloads", run_reloads),
    Scenario::new("run_bad_versions", run_bad_versions),
    Scenario::new("run_killed", run_killed),
    Scenario::new("run_keeps_what_it_bound", run_keeps_what_it_bound),
];

const CLIENTS: &Clients = &[(Kind::KeepAlive, 8), (Kind::Fresh, 8)];
const RELOADS: usize = 20;

/// A program that drains well loses nothing, the main pid stays, and `systemctl reload` tells the
/// truth.
fn run_reloads(lab: &Container) -> Outcome {
    lab.install(&example("web")?, "web")?;
    let served = Instance::alone(lab, "-- {dir}/web")?;
    let main = lab.main_pid(&served.unit)?;
    assert!(
        lab.show(&served.unit, "StatusText")?.starts_with("generation 1 serves"),
        "{}",
        lab.show(&served.unit, "StatusText")?
    );
    let ((), stats) = load::under(lab, served.address, CLIENTS, |_| {
        for _ in 0..RELOADS {
            lab.systemctl_ok(&["reload", &served.unit])?;
        }
        Ok(())
    })?;
    assert_eq!(served.status()?["generation"], RELOADS + 1);
    let summary = load::lost_nothing(&stats)?;
    assert_eq!(lab.main_pid(&served.unit)?, main);
    assert_eq!(lab.show(&served.unit, "NRestarts")?, "0");
    served.until_alone()?;
    println!("systemd {}: {RELOADS} reloads, lost 0 of {}", lab.version(), summary.total.answered);
    lab.systemctl_ok(&["stop", &served.unit])?;
    assert_eq!(lab.show(&served.unit, "Result")?, "success");
    assert!(lab.pids(&served.unit)?.is_empty());
    Ok(())
}

/// Whatever is wrong with the next version: the reload fails with the reason, and nothing is lost.
fn run_bad_versions(lab: &Container) -> Outcome {
    lab.install(&example("web")?, "good")?;
    let dir = lab.dir().display().to_string();
    lab.sh_ok(&format!("cp {dir}/good {dir}/web"))?;
    let served = Instance::alone(lab, "--ready-timeout 2s --probation 1s -- {dir}/web")?;
    let pid = served.pid()?;
    // Another machine's: e_machine, at 18, says S/390.
    let foreign =
        format!("cp {dir}/good {dir}/new && printf '\\026' | dd of={dir}/new bs=1 seek=18 conv=notrunc status=none");
    let script = |text: &str| format!("printf '#!/bin/sh\\n{text}\\n' >{dir}/new && chmod +x {dir}/new");
    let bad = [
        ("missing", format!("rm -f {dir}/web"), "missing"),
        ("exits", script("exit 3"), "exited with status 3"),
        ("hangs", script("exec sleep 1000"), "was not ready within 2s"),
        ("is killed", script("kill -SEGV $$"), "SIGSEGV"),
        ("is half written", format!("head -c 20000 {dir}/good >{dir}/new && chmod +x {dir}/new"), ""),
        ("is of another machine", foreign, "not a program for this machine"),
        ("dies in probation", script("systemd-notify --ready --pid=$$; sleep 0.2; exit 4"), "exited with status 4"),
    ];
    let ((), stats) = load::under(lab, served.address, CLIENTS, |_| {
        for (what, make, reason) in &bad {
            lab.sh_ok(make)?;
            lab.sh_ok(&format!("if [ -e {dir}/new ]; then mv {dir}/new {dir}/web; fi"))?;
            let reload = lab.systemctl(&["reload", &served.unit])?;
            assert!(!reload.success(), "the next version {what}, and systemctl reload returns 0");
            let status = lab.show(&served.unit, "StatusText")?;
            assert!(status.contains("reload failed") && status.contains(reason), "{what}: {status}");
            assert_eq!((served.pid()?, lab.show(&served.unit, "ActiveState")?.as_str()), (pid, "active"), "{what}");
        }
        lab.sh_ok(&format!("cp {dir}/good {dir}/new && mv {dir}/new {dir}/web"))?;
        served.reload()?;
        Ok(())
    })?;
    load::lost_nothing(&stats)?;
    served.until_alone()
}

/// Of the program 100 times, of the supervisor once: connections wait, and none is refused.
fn run_killed(lab: &Container) -> Outcome {
    lab.install(&example("web")?, "web")?;
    let served = Instance::alone(lab, "-- {dir}/web")?;
    let main = lab.main_pid(&served.unit)?;
    let times = std::env::var("HANDOVER_SOAK").map_or(6, |_| 100);
    let ((), stats) = load::under(lab, served.address, CLIENTS, |stats| {
        let since = Instant::now();
        for _ in 0..times {
            kill(&served, stats, served.pid()?, since)?;
        }
        assert_eq!(lab.main_pid(&served.unit)?, main, "the supervisor is the same");
        // systemd tells the program to go, which finishes what it has.
        lab.signal_now(main, Signal::SIGKILL)?;
        lab.wait_until(DEADLINE, "another supervisor", || {
            Ok(lab.main_pid(&served.unit).ok().filter(|pid| *pid != main && *pid != 0))
        })?;
        Ok(())
    })?;
    let summary = load::lost_only_to_kill(&stats)?;
    println!(
        "systemd {}: {times} kills of the program and one of handover run: refused 0 of {}, in flight in a killed one: {:?}",
        lab.version(),
        summary.total.answered,
        summary.lost_to_kill,
    );
    lab.wait_until(DEADLINE, "systemd has restarted it", || {
        Ok((lab.show(&served.unit, "ActiveState")? == "active").then_some(()))
    })?;
    assert_eq!(lab.show(&served.unit, "NRestarts")?, "1");
    served.reload().map(drop)
}

/// Without a .socket unit: the socket is in the fd store, and with it its queue.
fn run_keeps_what_it_bound(lab: &Container) -> Outcome {
    lab.install(&example("web")?, "web")?;
    let served = Instance::bound(lab, "--socket http={address} -- {dir}/web")?;
    let stored = || lab.show(&served.unit, "NFileDescriptorStore");
    lab.wait_until(DEADLINE, "the socket in the fd store", || Ok((stored()? == "1").then_some(())))?;
    let ((), stats) = load::under(lab, served.address, CLIENTS, |_| {
        served.reload()?;
        // systemd's SIGTERM would be the second one to a generation that drains, which takes that
        // for "now".
        served.until_alone()?;
        let main = lab.main_pid(&served.unit)?;
        lab.signal_now(main, Signal::SIGKILL)?;
        lab.wait_until(DEADLINE, "another supervisor that serves", || {
            let new = lab.main_pid(&served.unit).ok().filter(|pid| *pid != main);
            Ok(new.filter(|_| served.status().is_ok_and(|s| s["state"] == "serving")).map(drop))
        })?;
        served.reload()?;
        lab.systemctl_ok(&["restart", &served.unit])?;
        Ok(())
    })?;
    load::lost_nothing(&stats)?;
    assert_eq!(stored()?, "1");
    let timeline = lab.sh_ok(&format!("{}/handover timeline {}", lab.dir().display(), served.unit))?;
    assert!(timeline.contains("handed over"), "{timeline}");
    Ok(())
}

/// As the promise is: what was in flight in it is lost, and nothing else.
fn kill(served: &Instance<'_>, stats: &Stats, pid: u32, main_since: Instant) -> Outcome {
    let at = Instant::now();
    served.lab.signal_now(pid, Signal::SIGKILL)?;
    served
        .lab
        .wait_until(DEADLINE, "it is dead", || Ok(served.lab.proc_status(pid, "State").is_err().then_some(())))?;
    stats.killed(Kill { pid, main_since, at, dead: Instant::now(), over: None });
    served.lab.wait_until(DEADLINE, "another process of the program", || {
        let status = served.status()?;
        Ok((status["state"] == "serving" && status["pid"] != pid).then_some(()))
    })?;
    stats.restarted();
    Ok(())
}
