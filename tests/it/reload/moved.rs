//! A service whose connections move, and clients that keep theirs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use handover::Program;
use handover::http::{HttpOptions, HyperService};
use handover::service::settings::Migrate;
use handover::tls::Tls;
use handover_testing::patience;
use handover_testing::processes::until;
use handover_testing::service::Extension;
use handover_testing::world::World;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};

/// What one generation does with the socket "more".
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct More {
    pub(crate) directory: PathBuf,
    pub(crate) serves: bool,
    pub(crate) migrate: bool,
    pub(crate) keep_alive: Duration,
    pub(crate) header: Duration,
    pub(crate) most: Option<usize>,
    /// The soft limit of open files.
    pub(crate) files: Option<u64>,
    /// Each request is noted in a file.
    pub(crate) notes: bool,
    /// Whether HTTP/2 moves, how long its streams are held, and how often it is asked whether it is
    /// there.
    pub(crate) http2: bool,
    pub(crate) within: Duration,
    pub(crate) pings: Option<Duration>,
    /// A certificate and its key: it speaks TLS.
    pub(crate) pair: Option<(String, String)>,
    /// Connections survive its crash.
    pub(crate) insured: bool,
}

impl More {
    pub(crate) fn of(world: &World) -> Self {
        let (keep_alive, header) = (HttpOptions::KEEP_ALIVE_TIMEOUT, HttpOptions::HEADER_READ_TIMEOUT);
        let directory = world.path("");
        Self {
            directory,
            serves: true,
            migrate: true,
            keep_alive,
            header,
            most: None,
            files: None,
            notes: true,
            http2: true,
            within: HttpOptions::HTTP2_MOVE_WITHIN,
            pings: None,
            pair: None,
            insured: false,
        }
    }
}

/// For generations that start from now on.
pub(crate) fn more(world: &mut World, change: impl FnOnce(&mut More)) {
    let mut more = More::of(world);
    change(&mut more);
    world.configure(|c| c.extra = serde_json::to_value(more).unwrap());
}

/// `/n/ID` answers the ID, `/slow/ID` when there is a file named "go.ID", `/up/ID` when it has the
/// body, and with its length, `/large/ID` with 100,000 bytes, `/bytes/NUMBER` with so many.
/// Each ID is noted in the file "seen" when its request has come.
pub(crate) const EXTENSION: Extension = Extension {
    builder: |builder, _, extra| {
        let Ok(more) = serde_json::from_value::<More>(extra.clone()) else { return builder };
        if let Some(files) = more.files {
            setrlimit(Resource::RLIMIT_NOFILE, files, files).unwrap();
        }
        let builder = if more.insured { builder.migrate(Migrate::Crash) } else { builder };
        builder.socket("more")
    },
    started: |service, extra| {
        let Ok(more) = serde_json::from_value::<More>(extra.clone()) else { return Ok(()) };
        if !more.serves {
            return Ok(());
        }
        let options = HttpOptions::new().keep_alive_timeout(more.keep_alive).header_read_timeout(more.header);
        let options = options.migrate(more.migrate).migrate_http2(more.http2).http2_move_within(more.within);
        let options = options.http2_keep_alive_interval(more.pings);
        let options = more.most.into_iter().fold(options, HttpOptions::max_connections);
        let directory = more.directory;
        let answer = service_fn(move |request| {
            let directory = directory.clone();
            async move {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(
                    answer(&directory, more.notes, request).await,
                ))))
            }
        });
        match more.pair {
            Some((chain, key)) => {
                let tls = Tls::from_pem(chain, key)?;
                service.serve_https_with("more", &tls, options, HyperService(answer))
            }
            None => service.serve_http_with("more", options, HyperService(answer)),
        }
    },
};

async fn answer(directory: &Path, notes: bool, request: Request<Incoming>) -> String {
    let path = request.uri().path().to_owned();
    let (kind, id) = path.trim_start_matches('/').split_once('/').unwrap_or((&path, ""));
    if notes {
        let mut seen = File::options().create(true).append(true).open(directory.join("seen")).unwrap();
        seen.write_all(format!("{id}\n").as_bytes()).unwrap();
    }
    match kind {
        "slow" => {
            while !directory.join(format!("go.{id}")).exists() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            id.to_owned()
        }
        "up" => match request.into_body().collect().await {
            Ok(body) => format!("{id} {}", body.to_bytes().len()),
            Err(error) => format!("{id} {error}"),
        },
        "large" => "y".repeat(100_000),
        "bytes" => "y".repeat(id.parse().unwrap()),
        _ => id.to_owned(),
    }
}

/// How often each request has come.
pub(crate) fn seen(world: &World) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for id in fs::read_to_string(world.path("seen")).unwrap_or_default().lines() {
        *seen.entry(id.to_owned()).or_default() += 1;
    }
    seen
}

pub(crate) fn wait_until_seen(world: &World, id: &str) {
    until(id, || seen(world).contains_key(id).then_some(()));
}

/// A client's way to the socket "more".
#[derive(Debug)]
pub(crate) enum Way {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Way {
    /// Gives the first generation the socket, and starts it.
    pub(crate) fn tcp(world: &World) -> (Self, Program) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (Self::Tcp(address), world.program().socket("more", OwnedFd::from(listener)))
    }

    pub(crate) fn unix(world: &World) -> (Self, Program) {
        let path = world.path("more.sock");
        let listener = UnixListener::bind(&path).unwrap();
        (Self::Unix(path), world.program().socket("more", OwnedFd::from(listener)))
    }

    pub(crate) fn client(&self) -> Client {
        let mut ports = None;
        let stream: Box<dyn Io> = match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, patience()).unwrap();
                ports = Some((stream.local_addr().unwrap().port(), address.port()));
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(patience())).unwrap();
                Box::new(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(Some(patience())).unwrap();
                Box::new(stream)
            }
        };
        Client { stream, ports, received: Vec::new() }
    }
}

trait Io: Read + Write + Send {}
impl<T: Read + Write + Send> Io for T {}

/// One connection.
pub(crate) struct Client {
    stream: Box<dyn Io>,
    ports: Option<(u16, u16)>,
    received: Vec<u8>,
}

impl Client {
    /// Returns its own port and the service's, over TCP.
    pub(crate) fn ports(&self) -> Option<(u16, u16)> {
        self.ports
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn ask(&mut self, kind: &str, id: &str) {
        self.send(&get(kind, id));
    }

    /// The answer is that, and the connection stays.
    pub(crate) fn expect(&mut self, body: &str) {
        let (head, got) = self.reply().unwrap();
        assert_eq!(got, body, "{head}");
        assert!(!head.contains("connection: close"), "{head}");
    }

    /// Asks, and it is answered, unless the connection is closed before any byte of an answer.
    pub(crate) fn tries(&mut self, text: &str, body: &str) -> bool {
        if self.stream.write_all(text.as_bytes()).is_err() {
            return false;
        }
        match self.reply() {
            Ok((head, got)) => {
                assert_eq!(got, body, "{head}");
                true
            }
            Err(error) => {
                let ends = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
                assert!(ends.contains(&error.kind()), "{body}: {error}");
                assert_eq!(self.received, b"", "{body}: a part of an answer");
                false
            }
        }
    }

    /// The server closes it.
    pub(crate) fn wait_for_end(mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(rest, b""),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the server does not close it"),
        }
    }

    pub(crate) fn reply(&mut self) -> io::Result<(String, String)> {
        let head = loop {
            if let Some(at) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break self.received.drain(..at + 4).collect::<Vec<_>>();
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        while self.received.len() < length {
            self.fill()?;
        }
        let body = self.received.drain(..length).collect();
        Ok((head, String::from_utf8(body).unwrap()))
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut space = [0; 4096];
        match self.stream.read(&mut space)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.received.extend_from_slice(&space[..length]);
                Ok(())
            }
        }
    }
}

pub(crate) fn get(kind: &str, id: &str) -> String {
    format!("GET /{kind}/{id} HTTP/1.1\r\nHost: it\r\n\r\n")
}
