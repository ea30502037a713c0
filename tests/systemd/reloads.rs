//! Clients that nobody here wrote, while a service is reloaded twice a second.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Container, Outcome, example};

/// Everything that is waited for comes sooner than this, also on a slow machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// From one reload to the next.
const PACE: Duration = Duration::from_millis(500);

/// How long the load lasts, unless `HANDOVER_SOAK` says otherwise.
pub(crate) fn duration() -> Duration {
    let seconds = std::env::var("HANDOVER_SOAK").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// One client: what it speaks, and one conversation; the number is that of the conversation, for
/// those that want to know.
pub(crate) type Client<'a> = (&'a str, &'a (dyn Fn(usize) -> Outcome + Sync));

/// A service of one example, with the .socket units that it has.
#[derive(Debug)]
pub(crate) struct Served<'a> {
    pub(crate) lab: &'a Container,
    pub(crate) unit: String,
}

impl<'a> Served<'a> {
    /// `sockets`: for each name the `[Socket]` lines. `lines`: more for `[Service]`.
    pub(crate) fn start(
        lab: &'a Container,
        program: &'static str,
        sockets: &[(&str, String)],
        lines: &str,
    ) -> Outcome<Self> {
        let path = lab.install(&example(program)?, program)?;
        Self::start_installed(lab, program, &path, sockets, lines)
    }

    pub(crate) fn start_installed(
        lab: &'a Container,
        name: &str,
        path: &str,
        sockets: &[(&str, String)],
        lines: &str,
    ) -> Outcome<Self> {
        let unit = format!("{name}.service");
        let mut units = Vec::new();
        for (socket, lines) in sockets {
            let socket_unit = format!("{socket}.socket");
            lab.write_unit(&socket_unit, &format!("[Socket]\nFileDescriptorName={socket}\nService={unit}\n{lines}\n"))?;
            units.push(socket_unit);
        }
        let needs: String = units.iter().map(|u| format!("Requires={u}\nAfter={u}\n")).collect();
        let sockets: String = units.iter().map(|u| format!("Sockets={u}\n")).collect();
        lab.write_unit(
            &unit,
            &format!(
                "[Unit]\n{needs}[Service]\nType=notify\nNotifyAccess=main\nExecReload=/bin/kill -HUP $MAINPID\n\
                 TimeoutStopSec=30\nRestart=on-failure\nRestartSec=50ms\n{sockets}ExecStart={path}\n{lines}\n"
            ),
        )?;
        lab.daemon_reload()?;
        let mut start = vec!["start"];
        start.extend(units.iter().map(String::as_str));
        start.push(&unit);
        lab.systemctl_ok(&start)?;
        Ok(Self { lab, unit })
    }

    /// Asks for a reload that must succeed; the new main process.
    pub(crate) fn reload(&self) -> Outcome<u32> {
        let old = self.lab.main_pid(&self.unit)?;
        self.lab.systemctl_ok(&["reload", &self.unit])?;
        self.lab.wait_until(DEADLINE, "another main process", || {
            Ok(self.lab.main_pid(&self.unit).ok().filter(|new| *new != old))
        })
    }

    pub(crate) fn logged(&self, text: &str) -> Outcome<bool> {
        Ok(self.lab.journal_json(&self.unit)?.iter().any(|e| e.message().contains(text)))
    }

    /// No connection was cut, no reload failed, and only the main process is left in the end.
    pub(crate) fn check(&self) -> Outcome {
        let main = self.lab.main_pid(&self.unit)?;
        self.lab.wait_until(DEADLINE, "only the main process in the unit", || {
            Ok((self.lab.pids(&self.unit)? == [main]).then_some(()))
        })?;
        for word in ["cut ", "reload failed", "panicked", "cannot receive", "cannot accept"] {
            assert!(!self.logged(word)?, "{word:?} is in the journal");
        }
        Ok(())
    }
}

/// Reloads each of the services twice a second while each of the clients has one conversation after
/// the other, and says how many. A conversation that fails fails it all: so none is lost when this
/// returns.
pub(crate) fn under_reloads(services: &[&Served<'_>], clients: &[Client<'_>]) -> Outcome {
    let over = AtomicBool::new(false);
    let counts: Vec<_> = clients.iter().map(|_| AtomicUsize::new(0)).collect();
    let counted = || {
        let each = clients.iter().zip(&counts).map(|((what, _), n)| format!("{} {what}", n.load(Ordering::Relaxed)));
        each.collect::<Vec<_>>().join(", ")
    };
    let lab = services.first().ok_or("no service")?.lab;
    let talk = |client: &(dyn Fn(usize) -> Outcome + Sync), count: &AtomicUsize| -> Outcome {
        while !over.load(Ordering::Relaxed) {
            client(count.load(Ordering::Relaxed))?;
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let talk = &talk;
    thread::scope(|scope| {
        // Also when something below panics: the scope waits for the clients.
        let end = OnDrop(&over);
        let threads: Vec<_> =
            clients.iter().zip(&counts).map(|((_, client), count)| scope.spawn(move || talk(client, count))).collect();
        let failed = || threads.iter().any(|t| t.is_finished());
        let all_talk = || counts.iter().all(|n| n.load(Ordering::Relaxed) > 0);
        let reloaded = lab
            .wait_until(DEADLINE, "a first conversation of each client", || Ok((failed() || all_talk()).then_some(())))
            .and_then(|()| reload_all(services, &failed));
        drop(end);
        let ended = threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let errors: Vec<_> = ended.filter_map(|e| Some(e.err()?.message().unwrap_or_default().to_owned())).collect();
        let (reloads, took) = reloaded?;
        if !errors.is_empty() {
            return Err(format!("{}\nafter {reloads} reloads and {}", errors.join("\n"), counted()).into());
        }
        let names: Vec<_> = services.iter().map(|s| s.unit.as_str()).collect();
        println!(
            "systemd {}: {reloads} reloads of {} in {:.1} s: lost 0 of {}",
            lab.version(),
            names.join(" and of "),
            took.as_secs_f64(),
            counted()
        );
        Ok(())
    })
}

/// Each service at its own pace: how many reloads the slowest had, and the time.
fn reload_all(services: &[&Served<'_>], failed: &(dyn Fn() -> bool + Sync)) -> Outcome<(usize, Duration)> {
    let began = Instant::now();
    let reload = |service: &Served<'_>| -> Outcome<usize> {
        let mut reloads = 0;
        while began.elapsed() < duration() && !failed() {
            let started = Instant::now();
            service.reload()?;
            reloads += 1;
            thread::sleep(PACE.saturating_sub(started.elapsed()));
        }
        Ok(reloads)
    };
    let reload = &reload;
    let reloads = thread::scope(|scope| {
        let threads: Vec<_> = services.iter().map(|service| scope.spawn(move || reload(service))).collect();
        let ended = threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ended.collect::<Outcome<Vec<_>>>()
    })?;
    Ok((reloads.into_iter().min().unwrap_or_default(), began.elapsed()))
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A client of this machine in the container's network; it is killed when it takes too long.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    // The system's own first: the wrapper of a version manager takes longer than the client.
    let path = format!("/usr/bin:/bin:{}", std::env::var("PATH").unwrap_or_default());
    command.arg(DEADLINE.as_secs().to_string()).args(args).envs([("LANG", "C.UTF-8"), ("PATH", &path)]);
    command.stderr(Stdio::piped());
    command
}

/// Runs a client to its end: what it wrote. Anything but success is a failure.
pub(crate) fn client(lab: &Container, args: &[&str], input: &str) -> Outcome<String> {
    let output = lab.in_netns(|| -> std::io::Result<_> {
        let mut child = command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A client that does not read all of it says so by its status.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    })??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{args:?}: {}: {said}{text}", output.status).into())
}

/// A client that is talked to.
#[derive(Debug)]
pub(crate) struct Talk {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Talk {
    pub(crate) fn start(lab: &Container, args: &[&str]) -> Outcome<Self> {
        let mut child = lab.in_netns(|| command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn())??;
        let (input, output) = (child.stdin.take(), child.stdout.take().ok_or("no stdout")?);
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    /// One line there, and the next that comes.
    pub(crate) fn ask(&mut self, line: &str) -> Outcome<String> {
        writeln!(self.input.as_mut().ok_or("closed")?, "{line}")?;
        self.line()
    }

    pub(crate) fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.ends_with('\n') { Ok(line.trim_end().to_owned()) } else { Err(format!("ended after {line:?}").into()) }
    }

    /// Says nothing more: everything that still comes.
    pub(crate) fn end(mut self) -> Outcome<String> {
        drop(self.input.take());
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut rest)?;
        let status = self.child.wait()?;
        if status.success() { Ok(rest) } else { Err(format!("{status} after {rest:?}").into()) }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // Of one that has ended both fail.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
