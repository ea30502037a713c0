//! Listening without systemd.

use crate::not_run;
use handover::systemd::activation::{Listener, SOCKET_MODE, bind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

fn one(address: &str) -> Listener {
    let mut listeners = bind(address).unwrap();
    assert_eq!(listeners.len(), 1, "{address}");
    listeners.remove(0)
}

fn shown(listener: &Listener) -> String {
    listener.local_addr().unwrap().to_string()
}

fn port(listener: &Listener) -> u16 {
    shown(listener).parse::<SocketAddr>().unwrap().port()
}

fn has_ipv6() -> bool {
    let there = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !there {
        not_run("this machine has no IPv6");
    }
    there
}

#[test]
fn tcp_addresses() {
    let listener = one("127.0.0.1:0");
    assert!(shown(&listener).starts_with("127.0.0.1:"));
    TcpStream::connect((Ipv4Addr::LOCALHOST, port(&listener))).unwrap();
    let Listener::Tcp(tcp) = listener.try_clone().unwrap() else { panic!() };
    tcp.accept().unwrap();
    assert_eq!(tcp.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

    let again = format!("127.0.0.1:{}", port(&listener));
    let error = bind(&again).unwrap_err();
    assert!(error.is_socket() && error.to_string().starts_with(&format!("cannot listen at {again}: ")), "{error}");

    let names = bind("localhost:0").unwrap();
    assert!(names.iter().all(|listener| { shown(listener).parse::<SocketAddr>().unwrap().ip().is_loopback() }));
    assert!(!names.is_empty());
}

#[test]
fn all_addresses_take_ipv4_and_ipv6() {
    for address in [":0", "0"] {
        let listener = one(address);
        TcpStream::connect((Ipv4Addr::LOCALHOST, port(&listener))).unwrap();
    }
    if has_ipv6() {
        for address in ["[::]:0", ":0"] {
            let listener = one(address);
            assert!(shown(&listener).starts_with("[::]:"));
            TcpStream::connect((Ipv4Addr::LOCALHOST, port(&listener))).unwrap();
            TcpStream::connect((Ipv6Addr::LOCALHOST, port(&listener))).unwrap();
        }
        let only = one("[::1]:0");
        TcpStream::connect((Ipv6Addr::LOCALHOST, port(&only))).unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port(&only))).unwrap_err();
    }
}

/// A connection of the last process is in TIME_WAIT, and the port is free all the same.
#[test]
fn the_port_of_a_process_that_is_gone_can_be_bound() {
    let listener = one("127.0.0.1:0");
    let address = shown(&listener);
    let client = TcpStream::connect(&address).unwrap();
    let Listener::Tcp(tcp) = listener else { panic!() };
    drop(tcp.accept().unwrap()); // the server closes first: TIME_WAIT is on its side
    drop((client, tcp));
    one(&address);
}

#[test]
fn what_is_no_address() {
    for address in ["", ":", ":x", "127.0.0.1", "1.2.3.4:65536", ":65536", "unix:", "unix:web.sock", "web.sock", "@"] {
        match bind(address) {
            Err(error) => assert!(error.is_invalid() && error.to_string().contains(&format!("{address:?}")), "{error}"),
            Ok(listeners) => panic!("{address:?} is {listeners:?}"),
        }
    }
    let long = format!("/{}", "x".repeat(108));
    assert!(bind(&long).unwrap_err().is_invalid());
    assert!(bind(&format!("@{long}")).unwrap_err().is_invalid());
}

#[test]
fn a_unix_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let address = path.to_str().unwrap();
    let listener = one(address);
    assert_eq!(shown(&listener), format!("unix:{address}"));
    UnixStream::connect(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, SOCKET_MODE);

    let error = bind(address).unwrap_err();
    assert!(error.is_socket() && error.to_string().starts_with(&format!("somebody listens at {address} already")));
    UnixStream::connect(&path).unwrap();

    drop(listener);
    let replaced = one(&format!("unix:{address}"));
    UnixStream::connect(&path).unwrap();
    drop(replaced);
    assert!(path.exists(), "another generation may still be using it");
}

#[test]
fn a_unix_path_that_is_something_else_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let refused = |path: &Path| {
        let error = bind(path.to_str().unwrap()).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        error.to_string()
    };

    std::fs::write(at("file"), "precious").unwrap();
    assert!(refused(&at("file")).contains("not a socket"));
    assert_eq!(std::fs::read_to_string(at("file")).unwrap(), "precious");

    // Not followed: what it points to may be anybody's.
    let target = UnixListener::bind(at("target")).unwrap();
    drop(target);
    std::os::unix::fs::symlink(at("target"), at("link")).unwrap();
    assert!(refused(&at("link")).contains("not a socket"));
    assert!(at("target").exists());

    let datagram = UnixDatagram::bind(at("datagram")).unwrap();
    assert!(refused(&at("datagram")).contains(" already: "));
    drop(datagram);

    // A queue that is full is somebody's too.
    let busy = UnixListener::bind(at("busy")).unwrap();
    busy.set_nonblocking(true).unwrap();
    nix::sys::socket::listen(&busy, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _first = UnixStream::connect(at("busy")).unwrap();
    assert!(refused(&at("busy")).contains(" already: "));

    refused(&at("missing/web.sock"));
}

#[test]
fn an_abstract_name() {
    let name = format!("@handover-it-bind-{}", std::process::id());
    let listener = one(&name);
    assert_eq!(shown(&listener), format!("unix:{name}"));
    let error = bind(&format!("unix:{name}")).unwrap_err();
    assert!(error.is_socket() && error.to_string().contains(&name), "{error}");
}
