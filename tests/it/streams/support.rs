//! Waiting, and what several tests set up.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use handover::systemd::activation::{Listener, LocalAddr, bind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) use handover_testing::waiting::{moment, never, until, within};

pub(crate) fn tcp() -> (Vec<Listener>, SocketAddr) {
    let listeners = bind("127.0.0.1:0").unwrap();
    let LocalAddr::Tcp(address) = listeners[0].local_addr().unwrap() else { panic!("not TCP") };
    (listeners, address)
}

pub(crate) async fn ask(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 1024];
    let n = within("an answer", stream.read(&mut buffer)).await.unwrap();
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

/// Reads until the other side has closed.
pub(crate) async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    // A reset is an end, too.
    let _ = within("the end", stream.read_to_string(&mut text)).await;
    text
}

/// The log, as text, of the test that has it. Only for a current-thread runtime.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
