//! A web service whose counters Prometheus reads at `/metrics`, reloads included: they go on over
//! generations.
//!
//! ```sh
//! cargo run --example metrics --features http,journald,metrics
//! curl http://127.0.0.1:8080/metrics
//! ```

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::error::Error;
use std::time::Duration;

/// Upper ends of the histograms' buckets, in seconds: reloads take milliseconds, drains up to the
/// drain timeout.
const BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// How often the recorder tidies up, as its documentation asks for.
const UPKEEP: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    handover::logging::init()?;
    // before the service starts, or its first counts are missing
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), BUCKETS)?
        .install_recorder()?;
    handover::metrics::describe();
    tokio::spawn(upkeep(recorder.clone()));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let service = handover::Service::builder().listen("http", address).start()?;
    let router = Router::new()
        .route("/pid", get(async || format!("{}\n", std::process::id())))
        .route("/metrics", get(async |State(recorder): State<PrometheusHandle>| recorder.render()))
        .with_state(recorder);
    service.serve_http("http", router)?;
    service.run().await?;
    Ok(())
}

async fn upkeep(recorder: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        recorder.run_upkeep();
    }
}
