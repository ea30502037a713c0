//! hello: a web service whose reloads no client sees.

use axum::{Router, routing::get};
use std::time::Duration;

#[tokio::main]
async fn main() -> handover::Result<()> {
    handover::logging::init()?; // journald's fields under systemd, text elsewhere
    let router = Router::new().route("/", get(|| async { "hello\n" }));
    let service = handover::Service::builder()
        .listen("http", "127.0.0.1:8080") // the name in hello.socket; the address only without systemd
        .drain_timeout(Duration::from_secs(30))
        .ready_timeout(Duration::from_secs(30))
        .start()?;
    service.serve_http("http", router)?;
    service.run().await // ready, watchdog, SIGHUP → reload, SIGTERM → stop
}
