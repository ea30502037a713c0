//! What newcomers do wrong, and what they are told.

use std::net::TcpListener;

use crate::world::{Setup, World};

/// It binds the address by itself, as it did before.
const BINDS: &str = "import socket, sys, time
host, port = sys.argv[1].rsplit(':', 1)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((host, int(port)))
listener.listen()
time.sleep(1000)";

fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn a_program_that_binds_its_address_is_told_of_the_one_that_is_open() {
    let address = free();
    let socket = format!("web={address}");
    let options = ["--socket", &socket, "--ready", "accept:web", "--ready-timeout", "10s"];
    let mut world =
        World::launch(Setup { options: &options, program: &["python3", "-c", BINDS, &address], ..Setup::default() });
    assert_eq!(world.ends().code(), Some(1));
    let log = world.log();
    assert!(log.contains("Address already in use"), "its own words: {log}");
    assert!(log.contains("exited with status 1; if it says that its address is in use: "), "{log}");
    assert!(log.contains("as its fd 3, and the program must take that instead of binding"), "{log}");
}

#[test]
fn a_program_that_listens_elsewhere_is_told_so() {
    let (passed, own) = (free(), free());
    let socket = format!("web={passed}");
    let options = ["--socket", &socket, "--ready", "accept:web", "--ready-timeout", "2s"];
    let mut world =
        World::launch(Setup { options: &options, program: &["python3", "-c", BINDS, &own], ..Setup::default() });
    assert_eq!(world.ends().code(), Some(1));
    let log = world.log();
    assert!(log.contains(&format!("it accepted no connection; it listens on {own} by itself")), "{log}");
}
