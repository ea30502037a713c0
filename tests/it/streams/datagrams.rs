//! UDP and Unix datagrams. Two drains that share a socket are two generations.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use handover::drain::{Datagram, DatagramOptions, DatagramPeer, Datagrams, Drain, Limit, serve_datagrams};
use handover::systemd::activation::{Socket, SocketKind, bind_datagram};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::sync::Semaphore;

use crate::support::{Log, moment, never, until, within};

/// A second fd of it, as the next generation gets it.
fn passed_on(socket: &Socket) -> Socket {
    let fd: OwnedFd = socket.as_fd().try_clone_to_owned().unwrap();
    let mut passed = handover::systemd::activation::Activation::from_fds(vec![(socket.name().to_owned(), fd)]).unwrap();
    passed.take(socket.name()).unwrap().pop().unwrap()
}

fn udp() -> (Socket, SocketAddr) {
    let socket = bind_datagram("dns", "127.0.0.1:0").unwrap().pop().unwrap();
    assert_eq!((socket.name(), socket.kind()), ("dns", SocketKind::Udp));
    let std = std::net::UdpSocket::from(socket.as_fd().try_clone_to_owned().unwrap());
    (socket, std.local_addr().unwrap())
}

async fn client(address: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(address).await.unwrap();
    client
}

async fn answer(client: &UdpSocket) -> String {
    let mut buffer = [0; 1024];
    let n = within("an answer", client.recv(&mut buffer)).await.unwrap();
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

async fn echo(datagram: Datagram) -> io::Result<()> {
    datagram.reply(datagram.bytes()).await
}

#[tokio::test]
async fn what_is_in_hand_is_finished_and_the_queue_is_for_the_next_generation() {
    let (socket, address) = udp();
    let (old, new) = (Drain::new(), Drain::new());
    let release = Arc::new(Semaphore::new(0));
    let next = passed_on(&socket);
    let held = Arc::clone(&release);
    serve_datagrams(&old, "dns", vec![socket], DatagramOptions::new(), move |datagram: Datagram| {
        let held = Arc::clone(&held);
        async move {
            held.acquire().await.map_err(io::Error::other)?.forget();
            datagram.reply(&[b"old ", datagram.bytes()].concat()).await
        }
    })
    .unwrap();
    serve_datagrams(&new, "dns", vec![next], DatagramOptions::new(), |datagram: Datagram| async move {
        datagram.reply(&[b"new ", datagram.bytes()].concat()).await
    })
    .unwrap();
    let client = client(address).await;
    old.accept(true);
    client.send(b"1").await.unwrap();
    until("in hand", || old.active() == 1).await;
    old.accept(false);
    client.send(b"2").await.unwrap();
    moment().await;
    assert_eq!((old.active(), new.active()), (1, 0), "nobody's turn");
    new.accept(true);
    assert_eq!(answer(&client).await, "new 2");
    old.begin(Duration::ZERO);
    let drained = tokio::spawn(old.drained());
    release.add_permits(1);
    assert_eq!(answer(&client).await, "old 1", "an answer by the shared socket");
    within("drained", drained).await.unwrap();
}

/// Each datagram is taken once, whoever's turn it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_is_lost_and_none_is_taken_twice() {
    const ROUNDS: usize = 40;
    const EACH: u32 = 50;
    let (first, address) = udp();
    let generations: Vec<_> = (0..2).map(|_| Drain::new()).collect();
    let (sender, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let second = passed_on(&first);
    for (drain, socket) in generations.iter().zip([first, second]) {
        let mut datagrams = Datagrams::new(drain, "dns", socket).unwrap();
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Some(datagram) = datagrams.recv().await {
                let number: u32 = String::from_utf8_lossy(datagram.bytes()).parse().unwrap();
                sender.send(number).unwrap();
            }
        });
    }
    let client = client(address).await;
    let mut next = 0;
    for round in 0..ROUNDS {
        // as at a switch: the new one opens, then the old one shuts
        generations[round % 2].accept(true);
        for _ in 0..EACH {
            client.send(next.to_string().as_bytes()).await.unwrap();
            next += 1;
        }
        generations[(round + 1) % 2].accept(false);
        for _ in 0..EACH {
            client.send(next.to_string().as_bytes()).await.unwrap();
            next += 1;
        }
        // the kernel's queue is not endless
        let mut numbers = Vec::new();
        while numbers.len() < 2 * EACH as usize {
            numbers.push(within("every datagram", taken.recv()).await.unwrap());
        }
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(next - 2 * EACH..next), "round {round}: {numbers:?}");
    }
    assert!(taken.try_recv().is_err());
}

#[tokio::test]
async fn the_hammer_drops_handlers_and_names_them() {
    let (socket, address) = udp();
    let drain = Drain::new();
    let options = DatagramOptions::new();
    serve_datagrams(&drain, "dns", vec![socket], options, |datagram: Datagram| async move {
        let _datagram = datagram;
        std::future::pending().await
    })
    .unwrap();
    drain.accept(true);
    let client = client(address).await;
    client.send(b"?").await.unwrap();
    until("in hand", || drain.active() == 1).await;
    drain.begin(Duration::ZERO);
    let cut: Vec<_> = drain.hammer().iter().map(ToString::to_string).collect();
    let from = client.local_addr().unwrap();
    assert!(cut.len() == 1 && cut[0].starts_with(&format!("dns: {from}, open for ")), "{cut:?}");
    within("drained", drain.drained()).await;
}

#[tokio::test]
async fn beyond_the_limit_they_wait_in_the_kernel() {
    let (socket, address) = udp();
    let (drain, limit) = (Drain::new(), Limit::new(2));
    let mut datagrams = Datagrams::new(&drain, "dns", socket).unwrap().limit(&limit);
    drain.accept(true);
    let client = client(address).await;
    for number in 1..=3 {
        client.send(&[number]).await.unwrap();
    }
    let first = within("1", datagrams.recv()).await.unwrap();
    let second = within("2", datagrams.recv()).await.unwrap();
    never("3 beyond the limit", datagrams.recv()).await;
    drop(first);
    assert_eq!(within("3", datagrams.recv()).await.unwrap().bytes(), [3]);
    drop(second);
    assert_eq!(drain.active(), 0);
}

#[tokio::test]
async fn too_long_ones_are_dropped_and_logged() {
    let (log, _guard) = Log::start();
    let (socket, address) = udp();
    let drain = Drain::new();
    serve_datagrams(&drain, "dns", vec![socket], DatagramOptions::new().max_length(4), echo).unwrap();
    drain.accept(true);
    let client = client(address).await;
    client.send(b"12345").await.unwrap();
    client.send(b"1234").await.unwrap();
    assert_eq!(answer(&client).await, "1234");
    assert!(log.text().contains("a datagram of more than 4 bytes was dropped"), "{}", log.text());
}

#[tokio::test]
async fn a_panic_is_contained() {
    let (log, _guard) = Log::start();
    let (socket, address) = udp();
    let drain = Drain::new();
    serve_datagrams(&drain, "dns", vec![socket], DatagramOptions::new(), |datagram: Datagram| async move {
        assert_ne!(datagram.bytes(), b"!", "a bad datagram");
        echo(datagram).await
    })
    .unwrap();
    drain.accept(true);
    let client = client(address).await;
    client.send(b"!").await.unwrap();
    client.send(b"x").await.unwrap();
    assert_eq!(answer(&client).await, "x");
    until("nothing is in hand", || drain.active() == 0).await;
    assert!(log.text().contains("a bad datagram"), "{}", log.text());
}

#[tokio::test]
async fn unix_datagrams_tell_who_sent_them() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let socket = bind_datagram("log", at("log").to_str().unwrap()).unwrap().pop().unwrap();
    let drain = Drain::new();
    let mut datagrams = Datagrams::new(&drain, "log", socket).unwrap();
    drain.accept(true);
    let (pid, uid) = (std::process::id().cast_signed(), nix::unistd::getuid().as_raw());

    let nameless = UnixDatagram::unbound().unwrap();
    nameless.send_to(b"a line", at("log")).await.unwrap();
    let datagram = within("a line", datagrams.recv()).await.unwrap();
    assert_eq!(datagram.bytes(), b"a line");
    let DatagramPeer::Unix { address: None, pid: Some(p), uid: Some(u), .. } = datagram.peer() else {
        panic!("{:?}", datagram.peer())
    };
    assert_eq!((*p, *u), (pid, uid));
    assert_eq!(datagram.reply(b"?").await.unwrap_err().kind(), io::ErrorKind::InvalidInput);

    let named = UnixDatagram::bind(at("client")).unwrap();
    named.send_to(b"a question", at("log")).await.unwrap();
    let datagram = within("a question", datagrams.recv()).await.unwrap();
    // The client's queue is full for a while: the answer waits.
    let full = UnixDatagram::unbound().unwrap();
    while try_send(&full, &at("client")).is_ok() {}
    let mut answered = std::pin::pin!(datagram.reply(b"an answer"));
    never("an answer without room", &mut answered).await;
    let reader = tokio::spawn(async move {
        let mut buffer = [0; 64];
        loop {
            let n = named.recv(&mut buffer).await.unwrap();
            if &buffer[..n] == b"an answer" {
                return;
            }
        }
    });
    within("there is room", answered).await.unwrap();
    within("the answer", reader).await.unwrap();

    let taken = bind_datagram("log", at("log").to_str().unwrap()).unwrap_err();
    assert!(taken.is_socket() && taken.to_string().contains("somebody listens"), "{taken}");
}

/// Sockets whose last close(2) takes a minute, sent along with a datagram, hold up nobody. From
/// Linux 6.16 on the kernel refuses them, but not those that were sent before it was told to.
#[tokio::test]
async fn fds_that_come_along_hold_up_nobody() {
    const SECONDS: i32 = 60;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peers = Vec::new();
    let mut lingering = || {
        let mut stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peers.push(listener.accept().unwrap().0);
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65536]).is_ok() {}
        setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: SECONDS }).unwrap();
        stream
    };
    let socket = bind_datagram("log", path.to_str().unwrap()).unwrap().pop().unwrap();
    let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
    sender.connect(&path).unwrap();
    let send = |text: &[u8], stream: std::net::TcpStream| {
        let fds = [stream.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(sender.as_raw_fd(), &[io::IoSlice::new(text)], &rights, MsgFlags::empty(), None)
    };
    send(b"before", lingering()).unwrap();
    let drain = Drain::new();
    let mut datagrams = Datagrams::new(&drain, "log", socket).unwrap();
    drain.accept(true);
    // Kept for its close(2), which would wait here where the kernel refuses what is sent.
    let kept = lingering();
    let refused = send(b"after", kept.try_clone().unwrap()) == Err(Errno::EPERM);
    setsockopt(&kept, sockopt::Linger, &libc::linger { l_onoff: 0, l_linger: 0 }).unwrap();
    sender.send(b"last").unwrap();
    let began = std::time::Instant::now();
    let texts: &[&[u8]] = if refused { &[b"before", b"last"] } else { &[b"before", b"after", b"last"] };
    for text in texts {
        let datagram = within("a datagram", datagrams.recv()).await.unwrap();
        assert_eq!(datagram.bytes(), *text);
        assert!(matches!(datagram.peer(), DatagramPeer::Unix { .. }));
    }
    // A receiver that closes them itself has let no other timer run, `within`'s neither.
    assert!(began.elapsed() < Duration::from_secs(20), "after {:?}", began.elapsed());
}

fn try_send(socket: &UnixDatagram, to: &std::path::Path) -> io::Result<()> {
    use nix::sys::socket::{UnixAddr, sendto};
    let to = UnixAddr::new(to).unwrap();
    Ok(sendto(socket.as_raw_fd(), b"filler", &to, MsgFlags::MSG_DONTWAIT).map(drop)?)
}

#[tokio::test]
async fn what_cannot_work_is_an_error() {
    let drain = Drain::new();
    let none = DatagramOptions::new().max_in_hand(0);
    assert!(serve_datagrams(&drain, "dns", vec![udp().0], none, echo).unwrap_err().is_invalid());
    let stream = handover::systemd::activation::bind("127.0.0.1:0").unwrap().pop().unwrap();
    let mut passed = handover::systemd::activation::Activation::from_fds(vec![("dns".into(), stream.into())]).unwrap();
    let error = Datagrams::new(&drain, "dns", passed.take("dns").unwrap().remove(0)).unwrap_err();
    assert!(error.is_socket(), "{error}");
    assert!(error.to_string().contains("is a listening TCP socket; a datagram socket, a fifo"), "{error}");
    let (_, address) = udp();
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(bind_datagram("dns", &address.to_string()).is_ok(), "free again");
    let _ = taken;
}
