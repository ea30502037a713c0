//! Jobs and their programs: reloads, restarts, stops and crashes of a runner without a socket.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::lab::{Container, Outcome, Scenario, example};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("runner_loses_no_job", loses_no_job).system_only(),
    Scenario::new("runner_without_scopes", without_scopes).system_only(),
    Scenario::new("runner_cut", cut).system_only(),
    Scenario::new("runner_kill_mode", kill_mode).system_only(),
    Scenario::new("runner_crash", crash).system_only(),
];

const UNIT: &str = "runner.service";
const PACKAGED: &str = include_str!("../../../packaging/systemd/runner.service");
const SPOOL: &str = "/var/lib/runner";
const DEADLINE: Duration = Duration::from_secs(30);

/// 50 jobs of 0.2 to 3 s, a third of them programs, each in a scope; 30 reloads and 5 restarts, by
/// a unit whose stop signals all that is in its cgroup.
fn loses_no_job(lab: &Container) -> Outcome {
    let runner = Runner::start(lab, "--concurrency 10 --scope yes", |unit| without(unit, "ExecStop="))?;
    let (mut jobs, longest) = (BTreeSet::new(), Duration::from_secs(3));
    for first in (0..50).step_by(10) {
        jobs.extend(runner.put_many(first..first + 7, 50, longest)?);
        for _ in 0..6 {
            runner.reload()?;
        }
        // some have just begun when the restart comes
        let last = runner.put_many(first + 7..first + 10, 50, longest)?;
        last.iter().try_for_each(|name| runner.wait_for_out(name))?;
        jobs.extend(last);
        runner.systemctl("restart")?;
    }
    runner.ran_all_once(&jobs)?;
    runner.some_drained_with_jobs()?;
    runner.no_scope_is_left()
}

/// The packaged unit as it is: its ExecStop= waits.
fn without_scopes(lab: &Container) -> Outcome {
    let runner = Runner::start(lab, "--concurrency 6", str::to_owned)?;
    let jobs = runner.put_many(0..18, 18, Duration::from_millis(1500))?;
    for _ in 0..2 {
        for _ in 0..3 {
            runner.reload()?;
        }
        runner.systemctl("restart")?;
    }
    runner.ran_all_once(&jobs)
}

/// What ends a job is the drain timeout. TimeoutStopSec= does not: while a drain lasts the service
/// asks for more time.
fn cut(lab: &Container) -> Outcome {
    let runner = Runner::start(lab, "--drain-timeout 20s --scope yes", |unit| {
        without(unit, "ExecStop=").replace("TimeoutStopSec=45", "TimeoutStopSec=1")
    })?;
    runner.put("patient", "program 3s")?;
    runner.wait_for_out("patient")?;
    runner.systemctl("stop")?;
    runner.until("done", &["patient"])?;
    assert_eq!(runner.logged("cut job")?.len(), 0);
    assert_eq!(lab.show(UNIT, "Result")?, "success");

    // One job that is longer than that and the drain timeout; three that are not.
    runner.set_up("--drain-timeout 4s --scope yes", |unit| {
        without(unit, "ExecStop=").replace("TimeoutStopSec=45", "TimeoutStopSec=2")
    })?;
    runner.systemctl("start")?;
    let jobs = [("long", "program 60s"), ("a", "program 1s"), ("b", "inline 1100ms"), ("c", "blocking 1s")];
    for (name, job) in jobs {
        runner.put(name, job)?;
    }
    for (name, _) in jobs {
        runner.wait_for_out(name)?;
    }
    runner.systemctl("stop")?;
    runner.until("done", &["a", "b", "c", "patient"])?;
    runner.until("running", &["long"])?;
    let cut = runner.logged("cut job")?;
    assert!(cut.len() == 1 && cut[0].starts_with("cut job long, running for"), "{cut:?}");
    assert_eq!(runner.logged("4 started, 3 finished, 0 failed, 1 cut (long)")?.len(), 1);
    assert_eq!(lab.show(UNIT, "Result")?, "success", "it ended by itself, within the manager's time");
    assert_eq!(runner.out("long"), "begun\n");
    runner.no_program_is_left()
}

/// What a stop does to programs in the unit's own cgroup.
fn kill_mode(lab: &Container) -> Outcome {
    // The default, and nothing that protects them: they fail, and the log says why.
    let runner = Runner::start(lab, "", |unit| without(unit, "ExecStop="))?;
    runner.put("hit", "program 60s")?;
    runner.put("safe", "inline 1s")?;
    runner.wait_for_out("hit")?;
    runner.wait_for_out("safe")?;
    runner.systemctl("stop")?;
    runner.until("failed", &["hit"])?;
    runner.until("done", &["safe"])?;
    let failed = runner.logged("\"hit\" failed: the program was killed by SIGTERM")?;
    assert_eq!(failed.len(), 1);

    // KillMode=mixed spares them in a stop…
    let mixed = |unit: &str| without(unit, "ExecStop=").replace("KillMode=control-group", "KillMode=mixed");
    runner.set_up("", mixed)?;
    runner.systemctl("start")?;
    runner.put("spared", "program 1s")?;
    runner.wait_for_out("spared")?;
    runner.systemctl("stop")?;
    runner.until("done", &["safe", "spared"])?;
    // …but when a main process dies, old generations and their jobs get SIGKILL.
    runner.systemctl("start")?;
    runner.put("victim", "program 60s")?;
    runner.wait_for_out("victim")?;
    runner.reload()?;
    lab.signal(lab.main_pid(UNIT)?, "KILL")?;
    runner.until("cut", &["victim"])?;
    assert_eq!(runner.logged("cut job")?.len(), 0, "nobody could say so");
    assert_eq!(runner.logged("\"victim\" was broken off")?.len(), 1, "but the next one");
    runner.systemctl("stop")
}

/// A crash leaves no program behind, wherever it runs, and the next runner says which jobs it broke
/// off. Those of an old generation are finished first.
fn crash(lab: &Container) -> Outcome {
    let runner = Runner::start(lab, "", str::to_owned)?;
    let mut broken = Vec::new();
    for (name, scope) in [("inside", "no"), ("scoped", "yes")] {
        runner.systemctl("stop")?;
        runner.set_up(&format!("--scope {scope}"), str::to_owned)?;
        runner.systemctl("start")?;
        let old = format!("old-{name}");
        runner.put(&old, "inline 2s")?;
        runner.wait_for_out(&old)?;
        runner.reload()?;
        runner.put(name, "program 300s")?;
        runner.wait_for_out(name)?;
        let main = lab.main_pid(UNIT)?;
        let scopes = lab.sh_ok("systemctl list-units --no-legend --plain 'handover-job-runner-*.scope'")?;
        assert_eq!(scopes.lines().count(), usize::from(scope == "yes"), "{scopes}");
        lab.signal(main, "KILL")?;
        broken.push(name);
        runner.until("cut", &broken)?;
        assert_eq!(runner.logged(&format!("{name:?} was broken off"))?.len(), 1);
        runner.no_program_is_left()?;
        runner.no_scope_is_left()?;
        assert_eq!(runner.out(name), "begun\n");
    }
    assert_eq!(runner.logged("cut job")?.len(), 0);
    runner.until("done", &["old-inside", "old-scoped"])
}

struct Runner<'a> {
    lab: &'a Container,
}

impl<'a> Runner<'a> {
    fn start(lab: &'a Container, arguments: &str, change: impl Fn(&str) -> String) -> Outcome<Self> {
        lab.install(&example("runner")?, "runner")?;
        let runner = Self { lab };
        runner.set_up(arguments, change)?;
        runner.systemctl("start")?;
        Ok(runner)
    }

    fn set_up(&self, arguments: &str, change: impl Fn(&str) -> String) -> Outcome {
        let packaged = "ExecStart=/usr/bin/runner\n";
        assert!(PACKAGED.contains(packaged));
        let command = format!("ExecStart={}/runner {arguments}\n", self.lab.dir().display());
        self.lab.write_unit(UNIT, &change(&PACKAGED.replace(packaged, &command)))?;
        self.lab.daemon_reload()
    }

    fn systemctl(&self, verb: &str) -> Outcome {
        self.lab.systemctl_ok(&[verb, UNIT]).map(drop)
    }

    fn reload(&self) -> Outcome {
        let old = self.lab.main_pid(UNIT)?;
        self.systemctl("reload")?;
        self.lab.wait_until(DEADLINE, "another main process", || {
            let text = self.lab.systemctl_ok(&["show", "--value", "-p", "SubState,MainPID", UNIT])?;
            let is_new = text.lines().any(|l| l == "running") && !text.lines().any(|l| l == old.to_string());
            Ok(is_new.then_some(()))
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.lab.outside(SPOOL).join(name)
    }

    fn put(&self, name: &str, job: &str) -> Outcome {
        let new = self.path("new");
        fs::write(&new, job)?;
        Ok(fs::rename(new, self.path("queue").join(name))?)
    }

    /// Those of `all` jobs: a third are programs, and all take from 0.2 s to the longest time.
    fn put_many(&self, those: Range<u32>, all: u32, longest: Duration) -> Outcome<BTreeSet<String>> {
        let shortest = Duration::from_millis(200);
        let mut names = BTreeSet::new();
        for n in those {
            let kind = ["inline", "program", "blocking"][n as usize % 3];
            // 17 has no common divisor with their number: all lengths, in no order
            let time = shortest + (longest - shortest) * (n * 17 % all) / (all - 1);
            let name = format!("{n:02}-{kind}");
            self.put(&name, &format!("{kind} {}ms", time.as_millis()))?;
            names.insert(name);
        }
        Ok(names)
    }

    fn names(&self, directory: &str) -> Outcome<BTreeSet<String>> {
        fs::read_dir(self.path(directory))?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn out(&self, name: &str) -> String {
        fs::read_to_string(self.path("out").join(name)).unwrap_or_default()
    }

    fn wait_for_out(&self, name: &str) -> Outcome {
        self.lab.wait_until(DEADLINE, &format!("{name} has begun"), || Ok((!self.out(name).is_empty()).then_some(())))
    }

    /// Exactly these are there.
    fn until(&self, directory: &str, names: &[&str]) -> Outcome {
        let wanted = names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let what = format!("{names:?} in {directory}/");
        let waited = self.lab.wait_until(DEADLINE, &what, || Ok((self.names(directory)? == wanted).then_some(())));
        waited.map_err(|e| format!("{}: {:?}", e.message().unwrap_or_default(), self.names(directory)).into())
    }

    fn no_program_is_left(&self) -> Outcome {
        let none = || Ok(self.lab.sh("pgrep -x sleep")?.stdout.is_empty().then_some(()));
        self.lab.wait_until(DEADLINE, "no program is left", none)
    }

    /// systemd hears of the end of a scope's last process a moment after it.
    fn no_scope_is_left(&self) -> Outcome {
        let scopes = "systemctl list-units --all --no-legend 'handover-*.scope'";
        let none = || Ok(self.lab.sh_ok(scopes)?.is_empty().then_some(()));
        self.lab.wait_until(DEADLINE, "no scope is left", none)
    }

    fn logged(&self, text: &str) -> Outcome<Vec<String>> {
        let entries = self.lab.journal_json(UNIT)?;
        Ok(entries.iter().map(|e| e.message().into_owned()).filter(|m| m.contains(text)).collect())
    }

    fn ran_all_once(&self, jobs: &BTreeSet<String>) -> Outcome {
        self.until("done", &jobs.iter().map(String::as_str).collect::<Vec<_>>())?;
        for name in jobs {
            assert_eq!(self.out(name), "begun\nended\n", "{name}");
        }
        assert_eq!(self.names("out")?, *jobs);
        for directory in ["queue", "running", "failed", "cut"] {
            assert!(self.names(directory)?.is_empty(), "{directory}/: {:?}", self.names(directory)?);
        }
        assert_eq!(self.logged("cut ")?, [""; 0]);
        assert_eq!(self.logged("hammered")?, [""; 0]);
        assert_eq!(self.lab.show(UNIT, "NRestarts")?, "0");
        Ok(())
    }

    /// Otherwise nothing was shown.
    fn some_drained_with_jobs(&self) -> Outcome {
        let entries = self.lab.journal_json(UNIT)?;
        let busy = entries.iter().filter_map(|e| e.get("CONNECTIONS")?.parse().ok()).filter(|open: &u64| *open > 0);
        let busy = busy.count();
        if busy < 5 { Err(format!("only {busy} generations had jobs to finish").into()) } else { Ok(()) }
    }
}

fn without(unit: &str, setting: &str) -> String {
    unit.lines().filter(|line| !line.starts_with(setting)).map(|line| format!("{line}\n")).collect()
}
