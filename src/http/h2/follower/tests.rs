use super::*;
use crate::http::h2::frame::{
    CONTINUATION, DATA, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, SETTINGS_ACK, WINDOW_UPDATE, settings_frame,
};
use crate::http::h2::{FRAME_SIZE, WINDOW};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let [_, l0, l1, l2] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[l0, l1, l2, kind, flags][..], &id.to_be_bytes(), payload].concat()
}

/// Sends what the client says, cut into such pieces; returns what passes, what is held, and what
/// goes back.
fn client(follower: &mut Follower, bytes: &[u8], cut: usize) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let (mut raw, mut passed, mut held, mut back) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for piece in bytes.chunks(cut) {
        raw.extend_from_slice(piece);
        loop {
            let some = match follower.of_client(&raw, usize::MAX) {
                Fate::Unknown | Fate::Wait => break,
                Fate::Pass(some) => {
                    passed.extend_from_slice(&raw[..some]);
                    some
                }
                Fate::Hold(some) => {
                    held.extend_from_slice(&raw[..some]);
                    some
                }
                Fate::Drop(some) => some,
                Fate::Remake(some) => {
                    passed.extend(follower.take_remade());
                    some
                }
                Fate::Replace(some, other) => {
                    passed.extend_from_slice(&other);
                    some
                }
                Fate::Answer(some, other) => {
                    back.extend_from_slice(&other);
                    some
                }
            };
            raw.drain(..some);
            if raw.is_empty() {
                break;
            }
        }
    }
    assert_eq!(raw, b"", "what is whole is not kept");
    (passed, held, back)
}

fn server(follower: &mut Follower, bytes: &[u8], cut: usize) {
    bytes.chunks(cut).for_each(|piece| follower.sent(piece));
}

/// One that both ends have said their settings on.
fn fresh(cut: usize) -> Follower {
    let mut follower = Follower::new(24, WINDOW, FRAME_SIZE);
    server(&mut follower, &settings_frame(&[(3, 200)]), cut);
    let said = [&[b'P'; 24][..], &settings_frame(&[(4, 100_000)]), &SETTINGS_ACK].concat();
    assert_eq!(client(&mut follower, &said, cut), (said, Vec::new(), Vec::new()));
    assert!(!follower.is_quiet(), "the client's are not acknowledged");
    server(&mut follower, &SETTINGS_ACK, cut);
    assert!(follower.is_quiet());
    follower
}

const CUTS: [usize; 6] = [1, 2, 7, 9, 10, 1000];

#[test]
fn a_stream_is_open_until_both_have_ended_it() {
    for cut in CUTS {
        let mut follower = fresh(cut);
        client(&mut follower, &frame(HEADERS, 4, 1, &[0x83, 0x84]), cut);
        client(&mut follower, &frame(DATA, 0, 1, b"some"), cut);
        server(&mut follower, &[frame(HEADERS, 4, 1, b"200"), frame(DATA, 1, 1, b"all")].concat(), cut);
        assert!(!follower.is_quiet() && !follower.is_idle());
        client(&mut follower, &frame(DATA, 1, 1, b"more"), cut);
        assert!(follower.is_quiet());
        let state = follower.state();
        assert_eq!((state.last, state.send, state.receive), (1, FIRST_WINDOW - 3, FIRST_WINDOW - 8));
        assert_eq!(state.settings, [(4, 100_000)]);
        for reset in [0, 1] {
            client(&mut follower, &frame(HEADERS, 4, 3 + 2 * reset, &[0x83, 0x84]), cut);
            assert!(!follower.is_quiet());
            let reset_frame = frame(RST_STREAM, 0, 3 + 2 * reset, &[0; 4]);
            if reset == 0 {
                client(&mut follower, &reset_frame, cut);
            } else {
                server(&mut follower, &reset_frame, cut);
            }
            assert!(follower.is_quiet());
        }
    }
}

#[test]
fn new_streams_are_held_and_old_ones_and_the_connection_pass() {
    for cut in CUTS {
        let mut follower = fresh(cut);
        client(&mut follower, &frame(HEADERS, 4, 1, &[0x83, 0x84]), cut);
        follower.hold();
        let old =
            [frame(DATA, 0, 1, b"more"), frame(PING, 0, 0, b"12345678"), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 9])];
        let new = [
            frame(HEADERS, 1, 3, &[0x82]),
            frame(CONTINUATION, 0, 3, b"t"),
            frame(CONTINUATION, 4, 3, b"."),
            frame(HEADERS, 4, 5, &[0x83, 0x84]),
            frame(DATA, 0, 5, b"body"),
            frame(WINDOW_UPDATE, 0, 5, &[0, 0, 0, 9]),
            frame(RST_STREAM, 0, 5, &[0; 4]),
        ];
        let mixed = [&old[0], &new[0], &new[1], &new[2], &old[1], &new[3], &new[4], &old[2], &new[5], &new[6]];
        let mixed: Vec<u8> = mixed.into_iter().flatten().copied().collect();
        assert_eq!(client(&mut follower, &mixed, cut), (old.concat(), new.concat(), Vec::new()));
        assert!(!follower.is_quiet());
        client(&mut follower, &frame(DATA, 1, 1, b""), cut);
        server(&mut follower, &[frame(PING, 1, 0, b"12345678"), frame(HEADERS, 5, 1, b"200")].concat(), cut);
        assert!(follower.is_quiet());
        let state = follower.state();
        assert_eq!((state.last, state.receive), (1, FIRST_WINDOW - 4), "what is held has not come");
        assert_eq!(state.send, FIRST_WINDOW + 9);
        // it stays
        follower.stay();
        let new = new.concat();
        assert_eq!(client(&mut follower, &new, cut).0, new);
        assert_eq!(follower.state().last, 5);
    }
}

/// Adds the authority "it" to the table, and refers to it.
const ADDS: &[u8] = &[0x82, 0x41, 2, b'i', b't'];
const REFERS: &[u8] = &[0x82, 0xbe];
/// The first of them once more, that are no request.
const TABLE: &[u8] = &[0x41, 2, b'i', b't'];

/// What a fresh server has to read and to refuse.
fn refused(id: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, 5, id, &[block, b"\x00\x0aconnection\x01x"].concat())
}

#[test]
fn the_table_goes_along() {
    for cut in CUTS {
        let mut follower = fresh(cut);
        client(&mut follower, &[frame(HEADERS, 5, 1, ADDS), frame(HEADERS, 5, 3, REFERS)].concat(), cut);
        assert_eq!(follower.state().table, TABLE);
        // of what is held the server here knows nothing
        follower.hold();
        client(&mut follower, &frame(HEADERS, 5, 5, &[0x82, 0x44, 1, b'/']), cut);
        assert_eq!(follower.state().table, TABLE);
        // padded, with a priority, and in pieces
        let mut follower = fresh(cut);
        let parts = [
            frame(HEADERS, 0x28, 1, &[&[2, 0, 0, 0, 0, 1][..], &ADDS[..3], &[0, 0]].concat()),
            frame(CONTINUATION, 0, 1, &ADDS[3..4]),
            frame(CONTINUATION, 4, 1, &ADDS[4..]),
        ];
        client(&mut follower, &parts.concat(), cut);
        assert_eq!(follower.state().table, TABLE);
        assert!(follower.can_leave());
    }
}

#[test]
fn a_fresh_server_is_told_the_table_and_the_client_hears_nothing_of_it() {
    let state = Http2State { last: 5, table: TABLE.to_vec(), ..Http2State::default() };
    let mut follower = Follower::resumed(&state);
    assert_eq!(follower.take_remade(), refused(1, TABLE));
    assert_eq!(follower.state().table, TABLE);
    let reset = |id| frame(RST_STREAM, 0, id, &[0, 0, 0, 1]);
    assert_eq!(follower.of_server(&reset(1)), Fate::Drop(13));
    // what is late may add to it
    let late = [frame(HEADERS, 1, 3, &[0x82, 0x44]), frame(CONTINUATION, 4, 3, &[1, b'/'])].concat();
    let (passed, held, back) = client(&mut follower, &late, 1);
    assert_eq!((passed, held, back), (refused(3, &[0x82, 0x44, 1, b'/']), Vec::new(), Vec::new()));
    assert!(follower.edits() && follower.can_leave());
    assert_eq!(follower.of_server(&reset(3)), Fate::Drop(13));
    assert_eq!(follower.of_server(&reset(7)), Fate::Pass(13), "that is the client's");
    assert_eq!(follower.state().table, [TABLE, &[0x44, 1, b'/']].concat());
    // there are no more streams for that
    let late = frame(HEADERS, 5, 1, REFERS);
    assert_eq!(client(&mut follower, &late, 9).0, refused(5, REFERS));
    assert_eq!(client(&mut follower, &late, 9).0, late, "that is an error");
    assert!(!follower.can_leave());
}

#[test]
fn who_refers_to_what_is_not_known_stays() {
    let itself = [&1_u32.to_be_bytes()[..], &[7], ADDS].concat();
    let wrong = [frame(HEADERS, 5, 1, REFERS), frame(HEADERS, 0x25, 1, &itself), frame(HEADERS, 5, 1, &[0x41, 2])];
    for said in wrong {
        let mut follower = fresh(1);
        client(&mut follower, &said, 1);
        assert!(follower.has_lost_table() && !follower.can_leave());
    }
}

#[test]
fn whoever_says_goodbye_stays() {
    let mut follower = fresh(1);
    follower.hold();
    let goaway = frame(GOAWAY, 0, 0, &[0; 8]);
    assert_eq!(client(&mut follower, &goaway, 1).1, goaway, "it comes behind what is held");
    assert!(!follower.can_leave());
    let mut follower = fresh(1);
    server(&mut follower, &goaway, 1);
    assert!(!follower.can_leave() && !follower.is_quiet());
    let mut follower = fresh(1);
    client(&mut follower, &frame(HEADERS, 5, 1, &vec![0; FRAME_SIZE as usize + 1]), 4096);
    assert!(!follower.can_leave(), "what is too large is not for another process");
}

#[test]
fn what_is_late_is_dropped_and_granted_again() {
    for cut in CUTS {
        let state = Http2State { last: 7, pings: 1, ..Http2State::default() };
        let mut follower = Follower::resumed(&state);
        let late = [
            frame(DATA, 0, 5, b"late"),
            frame(RST_STREAM, 0, 5, &[0; 4]),
            frame(WINDOW_UPDATE, 0, 7, &[0, 0, 0, 9]),
            frame(HEADERS, 1, 3, b"\x00\x01t"),
            frame(CONTINUATION, 4, 3, b"\x01u"),
            frame(PING, 1, 0, b"12345678"),
        ];
        let fresh = [frame(HEADERS, 5, 9, &[0x82]), frame(PING, 1, 0, b"12345678")].concat();
        let (passed, held, back) = client(&mut follower, &[late.concat(), fresh.clone()].concat(), cut);
        let expected = [refused(1, b"\x00\x01t\x01u"), fresh].concat();
        assert_eq!((passed, held, back), (expected, Vec::new(), window_update(4).to_vec()));
        assert_eq!((follower.state().receive, follower.can_leave()), (FIRST_WINDOW, true));
    }
}

#[test]
fn a_fresh_server_is_told_and_tells() {
    let state = Http2State { receive: 900_000, send: 65_000, ..Http2State::default() };
    let mut follower = Follower::resumed(&state);
    assert!(follower.is_ahead() && follower.edits());
    let settings = settings_frame(&[(1, 4096)]);
    assert_eq!(follower.of_server(&settings), Fate::Pass(settings.len()));
    assert_eq!(follower.of_server(&SETTINGS_ACK), Fate::Drop(9), "the client has not asked");
    let grant = window_update((1 << 20) - 65_535);
    assert_eq!(follower.of_server(&grant), Fate::Replace(13, window_update((1 << 20) - 900_000)));
    assert!(!follower.is_ahead());
    assert_eq!(follower.state().receive, 1 << 20);
    // 535 less than it believes
    let data = frame(DATA, 0, 1, &[0; 10_000]);
    for _ in 0..6 {
        assert_eq!(follower.of_server(&data), Fate::Pass(data.len()));
    }
    assert_eq!(follower.of_server(&data), Fate::Wait);
    assert_eq!(follower.of_client(&window_update(500), usize::MAX), Fate::Drop(13));
    assert_eq!(follower.of_client(&window_update(5000), usize::MAX), Fate::Replace(13, window_update(4965)));
    assert_eq!(follower.of_server(&data), Fate::Pass(data.len()));
    assert!(!follower.edits());
    assert_eq!(follower.of_client(&SETTINGS_ACK, usize::MAX), Fate::Drop(9), "that was made up before");
    assert!(follower.is_settled());
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let kinds =
        prop::sample::select(vec![DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION, 2, 0x20]);
    (kinds, 0..8_u8, 0..12_u32, 0..40_usize)
        .prop_map(|(kind, flags, id, length)| frame(kind, flags, id, &vec![1; length]))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(23), ..ProptestConfig::default() })]
    #[test]
    fn cut_anywhere_the_fates_are_the_same(
        frames in prop::collection::vec(any_frame(), 1..20),
        answers in prop::collection::vec(any_frame(), 1..20),
        cut in 1..60_usize,
        holds in any::<bool>(),
        last in 0..6_u32,
    ) {
        let run = |cut: usize| {
            let mut follower = if last == 0 { fresh(cut) } else {
                Follower::resumed(&Http2State { last, send: 60_000, ..Http2State::default() })
            };
            if holds {
                follower.hold();
            }
            let got = client(&mut follower, &frames.concat(), cut);
            server(&mut follower, &answers.concat(), cut);
            (got, follower.state(), follower.is_quiet(), follower.can_leave())
        };
        prop_assert_eq!(run(cut), run(usize::MAX));
    }
}
