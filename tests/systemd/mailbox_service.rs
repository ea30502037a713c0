//! The harness itself as a service that leaves its connections to the next start as no process of
//! today's version does: some in the format of the first version, some in formats that nobody
//! knows, and some damaged.

use std::io::{IoSlice, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;

use handover::systemd::activation::{Activation, Listener};
use handover::systemd::environment::Environment;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair};
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

/// Its presence makes the harness the service.
pub(crate) const SERVICE: &str = "HANDOVER_LAB_MAILBOX";
/// The name of a mailbox in the fd store.
const NAME: &str = "handover.mailbox";
/// So many connections are in each message.
pub(crate) const EACH: usize = 10;

type Failed = Box<dyn std::error::Error>;

/// What is in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Records that have nothing but what those of the first version had.
    First,
    Older,
    Newer,
    CutShort,
    /// Its records promise bytes that are not there.
    Incomplete,
}

/// The messages of the mailbox.
pub(crate) const FORMATS: [Format; 5] =
    [Format::First, Format::Older, Format::Newer, Format::CutShort, Format::Incomplete];

pub(crate) fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Failed> {
    let Some(Listener::Tcp(listener)) =
        Activation::from_env(&Environment::capture())?.listeners("http")?.into_iter().next()
    else {
        return Err("no socket for TCP".into());
    };
    listener.set_nonblocking(false)?;
    let (writer, reader) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?.num_milliseconds();
    put(&writer, &note(format!(r#"{{"type":"mailbox","filled_ms":{now}}}"#).as_bytes())?, &[])?;
    for format in FORMATS {
        let some = (0..EACH).map(|_| Ok(listener.accept()?.0)).collect::<Result<Vec<TcpStream>, Failed>>()?;
        put(&writer, &message(format)?, &some)?;
    }
    let file = std::fs::File::open("/dev/null")?;
    store(reader.as_raw_fd())?;
    store(file.as_raw_fd())?;
    notify(b"READY=1", &[])?;
    loop {
        std::thread::park();
    }
}

fn note(json: &[u8]) -> Result<Vec<u8>, Failed> {
    let mut bytes = b"parcels/1 ".to_vec();
    bytes.write_all(&u32::try_from(json.len())?.to_be_bytes())?;
    bytes.write_all(json)?;
    Ok(bytes)
}

fn message(format: Format) -> Result<Vec<u8>, Failed> {
    let records = |more: &str| {
        let one = |id| format!(r#"{{"id":{id},"listener":"http","protocol":"http1"{more}}}"#);
        let all: Vec<_> = (0..EACH).map(one).collect();
        format!(r#"{{"type":"parcels","records":[{}]}}"#, all.join(","))
    };
    Ok(match format {
        Format::First => note(records("").as_bytes())?,
        Format::Older => b"parcels/0 of former times".to_vec(),
        Format::Newer => b"parcels/2 of times to come".to_vec(),
        Format::CutShort => note(records("").as_bytes())?[..200].to_vec(),
        Format::Incomplete => note(records(r#","contents":{"head":0,"state":0,"unread":64}"#).as_bytes())?,
    })
}

fn put(writer: &OwnedFd, bytes: &[u8], some: &[TcpStream]) -> Result<(), Failed> {
    let fds: Vec<RawFd> = some.iter().map(|one| one.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(writer.as_raw_fd(), &[IoSlice::new(bytes)], rights, MsgFlags::empty(), None)?;
    Ok(())
}

fn store(fd: RawFd) -> Result<(), Failed> {
    notify(format!("FDSTORE=1\nFDNAME={NAME}\nFDPOLL=0").as_bytes(), &[fd])
}

fn notify(text: &[u8], fds: &[RawFd]) -> Result<(), Failed> {
    let path = std::env::var("NOTIFY_SOCKET")?;
    let address = match path.strip_prefix('@') {
        Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
        None => UnixAddr::new(path.as_str())?,
    };
    let socket = UnixDatagram::unbound()?;
    let rights = [ControlMessage::ScmRights(fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(text)], rights, MsgFlags::empty(), Some(&address))?;
    Ok(())
}
