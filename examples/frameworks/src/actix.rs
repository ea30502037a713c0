//! actix-web: its server takes a socket, and can be paused.

use actix_web::dev::Service as _;
use actix_web::http::ConnectionType;
use actix_web::{App, HttpServer, web};
use handover::Service;
use handover::drain::Drain;
use std::io;
use std::net::TcpListener;

pub fn serve(service: &Service, hello: String) -> handover::Result<()> {
    for socket in crate::sockets(service)? {
        let (drain, hello) = (service.drain().clone(), hello.clone());
        tokio::spawn(async { crate::told("actix-web", server(drain, socket, hello).await) });
    }
    Ok(())
}

async fn server(drain: Drain, socket: TcpListener, hello: String) -> io::Result<()> {
    let _counted = drain.register("actix-web");
    // it accepts as soon as it runs
    let Some(mut gate) = drain.turn().await else { return Ok(()) };
    let begun = drain.signal();
    let app = move || {
        let (begun, hello) = (begun.clone(), hello.clone());
        let app = App::new().wrap_fn(move |request, service| {
            let (begun, answer) = (begun.clone(), service.call(request));
            async move {
                let mut response = answer.await?;
                if begun.has_begun() {
                    // the client's next request is for the next generation
                    response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
                }
                Ok(response)
            }
        });
        app.route("/", web::get().to(move || std::future::ready(hello.clone())))
    };
    let server = HttpServer::new(app).disable_signals().workers(2).listen(socket)?.run();
    let handle = server.handle();
    let running = tokio::spawn(server);
    loop {
        gate.shut().await;
        handle.pause().await;
        match drain.turn().await {
            Some(next) => gate = next, // the reload has failed
            None => break,
        }
        handle.resume().await;
    }
    drain.lingered().await;
    handle.stop(true).await;
    running.await?
}
