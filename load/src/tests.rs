//! The client is the judge, so it is judged first: servers that are bad in one way each.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n42\n";
const OK_LAST: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\n42\n";

/// Accepts connections one after the other and lets `serve` treat each.
async fn server<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for n in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream, n).await;
        }
    });
    address
}

/// Reads until a head is complete; false when the client closed.
async fn read_head(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) => seen.push(byte[0]),
            _ => return false,
        }
    }
    true
}

fn client(address: SocketAddr) -> (Client, Arc<Stats>) {
    let stats = Arc::new(Stats::default());
    (Client::new(Kind::KeepAlive, Target::tcp(address), Arc::clone(&stats), Duration::from_secs(10)), stats)
}

/// One request on a new connection, and the causes counted for it.
async fn causes(address: SocketAddr) -> Vec<Cause> {
    let (mut client, stats) = client(address);
    assert_eq!(client.ask(Ask::get("/pid", Expect::Pid)).await, None);
    let summary = stats.summary();
    assert_eq!((summary.total.requests(), summary.total.lost), (1, 1));
    summary.lost.into_keys().map(|(_, cause)| cause).collect()
}

#[tokio::test]
async fn a_good_server_loses_nothing() {
    let address = server(async |mut stream, _| {
        while read_head(&mut stream).await {
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    let (mut client, stats) = client(address);
    for _ in 0..5 {
        assert_eq!(client.ask(Ask::get("/pid", Expect::Pid)).await, Some(42));
    }
    let total = stats.summary().total;
    assert_eq!((total.answered, total.lost, total.idle_closed), (5, 0, 0));
}

#[tokio::test]
async fn an_announced_close_is_no_loss() {
    let address = server(async |mut stream, _| {
        assert!(read_head(&mut stream).await);
        stream.write_all(OK_LAST).await.unwrap();
    })
    .await;
    let (mut client, stats) = client(address);
    for _ in 0..5 {
        assert_eq!(client.ask(Ask::get("/pid", Expect::Pid)).await, Some(42));
        client.idle(Duration::from_millis(1)).await;
    }
    let total = stats.summary().total;
    assert_eq!((total.answered, total.lost, total.idle_closed), (5, 0, 0));
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closed_is_there_again_at_the_next_reload() {
    let address = server(async |mut stream, _| {
        if read_head(&mut stream).await {
            stream.write_all(OK).await.unwrap();
        }
    })
    .await;
    let (stats, conductor) = (Arc::new(Stats::default()), Conductor::default());
    let (target, plan) = (Target::tcp(address), Arc::new(Plan::example()));
    let mut clients = start(&[(Kind::Idle, 1)], &target, &plan, &stats, 1, &conductor.signals());
    let closed = async {
        while stats.summary().total.idle_closed < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        conductor.stop();
        while clients.join_next().await.is_some() {}
    };
    tokio::time::timeout(Duration::from_secs(30), closed).await.unwrap();
    assert_eq!(stats.summary().total.lost, 0);
}

#[tokio::test]
async fn an_idle_close_that_the_client_saw_is_no_loss_but_is_counted() {
    let address = server(async |mut stream, _| {
        assert!(read_head(&mut stream).await);
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let (mut client, stats) = client(address);
    assert_eq!(client.ask(Ask::get("/pid", Expect::Pid)).await, Some(42));
    client.idle(Duration::from_millis(300)).await;
    assert_eq!(client.ask(Ask::get("/pid", Expect::Pid)).await, Some(42));
    let total = stats.summary().total;
    assert_eq!((total.answered, total.lost, total.idle_closed), (2, 0, 1));
}

#[tokio::test]
async fn a_request_into_an_unannounced_close_is_lost() {
    // Answers once and closes when the second request is on its way: what a server does that closes
    // idle connections at once.
    let address = server(async |mut stream, _| {
        assert!(read_head(&mut stream).await);
        stream.write_all(OK).await.unwrap();
        assert!(read_head(&mut stream).await);
    })
    .await;
    let (mut client, stats) = client(address);
    assert_eq!(client.ask(Ask::get("/pid", Expect::Pid)).await, Some(42));
    assert_eq!(client.ask(Ask::get("/pid", Expect::Pid)).await, None);
    let summary = stats.summary();
    assert_eq!(summary.lost.into_keys().collect::<Vec<_>>(), [(Kind::KeepAlive, Cause::Closed)]);
    assert_eq!(summary.total.answered, 1);
}

#[tokio::test]
async fn a_dropped_request_is_lost() {
    let address = server(async |mut stream, _| assert!(read_head(&mut stream).await)).await;
    assert_eq!(causes(address).await, [Cause::Closed]);
}

#[tokio::test]
async fn a_connection_reset_before_it_was_read_is_lost() {
    // Unread bytes at the close make the kernel send a reset.
    let address = server(async |stream, _| stream.readable().await.unwrap()).await;
    assert_eq!(causes(address).await, [Cause::Reset]);
}

#[tokio::test]
async fn a_truncated_answer_is_lost() {
    let address = server(async |mut stream, _| {
        assert!(read_head(&mut stream).await);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 300\r\n\r\n42\n").await.unwrap();
    })
    .await;
    assert_eq!(causes(address).await, [Cause::Truncated]);
}

#[tokio::test]
async fn a_refused_connection_is_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(causes(address).await, [Cause::Refused]);
}

#[tokio::test]
async fn errors_and_wrong_content_are_lost() {
    for (answer, cause) in [
        (&b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\n42\n"[..], Cause::Status),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nno\n", Cause::WrongBody),
        (b"HTTP/1.1 200 OK\r\n\r\n42\n", Cause::Malformed),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n42\nmore", Cause::Unasked),
    ] {
        let address = server(async move |mut stream, _| {
            assert!(read_head(&mut stream).await);
            stream.write_all(answer).await.unwrap();
        })
        .await;
        assert_eq!(causes(address).await, [cause]);
    }
}

#[tokio::test(start_paused = true)]
async fn no_answer_in_time_is_lost() {
    let address = server(async |mut stream, _| {
        assert!(read_head(&mut stream).await);
        std::future::pending().await
    })
    .await;
    assert_eq!(causes(address).await, [Cause::Timeout]);
}

#[tokio::test]
async fn a_wrong_digest_is_lost() {
    let address = server(async |mut stream, _| {
        assert!(read_head(&mut stream).await);
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let (mut client, stats) = client(address);
    let ask = Ask::get("/pid", Expect::Exactly((*b"43\n").into()));
    client.ask(ask).await;
    assert_eq!(stats.summary().lost.into_keys().collect::<Vec<_>>(), [(Kind::KeepAlive, Cause::WrongBody)]);
}

/// Each connection has one answer. The first one is closed as announced, the third one with a
/// second request under way, all others without a word.
#[tokio::test]
async fn closes_are_laid_to_what_happened_last_and_what_is_opened_anew_to_the_same() {
    let address = server(async |mut stream, n| {
        assert!(read_head(&mut stream).await);
        stream.write_all(if n == 0 { OK_LAST } else { OK }).await.unwrap();
        if n == 2 {
            assert!(read_head(&mut stream).await);
        }
    })
    .await;
    let (mut client, stats) = client(address);
    let ask = || Ask::get("/pid", Expect::Pid);
    let never = Duration::from_secs(3600);
    assert_eq!(client.ask(ask()).await, Some(42));
    stats.closes_are_laid_to(Since::Reload(1));
    assert_eq!(client.ask(ask()).await, Some(42));
    client.idle_until_closed(never).await;
    stats.closes_are_laid_to(Since::Reload(2));
    assert_eq!(client.ask(ask()).await, Some(42));
    assert_eq!(client.ask(ask()).await, None);
    stats.closes_are_laid_to(Since::Kill);
    assert_eq!(client.ask(ask()).await, Some(42));
    client.idle_until_closed(never).await;
    assert_eq!(client.ask(ask()).await, Some(42));
    let total = stats.summary().total;
    assert_eq!(total.turnover, Turnover { closed: 3, unannounced: 2, opened_anew: 3 });
    assert_eq!((total.closed_by_kill, total.announced, total.idle_closed, total.lost), (1, 1, 2, 1));
    let one = Turnover { closed: 1, unannounced: 1, opened_anew: 1 };
    assert_eq!(stats.turnovers(), BTreeMap::from([(1, one), (2, one)]));
}

#[tokio::test]
async fn what_the_client_ends_is_not_closed_by_the_server() {
    let address = server(async |mut stream, _| {
        assert!(read_head(&mut stream).await);
        stream.write_all(OK_LAST).await.unwrap();
    })
    .await;
    for kind in [Kind::Fresh, Kind::Late] {
        let stats = Arc::new(Stats::default());
        let mut client = Client::new(kind, Target::tcp(address), Arc::clone(&stats), Duration::from_secs(10));
        for _ in 0..3 {
            assert_eq!(client.ask(Ask::get("/pid", Expect::Pid)).await, Some(42));
        }
        assert_eq!(stats.summary().total.turnover, Turnover::default(), "{kind}");
    }
    // It asked for the close.
    let (mut client, stats) = client(address);
    client.ask(Ask::get("/pid", Expect::Pid).closing()).await;
    // It did not like the answer.
    client.ask(Ask::get("/pid", Expect::Exactly((*b"43\n").into()))).await;
    let total = stats.summary().total;
    assert_eq!((total.turnover, total.lost), (Turnover::default(), 1));
}

/// The first request of each comes long before its cadence says.
#[tokio::test]
async fn a_long_cadence_keeps_nobody_away_at_the_beginning() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::tcp(listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                while read_head(&mut stream).await {
                    stream.write_all(OK).await.unwrap();
                }
            });
        }
    });
    let hour = Duration::from_secs(3600);
    let (stats, conductor) = (Arc::new(Stats::default()), Conductor::default());
    let plan = Arc::new(Plan { cadence: hour..hour * 2, ..Plan::example() });
    let mut clients = start(&[(Kind::KeepAlive, 20)], &target, &plan, &stats, 1, &conductor.signals());
    let all = async {
        while stats.summary().total.answered < 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        conductor.stop();
        while clients.join_next().await.is_some() {}
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
    // One each at the beginning, and at most one each at the end.
    let total = stats.summary().total;
    assert!((20..=40).contains(&total.answered) && total.lost == 0, "{total:?}");
}
