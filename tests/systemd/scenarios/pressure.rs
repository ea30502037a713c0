//! A drain that hurries as the machine is short of something.

use std::time::{Duration, Instant};

use super::web::{DEADLINE, Setup, UNIT, Web, within};
use crate::lab::{Container, Outcome, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("pressure_told_by_a_fifo", told_by_a_fifo).system_only(),
    Scenario::new("pressure_told_by_the_kernel", told_by_the_kernel).system_only().since(254),
];

/// An idle connection that does not move has a minute.
const COMMAND: &str = "{dir}/web --migrate never --linger 60s --drain-timeout 60s";
const HURRIED: Duration = Duration::from_secs(10);
/// So many loops keep the processors busy, and wait for them.
const LOOPS: usize = 6;

/// What is told, in place of the kernel: any version of systemd lets a unit say where.
fn told_by_a_fifo(lab: &Container) -> Outcome {
    let told = "/run/pressure";
    lab.sh_ok(&format!("mkfifo -m 666 {told}"))?;
    let lines = format!("Environment=MEMORY_PRESSURE_WATCH={told} HANDOVER_HURRY_UNDER_PRESSURE=memory\n");
    let web = Web::start(lab, Setup { command: COMMAND, lines: &lines, ..Setup::default() })?;
    let mut idle = web.connect()?;
    let old = idle.pid()?;
    let slow = web.in_flight(20, Duration::from_millis(100))?;
    let new = web.reload()?;
    watches(lab, old, "/run/pressure")?;
    let began = Instant::now();
    lab.sh_ok(&format!("echo >{told}"))?;
    web.logged("pressure on memory: the drain hurries, connections open: 2")?;
    idle.closed()?;
    slow.finish()?.closed()?;
    web.until_only(&[new])?;
    within(HURRIED, began, "a drain that hurries")?;
    assert_eq!(web.count_logged("cut http: ")?, 0, "what was in hand is finished");
    Ok(())
}

fn watches(lab: &Container, pid: u32, path: &str) -> Outcome {
    let what = format!("{pid} has {path} open");
    lab.wait_until(DEADLINE, &what, || Ok(lab.proc_fds(pid)?.values().any(|to| to.ends_with(path)).then_some(())))
}

/// The kernel's own file, as systemd gives it to the packaged unit. The memory of a container is
/// never short here, as its cgroups have no limit; of processors there are too few soon.
fn told_by_the_kernel(lab: &Container) -> Outcome {
    let (lines, cpu) = match lab.version() {
        261.. => ("MemoryPressureWatch=on\nCPUPressureWatch=on\nEnvironment=HANDOVER_HURRY_UNDER_PRESSURE=any\n", true),
        _ => ("MemoryPressureWatch=on\nEnvironment=HANDOVER_HURRY_UNDER_PRESSURE=memory\n", false),
    };
    let web = Web::start(lab, Setup { command: COMMAND, lines, ..Setup::default() })?;
    let mut idle = web.connect()?;
    let old = idle.pid()?;
    let new = web.reload()?;
    watches(lab, old, "/web.service/memory.pressure")?;
    assert_eq!(web.count_logged("cannot be watched")?, 0);
    if !cpu {
        return Ok(());
    }
    assert_eq!(web.count_logged("hurry_under_pressure = \"any\" has no effect for input and output")?, 1);
    watches(lab, old, "/web.service/cpu.pressure")?;
    let began = Instant::now();
    let group = format!("/sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs");
    let busy = lab.sh_ok(&format!(
        "for n in $(seq {LOOPS}); do sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $! | tee {group}; done"
    ))?;
    web.logged("pressure on the processors: the drain hurries")?;
    lab.sh_ok(&format!("kill {}", busy.replace('\n', " ")))?;
    idle.closed()?;
    web.until_only(&[new])?;
    within(HURRIED, began, "a drain that hurries")
}
