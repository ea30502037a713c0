//! A client that keeps its connection.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use handover_testing::waiting::within;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;

use super::{CONNECTIONS, number};

/// A client pauses for so long at most, where there are few. More of them ask as often in all.
static PAUSE_MS: LazyLock<u64> =
    LazyLock::new(|| 40 * number("HANDOVER_TLS_CONNECTIONS", CONNECTIONS).div_ceil(CONNECTIONS));

pub(crate) fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

pub(crate) async fn pause(random: &mut u64) {
    tokio::time::sleep(Duration::from_millis(next(random) % *PAUSE_MS)).await;
}

pub(crate) async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = within("connected", TcpStream::connect(address)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let connector = TlsConnector::from(Arc::clone(config));
    within("a handshake", connector.connect("localhost".try_into().unwrap(), stream)).await.unwrap()
}

pub(crate) struct Client {
    pub(crate) stream: TlsStream<TcpStream>,
    received: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        Self { stream: connect(address, config).await, received: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sent", self.stream.write_all(bytes.as_ref())).await.unwrap();
        within("sent", self.stream.flush()).await.unwrap();
    }

    /// The head of a reply, and its body.
    pub(crate) async fn reply(&mut self) -> io::Result<(String, Vec<u8>)> {
        loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(self.received[..end].to_vec()).unwrap().to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1).unwrap();
                let length: usize = length.lines().next().unwrap().parse().unwrap();
                if self.received.len() >= end + 4 + length {
                    let body = self.received[end + 4..end + 4 + length].to_vec();
                    self.received.drain(..end + 4 + length);
                    return Ok((head, body));
                }
            }
            if within("a reply", self.stream.read_buf(&mut self.received)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub(crate) async fn expect(&mut self, expected: &str) {
        let (head, body) = self.reply().await.unwrap();
        assert_eq!(body.escape_ascii().to_string(), expected, "{head}");
    }

    pub(crate) async fn ask(&mut self, path: &str) -> String {
        self.send(request(path)).await;
        String::from_utf8(self.reply().await.unwrap().1).unwrap()
    }

    /// Whether the connection is still there after one more reply.
    pub(crate) async fn stays_after_reply(&mut self) -> bool {
        self.send(request("/n/last")).await;
        let (head, body) = self.reply().await.unwrap();
        assert_eq!(body, b"last");
        let closes = head.contains("connection: close");
        if closes {
            assert_eq!(within("the end", self.stream.read(&mut [0])).await.unwrap(), 0, "by TLS's own");
        }
        !closes
    }
}

pub(crate) fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: it\r\n\r\n")
}
