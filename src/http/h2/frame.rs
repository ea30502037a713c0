//! Frames of HTTP/2 (RFC 9113, 4): no more of them than where they end and what they are.

/// How long the part before the payload is.
pub(super) const HEAD: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// What each window is before anything is said of it.
pub(super) const FIRST_WINDOW: i64 = 65_535;

/// The beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// The stream that it is of; 0 for the connection.
    pub(super) id: u32,
}

impl Head {
    #[inline]
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let [l0, l1, l2, kind, flags, i0, i1, i2, i3] = *bytes.first_chunk::<HEAD>()?;
        Some(Self {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind,
            flags,
            id: u32::from_be_bytes([i0 & 0x7f, i1, i2, i3]),
        })
    }

    /// Returns how long all of it is.
    #[inline]
    pub(super) fn total(self) -> usize {
        HEAD + self.length
    }

    /// Returns whether its sender sends nothing more on this stream.
    #[inline]
    pub(super) fn ends_stream(self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// Returns whether the block of headers that it is of ends with it.
    #[inline]
    pub(super) fn ends_headers(self) -> bool {
        self.flags & END_HEADERS != 0
    }

    /// Returns the block of headers in a payload of HEADERS.
    pub(super) fn block(self, payload: &[u8]) -> &[u8] {
        let mut block = payload;
        if self.flags & PADDED != 0 {
            let Some((padding, rest)) = block.split_first() else { return &[] };
            block = rest.len().checked_sub(usize::from(*padding)).and_then(|end| rest.get(..end)).unwrap_or_default();
        }
        if self.flags & PRIORITY != 0 { block.get(5..).unwrap_or_default() } else { block }
    }

    /// Returns whether its payload, of HEADERS, says that its stream comes after itself.
    #[inline]
    pub(super) fn depends_on_itself(self, payload: &[u8]) -> bool {
        let at = usize::from(self.flags & PADDED != 0);
        let on = payload.get(at..).and_then(|rest| increment(rest.get(..4)?));
        self.flags & PRIORITY != 0 && on == Some(self.id)
    }

    #[inline]
    pub(super) fn is_ack(self) -> bool {
        self.flags & ACK != 0
    }
}

/// Returns by how much a WINDOW_UPDATE makes the window larger.
#[inline]
pub(super) fn increment(payload: &[u8]) -> Option<u32> {
    let [a, b, c, d] = *<&[u8; 4]>::try_from(payload).ok()?;
    Some(u32::from_be_bytes([a & 0x7f, b, c, d]))
}

/// Returns the settings in a payload, in their order.
pub(super) fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> + '_ {
    payload.as_chunks::<6>().0.iter().map(|&[k0, k1, v0, v1, v2, v3]| {
        (u16::from_be_bytes([k0, k1]), u32::from_be_bytes([v0, v1, v2, v3])) //
    })
}

/// Makes a WINDOW_UPDATE of the connection.
pub(super) fn window_update(by: u32) -> [u8; HEAD + 4] {
    let [a, b, c, d] = by.to_be_bytes();
    [0, 0, 4, WINDOW_UPDATE, 0, 0, 0, 0, 0, a, b, c, d]
}

/// Makes a frame of SETTINGS.
pub(super) fn settings_frame(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(key, value)| {
            let ([k0, k1], [v0, v1, v2, v3]) = (key.to_be_bytes(), value.to_be_bytes());
            [k0, k1, v0, v1, v2, v3]
        })
        .collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// Makes a frame of HEADERS that ends its stream.
pub(super) fn headers_frame(id: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, id, block)
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let [_, l0, l1, l2] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[l0, l1, l2, kind, flags][..], &id.to_be_bytes(), payload].concat()
}

/// The frame that says that SETTINGS were applied.
pub(super) const SETTINGS_ACK: [u8; HEAD] = [0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0];
