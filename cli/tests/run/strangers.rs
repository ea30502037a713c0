//! Who may not send notifications to the program's socket, and what comes of what is sent there.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};

use crate::world::{Setup, World};
use handover_testing::processes::until;

/// More than the supervisor closes at once.
const SOCKETS: usize = 200;
/// How long closing each would take.
const LINGER: i32 = 60;
/// An answer of an event loop that nothing holds up is there sooner, also on a slow machine.
const SOON: Duration = Duration::from_secs(20);

fn connect(address: &str) -> std::io::Result<UnixDatagram> {
    let sender = UnixDatagram::unbound()?;
    match address.strip_prefix('@') {
        Some(name) => sender.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => sender.connect(address)?,
    }
    sender.set_write_timeout(Some(SOON))?;
    Ok(sender)
}

/// Connections with data that the other side does not read, and that a close(2) waits for.
struct Lingering {
    _peers: Vec<TcpStream>,
    streams: Vec<TcpStream>,
}

fn lingering() -> Lingering {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut peers, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..SOCKETS {
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peers.push(listener.accept().unwrap().0);
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 65536]).is_ok() {}
        setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: LINGER }).unwrap();
        streams.push(stream);
    }
    Lingering { _peers: peers, streams }
}

/// Sends each of them away, so that the receiver has the last reference.
fn send_all(sender: &UnixDatagram, lingering: &mut Lingering) -> std::io::Result<()> {
    for stream in lingering.streams.drain(..) {
        let fds = [stream.as_raw_fd()];
        let text = [IoSlice::new(b"FDSTORE=1\nSTATUS=of a stranger")];
        sendmsg::<()>(sender.as_raw_fd(), &text, &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None)?;
    }
    Ok(())
}

/// Sockets whose last close(2) takes a minute do not hold up the supervisor.
#[test]
fn what_a_stranger_sends_is_closed_where_nobody_waits_for_it() {
    let world = World::start(Setup::default());
    let address = world.ask("env NOTIFY_SOCKET");
    let mut lingering = lingering();
    // This process is none of the program.
    send_all(&connect(&address).unwrap(), &mut lingering).unwrap();
    let began = Instant::now();
    until("they are counted", || world.log().contains("are ignored (--notify-access): 128").then_some(()));
    assert_eq!(world.status()["state"], "serving");
    assert_eq!(world.reloaded(), 2);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let fds = || std::fs::read_dir(format!("/proc/{}/fd", world.pid())).unwrap().count();
    until("they are closed", || (fds() < 100).then_some(()));
    let told = world.log().lines().filter(|line| line.contains("are ignored")).count();
    assert!(told <= 9, "a line for each doubling: {told}");
    assert!(!world.log().contains("of a stranger"), "{}", world.log());
    world.stop();
}

/// The directory lets nobody else in, and goes with the supervisor.
#[test]
fn the_socket_is_in_a_directory_of_its_own() {
    let runtime = tempfile::tempdir().unwrap();
    let world =
        World::start(Setup { env: &[("RUNTIME_DIRECTORY", runtime.path().to_str().unwrap())], ..Setup::default() });
    let address = world.ask("env NOTIFY_SOCKET");
    let directory = Path::new(&address).parent().unwrap().to_owned();
    assert_eq!(directory.parent(), Some(runtime.path()), "{address}");
    assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    world.stop();
    assert!(!directory.exists());
}

const NOBODY: u32 = 65534;

/// A program that changes its user is told of, and heard if its group may reach the socket.
#[test]
fn a_program_that_changes_its_user_needs_a_group() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: only root can change its user");
        return;
    }
    let script = "import os, socket, time
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
try:
    s.connect(os.environ['NOTIFY_SOCKET'])
    s.send(b'READY=1')
except OSError as e:
    print(e, flush=True)
time.sleep(1000)";
    let program = ["python3", "-c", script];
    let runtime = tempfile::tempdir().unwrap();
    std::fs::set_permissions(runtime.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let env = [("RUNTIME_DIRECTORY", runtime.path().to_str().unwrap())];
    let setup = Setup { program: &program, env: &env, options: &["--ready-timeout", "3s"], ..Setup::default() };
    let mut world = World::launch(setup);
    assert_eq!(world.ends().code(), Some(1));
    assert!(world.log().contains(&format!("it runs as user {NOBODY}, who cannot reach")), "{}", world.log());
    let group = NOBODY.to_string();
    World::start(Setup { options: &["--notify-group", &group], ..setup }).stop();
}

/// Notifications of another user are refused by the kernel.
#[test]
fn another_user_reaches_nothing() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: only root can change its user");
        return;
    }
    let world = World::start(Setup::default());
    let script = "import os, socket, sys
os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
try:
    s.connect(sys.argv[1].replace('@', '\\0', 1))
    print('connected')
except OSError as e:
    print(e.strerror)";
    let address = world.ask("env NOTIFY_SOCKET");
    let mut asking = std::process::Command::new("python3")
        .args(["-c", script, &address])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    asking.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    asking.wait().unwrap();
    assert_eq!(said.trim(), "Permission denied");
    world.stop();
}
