//! New versions that fail: the old one serves on, says why, and the next reload works.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{Case, cases};
use handover_testing::client::Asked;
use handover_testing::processes::{End, kernel_tells_exits, look, open_fds, signal, until};
use handover_testing::service::{State, Step};
use handover_testing::world::{World, write_executable};

pub(crate) const CASES: &[Case] = cases![
    it_exits,
    it_exits_without_a_manager,
    it_panics,
    it_panics_after_the_start,
    it_hangs_before_the_start,
    it_hangs_and_ignores_sigterm,
    it_closes_its_link,
    it_says_that_it_failed,
    it_returns_an_error,
    it_is_killed,
    it_dies_in_probation,
    it_is_killed_in_probation,
    it_does_not_switch,
    it_speaks_another_protocol,
    it_speaks_garbage,
    it_says_too_much,
    it_is_missing,
    it_is_not_executable,
    it_is_no_program,
    its_directory_is_gone,
    it_is_another_program,
    its_notify_socket_is_malformed,
    its_sockets_are_malformed,
    it_needs_a_socket_that_nobody_passed,
    the_state_cannot_be_made,
    five_in_a_row,
];

/// As the old one tells of it, which is not its parent.
fn ended(how: &str) -> String {
    if kernel_tells_exits() { how.into() } else { "exited (the service manager's journal has its status)".into() }
}

fn steps(before: Step, after: Step) -> impl FnOnce(&mut World) {
    move |world| world.next(before, after)
}

/// A reload with something bad fails for that reason, and costs nothing.
fn fails(reason: &str, make_bad: impl FnOnce(&mut World)) {
    fails_in(World::new(), |text| assert_eq!(text, reason), make_bad);
}

fn fails_in(mut world: World, check: impl Fn(&str), make_bad: impl FnOnce(&mut World)) {
    let first = world.start();
    let fds = world.settled_fds(&first);
    let (load, mark) = (world.load(), world.manager().mark());
    make_bad(&mut world);
    let outcome = world.reload();
    check(outcome.strip_prefix("reload failed: generation 2 ").unwrap_or_else(|| panic!("{outcome}")));
    let status = world.wait_for_status(mark, &format!("generation 1 serves; {outcome}"));
    assert!(status.pid == first.pid && status.has("READY=1"), "{status:?}");
    assert!(world.log().contains(&format!("{outcome}; generation 1 serves on")), "not in the log: {outcome}");
    world.wait_for_only(&[first.pid]);
    if let Some(failed) = world.born().get(1) {
        assert!(world.log().contains(&format!(" old_pid={} new_pid={failed} reload_ms=", first.pid)));
    }
    load.finish();
    until("as many fds as before", || (open_fds(first.pid) <= fds).then_some(()));
    assert_eq!(world.who(), first);

    world.configure(|c| (c.before, c.after, c.needs, c.state) = (Step::Go, Step::Go, None, State::None));
    world.install(|new| symlink(std::env::current_exe().unwrap(), new).unwrap());
    world.reload_to(2);
    assert_eq!(world.end_of(first.pid), End::Exited(0));
    world.stop();
}

fn it_exits() {
    fails(&ended("exited with status 7"), steps(Step::Exit(7), Step::Go));
}

fn it_exits_without_a_manager() {
    let mut world = World::without_manager();
    let first = world.start();
    let (fds, load) = (world.settled_fds(&first), world.load());
    world.next(Step::Exit(7), Step::Go);
    assert_eq!(world.reload(), "reload failed: generation 2 exited with status 7");
    world.wait_for_only(&[first.pid]);
    load.finish();
    until("as many fds as before", || (open_fds(first.pid) <= fds).then_some(()));
    world.next(Step::Go, Step::Go);
    world.reload_to(2);
    world.stop();
}

fn it_panics() {
    fails(&ended("exited with status 101"), steps(Step::Panic, Step::Go));
}

fn it_panics_after_the_start() {
    fails(&ended("exited with status 101"), steps(Step::Go, Step::Panic));
}

const SHORT: Duration = Duration::from_millis(400);

fn it_hangs_before_the_start() {
    let why = "was not ready within 400ms: it never took up the handover link; \
               does it reach Service::builder().start() in time?";
    fails_in(
        World::new().configured(|c| c.ready_timeout = SHORT),
        |text| assert_eq!(text, why),
        steps(Step::Hang, Step::Go),
    );
}

fn it_hangs_and_ignores_sigterm() {
    let world = World::new().configured(|c| c.ready_timeout = SHORT);
    fails_in(world, |text| assert_eq!(text, "was not ready within 400ms"), steps(Step::Go, Step::Hang));
}

fn it_closes_its_link() {
    fails("closed its end of the handover link", steps(Step::CloseLink, Step::Go));
}

fn it_says_that_it_failed() {
    fails("said that it failed: the database is away", steps(Step::Go, Step::Fail("the database is away".into())));
}

fn it_returns_an_error() {
    fails(&ended("exited with status 1"), steps(Step::Go, Step::Error("no luck".into())));
}

fn it_is_killed() {
    let why = ended("was killed by SIGKILL");
    let mut world = World::new();
    let first = world.start();
    world.next(Step::Go, Step::Wait);
    let mut asked = world.ask_for_reload();
    signal(world.wait_for_birth(2), Signal::SIGKILL);
    assert_eq!(asked.rest().unwrap(), format!("reload failed: generation 2 {why}"));
    world.wait_for_only(&[first.pid]);
    world.stop();
}

/// The new one serves already, but the old one is main.
fn in_probation(end: impl FnOnce(Asked, u32), why: &str) {
    let world = World::new().configured(|c| c.probation = Duration::from_secs(30));
    let first = world.start();
    let mut asked = world.ask_for_reload();
    // A connection to the new one: the old one may accept for a moment longer.
    let (pid, connection) = until("a connection to the new one", || {
        let mut connection = Asked::new(world.address(), "/who", "keep-alive").unwrap();
        let who = connection.rest().unwrap();
        let pid = who.strip_prefix("2 ")?.split(' ').next()?.parse().ok()?;
        Some((pid, connection))
    });
    end(connection, pid);
    assert_eq!(asked.rest().unwrap(), format!("reload failed: generation 2 {why}"));
    assert_eq!(world.who(), first, "it accepts again");
    world.wait_for_only(&[first.pid]);
    assert!(!world.manager().all().iter().any(|d| d.field("MAINPID").is_some()));
    world.stop();
}

fn it_dies_in_probation() {
    in_probation(|mut new, _| _ = new.again("/die").unwrap_err(), &ended("exited with status 9"));
}

fn it_is_killed_in_probation() {
    in_probation(|_, pid| signal(pid, Signal::SIGKILL), &ended("was killed by SIGKILL"));
}

fn says(frames: &[&str]) -> impl FnOnce(&mut World) {
    steps(Step::Say(frames.iter().map(|&f| f.to_owned()).collect()), Step::Go)
}

const STARTED: &str = r#"handover/1 {"type":"started","version":"9.9.9"}"#;
const READY: &str = r#"handover/1 {"type":"ready"}"#;

fn it_does_not_switch() {
    // What is new to us is skipped.
    let news = r#"handover/1 {"type":"weather","rain":true}"#;
    fails("did not confirm the switch within 5s", says(&[STARTED, news, READY]));
}

fn it_speaks_another_protocol() {
    let why = r#"cannot be understood: the other generation speaks another handover protocol: expected "handover/1", "#;
    let got = r#"got "handover/2 {\"type\":\"started\"}"; restart the service once instead of reloading it"#;
    fails(&format!("{why}{got}"), says(&[r#"handover/2 {"type":"started"}"#]));
}

fn it_speaks_garbage() {
    let check =
        |text: &str| assert!(text.starts_with("cannot be understood: a handover frame cannot be read: "), "{text}");
    fails_in(World::new(), check, says(&["handover/1 {]"]));
}

fn it_says_too_much() {
    let check = |text: &str| assert!(text.contains("too long"), "{text}");
    fails_in(World::new(), check, says(&["x".repeat(70_000).as_str()]));
}

fn did_not_start(why: &str) -> impl Fn(&str) {
    move |text| {
        assert!(text.starts_with("did not start: ") && text.contains("/web cannot be started: "), "{text}");
        assert!(text.contains(why), "{text}");
    }
}

fn it_is_missing() {
    let remove = |world: &mut World| fs::remove_file(world.path("web")).unwrap();
    fails_in(World::new(), did_not_start("it, or the interpreter that it names, is missing: No such file"), remove);
}

fn it_is_not_executable() {
    let spoil = |world: &mut World| {
        world.install(|new| {
            fs::write(new, "#!/bin/sh\n").unwrap();
            fs::set_permissions(new, fs::Permissions::from_mode(0o644)).unwrap();
        });
    };
    fails_in(World::new(), did_not_start("it is not executable for this user: Permission denied"), spoil);
}

fn it_is_no_program() {
    let spoil = |world: &mut World| world.install(|new| write_executable(new, b"hello\n"));
    fails_in(World::new(), did_not_start("it is not a program for this machine: Exec format error"), spoil);
}

fn its_directory_is_gone() {
    let world = World::new();
    fs::create_dir(world.path("cwd")).unwrap();
    world.started(world.program().directory(world.path("cwd")));
    fs::remove_dir(world.path("cwd")).unwrap();
    let cwd = fs::canonicalize(world.path("")).unwrap().join("cwd");
    world.reload_to(2);
    let said = format!("the working directory {} is gone: the next generation starts in /", cwd.display());
    assert!(world.log().contains(&said), "{}", world.log());
    assert_eq!(world.get("/directory").unwrap(), "/");
    fs::create_dir(world.path("cwd")).unwrap();
    world.reload_to(3);
    assert_eq!(world.get("/directory").unwrap(), cwd.display().to_string());
    world.stop();
}

/// It takes its sockets from `LISTEN_FDS`, and knows nothing of us.
fn it_is_another_program() {
    let check = |text: &str| assert!(text.starts_with("was not ready within 400ms: it never took up the"), "{text}");
    fails_in(World::new().configured(|c| c.ready_timeout = SHORT), check, |world| {
        world.install(|new| write_executable(new, b"#!/bin/sh\nexec /bin/sleep 1000\n"));
    });
}

fn script(assignments: &'static str) -> impl FnOnce(&mut World) {
    move |world| world.install(|new| world.script(new, assignments))
}

fn its_notify_socket_is_malformed() {
    let why = "said that it failed: NOTIFY_SOCKET=\"nonsense\" is no path, @name or vsock:CID:PORT \
               (vsock-stream, vsock-dgram, vsock-seqpacket)";
    fails(why, script("export NOTIFY_SOCKET=nonsense"));
}

fn its_sockets_are_malformed() {
    let why = "said that it failed: LISTEN_FDS=\"one\" is not a number of file descriptors";
    fails(why, script("export LISTEN_FDS=one"));
}

fn it_needs_a_socket_that_nobody_passed() {
    let why = "said that it failed: no socket named \"admin\" was passed, there is nothing more: \
               set FileDescriptorName=admin in the .socket unit";
    fails(why, |world| world.configure(|c| c.needs = Some("admin".into())));
}

fn the_state_cannot_be_made() {
    let world = World::new().configured(|c| c.state = State::Panic);
    let first = world.start();
    let outcome = world.reload();
    let start = "reload failed: generation 2 did not start: the application's handover state failed: ";
    assert!(outcome.starts_with(start) && outcome.contains("no state today"), "{outcome}");
    assert_eq!(world.who(), first);
    assert_eq!(world.born(), [first.pid], "nothing was started");
    world.stop();
}

fn five_in_a_row() {
    let mut world = World::new();
    let first = world.start();
    let load = world.load();
    let mut fds = 0;
    world.next(Step::Exit(3), Step::Go);
    for round in 0..5 {
        assert_eq!(world.reload(), format!("reload failed: generation 2 {}", ended("exited with status 3")));
        world.wait_for_only(&[first.pid]);
        if round == 0 {
            fds = world.settled_fds(&first);
        }
    }
    load.finish();
    until("no more fds than after the first", || (open_fds(first.pid) <= fds).then_some(()));
    assert!(!look(first.pid).unwrap().dead);
    world.next(Step::Go, Step::Go);
    world.reload_to(2);
    world.stop();
}
