//! As PID 1 of a container: of a pid namespace of its own.

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::extra::{Act, configured};
use crate::{Case, cases};
use handover_testing::processes::{look, until};
use handover_testing::service::DIRECTORY;
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![
    a_reload_says_why_it_cannot_be,
    a_child_of_an_init_that_ends_with_it_refuses_reloads,
    a_reload_in_place_works,
    it_stops_and_reaps,
];

const UNSHARE: [&str; 4] = ["--pid", "--fork", "--mount-proc", "--kill-child"];

/// Needs root, or a kernel that lets everybody have namespaces.
pub(crate) fn is_possible() -> bool {
    let status = Command::new("unshare").args(UNSHARE).arg("true").stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn start(world: &World) -> Child {
    start_under(world, &[])
}

/// `init`: what is PID 1 instead of the service, and starts it.
fn start_under(world: &World, init: &[&str]) -> Child {
    let child = Command::new("unshare")
        .args(UNSHARE)
        .args(init)
        .arg(world.path("web"))
        .env(DIRECTORY, world.path("").to_str().unwrap().trim_end_matches('/'))
        .spawn()
        .unwrap();
    until("it to serve", || world.log().contains("generation 1 serves").then_some(()));
    child
}

fn unmanaged() -> World {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    World::without_manager().configured(|c| {
        c.listen = address.clone();
        configured(c, |e| e.admin = None);
    })
}

fn get(world: &World, path: &str) -> String {
    let config: serde_json::Value = serde_json::from_slice(&fs::read(world.path("config")).unwrap()).unwrap();
    handover_testing::client::get(config["listen"].as_str().unwrap().parse().unwrap(), path).unwrap()
}

fn stop(world: &World, child: &Child) {
    // What it is in its own namespace.
    let own: u32 = get(world, "/who").split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(get(world, "/stop"), "true");
    let pid = child.id();
    // The harness waits for every child of this process.
    assert_eq!(handover_testing::processes::end_of(pid), handover_testing::processes::End::Exited(0));
    assert_eq!(world.result_of(own), "ok");
}

fn a_reload_says_why_it_cannot_be() {
    let world = unmanaged();
    let child = start(&world);
    let outcome = get(&world, "/reload");
    assert!(outcome.contains("did not start: this process is PID 1"), "{outcome}");
    assert!(outcome.contains("reload in place (Builder::on_reload_in_place)"), "{outcome}");
    assert!(get(&world, "/who").starts_with("1 1 "));
    stop(&world, &child);
}

fn a_child_of_an_init_that_ends_with_it_refuses_reloads() {
    let inits: [&[&str]; 4] =
        [&["sh", "-c", "\"$@\"; exit $?", "sh"], &["tini", "--"], &["dumb-init", "--"], &["catatonit", "--"]];
    for init in inits {
        if Command::new(init[0]).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            continue; // not installed here; the shell always is
        }
        let world = unmanaged();
        let child = start_under(&world, init);
        assert!(world.log().contains("reloads are refused: PID 1 of this container"), "{init:?}: {}", world.log());
        let outcome = get(&world, "/reload");
        assert!(outcome.contains("let `handover run -- PROGRAM` be PID 1 instead of it"), "{init:?}: {outcome}");
        assert!(get(&world, "/who").starts_with("1 "), "{init:?}");
        stop(&world, &child);
    }
}

fn a_reload_in_place_works() {
    let world = unmanaged().configured(|c| configured(c, |e| e.in_place = Some(Act::Note)));
    let child = start(&world);
    assert_eq!(get(&world, "/reload"), "asked\nInPlace");
    assert!(get(&world, "/who").starts_with("1 1 "));
    stop(&world, &child);
}

fn it_stops_and_reaps() {
    let world = unmanaged().configured(|c| configured(c, |e| e.family = true));
    let child = start(&world);
    let family = until("the family", || fs::read_to_string(world.path("family")).ok().filter(|text| !text.is_empty()));
    assert_eq!(family, "Some(3) Some(4)");
    let children = || fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let service = children().trim().to_owned();
    let zombies = || {
        let of_it = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let of_it = of_it.filter_map(look).filter(|p| p.dead && p.parent.to_string() == service);
        of_it.count()
    };
    until("no zombies", || (zombies() == 0).then_some(()));
    stop(&world, &child);
}
