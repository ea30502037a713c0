//! Varlink on a stream socket: JSON objects, each ended by a NUL.
//!
//! Not by the crate `zlink`: its server owns the accept loop and answers one call of all
//! connections at a time, so that nobody could ask for the status during a reload, and no drain
//! could count its connections.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// The Varlink interface.
pub const INTERFACE: &str = "io.handover.Service";

/// A call of a client is small.
pub(crate) const MAX_CALL: usize = 64 * 1024;

/// What a service says may be larger: many sockets, many connections.
pub(crate) const MAX_REPLY: usize = 16 * 1024 * 1024;

/// Who does not read for this long has gone away.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) parameters: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) more: bool,
    #[serde(default)]
    pub(crate) oneway: bool,
    #[serde(default)]
    pub(crate) upgrade: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reply {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(default)]
    pub(crate) parameters: Value,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) continues: bool,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    /// What has come and was not asked for yet.
    received: Vec<u8>,
    limit: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(stream: S, limit: usize) -> Self {
        Self { stream, received: Vec::new(), limit }
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }

    /// Receives the next message; `None` at the end.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn receive<T: for<'a> Deserialize<'a>>(&mut self) -> io::Result<Option<T>> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.received[seen..].iter().position(|b| *b == 0) {
                let message: Vec<u8> = self.received.drain(..=seen + at).collect();
                let read = serde_json::from_slice(&message[..message.len() - 1]);
                return read.map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
            }
            seen = self.received.len();
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Waits until the other end is gone. What it says meanwhile is kept, up to a limit.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn closed(&mut self) {
        while let Ok(true) = self.fill().await {}
    }

    pub(crate) async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(message)?;
        bytes.push(0);
        let written = async {
            self.stream.write_all(&bytes).await?;
            self.stream.flush().await
        };
        timeout(WRITE_TIMEOUT, written).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn fill(&mut self) -> io::Result<bool> {
        if self.received.len() >= self.limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of over {} bytes", self.limit)));
        }
        Ok(self.stream.read_buf(&mut self.received).await? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn messages_come_whole_however_they_are_split() {
        let (mut client, server) = tokio::io::duplex(1024);
        let mut wire = Wire::new(server, MAX_CALL);
        let all = b"{\"method\":\"a.B\"}\0{\"method\":\"a.C\",\"more\":true,\"new\":1}\0{";
        let writing = tokio::spawn(async move {
            for byte in all {
                client.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(wire.receive::<Call>().await.unwrap().unwrap().method, "a.B");
        let second = wire.receive::<Call>().await.unwrap().unwrap();
        assert!((second.method.as_str(), second.more) == ("a.C", true));
        assert!(wire.receive::<Call>().await.unwrap().is_none(), "half a message and the end");
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_no_call_or_endless_is_an_error() {
        for bytes in [&b"[]\0"[..], b"\0", b"{\"method\":1}\0", b"\xff\xfe\0", b"{\"method\":\"x\"} {}\0", &[b' '; 100]]
        {
            let (mut client, server) = tokio::io::duplex(1024);
            client.write_all(bytes).await.unwrap();
            assert!(Wire::new(server, 64).receive::<Call>().await.is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn replies_say_no_more_than_they_must() {
        let reply = Reply { parameters: json!({}), ..Reply::default() };
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"parameters":{}}"#);
    }
}
