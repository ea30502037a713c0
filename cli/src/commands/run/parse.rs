//! The arguments of `handover run` that are more than one word.

use std::ffi::OsString;
use std::net::SocketAddr;

use handover::supervise::{Passing, Ready, StopSignals, Supervisor};

/// A socket, as it was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SocketSpec {
    name: String,
    address: Option<(Form, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Stream,
    Datagram,
    Seqpacket,
}

impl SocketSpec {
    pub(super) fn give(self, to: Supervisor) -> Supervisor {
        match self.address {
            None => to.socket(self.name),
            Some((Form::Stream, address)) => to.listen(self.name, address),
            Some((Form::Datagram, address)) => to.listen_datagram(self.name, address),
            Some((Form::Seqpacket, address)) => to.listen_seqpacket(self.name, address),
        }
    }
}

pub(super) fn socket(text: &str) -> Result<SocketSpec, String> {
    let (name, address) = match text.split_once('=') {
        Some((name, address)) => (name, Some(address)),
        None => (text, None),
    };
    if name.is_empty() || name.len() > 255 || !name.bytes().all(|b| (33..127).contains(&b) && b != b':') {
        return Err(format!("{name:?} is no name for a socket: letters, digits, - and the like, without a colon"));
    }
    let address = address.map(|address| {
        let (form, rest) = [
            ("udp:", Form::Datagram),
            ("datagram:", Form::Datagram),
            ("seqpacket:", Form::Seqpacket),
            ("tcp:", Form::Stream),
        ]
        .into_iter()
        .find_map(|(prefix, form)| Some((form, address.strip_prefix(prefix)?)))
        .unwrap_or((Form::Stream, address));
        (form, rest.to_owned())
    });
    if let Some((_, address)) = &address
        && address.is_empty()
    {
        return Err(format!("{name} has no address: write {name}=:8080, or {name} alone if systemd passes it"));
    }
    Ok(SocketSpec { name: name.to_owned(), address })
}

/// `:9100` is that port of every address.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let whole = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    whole.parse().map_err(|_| "write an IP address and a port, as 127.0.0.1:9465".to_owned())
}

pub(super) fn passing(text: &str) -> Result<Passing, String> {
    Passing::named(text).ok_or_else(|| "there are listen, starter, einhorn and nginx".to_owned())
}

pub(super) fn stop_signals(text: &str) -> Result<StopSignals, String> {
    text.parse().map_err(|e: handover::Error| e.to_string())
}

/// Finds a group by its name, or by its number.
pub(super) fn group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let found =
        nix::unistd::Group::from_name(text).map_err(|e| format!("the group {text:?} cannot be looked up: {e}"))?;
    found.map(|group| group.gid.as_raw()).ok_or_else(|| format!("there is no group {text:?}"))
}

pub(super) fn ready(text: &str) -> Result<Ready, String> {
    let (how, rest) = text.split_once(':').map_or((text, None), |(how, rest)| (how, Some(rest)));
    match (how, rest) {
        ("notify", None) => Ok(Ready::Notify),
        ("accept", socket) => Ok(Ready::Accept(socket.map(str::to_owned))),
        ("http", Some(rest)) => {
            let (socket, path) = match rest.split_once(":/") {
                Some((socket, path)) if !socket.contains('/') => (Some(socket.to_owned()), format!("/{path}")),
                _ => (None, rest.to_owned()),
            };
            if path.starts_with('/') {
                Ok(Ready::Http { socket, path })
            } else {
                Err("write http:/PATH or http:SOCKET:/PATH".into())
            }
        }
        ("exec", Some(command)) if !command.trim().is_empty() => {
            Ok(Ready::Command(["/bin/sh", "-c", command].map(OsString::from).to_vec()))
        }
        ("delay", Some(time)) => humantime::parse_duration(time).map(Ready::Delay).map_err(|e| e.to_string()),
        _ => Err("there are notify, accept[:SOCKET], http[:SOCKET]:/PATH, exec:COMMAND and delay:TIME".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sockets_are_read() {
        let spec = |name: &str, address: Option<(Form, &str)>| SocketSpec {
            name: name.into(),
            address: address.map(|(form, address)| (form, address.into())),
        };
        assert_eq!(socket("http").unwrap(), spec("http", None));
        assert_eq!(socket("http=:8080").unwrap(), spec("http", Some((Form::Stream, ":8080"))));
        assert_eq!(socket("dns=udp:[::1]:53").unwrap(), spec("dns", Some((Form::Datagram, "[::1]:53"))));
        assert_eq!(socket("x=unix:/run/x=y").unwrap(), spec("x", Some((Form::Stream, "unix:/run/x=y"))));
        for bad in ["", "=:80", "a:b=:80", "a b", "http="] {
            assert!(socket(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn groups_are_found() {
        assert_eq!((group("7"), group("root")), (Ok(7), Ok(0)));
        assert!(group("there-is-no-such").unwrap_err().contains("no group"));
    }

    #[test]
    fn readiness_is_read() {
        assert_eq!(ready("notify").unwrap(), Ready::Notify);
        assert_eq!(ready("accept:http").unwrap(), Ready::Accept(Some("http".into())));
        assert_eq!(ready("http:/a:/b").unwrap(), Ready::Http { socket: None, path: "/a:/b".into() });
        assert_eq!(ready("http:web:/up").unwrap(), Ready::Http { socket: Some("web".into()), path: "/up".into() });
        assert_eq!(ready("delay:1500ms").unwrap(), Ready::Delay(Duration::from_millis(1500)));
        assert!(matches!(ready("exec:curl -f x").unwrap(), Ready::Command(c) if c.len() == 3));
        for bad in ["", "notify:x", "http", "http:x", "exec:", "delay", "delay:x", "magic"] {
            assert!(ready(bad).is_err(), "{bad:?}");
        }
    }
}
