//! Tells a program which sockets it has, in the way that it understands.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use crate::error::{Error, Kind, Result};
use crate::supervise::inheritance::Item;
use crate::sys::queue;
use crate::sys::spawn::LISTEN_FDS_START;

/// A convention by which programs take sockets that were opened for them. Several can be used at
/// once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Passing {
    /// `LISTEN_FDS`, `LISTEN_FDNAMES` and `LISTEN_PID`, as systemd does: sd_listen_fds(3) and what
    /// follows it in Go, Python, Rust, Node.
    Listen,
    /// `SERVER_STARTER_PORT` and `SERVER_STARTER_GENERATION`, as `start_server` of Perl's
    /// Server::Starter does.
    Starter,
    /// `EINHORN_FDS`, `EINHORN_FD_COUNT` and `EINHORN_FD_0`…, as einhorn does.
    Einhorn,
    /// `NGINX`, as nginx itself passes its sockets when its binary is upgraded. Its configuration
    /// must `listen` at the same addresses.
    Nginx,
}

impl Passing {
    /// Finds a convention by the name that `handover run --pass` takes.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "listen" => Self::Listen,
            "starter" => Self::Starter,
            "einhorn" => Self::Einhorn,
            "nginx" => Self::Nginx,
            _ => return None,
        })
    }
}

/// What a program finds in its environment and its arguments.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) pid_variables: Vec<&'static str>,
    pub(crate) arguments: Vec<OsString>,
}

/// Makes what the program is told; `items` will be its fds from `first` on.
pub(crate) fn tell(
    ways: &[Passing],
    first: RawFd,
    items: &[Item],
    arguments: &[OsString],
    generation: u64,
) -> Result<Told> {
    let numbered: Vec<(RawFd, &Item)> = (first..).zip(items).collect();
    let mut variables = vec![("HANDOVER_GENERATION".to_owned(), generation.to_string())];
    let mut pid_variables = vec!["SYSTEMD_EXEC_PID"];
    for way in ways {
        match way {
            // Its readers look from fd 3 on, whatever is said.
            Passing::Listen if first != LISTEN_FDS_START => {}
            Passing::Listen => {
                let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
                variables.push(("LISTEN_FDS".into(), items.len().to_string()));
                variables.push(("LISTEN_FDNAMES".into(), names.join(":")));
                pid_variables.push("LISTEN_PID");
            }
            Passing::Starter => {
                let ports: Vec<String> = listening(&numbered).filter_map(|(fd, item)| starter(fd, item)).collect();
                variables.push(("SERVER_STARTER_PORT".into(), ports.join(";")));
                variables.push(("SERVER_STARTER_GENERATION".into(), generation.to_string()));
            }
            Passing::Einhorn => {
                let fds: Vec<RawFd> = listening(&numbered).map(|(fd, _)| fd).collect();
                let all: Vec<String> = fds.iter().map(ToString::to_string).collect();
                variables.push(("EINHORN_MASTER_PID".into(), std::process::id().to_string()));
                variables.push(("EINHORN_FDS".into(), all.join(" ")));
                variables.push(("EINHORN_FD_COUNT".into(), all.len().to_string()));
                variables.extend(all.into_iter().enumerate().map(|(at, fd)| (format!("EINHORN_FD_{at}"), fd)));
            }
            Passing::Nginx => {
                let all = listening(&numbered).fold(String::new(), |mut all, (fd, _)| {
                    let _ = write!(all, "{fd};");
                    all
                });
                variables.push(("NGINX".into(), all));
            }
        }
    }
    let arguments = arguments.iter().map(|a| expand(a, &numbered, generation)).collect::<Result<_>>()?;
    Ok(Told { variables, pid_variables, arguments })
}

/// Leaves out what other conventions than `LISTEN_FDS` have no word for.
fn listening<'a>(numbered: &'a [(RawFd, &'a Item)]) -> impl Iterator<Item = (RawFd, &'a Item)> {
    numbered.iter().filter(|(_, item)| item.is_socket).map(|(fd, item)| (*fd, *item))
}

/// Writes `host:port=fd`, `port=fd` for all addresses, or `/path=fd`; with a `u` before the port
/// for UDP.
fn starter(fd: RawFd, item: &Item) -> Option<String> {
    let address = queue::bound_to(item.fd.as_fd())?;
    let Ok(inet) = address.parse::<SocketAddr>() else {
        let path = address.strip_prefix("unix:").filter(|path| path.starts_with('/'));
        return path.map(|path| format!("{path}={fd}"));
    };
    let udp = if item.is_datagram { "u" } else { "" };
    let port = inet.port();
    Some(match inet {
        inet if inet.ip().is_unspecified() => format!("{udp}{port}={fd}"),
        SocketAddr::V4(v4) => format!("{}:{udp}{port}={fd}", v4.ip()),
        SocketAddr::V6(v6) => format!("[{}]:{udp}{port}={fd}", v6.ip()),
    })
}

/// Expands `{fd}` to the first socket's number, `{fd:NAME}` to that of the first one of that name,
/// `{generation}` to the generation's, and `{{` to `{`.
fn expand(argument: &OsStr, numbered: &[(RawFd, &Item)], generation: u64) -> Result<OsString> {
    let number = |name: Option<&str>| {
        let found = numbered.iter().find(|(_, item)| name.is_none_or(|name| item.name == name));
        found.map(|(fd, _)| fd.to_string()).ok_or_else(|| {
            let name = name.unwrap_or_default();
            Error::new(
                Kind::Invalid,
                format!("the argument {argument:?} names the socket {name:?}, which there is not"),
            )
        })
    };
    let mut out = Vec::new();
    let mut rest = argument.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'{') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix(b"{{") {
            out.push(b'{');
            rest = after;
            continue;
        }
        let end = rest.iter().position(|b| *b == b'}');
        let inner = end.and_then(|end| std::str::from_utf8(&rest[1..end]).ok()).unwrap_or_default();
        let value = match inner {
            "fd" => Some(number(None)?),
            "generation" => Some(generation.to_string()),
            _ => inner.strip_prefix("fd:").map(|name| number(Some(name))).transpose()?,
        };
        match (value, end) {
            (Some(value), Some(end)) => {
                out.extend(value.bytes());
                rest = &rest[end + 1..];
            }
            // Anything else in braces is the program's own affair.
            _ => {
                out.push(b'{');
                rest = &rest[1..];
            }
        }
    }
    out.extend_from_slice(rest);
    Ok(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn items() -> Vec<Item> {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let all = [("http", tcp.into()), ("dns", udp.into()), ("stored", std::os::fd::OwnedFd::from(file))];
        all.into_iter().map(|(name, fd)| Item::new(name.to_owned(), fd).unwrap()).collect()
    }

    #[test]
    fn each_convention_has_its_variables() {
        let items = items();
        let port = |at: usize| queue::bound_to(items[at].fd.as_fd()).unwrap().rsplit_once(':').unwrap().1.to_owned();
        let ways = [Passing::Listen, Passing::Starter, Passing::Einhorn, Passing::Nginx];
        let told = tell(&ways, 3, &items, &[], 7).unwrap();
        let all: BTreeMap<_, _> = told.variables.into_iter().collect();
        let expected = [
            ("LISTEN_FDS", "3".to_owned()),
            ("LISTEN_FDNAMES", "http:dns:stored".to_owned()),
            ("SERVER_STARTER_PORT", format!("127.0.0.1:{}=3;127.0.0.1:u{}=4", port(0), port(1))),
            ("SERVER_STARTER_GENERATION", "7".to_owned()),
            ("EINHORN_FDS", "3 4".to_owned()),
            ("EINHORN_FD_COUNT", "2".to_owned()),
            ("EINHORN_FD_1", "4".to_owned()),
            ("NGINX", "3;4;".to_owned()),
            ("HANDOVER_GENERATION", "7".to_owned()),
        ];
        for (name, value) in expected {
            assert_eq!(all.get(name), Some(&value), "{name}");
        }
        assert_eq!(told.pid_variables, ["SYSTEMD_EXEC_PID", "LISTEN_PID"]);
        let elsewhere = tell(&ways, 10, &items, &[], 1).unwrap();
        assert!(!elsewhere.variables.iter().any(|(name, _)| name.starts_with("LISTEN")), "{elsewhere:?}");
    }

    #[test]
    fn arguments_name_fds() {
        let items = items();
        let expanded = |argument: &str| {
            let told = tell(&[], 5, &items, &[argument.into()], 2)?;
            Ok::<_, Error>(told.arguments[0].clone().into_string().unwrap())
        };
        assert_eq!(expanded("--fd={fd}").unwrap(), "--fd=5");
        assert_eq!(expanded("fd://{fd:dns},{fd:http} {generation}").unwrap(), "fd://6,5 2");
        assert_eq!(expanded("{\"a\": {{fd}} {").unwrap(), "{\"a\": {fd}} {");
        assert!(expanded("{fd:none}").unwrap_err().is_invalid());
    }
}
