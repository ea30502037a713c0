//! Records in, plain bytes out, and the other way round. The bytes come from, and go to, whoever
//! calls.

#[cfg(test)]
mod limits;
mod pack;

use std::fmt;
use std::io::{self, IoSlice};
use std::mem;

use tokio::io::ReadBuf;

use super::keys::{HEADER, Keys, MAX_PLAIN, Material, OVERHEAD, Unopened};
use super::version::{Kind, Version};

/// No record is longer than this and a header: what TLS 1.2 allows.
const MAX_BODY: usize = MAX_PLAIN + 2048;
/// So many plain bytes are sealed at once, to be sent at once.
const BURST: usize = 64 << 10;
/// So many pieces of a reply go into one record.
const PIECES: usize = 16;
/// A connection that waits keeps buffers up to this length.
const KEPT: usize = 512;
/// The longest message of a handshake that anybody begins again.
const MAX_HANDSHAKE: usize = 0xffff;

/// What a client may do only so often, so that it cannot keep us busy with nothing.
const MOST_EMPTY: u8 = 32;
const MOST_WARNINGS: u8 = 4;
const MOST_UPDATES: u8 = 32;
const MOST_RENEGOTIATIONS: u8 = 1;

const CHANGE_CIPHER_SPEC: u8 = 20;
const HEARTBEAT: u8 = 24;
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLIENT_HELLO: u8 = 1;
const KEY_UPDATE: u8 = 24;

/// What an alert says, of those that are sent or mean something.
mod alert {
    pub(super) const CLOSE_NOTIFY: u8 = 0;
    pub(super) const UNEXPECTED_MESSAGE: u8 = 10;
    pub(super) const BAD_RECORD_MAC: u8 = 20;
    pub(super) const RECORD_OVERFLOW: u8 = 22;
    pub(super) const ILLEGAL_PARAMETER: u8 = 47;
    pub(super) const DECODE_ERROR: u8 = 50;
    pub(super) const INTERNAL_ERROR: u8 = 80;
    pub(super) const USER_CANCELED: u8 = 90;
    pub(super) const NO_RENEGOTIATION: u8 = 100;
}

/// Both directions of a connection.
#[derive(Debug)]
pub(crate) struct Layer {
    version: Version,
    read: Keys,
    write: Keys,
    /// The most plain bytes of a record that is sent.
    fragment: usize,
    /// Received, and not opened. While nothing is unread, it is a part of a record.
    sealed: Vec<u8>,
    /// Opened, and not read.
    plain: Vec<u8>,
    plain_at: usize,
    /// A part of a message of the handshake's kind, which may come in pieces.
    handshake: Vec<u8>,
    /// Sealed, and not sent.
    out: Vec<u8>,
    out_at: usize,
    /// The client wants us to change our key: done before the next bytes are sent.
    update: bool,
    /// The client has said that it sends no more.
    ended: bool,
    /// We have said so.
    closed: bool,
    broken: Option<Broken>,
    seen: Seen,
}

/// How often the client has done what it may not do for ever.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Seen {
    empty: u8,
    warnings: u8,
    updates: u8,
    renegotiations: u8,
}

/// Why it cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// What the client sent, and the alert that it gets.
    Refused(u8, &'static str),
    /// An alert of the client's.
    Told(u8),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(alert, why) => write!(f, "the client's TLS cannot be used: {why} (alert {alert})"),
            Self::Told(alert) => write!(f, "the client has given up TLS with the alert {alert}"),
        }
    }
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        Self::new(io::ErrorKind::InvalidData, broken.to_string())
    }
}

impl Layer {
    /// Goes on with these keys, of what is received and of what is sent.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(crate) fn new(version: Version, read: Material, write: Material) -> io::Result<Self> {
        Ok(Self {
            version,
            read: Keys::new(version, read)?,
            write: Keys::new(version, write)?,
            fragment: MAX_PLAIN,
            sealed: Vec::new(),
            plain: Vec::new(),
            plain_at: 0,
            handshake: Vec::new(),
            out: Vec::new(),
            out_at: 0,
            update: false,
            ended: false,
            closed: false,
            broken: None,
            seen: Seen::default(),
        })
    }

    /// Sets the most plain bytes of a record that is sent.
    pub(crate) fn set_fragment(&mut self, length: usize) {
        self.fragment = length.clamp(1, MAX_PLAIN);
    }

    /// Puts back what was received and opened elsewhere, and what was sealed and not sent.
    pub(crate) fn restore(&mut self, sealed: Vec<u8>, plain: Vec<u8>, out: Vec<u8>, ended: bool) {
        (self.sealed, self.plain, self.out, self.ended) = (sealed, plain, out, ended);
    }

    /// Puts back a part of a message of the handshake's kind.
    pub(crate) fn begin_message(&mut self, handshake: Vec<u8>) {
        self.handshake = handshake;
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }
}

/// What is received.
impl Layer {
    /// Returns whether something of the client's is here, be it a part of a record.
    pub(crate) fn has_received(&self) -> bool {
        self.has_unread() || !self.sealed.is_empty()
    }

    fn has_unread(&self) -> bool {
        self.plain_at < self.plain.len()
    }

    /// Returns whether a part of a record is here, and nothing else.
    pub(crate) fn is_partial(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Returns what a read has come to: true if the buffer got something, or never will any more.
    ///
    /// # Errors
    /// What the client sent cannot be used; it is told so by what is [to be sent](Self::to_send).
    pub(crate) fn read(&mut self, received: &mut [u8], buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        let before = buf.filled().len();
        self.give_unread(buf);
        if self.sealed.is_empty() {
            let used = self.open_all(received, buf);
            self.sealed.extend_from_slice(&received[used..]);
        } else {
            let mut sealed = mem::take(&mut self.sealed);
            sealed.extend_from_slice(received);
            let used = self.open_all(&mut sealed, buf);
            sealed.drain(..used);
            self.sealed = sealed;
        }
        match self.broken {
            _ if buf.filled().len() > before => Ok(true),
            Some(broken) => Err(broken.into()),
            None => Ok(self.ended || buf.remaining() == 0),
        }
    }

    /// Notes that nothing more comes; returns whether the client has said so.
    pub(crate) fn end(&mut self) -> bool {
        mem::replace(&mut self.ended, true)
    }

    /// Lets go of buffers, while nothing comes.
    pub(crate) fn rest(&mut self) {
        if !self.has_unread() {
            (self.plain, self.plain_at) = (Vec::new(), 0);
        }
        if self.sealed.is_empty() {
            self.sealed = Vec::new();
        }
        if self.to_send().is_empty() && self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
    }

    fn give_unread(&mut self, buf: &mut ReadBuf<'_>) {
        let unread = &self.plain[self.plain_at..];
        let now = unread.len().min(buf.remaining());
        buf.put_slice(&unread[..now]);
        self.plain_at += now;
    }

    /// Opens whole records until there is enough to be read; returns how many bytes they had.
    fn open_all(&mut self, bytes: &mut [u8], buf: &mut ReadBuf<'_>) -> usize {
        let mut used = 0;
        while !self.ended && self.broken.is_none() && !self.has_unread() && buf.remaining() > 0 {
            let opened = match whole(&bytes[used..]) {
                Ok(None) => return used,
                Ok(Some(length)) => {
                    let record = &mut bytes[used..used + length];
                    used += length;
                    self.open(record, buf)
                }
                Err(broken) => Err(broken),
            };
            if let Err(broken) = opened {
                self.fail(broken);
            }
        }
        // what comes behind the end means nothing
        if self.ended || self.broken.is_some() { bytes.len() } else { used }
    }

    fn open(&mut self, record: &mut [u8], buf: &mut ReadBuf<'_>) -> Result<(), Broken> {
        if record[0] == CHANGE_CIPHER_SPEC {
            return Err(Broken::Refused(alert::UNEXPECTED_MESSAGE, "it begins a handshake again"));
        }
        let (kind, range) = self.read.open(record).map_err(|why| match why {
            Unopened::Forged => Broken::Refused(alert::BAD_RECORD_MAC, "a record cannot be decrypted"),
            Unopened::TooLong => Broken::Refused(alert::RECORD_OVERFLOW, "a record is too long"),
            Unopened::Untyped => Broken::Refused(alert::UNEXPECTED_MESSAGE, "a record has no type"),
        })?;
        let plain = &record[range];
        if kind != Kind::Handshake as u8 && !self.handshake.is_empty() {
            return Err(Broken::Refused(alert::UNEXPECTED_MESSAGE, "a record is in the middle of a message"));
        }
        self.seen.empty = if plain.is_empty() { self.seen.empty + 1 } else { 0 };
        if self.seen.empty > MOST_EMPTY {
            return Err(Broken::Refused(alert::UNEXPECTED_MESSAGE, "too many records are empty"));
        }
        match kind {
            kind if kind == Kind::Data as u8 => {
                self.seen.updates = 0;
                let (now, later) = plain.split_at(plain.len().min(buf.remaining()));
                buf.put_slice(now);
                if !later.is_empty() {
                    self.plain.clear();
                    self.plain.extend_from_slice(later);
                    self.plain_at = 0;
                }
                Ok(())
            }
            kind if kind == Kind::Alert as u8 => self.hear(plain),
            kind if kind == Kind::Handshake as u8 => {
                self.handshake.extend_from_slice(plain);
                self.handle_messages()
            }
            CHANGE_CIPHER_SPEC => {
                Err(Broken::Refused(alert::UNEXPECTED_MESSAGE, "a sealed record begins a handshake again"))
            }
            _ => Err(Broken::Refused(alert::DECODE_ERROR, "a record has an unknown type")),
        }
    }

    fn hear(&mut self, plain: &[u8]) -> Result<(), Broken> {
        match *plain {
            [WARNING | FATAL, alert::CLOSE_NOTIFY] => {
                self.ended = true;
                Ok(())
            }
            [WARNING, _] if self.seen.warnings == MOST_WARNINGS => {
                Err(Broken::Refused(alert::UNEXPECTED_MESSAGE, "there are too many warnings"))
            }
            [WARNING, told] if self.version == Version::Tls12 || told == alert::USER_CANCELED => {
                self.seen.warnings += 1;
                Ok(())
            }
            [WARNING, _] => Err(Broken::Refused(alert::DECODE_ERROR, "TLS 1.3 has no such warning")),
            [FATAL, told] => Err(Broken::Told(told)),
            [_, _] => Err(Broken::Refused(alert::ILLEGAL_PARAMETER, "an alert has an unknown level")),
            _ => Err(Broken::Refused(alert::DECODE_ERROR, "an alert has the wrong length")),
        }
    }

    fn handle_messages(&mut self) -> Result<(), Broken> {
        while let Some((&[kind, a, b, c], rest)) = self.handshake.split_first_chunk() {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if length > MAX_HANDSHAKE {
                return Err(Broken::Refused(alert::DECODE_ERROR, "a message is too long"));
            }
            let Some((body, rest)) = rest.split_at_checked(length) else { return Ok(()) };
            match (self.version, kind, body) {
                (Version::Tls13, KEY_UPDATE, &[wanted]) => {
                    if !rest.is_empty() {
                        let why = "a key ends in the middle of a message";
                        return Err(Broken::Refused(alert::UNEXPECTED_MESSAGE, why));
                    }
                    self.change_key(wanted)?;
                }
                (Version::Tls13, KEY_UPDATE, _) => {
                    return Err(Broken::Refused(alert::DECODE_ERROR, "a key update has the wrong length"));
                }
                (Version::Tls12, CLIENT_HELLO, _) if self.seen.renegotiations < MOST_RENEGOTIATIONS => {
                    self.seen.renegotiations += 1;
                    let _ = self.send(Kind::Alert, &[WARNING, alert::NO_RENEGOTIATION]);
                }
                _ => return Err(Broken::Refused(alert::UNEXPECTED_MESSAGE, "the handshake is over")),
            }
            self.handshake.drain(..4 + length);
        }
        if self.handshake.is_empty() {
            self.handshake = Vec::new();
        }
        Ok(())
    }

    fn change_key(&mut self, wanted: u8) -> Result<(), Broken> {
        if self.seen.updates == MOST_UPDATES {
            return Err(Broken::Refused(alert::UNEXPECTED_MESSAGE, "there are too many key updates"));
        }
        self.seen.updates += 1;
        match wanted {
            0 => {}
            1 => self.update = true,
            _ => return Err(Broken::Refused(alert::ILLEGAL_PARAMETER, "a key update wants what there is not")),
        }
        self.read.update().map_err(|_| Broken::Refused(alert::INTERNAL_ERROR, "the next key is not known"))
    }

    fn fail(&mut self, broken: Broken) {
        if let Broken::Refused(alert, _) = broken
            && !self.closed
        {
            // the client gets no reason then
            let _ = self.send(Kind::Alert, &[FATAL, alert]);
        }
        self.closed = true;
        self.broken = Some(broken);
    }
}

/// What is sent.
impl Layer {
    /// Seals some of these bytes; returns how many. They are [to be sent](Self::to_send) then.
    ///
    /// # Errors
    /// We have said that nothing more comes, or no key may seal more.
    pub(crate) fn write(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let some = total.min(BURST);
        self.out.reserve(some + (some / self.fragment + 2) * OVERHEAD);
        let mut pieces = bufs.iter().map(|buf| &**buf).filter(|piece| !piece.is_empty());
        let mut piece = pieces.next().unwrap_or_default();
        let mut taken = 0;
        while !piece.is_empty() && taken < BURST {
            let mut parts = [&[][..]; PIECES];
            let mut room = self.fragment;
            let mut count = 0;
            while count < PIECES && room > 0 && !piece.is_empty() {
                let (now, later) = piece.split_at(piece.len().min(room));
                parts[count] = now;
                count += 1;
                room -= now.len();
                piece = if later.is_empty() { pieces.next().unwrap_or_default() } else { later };
            }
            self.renew_key()?;
            self.write.seal(Kind::Data as u8, &parts[..count], &mut self.out)?;
            taken += self.fragment - room;
        }
        Ok(taken)
    }

    /// Says that nothing more comes.
    pub(crate) fn close(&mut self) {
        if !self.closed {
            // without a key there is nothing that can be said
            let _ = self.send(Kind::Alert, &[WARNING, alert::CLOSE_NOTIFY]);
            self.closed = true;
        }
    }

    /// Returns what is to be sent, of what has not been.
    pub(crate) fn to_send(&self) -> &[u8] {
        &self.out[self.out_at..]
    }

    /// Notes that so many bytes were sent.
    pub(crate) fn sent(&mut self, count: usize) {
        self.out_at += count;
        if self.to_send().is_empty() {
            self.out.clear();
            self.out_at = 0;
        }
    }

    fn send(&mut self, kind: Kind, bytes: &[u8]) -> io::Result<()> {
        if self.update {
            self.change_own_key()?;
        }
        self.write.seal(kind as u8, &[bytes], &mut self.out)
    }

    /// Changes the key for what is sent, if the client wants it, or it must not seal much more.
    fn renew_key(&mut self) -> io::Result<()> {
        if self.write.is_used_up(1) && self.version == Version::Tls12 {
            self.close();
            return Err(io::Error::other("the key of this TLS 1.2 connection may encrypt no more"));
        }
        if self.update || self.write.is_used_up(1) { self.change_own_key() } else { Ok(()) }
    }

    fn change_own_key(&mut self) -> io::Result<()> {
        self.update = false;
        self.write.seal(Kind::Handshake as u8, &[&[KEY_UPDATE, 0, 0, 1, 0]], &mut self.out)?;
        self.write.update()
    }
}

/// Returns the length of the first record, if all of it is here.
fn whole(bytes: &[u8]) -> Result<Option<usize>, Broken> {
    // what is no record is told from its beginning
    let known = match *bytes {
        [kind, ..] if !(CHANGE_CIPHER_SPEC..=HEARTBEAT).contains(&kind) => false,
        [_, major, _, ..] => major == 3,
        _ => true,
    };
    if !known {
        return Err(Broken::Refused(alert::DECODE_ERROR, "this is no record"));
    }
    let Some(&[kind, _, _, high, low]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let body = usize::from(u16::from_be_bytes([high, low]));
    if body >= MAX_BODY {
        return Err(Broken::Refused(alert::DECODE_ERROR, "a record is too long"));
    }
    if body == 0 && kind != Kind::Data as u8 {
        return Err(Broken::Refused(alert::DECODE_ERROR, "a record is empty"));
    }
    Ok(Some(HEADER + body).filter(|length| *length <= bytes.len()))
}
