//! A web service whose reloads no client sees: the paved path, and some handlers to try it with.
//!
//! ```sh
//! cargo run --example web --features control,http,journald
//! curl http://127.0.0.1:8080/pid
//! pkill -HUP --exact web        # a new generation takes over; /pid tells
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::ffi::OsString;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{any, get, post};
use axum::{Extension, Router};
use clap::Parser;
use futures_util::{StreamExt, stream};
use handover::drain::DrainSignal;
use handover::http::ConnectionInfo;
use sha2::{Digest, Sha256};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// A web service that is reloaded without its clients noticing.
#[derive(Debug, Parser)]
#[command(name = "web")]
struct Options {
    /// Where to listen when no service manager passes a socket named `http`
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: String,
    /// How long a drain may take
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    /// How long idle connections of a draining generation are still answered
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = humantime::parse_duration)]
    linger: Duration,
    /// How many old generations may drain at once before the oldest is ended
    #[arg(long, default_value_t = handover::service::settings::MAX_DRAINING, value_name = "GENERATIONS")]
    max_draining: usize,
    /// Which connections go to another process: `never`, those of a `reload`, of a `restart` too,
    /// or of a `crash`
    #[arg(long, value_name = "WHEN")]
    migrate: Option<handover::service::settings::Migrate>,
    /// How long a new generation may take to be ready
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = humantime::parse_duration)]
    ready_timeout: Duration,
    /// How long a new generation serves before it becomes main
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = humantime::parse_duration)]
    probation: Duration,
    /// Memory that the first generation, and only it, touches
    #[arg(long, default_value = "0", value_name = "SIZE", value_parser = parse_size)]
    heap: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    main_with(std::env::args_os()).await
}

/// Runs the service with these arguments, the program's name first.
pub(crate) async fn main_with(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let options = Options::parse_from(args);
    handover::logging::init()?;
    let settings = handover::Settings::from_env()?;
    let migrate = options.migrate.or(settings.migrate).unwrap_or_default();
    let service = handover::Service::builder()
        .settings(settings)
        .listen("http", &options.listen) // the name in web.socket; the address only without systemd
        .drain_timeout(options.drain_timeout)
        .linger(options.linger)
        .max_draining(options.max_draining)
        .migrate(migrate)
        .ready_timeout(options.ready_timeout)
        .probation(options.probation)
        .control() // for `handover reload` and `handover status`; needs RuntimeDirectory= in the unit
        .start()?;

    let generation = service.generation();
    let _ballast = vec![1_u8; if generation == 1 { options.heap } else { 0 }];

    service.serve_http("http", router(generation))?;
    service.run().await?; // ready, watchdog, SIGHUP → reload, SIGTERM → stop
    Ok(())
}

pub(crate) fn router(generation: u64) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/pid", get(pid))
        .route("/sleep", get(sleep))
        .route("/stream", get(stream_chunks))
        .route("/upload", post(upload))
        .route("/ws", any(echo))
        .with_state(generation)
}

async fn index(State(generation): State<u64>) -> String {
    format!("pid {}, generation {generation}\n", std::process::id())
}

async fn pid() -> String {
    format!("{}\n", std::process::id())
}

/// `/sleep?duration=2s`: the pid that took the request, after that time.
async fn sleep(Query(query): Query<Vec<(String, String)>>) -> Result<String, BadRequest> {
    let duration = time(&query, "duration", Duration::from_secs(1))?;
    tokio::time::sleep(duration).await;
    Ok(pid().await)
}

/// `/stream?chunks=10&interval=100ms`: a body of that many numbered chunks of 1 KiB, that far
/// apart.
async fn stream_chunks(Query(query): Query<Vec<(String, String)>>) -> Result<Body, BadRequest> {
    let interval = time(&query, "interval", Duration::from_millis(100))?;
    let chunks: u64 = match value(&query, "chunks") {
        Some(text) => text.parse().map_err(|e| bad_request(format!("chunks={text}: {e}")))?,
        None => 10,
    };
    let body = stream::iter(0..chunks).then(move |chunk| async move {
        tokio::time::sleep(interval).await;
        Ok::<_, Infallible>(format!("{chunk:>1023}\n"))
    });
    Ok(Body::from_stream(body))
}

/// `POST /upload`: the SHA-256 digest of the body and its length.
async fn upload(body: Body) -> Result<String, BadRequest> {
    let mut pieces = body.into_data_stream();
    let mut hash = Sha256::new();
    let mut length = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|e| bad_request(format!("the body broke off after {length} bytes: {e}")))?;
        hash.update(&piece);
        length += piece.len();
    }
    Ok(format!("{:x} {length}\n", hash.finalize()))
}

/// A WebSocket whose messages come back. At a reload its client is told to come again: close code
/// 1012, "service restart".
async fn echo(upgrade: WebSocketUpgrade, Extension(info): Extension<ConnectionInfo>) -> Response {
    upgrade.on_upgrade(move |socket| send_back(socket, info.drain()))
}

async fn send_back(mut socket: WebSocket, mut drain: DrainSignal) {
    let mut told = false;
    loop {
        let message = tokio::select! {
            () = &mut drain, if !told => {
                told = true;
                Message::Close(Some(CloseFrame { code: close_code::RESTART, reason: "reloaded: come again".into() }))
            }
            received = socket.recv() => match received {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) if !told => message,
                Some(Ok(_)) => continue, // after a goodbye nothing can be said; pongs are sent by the library
                Some(Err(_)) | None => return, // closed by both sides
            },
        };
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

type BadRequest = (StatusCode, String);

fn bad_request(why: impl Into<String>) -> BadRequest {
    (StatusCode::BAD_REQUEST, why.into() + "\n")
}

fn value<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn time(query: &[(String, String)], name: &str, default: Duration) -> Result<Duration, BadRequest> {
    value(query, name).map_or(Ok(default), |text| {
        humantime::parse_duration(text)
            .map_err(|e| bad_request(format!("{name}={text}: {e}; write for example 2s or 300ms")))
    })
}

fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err("the unit is not KiB, MiB or GiB".into()),
    };
    let number: usize = number.parse().map_err(|e| format!("{e}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".into())
}
