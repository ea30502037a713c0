//! poem: its server takes an acceptor, which here waits for its turn.

use handover::Service;
use handover::drain::Drain;
use poem::http::header::{CONNECTION, HeaderValue};
use poem::http::uri::Scheme;
use poem::listener::{Acceptor, TcpAcceptor};
use poem::web::{LocalAddr, RemoteAddr};
use poem::{EndpointExt, Response, Route, Server, endpoint};
use std::io;

struct InTurn<A> {
    acceptor: A,
    drain: Drain,
}

impl<A: Acceptor> Acceptor for InTurn<A> {
    type Io = A::Io;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.acceptor.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(A::Io, LocalAddr, RemoteAddr, Scheme)> {
        while let Some(mut gate) = self.drain.turn().await {
            tokio::select! {
                biased;
                () = gate.shut() => {}
                accepted = self.acceptor.accept() => return accepted,
            }
        }
        std::future::pending().await
    }
}

pub fn serve(service: &Service, hello: String) -> handover::Result<()> {
    for socket in crate::sockets(service)? {
        let (drain, begun) = (service.drain().clone(), service.drain().signal());
        let hello = hello.clone();
        let app = Route::new().at("/", endpoint::make_sync(move |_| hello.clone()));
        let app = app.after(move |result: poem::Result<Response>| {
            let result = result.map(|mut response| {
                if begun.has_begun() {
                    // the client's next request is for the next generation
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response
            });
            std::future::ready(result)
        });
        tokio::spawn(async move {
            let _counted = drain.register("poem");
            let result = async {
                socket.set_nonblocking(true)?;
                let acceptor = InTurn { acceptor: TcpAcceptor::from_std(socket)?, drain: drain.clone() };
                Server::new_with_acceptor(acceptor).run_with_graceful_shutdown(app, drain.lingered(), None).await
            };
            crate::told("poem", result.await);
        });
    }
    Ok(())
}
