//! HTTP/2 and gRPC through reloads, by curl, reqwest and tonic.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinSet;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::protocols::{Watched, join, reloads_under};
use super::web::{Setup, Web};
use crate::lab::{Container, Outcome, Scenario, example};

pub(super) const SCENARIOS: &[Scenario] =
    &[Scenario::new("load_http2", http2_reqwest_and_curl), Scenario::new("load_grpc", grpc_tonic)];

/// reqwest's connections, each with some requests in flight.
const CONNECTIONS: usize = 4;
const STREAMS: usize = 8;
const CALLERS: usize = 8;
/// Between two requests of a stream.
const PAUSE: Duration = Duration::from_millis(5);

fn http2_reqwest_and_curl(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let address = web.address;
    reloads_under(&web, 12, |stop| async move {
        let mut tasks = JoinSet::new();
        for _ in 0..CONNECTIONS {
            // Without a provider of its own it asks for the process's.
            let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
            let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build();
            let client = client.expect("a client needs no files");
            for _ in 0..STREAMS {
                tasks.spawn(ask(client.clone(), address, Arc::clone(&stop)));
            }
            tasks.spawn(download(client, address, Arc::clone(&stop)));
        }
        // One process is one connection: curl 7.88 fails to use one again for HTTP/2 with prior
        // knowledge (its issue 10634). Its thread has the network of the one that starts it.
        tasks.spawn_blocking(move || curl(address, &stop));
        join(tasks).await
    })?;
    assert_eq!(web.count_logged("cut ")?, 0);
    Ok(())
}

/// An error and what is below it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

async fn ask(client: reqwest::Client, address: SocketAddr, stop: Arc<AtomicBool>) -> Watched {
    let mut watched = Watched::default();
    while !stop.load(Relaxed) {
        let answer =
            async { client.get(format!("http://{address}/pid")).send().await?.error_for_status()?.text().await };
        match answer.await {
            Ok(text) if text.trim().parse::<u32>().is_ok() => watched.answered += 1,
            Ok(text) => watched.lost(format!("{text:?} is no pid")),
            Err(error) => watched.lost(chain(&error)),
        }
        tokio::time::sleep(PAUSE).await;
    }
    watched
}

/// Streams that outlast a reload.
async fn download(client: reqwest::Client, address: SocketAddr, stop: Arc<AtomicBool>) -> Watched {
    let mut watched = Watched::default();
    while !stop.load(Relaxed) {
        let url = format!("http://{address}/stream?chunks=16&interval=60ms");
        let answer = async { client.get(url).send().await?.error_for_status()?.bytes().await };
        match answer.await {
            Ok(bytes) if bytes.len() == 16 * 1024 => watched.answered += 1,
            Ok(bytes) => watched.lost(format!("{} bytes of a stream", bytes.len())),
            Err(error) => watched.lost(format!("stream: {}", chain(&error))),
        }
    }
    watched
}

fn curl(address: SocketAddr, stop: &AtomicBool) -> Watched {
    let mut watched = Watched::default();
    while !stop.load(Relaxed) {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--http2-prior-knowledge", "--max-time", "10"]);
        match command.arg(format!("http://{address}/pid")).output() {
            Ok(output) if output.status.success() => watched.answered += 1,
            Ok(output) => watched.lost(format!("curl: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => watched.lost(format!("curl: {error}")),
        }
    }
    watched
}

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

fn grpc_tonic(lab: &Container) -> Outcome {
    lab.install(&example("grpc")?, "grpc")?;
    let web = Web::start(lab, Setup { command: "{dir}/grpc", ..Setup::default() })?;
    let address = web.address;
    reloads_under(&web, 12, |stop| async move {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let mut tasks = JoinSet::new();
        for _ in 0..CALLERS {
            tasks.spawn(calls(endpoint.connect_lazy(), Arc::clone(&stop)));
            tasks.spawn(ticks(endpoint.connect_lazy(), Arc::clone(&stop)));
        }
        join(tasks).await
    })?;
    assert_eq!(web.count_logged("cut ")?, 0);
    Ok(())
}

/// tonic repeats nothing by itself; a call that never reached a server may be repeated by whoever
/// made it: it was not sent (hyper's "canceled"), is beyond the last of a GOAWAY without an error,
/// or was refused.
fn is_safe_to_repeat(status: &Status) -> bool {
    let why = chain(status);
    ["operation was canceled", "not a result of an error", "refused stream"].iter().any(|safe| why.contains(safe))
}

async fn calls(channel: Channel, stop: Arc<AtomicBool>) -> Watched {
    let mut watched = Watched::default();
    let mut client = tonic::client::Grpc::new(channel);
    while !stop.load(Relaxed) {
        let request = Request::new(Text { text: "hello".into() });
        let path = PathAndQuery::from_static("/handover.example.Echo/Say");
        let answer = match client.ready().await {
            Ok(()) => client.unary(request, path, ProstCodec::<Text, Text>::default()).await,
            Err(error) => Err(Status::from_error(error.into())),
        };
        match answer {
            Ok(answer) if answer.get_ref().text.ends_with(" hello") => watched.answered += 1,
            Ok(answer) => watched.lost(format!("{:?} is no answer", answer.get_ref())),
            Err(status) if is_safe_to_repeat(&status) => watched.refused(chain(&status)),
            Err(status) => watched.lost(format!("{:?}: {}", status.code(), chain(&status))),
        }
        tokio::time::sleep(PAUSE).await;
    }
    watched
}

/// A stream without end: each is told, in gRPC's own way, when the generation drains.
async fn ticks(channel: Channel, stop: Arc<AtomicBool>) -> Watched {
    let mut watched = Watched::default();
    let mut client = tonic::client::Grpc::new(channel);
    'streams: while !stop.load(Relaxed) {
        let path = PathAndQuery::from_static("/handover.example.Echo/Ticks");
        let answer = match client.ready().await {
            Ok(()) => {
                client.server_streaming(Request::new(Text::default()), path, ProstCodec::<Text, Text>::default()).await
            }
            Err(error) => Err(Status::from_error(error.into())),
        };
        let mut stream = match answer {
            Ok(answer) => answer.into_inner(),
            Err(status) if is_safe_to_repeat(&status) => {
                watched.refused(chain(&status));
                continue;
            }
            Err(status) => {
                watched.lost(format!("stream: {:?}: {}", status.code(), chain(&status)));
                continue;
            }
        };
        let mut expected = 0;
        while !stop.load(Relaxed) {
            match stream.message().await {
                Ok(Some(text)) if text.text.ends_with(&format!(" {expected}")) => expected += 1,
                Ok(other) => watched.lost(format!("stream: {other:?} instead of {expected}")),
                Err(status) if status.code() == Code::Unavailable && status.message().starts_with("reloaded") => {
                    watched.answered += 1;
                    continue 'streams;
                }
                Err(status) => {
                    watched.lost(format!("stream after {expected}: {:?}: {}", status.code(), chain(&status)));
                    continue 'streams;
                }
            }
        }
    }
    watched
}
