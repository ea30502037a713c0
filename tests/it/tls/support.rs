//! A server, and a client that decides itself what of its bytes it sends, and knows how a
//! connection ended.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use handover::drain::Drain;
use handover::http::{ConnectionInfo, HttpOptions, serve_tls};
use handover::systemd::activation::Listener;
use handover::tls::Tls;
use handover_testing::certs;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, HandshakeKind};

pub(crate) use handover_testing::waiting::{DEADLINE, moment, pass, until, within};

/// Longer than any test that does not wait for its end.
pub(crate) const LINGER: Duration = Duration::from_secs(60);
/// For tests that wait for the end of linger.
pub(crate) const SHORT: Duration = Duration::from_millis(150);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) arrived: mpsc::UnboundedReceiver<String>,
    release: Arc<Semaphore>,
}

/// `/hold` answers when released, `/stream` sends its head at once and its body when released,
/// `/echo` answers the body, `/upgrade` echoes raw bytes, `/tls` says what was agreed on; all else
/// answers its path.
#[derive(Clone)]
struct App {
    arrived: mpsc::UnboundedSender<String>,
    release: Arc<Semaphore>,
}

impl Server {
    pub(crate) fn new() -> Self {
        let pair = certs::pair();
        Self::with(&Tls::from_pem(&pair.chain, &pair.key).unwrap(), HttpOptions::default())
    }

    pub(crate) fn with(tls: &Tls, options: HttpOptions) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let release = Arc::new(Semaphore::new(0));
        let app = App { arrived, release: Arc::clone(&release) };
        let router = Router::new().fallback(move |request: Request| app.clone().answer(request));
        let drain = Drain::new();
        serve_tls(&drain, "https", vec![Listener::Tcp(listener)], tls, options, router).unwrap();
        drain.accept(true);
        Self { address, drain, arrived: arrivals, release }
    }

    /// A client after its handshake.
    pub(crate) async fn client(&self, config: &Arc<ClientConfig>) -> Client {
        let mut client = self.connected(config).await;
        client.handshake().await;
        client
    }

    /// A client whose connection is accepted, and which has sent nothing.
    pub(crate) async fn connected(&self, config: &Arc<ClientConfig>) -> Client {
        let before = self.drain.active();
        let client = Client::connect(self.address, config).await;
        until("accepted", || self.drain.active() > before).await;
        settle().await;
        client
    }

    /// The drain begins. When this returns, it has reached every connection.
    pub(crate) async fn begin(&self, linger: Duration) {
        self.drain.begin(linger);
        settle().await;
    }

    pub(crate) async fn drained(&self) {
        within("drained", self.drain.drained()).await;
    }

    pub(crate) async fn arrived(&mut self, path: &str) {
        assert_eq!(within("a request arrives", self.arrived.recv()).await.as_deref(), Some(path));
    }

    pub(crate) fn release(&self) {
        self.release.add_permits(1);
    }
}

/// Every task that is ready has run.
pub(crate) async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

impl App {
    async fn answer(self, mut request: Request) -> Response {
        let path = request.uri().path().to_owned();
        let _ = self.arrived.send(path.clone());
        match path.as_str() {
            "/hold" => {
                self.release.acquire().await.unwrap().forget();
                path.into_response()
            }
            "/stream" => {
                let release = self.release;
                let body = async move {
                    release.acquire().await.unwrap().forget();
                    Ok::<_, std::convert::Infallible>("streamed")
                };
                Body::from_stream(futures_util::stream::once(body)).into_response()
            }
            "/echo" => request.into_body().collect().await.unwrap().to_bytes().into_response(),
            "/upgrade" => {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut io = TokioIo::new(upgrade.await.unwrap());
                    let mut bytes = [0; 64];
                    while let Ok(n @ 1..) = io.read(&mut bytes).await {
                        io.write_all(&bytes[..n]).await.unwrap();
                        io.flush().await.unwrap();
                    }
                    let _ = io.shutdown().await;
                });
                (http::StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "raw")]).into_response()
            }
            "/tls" => {
                let info = request.extensions().get::<ConnectionInfo>().and_then(ConnectionInfo::tls).unwrap();
                format!("{:?} {:?} {}", info.version().unwrap(), info.server_name(), info.is_resumed()).into_response()
            }
            _ => path.into_response(),
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By TLS's close_notify.
    Announced,
    /// By TCP's end alone, or in the middle of a record.
    Truncated,
    Reset,
    /// By another alert.
    Alert,
}

pub(crate) struct Client {
    pub(crate) tls: ClientConnection,
    pub(crate) socket: TcpStream,
    received: Vec<u8>,
    end: Option<End>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) close: bool,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn ok(body: &str) -> Option<Self> {
        Some(Self { status: 200, close: false, body: body.into() })
    }

    pub(crate) fn last(body: &str) -> Option<Self> {
        Some(Self { status: 200, close: true, body: body.into() })
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let socket = within("connect", TcpStream::connect(address)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let tls = ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap();
        Self { tls, socket, received: Vec::new(), end: None }
    }

    pub(crate) async fn handshake(&mut self) {
        assert_eq!(self.try_handshake().await, None);
    }

    /// `None`: it is done.
    pub(crate) async fn try_handshake(&mut self) -> Option<End> {
        loop {
            self.flush().await;
            if !self.tls.is_handshaking() {
                return None;
            }
            if self.fill().await.is_none() {
                return self.end;
            }
        }
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// What is to be sent for these bytes.
    pub(crate) fn seal(&mut self, bytes: impl AsRef<[u8]>) -> Vec<u8> {
        self.tls.writer().write_all(bytes.as_ref()).unwrap();
        self.take_sealed()
    }

    pub(crate) fn take_sealed(&mut self) -> Vec<u8> {
        let mut sealed = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut sealed).unwrap();
        }
        sealed
    }

    /// As it is, for servers that may have closed already.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        let _ = within("send", self.socket.write_all(bytes)).await;
    }

    pub(crate) async fn flush(&mut self) {
        let sealed = self.take_sealed();
        self.send_raw(&sealed).await;
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        for part in bytes.as_ref().chunks(16 << 10) {
            let sealed = self.seal(part);
            self.send_raw(&sealed).await;
        }
    }

    pub(crate) async fn get(&mut self, path: &str) {
        self.send(get(path)).await;
    }

    pub(crate) async fn reply_to(&mut self, path: &str) -> Option<Reply> {
        self.get(path).await;
        self.reply().await
    }

    /// The next reply, or `None` if the connection ends before it is complete.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        let head = self.head().await?;
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let body = self.take(length).await?;
        Some(Reply {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            close: header(&head, "connection") == Some("close"),
            body: String::from_utf8(body).unwrap(),
        })
    }

    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<_> = self.received.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap().to_ascii_lowercase());
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

    /// Waits for the server to close, with nothing more to say.
    pub(crate) async fn closed(&mut self) -> End {
        while self.fill().await.is_some() {}
        assert_eq!(self.received.escape_ascii().to_string(), "");
        self.end.unwrap()
    }

    /// `None`: the connection has ended.
    async fn fill(&mut self) -> Option<()> {
        if self.end.is_some() {
            return None;
        }
        let (mut space, before) = ([0; 4096], self.received.len());
        let read = within("receive", self.socket.read(&mut space)).await;
        let end = match read {
            Err(_) => Some(End::Reset),
            Ok(0) => Some(End::Truncated),
            Ok(read) => self.take_in(&space[..read]),
        };
        self.end = end;
        self.flush().await; // what the handshake, or an alert, needs
        (end.is_none() || self.received.len() > before).then_some(())
    }

    fn take_in(&mut self, mut bytes: &[u8]) -> Option<End> {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes).unwrap();
            let Ok(state) = self.tls.process_new_packets() else { return Some(End::Alert) };
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut plain).unwrap();
            self.received.extend(plain);
            if state.peer_has_closed() {
                return Some(End::Announced);
            }
        }
        None
    }
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value.trim())
}
