//! Binds sockets without systemd.

use crate::error::{Error, Kind, Result};
use crate::sys::socket as sys;
use crate::sys::unix_path;
use crate::systemd::socket::{FromPassed as _, Listener, Need, Socket, SocketKind};
use crate::systemd::typed::{DATAGRAM, SeqpacketListener};
use nix::sys::socket::{SockType, UnixAddr};
use nix::sys::stat::Mode;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

/// The mode of the file of a Unix socket that [`bind`] makes, before the umask: only its own user
/// can connect.
///
/// systemd's default, `SocketMode=0666`, is a decision of the administrator who wrote the unit;
/// nobody made one here.
pub const SOCKET_MODE: u32 = 0o600;

/// Binds and listens, for when nobody passed a socket.
///
/// | address | listens at |
/// |---|---|
/// | `127.0.0.1:8080`, `[::1]:8080` | that address |
/// | `[::]:8080` | all of IPv6 and IPv4 |
/// | `:8080` or `8080` | the same; where there is no IPv6, all of IPv4 |
/// | `localhost:8080` | every address that the name has; the lookup blocks |
/// | `/run/web.sock`, `unix:/run/web.sock` | that path, of mode [`SOCKET_MODE`] |
/// | `@web`, `unix:@web` | that abstract name |
///
/// TCP ports can be bound again while old connections linger (`SO_REUSEADDR`). The backlog is 4096,
/// of which the kernel grants at most `net.core.somaxconn`.
///
/// The file of a Unix socket is replaced if nobody listens at it any more, and is never removed
/// otherwise: other generations may still be using it. ([`Service`](crate::Service) removes those
/// that it bound when it stops for good.)
///
/// # Errors
///
/// The address is none of these, is in use, or is not permitted. At a Unix path there is something
/// else than a socket, or somebody listens.
///
/// # Limitations
///
/// Of two processes that bind one and the same Unix path at the same moment, one may end up
/// unreachable: between bind(2) and listen(2) a socket looks like a stale one. Under systemd, which
/// binds, that cannot happen.
pub fn bind(address: &str) -> Result<Vec<Listener>> {
    open("", Form::Stream, address)?.into_iter().map(Listener::from_passed).collect()
}

/// Binds a Unix socket that keeps packets apart, and listens. The address is a path or a name, as
/// [`bind`] takes them.
///
/// # Errors
///
/// They are those of [`bind`].
pub fn bind_seqpacket(address: &str) -> Result<SeqpacketListener> {
    let mut sockets = open("", Form::Seqpacket, address)?;
    let socket = sockets.pop().ok_or_else(|| invalid(address, Form::Seqpacket, "there is no address"))?;
    SeqpacketListener::from_passed(socket)
}

/// Binds sockets that receive datagrams: UDP, or Unix ones. The address is one of those of
/// [`bind`], the name is for [`Socket::name`].
///
/// A UDP port is never shared with another socket (no `SO_REUSEADDR`).
///
/// # Errors
///
/// They are those of [`bind`].
pub fn bind_datagram(name: &str, address: &str) -> Result<Vec<Socket>> {
    open(name, Form::Datagram, address)
}

/// What a socket is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Stream,
    Seqpacket,
    Datagram,
}

/// What a socket of some [`Form`] is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Inet,
    Unix,
}

impl Form {
    /// Returns what a passed socket must be to serve as one of this form.
    pub(crate) fn need(self) -> &'static Need {
        match self {
            Self::Stream => &Listener::NEED,
            Self::Seqpacket => &SeqpacketListener::NEED,
            Self::Datagram => &DATAGRAM,
        }
    }

    /// Returns what a socket of this form is once it is bound, and listens if it can.
    fn bound(self, family: Family) -> SocketKind {
        match (self, family) {
            (Self::Stream, Family::Inet) => SocketKind::TcpListener,
            (Self::Stream, Family::Unix) => SocketKind::UnixListener,
            // The kernel has none but Unix ones, and `open` refuses other addresses.
            (Self::Seqpacket, _) => SocketKind::UnixSeqpacketListener,
            (Self::Datagram, Family::Inet) => SocketKind::Udp,
            (Self::Datagram, Family::Unix) => SocketKind::UnixDatagram,
        }
    }

    fn kind(self) -> SockType {
        match self {
            Self::Stream => SockType::Stream,
            Self::Seqpacket => SockType::SeqPacket,
            Self::Datagram => SockType::Datagram,
        }
    }

    fn verb(self) -> &'static str {
        if self == Self::Datagram { "receive" } else { "listen" }
    }
}

/// Binds sockets of that form, nonblocking ones, and listens with those that can.
pub(crate) fn open(name: &str, form: Form, address: &str) -> Result<Vec<Socket>> {
    let unix = address.strip_prefix("unix:");
    let (family, fds) = match unix.unwrap_or(address) {
        name if name.starts_with('@') && name.len() > 1 => (Family::Unix, vec![abstract_name(form, name)?]),
        path if path.starts_with('/') => (Family::Unix, vec![path_name(form, Path::new(path))?]),
        _ if unix.is_some() || form == Form::Seqpacket => {
            return Err(invalid(address, form, "a Unix socket is an absolute path or @name"));
        }
        port if port.strip_prefix(':').unwrap_or(port).bytes().all(|c| c.is_ascii_digit()) => {
            let port = port.strip_prefix(':').unwrap_or(port).parse();
            let port = port.map_err(|_| invalid(address, form, "there is no such port"))?;
            (Family::Inet, all_addresses(form, address, port)?)
        }
        _ => (Family::Inet, inet(form, address)?),
    };
    let kind = form.bound(family);
    Ok(fds.into_iter().map(|fd| Socket::made(name.to_owned(), kind, fd)).collect())
}

fn inet(form: Form, address: &str) -> Result<Vec<OwnedFd>> {
    // A literal address is never looked up.
    let mut addresses: Vec<SocketAddr> = match address.parse() {
        Ok(literal) => vec![literal],
        Err(_) => match address.to_socket_addrs() {
            Ok(found) => found.collect(),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let why = "expected HOST:PORT, [IPv6]:PORT, a port, an absolute path or @name";
                return Err(invalid(address, form, why));
            }
            Err(error) => return Err(Error::os(format!("cannot look up {address:?}"), error)),
        },
    };
    addresses.sort_unstable();
    addresses.dedup();
    let mut fds = Vec::new();
    let mut skipped = None;
    for one in addresses {
        match sys::bind_inet(one, form.kind()) {
            Ok(fd) => fds.push(fd),
            // localhost has an IPv6 address also where there is no IPv6.
            Err(error) if no_such_address(&error) => skipped = Some((one, error)),
            Err(error) => return Err(refused(form, &one, error)),
        }
    }
    match skipped {
        Some((one, error)) if fds.is_empty() => Err(refused(form, &one, error)),
        _ if fds.is_empty() => Err(invalid(address, form, "the name has no address")),
        _ => Ok(fds),
    }
}

fn all_addresses(form: Form, address: &str, port: u16) -> Result<Vec<OwnedFd>> {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let fd = sys::bind_inet(v6, form.kind()).or_else(|error| {
        // EINVAL or ENOPROTOOPT never come from here: IPV6_V6ONLY exists wherever AF_INET6 does.
        if no_such_address(&error) { sys::bind_inet(v4, form.kind()) } else { Err(error) }
    });
    Ok(vec![fd.map_err(|error| refused(form, &address, error))?])
}

fn no_such_address(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

fn abstract_name(form: Form, name: &str) -> Result<OwnedFd> {
    let address =
        UnixAddr::new_abstract(&name.as_bytes()[1..]).map_err(|_| invalid(name, form, "the name is too long"))?;
    let fd = sys::bind_unix(&address, form.kind(), Mode::from_bits_truncate(SOCKET_MODE));
    fd.map_err(|error| refused(form, &name, error))
}

fn path_name(form: Form, path: &Path) -> Result<OwnedFd> {
    let shown = path.display();
    let too_long = |_| invalid(&shown.to_string(), form, "a path may have at most 107 bytes");
    let address = UnixAddr::new(path).map_err(too_long)?;
    let bind = || sys::bind_unix(&address, form.kind(), Mode::from_bits_truncate(SOCKET_MODE));
    match bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        other => return other.map_err(|error| refused(form, &shown, error)),
    }
    let os = |what: &str, error| Error::os(format!("cannot {what} {shown}"), error);
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(Error::new(
                Kind::Socket,
                format!("{shown} is there and not a socket: remove it or choose another path"),
            ));
        }
        Ok(_) => {}
        Err(error) => return Err(os("look at", error)),
    }
    if sys::is_listened_to(&address).map_err(|error| os("see whether somebody listens at", error))? {
        let why = format!("somebody listens at {shown} already: stop that process or choose another path");
        return Err(Error::new(Kind::Socket, why));
    }
    unix_path::unlink(path)?;
    bind().map_err(|error| refused(form, &shown, error))
}

fn invalid(address: &str, form: Form, why: &str) -> Error {
    Error::new(Kind::Invalid, format!("cannot {} at {address:?}: {why}", form.verb()))
}

fn refused(form: Form, address: &dyn std::fmt::Display, error: io::Error) -> Error {
    Error::caused(Kind::Socket, format!("cannot {} at {address}", form.verb()), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    /// The kernel is not asked what was bound here, so it must be what the kernel would say.
    #[test]
    fn a_bound_socket_is_what_the_kernel_says() {
        let directory = tempfile::tempdir().unwrap();
        for form in [Form::Stream, Form::Seqpacket, Form::Datagram] {
            let path = directory.path().join(format!("{form:?}")).display().to_string();
            let name = format!("@handover-{}-{form:?}", std::process::id());
            let inet = (form != Form::Seqpacket).then_some("localhost:0".to_owned());
            for address in [path, name].into_iter().chain(inet) {
                for socket in open("name", form, &address).unwrap() {
                    assert_eq!(socket.kind(), SocketKind::of(socket.as_fd()).unwrap(), "{address}");
                    assert!(sys::is_nonblocking(socket.as_fd()).unwrap(), "{address}");
                    socket.check(form.need()).unwrap();
                }
            }
        }
    }
}
