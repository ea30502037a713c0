//! Restarts after failures: nobody gives up, the pauses become longer, and what is healthy begins
//! anew.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::counter::{Binds, Counter, SOCKET, UNIT};
use super::web::DEADLINE;
use crate::lab::{Container, Outcome, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("failed_starts_keep_the_port", failed_starts_keep_the_port).system_only(),
    Scenario::new("pauses_begin_anew", pauses_begin_anew).system_only().since(254),
];

/// So many starts fail in a row, before the good program is back.
const FAILURES: u32 = 20;
const FAIL_WITHIN: Duration = Duration::from_secs(60);
/// As it is packaged, but for a test's patience. 252 and 253 know none of these lines.
const SHORT: &str = "RestartMaxDelaySec=300ms";
/// It lives and dies with the service, as systemd says.
const BOUND: &str =
    "[Unit]\nBindsTo=counter.service\nAfter=counter.service\n[Service]\nExecStart=/bin/sleep infinity\n";

fn failed_starts_keep_the_port(lab: &Container) -> Outcome {
    for binds in [Binds::Systemd, Binds::Service] {
        failed_starts(lab, binds).map_err(|e| format!("{binds:?}: {}", e.message().unwrap_or_default()))?;
    }
    Ok(())
}

fn failed_starts(lab: &Container, binds: Binds) -> Outcome {
    let counter = Counter::start(lab, binds, "", SHORT)?;
    let program = lab.dir().join("counter");
    let program = program.display();
    assert_eq!(counter.count()?.total, 1);
    counter.wait_stored(1 + usize::from(binds == Binds::Service))?;
    lab.write_unit("bound.service", BOUND)?;
    lab.systemctl_ok(&["start", "bound.service"])?;
    let bad = format!("printf '#!/bin/sh\\nexit 1\\n' > {program}.bad && chmod 755 {program}.bad");
    lab.sh_ok(&format!("{bad} && cp {program} {program}.good && mv {program}.bad {program}"))?;

    lab.signal(lab.main_pid(UNIT)?, "KILL")?;
    let mut waiting = Vec::new();
    let mut seen = 0;
    lab.wait_until(FAIL_WITHIN, "twenty failed starts", || {
        let failed: u32 = lab.show(UNIT, "NRestarts")?.parse()?;
        if failed != seen {
            // Nobody is refused, at any moment of it.
            waiting.push(Waiting::connect(&counter)?);
            seen = failed;
        }
        assert_ne!(lab.show(UNIT, "ActiveState")?, "failed", "systemd has given up after {failed}");
        Ok((failed >= FAILURES).then_some(()))
    })?;
    if binds == Binds::Systemd {
        assert_eq!(lab.show(SOCKET, "ActiveState")?, "active");
    }
    // RestartMode=direct, which systemd knows from 254 on, leaves it alone.
    let bound = lab.show("bound.service", "ActiveState")?;
    assert_eq!(bound, if lab.version() >= 254 { "active" } else { "inactive" });

    lab.sh_ok(&format!("mv {program}.good {program}"))?;
    for client in waiting {
        client.answered()?;
    }
    assert!(counter.count()?.total > u64::from(FAILURES) / 2, "the state was kept over it");
    lab.systemctl(&["stop", "bound.service", SOCKET, UNIT])?;
    if lab.version() >= 254 {
        lab.systemctl_ok(&["clean", "--what=fdstore", UNIT])?;
    }
    Ok(())
}

/// A client that has connected and sent its request while nobody accepts.
struct Waiting(TcpStream);

impl Waiting {
    fn connect(counter: &Counter<'_>) -> Outcome<Self> {
        let mut stream = counter.lab.in_netns(|| TcpStream::connect(counter.address))??;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"POST /count HTTP/1.1\r\nHost: lab\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")?;
        Ok(Self(stream))
    }

    fn answered(mut self) -> Outcome {
        let mut reply = String::new();
        self.0.read_to_string(&mut reply)?;
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        Ok(())
    }
}

/// systemd counts restarts for as long as the unit is active, and the pauses with them: only a
/// service that says so is healthy again, which it can from 258 on.
fn pauses_begin_anew(lab: &Container) -> Outcome {
    const HEALTHY_AFTER: Duration = Duration::from_secs(3);
    let lines = format!("Environment=HANDOVER_HEALTHY_AFTER={}s", HEALTHY_AFTER.as_secs());
    let counter = Counter::start(lab, Binds::Systemd, "", &lines)?;
    let restarts = || -> Outcome<u32> { Ok(lab.show(UNIT, "NRestarts")?.parse()?) };
    let next = || lab.show(UNIT, "RestartUSecNext");
    assert_eq!((restarts()?, next()?), (0, "100ms".to_owned()));
    for crashes in 1..=3 {
        let main = lab.main_pid(UNIT)?;
        lab.signal(main, "KILL")?;
        lab.wait_until(DEADLINE, "another main process", || {
            let up = lab.show(UNIT, "ActiveState")? == "active";
            Ok((up && lab.main_pid(UNIT).is_ok_and(|new| new != main)).then_some(()))
        })?;
        assert_eq!(restarts()?, crashes);
    }
    assert_ne!(next()?, "100ms", "the pause has grown");
    // A reload is no reason to be healthy: the next generation has a while of its own.
    let crashed = lab.main_pid(UNIT)?;
    lab.systemctl_ok(&["reload", UNIT])?;
    let main =
        lab.wait_until(DEADLINE, "another main process", || Ok(lab.main_pid(UNIT).ok().filter(|new| *new != crashed)))?;
    if lab.version() >= 258 {
        lab.wait_until(DEADLINE, "no restart is counted any more", || Ok((restarts()? == 0).then_some(())))?;
        assert_eq!(next()?, "100ms");
    } else {
        let age = format!("ps -o etimes= -p {main}");
        lab.wait_until(DEADLINE, "it has been main for long enough", || {
            Ok((lab.sh_ok(&age)?.trim().parse::<u64>()? > HEALTHY_AFTER.as_secs() + 1).then_some(()))
        })?;
        assert_eq!(restarts()?, 3, "an older systemd hears nothing of it");
    }
    assert_eq!((lab.main_pid(UNIT)?, lab.show(UNIT, "ActiveState")?), (main, "active".to_owned()));
    assert_eq!(counter.count()?.pid, main);
    Ok(())
}
