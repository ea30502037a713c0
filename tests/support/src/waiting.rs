//! Waiting in asynchronous tests: for an event, with a deadline.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A test that waits longer than this for anything has failed.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// As much as passes in a [`moment`], by the clock of the runtime.
const MOMENT: Duration = Duration::from_millis(100);
/// The number of times that a fence's byte goes there and back: an event may need several turns of
/// the reactor to have its consequences, as each task that it wakes may wake another one.
const TRIPS: usize = 8;

pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited too long: {what}"),
    }
}

/// Waits, without a fixed sleep, for something that has no event of its own.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    within(what, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Lets the time pass on a clock that does not wait: whatever the runtime would do in this time it
/// does at once, in the right order. It is for a runtime of one thread, and for one task at a time.
pub async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::sleep(time).await;
    tokio::time::resume();
}

/// Lets happen what would have happened by now, so that a test can look for what must not.
///
/// It is a fence and no sleep: a byte on a connection of its own goes there and back, so that the
/// reactor has told each task what the kernel knew before, and the tasks have done what they do
/// then. Between two fences a tenth of a second [passes](pass), for what would wait for a timer. It
/// sees what the runtime itself serves, and nothing that another thread does.
pub async fn moment() {
    fence().await;
    pass(MOMENT).await;
    fence().await;
}

/// Panics if the future resolves in a [`moment`].
pub async fn never<F: Future>(what: &str, future: F) {
    tokio::select! {
        biased;
        _ = future => panic!("it must not happen: {what}"),
        () = moment() => {}
    }
}

async fn fence() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut there = TcpStream::connect(listener.local_addr().expect("its port")).await.expect("a connection");
    let (mut back, _) = listener.accept().await.expect("the same connection");
    // Its port is free at once.
    there.set_zero_linger().expect("an end by a reset");
    let echo = tokio::spawn(async move {
        while let Ok(byte) = back.read_u8().await {
            back.write_u8(byte).await.expect("an echo is sent");
        }
    });
    for _ in 0..TRIPS {
        within("the fence", async {
            there.write_u8(0).await.expect("a byte is sent");
            there.read_u8().await.expect("it comes back");
        })
        .await;
    }
    drop(there);
    within("the end of the fence", echo).await.expect("no panic");
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A chain of a connection, a task, an answer, a timer.
    #[tokio::test]
    async fn a_moment_is_long_enough() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_u8(7).await.unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&done);
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let byte = tokio::spawn(async move { stream.read_u8().await.unwrap() }).await.unwrap();
            tokio::time::sleep(MOMENT / 2).await;
            count.fetch_add(byte.into(), Ordering::SeqCst);
        });
        moment().await;
        assert_eq!(done.load(Ordering::SeqCst), 7);
    }

    #[tokio::test]
    #[should_panic(expected = "it must not happen: a timer")]
    async fn what_must_not_happen_is_seen() {
        never("a timer", tokio::time::sleep(MOMENT / 2)).await;
    }

    #[tokio::test]
    async fn time_passes_for_the_runtime_alone() {
        let (real, began) = (std::time::Instant::now(), tokio::time::Instant::now());
        pass(DEADLINE * 100).await;
        assert!(began.elapsed() >= DEADLINE * 100 && real.elapsed() < DEADLINE);
        within("the clock goes again", tokio::time::sleep(Duration::from_millis(1))).await;
    }
}
