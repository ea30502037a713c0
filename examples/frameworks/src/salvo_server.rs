//! Salvo: its server takes an acceptor, which here waits for its turn.

use handover::Service;
use handover::drain::{Drain, DrainSignal};
use salvo::conn::tcp::TcpAcceptor;
use salvo::conn::{Accepted, Acceptor, Holding};
use salvo::fuse::FuseFactory;
use salvo::http::header::{CONNECTION, HeaderValue};
use salvo::prelude::{Depot, FlowCtrl, Handler, Request, Response, Router, Server, async_trait};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

struct InTurn<A> {
    acceptor: A,
    drain: Drain,
}

impl<A: Acceptor> Acceptor for InTurn<A> {
    type Coupler = A::Coupler;
    type Stream = A::Stream;

    fn holdings(&self) -> &[Holding] {
        self.acceptor.holdings()
    }

    async fn accept(
        &mut self,
        fuse: Option<Arc<dyn FuseFactory + Send + Sync>>,
    ) -> io::Result<Accepted<A::Coupler, A::Stream>> {
        while let Some(mut gate) = self.drain.turn().await {
            tokio::select! {
                biased;
                () = gate.shut() => {}
                accepted = self.acceptor.accept(fuse.clone()) => return accepted,
            }
        }
        std::future::pending().await
    }
}

struct SayClose(DrainSignal);

#[async_trait]
impl Handler for SayClose {
    async fn handle(&self, request: &mut Request, depot: &mut Depot, response: &mut Response, next: &mut FlowCtrl) {
        next.call_next(request, depot, response).await;
        if self.0.has_begun() {
            // the client's next request is for the next generation
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

struct Hello(String);

#[async_trait]
impl Handler for Hello {
    async fn handle(&self, _: &mut Request, _: &mut Depot, response: &mut Response, _: &mut FlowCtrl) {
        response.render(self.0.clone());
    }
}

pub fn serve(service: &Service, hello: String) -> handover::Result<()> {
    for socket in crate::sockets(service)? {
        let (drain, hello) = (service.drain().clone(), hello.clone());
        tokio::spawn(async { crate::told("salvo", server(drain, socket, hello).await) });
    }
    Ok(())
}

async fn server(drain: Drain, socket: TcpListener, hello: String) -> io::Result<()> {
    let _counted = drain.register("salvo");
    socket.set_nonblocking(true)?;
    let acceptor = TcpAcceptor::try_from(tokio::net::TcpListener::from_std(socket)?)?;
    let router = Router::new().hoop(SayClose(drain.signal())).get(Hello(hello));
    let server = Server::new(InTurn { acceptor, drain: drain.clone() });
    let handle = server.handle();
    tokio::spawn(async move {
        drain.lingered().await;
        handle.stop_graceful(None);
    });
    server.try_serve(router).await
}
