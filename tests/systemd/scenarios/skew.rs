//! Today's version and each former one whose source is kept hand over to each other, back and
//! forth.

use std::path::PathBuf;

use serde_json::Value;

use super::counter::{self, Binds, Counter, Memory};
use super::run::Instance;
use super::web::{DEADLINE, Setup, UNIT, Web};
use crate::lab::{Container, Former, Outcome, Scenario, example, former, handover};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("skew_under_load", under_load),
    Scenario::new("skew_of_states", of_states),
    Scenario::new("skew_of_run", of_run),
    Scenario::new("skew_of_the_tool", of_the_tool),
];

const TOOL: &str = "handover";
const RELOADS: usize = 20;
/// No more processes than this drain at a time: the cap would hammer the oldest, which is another
/// scenario.
const DRAINING: usize = 6;

/// Puts the program of one of them in the place of the other one, and notes which.
struct Programs<'a> {
    lab: &'a Container,
    /// An example, or [`TOOL`].
    name: &'static str,
    former: &'a Former,
}

impl Programs<'_> {
    fn path(&self, former: bool) -> Outcome<PathBuf> {
        Ok(match (self.name, former) {
            (TOOL, true) => self.former.handover(),
            (TOOL, false) => handover().to_owned(),
            (name, true) => self.former.example(name),
            (name, false) => example(name)?,
        })
    }

    fn install(&self, former: bool) -> Outcome<String> {
        self.lab.install(&self.path(former)?, self.name)
    }

    /// The process is of that version: two builds are told apart by the length of their programs.
    fn check(&self, former: bool, pid: u32) -> Outcome {
        let size: u64 = self.lab.sh_ok(&format!("stat -Lc %s /proc/{pid}/exe"))?.parse()?;
        assert_eq!(size, self.path(former)?.metadata()?.len(), "{}, former: {former}", self.name);
        Ok(())
    }
}

/// Keep-alive clients, uploads, slow ones and streams: nothing is lost, and where both know how to
/// move connections, they move.
fn under_load(lab: &Container) -> Outcome {
    for former in &former()? {
        let web = Web::start(lab, Setup::default())?;
        let programs = Programs { lab, name: "web", former };
        let ((), stats) = load::under(lab, web.address, load::ALL, |_| {
            for reload in 1..=RELOADS {
                let back = reload % 2 == 1;
                programs.install(back)?;
                let new = web.reload()?;
                programs.check(back, new)?;
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
    /// Reloads and crashes.
    const CRASHES: usize = 6;
    for former in &former()? {
        let counter = Counter::start(lab, Binds::Systemd, "", "")?;
        let programs = Programs { lab, name: "counter", former };
        let mut total = counter.count()?.total;
        for reload in 1..=CRASHES {
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
            programs.check(back, lab.main_pid(counter::UNIT)?)?;
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
            CRASHES + RELOADS
        );
        drop(seen);
        lab.systemctl_ok(&["stop", counter::SOCKET, counter::UNIT])?;
    }
    Ok(())
}

/// `handover run` goes on as the other version of itself, 20 times, and each swaps programs of
/// either. Whoever asks it, by `systemctl reload` and for its status, is of the other version.
fn of_run(lab: &Container) -> Outcome {
    for former in &former()? {
        let [tool, web] = [TOOL, "web"].map(|name| Programs { lab, name, former });
        web.install(false)?;
        let served = Instance::alone(lab, "-- {dir}/web")?;
        let main = lab.main_pid(&served.unit)?;
        let ((), stats) = load::under(lab, served.address, load::ALL, |_| {
            for reload in 1..=RELOADS {
                let (back, program_back) = (reload % 2 == 1, reload / 2 % 2 == 1);
                web.install(program_back)?;
                let tool_path = tool.install(back)?;
                let new = served.reload()?;
                web.check(program_back, new)?;
                let said = lab.sh_ok(&format!("{tool_path} reload --self {main}"))?;
                assert!(said.contains("goes on"), "{said}");
                tool.check(back, main)?;
                let status = served.status()?;
                assert_eq!(status["supervisor"]["renewals"], reload, "{status}");
                assert_eq!((&status["generation"], &status["pid"]), (&(reload + 1).into(), &new.into()), "{status}");
                lab.wait_until(DEADLINE, "few drain", || {
                    Ok((lab.pids(&served.unit)?.len() <= DRAINING + 1).then_some(()))
                })?;
            }
            Ok(())
        })?;
        let summary = load::lost_nothing(&stats)?;
        assert_eq!(lab.main_pid(&served.unit)?, main, "the main pid stays");
        assert_eq!(lab.show(&served.unit, "NRestarts")?, "0");
        served.until_alone()?;
        println!(
            "systemd {}, handover run, {} ↔ today's: {RELOADS} times on as the other, {RELOADS} reloads, {} answered, 0 lost",
            lab.version(),
            former.name,
            summary.total.answered
        );
        lab.systemctl_ok(&["stop", "handover-run@web.socket", &served.unit])?;
    }
    Ok(())
}

/// The tool of either version asks services of both, 10 times each: for reloads, to the same and to
/// the other version, by hand and by `ExecReload=`, and for the status.
fn of_the_tool(lab: &Container) -> Outcome {
    let user = if lab.manager_pid() == 1 { "" } else { "--user" };
    let (mut handed_over, mut rolled_back) = (0, 0);
    for former in &former()? {
        for tool_back in [false, true] {
            let tool = Programs { lab, name: TOOL, former }.install(tool_back)?;
            let lines = format!("RuntimeDirectory=handover-web\nExecReload=\nExecReload={tool} reload $MAINPID\n");
            let web = Web::install(lab, Setup { lines: &lines, ..Setup::default() })?;
            let programs = Programs { lab, name: "web", former };
            programs.install(true)?;
            lab.systemctl_ok(&["start", "web.socket", UNIT])?;
            let ((), stats) = load::under(lab, web.address, load::ALL, |_| {
                // The former is reloaded to itself, to today's, that to itself, and back.
                for (generation, back) in (2..2 + RELOADS / 2).zip([true, false, false, true].into_iter().cycle()) {
                    programs.install(back)?;
                    if generation % 3 == 0 {
                        web.reload()?;
                    } else {
                        let said = lab.sh_ok(&format!("{tool} reload {user} {UNIT}"))?;
                        assert!(said.contains(&format!("generation {generation} (pid ")), "{said}");
                    }
                    handed_over += 1;
                    let main = lab.main_pid(UNIT)?;
                    programs.check(back, main)?;
                    assert_eq!(web.pid()?, main, "who answers");
                    let status = lab.sh_ok(&format!("{tool} status {user} --json {UNIT}"))?;
                    let status: Value = serde_json::from_str(&status)?;
                    assert_eq!((&status["generation"], &status["pid"]), (&generation.into(), &main.into()), "{status}");
                    lab.sh_ok(&format!("{tool} status {user} {UNIT}"))?;
                    lab.wait_until(DEADLINE, "few drain", || Ok((lab.pids(UNIT)?.len() <= DRAINING).then_some(())))?;
                }
                // Why a version does not start is told across versions, too.
                lab.sh_ok(&format!("cp /bin/false {0}/new && mv {0}/new {0}/web", lab.dir().display()))?;
                let said = lab.sh(&format!("{tool} reload {user} {UNIT}"))?;
                assert!(!said.success() && said.stderr.contains("exited with status 1"), "{said:?}");
                rolled_back += 1;
                Ok(())
            })?;
            let told = lab.sh_ok(&format!("{tool} timeline {user} {UNIT}"))?;
            let counted = format!("({handed_over} handed over, {rolled_back} rolled back)");
            assert!(told.contains(&counted), "{counted}: {told}");
            if !tool_back {
                // What a service is too old for is an answer, not a silence.
                programs.install(true)?;
                programs.check(true, web.reload()?)?;
                handed_over += 1;
                let said = lab.sh(&format!("{tool} pause {user} {UNIT}"))?;
                assert!(!said.success() && said.stderr.contains("knows nothing of pauses"), "{said:?}");
            }
            let summary = load::lost_nothing(&stats)?;
            let whose = if tool_back { &former.name } else { "today's" };
            println!(
                "systemd {}, {} ↔ today's: {} reloads asked for by the tool of {whose}, {} answered, 0 lost",
                lab.version(),
                former.name,
                RELOADS / 2,
                summary.total.answered
            );
            lab.systemctl_ok(&["stop", "web.socket", UNIT])?;
        }
    }
    Ok(())
}
