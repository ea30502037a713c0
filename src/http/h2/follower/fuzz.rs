//! Any bytes in both directions.

use super::{Fate, Follower};
use crate::http::h2::Http2State;
use crate::http::h2::{FRAME_SIZE, WINDOW};

/// Cut anywhere, of what comes nothing is lost, and nothing comes from nowhere; and what has to be
/// known elsewhere is the same.
pub(crate) fn fuzz(bytes: &[u8]) {
    let [cut, kind, bytes @ ..] = bytes else { return };
    let whole = follow(bytes, usize::MAX, *kind);
    let pieces = follow(bytes, usize::from(*cut) + 1, *kind);
    assert_eq!(pieces, whole, "cut into pieces");
    if let Ok(state) = whole.0.encode()
        && let Some(read) = Http2State::decode(&state)
    {
        assert_eq!(read, whole.0);
        assert_eq!(Follower::resumed(&read).state().table, read.table, "another table is like it");
    }
}

/// Returns the state, and what passed, was held, was dropped and was not known of both.
fn follow(bytes: &[u8], cut: usize, kind: u8) -> (Http2State, [usize; 4]) {
    let mut follower = if kind & 1 == 0 {
        Follower::new(0, WINDOW, FRAME_SIZE)
    } else {
        let table = if kind & 2 == 0 { Vec::new() } else { b"\x3f\xe1\x0f\x40\x01a\x01b".to_vec() };
        let state = Http2State { last: 5, send: 1000, receive: 100_000, pings: 1, table, ..Http2State::default() };
        Follower::resumed(&state)
    };
    let (from_client, from_server) = bytes.split_at(bytes.len() / 2);
    let (mut raw, mut counts) = (Vec::new(), [0; 4]);
    for piece in from_client.chunks(cut) {
        raw.extend_from_slice(piece);
        while !raw.is_empty() {
            let fate = follower.of_client(&raw, usize::MAX);
            let (some, which) = match fate {
                Fate::Unknown | Fate::Wait => break,
                Fate::Pass(some) => (some, 0),
                Fate::Hold(some) => (some, 1),
                Fate::Drop(some) | Fate::Replace(some, _) | Fate::Remake(some) | Fate::Answer(some, _) => (some, 2),
            };
            assert!(some > 0 && some <= raw.len(), "{fate:?} of {}", raw.len());
            raw.drain(..some);
            counts[which] += some;
            if kind & 4 != 0 {
                follower.hold();
            }
        }
    }
    counts[3] = raw.len();
    assert_eq!(counts.iter().sum::<usize>(), from_client.len());
    from_server.chunks(cut).for_each(|piece| follower.sent(piece));
    let _ = (follower.is_quiet(), follower.is_ahead(), follower.lacks());
    (follower.state(), counts)
}
