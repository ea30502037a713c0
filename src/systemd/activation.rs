//! Sockets by name.
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

/// A listening stream socket: bound, listening, close-on-exec and nonblocking.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// TCP over IPv4, IPv6 or both.
    Tcp(TcpListener),
    /// A Unix stream socket, by path or abstract.
    Unix(UnixListener),
}
