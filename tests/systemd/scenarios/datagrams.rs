//! UDP, Unix datagrams, FIFOs and message queues: none is lost, none comes twice.

use std::thread;
use std::time::Duration;

use crate::lab::{Container, Outcome, Scenario};
use crate::reloads::{DEADLINE, Served, client};
use crate::sink_service::{DIRECTORY, QUEUE};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("udp_under_reloads", udp_under_reloads),
    Scenario::new("datagrams_under_reloads", datagrams_under_reloads),
    Scenario::new("flows_under_reloads", flows_under_reloads),
    Scenario::new("fifo_and_queue_under_reloads", fifo_and_queue_under_reloads),
    Scenario::new("special_fds_by_name", special_fds_by_name),
    Scenario::new("wrong_kind_by_name", wrong_kind_by_name),
];

/// Queries of one run of dig, one after the other, each once.
const QUERIES: usize = 100;

/// dig asks and does not ask again: each query has its answer.
fn udp_under_reloads(lab: &Container) -> Outcome {
    let port = lab.port(5353)?;
    let service = Served::start(lab, "dns", &[("dns", format!("ListenDatagram=127.0.0.1:{port}"))], "")?;
    let questions = lab.host_dir().join("questions");
    std::fs::write(&questions, "TXT generation.\n".repeat(QUERIES))?;
    let (questions, port) = (questions.display().to_string(), port.to_string());
    // Each from an address of its own: dig shares its ports (SO_REUSEPORT), so that two of one address may get each
    // other's answers.
    let dig = |from: &str| -> Outcome {
        let server = ["dig", "@127.0.0.1", "-p", &port, "-b", from];
        let args = [&server[..], &["+tries=1", "+time=10", "+short", "+noedns", "-f", &questions]].concat();
        let answers = client(lab, &args, "")?;
        let good = answers.lines().filter(|line| line.starts_with("\"generation ")).count();
        if good == QUERIES && answers.lines().count() == QUERIES { Ok(()) } else { Err(answers.into()) }
    };
    let (reloads, runs) =
        service.under_reloads(&[&|_| dig("127.0.0.2"), &|_| dig("127.0.0.3"), &|_| dig("127.0.0.4")])?;
    let queries: usize = runs.iter().sum::<usize>() * QUERIES;
    println!("systemd {}: {reloads} reloads, lost 0 of {queries} queries of dig", lab.version());
    service.check()
}

const ASK: &str = r#"
import socket, sys
kind, to, number = sys.argv[1], sys.argv[2], sys.argv[3]
if kind == "unix":
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(f"\0handover-client-{number}")
else:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    host, port = to.split(":")
    to = (host, int(port))
s.settimeout(10)
for question in range(300):
    sent = f"{number} {question}".encode()
    s.sendto(sent, to)
    got = s.recv(4096)
    assert got == sent, (sent, got)
s.settimeout(0.05)
try:
    print("more", s.recv(4096))
except socket.timeout:
    print("ok")
"#;

/// Python waits for each answer, and for no second one.
fn datagrams_under_reloads(lab: &Container) -> Outcome {
    let (port, dir) = (lab.port(7008)?, lab.dir().display().to_string());
    let sockets = [
        ("echo", "ListenStream=@handover-echo".to_owned()),
        ("echo-packets", "ListenSequentialPacket=@handover-packets".to_owned()),
        ("echo-datagrams", format!("ListenDatagram=127.0.0.1:{port}\nListenDatagram={dir}/datagrams.sock")),
    ];
    let service = Served::start(lab, "echo", &sockets, "")?;
    let path = lab.host_dir().join("datagrams.sock").display().to_string();
    let ask = |kind: &str, to: &str, number: &str| -> Outcome {
        let said = client(lab, &["python3", "-c", ASK, kind, to, number], "")?;
        if said == "ok\n" { Ok(()) } else { Err(format!("{kind}: python3 said {said:?}").into()) }
    };
    let udp = format!("127.0.0.1:{port}");
    let (reloads, runs) = service.under_reloads(&[
        &|n| ask("udp", &udp, &format!("a{n}")),
        &|n| ask("unix", &path, &format!("b{n}")),
        &|n| ask("unix", &path, &format!("c{n}")),
    ])?;
    println!(
        "systemd {}: {reloads} reloads, lost 0 of {runs:?} × 300 datagrams (python3: UDP, Unix, Unix)",
        lab.version()
    );
    service.check()
}

const FLOW: &str = r#"
import socket, sys, time
host, port = sys.argv[1].split(":")
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
def ask(text):
    s.sendto(text.encode(), (host, int(port)))
    return s.recv(4096).decode()
flow = ask("hello")
generation = flow.split("-")[0]
for number in range(20):
    got = ask(f"{flow}:{number}")
    assert got == f"{generation}:{number}", (flow, got)
    time.sleep(0.1)
assert ask(f"{flow}:bye") == "gone"
print("ok")
"#;

/// Each flow has all its answers from the generation that it began in, and no two have one id.
fn flows_under_reloads(lab: &Container) -> Outcome {
    let port = lab.port(7009)?;
    let program = lab.install(&std::env::current_exe()?, "flows")?;
    let sockets = [("flows", format!("ListenDatagram=127.0.0.1:{port}"))];
    let environment = format!("Environment={}=1", crate::flow_service::SERVICE);
    let service = Served::start_installed(lab, "flows", &program, &sockets, &environment)?;
    let to = format!("127.0.0.1:{port}");
    let flow = |_: usize| -> Outcome {
        let said = client(lab, &["python3", "-c", FLOW, &to], "")?;
        if said == "ok\n" { Ok(()) } else { Err(format!("python3 said {said:?}").into()) }
    };
    let (reloads, runs) = service.under_reloads(&[&flow, &flow, &flow, &flow])?;
    println!("systemd {}: {reloads} reloads, lost 0 of {runs:?} flows of 22 datagrams (python3)", lab.version());
    assert!(!service.logged("dropped")? && !service.logged("has not told its flows")?);
    service.check()
}

/// What a shell writes to a FIFO, and a program to a message queue, while the service is reloaded.
fn fifo_and_queue_under_reloads(lab: &Container) -> Outcome {
    let dir = lab.dir().display().to_string();
    let program = lab.install(&std::env::current_exe()?, "sink")?;
    let queue = format!("/handover-{}", std::process::id());
    let sockets = [
        ("fifo", format!("ListenFIFO={dir}/fifo")),
        ("queue", format!("ListenMessageQueue={queue}\nMessageQueueMaxMessages=10\nMessageQueueMessageSize=64")),
    ];
    let environment = format!("Environment={DIRECTORY}={dir}");
    let service = Served::start_installed(lab, "sink", &program, &sockets, &environment)?;
    let long = crate::reloads::duration() + 3 * DEADLINE;
    let (lines, jobs) = thread::scope(|scope| -> Outcome<(String, String)> {
        let stop = StopOnDrop(lab);
        let lines = scope.spawn(|| {
            let script =
                format!("i=0; while [ ! -e {dir}/stop ]; do echo line $i; i=$((i+1)); done >{dir}/fifo; echo $i");
            lab.sh_within(long, &script)
        });
        let jobs = scope.spawn(|| lab.sh_within(long, &format!("{DIRECTORY}={dir} {QUEUE}={queue} {program}")));
        let reloads = service.under_reloads(&[&|_| {
            thread::sleep(Duration::from_millis(20));
            Ok(())
        }]);
        drop(stop);
        let [lines, jobs] = [lines, jobs].map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        println!("systemd {}: {} reloads", lab.version(), reloads?.0);
        Ok((lines?.stdout, jobs?.stdout))
    })?;
    for (name, word, count) in [("fifo", "line", lines), ("queue", "job", jobs)] {
        let count: usize = count.trim().parse().map_err(|e| format!("{name}: the writer said {count:?}: {e}"))?;
        let out = lab.host_dir().join(format!("{name}.out"));
        lab.wait_until(DEADLINE, &format!("{count} {word}s"), || {
            Ok((std::fs::read_to_string(&out)?.lines().count() >= count).then_some(()))
        })?;
        let text = std::fs::read_to_string(&out)?;
        let mut numbers: Vec<usize> = text
            .lines()
            .map(|line| Ok(line.strip_prefix(word).ok_or(line)?.trim().parse()?))
            .collect::<Outcome<_>>()?;
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..count), "{name}: {} of {count} {word}s", numbers.len());
        println!("{name}: {count} {word}s, each once");
    }
    service.check()
}

struct StopOnDrop<'a>(&'a Container);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        // If it cannot be written, the writers' own deadline ends them.
        let _ = std::fs::write(self.0.host_dir().join("stop"), "");
    }
}

/// What else can be passed arrives under its name, in the next generation too.
fn special_fds_by_name(lab: &Container) -> Outcome {
    let dir = lab.dir().display().to_string();
    let program = lab.install(&std::env::current_exe()?, "sink")?;
    let queue = format!("/handover-{}", std::process::id());
    let sockets = [
        ("fifo", format!("ListenFIFO={dir}/fifo")),
        ("queue", format!("ListenMessageQueue={queue}")),
        // Not a device that can be read for ever, like /dev/random: systemd's PID 1 then reads it for ever, when the service stops.
        ("special", "ListenSpecial=/proc/1/mountinfo".to_owned()),
        ("netlink", "ListenNetlink=route 1".to_owned()),
    ];
    let environment = format!("Environment={DIRECTORY}={dir}");
    let service = Served::start_installed(lab, "sink", &program, &sockets, &environment)?;
    for generation in 1..=2 {
        for what in ["special is a special file", "netlink is a netlink socket"] {
            let text = format!("generation {generation}: {what}");
            lab.wait_until(DEADLINE, &text, || Ok(service.logged(&text)?.then_some(())))?;
        }
        if generation == 1 {
            service.reload()?;
        }
    }
    Ok(())
}

fn wrong_kind_by_name(lab: &Container) -> Outcome {
    let dir = lab.dir().display().to_string();
    let program = lab.install(&std::env::current_exe()?, "sink")?;
    for (name, listen) in [("fifo", "ListenFIFO"), ("queue", "ListenStream")] {
        let unit = format!("[Socket]\n{listen}={dir}/{name}\nFileDescriptorName={name}\nService=sink.service\n");
        lab.write_unit(&format!("{name}.socket"), &unit)?;
    }
    let service = "[Service]\nType=notify\nSockets=fifo.socket queue.socket";
    lab.write_unit("sink.service", &format!("{service}\nEnvironment={DIRECTORY}={dir}\nExecStart={program}\n"))?;
    lab.daemon_reload()?;
    lab.systemctl_ok(&["start", "fifo.socket", "queue.socket"])?;
    assert!(!lab.systemctl(&["start", "sink.service"])?.success());
    let text = "named \"queue\" is a listening Unix stream socket; a datagram socket, a fifo, a message queue or a netlink socket \
                is needed";
    lab.wait_until(DEADLINE, text, || {
        Ok(lab.journal_json("sink.service")?.iter().any(|e| e.message().contains(text)).then_some(()))
    })
}
