//! What an HTTP/2 connection takes along to another process.

use super::frame::FIRST_WINDOW;
use super::table::HeaderTable;
use serde::{Deserialize, Serialize};

/// The largest window that there is, and the largest id of a stream.
const MOST: u32 = (1 << 31) - 1;
/// What no setting of a client that is known is beyond; more are no client's.
const MOST_SETTINGS: usize = 64;
/// What fills the largest table: 4096 symbols of 30 bits.
const MOST_TABLE: usize = 15 << 10;

/// What the fresh connection has to know of the one before. A version that does not know a field
/// skips it; one that misses a field has its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::http) struct Http2State {
    /// The highest stream that the client has opened.
    pub(super) last: u32,
    /// The client's settings: the last value of each.
    pub(super) settings: Vec<(u16, u32)>,
    /// What the client still takes on the connection.
    pub(super) send: i64,
    /// What the client may still send on the connection.
    pub(super) receive: i64,
    /// What it may send on a stream, as it was told.
    pub(super) stream_window: u32,
    /// The largest frame that it may send, as it was told.
    pub(super) frame_size: u32,
    /// Pings that it has not answered.
    pub(super) pings: u64,
    /// A block of headers that fills the table that its headers refer to.
    #[serde(skip)]
    pub(super) table: Vec<u8>,
}

impl Default for Http2State {
    fn default() -> Self {
        Self {
            last: 0,
            settings: Vec::new(),
            send: FIRST_WINDOW,
            receive: FIRST_WINDOW,
            stream_window: super::WINDOW,
            frame_size: super::FRAME_SIZE,
            pings: 0,
            table: Vec::new(),
        }
    }
}

impl Http2State {
    /// Writes it: as JSON, and the table as it is behind that.
    pub(super) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.extend_from_slice(&self.table);
        Ok(bytes)
    }

    /// Returns the least that a fresh server has to grant: what the client may send on the
    /// connection, on a stream, and in a frame.
    pub(super) fn least(&self) -> (u32, u32, u32) {
        let receive = u32::try_from(self.receive).unwrap_or(0);
        (receive.max(super::WINDOW), self.stream_window.max(super::WINDOW), self.frame_size.max(super::FRAME_SIZE))
    }

    /// Reads one, unless it says what cannot be.
    pub(in crate::http) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = serde_json::Deserializer::from_slice(bytes).into_iter::<Self>();
        let mut state = fields.next()?.ok()?;
        state.table = bytes.get(fields.byte_offset()..)?.to_vec();
        let most = i64::from(MOST);
        let possible = state.last <= MOST
            && state.settings.len() <= MOST_SETTINGS
            && (-most..=most).contains(&state.send)
            && (-most..=most).contains(&state.receive)
            && state.stream_window <= MOST
            && (super::FRAME_SIZE..1 << 24).contains(&state.frame_size)
            && state.table.len() <= MOST_TABLE
            && (state.table.is_empty() || state.last > 0)
            && HeaderTable::of(&state.table).is_some();
        possible.then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_skipped_and_what_is_missing_has_its_default() {
        let table = b"\x40\x01a\x01b\x40\x02{}\x01}".to_vec();
        let state = Http2State { last: 7, settings: vec![(4, 0), (3, 100)], send: -5, table, ..Http2State::default() };
        let bytes = state.encode().unwrap();
        assert_eq!(Http2State::decode(&bytes), Some(state));
        assert_eq!(Http2State::decode(br#"{"newer":[1]}"#), Some(Http2State::default()));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let wrong = [
            r#"{"last":2147483648}"#,
            r#"{"send":2147483648}"#,
            r#"{"receive":-2147483648}"#,
            r#"{"stream_window":2147483648}"#,
            r#"{"frame_size":16383}"#,
            r#"{"frame_size":16777216}"#,
            "",
            "[",
            "{\"last\":1}\x40",
            "{\"last\":0}\x40\x01a\x01b",
        ];
        assert!(wrong.iter().all(|json| Http2State::decode(json.as_bytes()).is_none()));
        let many: Vec<_> = (0..65_u16).map(|key| (key, 1)).collect();
        let many = Http2State { settings: many, ..Http2State::default() };
        assert_eq!(Http2State::decode(&many.encode().unwrap()), None);
    }
}
