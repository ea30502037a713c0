//! Where the current message ends, as far as it can be told, and what of it hyper may see.

use super::body::{Length, Rest};
use super::conn::Conn;
use super::frames::Frames;
use super::scan;
use super::stage::Stage;
use super::transport::HYPER_READS;
use super::upgraded::Upgrade;

/// Where a connection is within the messages of its client.
#[derive(Debug)]
pub(super) enum Framing {
    /// A head is being received.
    Head(scan::Head),
    /// hyper has all of a head. Its next step is to call the service.
    Parsing,
    Body(u64),
    Chunked(scan::Chunked),
    /// hyper has all of the request.
    Done,
    /// It speaks WebSocket: one frame at a time.
    Frames(Frames),
    /// Bytes pass untouched: the connection speaks HTTP/2, was upgraded, or hyper sees it otherwise
    /// than we do.
    Raw,
}

impl Framing {
    /// Follows hyper from one message to the next.
    pub(super) fn settle(&mut self, conn: &Conn, flushed: bool) {
        let stage = conn.stage();
        if matches!(self, Self::Parsing) && matches!(stage, Stage::Called | Stage::Replying | Stage::Replied) {
            *self = match conn.body.length() {
                Length::Exact(0) => Self::Done,
                Length::Exact(length) => Self::Body(length),
                Length::Chunked => Self::Chunked(scan::Chunked::default()),
            };
        }
        if flushed && stage == Stage::Replied && matches!(self, Self::Done) {
            *self = Self::Head(scan::Head::default());
            conn.set_stage(Stage::Idle);
        }
        if stage == Stage::Unframed {
            *self = Self::Raw;
        }
        if stage == Stage::Upgraded && !matches!(self, Self::Frames(_)) {
            // if hyper has had bytes as they came, it is not known where a frame begins
            let known = !matches!(self, Self::Raw);
            *self = match conn.upgrade() {
                Some(upgrade) if known && !upgrade.stays() => Self::Frames(Frames::default()),
                upgrade => {
                    upgrade.into_iter().for_each(Upgrade::stay);
                    Self::Raw
                }
            };
        }
    }

    /// Returns how many of these bytes hyper may see now, and moves the framing on.
    pub(super) fn admit(&mut self, conn: &Conn, flushed: &mut bool, bytes: &[u8]) -> usize {
        let end = match self {
            Self::Head(head) => {
                let end = head.feed(bytes);
                if end.is_some() {
                    *self = Self::Parsing;
                    *flushed = false;
                    conn.set_stage(Stage::Head);
                    conn.close_idle(false);
                } else if head.has_started() {
                    conn.set_stage(Stage::Half);
                    conn.close_idle(false);
                }
                end
            }
            Self::Body(left) => {
                let taken = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Done;
                    conn.body.set_rest(Rest::None);
                }
                Some(taken)
            }
            Self::Chunked(chunked) => match chunked.feed(bytes) {
                Ok(fed) => {
                    if fed.ended {
                        *self = Self::Done;
                        conn.body.set_rest(Rest::None);
                    }
                    Some(fed.taken)
                }
                Err(scan::Malformed) => {
                    *self = Self::Raw;
                    conn.set_stage(Stage::Unframed);
                    None
                }
            },
            Self::Parsing | Self::Done | Self::Frames(_) | Self::Raw => None,
        };
        end.unwrap_or(bytes.len())
    }

    /// Notes what is left of the body for the next read, with so many bytes held back.
    pub(super) fn note_rest(&self, conn: &Conn, held: usize) {
        match *self {
            Self::Body(left) => {
                let held = held.min(HYPER_READS) as u64;
                conn.body.set_rest(if left <= held { Rest::Held } else { Rest::Coming });
            }
            Self::Chunked(_) => conn.body.set_rest(Rest::Coming),
            _ => {}
        }
    }
}
