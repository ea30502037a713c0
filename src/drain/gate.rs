//! Whose turn it is, for servers with accept loops of their own.

use super::core::Phase;
use super::handle::Drain;
use std::future::Future;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// It is this generation's turn to accept; see [`Drain::turn`].
#[derive(Debug)]
pub struct OpenGate {
    gate: watch::Receiver<bool>,
}

impl OpenGate {
    /// Resolves when the turn is over: the gate is shut, or the drain has begun.
    ///
    /// # Cancel safety
    /// It may be dropped and called again.
    pub async fn shut(&mut self) {
        // without a drain there is no turn
        let _ = self.gate.wait_for(|open| !open).await;
    }
}

impl Drain {
    /// Resolves when it is this generation's turn to accept, and with `None` once the drain has
    /// begun: there is no other turn then.
    ///
    /// A server that is given a socket accepts from it at once, and so beside the generation that
    /// serves, before anybody knows whether this one will. So wait first, and stop accepting when
    /// [the gate is shut](OpenGate::shut); after a reload that fails late there may be another
    /// turn. Where a loop takes connections one by one, an [`Incoming`](super::Incoming) does both.
    ///
    /// ```no_run
    /// # struct Server;
    /// # impl Server { async fn resume(&self) {} async fn pause(&self) {} async fn stop(&self) {} }
    /// # async fn example(service: &handover::Service, server: Server) {
    /// let drain = service.drain().clone();
    /// tokio::spawn(async move {
    ///     while let Some(mut gate) = drain.turn().await {
    ///         server.resume().await;
    ///         gate.shut().await;
    ///         server.pause().await;
    ///     }
    ///     drain.lingered().await;
    ///     server.stop().await; // gracefully
    /// });
    /// # }
    /// ```
    pub fn turn(&self) -> impl Future<Output = Option<OpenGate>> + Send + 'static {
        let drain = self.clone();
        async move {
            let mut gate = drain.gate();
            loop {
                if drain.phase() != Phase::Open {
                    return None;
                }
                if *gate.borrow_and_update() {
                    return Some(OpenGate { gate });
                }
                // the beginning of the drain changes it, too; the sender lives in `drain`
                let _ = gate.changed().await;
            }
        }
    }

    /// Resolves when the linger is over: nobody who had been idle until then is waited for any
    /// longer. It is the moment to tell a server of somebody else's to stop gracefully, as most
    /// then close idle connections at once.
    pub fn lingered(&self) -> impl Future<Output = ()> + Send + 'static {
        let drain = self.clone();
        async move {
            drain.signal().await;
            let begun = drain.core.begun.get().map_or_else(Instant::now, |begun| begun.at);
            loop {
                let hurried = drain.core.stepped.notified();
                tokio::pin!(hurried);
                hurried.as_mut().enable();
                let end = drain.linger_end(begun);
                if drain.phase() == Phase::Hammered || end <= Instant::now() {
                    return;
                }
                tokio::select! {
                    () = sleep_until(end) => {}
                    () = hurried => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::HURRY_LINGER;
    use std::time::Duration;
    use tokio::time::timeout;

    const LINGER: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_turn_comes_goes_and_comes_again() {
        let drain = Drain::new();
        assert!(timeout(LINGER, drain.turn()).await.is_err(), "the gate is shut");
        let waiting = tokio::spawn(drain.turn());
        drain.accept(true);
        let mut gate = timeout(LINGER, waiting).await.unwrap().unwrap().unwrap();
        assert!(timeout(LINGER, gate.shut()).await.is_err(), "it is open");
        drain.accept(false);
        timeout(LINGER, gate.shut()).await.unwrap();
        let waiting = tokio::spawn(drain.turn());
        drain.accept(true);
        let mut gate = timeout(LINGER, waiting).await.unwrap().unwrap().unwrap();
        drain.begin(LINGER);
        timeout(LINGER, gate.shut()).await.unwrap();
        assert!(timeout(LINGER, drain.turn()).await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_turn_hears_of_the_drain() {
        let drain = Drain::new();
        let waiting = tokio::spawn(drain.turn());
        tokio::task::yield_now().await;
        drain.begin(LINGER);
        assert!(timeout(LINGER, waiting).await.unwrap().unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_linger_is_over_in_time_in_a_hurry_and_by_the_hammer() {
        type Step = fn(&Drain);
        let steps: [(Step, Duration); 3] =
            [(|_| (), LINGER), (Drain::hurry, HURRY_LINGER), (|drain| drop(drain.hammer()), Duration::ZERO)];
        for (step, takes) in steps {
            let drain = Drain::new();
            let lingered = tokio::spawn(drain.lingered());
            tokio::time::sleep(LINGER).await;
            assert!(!lingered.is_finished(), "no drain has begun");
            let begun = Instant::now();
            drain.begin(LINGER);
            tokio::task::yield_now().await;
            step(&drain);
            timeout(LINGER * 2, lingered).await.unwrap().unwrap();
            assert!(begun.elapsed() >= takes && begun.elapsed() < takes + HURRY_LINGER, "{:?}", begun.elapsed());
        }
    }
}
