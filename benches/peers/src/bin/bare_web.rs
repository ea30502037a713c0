//! hyper's graceful shutdown at SIGTERM, and nothing else.

use hyper_util::server::graceful::GracefulShutdown;
use tokio::signal::unix::{SignalKind, signal};

fn main() {
    let listener = peers::inherited();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let mut terminated = signal(SignalKind::terminate()).unwrap();
        let graceful = GracefulShutdown::new();
        loop {
            tokio::select! {
                _ = terminated.recv() => break,
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    peers::serve(stream, &graceful);
                }
            }
        }
        drop(listener);
        peers::drain(graceful).await;
    });
}
