//! HTTP/2 servers by hand, frame by frame, so that each can be bad in one way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::tool::{kind, lost_only, number, report};

const PREFACE: usize = 24;
const LOAD: [&str; 11] = [
    "--http2",
    "--reloads",
    "0",
    "--every",
    "200ms",
    "--duration",
    "1500ms",
    "--cadence",
    "1ms-3ms",
    "--keep-alive",
    "4",
];

/// What the tenth request on a connection is met with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// A GOAWAY that names it as the last one, and a close without its answer.
    GoAwayAndDrop,
    /// A GOAWAY that names the one before.
    GoAwayBelow,
    /// A GOAWAY that names it, its answer, and a close.
    GoAwayAndAnswer,
    RefuseStream,
    ResetStream,
    Close,
    /// Half of the body, and a close.
    Truncate,
}

async fn serve(act: Act) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let acts = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&acts);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acts = Arc::clone(&counter);
            // A client that ends its connection ends this with an error.
            tokio::spawn(async move { drop(connection(stream, act, &acts).await) });
        }
    });
    (url, acts)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

async fn connection(mut stream: TcpStream, act: Act, acts: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; PREFACE]).await?;
    stream.write_all(&frame(4, 0, 0, &[])).await?;
    let mut requests = 0;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, s1, s2, s3, s4] = head;
        let id = u32::from_be_bytes([s1, s2, s3, s4]);
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
        stream.read_exact(&mut payload).await?;
        match kind {
            4 if flags == 0 => stream.write_all(&frame(4, 1, 0, &[])).await?,
            6 if flags == 0 => stream.write_all(&frame(6, 1, 0, &payload)).await?,
            1 => {
                requests += 1;
                // 0x88: `:status: 200` of the static table.
                let (headers, body) = (frame(1, 4, id, &[0x88]), frame(0, 1, id, b"hello\n"));
                if requests < 10 {
                    stream.write_all(&[headers, body].concat()).await?;
                    continue;
                }
                acts.fetch_add(1, Ordering::SeqCst);
                let goaway = |last: u32| frame(7, 0, 0, &[last.to_be_bytes(), [0; 4]].concat());
                let bytes = match act {
                    Act::GoAwayAndDrop => goaway(id),
                    Act::GoAwayBelow => goaway(id - 2),
                    Act::GoAwayAndAnswer => [goaway(id), headers, body].concat(),
                    Act::RefuseStream => frame(3, 0, id, &7_u32.to_be_bytes()),
                    Act::ResetStream => frame(3, 0, id, &2_u32.to_be_bytes()),
                    Act::Close => return Ok(()),
                    Act::Truncate => [headers, frame(0, 0, id, b"hel")].concat(),
                };
                stream.write_all(&bytes).await?;
                match act {
                    Act::RefuseStream | Act::ResetStream => requests = 0,
                    _ => return Ok(()),
                }
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_up_to_the_last_one_of_a_goaway_must_be_answered() {
    for (act, cause) in
        [(Act::GoAwayAndDrop, "eof"), (Act::Close, "eof"), (Act::ResetStream, "reset"), (Act::Truncate, "truncated")]
    {
        let (url, acts) = serve(act).await;
        let report = report(&url, &LOAD).await;
        assert_eq!(lost_only(&report, cause), acts.load(Ordering::SeqCst), "{act:?} {}", report["losses"]);
        let (acts, closed) = (acts.load(Ordering::SeqCst), number(&kind(&report, "keep-alive")["closed"]));
        assert!(acts > 0, "{act:?}");
        assert_eq!(closed, if act == Act::ResetStream { 0 } else { acts }, "{act:?}: a stream is no connection");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_goaway_announces_is_no_loss() {
    for act in [Act::GoAwayBelow, Act::RefuseStream, Act::GoAwayAndAnswer] {
        let (url, acts) = serve(act).await;
        let report = report(&url, &LOAD).await;
        assert_eq!(report["verdict"], "nothing_lost", "{act:?} {}", report["losses"]);
        let clients = kind(&report, "keep-alive");
        let acts = acts.load(Ordering::SeqCst);
        assert!(acts > 0, "{act:?}");
        let handed_back = if act == Act::GoAwayAndAnswer { 0 } else { acts };
        assert_eq!(number(&clients["handed_back"]), handed_back, "{act:?} {clients}");
        assert_eq!(number(&clients["closes_unannounced"]), 0, "{act:?} {clients}");
        let [closed, unannounced] = ["closed", "closed_unannounced"].map(|of| number(&clients[of]));
        match act {
            Act::RefuseStream => assert_eq!(closed, 0, "{clients}"),
            Act::GoAwayBelow => assert_eq!(closed, acts, "{clients}"),
            // That of the last answers may come when the load has ended.
            _ => assert!(closed <= acts && acts <= closed + 4, "{acts}: {clients}"),
        }
        assert_eq!(unannounced, 0, "{act:?} {clients}");
    }
}
