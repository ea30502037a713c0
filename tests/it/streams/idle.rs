//! A stream on which nothing moves for too long; time is simulated.

use std::io;
use std::time::Duration;

use handover::drain::IdleTimeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy, duplex, split};
use tokio::time::{Instant, sleep};

const LIMIT: Duration = Duration::from_secs(60);

fn limited() -> (IdleTimeout<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(16);
    (IdleTimeout::new(ours, LIMIT), theirs)
}

fn timed_out<T: std::fmt::Debug>(result: io::Result<T>) -> bool {
    result.is_err_and(|e| e.kind() == io::ErrorKind::TimedOut && e.to_string().contains("for 60s"))
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_an_error_in_time() {
    let (mut stream, mut client) = limited();
    let began = Instant::now();
    client.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    assert!(timed_out(stream.read_u8().await));
    assert!(began.elapsed() >= LIMIT && began.elapsed() < LIMIT * 2);
}

#[tokio::test(start_paused = true)]
async fn what_moves_in_either_direction_counts() {
    let (stream, mut client) = limited();
    let (mut from, mut to) = split(stream);
    let began = Instant::now();
    // Each half in a task of its own: whichever polls last must not take the other one's timer.
    let read = tokio::spawn(async move { from.read_u8().await });
    for _ in 0..10 {
        sleep(LIMIT / 2).await;
        to.write_all(b"x").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
    }
    assert!(timed_out(read.await.unwrap()));
    assert!(began.elapsed() >= LIMIT * 6 && began.elapsed() < LIMIT * 7);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_silent_too() {
    let (mut stream, _client) = limited();
    assert!(timed_out(stream.write_all(&[0; 17]).await));
}

#[tokio::test(start_paused = true)]
async fn time_that_the_handler_takes_does_not_count() {
    let (mut stream, mut client) = limited();
    sleep(LIMIT * 3).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_only_flushes_is_idle() {
    let (stream, _client) = limited();
    let (mut from, mut to) = split(stream);
    let mut echo = std::pin::pin!(copy(&mut from, &mut to));
    let began = Instant::now();
    let ended = loop {
        tokio::select! {
            biased;
            // Polled again and again, as beside a busy branch.
            ended = &mut echo => break ended,
            () = sleep(Duration::from_secs(1)) => {}
        }
    };
    assert!(timed_out(ended));
    assert!(began.elapsed() < LIMIT * 2);
}

#[tokio::test(start_paused = true)]
async fn a_time_without_end_is_no_limit() {
    let (ours, mut client) = duplex(16);
    let mut stream = IdleTimeout::new(ours, Duration::MAX);
    let read = tokio::spawn(async move { stream.read_u8().await });
    sleep(LIMIT * 1000).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(read.await.unwrap().unwrap(), b'x');
}
