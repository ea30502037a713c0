//! Listening without systemd.

use crate::error::{Error, Kind, Result};
use crate::sys::socket as sys;
use crate::systemd::socket::Listener;
use nix::sys::socket::UnixAddr;
use nix::sys::stat::Mode;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

/// The mode of the file of a Unix socket that [`bind`] makes, before the umask: only its own user can connect.
///
/// systemd's default, `SocketMode=0666`, is a decision of the administrator who wrote the unit; nobody
/// made one here.
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
/// TCP ports can be bound again while old connections linger (`SO_REUSEADDR`). The backlog is 4096, of which the
/// kernel grants at most `net.core.somaxconn`.
///
/// The file of a Unix socket is replaced if nobody listens at it any more, and is never removed otherwise, also
/// not at the end: other generations may still be using it.
///
/// # Errors
///
/// The address is none of these, is in use, or is not permitted. At a Unix path there is something else than a
/// socket, or somebody listens.
///
/// # Limitations
///
/// Of two processes that bind one and the same Unix path at the same moment, one may end up unreachable: between
/// bind(2) and listen(2) a socket looks like a stale one. Under systemd, which binds, that cannot happen.
pub fn bind(address: &str) -> Result<Vec<Listener>> {
    let unix = address.strip_prefix("unix:");
    match unix.unwrap_or(address) {
        name if name.starts_with('@') && name.len() > 1 => Ok(vec![abstract_name(name)?]),
        path if path.starts_with('/') => Ok(vec![path_name(Path::new(path))?]),
        _ if unix.is_some() => Err(invalid(address, "a Unix socket is an absolute path or @name")),
        port if port.strip_prefix(':').unwrap_or(port).bytes().all(|c| c.is_ascii_digit()) => {
            let port = port.strip_prefix(':').unwrap_or(port).parse();
            all_addresses(address, port.map_err(|_| invalid(address, "there is no such port"))?)
        }
        _ => tcp(address),
    }
}

fn tcp(address: &str) -> Result<Vec<Listener>> {
    // A literal address is never looked up.
    let mut addresses: Vec<SocketAddr> = match address.parse() {
        Ok(literal) => vec![literal],
        Err(_) => match address.to_socket_addrs() {
            Ok(found) => found.collect(),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(invalid(address, "expected HOST:PORT, [IPv6]:PORT, a port, an absolute path or @name"));
            }
            Err(error) => return Err(Error::os(format!("cannot look up {address:?}"), error)),
        },
    };
    addresses.sort_unstable();
    addresses.dedup();
    let mut listeners = Vec::new();
    let mut skipped = None;
    for one in addresses {
        match sys::listen_tcp(one) {
            Ok(listener) => listeners.push(Listener::Tcp(listener)),
            // localhost has an IPv6 address also where there is no IPv6.
            Err(error) if no_such_address(&error) => skipped = Some((one, error)),
            Err(error) => return Err(refused(&one, error)),
        }
    }
    match skipped {
        Some((one, error)) if listeners.is_empty() => Err(refused(&one, error)),
        _ if listeners.is_empty() => Err(invalid(address, "the name has no address")),
        _ => Ok(listeners),
    }
}

fn all_addresses(address: &str, port: u16) -> Result<Vec<Listener>> {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = sys::listen_tcp(v6).or_else(|error| {
        // EINVAL or ENOPROTOOPT never come from here: IPV6_V6ONLY exists wherever AF_INET6 does.
        if no_such_address(&error) { sys::listen_tcp(v4) } else { Err(error) }
    });
    Ok(vec![Listener::Tcp(listener.map_err(|error| refused(&address, error))?)])
}

fn no_such_address(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

fn abstract_name(name: &str) -> Result<Listener> {
    let address = UnixAddr::new_abstract(&name.as_bytes()[1..]).map_err(|_| invalid(name, "the name is too long"))?;
    let listener = sys::listen_unix(&address, Mode::from_bits_truncate(SOCKET_MODE));
    listener.map(Listener::Unix).map_err(|error| refused(&name, error))
}

fn path_name(path: &Path) -> Result<Listener> {
    let shown = path.display();
    let address = UnixAddr::new(path).map_err(|_| invalid(&shown.to_string(), "a path may have at most 107 bytes"))?;
    let listen = || sys::listen_unix(&address, Mode::from_bits_truncate(SOCKET_MODE)).map(Listener::Unix);
    match listen() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        other => return other.map_err(|error| refused(&shown, error)),
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
    std::fs::remove_file(path).map_err(|error| os("replace", error))?;
    listen().map_err(|error| refused(&shown, error))
}

fn invalid(address: &str, why: &str) -> Error {
    Error::new(Kind::Invalid, format!("cannot listen at {address:?}: {why}"))
}

fn refused(address: &dyn std::fmt::Display, error: io::Error) -> Error {
    Error::io(Kind::Socket, format!("cannot listen at {address}"), error)
}
