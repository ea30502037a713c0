//! axum's own `serve`.

use axum::http::header::{CONNECTION, HeaderValue};
use axum::middleware::map_response;
use axum::response::Response;
use axum::{Router, routing::get};
use handover::Service;
use handover::drain::Incoming;

pub fn router(hello: String) -> Router {
    Router::new().route("/", get(async || hello))
}

pub fn serve(service: &Service, hello: String) -> handover::Result<()> {
    let drain = service.drain();
    for listener in service.listeners("http")? {
        let begun = drain.signal();
        let close = map_response(move |mut response: Response| {
            if begun.has_begun() {
                // the client's next request is for the next generation
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            async { response }
        });
        let incoming = Incoming::new(drain, "http", listener);
        let server = axum::serve(incoming, router(hello.clone()).layer(close));
        let server = server.with_graceful_shutdown(drain.lingered());
        tokio::spawn(async { crate::told("axum", server.await) });
    }
    Ok(())
}
