//! Sequential packets.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use handover::drain::{Connection, Drain, Peer, Seqpacket, StreamOptions, serve_stream};
use handover::systemd::activation::{Activation, bind, bind_seqpacket};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::support::{MOMENT, until, within};

async fn echo(connection: Connection<Seqpacket>) -> io::Result<()> {
    let mut buffer = [0; 64];
    loop {
        match connection.stream.recv(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(n) => connection.stream.send(&buffer[..n]).await?,
            Err(e) if e.kind() == io::ErrorKind::InvalidData => connection.stream.send(b"too long").await?,
            Err(e) => return Err(e),
        }
    }
}

fn client(path: &Path) -> Seqpacket {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    Seqpacket::new(fd).unwrap()
}

async fn ask(client: &Seqpacket, packet: &[u8]) -> Vec<u8> {
    client.send(packet).await.unwrap();
    let mut buffer = vec![0; 1024];
    let n = within("an answer", client.recv(&mut buffer)).await.unwrap();
    buffer.truncate(n);
    buffer
}

#[tokio::test]
async fn packets_stay_apart_and_a_drain_finishes_the_conversation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let drain = Drain::new();
    let listener = bind_seqpacket(path.to_str().unwrap()).unwrap();
    serve_stream(&drain, "control", vec![listener], StreamOptions::new(), echo).unwrap();
    let waiting = client(&path);
    waiting.send(b"early").await.unwrap();
    tokio::time::sleep(MOMENT).await;
    assert_eq!(drain.active(), 0, "the gate is shut");
    drain.accept(true);
    waiting.send(b"second").await.unwrap();
    assert_eq!(ask(&waiting, b"third").await, b"early");
    let mut buffer = [0; 64];
    for expected in [&b"second"[..], b"third"] {
        let n = within("a packet", waiting.recv(&mut buffer)).await.unwrap();
        assert_eq!(&buffer[..n], expected);
    }
    assert_eq!(ask(&waiting, &[b'x'; 65]).await, b"too long");
    drain.begin(Duration::ZERO);
    assert_eq!(ask(&waiting, b"still here").await, b"still here");
    drop(waiting);
    within("drained", drain.drained()).await;
}

#[tokio::test]
async fn the_peer_is_known_and_the_hammer_cuts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let drain = Drain::new();
    let listener = bind_seqpacket(&format!("unix:{}", path.display())).unwrap();
    serve_stream(
        &drain,
        "control",
        vec![listener],
        StreamOptions::new(),
        |connection: Connection<Seqpacket>| async move {
            let Peer::Unix { pid, .. } = connection.peer else { return Err(io::Error::other("not Unix")) };
            connection.stream.send(format!("{pid:?}").as_bytes()).await?;
            std::future::pending().await
        },
    )
    .unwrap();
    drain.accept(true);
    let client = client(&path);
    let pid = std::process::id();
    assert_eq!(ask(&client, b"?").await, format!("Some({pid})").as_bytes());
    drain.begin(Duration::ZERO);
    let cut: Vec<_> = drain.hammer().iter().map(ToString::to_string).collect();
    assert!(cut.len() == 1 && cut[0].starts_with(&format!("control: pid {pid}, open for ")), "{cut:?}");
    // Data that nobody read makes the end a reset.
    let ended = within("the end", client.recv(&mut [0; 8])).await;
    assert!(matches!(ended, Ok(0)) || ended.is_err(), "{ended:?}");
    until("drained", || drain.active() == 0).await;
}

/// Whatever was at the path and is dead is replaced, whatever kind it was; what lives is not.
#[tokio::test]
async fn a_stale_path_is_replaced_and_a_living_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let text = path.to_str().unwrap();
    drop(std::os::unix::net::UnixDatagram::bind(&path).unwrap());
    assert!(path.exists());
    let living = bind_seqpacket(text).unwrap();
    for error in [bind_seqpacket(text).unwrap_err(), bind(text).unwrap_err()] {
        assert!(error.is_socket() && error.to_string().contains("somebody listens at"), "{error}");
    }
    drop(living);
    drop(bind(text).unwrap());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    assert!(bind_seqpacket(text).unwrap_err().to_string().contains("not a socket"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    assert!(bind_seqpacket("127.0.0.1:0").unwrap_err().is_invalid());
}

#[tokio::test]
async fn an_abstract_name_and_a_passed_socket() {
    let name = format!("handover-test-seqpacket-{}", std::process::id());
    let bound: OwnedFd = bind_seqpacket(&format!("@{name}")).unwrap().into();
    let mut passed = Activation::from_fds(vec![("control".into(), bound)]).unwrap();
    assert!(passed.listeners("control").unwrap_err().to_string().contains("is a listening Unix seqpacket socket; a"));
    let listeners = passed.seqpacket_listeners("control").unwrap();
    let drain = Drain::new();
    serve_stream(&drain, "control", listeners, StreamOptions::new(), echo).unwrap();
    drain.accept(true);
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(fd.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes()).unwrap()).unwrap();
    assert_eq!(ask(&Seqpacket::new(fd).unwrap(), b"hello").await, b"hello");
}

#[tokio::test]
async fn packets_do_not_move() {
    let listener = bind_seqpacket("@handover-test-packets-that-move").unwrap();
    let error = serve_stream(&Drain::new(), "packets", vec![listener], StreamOptions::new().migrate(true), echo);
    let error = error.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("\"packets\", cannot move"), "{error}");
}
