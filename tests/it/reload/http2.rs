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
    SETTINGS, block, frame, get, number, window_update,
};
use self::violations::what_must_not_be_is_answered_alike;
use crate::moved::{More, Way, more, seen, wait_until_seen};
use crate::secured::next;
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
    what_headers_refer_to_goes_along,
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

/// Half a preface, half of a frame's head, of a block, and of a block that goes on.
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
        // the two are read at once
        client.send([&frame(PING, 0, 0, b"12345678"), &whole[..said]].concat());
        assert_eq!(client.next().kind, PING);
        halves.push((client, said));
    }
    thread::scope(|scope| {
        let new = scope.spawn(|| world.reload_to(2).pid);
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
    // which adds to the table, all the same
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0x40, 1, b'a', 1, b'b']));
    client.send(frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
    client.send(frame(2, 0, 3, &[0, 0, 0, 0, 9]));
    client.ask(5, "/n/5", "5");
    assert!(client.granted >= before, "what was dropped is granted again");
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 7, &[&block(GET, "/n/7")[..], &[0xbe]].concat()));
    client.expect(7, "7");
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
    {
        let new = world.reload_to(2).pid;
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
    }
    assert!(!world.log().contains(" stayed ("), "it moved");
    drop(client);
    world.stop();
}

/// It is told to go, and what was held is answered.
fn goes_away(mute: bool, reason: &str) {
    let (world, address, old) = world(|more| more.within = Duration::from_millis(100));
    let mut client = Client::new(address, &[]);
    client.mute = mute;
    if mute {
        client.ask(1, "/n/1", "1");
    } else {
        client.send(get(1, "/slow/a"));
        wait_until_seen(&world, "a");
    }
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
        if !mute {
            fs::write(world.path("go.a"), "").unwrap();
            while client.next().kind != DATA {}
        }
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
    world.reload_to(2);
    client.send(get(3, "/n/3"));
    client.expect(3, "3");
    fs::write(world.path("go.a"), "").unwrap();
    client.expect(1, "a");
    assert_eq!(world.end_of(old), End::Exited(0));
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

/// Headers of each kind that refer to entries of before a move, or add some; what is old makes
/// room.
fn what_headers_refer_to_goes_along() {
    const TURNS: usize = 400;
    const MOVES: usize = 8;
    let (world, address, mut old) = world(|_| {});
    let mut client = Client::new(address, &[]);
    let mut seed = 7541;
    let mut below = |most: usize| usize::try_from(next(&mut seed)).unwrap() % most;
    // what the client has in its table, the newest first, and how large that may be
    let (mut table, mut most) = (Vec::<String>::new(), 4096_usize);
    let (mut referred, mut moved) = (0, Vec::new());
    for turn in 0..TURNS {
        if turn % (TURNS / MOVES) == TURNS / MOVES / 2 {
            client.moves(&world, 2 + u64::try_from(turn / (TURNS / MOVES)).unwrap(), &mut old);
            moved.clone_from(&table);
        }
        let mut fields = Vec::new();
        if below(32) == 0 {
            most = below(2000);
            fields.extend(number(0x20, 5, most));
        } else if below(32) == 0 {
            most = 4096;
            fields.extend(number(0x20, 5, most));
        }
        let fit = |table: &mut Vec<String>, most: usize| {
            while table.iter().map(|path| path.len() + 37).sum::<usize>() > most {
                table.pop();
            }
        };
        fit(&mut table, most);
        fields.extend([GET, 0x86, 0x01, 2, b'i', b't']);
        let path = if !table.is_empty() && below(2) == 0 {
            let index = below(table.len());
            fields.extend(number(0x80, 7, 62 + index));
            referred += usize::from(moved.contains(&table[index]));
            table[index].clone()
        } else {
            let path = format!("/n/{turn}{}", "x".repeat(below(200)));
            // its name is that of the static table, or of an entry
            let name = if !table.is_empty() && below(2) == 0 { 62 + below(table.len()) } else { 4 };
            let added = below(4) > 0;
            fields.extend(if added { number(0x40, 6, name) } else { number(0, 4, name) });
            fields.extend(number(0, 7, path.len()));
            fields.extend(path.bytes());
            if added {
                table.insert(0, path.clone());
                fit(&mut table, most);
            }
            path
        };
        let stream = 2 * u32::try_from(turn).unwrap() + 1;
        let cut = below(fields.len());
        client.send(frame(HEADERS, END_STREAM, stream, &fields[..cut]));
        client.send(frame(CONTINUATION, END_HEADERS, stream, &fields[cut..]));
        client.expect(stream, &path[3..]);
    }
    assert!(referred > 20, "to {referred} of before a move");
    assert!(!world.log().contains(" stayed ("), "all moved");
    drop(client);
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
                    client.arrives(); // or it has come back
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
    drop(client);
    world.wait_for_log("1 stayed (off: 1)");
    assert_eq!(world.end_of(old), End::Exited(0));
    world.stop();
}
