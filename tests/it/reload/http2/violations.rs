//! What a client must not send, before a move and after.

use std::io::{Read as _, Write as _};

use handover_testing::processes::End;

use super::raw::{
    ACK, CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, POST, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame, get, window_update,
};
use super::world;
use crate::moved::more;

/// What a server has to answer to what a client must not send, or need not: the cases of h2spec
/// that do not begin with the preface.
type Violation = (&'static str, fn(u32) -> Vec<u8>);

fn post(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(POST, "/up/body"))
}

fn with_header(stream: u32, header: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &[&block(GET, "/n/x")[..], header].concat())
}

fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).unwrap();
    [&[0, length(name)][..], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

fn setting(key: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&key.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

const PADDED: u8 = 8;
const PRIORITY_FLAG: u8 = 0x20;
const PRIORITY: u8 = 2;

const VIOLATIONS: &[Violation] = &[
    ("4.1 unknown type", |_| frame(0x16, 0, 0, b"12345678")),
    ("4.1 undefined flags", |_| frame(PING, 0x16, 0, b"12345678")),
    ("4.1 reserved bit", |_| frame(PING, 0, 1 << 31, b"12345678")),
    ("4.2 DATA too large", |id| [post(id), frame(DATA, END_STREAM, id, &[0; 16_385])].concat()),
    ("4.2 HEADERS too large", |id| frame(HEADERS, END_STREAM | END_HEADERS, id, &[0x40; 16_385])),
    ("4.3 no header block", |id| frame(HEADERS, END_STREAM | END_HEADERS, id, &[0x40])),
    ("4.3 PRIORITY within a block", |id| {
        [frame(HEADERS, END_STREAM, id, &block(GET, "/n/x")), frame(PRIORITY, 0, id, &[0, 0, 0, 0, 1])].concat()
    }),
    ("4.3 another stream within a block", |id| {
        [frame(HEADERS, END_STREAM, id, &block(GET, "/n/x")), get(id + 2, "/n/y")].concat()
    }),
    ("5.1 idle: DATA", |id| frame(DATA, END_STREAM, id, b"x")),
    ("5.1 idle: RST_STREAM", |id| frame(RST_STREAM, 0, id, &[0; 4])),
    ("5.1 idle: WINDOW_UPDATE", |id| window_update(id, 100)),
    ("5.1 idle: CONTINUATION", |id| frame(CONTINUATION, END_HEADERS, id, &block(GET, "/n/x"))),
    ("5.1 half closed: DATA", |id| [get(id, "/slow/v"), frame(DATA, END_STREAM, id, b"x")].concat()),
    ("5.1 half closed: HEADERS", |id| [get(id, "/slow/v"), get(id, "/slow/v")].concat()),
    ("5.1 half closed: CONTINUATION", |id| {
        [get(id, "/slow/v"), frame(CONTINUATION, END_HEADERS, id, &block(GET, "/n/x"))].concat()
    }),
    ("5.1 closed: DATA", |id| [post(id), frame(RST_STREAM, 0, id, &[0; 4]), frame(DATA, 1, id, b"x")].concat()),
    ("5.1 closed: HEADERS", |id| [post(id), frame(RST_STREAM, 0, id, &[0; 4]), get(id, "/n/x")].concat()),
    ("5.1.1 even", |id| get(id + 1, "/n/x")),
    ("5.1.1 smaller", |id| [get(id + 4, "/n/x"), get(id + 2, "/n/y")].concat()),
    ("5.3.1 depends on itself", |id| {
        let priority = [&id.to_be_bytes()[..], &[1], &block(GET, "/n/x")].concat();
        frame(HEADERS, END_STREAM | END_HEADERS | PRIORITY_FLAG, id, &priority)
    }),
    ("5.3.1 PRIORITY on itself", |id| frame(PRIORITY, 0, id, &[&id.to_be_bytes()[..], &[1]].concat())),
    ("6.1 DATA on 0", |_| frame(DATA, END_STREAM, 0, b"x")),
    ("6.1 padding", |id| [post(id), frame(DATA, END_STREAM | PADDED, id, &[6, b'x'])].concat()),
    ("6.1 padded", |id| [post(id), frame(DATA, END_STREAM | PADDED, id, &[2, b'x', 0, 0])].concat()),
    ("6.2 HEADERS on 0", |_| get(0, "/n/x")),
    ("6.2 padding", |id| frame(HEADERS, END_STREAM | END_HEADERS | PADDED, id, &[200, 0x82])),
    ("6.3 PRIORITY on 0", |_| frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1])),
    ("6.3 PRIORITY of 4", |id| frame(PRIORITY, 0, id, &[0; 4])),
    ("6.4 RST_STREAM on 0", |_| frame(RST_STREAM, 0, 0, &[0; 4])),
    ("6.4 RST_STREAM of 3", |id| [post(id), frame(RST_STREAM, 0, id, &[0; 3])].concat()),
    ("6.5 SETTINGS ACK with more", |_| frame(SETTINGS, ACK, 0, &[0])),
    ("6.5 an ACK too many", |_| frame(SETTINGS, ACK, 0, &[])),
    ("6.5 SETTINGS on a stream", |id| frame(SETTINGS, 0, id, &[0, 3, 0, 0, 0, 100])),
    ("6.5 SETTINGS of 3", |_| frame(SETTINGS, 0, 0, &[0, 3, 0])),
    ("6.5.2 ENABLE_PUSH", |_| setting(2, 2)),
    ("6.5.2 INITIAL_WINDOW_SIZE", |_| setting(4, 1 << 31)),
    ("6.5.2 MAX_FRAME_SIZE below", |_| setting(5, 16_383)),
    ("6.5.2 MAX_FRAME_SIZE above", |_| setting(5, 1 << 24)),
    ("6.5.2 unknown", |_| setting(0xff, 1)),
    ("6.7 PING ACK", |_| frame(PING, ACK, 0, b"invalid!")),
    ("6.7 PING on a stream", |id| frame(PING, 0, id, b"12345678")),
    ("6.7 PING of 6", |_| frame(PING, 0, 0, b"123456")),
    ("6.8 GOAWAY on a stream", |id| frame(GOAWAY, 0, id, &[0; 8])),
    ("6.9 WINDOW_UPDATE by 0", |_| window_update(0, 0)),
    ("6.9 by 0 on a stream", |id| [post(id), window_update(id, 0)].concat()),
    ("6.9 WINDOW_UPDATE of 3", |_| frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
    ("6.9.1 too much", |_| window_update(0, (1 << 31) - 1)),
    ("6.9.1 too much on a stream", |id| [post(id), window_update(id, (1 << 31) - 1)].concat()),
    ("6.9.2 setting", |id| [get(id, "/bytes/9"), setting(4, 1)].concat()),
    ("6.10 CONTINUATION twice", |id| [get(id, "/slow/v"), frame(CONTINUATION, END_HEADERS, id, b"x")].concat()),
    ("6.10 CONTINUATION on 0", |id| {
        [frame(HEADERS, END_STREAM, id, &block(GET, "/n/x")), frame(CONTINUATION, END_HEADERS, 0, b"x")].concat()
    }),
    ("8.1 trailers without an end", |id| [post(id), frame(HEADERS, END_HEADERS, id, &literal("x", "y"))].concat()),
    ("8.1.2 capitals", |id| with_header(id, &literal("X-Test", "ok"))),
    ("8.1.2 unknown pseudo-header", |id| with_header(id, &literal(":test", "ok"))),
    ("8.1.2 pseudo-header of an answer", |id| with_header(id, &literal(":status", "200"))),
    ("8.1.2 pseudo-header twice", |id| with_header(id, &literal(":path", "/"))),
    ("8.1.2 connection", |id| with_header(id, &literal("connection", "keep-alive"))),
    ("8.1.2 te", |id| with_header(id, &literal("te", "trailers, deflate"))),
    ("8.1.2 no path", |id| frame(HEADERS, END_STREAM | END_HEADERS, id, &[0x82, 0x86])),
    ("8.1.2.6 content-length", |id| {
        let head = [&block(POST, "/up/x")[..], &literal("content-length", "1")].concat();
        [frame(HEADERS, END_HEADERS, id, &head), frame(DATA, END_STREAM, id, b"test")].concat()
    }),
    ("8.2 PUSH_PROMISE", |id| frame(5, END_HEADERS, id, &[0, 0, 0, 2, 0x82])),
];

/// What comes back: of each frame what it is, and its error, until two pings are answered or the
/// connection is closed.
fn outcome(client: &mut Client, bytes: &[u8]) -> Vec<String> {
    let (mut got, mut pongs) = (Vec::new(), 0);
    if client.stream.write_all(&[bytes, &frame(PING, 0, 0, b"barrier.")].concat()).is_err() {
        got.push("closed".to_owned());
    }
    loop {
        let mut head = [0; 9];
        if client.stream.read_exact(&mut head).is_err() {
            got.push("closed".to_owned());
            break;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        client.stream.read_exact(&mut payload).unwrap();
        match head[3] {
            PING if payload == b"barrier." => {
                pongs += 1;
                if pongs == 2 {
                    break;
                }
                client.send(frame(PING, 0, 0, b"barrier."));
            }
            // those of a fresh connection come at any time
            SETTINGS | WINDOW_UPDATE => {
                if (head[3], head[4]) == (SETTINGS, 0) {
                    let _ = client.stream.write_all(&frame(SETTINGS, ACK, 0, &[]));
                }
            }
            GOAWAY => got.push(format!("GOAWAY {}", payload[7])),
            RST_STREAM => got.push(format!("RST_STREAM {}", payload[3])),
            kind => got.push(format!("{kind} {}", head[4])),
        }
    }
    got.sort();
    got
}

/// They are answered as without the layer, before a move and after.
pub(super) fn what_must_not_be_is_answered_alike() {
    let (mut world, address, mut old) = world(|more| more.http2 = false);
    let open = |id| {
        let mut client = Client::new(address, &[]);
        client.ask(id, "/n/first", "first");
        client
    };
    // all settings are acknowledged before a violation
    let run = |client: &mut Client, (name, violation): &Violation| {
        client.ask(5, "/n/5", "5");
        (*name, outcome(client, &violation(7)))
    };
    let plain: Vec<_> = VIOLATIONS.iter().map(|violation| run(&mut open(3), violation)).collect();
    more(&mut world, |_| {});
    let second = world.reload_to(2).pid;
    assert_eq!(world.end_of(old), End::Exited(0));
    old = second;
    let followed: Vec<_> = VIOLATIONS.iter().map(|violation| run(&mut open(3), violation)).collect();
    let mut moving: Vec<_> = VIOLATIONS.iter().map(|_| open(3)).collect();
    world.reload_to(3);
    assert_eq!(world.end_of(old), End::Exited(0));
    // until the fresh one's settings are there, and acknowledged
    moving.iter_mut().for_each(Client::arrives);
    let moved: Vec<_> = moving.iter_mut().zip(VIOLATIONS).map(|(client, violation)| run(client, violation)).collect();
    let alike = |others: &[(&str, Vec<String>)]| {
        let differ: Vec<_> = plain.iter().zip(others).filter(|(plain, other)| plain != other).collect();
        assert!(differ.is_empty(), "{differ:#?}");
    };
    alike(&followed);
    alike(&moved);
    println!("{} cases are answered as without the layer, and {} after a move", followed.len(), moved.len());
    drop(moving);
    world.stop();
}
