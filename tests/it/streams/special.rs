//! FIFOs, message queues, netlink, special files, and the one connection of `Accept=yes`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use handover::drain::{Datagrams, Drain};
use handover::systemd::activation::{Activation, PassedConnection};
use nix::mqueue::{MQ_OFlag, MqAttr, mq_open, mq_send, mq_unlink};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, socket};
use nix::sys::stat::Mode;

use crate::support::{never, within};

fn given(name: &str, fd: impl Into<OwnedFd>) -> Activation {
    Activation::from_fds(vec![(name.to_owned(), fd.into())]).unwrap()
}

/// As systemd opens it.
fn fifo(directory: &tempfile::TempDir) -> (OwnedFd, File) {
    let path = directory.path().join("fifo");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    let ours = File::options().read(true).write(true).open(&path).unwrap();
    (ours.into(), File::options().write(true).open(&path).unwrap())
}

#[tokio::test]
async fn a_fifo_changes_hands_between_whole_lines() {
    let directory = tempfile::tempdir().unwrap();
    let (fd, mut writer) = fifo(&directory);
    let (old, new) = (Drain::new(), Drain::new());
    let mut second = given("log", fd.try_clone().unwrap());
    let mut first = given("log", fd);
    let mut here = Datagrams::new(&old, "log", first.take("log").unwrap().remove(0)).unwrap();
    let mut there = Datagrams::new(&new, "log", second.take("log").unwrap().remove(0)).unwrap();
    old.accept(true);
    let mut text = String::new();
    for number in 0..400 {
        writer.write_all(format!("line {number}\n").as_bytes()).unwrap();
        if number % 20 == 10 {
            let (from, to) = if number % 40 == 10 { (&old, &new) } else { (&new, &old) };
            let reader = if number % 40 == 10 { &mut here } else { &mut there };
            let got = within("some lines", reader.recv()).await.unwrap();
            assert!(got.bytes().ends_with(b"\n"));
            assert_eq!(from.active(), 1);
            text += std::str::from_utf8(got.bytes()).unwrap();
            to.accept(true);
            from.accept(false);
        }
    }
    drop(writer);
    text += std::str::from_utf8(within("the rest", here.recv()).await.unwrap().bytes()).unwrap();
    let expected: String = (0..400).map(|n| format!("line {n}\n")).collect();
    assert_eq!(text, expected);
    old.begin(Duration::ZERO);
    assert!(within("the end", here.recv()).await.is_none());
}

#[tokio::test]
async fn a_message_queue_gives_messages() {
    let name = format!("/handover-test-{}", std::process::id());
    let flags = MQ_OFlag::O_RDWR | MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_CLOEXEC;
    let attributes = MqAttr::new(0, 8, 4096, 0);
    let writer = mq_open(name.as_str(), flags, Mode::S_IRWXU, Some(&attributes)).unwrap();
    mq_unlink(name.as_str()).unwrap();
    let queue = writer.as_fd().try_clone_to_owned().unwrap();
    let drain = Drain::new();
    let mut passed = given("jobs", queue.try_clone().unwrap());
    assert_eq!(passed.take("jobs").unwrap()[0].kind().to_string(), "a message queue");
    let mut passed = given("jobs", queue.try_clone().unwrap());
    let mut jobs = Datagrams::new(&drain, "jobs", passed.take("jobs").unwrap().remove(0)).unwrap();
    drain.accept(true);
    for (message, priority) in [("later", 1), ("sooner", 2), ("", 0)] {
        mq_send(&writer, message.as_bytes(), priority).unwrap();
    }
    for expected in ["sooner", "later", ""] {
        let job = within("a job", jobs.recv()).await.unwrap();
        assert_eq!(job.bytes(), expected.as_bytes());
        assert!(job.reply(b"?").await.is_err());
    }
    never("another job", jobs.recv()).await;
}

#[tokio::test]
async fn netlink_gives_messages() {
    let protocol = SockProtocol::NetlinkRoute;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
    let drain = Drain::new();
    let mut passed = given("route", netlink.try_clone().unwrap());
    let mut route = Datagrams::new(&drain, "route", passed.take("route").unwrap().remove(0)).unwrap();
    drain.accept(true);
    // RTM_GETLINK with NLM_F_REQUEST and NLM_F_DUMP: which interfaces there are; see netlink(7).
    let mut request = Vec::new();
    request.extend(20_u32.to_ne_bytes());
    request.extend(18_u16.to_ne_bytes());
    request.extend(0x301_u16.to_ne_bytes());
    request.extend([0; 12]);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty()).unwrap();
    let answer = within("an answer", route.recv()).await.unwrap();
    assert!(answer.bytes().windows(3).any(|w| w == b"lo\0"), "the loopback interface");
}

#[test]
fn typed_takes_check_the_kind() {
    let directory = tempfile::tempdir().unwrap();
    let (fifo, _writer) = fifo(&directory);
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let unix = std::os::unix::net::UnixDatagram::bind(directory.path().join("d")).unwrap();
    let null = File::open("/dev/null").unwrap();
    let proc = File::open("/proc/loadavg").unwrap();
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let fds: Vec<(&str, OwnedFd)> = vec![
        ("fifo", fifo),
        ("udp", udp.into()),
        ("unix", unix.into()),
        ("special", null.into()),
        ("special", proc.into()),
        ("netlink", netlink),
    ];
    let fds = fds.into_iter().map(|(name, fd)| (name.to_owned(), fd)).collect();
    let mut passed = Activation::from_fds(fds).unwrap();
    let error = passed.message_queues("fifo").unwrap_err();
    assert!(error.is_socket());
    let text = error.to_string();
    assert!(text.contains("named \"fifo\" is a fifo; a message queue is needed: check ListenMessageQueue="), "{text}");
    assert!(passed.udp_sockets("unix").is_err() && passed.unix_datagrams("udp").is_err());
    assert!(
        passed.fifos("special").is_err() && passed.specials("netlink").is_err() && passed.netlinks("fifo").is_err()
    );
    assert!(passed.connection("udp").unwrap_err().to_string().contains("a connection is needed"));
    // An error has taken nothing.
    assert_eq!(passed.fifos("fifo").unwrap().len(), 1);
    assert_eq!(passed.udp_sockets("udp").unwrap().len(), 1);
    assert_eq!(passed.unix_datagrams("unix").unwrap().len(), 1);
    assert_eq!(passed.netlinks("netlink").unwrap().len(), 1);
    let mut specials = passed.specials("special").unwrap();
    let mut text = String::new();
    specials.remove(1).read_to_string(&mut text).unwrap();
    assert!(text.contains('/'), "{text}");
}

#[test]
fn the_one_connection_of_accept_yes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, from) = listener.accept().unwrap();
    let mut passed = given("connection", accepted);
    assert!(passed.listeners("connection").unwrap_err().is_socket());
    let PassedConnection::Tcp(mut stream) = passed.connection("connection").unwrap() else { panic!("not TCP") };
    assert_eq!(stream.peer_addr().unwrap(), from);
    stream.write_all(b"hello").unwrap();
    drop(stream);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    let listening = given("connection", listener).connection("connection").unwrap_err();
    assert!(listening.to_string().contains("is a listening TCP socket; a connection is needed"), "{listening}");
    let fd = client.as_fd().try_clone_to_owned().unwrap();
    let mut two = Activation::from_fds(vec![("connection".into(), fd), ("connection".into(), pair())]).unwrap();
    assert!(two.connection("connection").unwrap_err().to_string().contains("several"));
}

fn pair() -> OwnedFd {
    std::os::unix::net::UnixStream::pair().unwrap().0.into()
}
