//! The fd store under a real one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::lab::{Container, Outcome, Scenario};
use crate::store_service::PORT;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("fdstore_put_restart_take", fdstore_put_restart_take).system_only(),
    Scenario::new("fdstore_is_preserved_over_stop", fdstore_is_preserved_over_stop).since(254),
    Scenario::new("fdstore_overflow_is_an_error", fdstore_overflow_is_an_error),
    Scenario::new("fdstore_limit_changes", fdstore_limit_changes),
    Scenario::new("fdstore_without_one", fdstore_without_one),
    Scenario::new("fdstore_polls", fdstore_polls),
    Scenario::new("fdstore_replace_survives_kill", fdstore_replace_survives_kill),
    Scenario::new("state_survives_kill", state_survives_kill),
];

const DEADLINE: Duration = Duration::from_secs(20);
const UNIT: &str = "store.service";
/// Kills in one run.
const KILLS: u64 = 40;
const SEED: u64 = 0x5EED;

struct Service<'a> {
    lab: &'a Container,
    port: u16,
}

impl<'a> Service<'a> {
    fn start(lab: &'a Container, settings: &str) -> Outcome<Self> {
        let port = lab.port(7801)?;
        let program = lab.install(&std::env::current_exe()?, "service")?;
        let service = Self { lab, port };
        service.write(&program, settings)?;
        lab.systemctl_ok(&["start", UNIT])?;
        Ok(service)
    }

    fn write(&self, program: &str, settings: &str) -> Outcome {
        let port = self.port;
        self.lab.write_unit(
            UNIT,
            &format!(
                "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nRestart=always\nRestartSec=10ms\n\
                 Environment={PORT}={port}\nExecStart={program}\n{settings}\n"
            ),
        )
    }

    fn rewrite(&self, settings: &str) -> Outcome {
        self.write(&self.lab.dir().join("service").display().to_string(), settings)?;
        self.lab.daemon_reload()
    }

    /// One line there, one line back. None: the service died meanwhile.
    fn try_ask(&self, command: &str) -> Outcome<Option<String>> {
        self.lab.in_netns(|| {
            let ask = || -> std::io::Result<String> {
                let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
                stream.set_read_timeout(Some(DEADLINE))?;
                writeln!(stream, "{command}")?;
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line)?;
                Ok(line.trim_end().to_owned())
            };
            ask().ok().filter(|line| !line.is_empty())
        })
    }

    fn ask(&self, command: &str) -> Outcome<String> {
        self.lab.wait_until(DEADLINE, &format!("an answer to {command:?}"), || self.try_ask(command))
    }

    fn stored(&self) -> Outcome<usize> {
        Ok(self.lab.show(UNIT, "NFileDescriptorStore")?.parse()?)
    }

    /// What was sent without a barrier is processed after a while.
    fn wait_stored(&self, count: usize) -> Outcome {
        let what = format!("{count} fds in the store");
        self.lab.wait_until(DEADLINE, &what, || Ok((self.stored()? == count).then_some(())))
    }

    fn kill(&self) -> Outcome {
        let old = self.lab.main_pid(UNIT)?;
        self.lab.signal(old, "KILL")?;
        self.lab.wait_until(DEADLINE, "another main process", || {
            Ok(self.lab.main_pid(UNIT).ok().filter(|new| *new != old).map(drop))
        })
    }

    fn logged(&self, text: &str) -> Outcome<bool> {
        Ok(self.lab.journal_json(UNIT)?.iter().any(|entry| entry.message().contains(text)))
    }
}

fn fdstore_put_restart_take(lab: &Container) -> Outcome {
    let service = Service::start(lab, "FileDescriptorStoreMax=300")?;
    assert_eq!(service.ask("list")?, "app.port=1");
    assert_eq!(service.ask("put app.db 3")?, "Stored");
    assert_eq!(service.ask("put app.many 280")?, "Stored");
    assert_eq!(service.ask("replace app.text one")?, "Stored");
    assert_eq!(service.ask("replace app.text two")?, "Stored");
    assert_eq!(service.ask("save 41")?, "Stored");
    assert_eq!(service.ask("max 42")?, "Stored");
    let all = "app.db=3 app.many=280 app.port=1 app.text=1 handover.state.counter=1";
    let check = |after: &str| -> Outcome {
        assert_eq!(service.ask("list")?, all, "after {after}");
        assert_eq!(service.ask("read app.text")?, "two", "after {after}");
        assert_eq!(service.ask("load")?, "42", "after {after}");
        service.wait_stored(286)
    };
    check("nothing")?;
    lab.systemctl_ok(&["restart", UNIT])?;
    check("restart")?;
    service.kill()?;
    check("kill")?;
    lab.daemon_reload()?;
    check("daemon-reload")?;
    lab.systemctl_ok(&["daemon-reexec"])?;
    check("daemon-reexec")?;
    service.kill()?;
    check("kill after daemon-reexec")?;
    assert_eq!(service.ask("take app.many")?, "280");
    assert_eq!(service.stored()?, 6);
    Ok(())
}

fn fdstore_is_preserved_over_stop(lab: &Container) -> Outcome {
    let service = Service::start(lab, "FileDescriptorStoreMax=8\nFileDescriptorStorePreserve=yes")?;
    // As an enabled unit has it. 257 forgets a stopped unit, and with it the store, that no other
    // unit refers to.
    lab.write_unit("keep.target", &format!("[Unit]\nWants={UNIT}\n"))?;
    lab.systemctl_ok(&["start", "keep.target"])?;
    service.ask("save 7")?;
    lab.systemctl_ok(&["stop", UNIT])?;
    assert_eq!(lab.show(UNIT, "SubState")?, "dead-resources-pinned");
    assert_eq!(service.stored()?, 2);
    lab.systemctl_ok(&["start", UNIT])?;
    assert_eq!(service.ask("load")?, "7");
    let listed = lab.sh_ok(&format!("systemd-analyze --no-pager fdstore {UNIT}"))?;
    assert!(listed.contains("handover.state.counter") && listed.contains("app.port"), "{listed}");
    Ok(())
}

fn fdstore_overflow_is_an_error(lab: &Container) -> Outcome {
    let service = Service::start(lab, "FileDescriptorStoreMax=4")?;
    assert_eq!(service.ask("put app.a 2")?, "Stored");
    // Often, as the answer to a probe may be slow where what is refused is closed in the
    // background.
    for round in 0..50 {
        let error = service.ask("put app.b 2")?;
        assert!(error.contains("room for 1 of 2 more fds"), "round {round}: {error}");
        assert!(error.contains("FileDescriptorStoreMax= to 5 or more"), "{error}");
    }
    service.wait_stored(3)?;
    assert_eq!(service.ask("put app.b 1")?, "Stored", "it fits exactly");
    assert_eq!(service.stored()?, 4);
    for _ in 0..50 {
        let error = service.ask("replace app.b new")?;
        assert!(error.contains("FileDescriptorStoreMax= to 5 or more"), "{error}");
    }
    service.wait_stored(4)?;
    service.kill()?;
    assert_eq!(service.ask("list")?, "app.a=2 app.b=1 app.port=1");
    assert!(service.logged("the fd store is full: nothing in it can be replaced")?);
    Ok(())
}

fn fdstore_limit_changes(lab: &Container) -> Outcome {
    let service = Service::start(lab, "FileDescriptorStoreMax=3")?;
    assert_eq!(service.ask("put app.a 2")?, "Stored");
    assert!(service.ask("put app.b 2")?.contains("FileDescriptorStoreMax= to 5 or more"));
    // The process still has the old number.
    service.rewrite("FileDescriptorStoreMax=8")?;
    assert_eq!(service.ask("put app.b 2")?, "Stored");
    service.wait_stored(5)?;
    service.rewrite("FileDescriptorStoreMax=4")?;
    let left = service.stored()?;
    println!("systemd {}: of 5 stored fds {left} are left with FileDescriptorStoreMax=4", lab.version());
    service.rewrite("FileDescriptorStoreMax=8")?;
    assert!(service.ask("sync")?.contains("entries: 5"));
    service.wait_stored(5)
}

fn fdstore_without_one(lab: &Container) -> Outcome {
    let service = Service::start(lab, "FileDescriptorStoreMax=0")?;
    for _ in 0..3 {
        assert_eq!(service.ask("save 1")?, "HeldOnly");
    }
    assert_eq!(service.ask("load")?, "1");
    let journal = lab.journal_json(UNIT)?;
    let said = journal.iter().filter(|e| e.message().contains("the service has no fd store")).count();
    assert_eq!(said, 1);
    service.kill()?;
    assert_eq!(service.ask("load")?, "none");
    Ok(())
}

fn fdstore_polls(lab: &Container) -> Outcome {
    let service = Service::start(lab, "FileDescriptorStoreMax=8")?;
    assert_eq!(service.ask("hangup app.gone")?, "Stored");
    assert_eq!(service.ask("unpolled app.kept")?, "Stored");
    service.wait_stored(2)?;
    service.kill()?;
    // It was not named as unpolled, so it is of no use.
    assert_eq!(service.ask("list")?, "app.port=1");
    assert!(service.logged("its other end is gone")?);
    service.wait_stored(1)
}

fn fdstore_replace_survives_kill(lab: &Container) -> Outcome {
    survives_kill(lab, |service, next| service.try_ask(&format!("replace app.text {next}")), "read app.text")
}

/// As an application changes its state: in place.
fn state_survives_kill(lab: &Container) -> Outcome {
    survives_kill(lab, |service, next| service.try_ask(&format!("max {next}")), "load")
}

/// Changes without a pause, and kills at random moments: what was acknowledged is there, and
/// nothing older.
fn survives_kill(
    lab: &Container,
    change: impl Fn(&Service<'_>, u64) -> Outcome<Option<String>>,
    look: &str,
) -> Outcome {
    println!("seed {SEED:#x}");
    let service = Service::start(lab, "FileDescriptorStoreMax=4")?;
    let mut random = SEED;
    let (mut next, mut acknowledged, mut lost_answers) = (1_u64, 0_u64, 0);
    for kill in 0..KILLS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let after = Duration::from_micros((random >> 33) % 60_000);
        let old = lab.main_pid(UNIT)?;
        let began = Instant::now();
        std::thread::scope(|scope| -> Outcome {
            let killer = scope.spawn(|| {
                std::thread::sleep(after);
                lab.signal(old, "KILL")
            });
            while !killer.is_finished() || began.elapsed() < after {
                match change(&service, next)? {
                    Some(answer) => {
                        assert_eq!(answer, "Stored");
                        acknowledged = next;
                    }
                    None => lost_answers += 1,
                }
                next += 1;
            }
            killer.join().expect("no panic")
        })?;
        lab.wait_until(DEADLINE, "another main process", || {
            Ok(lab.main_pid(UNIT).ok().filter(|new| *new != old).map(drop))
        })?;
        let loaded = service.ask(look)?;
        let there: u64 = loaded.parse().unwrap_or_default();
        assert!((acknowledged..next).contains(&there), "kill {kill}: {acknowledged} acknowledged, {loaded} there");
        acknowledged = there;
    }
    println!("{KILLS} kills, {} changes, {lost_answers} without an answer", next - 1);
    service.ask("sync")?;
    service.wait_stored(2)
}
