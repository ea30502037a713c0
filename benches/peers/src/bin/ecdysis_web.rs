//! SIGHUP: an upgrade.

use ecdysis::tokio_ecdysis::{SignalKind, StopOnShutdown, TokioEcdysisBuilder};
use futures::StreamExt;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::sync::oneshot;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut builder = TokioEcdysisBuilder::new(SignalKind::hangup()).unwrap();
    builder.stop_on_signal(SignalKind::terminate()).unwrap();
    let address = peers::address().parse().unwrap();
    let mut stream = builder.listen_tcp(StopOnShutdown::Yes, address).unwrap();
    let (ended, drained) = oneshot::channel();
    tokio::spawn(async move {
        let graceful = GracefulShutdown::new();
        // ends with the upgrade
        while let Some(accepted) = stream.next().await {
            if let Ok(stream) = accepted {
                peers::serve(stream, &graceful);
            }
        }
        peers::drain(graceful).await;
        let _ = ended.send(());
    });
    let (_ecdysis, upgraded) = builder.ready().unwrap();
    let _ = upgraded.await;
    let _ = drained.await;
}
