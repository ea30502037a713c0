//! `handover run --metrics`, `handover status --prometheus`, and `handover reload --json`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::world::{HANDOVER, Setup, World};
use handover_testing::processes::until;

/// Bound by nobody else just now.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn asked(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(crate::PATIENCE))?;
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find(|line| line.starts_with(&format!("{name}{{")))?.rsplit(' ').next()
}

#[test]
fn prometheus_is_told_over_reloads_and_renewals() {
    let address = free();
    let world = World::start(Setup { options: &["--metrics", &address.to_string()], ..Setup::default() });
    let scrape = || asked(address, "GET /metrics").unwrap();
    let first = scrape();
    assert!(first.starts_with("HTTP/1.1 200") && first.contains("text/plain; version=0.0.4"), "{first}");
    assert_eq!((value(&first, "handover_up"), value(&first, "handover_generation")), (Some("1"), Some("1")));
    assert_eq!(value(&first, "handover_last_reload_success"), None, "there was none");
    world.mode("exit 3");
    world.fails_to_reload();
    assert_eq!(value(&scrape(), "handover_last_reload_success"), Some("0"));
    world.mode("ok");
    world.reloaded();
    let third = scrape();
    assert_eq!(
        (value(&third, "handover_last_reload_success"), value(&third, "handover_generation")),
        (Some("1"), Some("3"))
    );
    checked(third.split_once("\r\n\r\n").unwrap().1);
    world.signal(Signal::SIGUSR2);
    world.until_status("it has gone on", |s| s["supervisor"]["renewals"] == 1);
    until("it is bound again", || {
        asked(address, "GET /metrics").ok().filter(|text| value(text, "handover_up").is_some())
    });
    for (request, answer) in [("GET /", "404"), ("POST /metrics", "405"), ("HEAD /metrics", "200")] {
        assert!(asked(address, request).unwrap().starts_with(&format!("HTTP/1.1 {answer}")), "{request}");
    }
    // Who says nothing holds up nobody, and neither does what is no HTTP.
    let _silent: Vec<_> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(asked(address, "\u{1}\u{2}").unwrap_or_default().len() < 200);
    assert_eq!(value(&scrape(), "handover_up"), Some("1"));
    world.stop();
}

/// As promtool has it, where that is.
fn checked(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else { return };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}\n{text}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let world = World::launch(Setup { options: &["--metrics", &address], ..Setup::default() });
    until("it says so", || world.log().contains(&format!("--metrics {address} cannot be bound")).then_some(()));
}

#[test]
fn the_text_for_a_collector_is_replaced_as_a_whole() {
    let world = World::start(Setup::default());
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("web.prom");
    let into = format!("--prometheus={}", file.display());
    assert!(world.handover(&["status", &into]).status.success());
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(value(&text, "handover_generation"), Some("1"), "{text}");
    let shown = world.handover(&["status", "--prometheus"]);
    assert!(String::from_utf8(shown.stdout).unwrap().contains("# TYPE handover_up gauge"));
    let socket = world.path("control");
    world.stop();
    let socket = socket.to_str().unwrap();
    let output = Command::new(HANDOVER).args(["status", &into, "--socket", socket]).output().unwrap();
    assert!(!output.status.success());
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().last().and_then(|line| line.rsplit(' ').next()), Some("0"), "{text}");
    assert!(left_behind(file.parent().unwrap()).is_empty());
}

fn left_behind(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".handover-")).collect()
}

#[test]
fn a_report_has_who_served_and_who_serves() {
    let world = World::start(Setup::default());
    let (old, _) = world.who();
    let (report, code) = world.report();
    assert_eq!((code, &report["outcome"]), (Some(0), &"handed_over".into()), "{report}");
    assert_eq!((&report["before"]["generation"], &report["before"]["pid"]), (&1.into(), &old.into()));
    assert_eq!((&report["after"]["generation"], &report["after"]["pid"]), (&2.into(), &world.status()["pid"]));
    let phases: u64 =
        ["spawn_ms", "ready_ms", "switch_ms", "handover_ms"].iter().filter_map(|n| report["phases"][n].as_u64()).sum();
    assert_eq!(Some(phases), report["phases"]["reload_ms"].as_u64(), "{report}");
    world.mode("exit 3");
    let (report, code) = world.report();
    assert_eq!((code, &report["outcome"]), (Some(1), &"rolled_back".into()), "{report}");
    assert_eq!(report["before"], report["after"]);
    assert!(report["reason"].as_str().unwrap().contains("exited with status 3"), "{report}");
    world.stop();
}
