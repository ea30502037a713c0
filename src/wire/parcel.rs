//! What travels of a connection that goes to another process, beside its fd.
//!
//! A message is `parcels/1 `, the length of its JSON (4 bytes, big-endian), the JSON, and the bytes
//! of its parcels, one after the other. The two ends may be different binaries, as with
//! [frames](crate::wire::frame): an unknown field is skipped, an unknown kind of message is
//! [`Unknown`](Note::Unknown).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

const PREFIX: &[u8] = b"parcels/1 ";

/// How notes begin that have connections: at a start there are many of them to be read.
const PARCELS: &[u8] = br#"{"type":"parcels","#;

/// The version of the records, as a taker tells it. One that a giver does not know is no reason not
/// to give: what is unknown of a record is skipped.
pub(crate) const RECORDS: u32 = 2;

/// From this version on a taker shuts a connection down of which there is a [copy](Record::copied).
pub(crate) const KNOWS_COPIES: u32 = 2;

/// The longest message. Below the kernel's default socket buffer, so that it is sent whole.
pub(crate) const MAX_MESSAGE: usize = 128 * 1024;

/// The most bytes of one parcel that go into the message; more are in a memfd beside it.
pub(crate) const MAX_INLINE: usize = 64 * 1024;

/// The most bytes that a parcel has in a memfd.
pub(crate) const MAX_CONTENTS: usize = 64 * 1024 * 1024;

/// The most parcels in one message: with two fds each, they are fewer than the kernel lets a
/// message have.
pub(crate) const MAX_PARCELS: usize = 64;

/// The protocols of records.
pub(crate) const HTTP1: &str = "http1";
#[cfg(feature = "http")]
pub(crate) const HTTP2: &str = "http2";
pub(crate) const UPGRADED: &str = "upgraded";
pub(crate) const STREAM: &str = "stream";

/// What the name of a protocol ends with if TLS is below it. A version that knows nothing of it
/// does not know that name, and does not take what it could not decrypt.
#[cfg(feature = "http")]
const OVER_TLS: &str = "+tls";

/// One connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Its number, by which the taker answers; unique among those of one giver.
    pub(crate) id: u64,
    /// The name of the listener that it came by.
    pub(crate) listener: String,
    /// What it speaks: [`HTTP1`], [`HTTP2`], [`UPGRADED`] or [`STREAM`], or what a newer version
    /// knows.
    pub(crate) protocol: String,
    /// Its protocol was known before: no other one is looked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) known: bool,
    /// The requests that it has had.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) requests: u64,
    /// For how long it has been open.
    #[serde(default)]
    pub(crate) open_ms: u64,
    /// For how long it has been idle, or has had half a head.
    #[serde(default)]
    pub(crate) quiet_ms: u64,
    /// It has sent half a head.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) half: bool,
    /// When this was written, by `CLOCK_BOOTTIME`, in milliseconds; 0 of one that does not wait.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) written_ms: u64,
    /// There is a copy of it elsewhere, so that it has to be shut down before it is closed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) copied: bool,
    /// How often it has moved before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) moves: u64,
    /// The lengths of what comes with it.
    #[serde(default, skip_serializing_if = "Lengths::is_nothing")]
    pub(crate) contents: Lengths,
    /// The contents are in a memfd, whose fd comes next to that of the connection.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) memfd: bool,
}

/// How long the parts of the contents are, in the order in which they come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lengths {
    /// The head of the request that upgraded it.
    #[serde(default)]
    pub(crate) head: usize,
    /// What the application gave with it, or its protocol has to know, as JSON.
    #[serde(default)]
    pub(crate) state: usize,
    /// What was received and not used, and the state of its TLS behind that.
    #[serde(default)]
    pub(crate) unread: usize,
    /// How much of the last part is the state of its TLS. It is counted there, too, so that a
    /// version that does not know of it, and refuses the connection, finds the next one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) tls: usize,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// Writes a time as records have it.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(feature = "http")]
impl Record {
    /// Returns the name of a protocol, which may have TLS below it.
    pub(crate) fn protocol_over(protocol: &str, tls: bool) -> String {
        if tls { format!("{protocol}{OVER_TLS}") } else { protocol.to_owned() }
    }

    /// Returns the protocol, and whether TLS is below it.
    pub(crate) fn speaks(&self) -> (&str, bool) {
        self.protocol.strip_suffix(OVER_TLS).map_or((self.protocol.as_str(), false), |protocol| (protocol, true))
    }
}

impl Lengths {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// `None` if there is no such length.
    pub(crate) fn total(self) -> Option<usize> {
        let total = self.head.checked_add(self.state)?.checked_add(self.unread)?;
        Some(total).filter(|total| *total <= MAX_CONTENTS)
    }
}

/// The JSON of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum Note {
    /// Giver to taker: connections, each with its fd.
    Parcels { records: Vec<Record> },
    /// Taker to giver: what has become of each.
    Answer {
        /// Taken, before anything was read from it.
        #[serde(default)]
        took: Vec<u64>,
        #[serde(default)]
        refused: Vec<Refusal>,
    },
    /// The first of a mailbox: who has filled it, and when.
    Mailbox(Postmark),
    /// A note of a newer version is not for us.
    #[serde(other)]
    Unknown,
}

/// What is in [`Note::Parcels`].
#[derive(Deserialize)]
struct Parcels {
    records: Vec<Record>,
}

/// Who has filled a mailbox, and when. Whoever empties it may be a process of another version, much
/// later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Postmark {
    /// The version of handover.
    #[serde(default)]
    pub(crate) version: String,
    /// The generation of the service.
    #[serde(default)]
    pub(crate) generation: u64,
    /// When it was filled, by `CLOCK_BOOTTIME`, in milliseconds.
    #[serde(default)]
    pub(crate) filled_ms: u64,
    /// How many connections are in it and in those that were filled after it.
    #[serde(default)]
    pub(crate) count: usize,
}

/// One that the taker does not want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) id: u64,
    /// In one word, as the metrics have it.
    pub(crate) reason: String,
}

impl Note {
    /// Writes the note; the bytes of its parcels are to be appended.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        // At once as long as it is likely to be.
        let each = match self {
            Self::Parcels { records } => records.len() * 200,
            Self::Answer { took, refused } => took.len() * 8 + refused.len() * 40,
            Self::Mailbox(_) | Self::Unknown => 0,
        };
        let mut bytes = Vec::with_capacity(64 + each);
        bytes.extend(PREFIX);
        let at = bytes.len();
        bytes.extend([0; 4]);
        serde_json::to_writer(&mut bytes, self)
            .map_err(|e| Error::new(Kind::Protocol, format!("parcels cannot be written: {e}")))?;
        let length = u32::try_from(bytes.len() - at - 4).unwrap_or(u32::MAX);
        bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
        Ok(bytes)
    }

    /// Reads a note, and returns what comes after it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, &[u8])> {
        let wrong = |why: String| Error::new(Kind::Protocol, format!("parcels of another generation: {why}"));
        let Some(rest) = bytes.strip_prefix(PREFIX) else {
            let shown = bytes[..bytes.len().min(16)].escape_ascii();
            return Err(wrong(format!("expected \"parcels/1\", got \"{shown}\"")));
        };
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Err(wrong("cut short".into())) };
        let length = u32::from_be_bytes(*length) as usize;
        let Some((json, contents)) = rest.split_at_checked(length) else {
            return Err(wrong(format!("{length} bytes are promised, {} are there", rest.len())));
        };
        // Where the type is known, serde need not keep all that comes before it, and read it later.
        let note = match json.starts_with(PARCELS) {
            true => serde_json::from_slice(json).map(|Parcels { records }| Self::Parcels { records }),
            false => serde_json::from_slice(json),
        };
        Ok((note.map_err(|e| wrong(e.to_string()))?, contents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    fn record() -> Record {
        Record {
            id: 7,
            listener: "http".into(),
            protocol: "http1".into(),
            requests: 3,
            contents: Lengths { unread: 5, ..Lengths::default() },
            ..Record::default()
        }
    }

    #[test]
    fn notes_come_back_as_they_went() {
        let refused = vec![Refusal { id: 9, reason: "full".into() }];
        let postmark = Postmark { version: "1.2.3".into(), generation: 4, filled_ms: 5, count: 6 };
        let parcels = Note::Parcels { records: vec![record(), Record::default()] };
        for note in [parcels, Note::Answer { took: vec![1, 2], refused }, Note::Mailbox(postmark)] {
            let mut bytes = note.encode().unwrap();
            bytes.extend(b"GET /");
            assert_eq!(Note::decode(&bytes).unwrap(), (note, &b"GET /"[..]));
        }
    }

    #[test]
    fn a_newer_version_may_add_fields_and_kinds() {
        let message = |json: &str| {
            let length = u32::try_from(json.len()).unwrap().to_be_bytes();
            [PREFIX, &length, json.as_bytes()].concat()
        };
        let more = r#"{"type":"parcels","records":[{"id":1,"listener":"a","protocol":"b","mood":"good"}]}"#;
        let Ok((Note::Parcels { records }, [])) = Note::decode(&message(more)) else { panic!("{more}") };
        assert_eq!((records[0].id, records[0].requests, records[0].memfd), (1, 0, false));
        assert_eq!(Note::decode(&message(r#"{"type":"pause","for":3}"#)).unwrap().0, Note::Unknown);
    }

    #[test]
    fn what_is_damaged_is_named() {
        let whole = Note::Parcels { records: vec![record()] }.encode().unwrap();
        let error = Note::decode(&whole[..whole.len() - 1]).unwrap_err();
        assert!(error.is_protocol() && error.to_string().contains("are promised"), "{error}");
        assert!(Note::decode(b"parcels/2 ").unwrap_err().to_string().contains("parcels/2"));
        let huge = Lengths { head: usize::MAX, state: 1, ..Lengths::default() };
        assert_eq!((huge.total(), Lengths { unread: MAX_CONTENTS + 1, ..huge }.total()), (None, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(12), ..ProptestConfig::default() })]
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..256), prefixed in any::<bool>()) {
            let bytes = if prefixed { [PREFIX, &bytes].concat() } else { bytes };
            let _ = Note::decode(&bytes);
        }
    }
}
