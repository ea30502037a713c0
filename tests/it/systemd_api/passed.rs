//! Sockets that are passed by `LISTEN_FDS`.

use crate::child::{RUNTIME, SCRIPT, Started, arguments};
use crate::not_run;
use handover::systemd::activation::{Activation, SocketKind, Source};
use handover::systemd::environment::Environment;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use std::fs::File;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

const OURS: (&str, &str) = ("LISTEN_PID", "$$");

fn tcp() -> (OwnedFd, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener.into(), address)
}

#[test]
fn listeners_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    let ((first, one), (second, two)) = (tcp(), tcp());
    let unix = UnixListener::bind(&path).unwrap();
    let fds = [first, unix.into(), second];
    let names = [OURS, ("LISTEN_FDS", "3"), ("LISTEN_FDNAMES", "http:admin:http")];
    let child = Started::new(&fds, &names, &["listeners http", "listeners admin", "listeners http", "variables"]);
    let expected = [
        "Environment [\"http\", \"admin\"]".to_owned(),
        format!("3 {one} 5 {two}"),
        format!("4 unix:{}", path.display()),
        "error the sockets named \"http\" were already taken; a name can be taken once".to_owned(),
        "false false".to_owned(),
    ];
    assert_eq!(child.report, expected);
    let flags = child.flags();
    for fd in 3..=5 {
        assert_eq!(flags[&fd] & libc::O_CLOEXEC, libc::O_CLOEXEC, "{flags:?}");
        assert_eq!(flags[&fd] & libc::O_NONBLOCK, libc::O_NONBLOCK, "{flags:?}");
    }
}

/// systemd passes nonblocking ones, and so does a service: std's loop must not end with WouldBlock.
#[test]
fn stds_loop_waits_for_a_client() {
    let (listener, address) = tcp();
    let listener = TcpListener::from(listener);
    listener.set_nonblocking(true).unwrap();
    let names = [OURS, ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "http")];
    let shared = listener.try_clone().unwrap();
    let client = std::thread::spawn(move || {
        // Not before accept(2) would wait, in all processes that share the socket.
        handover_testing::processes::until("a listener that blocks", || {
            let flags = OFlag::from_bits_retain(fcntl(&shared, FcntlArg::F_GETFL).unwrap());
            (!flags.contains(OFlag::O_NONBLOCK)).then_some(())
        });
        let mut connection = TcpStream::connect(address).unwrap();
        connection.set_read_timeout(Some(crate::PATIENCE)).unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).unwrap();
        text
    });
    let child = Started::new(&[listener.into()], &names, &["hello http"]);
    assert_eq!(child.report[1], "served");
    assert_eq!(client.join().unwrap(), "hello\n");
}

#[test]
fn a_missing_name_is_told_which_there_are() {
    let fds = [tcp().0, tcp().0];
    let names = [OURS, ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "web.socket:admin")];
    let child = Started::new(&fds, &names, &["listeners http", "take admin", "take web.socket", "take http"]);
    let start = "error no socket named \"http\" was passed, there is";
    let end = "set FileDescriptorName=http in the .socket unit";
    assert_eq!(child.report[1], format!("{start} [\"web.socket\", \"admin\"]: {end}"));
    assert_eq!(child.report[2], "a listening TCP socket");
    assert_eq!(child.report[4], format!("{start} nothing more: {end}"));
}

#[test]
fn what_is_for_another_process_is_not_touched() {
    for (pid, source, why) in [
        (Some("1"), "NotForUs(Some(1)) []", "LISTEN_PID=1 is not this process"),
        (None, "NotForUs(None) []", "LISTEN_FDS is set without LISTEN_PID"),
    ] {
        let mut variables = vec![("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "http")];
        variables.extend(pid.map(|pid| ("LISTEN_PID", pid)));
        let child = Started::new(&[tcp().0], &variables, &["listeners http", "close", "variables"]);
        assert_eq!(child.report[0], source);
        assert!(child.report[1].contains(why), "{:?}", child.report);
        assert_eq!(child.report[2], "[]");
        assert_eq!(child.report[3], format!("{} true", pid.is_some()));
        assert_eq!(child.flags()[&3] & libc::O_CLOEXEC, 0);
    }
    let child = Started::new(&[], &[OURS], &["listeners http"]);
    assert_eq!(child.report[0], "Nothing []");
    assert!(child.report[1].ends_with("LISTEN_FDS is not set, none was passed"), "{:?}", child.report);
}

#[test]
fn malformed_variables_and_closed_fds() {
    for (fds, names, error) in [
        ("two", "a", "LISTEN_FDS=\"two\" is not a number of file descriptors"),
        ("2", "a", "LISTEN_FDNAMES=\"a\" has 1 names for LISTEN_FDS=2"),
        ("2", "a:b", "LISTEN_FDS=2: fd 4 named \"b\" is not open"),
        ("2000000000", "a", "LISTEN_FDS=\"2000000000\" is more than this process can have open"),
    ] {
        let child = Started::new(&[tcp().0], &[OURS, ("LISTEN_FDS", fds), ("LISTEN_FDNAMES", names)], &[]);
        assert!(child.report[0].starts_with(&format!("error {error}")), "{:?}", child.report);
    }
}

#[test]
fn what_nobody_took_is_closed() {
    let fds = [tcp().0, tcp().0, File::open("/dev/null").unwrap().into()];
    let names = [OURS, ("LISTEN_FDS", "3"), ("LISTEN_FDNAMES", "http:old:old")];
    let child = Started::new(&fds, &names, &["listeners http", "close", "close", "listeners old"]);
    assert_eq!(child.report[2], "[\"old\", \"old\"]");
    assert_eq!(child.report[3], "[]");
    assert!(child.report[4].starts_with("error no socket named \"old\" was passed"));
    let open: Vec<_> = child.flags().into_keys().collect();
    assert_eq!(open, [3]);
}

#[test]
fn sockets_can_be_taken_from_the_environment_once() {
    let child = Started::new(&[tcp().0], &[OURS, ("LISTEN_FDS", "1")], &["take unknown", "again"]);
    assert_eq!(child.report[1], "a listening TCP socket");
    assert!(child.report[2].starts_with("error LISTEN_FDS: the sockets were already taken"), "{:?}", child.report);
    assert!(child.flags().contains_key(&3));

    let foreign = [OURS, ("LISTEN_FDS", "1"), ("LISTEN_FDS_FIRST_FD", "3")];
    let child = Started::new(&[tcp().0], &foreign, &[]);
    assert!(child.report[0].starts_with("error LISTEN_FDS_FIRST_FD=\"3\" is not systemd's"), "{:?}", child.report);
}

#[test]
fn what_arrives_twice_is_kept_once() {
    let ((http, address), (other, _)) = (tcp(), tcp());
    let fds = [http.try_clone().unwrap(), http.try_clone().unwrap(), other, http];
    let names = [OURS, ("LISTEN_FDS", "4"), ("LISTEN_FDNAMES", "http:http:admin:stored")];
    let child = Started::new(&fds, &names, &["listeners http", "listeners stored", "close"]);
    assert_eq!(child.report[1..], [format!("3 {address}"), format!("6 {address}"), "[\"admin\"]".to_owned()]);
    // The duplicate is closed, not leaked; under another name it can be asked for.
    assert_eq!(child.flags().into_keys().collect::<Vec<_>>(), [3, 6]);
}

/// One file that is opened twice has one inode, but two positions.
#[test]
fn files_are_the_same_only_if_opened_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let open = || OwnedFd::from(File::open(file.path()).unwrap());
    let first = open();
    let fds = vec![first.try_clone().unwrap(), first, open()];
    let mut activation = given(fds.into_iter().map(|fd| ("state", fd)));
    assert_eq!(activation.take("state").unwrap().len(), 2);
}

fn given<'a>(fds: impl IntoIterator<Item = (&'a str, OwnedFd)>) -> Activation {
    Activation::from_fds(fds.into_iter().map(|(name, fd)| (name.to_owned(), fd)).collect()).unwrap()
}

fn seqpacket(path: &Path, listening: bool) -> OwnedFd {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    if listening {
        listen(&fd, Backlog::MAXCONN).unwrap();
    }
    fd
}

#[test]
fn every_kind_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (listening, address) = tcp();
    let bound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let fifo = File::options().read(true).write(true).open(at("fifo")).unwrap();
    let netlink = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let file = tempfile::tempfile().unwrap();
    let kinds: [(OwnedFd, SocketKind, &str); 13] = [
        (TcpStream::connect(address).unwrap().into(), SocketKind::TcpStream, "a TCP socket that does not listen"),
        (bound, SocketKind::TcpStream, "a TCP socket that does not listen"),
        (listening, SocketKind::TcpListener, ""),
        (UnixListener::bind(at("unix")).unwrap().into(), SocketKind::UnixListener, ""),
        (stream.into(), SocketKind::UnixStream, "a Unix stream socket that does not listen"),
        (seqpacket(&at("s1"), true), SocketKind::UnixSeqpacketListener, "a listening Unix seqpacket socket"),
        (seqpacket(&at("s2"), false), SocketKind::UnixSeqpacket, "a Unix seqpacket socket that does not listen"),
        (UnixDatagram::bind(at("d")).unwrap().into(), SocketKind::UnixDatagram, "a Unix datagram socket"),
        (UdpSocket::bind("127.0.0.1:0").unwrap().into(), SocketKind::Udp, "a UDP socket"),
        (fifo.into(), SocketKind::Fifo, "a fifo"),
        (netlink, SocketKind::Netlink, "a netlink socket"),
        (File::open("/dev/null").unwrap().into(), SocketKind::Special, "a special file"),
        (file.into(), SocketKind::Other, "not a socket"),
    ];
    for (fd, kind, what) in kinds {
        let number = fd.as_raw_fd();
        let mut activation = given([("http", fd)]);
        assert_eq!(activation.source(), Source::Given);
        match activation.listeners("http") {
            Ok(listeners) => {
                assert!(what.is_empty() && listeners.len() == 1, "{kind:?}");
                continue;
            }
            Err(error) => {
                let expected = format!(
                    "LISTEN_FDS: fd {number} named \"http\" is {what}; a listening stream socket is needed: \
                     check ListenStream= in the .socket unit"
                );
                assert!(error.is_socket());
                assert_eq!(error.to_string(), expected);
            }
        }
        // An error takes nothing.
        assert_eq!(activation.take("http").unwrap()[0].kind(), kind);
    }
}

#[test]
fn one_wrong_socket_of_a_name_takes_none() {
    let mut activation = given([("http", tcp().0), ("http", UdpSocket::bind("127.0.0.1:0").unwrap().into())]);
    assert!(activation.listeners("http").unwrap_err().is_socket());
    assert_eq!(activation.names(), ["http"]);
    assert_eq!(activation.take("http").unwrap().len(), 2);
    assert!(activation.names().is_empty());
}

/// With it the runtime would lose its epoll instance to whoever closes what nobody serves.
#[test]
fn what_the_process_itself_has_opened_is_not_passed() {
    let variables = [OURS, ("LISTEN_FDS", "1"), (RUNTIME, "1")];
    let child = Started::new(&[], &variables, &["after"]);
    assert!(
        child.report[0].contains("error LISTEN_FDS=1: fd 3 named \"unknown\" was opened in this process"),
        "{:?}",
        child.report
    );
    assert_eq!(child.report[1], "the runtime is well");
}

/// systemd's own tool, which needs no service manager.
#[test]
fn by_systemd_socket_activate() {
    let Some(tool) = ["/usr/bin/systemd-socket-activate"].into_iter().find(|path| Path::new(path).exists()) else {
        return not_run("there is no systemd-socket-activate");
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.sock");
    // It executes the service when a connection is there; ours is, as soon as it listens.
    let connection = std::thread::spawn({
        let path = path.clone();
        move || {
            let deadline = std::time::Instant::now() + crate::PATIENCE;
            loop {
                match UnixStream::connect(&path) {
                    Err(_) if std::time::Instant::now() < deadline => std::thread::yield_now(),
                    connection => return connection.unwrap(),
                }
            }
        }
    });
    let mut command = Command::new(tool);
    command.arg("--fdname=http").arg("-l").arg(&path).arg(format!("--setenv={SCRIPT}=listeners http"));
    command.arg(std::env::current_exe().unwrap()).args(arguments());
    let child = Started::spawn(command, 1);
    assert_eq!(child.report[..], ["Environment [\"http\"]".to_owned(), format!("3 unix:{}", path.display())]);
    assert_eq!(child.flags()[&3] & libc::O_CLOEXEC, libc::O_CLOEXEC);
    drop(connection.join().unwrap());
}

#[test]
fn an_environment_that_is_not_the_processes_own_takes_nothing() {
    // Its fds belong to somebody: they were never passed.
    let pid = std::process::id().to_string();
    let environment = Environment::from_pairs([("LISTEN_PID", pid.as_str()), ("LISTEN_FDS", "0")]);
    assert_eq!(Activation::from_env(&environment).unwrap().source(), Source::Nothing);
}
