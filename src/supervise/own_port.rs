//! A program that does not take the sockets that it is given, and binds addresses itself: the first
//! mistake under a supervisor. It is told what to do instead.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;

use nix::sys::stat::fstat;

use crate::supervise::inheritance::Item;
use crate::supervise::tree::ProcessFamily;
use crate::sys::queue;

/// The state of a listener in the kernel's tables, see proc_net_tcp(5).
const LISTEN: &str = "0A";

/// Says what may be wrong with a program that exited before it was ready. It is `None` if there is
/// no socket that it could have been about.
pub(crate) fn after_exit(items: &[Item], first_fd: i32) -> Option<String> {
    let (fd, item) = (first_fd..).zip(items).find(|(_, item)| item.is_socket())?;
    let address = queue::bound_to(item.fd.as_fd())?;
    Some(format!(
        "; if it says that its address is in use: {address} is open already, as its fd {fd}, and the program must take \
         that instead of binding the address itself (LISTEN_FDS, or {{fd}} in its arguments, see --pass)"
    ))
}

/// Says that a program which is not ready listens on a socket of its own. It is `None` if it does
/// not.
pub(crate) fn while_it_runs(family: &ProcessFamily, items: &[Item], first_fd: i32) -> Option<String> {
    let (fd, _) = (first_fd..).zip(items).find(|(_, item)| item.accepts())?;
    let passed: BTreeSet<u64> = items.iter().filter_map(|item| Some(fstat(item.fd.as_fd()).ok()?.st_ino)).collect();
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let tables = tables.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let listeners = tables.iter().flat_map(|table| table.lines()).filter_map(listener);
    let mut others = listeners.filter(|(_, inode)| !passed.contains(inode));
    let (address, _) = others.find(|(_, inode)| family.holds_socket(*inode))?;
    Some(format!(
        "; it listens on {address} by itself: the program must take its fd {fd} instead (LISTEN_FDS, or {{fd}} in its \
         arguments, see --pass)"
    ))
}

/// Reads a line of such a table: the address of a listener, and its inode.
fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields[..] else { return None };
    let (ip, port) = local.split_once(':')?;
    // The words of an address are in the machine's order.
    let words = (0..ip.len() / 8).map(|at| u32::from_str_radix(&ip[at * 8..at * 8 + 8], 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::from(Ipv4Addr::from(v4)),
        Err(_) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)),
    };
    Some((SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?), inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn a_listener_of_its_own_is_found() {
        let item = |listener: TcpListener| Item::new("http".to_owned(), OwnedFd::from(listener)).unwrap();
        let passed = [item(TcpListener::bind("127.0.0.1:0").unwrap())];
        let own = TcpListener::bind("[::1]:0").unwrap();
        let inode = fstat(&own).unwrap().st_ino;
        let table = std::fs::read_to_string("/proc/self/net/tcp6").unwrap();
        assert!(table.lines().filter_map(listener).any(|found| found == (own.local_addr().unwrap(), inode)), "{table}");
        let said = after_exit(&passed, 7).unwrap();
        assert!(said.contains("127.0.0.1:") && said.contains("as its fd 7"), "{said}");
        assert_eq!(after_exit(&[], 3), None);
    }

    #[test]
    fn other_lines_are_passed_by() {
        for line in [
            "",
            "sl local_address rem_address st",
            "0: 0100007F:0050 00000000:0000 01 a b c d e 7",
            "x: y z 0A a b c d e f",
        ] {
            assert_eq!(listener(line), None, "{line}");
        }
        let line = "0: 00000000:1F90 00000000:0000 0A 0:0 0:0 0 0 0 77 1";
        assert_eq!(listener(line), Some(("0.0.0.0:8080".parse().unwrap(), 77)));
    }
}
