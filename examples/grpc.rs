//! A gRPC service by tonic. Calls that are running finish; a stream without end is told of the
//! drain, and says `UNAVAILABLE`, which asks the client to call again.
//!
//! What is written out here, a `.proto` file and `tonic-prost-build` generate as a rule.
//!
//! ```sh
//! cargo run --example grpc --features http,journald
//! ```

use futures_util::stream::{self, BoxStream};
use handover::drain::DrainSignal;
use handover::http::ConnectionInfo;
use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, StdError};
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

const EVERY: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> handover::Result<()> {
    handover::logging::init()?;
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let service = handover::Service::builder().listen("http", address).start()?;
    service.serve_http("http", tonic::service::Routes::new(Echo).prepare())?;
    service.run().await
}

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

struct Say;

impl UnaryService<Text> for Say {
    type Response = Text;
    type Future = BoxFuture<Response<Text>, Status>;

    /// The pid and what was said.
    fn call(&mut self, request: Request<Text>) -> Self::Future {
        let text = format!("{} {}", std::process::id(), request.into_inner().text);
        Box::pin(async { Ok(Response::new(Text { text })) })
    }
}

struct Ticks;

impl ServerStreamingService<Text> for Ticks {
    type Response = Text;
    type ResponseStream = BoxStream<'static, Result<Text, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    /// The pid and a number, again and again.
    fn call(&mut self, request: Request<Text>) -> Self::Future {
        let drain = request.extensions().get::<ConnectionInfo>().map(ConnectionInfo::drain);
        Box::pin(async {
            let drain = drain.ok_or_else(|| Status::internal("not served by handover"))?;
            Ok(Response::new(Box::pin(ticks(drain)) as Self::ResponseStream))
        })
    }
}

fn ticks(drain: DrainSignal) -> impl stream::Stream<Item = Result<Text, Status>> {
    stream::unfold((drain, Some(0_u64)), async |(mut drain, number)| {
        let number = number?;
        tokio::select! {
            () = &mut drain => Some((Err(Status::unavailable("reloaded: call again")), (drain, None))),
            () = tokio::time::sleep(EVERY) => {
                let text = format!("{} {number}", std::process::id());
                Some((Ok(Text { text }), (drain, Some(number + 1))))
            }
        }
    })
}

#[derive(Debug, Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "handover.example.Echo";
}

impl<B> Service<http::Request<B>> for Echo
where
    B: hyper::body::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Text, Text>::default());
            Ok(match request.uri().path() {
                "/handover.example.Echo/Say" => grpc.unary(Say, request).await,
                "/handover.example.Echo/Ticks" => grpc.server_streaming(Ticks, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}
