//! UDP, Unix datagrams, FIFOs and message queues: none is lost, none comes twice.

use std::thread;

use crate::lab::{Container, Outcome, Scenario};
use crate::reloads::{DEADLINE, Served, client, under_reloads};
use crate::sink_service::{DIRECTORY, QUEUE};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("datagrams_under_reloads", datagrams_under_reloads),
    Scenario::new("special_fds_by_name", special_fds_by_name),
    Scenario::new("wrong_kind_by_name", wrong_kind_by_name),
];

/// Queries of one run of dig, one after the other, each once.
const QUERIES: usize = 100;

/// Three services at once: DNS, a protocol on UDP that has connections, and what a FIFO and a
/// message queue have.
fn datagrams_under_reloads(lab: &Container) -> Outcome {
    let (dns_port, flows_port, dir) = (lab.port(5353)?, lab.port(7009)?, lab.dir().display().to_string());
    let dns = Served::start(lab, "dns", &[("dns", format!("ListenDatagram=127.0.0.1:{dns_port}"))], "")?;
    let harness = std::env::current_exe()?;
    let flows = Served::start_installed(
        lab,
        "flows",
        &lab.install(&harness, "flows")?,
        &[("flows", format!("ListenDatagram=127.0.0.1:{flows_port}"))],
        &format!("Environment={}=1", crate::flow_service::SERVICE),
    )?;
    let queue = format!("/handover-{}", std::process::id());
    let writer = lab.install(&harness, "sink")?;
    let sink = Served::start_installed(
        lab,
        "sink",
        &writer,
        &[
            ("fifo", format!("ListenFIFO={dir}/fifo")),
            ("queue", format!("ListenMessageQueue={queue}\nMessageQueueMaxMessages=10\nMessageQueueMessageSize=64")),
        ],
        &format!("Environment={DIRECTORY}={dir}"),
    )?;

    let questions = lab.host_dir().join("questions");
    std::fs::write(&questions, "TXT generation.\n".repeat(QUERIES))?;
    let (questions, dns_port) = (questions.display().to_string(), dns_port.to_string());
    let dig = |from: &str| dig(lab, &dns_port, from, &questions);
    let flow = |_: usize| flow(lab, &format!("127.0.0.1:{flows_port}"));

    let long = crate::reloads::duration() + 3 * DEADLINE;
    let (lines, jobs) = thread::scope(|scope| -> Outcome<(String, String)> {
        let stop = StopOnDrop(lab);
        let lines = scope.spawn(|| {
            let pause = "[ $((i % 100)) != 0 ] || sleep 0.01";
            let write = format!("echo line $i; i=$((i+1)); {pause}");
            lab.sh_within(long, &format!("i=0; while [ ! -e {dir}/stop ]; do {write}; done >{dir}/fifo; echo $i"))
        });
        let jobs = scope.spawn(|| lab.sh_within(long, &format!("{DIRECTORY}={dir} {QUEUE}={queue} {writer}")));
        let loaded = under_reloads(
            &[&dns, &flows, &sink],
            &[
                ("times 100 queries of dig (UDP)", &|_| dig("127.0.0.2")),
                ("times 100 queries of another dig", &|_| dig("127.0.0.3")),
                ("flows of 22 datagrams in 2 s of python3 (UDP)", &flow),
                ("flows of another python3", &flow),
            ],
        );
        drop(stop);
        let [lines, jobs] = [lines, jobs].map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        loaded?;
        Ok((lines?.stdout, jobs?.stdout))
    })?;
    each_once(lab, "fifo", "line", &lines)?;
    each_once(lab, "queue", "job", &jobs)?;
    assert!(!flows.logged("dropped")? && !flows.logged("has not told its flows")?);
    [dns, flows, sink].iter().try_for_each(Served::check)
}

/// dig asks and does not ask again: each query has its answer.
fn dig(lab: &Container, port: &str, from: &str, questions: &str) -> Outcome {
    // Each from an address of its own: dig shares its ports (SO_REUSEPORT), so that two of one
    // address may get each other's answers.
    let server = ["dig", "@127.0.0.1", "-p", port, "-b", from];
    let args = [&server[..], &["+tries=1", "+time=10", "+short", "+noedns", "-f", questions]].concat();
    let answers = client(lab, &args, "")?;
    let good = answers.lines().filter(|line| line.starts_with("\"generation ")).count();
    if good == QUERIES && answers.lines().count() == QUERIES { Ok(()) } else { Err(answers.into()) }
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
fn flow(lab: &Container, to: &str) -> Outcome {
    let said = client(lab, &["python3", "-c", FLOW, to], "")?;
    if said == "ok\n" { Ok(()) } else { Err(format!("python3 said {said:?}").into()) }
}

/// What a writer says that it has written, a shell to the FIFO and a program to the queue, has
/// arrived: nothing is lost or comes twice.
fn each_once(lab: &Container, name: &str, word: &str, count: &str) -> Outcome {
    let count: usize = count.trim().parse().map_err(|e| format!("{name}: the writer said {count:?}: {e}"))?;
    let out = lab.host_dir().join(format!("{name}.out"));
    lab.wait_until(DEADLINE, &format!("{count} {word}s"), || {
        Ok((std::fs::read_to_string(&out)?.lines().count() >= count).then_some(()))
    })?;
    let text = std::fs::read_to_string(&out)?;
    let mut numbers: Vec<usize> =
        text.lines().map(|line| Ok(line.strip_prefix(word).ok_or(line)?.trim().parse()?)).collect::<Outcome<_>>()?;
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..count), "{name}: {} of {count} {word}s", numbers.len());
    println!("systemd {}: {name}: {count} {word}s written, each was read once", lab.version());
    Ok(())
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
        // Not a device that can be read for ever, like /dev/random: systemd's PID 1 then reads it
        // for ever, when the service stops.
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
