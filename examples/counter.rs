//! A counter with sessions, whose count survives reload, SIGKILL and restart.
//!
//! ```sh
//! cargo run --example counter --features http,journald
//! curl -c jar -b jar -X POST http://127.0.0.1:8081/count
//! pkill -HUP --exact counter     # the next generation goes on counting
//! pkill -KILL --exact counter    # under systemd, with FileDescriptorStoreMax=, so does the next start
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::extract::State as Shared;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use clap::Parser;
use handover::state::State;
use serde::{Deserialize, Serialize};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Sessions beyond these are forgotten, the oldest first.
const MAX_SESSIONS: usize = 10_000;

/// A counter whose count survives everything but a reboot.
#[derive(Debug, Parser)]
#[command(name = "counter")]
struct Options {
    /// Where to listen when no service manager passes a socket named `http`
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    listen: String,
    /// How long a drain may take
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
}

/// What is kept. A new field with `#[serde(default)]` needs no new version; a change of meaning
/// does.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Counter {
    total: u64,
    sessions: BTreeMap<String, Session>,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Session {
    count: u64,
    /// Seconds since 1970.
    seen: u64,
}

/// What a client is told.
#[derive(Debug, Serialize)]
struct Counts {
    total: u64,
    yours: u64,
    generation: u64,
    pid: u32,
}

#[derive(Debug, Clone)]
struct App {
    counter: State<Counter>,
    generation: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    handover::logging::init()?;
    let service = handover::Service::builder()
        .settings(handover::Settings::from_env()?)
        .listen("http", &options.listen) // the name in counter.socket; the address only without systemd
        .drain_timeout(options.drain_timeout)
        .start()?;

    let app = App { counter: service.state("counter"), generation: service.generation() };
    service.serve_http("http", router(app))?;
    service.run().await?; // ready, watchdog, SIGHUP → reload, SIGTERM → stop
    Ok(())
}

fn router(app: App) -> Router {
    Router::new().route("/", get(show)).route("/count", post(count)).with_state(app)
}

async fn show(Shared(app): Shared<App>, headers: HeaderMap) -> Result<Json<Counts>, Failed> {
    let id = session(&headers);
    let counts = app.counter.read(move |counter| {
        let yours = id.and_then(|id| counter.sessions.get(&id)).map_or(0, |session| session.count);
        (counter.total, yours)
    });
    let (total, yours) = counts.await?;
    Ok(Json(app.tell(total, yours)))
}

/// When the client has its answer, no crash can take the count back.
async fn count(Shared(app): Shared<App>, headers: HeaderMap) -> Result<Response, Failed> {
    let known = session(&headers);
    let (id, new) = match known {
        Some(id) => (id, false),
        None => (random_id()?, true),
    };
    let cookie = new.then(|| format!("session={id}; HttpOnly; SameSite=Lax"));
    // Runs while no other request, here or in a generation beside this one, can change the counter.
    let updated = app.counter.update(move |counter: &mut Counter| {
        counter.total += 1;
        let seen = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let session = counter.sessions.entry(id).or_default();
        (session.count, session.seen) = (session.count + 1, seen);
        let counts = (counter.total, session.count);
        forget_oldest(&mut counter.sessions);
        counts
    });
    let (total, yours) = updated.await?.result;
    let mut response = Json(app.tell(total, yours)).into_response();
    if let Some(cookie) = cookie {
        response.headers_mut().insert(SET_COOKIE, HeaderValue::from_str(&cookie)?);
    }
    Ok(response)
}

impl App {
    fn tell(&self, total: u64, yours: u64) -> Counts {
        Counts { total, yours, generation: self.generation, pid: std::process::id() }
    }
}

fn forget_oldest(sessions: &mut BTreeMap<String, Session>) {
    while sessions.len() > MAX_SESSIONS {
        let oldest = sessions.iter().min_by_key(|(_, session)| session.seen).map(|(id, _)| id.clone());
        oldest.and_then(|id| sessions.remove(&id));
    }
}

/// The client's session, if it has one that we can have given.
fn session(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|all| all.split(';'));
    let id = cookies.filter_map(|cookie| cookie.trim().strip_prefix("session=")).next()?;
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
}

fn random_id() -> Result<String> {
    use std::io::Read as _;
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// 503: the client may ask again, nothing was counted.
struct Failed(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        tracing::error!(error = %self.0, "not counted");
        (StatusCode::SERVICE_UNAVAILABLE, "not counted\n").into_response()
    }
}
