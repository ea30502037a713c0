//! A client that talks over a WebSocket: it sends texts and waits for each to come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::http1::connect;
use super::kind::{Cause, Kind};
use super::message::{Broken, broken};
use super::plan::Plan;
use super::random::Random;
use super::stats::{Loss, Stats};
use super::target::{Stream, Target};
use super::turnover::{Close, Tenant};
use super::until::Signals;

/// A client that lost something does not storm the service.
const AFTER_LOSS: Duration = Duration::from_millis(10);

pub(super) struct WebSocket {
    target: Arc<Target>,
    stats: Arc<Stats>,
    plan: Arc<Plan>,
    socket: Option<WebSocketStream<Stream>>,
    opened: Option<Instant>,
    tenant: Tenant,
}

/// What came instead of a text.
enum Other {
    /// The server said that it closes.
    Announced,
    Broken(Broken),
}

impl WebSocket {
    pub(super) fn new(target: Arc<Target>, stats: Arc<Stats>, plan: Arc<Plan>) -> Self {
        let tenant = Tenant::new(Kind::WebSocket, Arc::clone(&stats));
        Self { target, stats, plan, socket: None, opened: None, tenant }
    }

    /// `most`: how long it waits at most before it connects.
    pub(super) async fn run(mut self, mut random: Random, mut signals: Signals, mut most: Duration) {
        while !signals.is_stopped() {
            let time = random.between(&self.plan.cadence).min(most);
            most = Duration::MAX;
            tokio::select! {
                () = self.idle(time) => {}
                () = signals.stopped() => break,
            }
            self.echo(&format!("{:016x}", random.bits())).await;
        }
        if let Some(mut socket) = self.socket.take() {
            // The client's own goodbye; the server's answer to it is of no matter.
            let _ = tokio::time::timeout(self.plan.limit, socket.close(None)).await;
        }
    }

    /// Reads what comes unasked: other people's messages, pings, a close.
    async fn idle(&mut self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        while let Some(socket) = &mut self.socket {
            let Ok(message) = tokio::time::timeout_at(until, socket.next()).await else { return };
            match text(message) {
                Ok(_) => {}
                Err(Other::Announced) => self.goodbye().await,
                Err(Other::Broken(_)) => {
                    self.socket = None;
                    self.stats.idle_closed(Kind::WebSocket);
                    self.tenant.closed(Close::Unannounced);
                }
            }
        }
        tokio::time::sleep_until(until).await;
    }

    /// One text there and back.
    async fn echo(&mut self, words: &str) {
        self.stats.sent(Kind::WebSocket);
        let begun = Instant::now();
        if self.socket.is_none() {
            match self.open().await {
                Ok(socket) => {
                    (self.socket, self.opened) = (Some(socket), Some(Instant::now()));
                    self.tenant.connected();
                }
                Err(broken) => return self.lost(broken, None).await,
            }
        }
        let Some(socket) = &mut self.socket else { return };
        let sent = Instant::now();
        let answer = async {
            let written = socket.send(Message::text(words)).await;
            loop {
                // After a failed write, what the server said before it closed can still be read.
                match text(socket.next().await) {
                    Ok(Some(said)) if said == words => return Ok(()),
                    Ok(_) => {}
                    Err(Other::Broken(_)) if written.is_err() => {
                        return Err(Other::Broken(broken(Cause::Reset, "writing")));
                    }
                    Err(other) => return Err(other),
                }
            }
        };
        match tokio::time::timeout(self.plan.limit, answer).await {
            Ok(Ok(())) => self.stats.answered(Kind::WebSocket, begun, Duration::ZERO, None),
            Ok(Err(Other::Announced)) => {
                self.stats.handed_back(Kind::WebSocket);
                self.goodbye().await;
            }
            Ok(Err(Other::Broken(broken))) => self.lost(broken, Some(sent)).await,
            Err(_) => self.lost(broken(Cause::Timeout, "no echo"), Some(sent)).await,
        }
    }

    /// Answers the server's close frame and lets it end the connection.
    async fn goodbye(&mut self) {
        self.stats.announced(Kind::WebSocket);
        self.tenant.closed(Close::Announced);
        if let Some(mut socket) = self.socket.take() {
            let end = async { while let Some(Ok(_)) = socket.next().await {} };
            let _ = tokio::time::timeout(self.plan.limit, end).await;
        }
    }

    async fn open(&self) -> Result<WebSocketStream<Stream>, Broken> {
        let stream = connect(&self.target, self.plan.limit).await?;
        let scheme = if self.target.tls.is_some() { "wss" } else { "ws" };
        let url = format!("{scheme}://{}{}", self.target.host, self.plan.websocket_path);
        match tokio::time::timeout(self.plan.limit, client_async(url, stream)).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(Error::Http(response))) => Err(broken(Cause::Status, response.status().to_string())),
            Ok(Err(e)) => Err(cause(&e)),
            Err(_) => Err(broken(Cause::Timeout, "the upgrade")),
        }
    }

    async fn lost(&mut self, broken: Broken, sent: Option<Instant>) {
        if self.socket.take().is_some() && broken.is_end() {
            self.tenant.closed(Close::Unannounced);
        }
        self.stats.lost(Loss {
            kind: Kind::WebSocket,
            cause: broken.cause,
            detail: broken.detail,
            connected: sent.and(self.opened),
            sent,
            failed: Instant::now(),
            served_by: None,
        });
        tokio::time::sleep(AFTER_LOSS).await;
    }
}

fn text(message: Option<Result<Message, Error>>) -> Result<Option<String>, Other> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(Some(text.as_str().to_owned())),
        Some(Ok(Message::Close(_))) => Err(Other::Announced),
        Some(Ok(_)) => Ok(None),
        Some(Err(e)) => Err(Other::Broken(cause(&e))),
        None => Err(Other::Broken(broken(Cause::Closed, "closed without a close frame"))),
    }
}

fn cause(e: &Error) -> Broken {
    match e {
        Error::Io(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => broken(Cause::Closed, e.to_string()),
        Error::Io(_) => broken(Cause::Reset, e.to_string()),
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_) => broken(Cause::Closed, e.to_string()),
        e => broken(Cause::Malformed, e.to_string()),
    }
}
