//! The service under test: one generation of it, which behaves as its directory says.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use handover::http::HyperService;
use handover::service::settings::Migrate;
use handover::systemd::fdstore::{FdStore, Names};
use handover::{Handle, Service};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use nix::sys::socket::{MsgFlags, send};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Names the directory of a service, and makes this binary one.
pub const DIRECTORY: &str = "HANDOVER_IT_DIR";

/// A copy of this binary with so many bytes more at its end is a version of the service.
pub const VERSION_MARK: &[u8] = b"\nversion=";

/// Read by each generation when it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    pub ready_timeout: Duration,
    pub probation: Duration,
    pub drain_timeout: Duration,
    pub hurry_timeout: Duration,
    pub linger: Duration,
    pub max_draining: usize,
    /// Connections go to the next generation.
    pub moves: bool,
    pub draining_wait: Duration,
    /// Before the library is started.
    pub before: Step,
    /// Between [`handover::Builder::start`] and [`Service::run`].
    pub after: Step,
    pub state: State,
    pub listen: String,
    /// A socket that must be passed.
    pub needs: Option<String>,
    /// The address of a socket named "more".
    pub more: Option<String>,
    /// The version of the state that "/count" changes.
    pub counts: u32,
    /// Healthy unless there is a file named "unhealthy".
    pub health: bool,
    /// For other tests that use this service.
    pub extra: serde_json::Value,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ready_timeout: Duration::from_secs(30),
            probation: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            hurry_timeout: Duration::from_millis(500),
            linger: Duration::from_millis(50),
            max_draining: 8,
            moves: true,
            draining_wait: Duration::from_secs(10),
            before: Step::Go,
            after: Step::Go,
            state: State::None,
            listen: "127.0.0.1:0".into(),
            needs: None,
            more: None,
            counts: 1,
            health: false,
            extra: serde_json::Value::Null,
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub enum Step {
    #[default]
    Go,
    Exit(i32),
    Panic,
    Hang,
    /// Goes on when there is a file named "go".
    Wait,
    CloseLink,
    /// [`Service::fail`].
    Fail(String),
    /// An error from `main`.
    Error(String),
    /// No handover service at all, but at its end of the link: says these datagrams, and hangs.
    Say(Vec<String>),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub enum State {
    #[default]
    None,
    Bytes(usize),
    Panic,
    /// Says so in a file named "asked", and is there when there is one named "go".
    Wait,
}

/// What other tests than those of reloads add to the service, each by its [`Config::extra`].
#[derive(Debug, Clone, Copy)]
pub struct Extension {
    pub builder: fn(handover::Builder, &Path, &serde_json::Value) -> handover::Builder,
    pub started: fn(&Service, &serde_json::Value) -> handover::Result<()>,
}

impl Extension {
    pub const NONE: Self = Self { builder: |builder, _, _| builder, started: |_, _| Ok(()) };
}

/// Is one generation of the service in that directory.
pub fn main(directory: &Path, extension: Extension) -> ExitCode {
    let log = append(directory, "log");
    nix::unistd::dup2_stderr(&log).unwrap();
    handover::logging::init().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(serve(directory, extension));
    let end = directory.join(format!("end.{}", std::process::id()));
    match result {
        Ok(()) => {
            fs::write(end, "ok").unwrap();
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error: {error}");
            fs::write(end, error).unwrap();
            ExitCode::FAILURE
        }
    }
}

fn append(directory: &Path, name: &str) -> File {
    File::options().create(true).append(true).open(directory.join(name)).unwrap()
}

async fn serve(directory: &Path, extension: Extension) -> Result<(), String> {
    let config: Config = serde_json::from_slice(&fs::read(directory.join("config")).unwrap()).unwrap();
    // Only now: whoever reads this may write another configuration.
    writeln!(append(directory, "born"), "{}", std::process::id()).unwrap();
    perform(&config.before, directory, None).await?;
    let mut builder = Service::builder()
        .listen("http", &config.listen)
        .store(Names::new().name("early").name("late").name("some"))
        .ready_timeout(config.ready_timeout)
        .probation(config.probation)
        .drain_timeout(config.drain_timeout)
        .hurry_timeout(config.hurry_timeout)
        .linger(config.linger)
        .stop_linger(config.linger)
        .max_draining(config.max_draining)
        .migrate(if config.moves { Migrate::Reload } else { Migrate::Never })
        .draining_wait(config.draining_wait);
    if let Some(address) = &config.more {
        builder = builder.listen("more", address);
    }
    if let Some(name) = &config.needs {
        builder = builder.socket(name);
    }
    match config.state {
        State::None => {}
        State::Bytes(length) => builder = builder.handover_bytes(move || pattern(length)),
        State::Wait => {
            let directory = directory.to_owned();
            builder = builder.handover_bytes(move || {
                fs::write(directory.join("asked"), "").unwrap();
                while !directory.join("go").exists() {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Vec::new()
            });
        }
        State::Panic => builder = builder.handover_bytes(|| panic!("no state today")),
    }
    if config.health {
        let sign = directory.join("unhealthy");
        builder = builder.health(move || {
            let verdict = if sign.exists() { Err("the sign is up".into()) } else { Ok(()) };
            async { verdict }
        });
    }
    let builder = (extension.builder)(builder, directory, &config.extra);
    let service = builder.start().map_err(|e| e.to_string())?;
    (extension.started)(&service, &config.extra).map_err(|e| e.to_string())?;
    let Some(service) = perform(&config.after, directory, Some(service)).await? else { return Ok(()) };
    let about = Arc::new(About {
        generation: service.generation(),
        version: version(),
        state: match service.handover_bytes() {
            None => "none".into(),
            Some(bytes) => format!("{} {}", bytes.len(), bytes == pattern(bytes.len())),
        },
        handle: service.handle(),
        store: service.store(),
        counter: service.state("counter").version(config.counts).migrate(|_, json| Ok(serde_json::from_reader(json)?)),
    });
    let answer = service_fn(move |request: Request<Incoming>| {
        let about = Arc::clone(&about);
        async move { Ok::<_, Infallible>(Response::new(about.answer(request.uri().path()))) }
    });
    service.serve_http("http", HyperService(answer)).map_err(|e| e.to_string())?;
    let result = service.run().await.map_err(|e| e.to_string());
    writeln!(append(directory, "policies"), "{} {}", std::process::id(), policy()).unwrap();
    result
}

/// By which the kernel schedules this thread; the 41st in proc_pid_stat(5), where the third follows
/// the name.
fn policy() -> u32 {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(41 - 3).unwrap().parse().unwrap()
}

/// Gives the service back if it is to be run.
async fn perform(step: &Step, directory: &Path, service: Option<Service>) -> Result<Option<Service>, String> {
    match step {
        Step::Go => {}
        Step::Exit(code) => std::process::exit(*code),
        Step::Panic => panic!("the new version is broken"),
        Step::Hang => std::future::pending().await,
        Step::Wait => {
            fs::write(directory.join("waits"), "").unwrap();
            while !directory.join("go").exists() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        Step::CloseLink => {
            nix::unistd::close(link()).unwrap();
            std::future::pending().await
        }
        Step::Fail(reason) => {
            if let Some(service) = service {
                service.fail(reason);
            }
            return Ok(None);
        }
        Step::Error(text) => return Err(text.clone()),
        Step::Say(frames) => {
            for frame in frames {
                send(link(), frame.as_bytes(), MsgFlags::empty()).unwrap();
            }
            std::future::pending().await
        }
    }
    Ok(service)
}

fn link() -> RawFd {
    std::env::var("HANDOVER_FD").unwrap().parse().unwrap()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

/// What was appended to the file that runs.
fn version() -> String {
    let mut file = File::open("/proc/self/exe").unwrap();
    let mut tail = Vec::new();
    file.seek(SeekFrom::End(-64)).unwrap();
    file.read_to_end(&mut tail).unwrap();
    let at = tail.windows(VERSION_MARK.len()).position(|w| w == VERSION_MARK);
    at.map_or("original".into(), |at| String::from_utf8_lossy(&tail[at + VERSION_MARK.len()..]).into_owned())
}

struct About {
    generation: u64,
    version: String,
    state: String,
    handle: Handle,
    store: FdStore,
    counter: handover::state::State<u64>,
}

impl About {
    fn answer(&self, path: &str) -> Chunks {
        let (chunks, body) = mpsc::unbounded_channel();
        let say = |text: String| chunks.send(Bytes::from(text)).unwrap();
        match path {
            "/who" => say(format!("{} {} {}", self.generation, std::process::id(), self.version)),
            "/state" => say(self.state.clone()),
            "/count" => {
                let counted = self.counter.blocking_update(|count| {
                    *count += 1;
                    *count
                });
                say(counted.map_or_else(|e| e.to_string(), |updated| updated.result.to_string()));
            }
            "/store/list" => {
                let own = self.store.list().into_iter().filter(|e| !e.name.starts_with("handover."));
                say(own.map(|e| format!("{} {} {:?}\n", e.name, e.fds, e.kept)).collect());
            }
            _ if path.starts_with("/store/put/") => {
                let file = File::open("/dev/null").unwrap();
                let put = self.store.put(&path["/store/put/".len()..], &[file]);
                say(put.map_or_else(|e| e.to_string(), |kept| format!("{kept:?}")));
            }
            _ if path.starts_with("/store/take/") => {
                let taken = self.store.take(&path["/store/take/".len()..]);
                say(taken.map_or_else(|e| e.to_string(), |fds| fds.len().to_string()));
            }
            // Answered, but never to the end.
            "/hold" => {
                say(format!("held {}\n", std::process::id()));
                tokio::spawn(async move { chunks.closed().await });
            }
            "/reload" => {
                let handle = self.handle.clone();
                tokio::spawn(async move {
                    let mut reload = std::pin::pin!(handle.reload());
                    let outcome = tokio::select! {
                        biased;
                        outcome = &mut reload => outcome,
                        () = std::future::ready(()) => {
                            let _ = chunks.send("asked\n".into());
                            reload.await
                        }
                    };
                    let _ = chunks.send(match outcome {
                        Ok(reloaded) => format!("{reloaded:?}").into(),
                        Err(error) => error.to_string().into(),
                    });
                });
            }
            "/directory" => say(std::env::current_dir().unwrap().display().to_string()),
            "/stop" => say(format!("{:?}", self.handle.stop().is_ok())),
            "/die" => std::process::exit(9),
            _ => say("what?".into()),
        }
        Chunks(body)
    }
}

/// A body of what is sent.
struct Chunks(mpsc::UnboundedReceiver<Bytes>);

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// The configuration of the next generation to start.
pub fn write_config(directory: &Path, config: &Config) {
    let path: PathBuf = directory.join("config");
    let new = directory.join("config.new");
    fs::write(&new, serde_json::to_vec(config).unwrap()).unwrap();
    fs::rename(new, path).unwrap();
}
