//! A server that answers, but for what a test has it do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a request is met with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Answer,
    /// With `Connection: close`, and closes.
    AnswerLast,
    /// And closes some time later without a word.
    AnswerAndClose,
    /// The same by a reset.
    AnswerAndReset,
    AnswerTwice,
    Close,
    Reset,
    Truncate,
    WrongBody,
    Silence,
}

/// Decides by the request's number, and that on its connection, both from 1.
pub(crate) type Decide = dyn Fn(u64, u64) -> Act + Send + Sync;

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) url: String,
    /// How often it did something else than to answer.
    acts: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(decide: impl Fn(u64, u64) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acts = Arc::new(AtomicU64::new(0));
        let shared =
            Arc::new(Shared { requests: AtomicU64::new(0), acts: Arc::clone(&acts), decide: Box::new(decide) });
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(connection(stream, Arc::clone(&shared)));
            }
        });
        Self { url: format!("http://{address}/"), acts, task }
    }

    pub(crate) fn acts(&self) -> u64 {
        self.acts.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    requests: AtomicU64,
    acts: Arc<AtomicU64>,
    decide: Box<Decide>,
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello\n";
const LAST: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n";

async fn connection(mut stream: TcpStream, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    let mut pending = Vec::new();
    for here in 1.. {
        let Some(close) = head(&mut stream, &mut pending).await else { return };
        let number = shared.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let act = (shared.decide)(number, here);
        if act != Act::Answer {
            shared.acts.fetch_add(1, Ordering::SeqCst);
        }
        let sent = match act {
            Act::Answer if close => stream.write_all(LAST).await,
            Act::Answer => stream.write_all(OK).await,
            Act::AnswerLast => stream.write_all(LAST).await,
            Act::AnswerAndClose | Act::AnswerAndReset => stream.write_all(OK).await,
            Act::AnswerTwice => stream.write_all(&[OK, OK].concat()).await,
            Act::Truncate => stream.write_all(&OK[..OK.len() - 3]).await,
            Act::WrongBody => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhallo\n").await,
            Act::Close | Act::Reset => Ok(()),
            // Until the client gives up.
            Act::Silence => return drop(stream.read(&mut [0]).await),
        };
        match act {
            Act::Reset => return stream.set_zero_linger().unwrap(),
            Act::AnswerAndReset => {
                // The answer has arrived before the reset that would destroy it.
                tokio::time::sleep(Duration::from_millis(50)).await;
                return stream.set_zero_linger().unwrap();
            }
            Act::Answer if !close => {}
            Act::AnswerTwice => {}
            _ => return,
        }
        if sent.is_err() {
            return;
        }
    }
}

/// Reads one head; whether the client says that it is its last. `None`: it went away.
async fn head(stream: &mut TcpStream, pending: &mut Vec<u8>) -> Option<bool> {
    loop {
        if let Some(end) = pending.windows(4).position(|w| w == b"\r\n\r\n") {
            let head: Vec<u8> = pending.drain(..end + 4).collect();
            return Some(String::from_utf8_lossy(&head).to_ascii_lowercase().contains("connection: close"));
        }
        match stream.read_buf(pending).await {
            Ok(1..) => {}
            _ => return None,
        }
    }
}
