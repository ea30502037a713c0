//! What generations say to each other: one datagram a frame, `handover/1 ` and then JSON.
//!
//! The two ends are different binaries, so frames describe themselves: an unknown field is skipped,
//! an unknown type is [`Frame::Unknown`], another major version is an error that names both. File
//! descriptors travel beside a frame and are counted in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::metrics::Carried;

/// Every frame begins with this. The number changes only when an old end could not make sense of a
/// new one.
const PREFIX: &[u8] = b"handover/1 ";

/// The longest frame; well below the kernel's default socket buffer, so that a frame is sent whole
/// or not at all.
pub(crate) const MAX_FRAME: usize = 64 * 1024;

/// The most fds beside one frame (the kernel's SCM_MAX_FD).
pub(crate) const MAX_FDS: usize = 253;

/// How many reloads that are over a generation remembers, and tells the next one of.
pub(crate) const HISTORY: usize = 10;

/// The most names in one frame: with the longest names it stays below [`MAX_FRAME`].
pub(crate) const MAX_NAMES: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(crate) enum Frame {
    /// Old to new, the first frame: who you are.
    Hello(Hello),
    /// New to old, when the library has started in it.
    Started {
        /// The version of the crate in the new generation.
        version: String,
    },
    /// New to old: it is ready to accept.
    Ready,
    /// New to old, before `Ready`: keep these entries of the fd store for me. Old to new, before
    /// `Switch`: this has come or changed since you were started. An fd for each entry is beside
    /// the frame.
    Entries { names: Vec<String> },
    /// Old to new, before `Switch`: entries that you were started with and that are no more.
    Gone { names: Vec<String> },
    /// New to old, before `Ready`: it takes the connections of these listeners, with records up to
    /// that version.
    Takes { records: u32, names: Vec<String> },
    /// Old to new, before `Main`: connections come by the socket whose fd is beside the frame.
    Moving,
    /// New to old: it will not work.
    Failed { reason: String },
    /// Old to new: accept from now on.
    Switch,
    /// New to old: it accepts.
    Switched,
    /// Old to new: you are main.
    Main { reload: bool, stop: bool },
    /// Old to new: the new generation is not to go on.
    Dismissed { reason: String },
    /// Main to a drainer: what is still open?
    Ask,
    /// The answer: how much there is, and some of it in words.
    Holds {
        generation: u64,
        connections: usize,
        work: Vec<String>,
        /// How many have moved; absent if nobody takes them, or from an older version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        moved: Option<usize>,
        /// How many have not, by the reason in one word.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        stayed: BTreeMap<String, usize>,
    },
    /// Main to a drainer: it shall end its linger.
    Hurry,
    /// New to old, before `Ready`: it was told of a pause, and keeps it.
    Paused,
    /// Old to new, and main to a drainer: the pause is over.
    Resume,
    /// Main to a drainer: too many drain at once, cut what is left.
    Hammer,
    /// Old to new, before `Main`: the new one counts on from here. A drainer to the main one, as
    /// its last frame: the main one adds these.
    Counted(Carried),
    /// A frame of a newer version is not for us.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The version of the crate in the old generation.
    pub(crate) version: String,
    /// The number of the new generation.
    pub(crate) generation: u64,
    /// The id of this reload.
    pub(crate) handover_id: String,
    /// The pid of the old generation.
    pub(crate) pid: u32,
    /// What the next generation is started from, so that it starts the one after it from there too.
    pub(crate) program: String,
    /// Where the next generation shall work, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<String>,
    /// Its drain timeout: how long it will be around after the handover.
    #[serde(default)]
    pub(crate) drain_timeout_ms: Option<u64>,
    /// Whether our parent is the service manager, and so yours is.
    pub(crate) managed: bool,
    /// The older generations that still drain, oldest first; a link to each comes beside the frame.
    #[serde(default)]
    pub(crate) drainers: Vec<Drainer>,
    /// Whether a sealed memfd with the application's state comes after the links.
    #[serde(default)]
    pub(crate) state: bool,
    /// That no fd store covers crashes was said.
    #[serde(default)]
    pub(crate) told: bool,
    /// Its settings, as it has logged them.
    #[serde(default)]
    pub(crate) settings: Option<String>,
    /// When this reload was asked for, in microseconds of CLOCK_MONOTONIC.
    #[serde(default)]
    pub(crate) asked_usec: u64,
    /// The reloads before this one, the oldest first.
    #[serde(default)]
    pub(crate) past: Vec<PastReload>,
    /// There is a pause, which the new generation keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pause: Option<PauseLeft>,
}

/// A pause that goes on in the next generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PauseLeft {
    /// For how long it is there.
    pub(crate) since_ms: u64,
    /// After how long it ends by itself.
    pub(crate) left_ms: u64,
}

/// A reload that is over, as the next generation is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PastReload {
    pub(crate) handover_id: String,
    /// The generation that it was asked of.
    pub(crate) generation: u64,
    /// `handed_over`, `rolled_back` or `in_place`.
    pub(crate) outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) took_ms: u64,
    pub(crate) ended_unix_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drainer {
    pub(crate) generation: u64,
    pub(crate) pid: u32,
    /// How long it has been draining.
    #[serde(default)]
    pub(crate) draining_ms: u64,
    /// Its own drain timeout, which is not ours.
    #[serde(default)]
    pub(crate) drain_timeout_ms: Option<u64>,
}

impl Frame {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = PREFIX.to_vec();
        serde_json::to_writer(&mut bytes, self)
            .map_err(|e| Error::new(Kind::Protocol, format!("a handover frame cannot be encoded: {e}")))?;
        if bytes.len() > MAX_FRAME {
            let size = bytes.len();
            return Err(Error::new(Kind::Protocol, format!("a handover frame of {size} bytes is over {MAX_FRAME}")));
        }
        Ok(bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let Some(json) = bytes.strip_prefix(PREFIX) else {
            let shown = bytes[..bytes.len().min(32)].escape_ascii();
            return Err(Error::new(
                Kind::Protocol,
                format!(
                    "the other generation speaks another handover protocol: expected \"handover/1\", got \"{shown}\"; \
                     restart the service once instead of reloading it"
                ),
            ));
        };
        serde_json::from_slice(json)
            .map_err(|e| Error::new(Kind::Protocol, format!("a handover frame cannot be read: {e}")))
    }

    /// Makes the frame of a failure. A reason is for people, and so it is bounded, whatever an
    /// application puts in.
    pub(crate) fn failed(reason: &str) -> Self {
        Self::Failed { reason: reason.chars().take(2000).collect() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn hello() -> Frame {
        Frame::Hello(Hello {
            version: "0.1.0".into(),
            generation: 7,
            handover_id: "00ff".into(),
            pid: 42,
            program: "/usr/bin/web".into(),
            directory: Some("/opt/web/current".into()),
            drain_timeout_ms: Some(30_000),
            managed: true,
            drainers: vec![Drainer { generation: 5, pid: 40, draining_ms: 1200, drain_timeout_ms: Some(30_000) }],
            state: false,
            told: true,
            settings: None,
            asked_usec: 1,
            past: Vec::new(),
            pause: Some(PauseLeft { since_ms: 1, left_ms: 2 }),
        })
    }

    #[test]
    fn frames_come_back_as_they_went() {
        let frames = [
            hello(),
            Frame::Ready,
            Frame::Paused,
            Frame::Resume,
            Frame::failed("port\nin use"),
            Frame::Entries { names: vec!["handover.state.sessions~3".into(), "queue~".into()] },
            Frame::Gone { names: vec!["queue".into()] },
            Frame::Main { reload: true, stop: false },
            Frame::Dismissed { reason: String::new() },
        ];
        for frame in frames {
            assert_eq!(Frame::decode(&frame.encode().unwrap()).unwrap(), frame);
        }
    }

    #[test]
    fn a_newer_version_may_add_fields_and_types() {
        let more = br#"handover/1 {"type":"main","reload":false,"stop":true,"mood":"good"}"#;
        assert_eq!(Frame::decode(more).unwrap(), Frame::Main { reload: false, stop: true });
        assert_eq!(Frame::decode(br#"handover/1 {"type":"migrate","n":3}"#).unwrap(), Frame::Unknown);
    }

    #[test]
    fn another_protocol_is_named() {
        let error = Frame::decode(b"handover/2 {}").unwrap_err();
        assert!(error.is_protocol());
        assert!(error.to_string().contains("handover/2"), "{error}");
        assert!(Frame::decode(b"handover/1 {\"type\":\"hello\"}").unwrap_err().to_string().contains("version"));
    }

    #[test]
    fn as_many_names_as_go_into_one_frame_do() {
        let names = vec!["\\".repeat(255); MAX_NAMES];
        assert!(Frame::Gone { names }.encode().unwrap().len() <= MAX_FRAME, "each character escaped");
    }

    #[test]
    fn an_endless_reason_is_cut() {
        assert!(Frame::failed(&"é".repeat(1 << 20)).encode().unwrap().len() < MAX_FRAME);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(11), ..ProptestConfig::default() })]
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..256), prefixed in any::<bool>()) {
            let bytes = if prefixed { [PREFIX, &bytes].concat() } else { bytes };
            let _ = Frame::decode(&bytes);
        }
    }
}
