//! HTTP/2 connections that go to the next generation, and clients that notice nothing.

mod load;
mod raw;
mod violations;

use std::net::SocketAddr;
use std::time::Duration;
use std::{fs, thread};

use handover_testing::processes::End;
use handover_testing::world::World;

use self::load::{no_stream_is_lost_by_default, no_stream_is_lost_over_tcp, no_stream_is_lost_over_tls};
use self::raw::{
    ACK, CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, POST, PREFACE, RST_STREAM,
    SETTINGS, block, frame, get, window_update,
};
use self::violations::what_must_not_be_is_answered_alike;
use crate::moved::{More, Way, more, seen, wait_until_seen};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![
    no_stream_is_lost_over_tcp,
    no_stream_is_lost_over_tls,
    no_stream_is_lost_by_default,
    half_of_everything_moves,
    windows_go_along,
    a_window_that_is_closed_stays_so,
    what_is_late_for_old_streams_is_nothing,
    new_streams_are_held_while_old_ones_end,
    streams_that_end_a_little_late_do_not_keep_it,
    streams_that_take_too_long_get_a_goaway,
    a_client_that_acknowledges_nothing_gets_a_goaway,
    a_client_that_keeps_its_table_asks_elsewhere,
    pings_of_both_ends_go_along,
    one_that_came_back_is_served_and_drains,
    it_does_not_move_where_it_must_not,
    what_must_not_be_is_answered_alike,
];

const LONG: Duration = Duration::from_secs(60);

fn world(change: impl FnOnce(&mut More)) -> (World, SocketAddr, u32) {
    let mut world = World::new().configured(|c| (c.linger, c.drain_timeout) = (LONG, LONG));
    more(&mut world, change);
    let (way, program) = Way::tcp(&world);
    let Way::Tcp(address) = way else { unreachable!() };
    let pid = world.started(program).pid;
    (world, address, pid)
}

/// Half a preface, half of a frame's head, of a block, and of a block that goes on. Whoever is in
/// the middle of a frame cannot acknowledge anything, so that comes before.
fn half_of_everything_moves() {
    let (world, address, old) = world(|_| {});
    let all = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let mut clients = Vec::new();
    for said in [10, 23, PREFACE.len(), all.len() - 1] {
        let mut client = Client::mute(address);
        client.send(&all[..said]);
        clients.push((client, said));
    }
    let whole = [
        frame(HEADERS, END_STREAM, 3, &block(GET, "/n/cut")[..5]),
        frame(CONTINUATION, END_HEADERS, 3, &block(GET, "/n/cut")[5..]),
    ]
    .concat();
    let mut halves = Vec::new();
    for said in [0, 4, 9, 12, 14, 20] {
        let mut client = Client::new(address, &[]);
        client.ask(1, "/n/first", "first");
        client.mute = true;
        halves.push((client, said));
    }
    thread::scope(|scope| {
        let new = scope.spawn(|| world.reload_to(2).pid);
        for (client, said) in &mut halves {
            client.asked();
            client.mute = false;
            client.send([&frame(SETTINGS, ACK, 0, &[]), &whole[..*said]].concat());
        }
        for (client, said) in &mut clients {
            client.send(&all[*said..]);
            client.ask(1, "/n/late", "late");
        }
        new.join().unwrap();
        for (client, said) in &mut halves {
            client.send(&whole[*said..]);
            client.expect(3, "cut");
        }
        assert_eq!(world.end_of(old), End::Exited(0));
    });
    assert!(!world.log().contains(" stayed ("), "all moved");
    drop((clients, halves));
    world.stop();
}

fn windows_go_along() {
    let (world, address, mut old) = world(|_| {});
    let (mut one, mut two) = (Client::new(address, &[]), 3);
    one.ask(1, "/n/first", "first");
    for generation in 2..5 {
        one.moves(&world, generation, &mut old);
        // an upload of more than what a fresh server grants before it is heard of
        let path = format!("/up/{two}");
        one.send(frame(HEADERS, END_HEADERS, two, &block(POST, &path)));
        let mut sent = 0;
        while sent < 400_000 {
            let piece = vec![b'u'; 16_000.min(400_000 - sent)];
            sent += piece.len();
            one.granted -= i64::try_from(piece.len()).unwrap();
            assert!(one.granted >= 0, "there is room by what was said before");
            one.send(frame(DATA, u8::from(sent == 400_000), two, &piece));
        }
        one.expect(two, &format!("{two} 400000"));
        // an answer of more than that
        two += 2;
        one.send([window_update(0, 100_000), get(two, &format!("/large/{two}")), window_update(two, 100_000)].concat());
        one.expect(two, &"y".repeat(100_000));
        two += 2;
        assert!(one.granted <= 1 << 20, "never more than was to be: {}", one.granted);
    }
    drop(one);
    world.stop();
}

/// The client grants little, and takes nothing beyond it, in any generation.
fn a_window_that_is_closed_stays_so() {
    for window in [0_u32, 1, 1000, 65_535] {
        let (world, address, mut old) = world(|_| {});
        let mut client = Client::new(address, &[(4, 1 << 20)]);
        // 65,535 at first, of which so much is left
        let used = 65_535 - window;
        client.ask(1, &format!("/bytes/{used}"), &"y".repeat(used as usize));
        client.moves(&world, 2, &mut old);
        client.send(get(3, "/bytes/70000"));
        client.send(get(5, "/bytes/0"));
        let mut got = 0;
        let grant = |client: &mut Client, by: u32, allowed: &mut usize| {
            client.send(window_update(0, by));
            *allowed += by as usize;
        };
        let mut allowed = window as usize;
        // A ping is answered although the answer waits.
        client.send(frame(PING, 0, 0, b"12345678"));
        let (mut pong, mut ended) = (false, false);
        while !(pong && ended) {
            let frame = client.next();
            match frame.kind {
                PING => {
                    pong = true;
                    grant(&mut client, 30_000, &mut allowed);
                    grant(&mut client, 40_000, &mut allowed);
                }
                DATA if frame.stream == 3 => {
                    got += frame.payload.len();
                    assert!(got <= allowed, "{got} of {allowed}");
                    ended |= frame.flags & END_STREAM != 0;
                }
                DATA | HEADERS => {}
                _ => panic!("{frame:?}"),
            }
        }
        assert_eq!(got, 70_000);
        client.moves(&world, 3, &mut old);
        client.send(window_update(0, 50_000));
        client.ask(7, "/n/last", "last");
        drop(client);
        world.stop();
    }
}

/// Frames for streams that were over in the generation before, as the client did not know yet.
fn what_is_late_for_old_streams_is_nothing() {
    let (world, address, mut old) = world(|_| {});
    let mut client = Client::new(address, &[]);
    client.send(frame(HEADERS, END_HEADERS, 1, &block(POST, "/early/1")));
    let (mut answered, mut reset) = (false, false);
    while !(answered && reset) {
        let frame = client.next();
        answered |= frame.kind == DATA && frame.flags & END_STREAM != 0;
        reset |= frame.kind == RST_STREAM;
    }
    client.ask(3, "/n/3", "3");
    client.moves(&world, 2, &mut old);
    let before = client.granted;
    client.send(window_update(1, 10));
    client.send(window_update(3, 10));
    client.send(frame(DATA, 0, 1, &[b'x'; 5000]));
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x00, 1, b'a', 1, b'b']));
    client.send(frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
    client.send(frame(2, 0, 3, &[0, 0, 0, 0, 9]));
    client.ask(5, "/n/5", "5");
    assert!(client.granted >= before, "what was dropped is granted again");
    client.ask(7, "/n/7", "7");
    drop(client);
    world.stop();
}

/// A handler that is not held has answered before so many pings have come back.
const PINGS: usize = 50;

fn new_streams_are_held_while_old_ones_end() {
    let (world, address, old) = world(|more| more.within = LONG);
    let mut client = Client::new(address, &[]);
    client.send(get(1, "/slow/a"));
    wait_until_seen(&world, "a");
    thread::scope(|scope| {
        let new = scope.spawn(|| world.reload_to(2).pid);
        client.asked();
        let new = new.join().unwrap();
        // It holds from some moment on: then pings are answered, and a request before them is not.
        // One ping alone may overtake the reply of a request that is not held.
        let mut stream = 3;
        loop {
            client.send(get(stream, &format!("/n/{stream}")));
            let held = (0..PINGS).all(|_| {
                client.send(frame(PING, 0, 0, b"12345678"));
                let first = client.next();
                if first.kind != PING {
                    while client.next().kind != PING {}
                }
                first.kind == PING
            });
            if held {
                break;
            }
            stream += 2;
        }
        // with a body, in pieces
        client.send(frame(HEADERS, END_HEADERS, stream + 2, &block(POST, "/up/held")));
        client.send(frame(DATA, 0, stream + 2, b"one"));
        client.send(frame(DATA, END_STREAM, stream + 2, b"two"));
        client.send(frame(HEADERS, END_STREAM, stream + 4, &block(GET, "/n/cont")[..5]));
        client.send(frame(CONTINUATION, END_HEADERS, stream + 4, &block(GET, "/n/cont")[5..]));
        assert!(!seen(&world).contains_key("held"));
        fs::write(world.path("go.a"), "").unwrap();
        client.expect(1, "a");
        let mut bodies = Vec::new();
        while bodies.len() < 3 {
            let frame = client.next();
            if frame.kind == DATA {
                bodies.push(String::from_utf8(frame.payload).unwrap());
            }
        }
        bodies.sort();
        let mut expected = [stream.to_string(), "held 6".to_owned(), "cont".to_owned()];
        expected.sort();
        assert_eq!(bodies, expected);
        assert_eq!(world.end_of(old), End::Exited(0));
        assert_eq!(world.who().pid, new);
    });
    assert!(!world.log().contains(" stayed ("), "it moved");
    drop(client);
    world.stop();
}

/// It is told to go, and what was held is answered.
fn goes_away(mute: bool, reason: &str) {
    let (world, address, old) = world(|more| more.within = Duration::from_millis(100));
    let mut client = Client::new(address, &[]);
    client.send(get(1, "/slow/a"));
    wait_until_seen(&world, "a");
    client.mute = mute;
    let mut new = 0;
    thread::scope(|scope| {
        let reload = scope.spawn(|| world.reload_to(2).pid);
        let frame = client.next();
        assert_eq!(frame.kind, GOAWAY, "{frame:?}");
        // hyper asks for an answer before the second GOAWAY: what comes before that is answered
        let mut ping = client.next();
        while ping.kind != PING {
            ping = client.next();
        }
        client.send(get(3, "/n/3"));
        client.expect(3, "3");
        client.send(raw::frame(PING, ACK, 0, &ping.payload));
        fs::write(world.path("go.a"), "").unwrap();
        while client.next().kind != DATA {}
        new = reload.join().unwrap();
    });
    world.wait_for_log(&format!("1 stayed ({reason}: 1)"));
    assert_eq!(world.end_of(old), End::Exited(0));
    assert_ne!(new, old);
    drop(client);
    world.stop();
}

/// New streams are answered where they came to, and it moves once those in flight have ended.
fn streams_that_end_a_little_late_do_not_keep_it() {
    let (world, address, old) = world(|more| more.within = Duration::from_secs(1));
    let mut client = Client::new(address, &[]);
    client.send(get(1, "/slow/a"));
    wait_until_seen(&world, "a");
    thread::scope(|scope| {
        let reload = scope.spawn(|| world.reload_to(2).pid);
        client.asked();
        client.send(get(3, "/n/3"));
        client.expect(3, "3");
        fs::write(world.path("go.a"), "").unwrap();
        client.expect(1, "a");
        assert_eq!(world.end_of(old), End::Exited(0));
        reload.join().unwrap();
    });
    client.ask(5, "/n/5", "5");
    assert!(!world.log().contains(" stayed ("), "it moved");
    drop(client);
    world.stop();
}

fn streams_that_take_too_long_get_a_goaway() {
    goes_away(false, "streams");
}

fn a_client_that_acknowledges_nothing_gets_a_goaway() {
    goes_away(true, "silent");
}

/// It acknowledges that there is no table, and refers to it: after the move, where its entry is not
/// known, and before.
fn a_client_that_keeps_its_table_asks_elsewhere() {
    // adds the authority to the table, or refers to it
    let ask = |stream, authority: &[u8], path: &str| {
        let block = [&[GET, 0x86][..], authority, &[0x04, u8::try_from(path.len()).unwrap()], path.as_bytes()].concat();
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
    };
    let (adds, refers) = (&[0x41, 2, b'i', b't'][..], &[0xbe][..]);
    let (world, address, mut old) = world(|more| more.within = LONG);
    let mut client = Client::new(address, &[]);
    client.send(ask(1, adds, "/n/1"));
    client.expect(1, "1");
    client.moves(&world, 2, &mut old);
    client.send(ask(3, refers, "/n/3"));
    assert_eq!(client.next().kind, GOAWAY, "not an error");
    let ping = client.next();
    client.send(frame(PING, ACK, 0, &ping.payload));
    let last = client.next();
    assert_eq!((last.kind, &last.payload[..]), (GOAWAY, &[0; 8][..]), "none was answered");
    drop(client);

    let mut client = Client::new(address, &[]);
    client.send([ask(1, adds, "/n/1"), get(3, "/slow/3")].concat());
    client.expect(1, "1");
    wait_until_seen(&world, "3");
    thread::scope(|scope| {
        let reload = scope.spawn(|| world.reload_to(3));
        client.asked();
        client.send(ask(5, refers, "/n/5"));
        reload.join().unwrap();
        let (mut told, mut answered) = (false, false);
        while !(told && answered) {
            let next = client.next();
            told |= next.kind == GOAWAY;
            answered |= (next.kind, next.stream) == (DATA, 5);
        }
        fs::write(world.path("go.3"), "").unwrap();
        while client.next().kind != DATA {}
    });
    world.wait_for_log("table: 1)");
    // It does not answer the ping before the last GOAWAY.
    drop(client);
    assert_eq!(world.end_of(old), End::Exited(0));
    world.stop();
}

fn pings_of_both_ends_go_along() {
    let (world, address, mut old) = world(|more| more.pings = Some(Duration::from_millis(50)));
    let mut client = Client::new(address, &[]);
    client.ask(1, "/n/1", "1");
    let mut asked = None;
    for generation in 2..4 {
        // the server's ping that is answered in the next generation; it has one at a time
        let ping = asked.take().unwrap_or_else(|| {
            loop {
                let frame = client.next();
                if frame.kind == PING {
                    break frame;
                }
            }
        });
        client.moves(&world, generation, &mut old);
        client.send(frame(PING, ACK, 0, &ping.payload));
        client.send(frame(PING, 0, 0, b"12345678"));
        let stream = u32::try_from(generation).unwrap() * 2 + 1;
        client.send(get(stream, &format!("/n/{stream}")));
        let (mut pong, mut answer) = (false, false);
        while !(pong && answer) {
            let frame = client.next();
            pong |= frame.kind == PING && frame.flags & ACK != 0;
            answer |= frame.kind == DATA;
            assert_ne!(frame.kind, GOAWAY, "{frame:?}");
            if frame.kind == PING && frame.flags & ACK == 0 {
                asked = Some(frame);
            }
        }
    }
    drop(client);
    world.stop();
}

/// The next generation takes one less.
fn one_that_came_back_is_served_and_drains() {
    let mut world = World::new().configured(|c| (c.linger, c.drain_timeout) = (LONG, LONG));
    more(&mut world, |_| {});
    let (way, program) = Way::tcp(&world);
    let Way::Tcp(address) = way else { unreachable!() };
    let old = world.started(program).pid;
    let mut client = Client::new(address, &[]);
    client.ask(1, "/n/1", "1");
    let mut taken = Client::new(address, &[]);
    taken.ask(1, "/n/1", "1");
    more(&mut world, |more| more.most = Some(1));
    thread::scope(|scope| {
        let reload = scope.spawn(|| world.reload_to(2).pid);
        let ends: Vec<_> = [&mut client, &mut taken]
            .map(|client| {
                scope.spawn(|| {
                    client.asked();
                    // and again by the next generation, or it has come back
                    while client.table == 0 {
                        let frame = client.next_of_all();
                        assert_ne!(frame.kind, GOAWAY, "{frame:?}");
                    }
                    client.send(get(3, "/n/3"));
                    let (mut gone, mut answered) = (false, false);
                    while !answered {
                        let frame = client.next();
                        gone |= frame.kind == GOAWAY;
                        answered = frame.kind == DATA;
                        if frame.kind == PING {
                            client.send(raw::frame(PING, ACK, 0, &frame.payload));
                        }
                    }
                    gone
                })
            })
            .into_iter()
            .map(|end| end.join().unwrap())
            .collect();
        assert_eq!(ends.iter().filter(|gone| **gone).count(), 1, "{ends:?}");
        reload.join().unwrap();
    });
    world.wait_for_log("1 stayed (full: 1)");
    assert_eq!(world.end_of(old), End::Exited(0));
    drop((client, taken));
    world.stop();
}

fn it_does_not_move_where_it_must_not() {
    let (world, address, old) = world(|more| more.http2 = false);
    let mut client = Client::new(address, &[]);
    client.ask(1, "/n/1", "1");
    world.reload_to(2);
    let frame = client.next();
    assert_eq!(frame.kind, GOAWAY, "{frame:?}");
    assert_eq!(client.table, 4096, "it was asked for nothing");
    drop(client);
    world.wait_for_log("1 stayed (off: 1)");
    assert_eq!(world.end_of(old), End::Exited(0));
    world.stop();
}
