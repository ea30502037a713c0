//! A reload is never worse than none: what real services and their units got wrong.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::{Case, cases};
use handover_testing::client::{self, Asked};
use handover_testing::processes::{End, end_of, signal, until};
use handover_testing::service::Step;
use handover_testing::world::{Who, World, launch, write_executable};

pub(crate) const CASES: &[Case] = cases![
    a_manager_that_is_not_told_keeps_the_main_process,
    a_port_that_the_next_one_gave_up_refuses_at_once,
    the_directory_is_kept_as_a_path,
    a_directory_that_is_gone_is_left_with_a_warning,
    a_socket_of_another_name_is_an_error,
    entries_of_others_stay_in_the_store,
    what_a_crash_would_start_is_told,
    a_path_that_was_removed_is_warned_of,
    a_long_reload_asks_the_manager_for_time,
];

/// `Type=simple` with `ExecReload=/bin/kill -HUP $MAINPID`: systemd would take our exit for the
/// service's end.
fn a_manager_that_is_not_told_keeps_the_main_process() {
    let world = World::without_manager();
    let who = world.started(world.program().env("INVOCATION_ID", "0123456789abcdef0123456789abcdef"));
    let line = "write Type=notify";
    assert!(world.log().contains(line), "a warning at the start:\n{}", world.log());
    let outcome = world.reload();
    assert!(outcome.contains("NOTIFY_SOCKET") && outcome.contains(line), "{outcome}");
    signal(who.pid, Signal::SIGHUP);
    until("the refusal of the signal's reload", || (world.log().matches("reload failed").count() == 2).then_some(()));
    assert_eq!(world.who(), who);
    assert_eq!(world.born(), [who.pid]);
    world.stop();
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn who_at(address: SocketAddr) -> String {
    client::get(address, "/who").unwrap()
}

/// The address is another one in the new configuration, and the old generation has a slow request.
fn a_port_that_the_next_one_gave_up_refuses_at_once() {
    let (before, after) = (free_address(), free_address());
    let mut world = World::without_manager().configured(|c| c.listen = before.to_string());
    let first = launch(world.bare(world.path("web")));
    until("generation 1", || TcpStream::connect(before).ok());
    let mut held = Asked::new(before, "/hold", "keep-alive").unwrap();
    held.chunk().unwrap();
    world.configure(|c| c.listen = after.to_string());
    signal(first, Signal::SIGHUP);
    let second = world.wait_for_birth(2);
    until("generation 2", || TcpStream::connect(after).ok());
    until("the old port to be refused", || {
        TcpStream::connect(before).err().filter(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    assert!(held.is_open(), "generation 1 still drains");
    assert_eq!(who_at(after), format!("2 {second} original"));
    drop(held);
    assert_eq!(end_of(first), End::Exited(0));
    signal(second, Signal::SIGTERM);
    assert_eq!(end_of(second), End::Exited(0));
}

/// Two releases, and the link that a deploy moves.
struct Deployed {
    world: World,
    current: PathBuf,
}

impl Deployed {
    fn new() -> Self {
        let world = World::new();
        let current = world.path("current");
        for release in ["1", "2"] {
            let directory = world.path("releases").join(release);
            fs::create_dir_all(&directory).unwrap();
            symlink(std::env::current_exe().unwrap(), directory.join("web")).unwrap();
        }
        symlink("releases/1", &current).unwrap();
        Self { world, current }
    }

    fn release(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.world.path("releases")).unwrap().join(name)
    }

    fn deploy(&self, name: &str) {
        symlink(Path::new("releases").join(name), self.world.path("current.new")).unwrap();
        fs::rename(self.world.path("current.new"), &self.current).unwrap();
    }

    fn directory(&self) -> PathBuf {
        self.world.get("/directory").unwrap().into()
    }
}

fn the_directory_is_kept_as_a_path() {
    for said in [true, false] {
        let deployed = Deployed::new();
        let world = &deployed.world;
        // By $PWD, as a shell says it; else by the program, which is started from there.
        let program = match said {
            true => world.program().env("PWD", &deployed.current),
            false => world.program_at(deployed.current.join("web")),
        };
        world.started(program.directory(&deployed.current));
        assert_eq!(deployed.directory(), deployed.release("1"));
        deployed.deploy("2");
        fs::remove_dir_all(deployed.release("1")).unwrap();
        world.reload_to(2);
        assert_eq!(deployed.directory(), deployed.release("2"));
        deployed.world.stop();
    }
}

fn a_directory_that_is_gone_is_left_with_a_warning() {
    let deployed = Deployed::new();
    let world = &deployed.world;
    world.started(world.program().env("PWD", &deployed.current).directory(&deployed.current));
    fs::remove_file(&deployed.current).unwrap();
    world.reload_to(2);
    assert_eq!(deployed.directory(), deployed.release("1"), "where the old one is");
    world.wait_for_log("/current");
    fs::remove_dir_all(deployed.release("1")).unwrap();
    world.reload_to(3);
    assert_eq!(deployed.directory(), Path::new("/"));
    deployed.deploy("2");
    world.reload_to(4);
    assert_eq!(deployed.directory(), deployed.release("2"), "it was not forgotten");
    deployed.world.stop();
}

/// A .socket unit without `FileDescriptorName=`, and a program that asks for "http".
fn a_socket_of_another_name_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for listen in [address, "127.0.0.1:0".into()] {
        let world = World::new().configured(|c| c.listen = listen);
        let pid = launch(world.bare(world.path("web")).socket("web.socket", taken.try_clone().unwrap()));
        let result = world.result_of(pid);
        assert!(result.contains("\"web.socket\"") && result.contains("\"http\""), "{result}");
        assert!(result.contains("FileDescriptorName=http"), "{result}");
        assert_eq!(end_of(pid), End::Exited(1));
    }
}

/// `ExecStartPre=systemd-notify --fd=…`.
fn entries_of_others_stay_in_the_store() {
    let world = World::new().with_store();
    let theirs = fs::File::open("/dev/null").unwrap();
    world.started(world.program().socket("theirs", theirs));
    let second = world.reload_to(2);
    world.settled_fds(&second);
    let removed: Vec<_> = world.manager().all().into_iter().filter(|d| d.has("FDSTOREREMOVE=1")).collect();
    assert!(!removed.iter().any(|d| d.field("FDNAME") == Some("theirs")), "{removed:?}");
    world.stop();
}

fn a_long_reload_asks_the_manager_for_time() {
    let mut world = World::new();
    let first = world.start();
    let mark = world.manager().mark();
    world.next(Step::Wait, Step::Go);
    let asked = world.ask_for_reload();
    world.wait_for_a_waiting_one();
    let extended = world.manager().wait_from(mark, "more time", |d| d.field("EXTEND_TIMEOUT_USEC").is_some());
    assert_eq!(extended.pid, first.pid);
    world.go();
    let Who { pid, .. } = world.wait_for_generation(2);
    world.wait_for_status(mark, "generation 2 serves");
    drop(asked);
    assert_ne!(pid, first.pid);
    world.stop();
}

/// The habit of a program that binds itself, which removes the path of the .socket unit as well.
fn a_path_that_was_removed_is_warned_of() {
    let world = World::new().configured(|c| c.needs = Some("local".into()));
    let path = world.path("local.sock");
    let local = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let program = |world: &World| world.program().socket("local", local.try_clone().unwrap());
    world.started(program(&world));
    assert!(!world.log().contains("is gone"), "{}", world.log());
    fs::remove_file(&path).unwrap();
    world.reload_to(2);
    world.wait_for_log(&format!("the path of the socket \"local\", unix:{}, is gone", path.display()));
    world.stop();
}

fn what_a_crash_would_start_is_told() {
    let world = World::new();
    world.start();
    world.install(|new| write_executable(new, b"#!/bin/sh\nexit 7\n"));
    let mark = world.manager().mark();
    let outcome = world.reload();
    assert!(outcome.contains("generation 2 exited with status 7"), "{outcome}");
    let said = format!(
        "a crash would start the file that failed as generation 2: {}, sha256 {}",
        world.path("web").display(),
        "4d8fe24768718d56bd8c282eb86ad8c8411b2d3d4f8cc99d84fc37f55f7d3780"
    );
    world.wait_for_log(&said);
    let told =
        world.manager().wait_from(mark, "so", |d| d.field("STATUS").is_some_and(|status| status.contains(&said)));
    assert!(told.field("STATUS").unwrap().starts_with("generation 1 serves; reload failed: generation 2 exited"));
    world.install(|new| world.copy(new, "good"));
    world.reload_to(2);
    world.stop();
}
