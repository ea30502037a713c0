//! Any bytes to two HTTP/1 servers, handover's and bare hyper, which have the same handler: ours
//! gives all the answers that hyper gives, or has announced its close before.
//!
//! The first byte says in how many pieces the rest is written, the next ones where it is cut.

use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use handover::drain::Drain;
use handover::http::{HttpOptions, HyperService};
use handover::systemd::activation;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// No answer takes longer: the client has closed its side.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a client of HTTP/2 says first, to which bare HTTP/1 has another answer.
const HTTP2: &[u8] = b"PRI * H";

struct Servers {
    ours: PathBuf,
    bare: PathBuf,
}

pub fn differential(input: &[u8]) {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    let Servers { ours, bare } = SERVERS.get_or_init(start);
    let Some((count, rest)) = input.split_first() else { return };
    let Some((cuts, bytes)) = rest.split_at_checked(usize::from(count % 4)) else { return };
    if bytes.starts_with(HTTP2) || bytes.is_empty() {
        return;
    }
    let (ours, bare) = (play(ours, cuts, bytes), play(bare, cuts, bytes));
    let ((ours, announced), (bare, _)) = (essence(&ours), essence(&bare));
    // What is no request hyper refuses at once only if all of it comes in one read: with a part of
    // a head it waits for the end of that. The two need not have read the same pieces.
    let refused = bare.strip_prefix(&*ours).is_some_and(|rest| rest.starts_with(b"HTTP/1.1 400 "));
    assert!(
        ours.starts_with(&bare) || refused || (announced && bare.starts_with(&ours)),
        "ours: {}\nbare: {}",
        ours.escape_ascii(),
        bare.escape_ascii()
    );
}

fn start() -> Servers {
    let directory = std::env::temp_dir().join(format!("handover-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for two sockets");
    let servers = Servers { ours: directory.join("ours"), bare: directory.join("bare") };
    let (ours, bare) = (servers.ours.clone(), servers.bare.clone());
    let (ready, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let drain = Drain::new();
            let listeners = activation::bind(ours.to_str().expect("a path in UTF-8")).expect("a socket");
            let service = HyperService(service_fn(answer));
            handover::http::serve(&drain, "http", listeners, HttpOptions::new(), service).expect("it serves");
            drain.accept(true);
            let listener = tokio::net::UnixListener::bind(bare).expect("a socket");
            ready.send(()).expect("somebody waits");
            while let Ok((stream, _)) = listener.accept().await {
                let builder = hyper::server::conn::http1::Builder::new();
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
        });
    });
    waiting.recv().expect("both listen");
    servers
}

/// `/early` is answered before the body is read. Answers are of digits alone.
async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    if request.uri().path().starts_with("/early") {
        return Ok(Response::new("1".into()));
    }
    Ok(match request.into_body().collect().await {
        Ok(body) => Response::new(body.to_bytes().iter().map(|byte| u64::from(*byte)).sum::<u64>().to_string()),
        Err(_) => Response::builder().status(400).body("0".into()).expect("a valid answer"),
    })
}

/// Returns all that the server says until it closes.
fn play(server: &Path, cuts: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut client = UnixStream::connect(server).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut cuts: Vec<_> = cuts.iter().map(|cut| bytes.len() * usize::from(*cut) / 256).collect();
    cuts.sort_unstable();
    let mut from = 0;
    for at in cuts.into_iter().chain([bytes.len()]) {
        // A server that has closed reads no more, and that is its right.
        if client.write_all(&bytes[from..at]).is_err() {
            break;
        }
        from = at;
        std::thread::yield_now();
    }
    let _ = client.shutdown(Shutdown::Write);
    let mut answers = Vec::new();
    match client.read_to_end(&mut answers) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("no end after {PATIENCE:?}"),
        _ => answers,
    }
}

/// Returns the answers without what may differ, and whether a close was announced.
fn essence(answers: &[u8]) -> (Vec<u8>, bool) {
    let lines = || answers.split_inclusive(|byte| *byte == b'\n');
    let kept = lines().filter(|line| !line.starts_with(b"date: ") && !line.starts_with(b"connection: "));
    (kept.flatten().copied().collect(), lines().any(|line| line == b"connection: close\r\n"))
}
