//! Any valid pipelined byte stream, cut anywhere, with a drain beginning anywhere in it.

use crate::support::{LINGER, Reply, Server};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

#[derive(Debug, Clone)]
enum Message {
    Get,
    Sized(usize),
    Chunked(Vec<usize>),
}

impl Message {
    fn bytes(&self, at: usize) -> Vec<u8> {
        match self {
            Self::Get => format!("GET /{at} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes(),
            Self::Sized(length) => {
                let head = format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n");
                [head.into_bytes(), body(*length, at)].concat()
            }
            Self::Chunked(lengths) => {
                let mut bytes = b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for length in lengths {
                    bytes.extend(format!("{length:x}\r\n").bytes());
                    bytes.extend(body(*length, at));
                    bytes.extend(b"\r\n");
                }
                bytes.extend(b"0\r\n\r\n");
                bytes
            }
        }
    }

    fn answer(&self, at: usize) -> String {
        match self {
            Self::Get => format!("/{at}"),
            Self::Sized(length) => String::from_utf8(body(*length, at)).unwrap(),
            Self::Chunked(lengths) => String::from_utf8(body(lengths.iter().sum(), at)).unwrap(),
        }
    }
}

/// Bytes that look like framing, to be mistaken for it; all alike, so that chunks add up.
fn body(length: usize, at: usize) -> Vec<u8> {
    vec![if at.is_multiple_of(2) { b'\n' } else { b'0' }; length]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        Just(Message::Get),
        (0..300_usize).prop_map(Message::Sized),
        prop::collection::vec(1..200_usize, 0..4).prop_map(Message::Chunked),
    ]
}

#[derive(Debug, Clone)]
struct Case {
    messages: Vec<Message>,
    /// Where to cut, and whether the server gets to run there.
    cuts: Vec<(prop::sample::Index, bool)>,
    /// After which piece the drain begins; never after the last.
    begin: prop::sample::Index,
}

fn case() -> impl Strategy<Value = Case> {
    let cut = (any::<prop::sample::Index>(), any::<bool>());
    (prop::collection::vec(message(), 1..7), prop::collection::vec(cut, 1..12), any::<prop::sample::Index>())
        .prop_map(|(messages, cuts, begin)| Case { messages, cuts, begin })
}

async fn run(case: Case) {
    let server = Server::ours();
    let mut client = server.client().await;
    let messages: Vec<_> = case.messages.iter().enumerate().map(|(at, m)| m.bytes(at)).collect();
    let ends: Vec<_> = messages
        .iter()
        .scan(0, |end, m| {
            *end += m.len();
            Some(*end)
        })
        .collect();
    let stream = messages.concat();
    let mut cuts: Vec<_> = case.cuts.iter().map(|(cut, pause)| (cut.index(stream.len()), *pause)).collect();
    cuts.sort_unstable();
    let begin = case.begin.index(cuts.len());

    let mut sent = 0;
    let mut sent_before = 0;
    for (piece, (cut, pause)) in cuts.into_iter().enumerate() {
        client.try_send(&stream[sent..cut]).await;
        sent = cut;
        if pause {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        if piece == begin {
            sent_before = sent;
            server.begin(LINGER).await;
        }
    }
    client.try_send(&stream[sent..]).await;

    let mut answered = 0;
    let mut closed = false;
    while !closed {
        assert!(answered < messages.len(), "no reply said close");
        let Some(reply) = client.reply().await else { panic!("reply {answered} is missing") };
        let expected = case.messages[answered].answer(answered);
        closed = reply.close;
        assert_eq!(reply, Reply { close: closed, ..Reply::ok(&expected) }, "reply {answered}");
        answered += 1;
    }
    client.closed().await;
    // whatever had arrived when the drain began, wholly or in part, and one more if nothing had
    let owed = ends.iter().position(|&end| end >= sent_before).map_or(ends.len(), |at| at + 1);
    assert!(answered >= owed, "{answered} answered, {owed} owed");
    drop(client);
    server.drained().await;
}

#[test]
fn all_that_was_received_is_answered_in_order_and_only_the_last_says_close() {
    let config = Config {
        cases: 400,
        rng_seed: RngSeed::Fixed(2),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    TestRunner::new(config)
        .run(&case(), |case| {
            runtime.block_on(run(case));
            Ok(())
        })
        .unwrap();
}
