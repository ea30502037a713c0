//! tonic's own server. Its GOAWAY tells clients to go; nothing else is needed.

use handover::Service;
use handover::drain::Incoming;
use tonic::service::Routes;
use tonic::transport::Server;

pub fn routes(hello: String) -> Routes {
    // where the gRPC services would be
    Routes::from(crate::axum_serve::router(hello))
}

pub fn serve(service: &Service, hello: String) -> handover::Result<()> {
    let drain = service.drain();
    for listener in service.listeners("http")? {
        let incoming = Incoming::new(drain, "http", listener).into_stream();
        let server = Server::builder().add_routes(routes(hello.clone()));
        let server = server.serve_with_incoming_shutdown(incoming, drain.lingered());
        tokio::spawn(async { crate::told("tonic", server.await.map_err(std::io::Error::other)) });
    }
    Ok(())
}
