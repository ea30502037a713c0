//! The control interface, asked over its socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use handover::control::{Answer, Client};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::extra::configured;
use crate::{Case, PATIENCE, cases};
use handover_testing::processes::End;
use handover_testing::service::Step;
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![
    it_tells_the_status_also_of_who_drains,
    a_reload_is_told_step_by_step,
    a_failed_reload_is_an_error_with_the_reason,
    a_request_during_a_reload_is_passed_on,
    subscribers_are_told_and_hold_up_nothing,
    it_speaks_varlink_and_survives_what_is_not,
    strangers_take_no_place,
    it_stops,
];

fn with_control() -> World {
    let world = World::new();
    let path = world.path("control.sock");
    world.configured(|c| configured(c, |e| e.control = Some(path)))
}

/// A client that waits, with a deadline.
struct Blocking {
    runtime: Runtime,
    client: Client,
}

impl Blocking {
    fn connect(world: &World) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(Client::connect(&world.path("control.sock"))).unwrap();
        Self { runtime, client }
    }

    fn call(&mut self, method: &str, more: bool) -> Answer {
        let Self { runtime, client } = self;
        runtime.block_on(async { tokio::time::timeout(PATIENCE, client.call(method, more)).await }).unwrap().unwrap()
    }

    fn next(&mut self) -> Answer {
        let Self { runtime, client } = self;
        runtime.block_on(async { tokio::time::timeout(PATIENCE, client.next()).await }).unwrap().unwrap()
    }

    /// What the steps were, and the last answer.
    fn rest(&mut self) -> (Vec<String>, Answer) {
        let mut steps = Vec::new();
        loop {
            match self.next() {
                Answer::Step(step) => steps.push(step["step"]["what"].as_str().unwrap().to_owned()),
                last => return (steps, last),
            }
        }
    }
}

fn status(world: &World) -> Value {
    match Blocking::connect(world).call("Status", false) {
        Answer::Done(mut answer) => answer["status"].take(),
        other => panic!("{other:?}"),
    }
}

/// Asks once more on a connection; returns how the reply begins.
fn asked(connection: &mut TcpStream) -> [u8; 12] {
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection.write_all(b"GET /who HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
    let mut reply = Vec::new();
    let mut reader = BufReader::new(connection);
    while !reply.ends_with(b"\r\n\r\n") {
        assert!(reader.read_until(b'\n', &mut reply).unwrap() > 0, "it is closed");
    }
    let head = String::from_utf8(reply.clone()).unwrap().to_lowercase();
    let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
    reader.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
    *reply.first_chunk().unwrap()
}

fn it_tells_the_status_also_of_who_drains() {
    let world = with_control();
    let first = world.start();
    let (_, held) = world.hold();
    let before = status(&world);
    assert_eq!(
        (&before["generation"], &before["pid"], &before["state"]),
        (&json!(1), &json!(first.pid), &json!("serving"))
    );
    // Who asks does not count; another client does.
    assert_eq!(before["open"], json!([{"listener": "http", "protocol": "http1", "count": 1}]));
    assert_eq!(before["connections"], 1);
    let mut other = Blocking::connect(&world);
    assert!(matches!(other.call("Status", false), Answer::Done(_)));
    // Those that asked before may not be gone yet.
    let mut beside = status(&world);
    let begun = std::time::Instant::now();
    while beside["connections"] != 2 && begun.elapsed() < PATIENCE {
        beside = status(&world);
    }
    assert_eq!(beside["open"][0], json!({"listener": "control", "protocol": "stream", "count": 1}));
    assert_eq!(beside["connections"], 2);
    drop(other);
    assert!(before["main_ms"].is_u64() && before["past"] == json!([]) && before["settings"]["drain_timeout"] == "30s");
    let names: Vec<_> = before["sockets"].as_array().unwrap().iter().map(|socket| &socket["name"]).collect();
    assert_eq!(names, ["http", "control"]);
    assert!(before["sockets"][0]["backlog"].as_u64().unwrap() > 0, "{before}");

    assert_eq!(before["moves"], json!({"adopted": 0, "moved": 0, "stayed": {}}));
    let mut idle = TcpStream::connect(world.address()).unwrap();
    assert_eq!(asked(&mut idle), *b"HTTP/1.1 200");

    let second = world.reload_to(2);
    world.manager().wait("generation 2", |d| d.text == "STATUS=generation 2 serves");
    // The idle one moves, and the old generation says so to whoever asks the new one.
    let (mut after, begun) = (status(&world), std::time::Instant::now());
    while after["draining"][0]["moved"] != 1 && begun.elapsed() < PATIENCE {
        after = status(&world);
    }
    assert_eq!((&after["draining"][0]["moved"], &after["moves"]["adopted"]), (&json!(1), &json!(1)), "{after}");
    assert_eq!(after["moves"]["moved"], 0, "{after}");
    assert_eq!(asked(&mut idle), *b"HTTP/1.1 200", "its connection is open");
    assert_eq!((&after["pid"], &after["past"][0]["outcome"]), (&json!(second.pid), &json!("handed_over")), "{after}");
    let older = &after["draining"][0];
    assert_eq!((&older["pid"], &older["connections"]), (&json!(first.pid), &json!(1)), "{after}");
    assert!(older["work"][0].as_str().unwrap().starts_with("http: "), "{after}");
    drop(held);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    world.stop();
}

fn a_reload_is_told_step_by_step() {
    let world = with_control();
    let mut main = world.start();
    for generation in 2..=4_u64 {
        let mut client = Blocking::connect(&world);
        assert_eq!(client.call("Reload", true), Answer::Step(json!({})), "the request was taken");
        let (steps, last) = client.rest();
        let who = world.wait_for_generation(generation);
        let told = json!({"outcome": "handed_over", "generation": generation, "pid": who.pid});
        assert_eq!(last, Answer::Done(told));
        let phases = ["reloading", "started", "ready", "switched", "handed_over"];
        assert_eq!(steps[..phases.len()], phases, "{steps:?}");
        // The client is still there, and has had its answer.
        assert_eq!(world.end_of(main.pid), End::Exited(0));
        assert_eq!(client.call("Status", false), Answer::Gone);
        main = who;
    }
    let mut client = Blocking::connect(&world);
    let Answer::Done(told) = client.call("Reload", false) else { panic!("without `more` there is one answer") };
    assert_eq!(told["outcome"], "handed_over");
    assert_eq!(status(&world)["past"].as_array().unwrap().len(), 4);
    world.stop();
}

fn a_failed_reload_is_an_error_with_the_reason() {
    let mut world = with_control();
    let first = world.start();
    world.next(Step::Go, Step::Fail("not today".into()));
    let mut client = Blocking::connect(&world);
    for _ in 0..2 {
        assert_eq!(client.call("Reload", true), Answer::Step(json!({})));
        let (steps, last) = client.rest();
        assert_eq!(steps, ["reloading", "started", "rolled_back"]);
        let Answer::Failed(failed) = last else { panic!("{last:?}") };
        assert_eq!(failed.error, "io.handover.Service.ReloadFailed");
        assert_eq!(failed.reason(), "reload failed: generation 2 said that it failed: not today");
        assert_eq!((&failed.parameters["generation"], &failed.parameters["pid"]), (&json!(1), &json!(first.pid)));
    }
    let past = &status(&world)["past"][1];
    assert_eq!((&past["outcome"], &past["reason"]), (&json!("rolled_back"), &json!("said that it failed: not today")));
    assert_eq!(world.who(), first);
    world.stop();
}

fn a_request_during_a_reload_is_passed_on() {
    let mut world = with_control();
    world.start();
    world.next(Step::Wait, Step::Go);
    let (mut one, mut two) = (Blocking::connect(&world), Blocking::connect(&world));
    assert_eq!(one.call("Reload", true), Answer::Step(json!({})));
    assert_eq!(two.call("Reload", true), Answer::Step(json!({})));
    // The status comes after both requests: there is one queue.
    assert_eq!(status(&world)["state"], "reloading");
    world.go();
    assert!(matches!(one.rest().1, Answer::Done(told) if told["outcome"] == "handed_over" && told["generation"] == 2));
    assert_eq!(two.rest().1, Answer::Done(json!({"outcome": "passed_on", "generation": 2})));
    world.wait_for_generation(3);
    world.stop();
}

fn subscribers_are_told_and_hold_up_nothing() {
    let world = with_control();
    let first = world.start();
    let (mut listening, idle) = (Blocking::connect(&world), Blocking::connect(&world));
    let Answer::Step(hello) = listening.call("Subscribe", true) else { panic!("the status first") };
    assert_eq!(hello["status"]["pid"], first.pid);
    let mut gone = Blocking::connect(&world);
    assert!(matches!(gone.call("Subscribe", true), Answer::Step(_)));
    drop(gone);
    world.reload_to(2);
    let (steps, last) = listening.rest();
    assert_eq!(steps[..5], ["reloading", "started", "ready", "switched", "handed_over"], "{steps:?}");
    assert_eq!(last, Answer::Done(json!({})));
    assert_eq!(world.end_of(first.pid), End::Exited(0), "an idle client and one that listens are no work");
    drop(idle);
    world.stop();
}

fn it_speaks_varlink_and_survives_what_is_not() {
    let world = with_control();
    let first = world.start();
    let raw = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(world.path("control.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = Vec::new();
        // What is broken off by the service may end in an error.
        let _ = stream.read_to_end(&mut answers);
        let answers = String::from_utf8(answers).unwrap();
        answers.split_terminator('\0').map(|one| serde_json::from_str(one).unwrap()).collect::<Vec<Value>>()
    };
    let info = raw(b"{\"method\":\"org.varlink.service.GetInfo\"}\0");
    assert_eq!(info[0]["parameters"]["interfaces"][1], "io.handover.Service");
    let asked = b"{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{\"interface\":\"io.handover.Service\"}}\0";
    assert!(raw(asked)[0]["parameters"]["description"].as_str().unwrap().contains("interface io.handover.Service"));
    for (call, error) in [
        ("{\"method\":\"io.handover.Service.Sing\"}\0", "org.varlink.service.MethodNotFound"),
        ("{\"method\":\"Sing\"}\0", "org.varlink.service.InterfaceNotFound"),
        ("{\"method\":\"io.handover.Service.Subscribe\"}\0", "org.varlink.service.ExpectedMore"),
        ("{\"method\":\"org.varlink.service.GetInterfaceDescription\"}\0", "org.varlink.service.InvalidParameter"),
    ] {
        assert_eq!(raw(call.as_bytes())[0]["error"], error, "{call}");
    }
    let two = raw(b"{\"method\":\"io.handover.Service.Status\"}\0{\"method\":\"io.handover.Service.Status\",\"oneway\":true}\0{\"method\":\"x.Y\"}\0");
    assert_eq!(two.len(), 2, "one after the other, and nothing for the second");
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n\0"[..], b"\0\0\0", b"{", &vec![b'{'; 200_000]] {
        assert!(raw(garbage).is_empty());
    }
    assert_eq!(world.who(), first);
    world.stop();
}

/// As many as there are places, none of which says anything.
const IDLE: &str = r#"
import socket, sys
clients = [socket.socket(socket.AF_UNIX) for _ in range(64)]
for client in clients:
    client.connect(sys.argv[1])
print("connected", flush=True)
sys.stdin.readline()
answers = []
for client in clients:
    client.settimeout(30)
    answers.append(b"".join(iter(lambda: client.recv(65536), b"")))
print(sum(b"PermissionDenied" in answer for answer in answers), flush=True)
"#;

fn strangers_take_no_place() {
    // Only root can be another user, too.
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let world = with_control();
    let first = world.start();
    let socket = world.path("control.sock");
    // As `SocketMode=` is by default: everybody may connect.
    for (path, mode) in [(socket.parent().unwrap(), 0o755), (&socket, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut them = Command::new("python3");
    them.args(["-c", IDLE]).arg(&socket).uid(4_242_424).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut them = them.spawn().unwrap();
    let mut said = BufReader::new(them.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "connected");
    let status = status(&world);
    assert_eq!((&status["pid"], &status["connections"]), (&json!(first.pid), &json!(0)));
    drop(them.stdin.take());
    assert_eq!(said.next().unwrap().unwrap(), "64", "each is told why");
    // Whoever reaps the generations may have been there first.
    let _ = them.wait();
}

fn it_stops() {
    let world = with_control();
    let first = world.start();
    let (_, held) = world.hold();
    assert_eq!(Blocking::connect(&world).call("Drain", false), Answer::Done(json!({})));
    world.manager().wait("STOPPING=1", |d| d.has("STOPPING=1"));
    assert!(held.is_open(), "what is in flight is finished");
    drop(held);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    world.wait_for_nobody();
    assert!(!world.path("control.sock").exists());
}
