//! Two servers with one service, handover's and bare hyper's, and a client that sends bytes.

use handover::drain::Drain;
use handover::http::{HttpOptions, HyperService};
use handover::systemd::activation::Listener;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

pub(crate) use handover_testing::waiting::{DEADLINE, pass, until, within};

/// Longer than any test that does not wait for its end.
pub(crate) const LINGER: Duration = Duration::from_secs(60);
/// For tests that wait for the end of linger.
pub(crate) const SHORT: Duration = Duration::from_millis(150);

/// More than the kernel takes for a client that does not read.
pub(crate) const BIG: usize = 32 << 20;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The service of all tests, steered by the test: `/hold` answers when released, `/stream` sends
/// its head at once and its body when released, `/big` answers [`BIG`] bytes, `/echo` answers the
/// request's body, `/early` answers without reading it, `/upgrade` echoes raw bytes; all else
/// answers its path.
#[derive(Clone)]
pub(crate) struct Service {
    arrived: mpsc::UnboundedSender<String>,
    release: Arc<Semaphore>,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(this.answer(request).await) })
    }
}

impl Service {
    async fn answer(self, mut request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let _ = self.arrived.send(path.clone());
        match path.as_str() {
            "/hold" => {
                self.release.acquire().await.unwrap().forget();
                text(path)
            }
            "/big" => text("x".repeat(BIG)),
            "/stream" => {
                let release = async move { self.release.acquire().await.unwrap().forget() };
                Response::new(Held { release: Box::pin(release), done: false }.boxed_unsync())
            }
            "/echo" => match request.into_body().collect().await {
                Ok(body) => Response::new(Full::new(body.to_bytes()).boxed_unsync()),
                Err(error) => panic!("the body did not arrive: {error}"),
            },
            "/upgrade" => {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut io = TokioIo::new(upgrade.await.unwrap());
                    let mut bytes = [0; 64];
                    while let Ok(n @ 1..) = io.read(&mut bytes).await {
                        io.write_all(&bytes[..n]).await.unwrap();
                    }
                });
                Response::builder()
                    .status(StatusCode::SWITCHING_PROTOCOLS)
                    .header("connection", "upgrade")
                    .header("upgrade", "raw")
                    .body(Full::default().boxed_unsync())
                    .unwrap()
            }
            "/peer" => match request.extensions().get::<handover::http::ConnectionInfo>() {
                Some(info) => text(format!("{:?} {}", info.peer(), info.drain().has_begun())),
                None => text("nobody knows".to_owned()),
            },
            _ => text(path),
        }
    }
}

fn text(text: String) -> Response<Body> {
    Response::new(Full::new(Bytes::from(text)).boxed_unsync())
}

/// A body of one frame, sent when released.
struct Held {
    release: Pin<Box<dyn Future<Output = ()> + Send>>,
    done: bool,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.done {
            return Poll::Ready(None);
        }
        ready!(self.release.as_mut().poll(cx));
        self.done = true;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"streamed")))))
    }
}

/// Any service, on a port of its own.
pub(crate) fn serve_service<S, B>(service: S) -> (Drain, SocketAddr)
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let drain = Drain::new();
    handover::http::serve(&drain, "http", vec![Listener::Tcp(listener)], HttpOptions::new(), HyperService(service))
        .unwrap();
    drain.accept(true);
    (drain, address)
}

/// One of the two servers.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) arrived: mpsc::UnboundedReceiver<String>,
    pub(crate) release: Arc<Semaphore>,
    kind: Kind,
}

enum Kind {
    Ours(Drain),
    Bare { accepted: Arc<AtomicUsize>, stop: mpsc::Sender<()>, drained: JoinHandle<()> },
}

fn service() -> (Service, mpsc::UnboundedReceiver<String>, Arc<Semaphore>) {
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let release = Arc::new(Semaphore::new(0));
    (Service { arrived, release: Arc::clone(&release) }, arrivals, release)
}

impl Server {
    pub(crate) fn ours() -> Self {
        Self::ours_with(HttpOptions::default())
    }

    pub(crate) fn ours_with(options: HttpOptions) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = Self::ours_on(Listener::Tcp(listener), options);
        server.address = address;
        server
    }

    pub(crate) fn ours_on(listener: Listener, options: HttpOptions) -> Self {
        let (service, arrived, release) = service();
        let drain = Drain::new();
        handover::http::serve(&drain, "http", vec![listener], options, HyperService(service)).unwrap();
        drain.accept(true);
        Self { address: ([127, 0, 0, 1], 0).into(), arrived, release, kind: Kind::Ours(drain) }
    }

    /// hyper-util's own way to shut down gracefully, as its documentation shows it.
    pub(crate) async fn bare() -> Self {
        let (service, arrived, release) = service();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, mut stopped) = mpsc::channel(1);
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let drained = tokio::spawn(async move {
            let graceful = hyper_util::server::graceful::GracefulShutdown::new();
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    _ = stopped.recv() => break,
                };
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let connection =
                    builder.serve_connection_with_upgrades(TokioIo::new(stream), service.clone()).into_owned();
                tokio::spawn(graceful.watch(connection));
                count.fetch_add(1, Ordering::SeqCst);
            }
            graceful.shutdown().await;
        });
        Self { address, arrived, release, kind: Kind::Bare { accepted, stop, drained } }
    }

    pub(crate) fn drain(&self) -> &Drain {
        match &self.kind {
            Kind::Ours(drain) => drain,
            Kind::Bare { .. } => panic!("bare hyper has no drain"),
        }
    }

    /// The next client, already accepted.
    pub(crate) async fn client(&self) -> Client {
        let before = self.accepted();
        let client = Client::connect(self.address).await;
        until("accepted", || self.accepted() > before).await;
        // its task has run once, so that what a drain meets is a connection and not a spawn
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        client
    }

    fn accepted(&self) -> usize {
        match &self.kind {
            Kind::Ours(drain) => drain.active(),
            Kind::Bare { accepted, .. } => accepted.load(Ordering::SeqCst),
        }
    }

    /// The drain begins. When this returns, it has reached every connection.
    pub(crate) async fn begin(&self, linger: Duration) {
        match &self.kind {
            Kind::Ours(drain) => drain.begin(linger),
            Kind::Bare { stop, .. } => stop.send(()).await.unwrap(),
        }
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn drained(self) {
        match self.kind {
            Kind::Ours(drain) => within("drained", drain.drained()).await,
            Kind::Bare { drained, .. } => within("drained", drained).await.unwrap(),
        }
    }

    pub(crate) async fn arrived(&mut self, path: &str) {
        assert_eq!(within("a request arrives", self.arrived.recv()).await.as_deref(), Some(path));
    }

    pub(crate) fn release(&self) {
        self.release.add_permits(1);
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) close: bool,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn ok(body: &str) -> Self {
        Self { status: 200, close: false, body: body.into() }
    }

    pub(crate) fn last(body: &str) -> Self {
        Self { close: true, ..Self::ok(body) }
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("connect", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::new() }
    }

    pub(crate) fn of(stream: std::net::TcpStream) -> Self {
        Self { stream: TcpStream::from_std(stream).unwrap(), received: Vec::new() }
    }

    /// Makes its end a reset: thousands of clients would leave no port for a minute (TIME_WAIT), to
    /// this test and to the ones after it.
    pub(crate) fn ends_by_reset(&self) {
        self.stream.set_zero_linger().unwrap();
    }

    pub(crate) async fn reply_to(&mut self, path: &str) -> Option<Reply> {
        self.get(path).await;
        self.reply().await
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("send", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    pub(crate) async fn get(&mut self, path: &str) {
        self.send(get(path)).await;
    }

    /// For servers that may have closed already.
    pub(crate) async fn try_get(&mut self, path: &str) {
        self.try_send(get(path).as_bytes()).await;
    }

    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        let _ = within("send", self.stream.write_all(bytes)).await;
    }

    /// The next reply, or `None` if the connection ends (or breaks) before it is complete.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        let head = self.head().await?;
        let body = if head.contains("transfer-encoding: chunked") {
            let mut body = Vec::new();
            loop {
                let line = self.take_line().await?;
                let length = usize::from_str_radix(line.trim(), 16).unwrap();
                let chunk = self.take(length + 2).await?;
                body.extend_from_slice(&chunk[..length]);
                if length == 0 {
                    break body;
                }
            }
        } else {
            let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            self.take(length).await?
        };
        Some(Reply {
            status: status(&head),
            close: header(&head, "connection") == Some("close"),
            body: String::from_utf8(body).unwrap(),
        })
    }

    pub(crate) async fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        loop {
            let line = self.take_line().await?;
            if line == "\r\n" {
                return Some(head.to_ascii_lowercase());
            }
            head.push_str(&line);
        }
    }

    pub(crate) async fn take_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<_> = self.received.drain(..=end).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            self.fill().await?;
        }
    }

    pub(crate) async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.received.len() < length {
            self.fill().await?;
        }
        Some(self.received.drain(..length).collect())
    }

    /// Waits for the server to close; anything but that is a failure.
    pub(crate) async fn closed(&mut self) {
        assert_eq!(self.received, b"");
        assert_eq!(self.fill().await, None, "the server still sends");
    }

    async fn fill(&mut self) -> Option<()> {
        match within("receive", self.stream.read_buf(&mut self.received)).await {
            Ok(1..) => Some(()),
            Ok(0) | Err(_) => None,
        }
    }
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

pub(crate) fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value.trim())
}
