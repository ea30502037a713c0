//! What generations that share a datagram socket say to each other about its flows: one packet a
//! message.
//!
//! An old generation tells a new one the keys of its flows, once it does not receive any more, and
//! each change after that. The new one sends back the datagrams of those flows. A message begins
//! with its tag; unknown tags, of newer versions, are skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// The longest key of a flow, in bytes. QUIC's connection ids have at most 20.
pub(crate) const MAX_KEY: usize = 255;
/// Keys in one message have so many bytes: well below the kernel's default socket buffer.
const MAX_KEYS: usize = 16 * 1024;
/// The longest message: a whole datagram with its address.
pub(crate) const MAX_MESSAGE: usize = 66 * 1024;

/// Old to new: these flows are ours (or of generations before us).
const ADDED: u8 = b'A';
/// Old to new: they are over.
const REMOVED: u8 = b'R';
/// Old to new: we do not receive any more, and you know all our flows.
const SHUT: u8 = b'S';
/// The first byte of a message from new to old: a datagram of one of your flows.
const DATAGRAM: u8 = b'D';

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FlowMessage {
    Added(Vec<Vec<u8>>),
    Removed(Vec<Vec<u8>>),
    Shut,
    Datagram {
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    /// A message from a newer version is not for us.
    Unknown,
}

/// Makes the messages that say this of these keys, each of at most [`MAX_KEY`] bytes.
pub(crate) fn keys<'a>(added: bool, keys: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let tag = if added { ADDED } else { REMOVED };
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for key in keys {
        let Ok(length) = u8::try_from(key.len()) else { continue };
        match messages.last_mut() {
            Some(last) if last.len() + key.len() < MAX_KEYS => {
                last.push(length);
                last.extend(key);
            }
            _ => messages.push([&[tag, length], key].concat()),
        }
    }
    messages
}

pub(crate) fn shut() -> Vec<u8> {
    vec![SHUT]
}

pub(crate) fn datagram(from: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![DATAGRAM];
    let port = from.port().to_be_bytes();
    match from {
        SocketAddr::V4(v4) => {
            message.push(4);
            message.extend(v4.ip().octets());
            message.extend(port);
        }
        SocketAddr::V6(v6) => {
            message.push(6);
            message.extend(v6.ip().octets());
            message.extend(port);
            message.extend(v6.scope_id().to_be_bytes());
        }
    }
    message.extend(bytes);
    message
}

/// Decodes a message; `None` if it is cut short, or is none.
pub(crate) fn decode(message: &[u8]) -> Option<FlowMessage> {
    let (tag, rest) = message.split_first()?;
    Some(match *tag {
        ADDED => FlowMessage::Added(split(rest)?),
        REMOVED => FlowMessage::Removed(split(rest)?),
        SHUT => FlowMessage::Shut,
        DATAGRAM => {
            let (from, bytes) = address(rest)?;
            FlowMessage::Datagram { from, bytes: bytes.to_vec() }
        }
        _ => FlowMessage::Unknown,
    })
}

fn split(mut rest: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    while let Some((length, more)) = rest.split_first() {
        let (key, more) = more.split_at_checked(usize::from(*length))?;
        keys.push(key.to_vec());
        rest = more;
    }
    Some(keys)
}

fn address(rest: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (family, rest) = rest.split_first()?;
    let port = |bytes: &[u8; 2]| u16::from_be_bytes(*bytes);
    match family {
        4 => {
            let (ip, rest) = rest.split_first_chunk::<4>()?;
            let (at, rest) = rest.split_first_chunk()?;
            Some((SocketAddr::new(IpAddr::V4(Ipv4Addr::from(*ip)), port(at)), rest))
        }
        6 => {
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            let (at, rest) = rest.split_first_chunk()?;
            let (scope, rest) = rest.split_first_chunk()?;
            let v6 = SocketAddrV6::new(Ipv6Addr::from(*ip), port(at), 0, u32::from_be_bytes(*scope));
            Some((v6.into(), rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    #[test]
    fn messages_come_back_as_they_went() {
        for from in ["127.0.0.1:53", "[fe80::1%3]:4433"] {
            let from: SocketAddr = from.parse().unwrap();
            for bytes in [&b""[..], b"hello"] {
                let message = FlowMessage::Datagram { from, bytes: bytes.to_vec() };
                assert_eq!(decode(&datagram(from, bytes)), Some(message));
            }
        }
        assert_eq!(decode(&shut()), Some(FlowMessage::Shut));
        assert_eq!(decode(b"Z?"), Some(FlowMessage::Unknown));
        for cut in [&b""[..], b"A\x02x", b"D", b"D\x04abc", b"D\x05abcdefgh"] {
            assert_eq!(decode(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn many_keys_are_several_messages() {
        let all: Vec<Vec<u8>> = (0..10_000_u32).map(|n| n.to_be_bytes().repeat(5)).collect();
        let messages = keys(true, all.iter().map(Vec::as_slice));
        assert!(messages.len() > 1 && messages.iter().all(|m| m.len() <= MAX_MESSAGE));
        let back: Vec<_> = messages
            .iter()
            .flat_map(|message| match decode(message) {
                Some(FlowMessage::Added(keys)) => keys,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(back, all);
        let empty: Vec<&[u8]> = vec![b""];
        assert_eq!(decode(&keys(false, empty)[0]), Some(FlowMessage::Removed(vec![Vec::new()])));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(13), ..ProptestConfig::default() })]
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }
    }
}
