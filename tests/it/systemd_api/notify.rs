//! Against a receiver that stands in for the service manager.

use crate::PATIENCE;
use handover::systemd::environment::Environment;
use handover::systemd::notify::{Delivery, Message, Notifier, monotonic_usec};
use handover_testing::mailbox;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept, bind, getsockname, listen, socket,
};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn notifier(address: &str) -> Notifier {
    Notifier::from_env(&Environment::from_pairs([("NOTIFY_SOCKET", address)])).unwrap()
}

fn manager() -> (TempDir, UnixDatagram, Notifier) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let notifier = notifier(path.to_str().unwrap());
    (directory, manager, notifier)
}

fn receive(manager: &UnixDatagram) -> String {
    let (text, fds) = receive_with_fds(manager);
    assert!(fds.is_empty());
    text
}

fn receive_with_fds(manager: &UnixDatagram) -> (String, Vec<OwnedFd>) {
    let letter = mailbox::receive(manager, 8192).unwrap();
    (String::from_utf8(letter.bytes).unwrap(), letter.fds)
}

#[test]
fn to_a_path() {
    let (_directory, manager, notifier) = manager();
    assert!(notifier.has_manager());
    let message = Message::new().ready().main_pid(1).status("one\ntwo");
    assert_eq!(notifier.send(&message).unwrap(), Delivery::Sent);
    assert_eq!(receive(&manager), "MAINPID=1\nREADY=1\nSTATUS=one two");
}

#[tokio::test]
async fn to_a_path_async() {
    let (_directory, manager, notifier) = manager();
    let before = monotonic_usec();
    assert_eq!(notifier.send_async(&Message::new().reloading(monotonic_usec())).await.unwrap(), Delivery::Sent);
    let text = receive(&manager);
    let usec: u64 = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!((before..=monotonic_usec()).contains(&usec));
}

#[test]
fn to_an_abstract_name() {
    let name = format!("handover-it-{}", std::process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(notifier(&format!("@{name}")).send(&Message::new().stopping()).unwrap(), Delivery::Sent);
    assert_eq!(receive(&manager), "STOPPING=1");
}

#[test]
fn fds_arrive() {
    let (_directory, manager, notifier) = manager();
    let (mut read, write) = std::io::pipe().unwrap();
    notifier.send_with_fds(&Message::new().ready(), &[write.as_fd(), write.as_fd()]).unwrap();
    drop(write);
    let (text, fds) = receive_with_fds(&manager);
    assert_eq!((text.as_str(), fds.len()), ("READY=1", 2));
    std::io::Write::write_all(&mut File::from(fds.into_iter().next().unwrap()), b"x").unwrap();
    let mut received = String::new();
    read.read_to_string(&mut received).unwrap();
    assert_eq!(received, "x");
}

#[test]
fn nobody_there_is_an_error_that_names_the_variable() {
    let (directory, manager, notifier) = manager();
    drop(manager);
    let error = notifier.send(&Message::new().ready()).unwrap_err();
    assert!(error.is_notify() && error.to_string().starts_with("NOTIFY_SOCKET="), "{error}");
    drop(directory);
    assert!(notifier.send(&Message::new().ready()).unwrap_err().is_notify());
    assert!(notifier.barrier(PATIENCE).unwrap_err().is_notify());
}

/// Fills the queue; returns how many messages are in it.
fn fill(notifier: &Notifier) -> usize {
    let at_once = notifier.clone().timeout(Duration::ZERO);
    (0..100_000).find(|_| at_once.send(&Message::new().watchdog()).is_err()).unwrap()
}

#[test]
fn a_full_queue_is_waited_for_until_the_deadline() {
    let (_directory, manager, notifier) = manager();
    let queued = fill(&notifier);
    let begin = Instant::now();
    let short = Duration::from_millis(50);
    let error = notifier.clone().timeout(short).send(&Message::new().ready()).unwrap_err();
    assert!(error.is_timeout() && error.to_string().starts_with("NOTIFY_SOCKET="), "{error}");
    assert!(begin.elapsed() >= short);

    let sender = thread::spawn(move || notifier.timeout(PATIENCE).send(&Message::new().ready()));
    for _ in 0..queued {
        assert_eq!(receive(&manager), "WATCHDOG=1");
    }
    assert_eq!(receive(&manager), "READY=1");
    assert_eq!(sender.join().unwrap().unwrap(), Delivery::Sent);
}

#[tokio::test]
async fn a_full_queue_is_waited_for_until_the_deadline_async() {
    let (_directory, manager, notifier) = manager();
    let queued = fill(&notifier);
    let short = notifier.clone().timeout(Duration::from_millis(50));
    assert!(short.send_async(&Message::new().ready()).await.unwrap_err().is_timeout());

    let sender = tokio::spawn(async move { notifier.timeout(PATIENCE).send_async(&Message::new().ready()).await });
    // The runtime has one thread: the sender now really waits.
    tokio::task::yield_now().await;
    let reader = tokio::task::spawn_blocking(move || {
        (0..queued).for_each(|_| assert_eq!(receive(&manager), "WATCHDOG=1"));
        receive(&manager)
    });
    assert_eq!(sender.await.unwrap().unwrap(), Delivery::Sent);
    assert_eq!(reader.await.unwrap(), "READY=1");
}

#[test]
fn a_barrier_returns_when_the_manager_has_closed_its_fd() {
    let (_directory, manager, notifier) = manager();
    let receiver = thread::spawn(move || (receive(&manager), receive_with_fds(&manager)));
    notifier.send(&Message::new().ready()).unwrap();
    // The receiver keeps its fd until it is joined: so the barrier cannot be passed.
    let error = notifier.barrier(Duration::from_millis(50)).unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("BARRIER=1"), "{error}");
    let (before, (barrier, fds)) = receiver.join().unwrap();
    assert_eq!((before.as_str(), barrier.as_str(), fds.len()), ("READY=1", "BARRIER=1", 1));

    let (_directory, manager, notifier) = crate::notify::manager();
    let receiver = thread::spawn(move || drop(receive_with_fds(&manager)));
    assert_eq!(notifier.barrier(PATIENCE).unwrap(), Delivery::Sent);
    receiver.join().unwrap();
}

#[tokio::test]
async fn a_barrier_returns_when_the_manager_has_closed_its_fd_async() {
    let (_directory, manager, notifier) = manager();
    let error = notifier.barrier_async(Duration::from_millis(50)).await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    let receiver = tokio::task::spawn_blocking(move || {
        let (text, fds) = receive_with_fds(&manager);
        assert_eq!((text.as_str(), fds.len()), ("BARRIER=1", 1));
        drop(receive_with_fds(&manager));
    });
    assert_eq!(notifier.barrier_async(PATIENCE).await.unwrap(), Delivery::Sent);
    receiver.await.unwrap();
    assert_eq!(Notifier::disabled().barrier_async(PATIENCE).await.unwrap(), Delivery::NoManager);
    assert_eq!(Notifier::disabled().send_async(&Message::new().ready()).await.unwrap(), Delivery::NoManager);
}

/// A vsock receiver on this machine itself, where the kernel has a loopback for it.
fn vsock(kind: SockType) -> nix::Result<(OwnedFd, u32)> {
    let fd = socket(AddressFamily::Vsock, kind, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_LOCAL, libc::VMADDR_PORT_ANY))?;
    listen(&fd, Backlog::MAXCONN)?;
    let port = getsockname::<VsockAddr>(fd.as_raw_fd())?.port();
    Ok((fd, port))
}

#[test]
#[ignore = "needs a kernel with vsock loopback: modprobe vsock_loopback"]
fn to_a_vsock() {
    for (kind, prefix) in
        [(SockType::Stream, "vsock-stream"), (SockType::SeqPacket, "vsock-seqpacket"), (SockType::SeqPacket, "vsock")]
    {
        let (receiver, port) = vsock(kind).expect("the module vsock_loopback is loaded");
        let notifier = notifier(&format!("{prefix}:1:{port}"));
        assert_eq!(notifier.send(&Message::new().ready()).unwrap(), Delivery::Sent, "{prefix}");
        // SAFETY: accept(2) has just made it.
        let mut connection = File::from(unsafe { OwnedFd::from_raw_fd(accept(receiver.as_raw_fd()).unwrap()) });
        let mut text = [0; 64];
        let length = connection.read(&mut text).unwrap();
        assert_eq!(&text[..length], b"READY=1", "{prefix}");

        let error = notifier.barrier(PATIENCE).unwrap_err();
        assert!(error.is_notify() && error.to_string().contains("carries no file descriptors"), "{error}");
        drop(receiver);
        assert!(notifier.send(&Message::new().ready()).unwrap_err().is_notify(), "{prefix}");
    }
}
