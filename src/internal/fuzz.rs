//! Each parser of what others have written, with any bytes: it answers, and does not panic. Where
//! what is read can be written again, it stays the same.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::OnceLock;

use crate::control::{Call, Reply};
use crate::reload::history::History;
use crate::settings::Settings;
use crate::supervise::read_notification;
use crate::sys::closer::Closer;
use crate::systemd::environment::Environment;
use crate::systemd::notify::Notifier;
use crate::systemd::watchdog::Watchdog;
use crate::upgrade::fuzz as upgrade;
use crate::wire::{flows, frame, listen, parcel, state, store};

/// One of them.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("frame", frame),
    ("history", history),
    ("listen", listen),
    ("environment", environment),
    ("notify", notify),
    ("state", state),
    ("store", store),
    ("flows", flows),
    ("control", control),
    ("http", crate::http::fuzz_framing),
    ("websocket", crate::http::fuzz_frames),
    ("http2", crate::http::fuzz_http2),
    ("parcel", parcel),
    #[cfg(feature = "tls")]
    ("tls-records", crate::tls::record::fuzz::records),
    #[cfg(feature = "tls")]
    ("tls-state", crate::tls::record::fuzz::state),
    ("signature", upgrade::signature),
    ("checksums", upgrade::checksums),
    ("elf", upgrade::elf),
    ("settings", settings),
];

/// Takes up to three values, as of variables, which NULs separate.
fn values(bytes: &[u8]) -> [Option<&OsStr>; 3] {
    let mut values = bytes.splitn(3, |byte| *byte == 0).map(OsStr::from_bytes);
    [values.next(), values.next(), values.next()]
}

/// What one generation says to the next.
fn frame(bytes: &[u8]) {
    let Ok(read) = frame::Frame::decode(bytes) else { return };
    // What it would be too large for is said by an error.
    if let Ok(written) = read.encode() {
        let again = frame::Frame::decode(&written).expect("what was written is read");
        assert_eq!(again, read, "another frame");
    }
}

/// Connections that one generation gives the next.
fn parcel(bytes: &[u8]) {
    let Ok((read, _)) = parcel::Note::decode(bytes) else { return };
    if let Ok(written) = read.encode() {
        let again = parcel::Note::decode(&written).expect("what was written is read").0;
        assert_eq!(again, read, "another note");
    }
}

/// The reloads that a next generation is told of.
fn history(bytes: &[u8]) {
    if let Ok(hello) = serde_json::from_slice::<frame::Hello>(bytes) {
        let _ = History::open(Some(&hello)).past().len();
    }
}

/// `LISTEN_FDS` and those beside it.
fn listen(bytes: &[u8]) {
    let [fds, names, pid] = values(bytes);
    let get = |name: &str| match name {
        "LISTEN_FDS" => fds,
        "LISTEN_FDNAMES" => names,
        "LISTEN_PID" => pid.or(Some(OsStr::new("7"))),
        _ => None,
    };
    if let Ok(listen::Listen::Passed(fds)) = listen::parse(get, 7, || Some(7), 1024) {
        assert!(fds.len() <= 1024, "more fds than there can be");
    }
}

/// What a manager says otherwise.
fn environment(bytes: &[u8]) {
    let [socket, watchdog, pid] = values(bytes).map(Option::unwrap_or_default);
    let environment =
        Environment::from_pairs([("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", watchdog), ("WATCHDOG_PID", pid)]);
    let _ = (Notifier::from_env(&environment).is_ok(), Watchdog::from_env(&environment).is_ok());
}

/// What a supervised program says.
fn notify(bytes: &[u8]) {
    static CLOSER: OnceLock<Closer> = OnceLock::new();
    let closer = CLOSER.get_or_init(|| Closer::start().expect("a thread starts"));
    let _ = read_notification(bytes, closer.sent(Vec::new()));
}

/// The page that a state begins with.
fn state(bytes: &[u8]) {
    let mut page = [0; state::PAGE];
    let length = bytes.len().min(page.len());
    page[..length].copy_from_slice(&bytes[..length]);
    let _ = state::Page::decode(&page).is_ok();
}

/// Names in the fd store.
fn store(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = (store::check(text).is_ok(), store::Slot::is_replacement(text));
    if let Some(slot) = store::Slot::parse(text) {
        assert_eq!(store::Slot::parse(&slot.to_string()), Some(slot), "another slot");
    }
}

/// What generations say of flows of datagrams.
fn flows(bytes: &[u8]) {
    let _ = flows::decode(bytes);
}

/// Calls and replies of the control interface.
fn control(bytes: &[u8]) {
    for message in bytes.split(|byte| *byte == 0) {
        if let Ok(call) = serde_json::from_slice::<Call>(message) {
            let written = serde_json::to_vec(&call).expect("what was read can be written");
            assert_eq!(serde_json::from_slice::<Call>(&written).ok(), Some(call), "another call");
        }
        let _ = serde_json::from_slice::<Reply>(message).is_ok();
    }
}

/// Settings from a file, with the signals and what each stands for.
fn settings(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Settings::from_toml(text).is_ok();
    }
}
