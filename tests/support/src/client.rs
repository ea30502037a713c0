//! A client of the service that trusts nobody: plain sockets.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::patience;

/// One request on a connection of its own; the body of the answer.
pub fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut asked = Asked::new(address, path, "close")?;
    asked.rest()
}

/// A request that was sent, and the answer as it comes.
#[derive(Debug)]
pub struct Asked {
    stream: BufReader<TcpStream>,
}

impl Asked {
    pub fn new(address: SocketAddr, path: &str, connection: &str) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience())?;
        stream.set_read_timeout(Some(patience()))?;
        let mut asked = Self { stream: BufReader::new(stream) };
        asked.ask(path, connection)?;
        Ok(asked)
    }

    /// One more request on the same connection.
    pub fn again(&mut self, path: &str) -> io::Result<()> {
        self.ask(path, "keep-alive")
    }

    fn ask(&mut self, path: &str, connection: &str) -> io::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: it\r\nConnection: {connection}\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let head = self.head()?;
        if head.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(io::Error::other(head)) }
    }

    fn head(&mut self) -> io::Result<String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("no whole head: {head:?}")));
            }
        }
        Ok(head)
    }

    /// The next chunk of the body; `None` after the last one.
    pub fn chunk(&mut self) -> io::Result<Option<String>> {
        let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut");
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(cut());
        }
        let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk)?;
        chunk.truncate(length);
        Ok((length > 0).then(|| String::from_utf8_lossy(&chunk).into_owned()))
    }

    pub fn rest(&mut self) -> io::Result<String> {
        let mut body = String::new();
        while let Some(chunk) = self.chunk()? {
            body += &chunk;
        }
        Ok(body)
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.stream.get_ref().local_addr().unwrap()
    }

    /// Whether the server has not closed it; nothing is taken.
    pub fn is_open(&self) -> bool {
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true).unwrap();
        let open = matches!(stream.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        open
    }

    /// Waits until the server ends it, well or badly.
    pub fn wait_for_end(mut self) {
        let mut sink = Vec::new();
        match self.stream.read_to_end(&mut sink) {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the server did not end the connection")
            }
            _ => {}
        }
    }
}

/// Asks all the time, each time on a new connection, and minds every failure.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<String>>>,
}

/// Between two requests: there are other cases on this machine.
const PACE: Duration = Duration::from_millis(2);

impl Load {
    pub fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut lost = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                if let Err(error) = get(address, "/who") {
                    lost.push(error.to_string());
                }
                thread::sleep(PACE);
            }
            lost
        });
        Self { stop, thread: Some(thread) }
    }

    /// Nothing was lost.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let lost = self.thread.take().unwrap().join().unwrap();
        assert!(lost.is_empty(), "{} requests lost: {lost:?}", lost.len());
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
