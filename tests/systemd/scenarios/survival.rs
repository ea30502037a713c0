//! The table of what survives which event (src/docs/survival.md): each cell.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::counter::{Binds, Counter, Lost, Memory, SOCKET, Session, UNIT};
use super::web::DEADLINE;
use crate::lab::{Container, Outcome, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("survives_reload", |lab| each(lab, "", reload)).system_only(),
    Scenario::new("survives_crash", |lab| each(lab, "", crash)).system_only(),
    Scenario::new("survives_restart", |lab| each(lab, "", restart)).system_only(),
    Scenario::new("survives_stop_and_start", |lab| each(lab, "", stop_and_start)).system_only().since(254),
    Scenario::new("stop_and_start_not_preserved", |lab| each(lab, NOT_PRESERVED, not_preserved)).system_only(),
    Scenario::new("survives_daemon_reload", |lab| each(lab, "", daemon_reload)).system_only(),
    Scenario::new("survives_daemon_reexec", |lab| each(lab, "", daemon_reexec)).system_only(),
    Scenario::new("survives_failure", |lab| each(lab, "Restart=no", failure)).system_only().since(254),
    Scenario::new("failure_not_preserved", |lab| each(lab, NO_RESTART, failure_not_preserved)).system_only(),
    Scenario::new("start_limit_closes_the_socket", start_limit_closes_the_socket).system_only(),
    Scenario::new("reboot_keeps_nothing", reboot_keeps_nothing).system_only(),
];

const NOT_PRESERVED: &str = "FileDescriptorStorePreserve=no";
const NO_RESTART: &str = "FileDescriptorStorePreserve=no\nRestart=no";
/// What is counted before the event.
const COUNTED: u64 = 3;

/// With a .socket unit, and with a port that the service bound.
fn each(lab: &Container, service: &str, event: fn(&Case<'_>) -> Outcome) -> Outcome {
    for binds in [Binds::Systemd, Binds::Service] {
        let counter = Counter::start(lab, binds, "", service)?;
        // systemd 257 forgets a stopped unit that nothing refers to, and its store with it.
        lab.write_unit("holds.target", &format!("[Unit]\nWants={UNIT}\n"))?;
        lab.systemctl_ok(&["start", "holds.target"])?;
        for total in 1..=COUNTED {
            assert_eq!(counter.count()?.total, total);
        }
        counter.wait_stored(1 + usize::from(binds == Binds::Service))?;
        event(&Case { counter, binds })?;
        lab.systemctl(&["stop", SOCKET, UNIT])?;
        lab.systemctl(&["reset-failed", SOCKET, UNIT])?;
        if lab.version() >= 254 {
            lab.systemctl_ok(&["clean", "--what=fdstore", UNIT])?;
        }
    }
    Ok(())
}

struct Case<'a> {
    counter: Counter<'a>,
    binds: Binds,
}

/// A connection that is open, and was answered on.
struct Established(TcpStream);

impl Established {
    /// Whether another request on it is answered.
    fn answers(&mut self) -> bool {
        let mut byte = [0; 1024];
        let asked = self.0.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n").and_then(|()| self.0.read(&mut byte));
        asked.is_ok_and(|read| byte[..read].starts_with(b"HTTP/1.1 200 "))
    }
}

/// A client that has connected and sent its request while nobody accepts.
struct Queued(TcpStream);

impl Queued {
    fn answer(mut self) -> Outcome<String> {
        let mut reply = String::new();
        self.0.read_to_string(&mut reply)?;
        Ok(reply.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or(reply))
    }
}

impl Case<'_> {
    fn connect(&self) -> Outcome<TcpStream> {
        let stream = self.counter.lab.in_netns(|| TcpStream::connect(self.counter.address))??;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(stream)
    }

    fn established(&self) -> Outcome<Established> {
        let mut established = Established(self.connect()?);
        assert!(established.answers());
        Ok(established)
    }

    fn queued(&self) -> Outcome<Queued> {
        let mut stream = self.connect()?;
        stream.write_all(b"POST /count HTTP/1.1\r\nHost: lab\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
        Ok(Queued(stream))
    }

    fn refused(&self) -> Outcome<bool> {
        let counted = self.counter.lab.in_netns(|| Session::default().count(self.counter.address))?;
        Ok(matches!(counted, Err(Lost::Refused)))
    }

    /// At once as far as we are concerned, but systemd closes what was in the fd store by a process
    /// of its own, which comes when it comes.
    fn until_refused(&self) -> Outcome {
        self.counter.lab.wait_until(DEADLINE, "clients are refused", || Ok(self.refused()?.then_some(())))
    }

    fn main(&self) -> Outcome<u32> {
        self.counter.lab.main_pid(UNIT)
    }

    /// What is connected now is in the queue: nobody accepts.
    fn halt(&self) -> Outcome<u32> {
        let main = self.main()?;
        self.counter.lab.signal(main, "STOP")?;
        self.counter.lab.wait_until(DEADLINE, "it is stopped", || {
            Ok(self.counter.lab.proc_status(main, "State")?.starts_with('T').then_some(()))
        })?;
        Ok(main)
    }

    fn wait_for_state(&self, state: &str) -> Outcome {
        self.counter
            .lab
            .wait_until(DEADLINE, state, || Ok((self.counter.lab.show(UNIT, "ActiveState")? == state).then_some(())))
    }

    fn counts_on(&self) -> Outcome {
        let total = self.counter.count()?.total;
        if total > COUNTED { Ok(()) } else { Err(format!("{total} after {COUNTED}: the state is lost").into()) }
    }

    fn begins_anew(&self) -> Outcome {
        let total = self.counter.count()?.total;
        if total == 1 { Ok(()) } else { Err(format!("{total}: the state was kept, against the table").into()) }
    }

    /// Clients that connect anew meanwhile are all answered.
    fn nobody_notices(&self, event: impl FnOnce() -> Outcome) -> Outcome {
        let memory = Memory::default();
        self.counter.under_clients(4, &memory, event)?;
        let seen = memory.look();
        assert!(seen.lost.is_empty() && seen.wrong.is_empty() && seen.answered > 0, "{seen:?}");
        Ok(())
    }
}

fn reload(case: &Case<'_>) -> Outcome {
    let (lab, main) = (case.counter.lab, case.main()?);
    let mut established = case.established()?;
    case.nobody_notices(|| {
        lab.systemctl_ok(&["reload", UNIT])?;
        lab.wait_until(DEADLINE, "another main process", || Ok((case.main()? != main).then_some(())))
    })?;
    assert!(established.answers(), "the old generation lingers for it");
    case.counts_on()
}

fn crash(case: &Case<'_>) -> Outcome {
    let mut established = case.established()?;
    let main = case.halt()?;
    let queued = case.queued()?;
    case.counter.lab.signal(main, "KILL")?;
    let answer = queued.answer()?;
    assert!(answer.contains(&format!("\"total\":{}", COUNTED + 1)), "{answer}");
    assert!(!established.answers());
    case.counts_on()
}

fn restart(case: &Case<'_>) -> Outcome {
    let mut established = case.established()?;
    case.nobody_notices(|| case.counter.lab.systemctl_ok(&["restart", UNIT]).map(drop))?;
    assert!(!established.answers(), "it was closed at the end of the drain");
    case.counts_on()
}

fn stop_and_start(case: &Case<'_>) -> Outcome {
    let mut established = case.established()?;
    case.counter.lab.systemctl_ok(&["stop", UNIT])?;
    assert!(!established.answers());
    // The .socket unit starts the service for it. The service's own port is listening, in the
    // store, with nobody to accept.
    let queued = case.queued()?;
    if case.binds == Binds::Service {
        assert_eq!(case.counter.lab.show(UNIT, "ActiveState")?, "inactive");
        case.counter.lab.systemctl_ok(&["start", UNIT])?;
    }
    let answer = queued.answer()?;
    assert!(answer.contains(&format!("\"total\":{}", COUNTED + 1)), "{answer}");
    case.counts_on()
}

fn not_preserved(case: &Case<'_>) -> Outcome {
    let mut established = case.established()?;
    case.counter.lab.systemctl_ok(&["stop", UNIT])?;
    assert!(!established.answers());
    // Else the .socket unit starts it for the next client.
    if case.binds == Binds::Service {
        case.until_refused()?;
        case.counter.lab.systemctl_ok(&["start", UNIT])?;
    }
    case.begins_anew()
}

fn undisturbed(case: &Case<'_>, command: &str) -> Outcome {
    let mut established = case.established()?;
    let main = case.halt()?;
    let queued = case.queued()?;
    case.counter.lab.systemctl_ok(&[command])?;
    case.counter.lab.signal(main, "CONT")?;
    let answer = queued.answer()?;
    assert!(answer.contains(&format!("\"total\":{}", COUNTED + 1)), "{answer}");
    assert!(established.answers());
    assert_eq!(case.main()?, main);
    case.counts_on()?;
    // What systemd has kept over it is still right: a crash afterwards costs nothing either.
    case.counter.lab.signal(main, "KILL")?;
    case.counter
        .lab
        .wait_until(DEADLINE, "another main process", || Ok(case.main().ok().filter(|new| *new != main).map(drop)))?;
    case.counts_on()
}

fn daemon_reload(case: &Case<'_>) -> Outcome {
    undisturbed(case, "daemon-reload")
}

fn daemon_reexec(case: &Case<'_>) -> Outcome {
    undisturbed(case, "daemon-reexec")
}

/// The process is killed and the unit is not restarted; whoever was in the queue has waited for the
/// next start.
fn failure(case: &Case<'_>) -> Outcome {
    let mut established = case.established()?;
    let main = case.halt()?;
    let queued = case.queued()?;
    case.counter.lab.signal(main, "KILL")?;
    if case.binds == Binds::Service {
        case.wait_for_state("failed")?;
        case.counter.lab.systemctl_ok(&["start", UNIT])?;
    }
    let answer = queued.answer()?;
    assert!(answer.contains(&format!("\"total\":{}", COUNTED + 1)), "{answer}");
    assert!(!established.answers());
    case.counts_on()
}

fn failure_not_preserved(case: &Case<'_>) -> Outcome {
    let mut established = case.established()?;
    let main = case.halt()?;
    let queued = case.queued()?;
    case.counter.lab.signal(main, "KILL")?;
    match case.binds {
        Binds::Systemd => {
            assert!(queued.answer()?.contains("\"total\":1,"), "the .socket unit starts it for the queue")
        }
        Binds::Service => {
            case.wait_for_state("failed")?;
            case.until_refused()?;
            assert!(queued.answer().is_err(), "its queue was closed with the port");
            case.counter.lab.systemctl_ok(&["start", UNIT])?;
            case.begins_anew()?;
        }
    }
    assert!(!established.answers());
    Ok(())
}

fn start_limit_closes_the_socket(lab: &Container) -> Outcome {
    let limit = "StartLimitIntervalSec=1min\nStartLimitBurst=2";
    let counter = Counter::start(lab, Binds::Systemd, limit, NOT_PRESERVED)?;
    let case = Case { counter, binds: Binds::Systemd };
    assert_eq!(counter.count()?.total, 1);
    for _ in 0..2 {
        let main = case.main()?;
        lab.signal(main, "KILL")?;
        lab.wait_until(DEADLINE, "another main process, or failure", || {
            let failed = lab.show(UNIT, "ActiveState")? == "failed";
            Ok((failed || case.main().is_ok_and(|new| new != main)).then_some(()))
        })?;
    }
    case.wait_for_state("failed")?;
    // The .socket unit may start it for a client until it fails itself.
    case.until_refused()?;
    assert_eq!(lab.show(SOCKET, "ActiveState")?, "failed");
    lab.systemctl_ok(&["reset-failed", SOCKET, UNIT])?;
    lab.systemctl_ok(&["start", SOCKET])?;
    case.begins_anew()
}

/// State is memory, and no file anywhere.
fn reboot_keeps_nothing(lab: &Container) -> Outcome {
    let counter = Counter::start(lab, Binds::Systemd, "", "")?;
    assert_eq!(counter.count()?.total, 1);
    counter.wait_stored(1)?;
    let booted = lab.boot_again()?;
    let counter = Counter::start(&booted, Binds::Systemd, "", "")?;
    assert_eq!(counter.count()?.total, 1);
    Ok(())
}
