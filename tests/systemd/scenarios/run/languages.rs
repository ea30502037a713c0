//! Real programs in real languages, each reloaded 20 times under load, and start_server beside
//! handover on the same one.
//!
//! What a program loses by itself is reported: a connection that it has accepted and closes is in
//! nobody else's hand. A connection refused, reset or unanswered because no version served is what
//! must not be.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::served::{DEADLINE, Instance};
use crate::lab::{Container, Outcome, Scenario};
use crate::load::{self, Clients, Kind, Stats};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("run_languages", run_languages).with_apps(),
    Scenario::new("run_and_start_server", run_and_start_server).with_apps(),
];

const RELOADS: usize = 20;
const CLIENTS: &Clients = &[(Kind::Fresh, 3), (Kind::KeepAlive, 2)];

/// What is in a chroot must find the socket for its notifications there.
const REACHES: &str = "BindPaths=/run:/apps/run\n";

/// A program, and what of it is known.
struct Program {
    name: &'static str,
    arguments: &'static str,
    /// It never loses a request on a connection of its own: a client that makes one for each
    /// request sees nothing.
    clean: bool,
}

const PROGRAMS: &[Program] = &[
    Program { name: "go", arguments: "-- chroot /apps /usr/local/bin/web-go", clean: true },
    Program { name: "python", arguments: "-- chroot /apps python3 /lab/web.py", clean: true },
    Program { name: "node", arguments: "--ready accept -- chroot /apps node /lab/web.js", clean: true },
    Program {
        name: "gunicorn",
        arguments: "--ready http:/pid -- chroot /apps gunicorn --chdir /lab --workers 2 --worker-tmp-dir /lab app:wsgi",
        clean: true,
    },
    Program {
        name: "uvicorn",
        arguments: "--ready http:/pid -- chroot /apps uvicorn --app-dir /lab --fd {fd} --log-level warning app:asgi",
        clean: false,
    },
    Program {
        name: "nginx",
        arguments: "--pass nginx --ready http:/pid --stop-signal QUIT -- chroot /apps nginx -c /lab/web.nginx",
        clean: false,
    },
];

fn install(lab: &Container) -> Outcome {
    for (name, text) in [
        ("web.py", include_str!("../../../lab/apps/web.py")),
        ("web.js", include_str!("../../../lab/apps/web.js")),
        ("app.py", include_str!("../../../lab/apps/app.py")),
        ("web.nginx", include_str!("../../../lab/apps/web.nginx")),
    ] {
        lab.write_file(&format!("{}/{name}", lab.dir().display()), text)?;
    }
    Ok(())
}

fn run_languages(lab: &Container) -> Outcome {
    install(lab)?;
    let started: Vec<(Instance<'_>, &Program)> = (8101..)
        .zip(PROGRAMS)
        .map(|(port, program)| {
            // nginx takes a socket by its address.
            let port = if program.name == "nginx" { 8100 } else { port };
            Ok((Instance::start(lab, program.name, port, program.arguments, REACHES)?, program))
        })
        .collect::<Outcome<_>>()?;
    let results: Vec<Outcome<String>> = thread::scope(|scope| {
        let threads: Vec<_> =
            started.iter().map(|(served, program)| scope.spawn(|| reloaded(served, program))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut failed = Vec::new();
    for ((_, program), result) in started.iter().zip(results) {
        match result {
            Ok(line) => println!("systemd {}: {line}", lab.version()),
            Err(error) => failed.push(format!("{}: {}", program.name, error.message().unwrap_or_default())),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
}

fn reloaded(served: &Instance<'_>, program: &Program) -> Outcome<String> {
    let main = served.lab.main_pid(&served.unit)?;
    let began = Instant::now();
    let (_, stats) = load::under(served.lab, served.address, CLIENTS, |_| {
        for _ in 0..RELOADS {
            served.lab.systemctl_ok(&["reload", &served.unit])?;
        }
        Ok(())
    })?;
    assert_eq!(served.status()?["generation"], RELOADS + 1);
    let took = began.elapsed();
    assert_eq!(served.lab.main_pid(&served.unit)?, main, "the main pid stays");
    let summary = stats.summary();
    let (fresh, kept) = (lost(&stats, Kind::Fresh), lost(&stats, Kind::KeepAlive));
    let line = format!(
        "{:9} {RELOADS} reloads in {:.1} s: lost {fresh} of {} on a connection each, {kept} of {} on kept ones {:?}",
        program.name,
        took.as_secs_f32(),
        summary.counts.get(&Kind::Fresh).map_or(0, |c| c.answered),
        summary.counts.get(&Kind::KeepAlive).map_or(0, |c| c.answered),
        summary.lost,
    );
    // The supervisor's part: there is always somebody to connect to.
    let saved = !summary.lost.keys().any(|(_, cause)| {
        matches!(cause, load::Cause::Refused | load::Cause::Connect | load::Cause::Timeout | load::Cause::Status)
    });
    if !saved || (program.clean && fresh > 0) {
        return Err(line.into());
    }
    Ok(line)
}

fn lost(stats: &Stats, of: Kind) -> u64 {
    stats.summary().lost.iter().filter(|((kind, _), _)| *kind == of).map(|(_, (count, _))| *count).sum()
}

/// A new version that hangs: start_server takes it for good after its interval and ends the old
/// one; handover does not.
fn run_and_start_server(lab: &Container) -> Outcome {
    install(lab)?;
    let python = "chroot /apps env HANG=/lab/hang python3 /lab/web.py";
    let handover = Instance::start(lab, "python", 8101, &format!("--ready-timeout 3s -- {python}"), REACHES)?;
    lab.write_unit(
        "starter.service",
        "[Service]\nExecStart=/usr/sbin/chroot /apps start_server --port 127.0.0.1:8102 --interval 1 \
             --signal-on-hup TERM -- env HANG=/lab/hang python3 /lab/web.py\nExecReload=/bin/kill -HUP $MAINPID\n",
    )?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", "starter.service"])?;
    let starter = SocketAddr::from(([127, 0, 0, 1], 8102));
    let fresh: &Clients = &[(Kind::Fresh, 2)];

    let good = |what: &str, address, reload: &dyn Fn() -> Outcome| -> Outcome<String> {
        let ((), stats) = load::under(lab, address, fresh, |_| (0..3).try_for_each(|_| reload()))?;
        Ok(format!("{what}: 3 good reloads: lost {} of {}", lost(&stats, Kind::Fresh), stats.summary().total.answered))
    };
    let by_handover = good("handover run", handover.address, &|| handover.reload().map(drop))?;
    let by_starter = good("start_server", starter, &|| restarted(lab, starter))?;
    println!("systemd {}: {by_handover}; {by_starter}", lab.version());

    lab.write_file(&format!("{}/hang", lab.dir().display()), "")?;
    let ((), stats) = load::under(lab, handover.address, fresh, |_| {
        assert!(!lab.systemctl(&["reload", &handover.unit])?.success(), "a version that hangs");
        Ok(())
    })?;
    load::lost_nothing(&stats)?;
    assert!(answers(lab, starter)?, "start_server serves");
    lab.systemctl_ok(&["reload", "starter.service"])?;
    // Its interval, and then it has told the only version that works to go.
    let silent =
        lab.wait_until(DEADLINE, "start_server serves no more", || Ok((!answers(lab, starter)?).then_some(())));
    println!(
        "systemd {}: a version that hangs: handover run lost 0 of {} and says why; start_server, which took it for good, serves \
         no more: {}",
        lab.version(),
        stats.summary().total.answered,
        silent.is_ok(),
    );
    silent
}

/// Another process answers.
fn restarted(lab: &Container, address: SocketAddr) -> Outcome {
    let pid = || lab.in_netns(|| body(address));
    let old = pid()?.ok_or("no answer")?;
    lab.systemctl_ok(&["reload", "starter.service"])?;
    lab.wait_until(DEADLINE, "another process, alone", || {
        let alone = lab.pids("starter.service")?.len() == 2;
        Ok(pid()?.filter(|new| alone && *new != old).map(drop))
    })
}

fn answers(lab: &Container, address: SocketAddr) -> Outcome<bool> {
    Ok(lab.in_netns(|| body(address))?.is_some())
}

fn body(address: SocketAddr) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET /pid HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.trim().to_owned())
}
