//! What a first start makes of the environment it finds.

use std::fs;
use std::net::SocketAddr;

use handover::Program;
use nix::sys::signal::Signal;

use crate::{Case, cases};
use handover_testing::client;
use handover_testing::processes::{End, end_of, look, signal, until};
use handover_testing::world::{World, launch};

pub(crate) const CASES: &[Case] = cases![
    without_anything_it_binds_and_reloads,
    sockets_of_another_process_are_left_alone,
    a_malformed_notify_socket_is_an_error,
    malformed_sockets_are_an_error,
    a_malformed_watchdog_is_an_error,
    a_missing_socket_is_an_error,
    links_of_another_process_are_left_alone,
    behind_a_wrapper_generations_are_children_of_each_other,
];

/// Where it listens, as the kernel knows it, other than at the socket that was passed.
fn bound(pid: u32, passed: SocketAddr) -> SocketAddr {
    until("a listening socket", || {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let links: Vec<_> = fds.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
        fs::read_to_string(format!("/proc/{pid}/net/tcp")).ok()?.lines().skip(1).find_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let socket = format!("socket:[{}]", fields[9]);
            let ours = fields[3] == "0A" && links.iter().any(|link| link.as_os_str() == socket.as_str());
            let port = fields[1].split_once(':')?.1;
            let address = SocketAddr::from(([127, 0, 0, 1], u16::from_str_radix(port, 16).unwrap()));
            (ours && address != passed).then_some(address)
        })
    })
}

fn serves_and_reloads(world: &World, pid: u32) {
    let address = bound(pid, world.address());
    let who = || client::get(address, "/who").unwrap();
    assert_eq!(who(), format!("1 {pid} original"));
    signal(pid, Signal::SIGHUP);
    let second = world.wait_for_birth(2);
    until("the next generation", || (who() == format!("2 {second} original")).then_some(()));
    assert_eq!(end_of(pid), End::Exited(0));
    signal(second, Signal::SIGTERM);
    assert_eq!(end_of(second), End::Exited(0));
    world.wait_for_nobody();
}

fn without_anything_it_binds_and_reloads() {
    let world = World::without_manager();
    let pid = launch(world.bare(world.path("web")));
    serves_and_reloads(&world, pid);
}

/// A script changes what only its process may know.
fn scripted(world: &World, assignments: &str, program: impl FnOnce(&World) -> Program) -> u32 {
    world.install(|new| world.script(new, assignments));
    launch(program(world))
}

fn sockets_of_another_process_are_left_alone() {
    let world = World::without_manager();
    let pid = scripted(&world, "export LISTEN_PID=1", World::program);
    serves_and_reloads(&world, pid);
}

fn links_of_another_process_are_left_alone() {
    let world = World::without_manager();
    let pid = scripted(&world, "export HANDOVER_PID=1 HANDOVER_FD=3", World::program);
    assert_eq!(world.wait_for_generation(1).pid, pid);
    world.stop();
}

/// The manager started the wrapper, so its child's parent is not the manager, and CLONE_PARENT
/// would go wrong.
fn behind_a_wrapper_generations_are_children_of_each_other() {
    let world = World::new();
    let first = scripted(&world, "export SYSTEMD_EXEC_PID=1", World::program);
    world.manager().wait("READY=1", |d| d.pid == first && d.has("READY=1"));
    let (_, held) = world.hold();
    let second = world.reload_to(2).pid;
    assert_eq!(look(second).unwrap().parent, first);
    let (_, held_too) = world.hold();
    let third = world.reload_to(3).pid;
    assert_eq!(look(third).unwrap().parent, second);
    drop((held, held_too));
    assert_eq!((end_of(first), end_of(second)), (End::Exited(0), End::Exited(0)));
    world.stop();
}

fn refuses(world: &World, pid: u32, why: &str) {
    assert_eq!(end_of(pid), End::Exited(1));
    assert_eq!(world.result_of(pid), why);
}

fn a_malformed_notify_socket_is_an_error() {
    let world = World::without_manager();
    let pid = launch(world.program().env("NOTIFY_SOCKET", "vsock:"));
    let why =
        "NOTIFY_SOCKET=\"vsock:\" is no path, @name or vsock:CID:PORT (vsock-stream, vsock-dgram, vsock-seqpacket)";
    refuses(&world, pid, why);
}

fn malformed_sockets_are_an_error() {
    let world = World::new();
    let pid = scripted(&world, "export LISTEN_FDS=-1", World::program);
    refuses(&world, pid, "LISTEN_FDS=\"-1\" is not a number of file descriptors");
}

fn a_malformed_watchdog_is_an_error() {
    let world = World::new();
    let pid = launch(world.program().env("WATCHDOG_USEC", "soon"));
    refuses(&world, pid, "WATCHDOG_USEC=\"soon\" is not a number");
}

fn a_missing_socket_is_an_error() {
    let world = World::new().configured(|c| c.needs = Some("admin".into()));
    let pid = launch(world.program());
    let why = "no socket named \"admin\" was passed, there is nothing more: \
               set FileDescriptorName=admin in the .socket unit";
    refuses(&world, pid, why);
}
