//! A client of HTTP/2 that knows each of its bytes.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use handover_testing::patience;
use handover_testing::processes::End;
use handover_testing::world::World;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const ACK: u8 = 1;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(super) fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// A block of headers without any table: a method, http, the authority "it", and that path.
pub(super) fn block(method: u8, path: &str) -> Vec<u8> {
    [&[method, 0x86, 0x01, 2], &b"it"[..], &[0x04, u8::try_from(path.len()).unwrap()], path.as_bytes()].concat()
}

/// A number behind a pattern whose byte has so many bits for it (RFC 7541, 5.1).
pub(super) fn number(pattern: u8, bits: u8, value: usize) -> Vec<u8> {
    let most = (1_usize << bits) - 1;
    if value < most {
        return vec![pattern | u8::try_from(value).unwrap()];
    }
    let mut bytes = vec![pattern | u8::try_from(most).unwrap()];
    let mut rest = value - most;
    while rest > 0x7f {
        bytes.push(0x80 | rest.to_le_bytes()[0]);
        rest >>= 7;
    }
    bytes.push(rest.to_le_bytes()[0]);
    bytes
}

pub(super) const GET: u8 = 0x82;
pub(super) const POST: u8 = 0x83;

pub(super) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(GET, path))
}

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// A connection that knows each of its bytes.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    /// What it does not acknowledge.
    pub(super) mute: bool,
    /// What the server grants on the connection.
    pub(super) granted: i64,
}

impl Client {
    /// One that has said nothing yet.
    pub(super) fn mute(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        Self { stream, mute: false, granted: 65_535 }
    }

    pub(super) fn new(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut client = Self::mute(address);
        let payload: Vec<u8> =
            settings.iter().flat_map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        client.send([PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat());
        client
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// The next frame that is not of the connection's own business.
    pub(super) fn next(&mut self) -> Frame {
        loop {
            let frame = self.next_of_all();
            if !matches!(frame.kind, SETTINGS | WINDOW_UPDATE) {
                return frame;
            }
        }
    }

    /// Waits until another server tells its settings.
    pub(super) fn arrives(&mut self) {
        loop {
            let frame = self.next_of_all();
            if frame.kind == SETTINGS && frame.flags & ACK == 0 {
                return;
            }
            assert!(matches!(frame.kind, SETTINGS | WINDOW_UPDATE), "{frame:?}");
        }
    }

    pub(super) fn next_of_all(&mut self) -> Frame {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).unwrap_or_else(|e| panic!("no frame: {e}"));
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).unwrap();
        let frame =
            Frame { kind: head[3], flags: head[4], stream: u32::from_be_bytes(head[5..].try_into().unwrap()), payload };
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 && !self.mute => self.send(self::frame(SETTINGS, ACK, 0, &[])),
            WINDOW_UPDATE if frame.stream == 0 => {
                self.granted += i64::from(u32::from_be_bytes(frame.payload[..].try_into().unwrap()));
            }
            _ => {}
        }
        frame
    }

    /// The answer on that stream has that body.
    pub(super) fn expect(&mut self, stream: u32, body: &str) {
        let mut got = Vec::new();
        loop {
            let frame = self.next();
            assert_eq!(frame.stream, stream, "{frame:?}");
            match frame.kind {
                HEADERS => assert_eq!(frame.payload.first(), Some(&0x88), "200: {frame:?}"),
                DATA => got.extend(&frame.payload),
                _ => panic!("{frame:?}"),
            }
            if frame.flags & END_STREAM != 0 {
                break;
            }
        }
        assert_eq!(String::from_utf8_lossy(&got), body);
    }

    pub(super) fn ask(&mut self, stream: u32, path: &str, body: &str) {
        self.send(get(stream, path));
        self.expect(stream, body);
    }

    /// Goes to the next generation.
    pub(super) fn moves(&mut self, world: &World, generation: u64, old: &mut u32) {
        let new = world.reload_to(generation).pid;
        self.arrives();
        assert_eq!(world.end_of(*old), End::Exited(0));
        *old = new;
    }
}
