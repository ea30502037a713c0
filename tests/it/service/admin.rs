//! The admin endpoint, asked with curl.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};

use handover::admin::AdminOptions;
use handover::{Builder, Service};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::extra::configured;
use crate::{Case, cases};
use handover_testing::processes::{End, end_of, signal};
use handover_testing::service::Step;
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![
    it_tells_the_status,
    it_reloads_and_waits_for_the_outcome,
    it_tells_why_a_reload_failed,
    it_stops,
    what_it_does_not_know_is_refused,
    a_stranger_on_the_socket_is_refused,
    the_token_is_asked_for_over_tcp,
    an_open_door_must_be_asked_for,
    an_open_door_is_for_who_asks_this_machine,
    who_names_no_host_is_refused,
];

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Admin {
    address: String,
    token: Option<String>,
    open: bool,
}

impl Admin {
    pub(crate) fn listen(&self, builder: Builder) -> Builder {
        builder.listen("admin", &self.address)
    }

    pub(crate) fn serve(&self, service: &Service) -> handover::Result<()> {
        let mut options = AdminOptions::new();
        if let Some(token) = &self.token {
            options = options.token(token);
        }
        if self.open {
            options = options.without_token();
        }
        service.serve_admin("admin", options)
    }
}

fn with_admin(address: &str, token: Option<&str>, open: bool) -> World {
    let admin = Admin { address: address.into(), token: token.map(Into::into), open };
    World::new().configured(|c| configured(c, |e| e.admin = Some(admin)))
}

fn on_a_socket() -> World {
    let world = World::new();
    let address = world.path("admin.sock").display().to_string();
    world.configured(|c| configured(c, |e| e.admin = Some(Admin { address, token: None, open: false })))
}

/// What it says. The harness waits for every child of this process, so nobody else can.
fn said(command: &mut Command) -> String {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    end_of(child.id());
    text
}

/// The status and the body.
fn curl(arguments: &[&str]) -> (u16, Value) {
    let options = ["--silent", "--show-error", "--max-time", "20", "--write-out", "%{http_code}"];
    let text = said(Command::new("curl").args(options).args(arguments));
    let (body, status) = text.rsplit_once('\n').unwrap_or(("null", &text));
    (status.parse().unwrap(), serde_json::from_str(body).unwrap())
}

fn ask(world: &World, method: &str, path: &str) -> (u16, Value) {
    let socket = world.path("admin.sock").display().to_string();
    curl(&["--unix-socket", &socket, "-X", method, &format!("http://web{path}")])
}

fn it_tells_the_status() {
    let world = on_a_socket();
    let first = world.start();
    let (_, held) = world.hold();
    let (code, status) = ask(&world, "GET", "/status");
    assert_eq!((code, &status["generation"], &status["pid"]), (200, &1.into(), &first.pid.into()));
    // It counts itself.
    assert_eq!((&status["state"], &status["connections"]), (&"serving".into(), &2.into()));
    assert_eq!((&status["reloads"], &status["draining"]), (&0.into(), &Value::Array(Vec::new())));
    let second = world.reload_to(2);
    world.manager().wait("generation 2", |d| d.text == "STATUS=generation 2 serves");
    let (_, status) = ask(&world, "GET", "/status");
    assert_eq!((&status["generation"], &status["pid"]), (&2.into(), &second.pid.into()));
    assert_eq!(status["draining"][0]["pid"], first.pid);
    drop(held);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    world.stop();
}

fn it_reloads_and_waits_for_the_outcome() {
    let world = on_a_socket();
    let (mut main, load) = (world.start(), world.load());
    for generation in 2..=4_u64 {
        let (code, outcome) = ask(&world, "POST", "/reload");
        assert_eq!((code, &outcome["outcome"]), (200, &"handed_over".into()), "{outcome}");
        let who = world.wait_for_generation(generation);
        assert_eq!((&outcome["generation"], &outcome["pid"]), (&generation.into(), &who.pid.into()));
        assert_eq!(world.end_of(main.pid), End::Exited(0), "its socket was handed over, and not removed");
        main = who;
    }
    load.finish();
    world.stop();
}

fn it_tells_why_a_reload_failed() {
    let mut world = on_a_socket();
    let first = world.start();
    world.next(Step::Go, Step::Fail("not today".into()));
    let (code, outcome) = ask(&world, "POST", "/reload");
    let why = "reload failed: generation 2 said that it failed: not today";
    assert_eq!((code, &outcome["outcome"], &outcome["error"]), (409, &"rolled_back".into(), &why.into()));
    assert_eq!(world.who(), first);
    world.stop();
}

fn it_stops() {
    for path in ["/stop", "/drain"] {
        let world = on_a_socket();
        let first = world.start();
        let (_, held) = world.hold();
        assert_eq!(ask(&world, "POST", path).0, 202);
        world.manager().wait("STOPPING=1", |d| d.has("STOPPING=1"));
        assert!(held.is_open(), "what is in flight is finished");
        drop(held);
        assert_eq!(world.end_of(first.pid), End::Exited(0));
        world.wait_for_nobody();
    }
}

fn what_it_does_not_know_is_refused() {
    let world = on_a_socket();
    let first = world.start();
    assert_eq!(ask(&world, "GET", "/reload").0, 405);
    assert_eq!(ask(&world, "GET", "/stop").0, 405);
    assert_eq!(ask(&world, "POST", "/status").0, 405);
    assert_eq!(ask(&world, "GET", "/").0, 404);
    assert_eq!(world.who(), first);
    world.stop();
}

/// Needs root, to become somebody else; the decision itself has a unit test.
fn a_stranger_on_the_socket_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let world = on_a_socket();
    let first = world.start();
    let socket = world.path("admin.sock").display().to_string();
    let open = |path: &Path, mode| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(&world.path(""), 0o755);
    open(&world.path("admin.sock"), 0o777);
    let stranger = ["--reuid", "65534", "--clear-groups", "curl", "--silent", "--max-time", "20"];
    let request = ["--unix-socket", &socket, "-X", "POST", "http://web/stop"];
    let text = said(Command::new("setpriv").args(stranger).args(request));
    assert!(text.contains("uid 65534 may not"), "{text}");
    assert!(world.log().contains("admin: /stop refused: uid 65534 may not"));
    assert_eq!(world.who(), first);
    world.stop();
}

fn the_token_is_asked_for_over_tcp() {
    let token = "0123456789abcdef";
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let world = with_admin(&address, Some(token), false);
    let first = world.start();
    let url = format!("http://{address}/status");
    assert_eq!(curl(&[&url]).0, 401);
    assert_eq!(curl(&["-H", "Authorization: Bearer 0123456789abcdeF", &url]).0, 401);
    let right = format!("Authorization: Bearer {token}");
    assert_eq!(curl(&["-H", &right, "-H", "Origin: http://evil.example", &url]).0, 403);
    let (code, status) = curl(&["-H", &right, &url]);
    assert_eq!((code, &status["pid"]), (200, &first.pid.into()));
    assert!(!world.log().contains(token));
    world.stop();
}

/// A page may have its own name point here, and then it is the browser's own site.
fn an_open_door_is_for_who_asks_this_machine() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let world = with_admin(&address.to_string(), None, true);
    let first = world.start();
    let url = format!("http://{address}/status");
    let rebound = format!("page.example:{}:127.0.0.1", address.port());
    let foreign = format!("http://page.example:{}/status", address.port());
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let (code, status) = curl(&[version, &url]);
        assert_eq!((code, &status["pid"]), (200, &first.pid.into()), "{version}");
        let (code, refused) = curl(&[version, "--resolve", &rebound, &foreign]);
        assert_eq!((code, &refused["pid"]), (421, &Value::Null), "{version}");
    }
    world.stop();
}

/// HTTP/1.1 demands it; HTTP/1.0 has none.
fn who_names_no_host_is_refused() {
    let world = on_a_socket();
    let first = world.start();
    let socket = world.path("admin.sock").display().to_string();
    let ask = |more: &[&str]| curl(&[&["--unix-socket", &socket, "http://web/status"][..], more].concat());
    let (code, refused) = ask(&["-H", "Host:"]);
    assert_eq!((code, &refused["pid"]), (400, &Value::Null));
    assert!(refused["error"].as_str().is_some_and(|error| error.contains("Host")), "{refused}");
    for meant in [&["-H", "Host: web"][..], &["--http1.0", "-H", "Host:"]] {
        let (code, status) = ask(meant);
        assert_eq!((code, &status["pid"]), (200, &first.pid.into()), "{meant:?}");
    }
    let mut two = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    two.set_read_timeout(Some(handover_testing::patience())).unwrap();
    std::io::Write::write_all(&mut two, b"GET /status HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut said = String::new();
    two.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    world.stop();
}

fn an_open_door_must_be_asked_for() {
    for (address, token, open, why) in [
        ("127.0.0.1:0", None, false, "where the kernel does not tell who asks"),
        ("0.0.0.0:0", Some("0123456789abcdef"), false, "for other machines: give it a loopback address"),
        ("0.0.0.0:0", None, true, "for other machines: give it a loopback address"),
        ("127.0.0.1:0", Some("short"), false, "a token of less than 16 characters"),
    ] {
        let world = with_admin(address, token, open);
        let pid = handover_testing::world::launch(world.program());
        assert_eq!(world.end_of(pid), End::Exited(1));
        let result = world.result_of(pid);
        assert!(result.starts_with("the admin endpoint \"admin\" ") && result.contains(why), "{result}");
    }
    let world = with_admin("127.0.0.1:0", None, true);
    let first = world.start();
    signal(first.pid, Signal::SIGTERM);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
}
