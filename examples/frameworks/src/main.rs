//! One service by each of several frameworks: `frameworks NAME ADDRESS PIDFILE`.
//!
//! axum, warp and tonic's routes are tower services, and `serve_http` does it all. Where a
//! framework has an accept loop and connections of its own, the file of that name is the recipe.

mod actix;
mod axum_serve;
mod poem_server;
mod salvo_server;
mod tonic_server;

use handover::Service;
use std::io;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(name), Some(address), Some(pidfile)) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: frameworks NAME ADDRESS PIDFILE");
        return ExitCode::from(2);
    };
    match run(&name, address, pidfile).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("frameworks {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(name: &str, address: String, pidfile: String) -> Result<(), Box<dyn std::error::Error>> {
    let service = Service::builder().listen("http", address).pidfile(pidfile).start()?;
    let hello = format!("hello from generation {}\n", service.generation());
    match name {
        "axum" => service.serve_http("http", axum_serve::router(hello))?,
        "axum-serve" => axum_serve::serve(&service, hello)?,
        "warp" => service.serve_http("http", warp::service(warp::any(hello)))?,
        "tonic" => service.serve_http("http", tonic_server::routes(hello).prepare())?,
        "tonic-server" => tonic_server::serve(&service, hello)?,
        "actix-web" => actix::serve(&service, hello)?,
        "poem" => poem_server::serve(&service, hello)?,
        "salvo" => salvo_server::serve(&service, hello)?,
        other => return Err(format!("nothing is known of {other:?}").into()),
    }
    Ok(service.run().await?)
}

/// The TCP sockets of the service.
fn sockets(service: &Service) -> handover::Result<Vec<std::net::TcpListener>> {
    let listeners = service.listeners("http")?.into_iter().filter_map(|listener| match listener {
        handover::systemd::activation::Listener::Tcp(listener) => Some(listener),
        _ => None,
    });
    Ok(listeners.collect())
}

/// Says that a server has ended before its time.
fn told(name: &str, result: io::Result<()>) {
    if let Err(error) = result {
        eprintln!("{name}: {error}");
    }
}

mod warp {
    use warp::Filter;
    pub use warp::service;

    pub fn any(hello: String) -> impl Filter<Extract = (String,), Error = std::convert::Infallible> + Clone {
        warp::any().map(move || hello.clone())
    }
}
