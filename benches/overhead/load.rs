//! The client: as cheap as it gets, so that the server is what is measured.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// HTTP/1 connections, each with one request in flight.
const CONNECTIONS: usize = 32;
/// HTTP/2 connections, and requests in flight on each.
const HTTP2: (usize, usize) = (4, 16);

const REQUEST: &[u8] =
    b"GET /hello HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: overhead/1.0\r\nAccept: */*\r\n\r\n";

/// Whether HTTP/2 requests have the headers of a browser, some 1,300 bytes.
static BROWSER: LazyLock<bool> = LazyLock::new(|| std::env::var_os("HANDOVER_BROWSER").is_some());

const HEADERS: [(&str, &str); 12] = [
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,\
         application/signed-exchange;v=b3;q=0.7",
    ),
    ("accept-language", "en-GB,en;q=0.9,de-DE;q=0.8,de;q=0.7,en-US;q=0.6"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("cache-control", "max-age=0"),
    ("sec-ch-ua", "\"Chromium\";v=\"142\", \"Not:A-Brand\";v=\"99\""),
    ("sec-ch-ua-platform", "\"Linux\""),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("referer", "https://www.example.com/a/rather/long/path?with=some&parameters=that&a=browser&sends=along"),
    (
        "cookie",
        "session=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIn0.\
         SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c; _ga=GA1.2.1234567890.1700000000; consent=all; theme=dark; \
         ab_test=variant-b; last_seen=2026-11-29T01:00:00Z; csrftoken=0123456789abcdef0123456789abcdef",
    ),
];

pub(crate) enum Load {
    Http1(Rc<RefCell<Vec<Plain>>>),
    Http2(Vec<SendRequest<Empty<Bytes>>>, Uri),
}

/// An HTTP/1 connection; all its replies have the same length.
pub(crate) struct Plain {
    stream: TcpStream,
    reply: usize,
}

impl Plain {
    async fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let mut received = Vec::new();
        while !received.ends_with(b"Hello, World!") {
            assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0);
        }
        Self { stream, reply: received.len() }
    }

    async fn ask(&mut self) {
        let mut space = [0; 512];
        self.stream.write_all(REQUEST).await.unwrap();
        self.stream.read_exact(&mut space[..self.reply]).await.unwrap();
    }
}

async fn http2(address: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, uri: &Uri) {
    sender.ready().await.unwrap();
    let mut request = Request::get(uri.clone()).body(Empty::new()).unwrap();
    if *BROWSER {
        request.headers_mut().extend(HEADERS.map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value)) //
        }));
    }
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes().len(), 13);
}

fn uri(address: SocketAddr) -> Uri {
    format!("http://{address}/hello").parse().unwrap()
}

impl Load {
    pub(crate) async fn open(address: SocketAddr, http2: bool) -> Self {
        if http2 {
            let mut senders = Vec::new();
            for _ in 0..HTTP2.0 {
                senders.push(self::http2(address).await);
            }
            return Self::Http2(senders, uri(address));
        }
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            open.push(Plain::open(address).await);
        }
        Self::Http1(Rc::new(RefCell::new(open)))
    }

    /// Asks for that long; how many answers there were, and how long it really was.
    pub(crate) async fn run(&self, slice: Duration) -> (u64, Duration) {
        let began = Instant::now();
        let answered = Rc::new(Cell::new(0));
        let tasks = LocalSet::new();
        match self {
            Self::Http1(open) => {
                for mut plain in open.take() {
                    let (answered, open) = (Rc::clone(&answered), Rc::clone(open));
                    tasks.spawn_local(async move {
                        while began.elapsed() < slice {
                            plain.ask().await;
                            answered.set(answered.get() + 1);
                        }
                        open.borrow_mut().push(plain);
                    });
                }
            }
            Self::Http2(senders, uri) => {
                for sender in senders.iter().flat_map(|sender| std::iter::repeat_n(sender, HTTP2.1)) {
                    let (answered, mut sender, uri) = (Rc::clone(&answered), sender.clone(), uri.clone());
                    tasks.spawn_local(async move {
                        while began.elapsed() < slice {
                            get(&mut sender, &uri).await;
                            answered.set(answered.get() + 1);
                        }
                    });
                }
            }
        }
        tasks.await;
        (answered.get(), began.elapsed())
    }
}

/// Connections that have had one answer.
pub(crate) async fn idle(
    address: SocketAddr,
    http2: bool,
    count: usize,
) -> (Vec<Plain>, Vec<SendRequest<Empty<Bytes>>>) {
    let (mut plain, mut senders) = (Vec::new(), Vec::new());
    for _ in 0..count {
        if http2 {
            let mut sender = self::http2(address).await;
            get(&mut sender, &uri(address)).await;
            senders.push(sender);
        } else {
            plain.push(Plain::open(address).await);
        }
    }
    (plain, senders)
}

/// Opens so many connections, one after the other, each with one request.
pub(crate) fn connections(address: SocketAddr, count: usize) {
    use std::io::{Read as _, Write as _};
    for _ in 0..count {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all.starts_with(b"HTTP/1.1 200 "), "{}", all.escape_ascii());
    }
}
