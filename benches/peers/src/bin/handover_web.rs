//! SIGHUP: the next generation.

use handover::http::HyperService;
use hyper::service::service_fn;

fn main() -> handover::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let builder =
            handover::Service::builder().settings(handover::Settings::from_env()?).listen("http", peers::address());
        let service = builder.drain_timeout(peers::DRAIN).start()?;
        service.serve_http("http", HyperService(service_fn(peers::answer)))?;
        service.run().await
    })
}
