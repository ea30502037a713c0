//! Today's version and each former one whose source is kept hand over to each other, back and
//! forth.

use super::counter::{self, Binds, Counter, Memory};
use super::web::{DEADLINE, Setup, UNIT, Web};
use crate::lab::{Container, Former, Outcome, Scenario, example, former, handover};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("skew_under_load", under_load),
    Scenario::new("skew_of_states", of_states),
    Scenario::new("skew_of_the_tool", of_the_tool),
];

const RELOADS: usize = 20;
/// No more processes than this drain at a time: the cap would hammer the oldest, which is another
/// scenario.
const DRAINING: usize = 6;

/// Two builds are told apart by the length of their programs.
fn size_of_main(lab: &Container, unit: &str) -> Outcome<u64> {
    Ok(lab.sh_ok(&format!("stat -Lc %s /proc/{}/exe", lab.main_pid(unit)?))?.parse()?)
}

/// Puts the program of one of them in the place of the other one, and notes which.
struct Programs<'a> {
    lab: &'a Container,
    name: &'static str,
    unit: &'static str,
    former: &'a Former,
}

impl Programs<'_> {
    fn install(&self, former: bool) -> Outcome {
        let program = if former { self.former.example(self.name) } else { example(self.name)? };
        self.lab.install(&program, self.name).map(drop)
    }

    /// The main process is of that version.
    fn check(&self, former: bool) -> Outcome {
        let program = if former { self.former.example(self.name) } else { example(self.name)? };
        assert_eq!(size_of_main(self.lab, self.unit)?, program.metadata()?.len(), "former: {former}");
        Ok(())
    }
}

/// Keep-alive clients, uploads, slow ones and streams: nothing is lost, and where both know how to
/// move connections, they move.
fn under_load(lab: &Container) -> Outcome {
    for former in &former()? {
        let web = Web::start(lab, Setup::default())?;
        let programs = Programs { lab, name: "web", unit: UNIT, former };
        let ((), stats) = load::under(lab, web.address, load::ALL, |_| {
            for reload in 1..=RELOADS {
                let back = reload % 2 == 1;
                programs.install(back)?;
                let new = web.reload()?;
                programs.check(back)?;
                assert_eq!(web.pid()?, new, "who answers a new connection after the reload");
                lab.wait_until(DEADLINE, "few drain", || Ok((lab.pids(UNIT)?.len() <= DRAINING).then_some(())))?;
            }
            // From today's to today's.
            web.reload().map(drop)
        })?;
        let summary = load::lost_nothing(&stats)?;
        println!(
            "systemd {}, {} ↔ today's: {RELOADS} reloads, {} answered, 0 lost",
            lab.version(),
            former.name,
            summary.total.answered
        );
        assert_eq!(web.count_logged("handed over to generation")?, RELOADS + 1);
        assert_eq!(web.count_logged("cut http: ")?, 0);
        // Only the last one moves any: "generation 21 moved 16 connections within 3 ms".
        web.logged(&format!("generation {} moved ", RELOADS + 1))?;
        assert_eq!(web.count_logged(" connections within ")?, 1);
        assert_eq!(web.state()?.restarts, 0);
        lab.systemctl_ok(&["stop", "web.socket", UNIT])?;
    }
    Ok(())
}

/// What one of them has kept the other one goes on with, over reloads and crashes.
fn of_states(lab: &Container) -> Outcome {
    const RELOADS: usize = 6;
    for former in &former()? {
        let counter = Counter::start(lab, Binds::Systemd, "", "")?;
        let programs = Programs { lab, name: "counter", unit: counter::UNIT, former };
        let mut total = counter.count()?.total;
        for reload in 1..=RELOADS {
            let (old, back) = (lab.main_pid(counter::UNIT)?, reload % 2 == 1);
            programs.install(back)?;
            // Each third comes back after a crash, with what the other version has stored.
            match reload % 3 {
                0 => lab.signal(old, "KILL")?,
                _ => lab.systemctl_ok(&["reload", counter::UNIT]).map(drop)?,
            }
            lab.wait_until(DEADLINE, "another main process", || {
                Ok(lab.main_pid(counter::UNIT).ok().filter(|new| *new != old))
            })?;
            let counts = counter.count()?;
            assert_eq!(counts.total, total + 1, "{reload}: {counts:?}");
            programs.check(back)?;
            total = counts.total;
        }
        // The same with clients that remember what they were told.
        let memory = Memory::default();
        counter.under_clients(4, &memory, || {
            for reload in 1..=RELOADS {
                let old = lab.main_pid(counter::UNIT)?;
                programs.install(reload % 2 == 1)?;
                lab.systemctl_ok(&["reload", counter::UNIT])?;
                lab.wait_until(DEADLINE, "another main process that answers", || {
                    Ok(lab.main_pid(counter::UNIT).ok().filter(|new| *new != old && memory.look().newest == *new))
                })?;
            }
            Ok(())
        })?;
        let seen = memory.look();
        assert!(seen.lost.is_empty() && seen.wrong.is_empty(), "{:?} {:?}", seen.lost, seen.wrong);
        println!(
            "systemd {}, {} ↔ today's: {} counted over {} reloads and crashes, none lost, none twice",
            lab.version(),
            former.name,
            seen.answered + total,
            2 * RELOADS
        );
        drop(seen);
        lab.systemctl_ok(&["stop", counter::SOCKET, counter::UNIT])?;
    }
    Ok(())
}

/// Today's tool asks a service of a former version: for a reload, to itself and to today's, and for
/// its status.
fn of_the_tool(lab: &Container) -> Outcome {
    let tool = lab.install(handover(), "handover")?;
    let user = if lab.manager_pid() == 1 { "" } else { "--user" };
    for former in &former()? {
        let web = Web::install(lab, Setup { lines: "RuntimeDirectory=handover-web\n", ..Setup::default() })?;
        let programs = Programs { lab, name: "web", unit: UNIT, former };
        programs.install(true)?;
        lab.systemctl_ok(&["start", "web.socket", UNIT])?;
        for (generation, back) in (2..).zip([true, false, true, false]) {
            programs.install(back)?;
            let said = lab.sh_ok(&format!("{tool} reload {user} {UNIT}"))?;
            let main = lab.main_pid(UNIT)?;
            assert!(said.contains(&format!("generation {generation} (pid {main}) is main")), "{said}");
            programs.check(back)?;
            assert_eq!(web.pid()?, main, "who answers");
            let status = lab.sh_ok(&format!("{tool} status {user} --json {UNIT}"))?;
            let status: serde_json::Value = serde_json::from_str(&status)?;
            assert_eq!((&status["generation"], &status["pid"]), (&generation.into(), &main.into()), "{status}");
            lab.sh_ok(&format!("{tool} status {user} {UNIT}"))?;
        }
        lab.systemctl_ok(&["stop", "web.socket", UNIT])?;
    }
    Ok(())
}
