//! Who the next generation is, seen from outside: in the manager, in /proc, and in what it was
//! given.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::web::{DEADLINE, Setup, UNIT, Web, within};
use crate::lab::{Container, Outcome, Scenario};
use crate::load;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("new_main_is_the_managers_child", new_main_is_the_managers_child),
    Scenario::new("environment_of_the_next", environment_of_the_next),
    Scenario::new("a_pid_used_again_is_not_main", a_pid_used_again_is_not_main),
    Scenario::new("fds_of_the_next", fds_of_the_next),
    Scenario::new("hundred_reloads", hundred_reloads),
];

/// O_CLOEXEC, as fdinfo shows it.
const CLOEXEC: u32 = 0o2_000_000;
/// Between two of a hundred reloads.
const EVERY: Duration = Duration::from_millis(200);

fn new_main_is_the_managers_child(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let old = lab.main_pid(UNIT)?;
    // The old one is still there, so it could be the parent.
    let request = web.in_flight(4, Duration::from_millis(250))?;
    let new = web.reload()?;
    assert_ne!(old, new);
    assert_eq!(lab.proc_status(new, "PPid")?, lab.manager_pid().to_string());
    let status = lab.systemctl_ok(&["status", UNIT])?;
    assert!(status.contains(&format!("Main PID: {new} (web)")), "{status}");
    assert!(status.contains("generation 2 serves"), "{status}");
    request.finish()?;
    web.until_only(&[new])?;
    // Nobody waited for the old one but the manager: no zombie, no complaint.
    for entry in lab.journal_json(UNIT)? {
        let message = entry.message();
        for complaint in ["not our child", "which does not belong", "is not in the cgroup", "rejecting", "Failed"] {
            assert!(!message.contains(complaint), "{message}");
        }
    }
    Ok(())
}

/// What `MAINPIDFDID=` is for: the pid that is told as the main one is that of another process by
/// now. systemd minds it from 257 on.
fn a_pid_used_again_is_not_main(lab: &Container) -> Outcome {
    let dir = lab.dir().display().to_string();
    let told = format!("systemd-notify \"MAINPID=$(cat {dir}/other)\" \"MAINPIDFDID=$(cat {dir}/id)\"");
    lab.write_file(&format!("{dir}/tell"), &format!("#!/bin/sh\n{told}\n"))?;
    lab.write_file(
        &format!("{dir}/serve"),
        &format!("#!/bin/sh\nsleep infinity &\necho $! >{dir}/other\nsystemd-notify --ready\nwait\n"),
    )?;
    lab.sh_ok(&format!("chmod 755 {dir}/tell {dir}/serve"))?;
    lab.write_unit(
        "pid.service",
        &format!("[Service]\nType=notify\nNotifyAccess=all\nExecStart={dir}/serve\nExecReload={dir}/tell\n"),
    )?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", "pid.service"])?;
    let first = lab.main_pid("pid.service")?;
    let other: u32 = lab.sh_ok(&format!("cat {dir}/other"))?.trim().parse()?;
    let tell = |id: u64| -> Outcome<u32> {
        lab.write_file(&format!("{dir}/id"), &id.to_string())?;
        lab.systemctl_ok(&["reload", "pid.service"])?;
        lab.main_pid("pid.service")
    };
    // No process has the number 1: they count from the boot on, beyond it.
    assert_eq!(tell(1)?, if lab.version() >= 257 { first } else { other });
    lab.systemctl_ok(&["stop", "pid.service"])?;
    Ok(())
}

fn environment_of_the_next(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup { command: "{dir}/web --drain-timeout 20s", ..Setup::default() })?;
    let mut old = lab.main_pid(UNIT)?;
    for _ in 0..2 {
        let request = web.in_flight(4, Duration::from_millis(250))?;
        let new = web.reload()?;
        let (before, after) = (lab.proc_environ(old)?, lab.proc_environ(new)?);
        let has = |name: &str| after.get(name).map(String::as_str);
        let pid = new.to_string();
        for name in ["LISTEN_PID", "WATCHDOG_PID", "SYSTEMD_EXEC_PID"] {
            assert_eq!(has(name), Some(pid.as_str()), "{name} of {new}, which follows {old}");
        }
        assert_eq!((has("LISTEN_FDS"), has("LISTEN_FDNAMES")), (Some("1"), Some("http")));
        assert_eq!(has("LISTEN_PIDFDID"), None);
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "INVOCATION_ID", "JOURNAL_STREAM"] {
            assert!(has(name).is_some() && after.get(name) == before.get(name), "{name}: {before:?}, {after:?}");
        }
        // And nothing else has changed, come, or gone.
        let own = ["LISTEN_PID", "WATCHDOG_PID", "SYSTEMD_EXEC_PID", "LISTEN_PIDFDID", "HANDOVER_FD", "HANDOVER_PID"];
        let rest = |env: &BTreeMap<String, String>| -> BTreeMap<String, String> {
            env.iter().filter(|(name, _)| !own.contains(&name.as_str())).map(|(n, v)| (n.clone(), v.clone())).collect()
        };
        assert_eq!(rest(&before), rest(&after));
        for (what, file) in [("arguments", "cmdline"), ("limits", "limits")] {
            assert_eq!(lab.proc_read(old, file)?, lab.proc_read(new, file)?, "{what}");
        }
        for field in ["SigBlk", "SigIgn", "SigCgt", "NoNewPrivs", "CapEff", "Seccomp", "Umask"] {
            assert_eq!(lab.proc_status(old, field)?, lab.proc_status(new, field)?, "{field}");
        }
        let directory = |pid: u32| lab.sh_ok(&format!("readlink /proc/{pid}/cwd"));
        assert_eq!(directory(old)?, directory(new)?);
        request.finish()?;
        web.until_only(&[new])?;
        old = new;
    }
    Ok(())
}

fn fds_of_the_next(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup { command: "{dir}/web --migrate never", ..Setup::default() })?;
    let old = lab.main_pid(UNIT)?;
    // Connections of the old one that must not be in the new one, and an old one that lives on to
    // compare with.
    let idle: Vec<_> = (0..5).map(|_| web.connect()).collect::<Outcome<_>>()?;
    let request = web.in_flight(6, Duration::from_millis(250))?;
    let theirs = lab.proc_fds(old)?;
    let new = web.reload()?;
    let fds = lab.proc_fds(new)?;
    let shared: BTreeSet<&String> = fds
        .values()
        .filter(|to| to.contains(":[") && !to.starts_with("anon_inode") && theirs.values().any(|t| t == *to))
        .collect();
    // One process each: these inodes are stdout (with stderr) and the listening socket.
    let listener = fds.get(&3).ok_or("nothing at fd 3")?;
    assert_eq!(shared, BTreeSet::from([&fds[&1], listener]), "old: {theirs:?}\nnew: {fds:?}");
    assert_eq!(&fds[&1], &fds[&2]);
    let link = lab.proc_environ(new)?.get("HANDOVER_FD").ok_or("no HANDOVER_FD")?.parse::<i32>()?;
    assert_eq!(link, 4, "the link comes right after the sockets");
    for (&fd, to) in fds.range(3..) {
        let Ok(info) = lab.proc_read(new, &format!("fdinfo/{fd}")) else { continue };
        let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).ok_or("no flags")?;
        assert!(u32::from_str_radix(flags.trim(), 8)? & CLOEXEC != 0, "fd {fd} ({to}) would leak into children");
    }
    request.finish()?;
    drop(idle);
    web.until_only(&[new])?;

    let settled = kinds(lab, new)?;
    for _ in 0..20 {
        let new = web.reload()?;
        web.until_only(&[new])?;
    }
    let last = lab.main_pid(UNIT)?;
    assert_eq!(settled, kinds(lab, last)?, "after 20 more reloads");
    Ok(())
}

/// How many fds of each kind, when it has let go of the drainer.
fn kinds(lab: &Container, pid: u32) -> Outcome<BTreeMap<String, usize>> {
    // The end of the drainer is seen as the end of its link, a moment after its process is gone.
    let mut last = BTreeMap::new();
    lab.wait_until(DEADLINE, "the same fds twice", || {
        let mut now = BTreeMap::new();
        for to in lab.proc_fds(pid)?.into_values() {
            *now.entry(to.split(":[").next().unwrap_or(&to).to_owned()).or_insert(0) += 1;
        }
        let same = now == last;
        last.clone_from(&now);
        Ok(same.then_some(now))
    })
}

fn hundred_reloads(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let before = at_rest(&web)?;
    let began = Instant::now();
    let (reloads, stats) = load::under(lab, web.address, load::SHORT, |_| {
        for n in 1..=100_u32 {
            web.reload()?;
            // The pace is part of the case: not faster than this, so that the load meets
            // generations of every age.
            std::thread::sleep((EVERY * n).saturating_sub(began.elapsed()));
        }
        web.count_logged("handed over to generation")
    })?;
    load::lost_nothing(&stats)?;
    within(EVERY * 300, began, "100 reloads")?;
    assert_eq!(reloads, 101, "each of them ran");
    let state = web.state()?;
    assert_eq!((state.restarts, state.result.as_str()), (0, "success"));
    assert_eq!(web.count_logged("cut http: ")?, 0);

    let after = at_rest(&web)?;
    assert_eq!((before.fds, before.threads), (after.fds, after.threads));
    let grown = f64::from(after.rss) / f64::from(before.rss);
    assert!(grown < 1.25, "from {} to {} KiB", before.rss, after.rss);
    // Nor does the manager keep anything: two of the fds may be those of a client of its own.
    assert!(after.manager_fds <= before.manager_fds + 2, "{} to {}", before.manager_fds, after.manager_fds);
    assert_eq!(lab.show(UNIT, "NFileDescriptorStore")?, "0");
    Ok(())
}

#[derive(Debug)]
struct AtRest {
    fds: BTreeMap<String, usize>,
    threads: String,
    rss: u32,
    manager_fds: usize,
}

/// A generation that has been reloaded into, alone, and without load.
fn at_rest(web: &Web<'_>) -> Outcome<AtRest> {
    let (lab, pid) = (web.lab, web.reload()?);
    web.until_only(&[pid])?;
    let rss = lab.proc_status(pid, "VmRSS")?;
    Ok(AtRest {
        fds: kinds(lab, pid)?,
        threads: lab.proc_status(pid, "Threads")?,
        rss: rss.trim_end_matches(" kB").parse()?,
        manager_fds: lab.proc_fds(lab.manager_pid())?.len(),
    })
}
