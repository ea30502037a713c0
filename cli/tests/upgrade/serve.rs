//! A static server, with TLS or without, that can also fail.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// What is at a path.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// With an `ETag`, a `Last-Modified`, or neither.
    File(Vec<u8>, Option<&'static str>, Option<&'static str>),
    Status(u16),
    Redirect(String),
    /// Another length than is announced.
    Length(Vec<u8>, usize),
    /// Chunked, and cut off.
    Cut(Vec<u8>),
    /// Chunked, without end.
    Endless,
    /// The head and the first bytes, and then nothing.
    Stalls(Vec<u8>),
    /// As if asked for.
    Encoded(Vec<u8>),
}

impl Answer {
    pub(crate) fn file(bytes: impl Into<Vec<u8>>) -> Self {
        Self::File(bytes.into(), None, None)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) status: u16,
}

#[derive(Debug, Default)]
struct Shared {
    answers: HashMap<String, Answer>,
    asked: Vec<Asked>,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Mutex<Shared>>,
    _stop: oneshot::Sender<()>,
}

impl Server {
    pub(crate) fn plain() -> Self {
        Self::start(None)
    }

    /// Its certificate is written there.
    pub(crate) fn tls(certificate: &Path) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]).unwrap();
        std::fs::write(certificate, cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        Self::start(Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn start(tls: Option<TlsAcceptor>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (stop, stopped) = oneshot::channel::<()>();
        let (bound, address) = mpsc::channel();
        let answers = Arc::clone(&shared);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                bound.send(listener.local_addr().unwrap()).unwrap();
                let serving = async {
                    loop {
                        let Ok((stream, _)) = listener.accept().await else { continue };
                        let (tls, shared) = (tls.clone(), Arc::clone(&answers));
                        tokio::spawn(async move {
                            match tls {
                                Some(tls) => converse(tls.accept(stream).await?, &shared).await,
                                None => converse(stream, &shared).await,
                            }
                        });
                    }
                };
                tokio::select! {
                    _ = stopped => {}
                    () = serving => {}
                }
            });
        });
        Self { address: address.recv().unwrap(), scheme, shared, _stop: stop }
    }

    pub(crate) fn put(&self, path: &str, answer: Answer) {
        self.shared.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.lock().unwrap().asked)
    }
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Mutex<Shared>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return Ok(()),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let found = shared.lock().unwrap().answers.get(&path).cloned();
    let answer = match found {
        Some(Answer::File(_, etag, modified)) if unchanged(&headers, etag, modified) => Answer::Status(304),
        other => other.unwrap_or(Answer::Status(404)),
    };
    let status = match &answer {
        Answer::Status(status) => *status,
        Answer::Redirect(_) => 302,
        _ => 200,
    };
    shared.lock().unwrap().asked.push(Asked { path, headers, status });
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_bytes();
    match answer {
        Answer::File(bytes, etag, modified) => {
            let etag = etag.map(|etag| format!("ETag: {etag}\r\n")).unwrap_or_default();
            let modified = modified.map(|at| format!("Last-Modified: {at}\r\n")).unwrap_or_default();
            let length = bytes.len();
            let head =
                format!("HTTP/1.1 200 OK\r\n{etag}{modified}Content-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&bytes).await?;
        }
        Answer::Status(status) => {
            let head = format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
        }
        Answer::Redirect(to) => {
            let head =
                format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
        }
        Answer::Length(bytes, announced) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\nConnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&bytes).await?;
        }
        Answer::Cut(bytes) => stream.write_all(&[chunked, &chunk(&bytes)].concat()).await?,
        Answer::Endless => {
            stream.write_all(chunked).await?;
            loop {
                stream.write_all(&chunk(&[7; 64 * 1024])).await?;
            }
        }
        Answer::Stalls(bytes) => {
            stream.write_all(&[chunked, &chunk(&bytes)].concat()).await?;
            stream.flush().await?;
            // Until the client has enough of it.
            let _ = stream.read_u8().await;
        }
        Answer::Encoded(bytes) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bytes.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&bytes).await?;
        }
    }
    stream.flush().await?;
    stream.shutdown().await
}

fn unchanged(headers: &HashMap<String, String>, etag: Option<&str>, modified: Option<&str>) -> bool {
    match (headers.get("if-none-match"), etag) {
        (Some(asked), Some(etag)) => asked == etag,
        _ => headers.get("if-modified-since").is_some_and(|asked| Some(asked.as_str()) == modified),
    }
}
