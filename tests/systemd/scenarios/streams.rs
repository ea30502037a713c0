//! Connections that are not HTTP: TCP, Unix streams, sequential packets, and who owns a path.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::lab::{Container, Outcome, Scenario};
use crate::reloads::{DEADLINE, Served, Talk, client, under_reloads};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("streams_under_reloads", streams_under_reloads),
    Scenario::new("streams_go_along", streams_go_along),
    Scenario::new("streams_say_goodbye", streams_say_goodbye),
    Scenario::new("streams_hammered", streams_hammered),
    Scenario::new("unix_path_is_owned", unix_path_is_owned),
    Scenario::new("unix_path_of_a_socket_unit", unix_path_of_a_socket_unit),
    Scenario::new("accept_yes", accept_yes),
];

const UNIT: &str = "echo.service";
/// Between two lines of a client, or two halves of one.
const PAUSE: Duration = Duration::from_millis(40);

/// With a socket of each kind, as a client of this machine says it: the first two are socat's.
struct Addresses {
    tcp: String,
    stream: String,
    packets: String,
    udp: String,
    datagrams: String,
}

fn start<'a>(lab: &'a Container, lines: &str) -> Outcome<(Served<'a>, Addresses)> {
    let (port, dir) = (lab.port(7007)?, lab.dir().display().to_string());
    let stream = format!("ListenStream=127.0.0.1:{port}\nListenStream={dir}/echo.sock");
    let packets = format!("ListenSequentialPacket={dir}/packets.sock");
    let datagrams = format!("ListenDatagram=127.0.0.1:{port}\nListenDatagram={dir}/datagrams.sock");
    let sockets = [("echo", stream), ("echo-packets", packets), ("echo-datagrams", datagrams)];
    let here = lab.host_dir().display().to_string();
    let addresses = Addresses {
        tcp: format!("TCP:127.0.0.1:{port}"),
        stream: format!("UNIX-CONNECT:{here}/echo.sock"),
        packets: format!("{here}/packets.sock"),
        udp: format!("127.0.0.1:{port}"),
        datagrams: format!("{here}/datagrams.sock"),
    };
    Ok((Served::start(lab, "echo", &sockets, lines)?, addresses))
}

/// Everything that the echo speaks, at once. socat: fresh connections are never refused, and
/// conversations go on from generation to generation. Python: each packet and each datagram
/// has its answer, and no second one.
fn streams_under_reloads(lab: &Container) -> Outcome {
    let (service, addresses) = start(lab, "")?;
    let moved = AtomicUsize::new(0);
    let fresh = |address: &str, number: usize| -> Outcome {
        let input: String = (0..20).map(|line| format!("{number} {line}\n")).collect();
        let output = client(lab, &["socat", "-t", "20", "-", address], &input)?;
        if output == input { Ok(()) } else { Err(format!("{address}: sent {input:?}, got {output:?}").into()) }
    };
    let long = |address: &str, number: usize| -> Outcome {
        let socat = |_| Talk::start(lab, &["socat", "-t", "20", "-", address]);
        let mut talks: Vec<_> = (0..8).map(socat).collect::<Outcome<_>>()?;
        let generations: Vec<_> = talks.iter_mut().map(|talk| talk.ask("who")).collect::<Outcome<_>>()?;
        for line in 0..10 {
            thread::sleep(Duration::from_millis(150));
            for talk in &mut talks {
                let line = format!("{number} {line}");
                assert_eq!(talk.ask(&line)?, line);
            }
        }
        for (mut talk, generation) in talks.into_iter().zip(generations) {
            moved.fetch_add(usize::from(talk.ask("who")? != generation), Relaxed);
            assert_eq!(talk.end()?, "");
        }
        Ok(())
    };
    let python = |kind: &str, to: &str, number: usize| -> Outcome {
        let output = client(lab, &["python3", "-c", ASK, kind, to, &number.to_string()], "")?;
        if output == "ok\n" { Ok(()) } else { Err(format!("{kind}: python3 said {output:?}").into()) }
    };
    under_reloads(
        &[&service],
        &[
            ("connections of socat (TCP)", &|n| fresh(&addresses.tcp, n)),
            ("connections of socat (Unix)", &|n| fresh(&addresses.stream, n)),
            ("times 8 conversations of 1.5 s of socat (TCP)", &|n| long(&addresses.tcp, n)),
            ("times 8 conversations of 1.5 s of socat (Unix)", &|n| long(&addresses.stream, n)),
            ("connections of 200 packets of python3 (Unix seqpacket)", &|n| python("seqpacket", &addresses.packets, n)),
            ("times 200 datagrams of python3 (UDP)", &|n| python("udp", &addresses.udp, n)),
            ("times 200 datagrams of python3 (Unix)", &|n| python("unix", &addresses.datagrams, n)),
        ],
    )?;
    let moved = moved.into_inner();
    println!("{moved} conversations ended in a later generation");
    assert!(moved > 0, "all conversations stayed where they were");
    service.check()
}

/// What the clients of [`streams_go_along`] have seen.
#[derive(Debug, Default)]
struct Echoed {
    lines: AtomicUsize,
    halves: AtomicUsize,
    large: AtomicUsize,
}

/// Many conversations that are never closed, each line of which comes back once: short ones, such
/// as are sent in halves with a pause, and long ones.
fn streams_go_along(lab: &Container) -> Outcome {
    const CLIENTS: usize = 100;
    const RELOADS: u64 = 10;
    let (service, addresses) = start(lab, "")?;
    let address: SocketAddr = addresses.tcp.trim_start_matches("TCP:").parse()?;
    let (stop, echoed) = (AtomicBool::new(false), Echoed::default());
    let clients = || -> Outcome<Vec<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let all = (0..CLIENTS).map(|number| converse(address, number, &stop, &echoed));
        let ended = runtime.block_on(futures_util::future::join_all(all));
        Ok(ended.into_iter().collect::<Result<_, _>>()?)
    };
    let last = thread::scope(|scope| {
        let stopping = StopOnDrop(&stop);
        let talking = scope.spawn(|| lab.in_netns(clients));
        for _ in 0..RELOADS {
            let before = echoed.lines.load(Relaxed);
            lab.wait_until(DEADLINE, "some talk", || {
                let over = talking.is_finished() || echoed.lines.load(Relaxed) > before + CLIENTS;
                Ok(over.then_some(()))
            })?;
            let new = service.reload()?;
            lab.wait_until(DEADLINE, "the old one is gone", || Ok((lab.pids(UNIT)? == [new]).then_some(())))?;
        }
        drop(stopping);
        talking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
    })?;
    let [lines, halves, large] = [&echoed.lines, &echoed.halves, &echoed.large].map(|count| count.load(Relaxed));
    println!(
        "systemd {}: {CLIENTS} streams, {RELOADS} reloads: none closed; {lines} lines came back once, {halves} of \
         them sent in halves, {large} of {LARGE} bytes",
        lab.version()
    );
    let generation = format!("generation {}", RELOADS + 1);
    assert!(last.len() == CLIENTS && last.iter().all(|last| *last == generation), "{last:?}");
    assert!(!service.logged(" stayed (")?, "some stayed");
    service.check()
}

const LARGE: usize = 200_000;

/// Returns who serves it in the end.
async fn converse(address: SocketAddr, number: usize, stop: &AtomicBool, echoed: &Echoed) -> io::Result<String> {
    let (read, mut write) = TcpStream::connect(address).await?.into_split();
    let mut read = BufReader::new(read);
    let mut answer = async || {
        let mut line = String::new();
        match tokio::time::timeout(DEADLINE, read.read_line(&mut line)).await? {
            Ok(0) => Err(io::Error::other(format!("conversation {number} was closed"))),
            Ok(_) => Ok(line),
            Err(error) => Err(error),
        }
    };
    for turn in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        let filling = if turn % 8 == number % 8 { LARGE } else { 10 };
        let line = format!("{number} {turn} {}\n", "x".repeat(filling));
        if filling == LARGE || turn % 2 == 0 {
            let (half, rest) = line.split_at(line.len() / 2);
            write.write_all(half.as_bytes()).await?;
            tokio::time::sleep(PAUSE).await;
            write.write_all(rest.as_bytes()).await?;
            echoed.halves.fetch_add(1, Relaxed);
            echoed.large.fetch_add(usize::from(filling == LARGE), Relaxed);
        } else {
            write.write_all(line.as_bytes()).await?;
            tokio::time::sleep(PAUSE).await;
        }
        if answer().await? != line {
            return Err(io::Error::other(format!("conversation {number}: another answer in turn {turn}")));
        }
        echoed.lines.fetch_add(1, Relaxed);
    }
    write.write_all(b"who\n").await?;
    Ok(answer().await?.trim_end().to_owned())
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

const ASK: &str = r#"
import os, socket, sys
kind, to, number = sys.argv[1:]
if kind == "seqpacket":
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
elif kind == "unix":
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(f"\0handover-client-{os.getpid()}")
else:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    host, port = to.split(":")
    to = (host, int(port))
s.settimeout(20)
s.connect(to)
for question in range(200):
    sent = f"{number} {question}".encode()
    s.send(sent)
    got = s.recv(4096)
    assert got == sent, (sent, got)
s.settimeout(0.05)
try:
    print("more", s.recv(4096))
except socket.timeout:
    print("ok")
"#;

fn streams_say_goodbye(lab: &Container) -> Outcome {
    let (service, addresses) = start(lab, "")?;
    let mut talks = Vec::new();
    for address in [&addresses.tcp, &addresses.stream] {
        let mut talk = Talk::start(lab, &["socat", "-t", "20", "-", address])?;
        assert_eq!(talk.ask("wait")?, "waiting");
        talks.push(talk);
    }
    service.reload()?;
    for mut talk in talks {
        assert_eq!(talk.line()?, "goodbye from generation 1");
        assert_eq!(talk.end()?, "");
    }
    service.check()
}

/// What neither moves nor listens to the signal is cut in the end, and named.
fn streams_hammered(lab: &Container) -> Outcome {
    let (service, addresses) = start(lab, "")?;
    let mut talk = Talk::start(lab, &["socat", "-t", "20", "-", &addresses.tcp])?;
    assert_eq!(talk.ask("stay")?, "staying");
    let old = lab.main_pid(UNIT)?;
    service.reload()?;
    lab.signal(old, "QUIT")?;
    assert_eq!(talk.end()?, "");
    lab.wait_until(DEADLINE, "the cut connection in the journal", || {
        Ok(service.logged("cut echo: 127.0.0.1:")?.then_some(()))
    })
}

/// A path that the service bound: there as long as anybody needs it, and no longer.
fn unix_path_is_owned(lab: &Container) -> Outcome {
    let (dir, here) = (lab.dir().display().to_string(), lab.host_dir());
    let path = here.join("own.sock");
    let address = format!("UNIX-CONNECT:{}", path.display());
    let environment = format!(
        "Environment=ECHO={dir}/own.sock ECHO_PACKETS={dir}/own-packets.sock ECHO_DATAGRAMS={dir}/own-datagrams.sock"
    );
    let others = [here.join("own-packets.sock"), here.join("own-datagrams.sock")];
    let service = Served::start(lab, "echo", &[], &environment)?;
    let ask = |expected: &str| -> Outcome {
        assert_eq!(client(lab, &["socat", "-t", "20", "-", &address], "who\n")?.trim_end(), expected);
        Ok(())
    };
    ask("generation 1")?;
    service.reload()?;
    ask("generation 2")?;
    service.check()?;
    // A crash without an fd store leaves a dead file, which is replaced.
    let main = lab.main_pid(UNIT)?;
    lab.signal(main, "KILL")?;
    lab.wait_until(DEADLINE, "a restart", || Ok(lab.main_pid(UNIT).ok().filter(|new| *new != main)))?;
    lab.systemctl_ok(&["start", UNIT])?;
    ask("generation 1")?;
    // A second service at the same path says why it cannot start.
    let program = lab.dir().join("echo").display().to_string();
    let second = lab.sh(&format!("ECHO={dir}/own.sock {program}"))?;
    assert!(!second.success() && second.stderr.contains("somebody listens at"), "{second:?}");
    ask("generation 1")?;
    lab.systemctl_ok(&["stop", UNIT])?;
    for path in others.iter().chain([&path]) {
        assert!(!path.exists(), "{} is left behind", path.display());
    }
    // With an fd store, a restart keeps socket and path: nobody is refused.
    lab.write_unit(
        UNIT,
        &lab.sh_ok(&format!("systemctl cat {UNIT}"))?.replace("[Service]", "[Service]\nFileDescriptorStoreMax=16"),
    )?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", UNIT])?;
    let stored = || Ok((lab.show(UNIT, "NFileDescriptorStore")? == "3").then_some(()));
    lab.wait_until(DEADLINE, "three sockets in the fd store", stored)?;
    lab.systemctl_ok(&["restart", UNIT])?;
    assert!(path.exists());
    ask("generation 1")?;
    // Somebody removes the path while the service is away, as RuntimeDirectory= does: it is bound
    // anew.
    let main = lab.main_pid(UNIT)?;
    std::fs::remove_file(&path)?;
    lab.signal(main, "KILL")?;
    lab.wait_until(DEADLINE, "the path again", || Ok(path.exists().then_some(())))?;
    lab.systemctl_ok(&["start", UNIT])?;
    ask("generation 1")?;
    assert!(service.logged("is gone; ")?);
    lab.wait_until(DEADLINE, "three sockets in the fd store", stored)
}

fn unix_path_of_a_socket_unit(lab: &Container) -> Outcome {
    let (service, addresses) = start(lab, "")?;
    service.reload()?;
    lab.systemctl_ok(&["stop", UNIT])?;
    assert!(lab.host_dir().join("echo.sock").exists() && lab.host_dir().join("packets.sock").exists());
    // The unit's socket starts the service again.
    let answer = client(lab, &["socat", "-t", "20", "-", &addresses.stream], "who\n")?;
    assert_eq!(answer, "generation 1\n");
    Ok(())
}

/// A process for each connection, and no reload.
fn accept_yes(lab: &Container) -> Outcome {
    let port = lab.port(7013)?;
    let program = lab.install(&crate::lab::example("inetd")?, "inetd")?;
    lab.write_unit("inetd.socket", &format!("[Socket]\nListenStream=127.0.0.1:{port}\nAccept=yes\n"))?;
    lab.write_unit(
        "inetd@.service",
        &format!("[Service]\nType=notify\nExecReload=/bin/kill -HUP $MAINPID\nExecStart={program}\n"),
    )?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", "inetd.socket"])?;
    let address = format!("TCP:127.0.0.1:{port}");
    let mut first = Talk::start(lab, &["socat", "-t", "20", "-", &address])?;
    let mut second = Talk::start(lab, &["socat", "-t", "20", "-", &address])?;
    let (one, two) = (first.line()?, second.line()?);
    let pid = |line: &str| line.split(' ').nth(1).map(str::to_owned);
    assert!(one.starts_with("pid ") && one.contains("serves 127.0.0.1:"), "{one:?}");
    assert!(pid(&one) != pid(&two), "{one:?} {two:?}");
    assert_eq!(second.ask("hello")?, "hello");
    let units = || lab.systemctl_ok(&["list-units", "--no-legend", "--plain", "--state=running", "inetd@*"]);
    // A connection is served before systemd has read that its service is ready.
    let instances = lab.wait_until(DEADLINE, "two instances that run", || {
        Ok(units().ok().filter(|running| running.lines().count() == 2))
    })?;
    let instance = instances.split_whitespace().next().ok_or("no instance")?.to_owned();
    lab.systemctl_ok(&["reload", &instance])?;
    for text in ["this process serves the one connection \"connection\" (Accept=yes)", "reloads do not apply to it"] {
        lab.wait_until(DEADLINE, text, || {
            Ok(lab.journal_json(&instance)?.iter().any(|e| e.message().contains(text)).then_some(()))
        })?;
    }
    lab.wait_until(DEADLINE, "the refused reload in the journal", || {
        Ok(lab.journal_json(&instance)?.iter().any(|e| e.message().contains("reload failed")).then_some(()))
    })?;
    // It serves on, and ends with its connection.
    assert_eq!(first.ask("still there")?, "still there");
    assert_eq!(first.end()?, "");
    assert_eq!(second.end()?, "");
    lab.wait_until(DEADLINE, "no instance", || Ok(units()?.is_empty().then_some(())))
}
