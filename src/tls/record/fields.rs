//! What is known of a connection, as bytes for another process: a version, and fields, each with a
//! number, its length, and its bytes. The two ends may be different binaries: a field that is not
//! known is skipped, or means that the connection is not taken.

use crate::sys::secret::Secret;

const VERSION: u8 = 1;
/// Fields from this number on must be known to whoever reads them.
const CRITICAL: u8 = 128;

/// The fields that there are. A number means the same for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Field {
    /// The server name that the client asked for.
    ServerName = 1,
    /// The application protocol that was agreed on.
    Protocol = 2,
    /// A certificate of the client's; each has one, in their order.
    Certificate = 3,
    /// It came back with a ticket.
    Resumed = 4,
    /// How often the client has done what it may not do for ever.
    Seen = 5,
    /// The version of TLS, and the cipher.
    Suite = 128,
    ReadKey = 129,
    WriteKey = 130,
    ReadSecret = 131,
    WriteSecret = 132,
    /// Received, and not opened.
    Sealed = 133,
    /// Opened, and not read.
    Plain = 134,
    /// A part of a message of the handshake's kind.
    Handshake = 135,
    /// Sealed, and not sent.
    Out = 136,
    /// The client wants us to change our key.
    Update = 137,
    /// The client has said that it sends no more.
    Ended = 138,
    /// The most plain bytes of a record that is sent.
    Fragment = 139,
}

const ALL: [Field; 17] = {
    use Field::*;
    [
        ServerName,
        Protocol,
        Certificate,
        Resumed,
        Seen,
        Suite,
        ReadKey,
        WriteKey,
        ReadSecret,
        WriteSecret,
        Sealed,
        Plain,
        Handshake,
        Out,
        Update,
        Ended,
        Fragment,
    ]
};

/// Fields that are written, or were read.
#[derive(Debug)]
pub(crate) struct Fields {
    bytes: Secret,
}

impl Default for Fields {
    fn default() -> Self {
        Self { bytes: Secret::from(vec![VERSION]) }
    }
}

impl Fields {
    /// Adds a field.
    pub(crate) fn put(&mut self, field: Field, bytes: &[u8]) {
        self.put_parts(field, &[bytes]);
    }

    /// Adds a field that is the sum of these.
    pub(crate) fn put_parts(&mut self, field: Field, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        // what is larger is more than a parcel may be
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        self.bytes.extend(&[field as u8]);
        self.bytes.extend(&length);
        parts.iter().for_each(|part| self.bytes.extend(part));
    }

    /// Adds a field without bytes, if something is so.
    pub(crate) fn put_flag(&mut self, field: Field, flag: bool) {
        if flag {
            self.put(field, &[]);
        }
    }

    /// Adds a field, unless it would be empty.
    pub(crate) fn put_some(&mut self, field: Field, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.put(field, bytes);
        }
    }

    pub(crate) fn into_bytes(self) -> Secret {
        self.bytes
    }

    /// Reads what was written; `None` if it is damaged, or has what must be known and is not.
    pub(crate) fn read(bytes: &[u8]) -> Option<Vec<(Field, &[u8])>> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let mut fields = Vec::new();
        while let Some((&[number, a, b, c, d], more)) = rest.split_first_chunk() {
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
            let (bytes, more) = more.split_at_checked(length)?;
            rest = more;
            match ALL.into_iter().find(|field| *field as u8 == number) {
                Some(field) => fields.push((field, bytes)),
                None if number >= CRITICAL => return None,
                None => {}
            }
        }
        rest.is_empty().then_some(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_and_unknown_ones_are_skipped_or_refused() {
        let mut fields = Fields::default();
        fields.put(Field::ServerName, b"example.org");
        fields.put_parts(Field::ReadKey, &[b"ab", b"c"]);
        fields.put_flag(Field::Update, true);
        fields.put_flag(Field::Ended, false);
        let bytes = fields.into_bytes();
        let read = [(Field::ServerName, &b"example.org"[..]), (Field::ReadKey, b"abc"), (Field::Update, b"")];
        assert_eq!(Fields::read(&bytes).unwrap(), read);
        for (number, known) in [(127, true), (255, false)] {
            let more = [&bytes[..], &[number, 0, 0, 0, 1, 9]].concat();
            assert_eq!(Fields::read(&more).map(|fields| fields.len()), known.then_some(3));
        }
        assert!((2..bytes.len()).filter(|length| Fields::read(&bytes[..*length]).is_some()).count() <= 2);
        assert_eq!(Fields::read(&[2]), None, "another version");
    }
}
