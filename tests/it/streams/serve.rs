//! Connections served by a function.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use handover::drain::{Connection, Drain, Limit, Peer, Stream, StreamOptions, serve_stream};
use handover::systemd::activation::{Listener, bind};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::{TcpStream, UnixStream};

use crate::support::{Log, MOMENT, ask, rest, tcp, until, within};

async fn echo(connection: Connection) -> io::Result<()> {
    let (mut from, mut to) = split(connection.stream);
    copy(&mut from, &mut to).await?;
    to.shutdown().await
}

/// An open gate, and the address of an echo.
fn served(options: StreamOptions) -> (Drain, std::net::SocketAddr) {
    let (drain, (listeners, address)) = (Drain::new(), tcp());
    serve_stream(&drain, "echo", listeners, options, echo).unwrap();
    drain.accept(true);
    (drain, address)
}

#[tokio::test]
async fn a_connection_is_counted_and_finishes_in_a_drain() {
    let (drain, address) = served(StreamOptions::new());
    let mut client = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut client, "one").await, "one");
    assert_eq!(drain.active(), 1);
    drain.begin(Duration::ZERO);
    assert_eq!(ask(&mut client, "two").await, "two", "a drain cuts nothing");
    let drained = tokio::spawn(drain.drained());
    client.shutdown().await.unwrap();
    assert_eq!(rest(client).await, "");
    within("drained", drained).await.unwrap();
}

#[tokio::test]
async fn a_shut_gate_leaves_clients_in_the_backlog() {
    let (drain, address) = served(StreamOptions::new());
    drain.accept(false);
    let mut client = TcpStream::connect(address).await.unwrap();
    tokio::time::sleep(MOMENT).await;
    assert_eq!(drain.active(), 0);
    drain.accept(true);
    assert_eq!(ask(&mut client, "served").await, "served");
}

/// Whether a socket blocks is for all processes that share it, and each may change it at any time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_somebody_made_blocking_does_not_block_its_loop() {
    let (drain, (listeners, address)) = (Drain::new(), tcp());
    let Listener::Tcp(shared) = listeners[0].try_clone().unwrap() else { panic!("not TCP") };
    serve_stream(&drain, "echo", listeners, StreamOptions::new(), echo).unwrap();
    let is_nonblocking = || fcntl(&shared, FcntlArg::F_GETFL).unwrap() & OFlag::O_NONBLOCK.bits() != 0;
    for _ in 0..2 {
        shared.set_nonblocking(false).unwrap();
        drain.accept(true);
        // Before the first client: a loop that is stuck in accept(2) would not let the test end.
        until("nonblocking again", is_nonblocking).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut client, "served").await, "served");
        // A loop that waits in accept(2) would not see that its turn is over, and take the next
        // client.
        drain.accept(false);
        tokio::time::sleep(MOMENT).await;
        let mut late = TcpStream::connect(address).await.unwrap();
        tokio::time::sleep(MOMENT).await;
        assert_eq!(drain.active(), 1);
        drain.accept(true);
        assert_eq!(ask(&mut late, "too").await, "too");
        drop((client, late));
        until("both are gone", || drain.active() == 0).await;
        drain.accept(false);
        tokio::time::sleep(MOMENT).await;
    }
}

#[tokio::test]
async fn the_handler_says_goodbye_at_the_drain_signal() {
    let (drain, (listeners, address)) = (Drain::new(), tcp());
    serve_stream(&drain, "time", listeners, StreamOptions::new(), |connection| async move {
        let Connection { mut stream, drain, .. } = connection;
        stream.write_all(b"hello\n").await?;
        drain.await;
        stream.write_all(b"goodbye\n").await
    })
    .unwrap();
    drain.accept(true);
    let mut client = TcpStream::connect(address).await.unwrap();
    let mut hello = [0; 6];
    within("hello", client.read_exact(&mut hello)).await.unwrap();
    drain.begin(Duration::from_secs(60));
    assert_eq!(rest(client).await, "goodbye\n");
    within("drained", drain.drained()).await;
}

struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_hammer_drops_the_handler_and_names_the_connection() {
    let (drain, (listeners, address)) = (Drain::new(), tcp());
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dropped);
    serve_stream(&drain, "long", listeners, StreamOptions::new(), move |connection: Connection| {
        let counted = Dropped(Arc::clone(&counted));
        async move {
            let _counted = counted;
            let _stream = connection.stream;
            std::future::pending().await
        }
    })
    .unwrap();
    drain.accept(true);
    let client = TcpStream::connect(address).await.unwrap();
    let from = client.local_addr().unwrap();
    until("accepted", || drain.active() == 1).await;
    drain.begin(Duration::ZERO);
    let cut: Vec<_> = drain.hammer().iter().map(ToString::to_string).collect();
    assert!(cut.len() == 1 && cut[0].starts_with(&format!("long: {from}, open for ")), "{cut:?}");
    within("drained", drain.drained()).await;
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    assert_eq!(rest(client).await, "");
}

#[tokio::test]
async fn a_panic_is_contained_and_logged() {
    let (log, _guard) = Log::start();
    let (drain, (listeners, address)) = (Drain::new(), tcp());
    serve_stream(&drain, "fragile", listeners, StreamOptions::new(), |mut connection| async move {
        let mut byte = [0];
        connection.stream.read_exact(&mut byte).await?;
        assert_ne!(byte[0], b'!', "a bad byte");
        connection.stream.write_all(&byte).await?;
        Err(io::Error::other("no more"))
    })
    .unwrap();
    drain.accept(true);
    let mut bad = TcpStream::connect(address).await.unwrap();
    bad.write_all(b"!").await.unwrap();
    assert_eq!(rest(bad).await, "");
    let mut good = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut good, "x").await, "x");
    until("nothing is open", || drain.active() == 0).await;
    let text = log.text();
    assert!(text.contains("ERROR") && text.contains("the handler panicked") && text.contains("a bad byte"), "{text}");
    assert!(text.contains("no more") && text.contains("listener=\"fragile\""), "{text}");
}

#[tokio::test]
async fn beyond_the_limit_clients_wait() {
    let (log, _guard) = Log::start();
    let (drain, address) = served(StreamOptions::new().max_connections(2));
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(&mut first, "1").await, "1");
    assert_eq!(ask(&mut second, "2").await, "2");
    let mut third = TcpStream::connect(address).await.unwrap();
    third.write_all(b"3").await.unwrap();
    tokio::time::sleep(MOMENT).await;
    assert_eq!(drain.active(), 2);
    drop(first);
    assert_eq!(ask(&mut third, "").await, "3");
    assert_eq!(log.text().matches("2 are open, which is the limit").count(), 1);
    // A drain does not wait for a place to become free.
    drain.begin(Duration::ZERO);
    drop((second, third));
    within("drained", drain.drained()).await;
}

/// A listener that nobody connects to does not keep the last place.
#[tokio::test]
async fn listeners_share_a_limit() {
    let drain = Drain::new();
    let (mut all, first) = tcp();
    let (more, second) = tcp();
    all.extend(more);
    let limit = Limit::new(1);
    serve_stream(&drain, "echo", all, StreamOptions::new().limit(&limit), echo).unwrap();
    drain.accept(true);
    for round in 0..20 {
        let address = if round % 2 == 0 { first } else { second };
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut client, "here").await, "here");
        assert_eq!(limit.active(), 1);
    }
    until("nobody is left", || limit.active() == 0).await;
}

/// One that could move has nobody to move to.
#[tokio::test]
async fn the_mover_tells_that_there_is_no_way() {
    for migrate in [true, false] {
        let (drain, (listeners, address)) = (Drain::new(), tcp());
        let options = StreamOptions::new().migrate(migrate);
        serve_stream(&drain, "lines", listeners, options, |connection| async move {
            let Connection { mut stream, mut mover, inherited, .. } = connection;
            assert!(inherited.is_none(), "it began here");
            stream.write_all(b"hello\n").await?;
            assert!(mover.ready().await.is_none());
            assert!(mover.ready().await.is_none(), "asked again");
            stream.write_all(b"goodbye\n").await
        })
        .unwrap();
        drain.accept(true);
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut hello = [0; 6];
        within("hello", client.read_exact(&mut hello)).await.unwrap();
        drain.begin(Duration::from_secs(60));
        assert_eq!(rest(client).await, "goodbye\n");
        within("drained", drain.drained()).await;
    }
}

#[tokio::test]
async fn tcp_options() {
    let (drain, (listeners, address)) = (Drain::new(), tcp());
    let options = StreamOptions::new().nodelay(false).keepalive(Duration::from_secs(40));
    serve_stream(&drain, "options", listeners, options, |mut connection| async move {
        let Stream::Tcp(stream) = &connection.stream else { return Err(io::Error::other("not TCP")) };
        use nix::sys::socket::{getsockopt, sockopt};
        let text = format!(
            "{} {} {} {}",
            stream.nodelay()?,
            getsockopt(stream, sockopt::KeepAlive)?,
            getsockopt(stream, sockopt::TcpKeepIdle)?,
            getsockopt(stream, sockopt::TcpKeepInterval)?,
        );
        connection.stream.write_all(text.as_bytes()).await
    })
    .unwrap();
    drain.accept(true);
    assert_eq!(rest(TcpStream::connect(address).await.unwrap()).await, "false true 40 10");
}

#[tokio::test]
async fn unix_streams_tell_who_connected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("echo.socket");
    let drain = Drain::new();
    let abstract_name = format!("@handover-test-{}", std::process::id());
    let mut listeners = bind(path.to_str().unwrap()).unwrap();
    listeners.extend(bind(&abstract_name).unwrap());
    serve_stream(&drain, "who", listeners, StreamOptions::new(), |mut connection| async move {
        let text = format!("{:?}", connection.peer);
        connection.stream.write_all(text.as_bytes()).await
    })
    .unwrap();
    drain.accept(true);
    let (pid, uid, gid) = (std::process::id().cast_signed(), nix::unistd::getuid(), nix::unistd::getgid());
    let (pid, uid, gid) = (Some(pid), Some(uid.as_raw()), Some(gid.as_raw()));
    use std::os::linux::net::SocketAddrExt as _;
    let name = std::os::unix::net::SocketAddr::from_abstract_name(&abstract_name[1..]).unwrap();
    let by_name = std::os::unix::net::UnixStream::connect_addr(&name).unwrap();
    by_name.set_nonblocking(true).unwrap();
    for mut client in [UnixStream::connect(&path).await.unwrap(), UnixStream::from_std(by_name).unwrap()] {
        let mut text = String::new();
        within("an answer", client.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, format!("Unix {{ pid: {pid:?}, uid: {uid:?}, gid: {gid:?} }}"));
    }
    assert_eq!(format!("{}", Peer::Tcp(([127, 0, 0, 1], 1).into())), "127.0.0.1:1");
}

#[test]
fn what_cannot_work_is_an_error() {
    let drain = Drain::new();
    let none = StreamOptions::new().max_connections(0);
    assert!(serve_stream(&drain, "echo", tcp().0, none, echo).unwrap_err().is_invalid());
    assert!(serve_stream(&drain, "echo", tcp().0, StreamOptions::new(), echo).unwrap_err().is_state());
}
