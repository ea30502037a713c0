//! HTTPS whose reloads no client sees, and whose certificate is replaced in place.
//!
//! ```sh
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=localhost \
//!     -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem
//! cargo run --example tls --features http,journald,tls
//! curl --cacert cert.pem https://localhost:8443/pid
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use clap::Parser;
use handover::drain::Peer;
use handover::http::ConnectionInfo;
use handover::service::hooks::{Hook, InPlace};
use handover::tls::{Tls, TlsOptions};

/// An HTTPS service that is reloaded without its clients noticing.
#[derive(Debug, Parser)]
#[command(name = "tls")]
struct Options {
    /// The server's certificate and the chain above it, in PEM
    #[arg(long, default_value = "cert.pem", value_name = "FILE")]
    cert: PathBuf,
    /// Its private key, in PEM
    #[arg(long, default_value = "key.pem", value_name = "FILE")]
    key: PathBuf,
    /// How often the two files are looked at
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    poll: Duration,
    /// Where to listen when no service manager passes a socket named `https`
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDRESS")]
    listen: String,
    /// How long idle connections of a draining generation are still answered
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = humantime::parse_duration)]
    linger: Duration,
    /// A reload reads the two files again, and starts no new generation
    #[arg(long)]
    in_place: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let options = Options::parse();
    handover::logging::init()?;
    let tls = Tls::from_files_with(&options.cert, &options.key, TlsOptions::new().poll(Some(options.poll)));
    let mut builder = handover::Service::builder()
        .listen("https", &options.listen) // the name in the .socket unit; the address only without systemd
        .linger(options.linger);
    if let (true, Ok(tls)) = (options.in_place, &tls) {
        let tls = tls.clone();
        builder = builder.on_reload_in_place(Hook::blocking(move |_| {
            tls.reload()?;
            Ok(InPlace::Done)
        }));
    }
    let service = builder.start()?;
    let tls = match tls {
        Ok(tls) => tls,
        Err(error) => {
            service.fail(&error); // a reload is reported as failed, with this reason
            return Err(error.into());
        }
    };
    let generation = service.generation();
    let router = Router::new()
        .route("/", get(async move || format!("pid {}, generation {generation}\n", std::process::id())))
        .route("/pid", get(async || format!("{}\n", std::process::id())))
        .route("/who", get(who))
        .route("/tls", get(info));
    service.serve_https("https", &tls, router)?;
    service.run().await?; // ready, watchdog, SIGHUP → reload, SIGTERM → stop
    Ok(())
}

/// Which process answers on which connection: the pid, and the port of its client.
async fn who(Extension(info): Extension<ConnectionInfo>) -> String {
    let Peer::Tcp(client) = info.peer() else { return "no port\n".into() };
    format!("{} {}\n", std::process::id(), client.port())
}

async fn info(Extension(info): Extension<ConnectionInfo>) -> String {
    let Some(info) = info.tls() else { return "no TLS\n".into() };
    let resumed = if info.is_resumed() { "resumed" } else { "full handshake" };
    format!("{:?}, {resumed}\n", info.version())
}
