//! One client: connects when it must, sends, verifies the answer, counts. It never repeats a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::http1::{Broken, Connection, Idle, Response, broken};
use super::stats::{Cause, Kind, Loss, Stats};

/// No connect takes longer: while a killed service is restarted, connections wait in the listener's backlog.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// An answer may come later than the request itself takes, by as much as a killed service needs to be back.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A client that lost a request does not storm the service.
const AFTER_LOSS: Duration = Duration::from_millis(10);

/// A request and what its answer must be.
#[derive(Debug)]
pub(super) struct Ask {
    /// The request's bytes, in the pieces in which they are written.
    pub(super) pieces: Vec<Vec<u8>>,
    /// The wait between two pieces.
    pub(super) pause: Duration,
    pub(super) expect: Expect,
    /// The time that this request takes by itself: pauses, sleeps, the stream's intervals.
    pub(super) takes: Duration,
    /// Whether the client said that it closes afterwards.
    pub(super) close: bool,
}

#[derive(Debug)]
pub(super) enum Expect {
    /// A line with the serving pid.
    Pid,
    Exactly(Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Client {
    kind: Kind,
    address: SocketAddr,
    stats: Arc<Stats>,
    connection: Option<Connection>,
}

impl Client {
    pub(super) fn new(kind: Kind, address: SocketAddr, stats: Arc<Stats>) -> Self {
        Self { kind, address, stats, connection: None }
    }

    /// Waits with nothing under way. When the server closes in that time, nothing is lost: the next request connects anew.
    pub(super) async fn idle(&mut self, time: Duration) {
        let Some(connection) = &mut self.connection else { return tokio::time::sleep(time).await };
        let opened = connection.opened;
        let (until, served_by) = (Instant::now() + time, connection.served_by);
        match connection.idle(time).await {
            Idle::Open => return,
            Idle::Closed => self.stats.idle_closed(self.kind),
            Idle::Spoke => self.stats.lost(Loss {
                kind: self.kind,
                cause: Cause::Malformed,
                detail: "bytes that nobody asked for".into(),
                connected: Some(opened),
                sent: None,
                failed: Instant::now(),
                served_by,
            }),
        }
        self.connection = None;
        tokio::time::sleep_until(until.into()).await;
    }

    /// Sends one request and counts how it ended; the pid that answered, where the answer tells.
    pub(super) async fn ask(&mut self, ask: Ask) -> Option<u32> {
        let begun = Instant::now();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match Connection::open(self.address, CONNECT_LIMIT).await {
                Ok(connection) => connection,
                Err(broken) => {
                    self.lost(broken, None, None).await;
                    return None;
                }
            },
        };
        let sent = Instant::now();
        match exchange(&mut connection, &ask).await {
            Ok((pid, close)) => {
                self.stats.answered(self.kind, begun, ask.takes, pid);
                connection.served_by = pid.or(connection.served_by);
                self.connection = (!close && !ask.close).then_some(connection);
                pid
            }
            Err(broken) => {
                self.lost(broken, Some(&connection), Some(sent)).await;
                None
            }
        }
    }

    async fn lost(&self, broken: Broken, connection: Option<&Connection>, sent: Option<Instant>) {
        self.stats.lost(Loss {
            kind: self.kind,
            cause: broken.cause,
            detail: broken.detail,
            connected: connection.map(|c| c.opened),
            sent,
            failed: Instant::now(),
            served_by: connection.and_then(|c| c.served_by),
        });
        tokio::time::sleep(AFTER_LOSS).await;
    }
}

/// The answering pid, and whether the server announced to close.
async fn exchange(connection: &mut Connection, ask: &Ask) -> Result<(Option<u32>, bool), Broken> {
    let answer = async {
        for (n, piece) in ask.pieces.iter().enumerate() {
            if n > 0 {
                tokio::time::sleep(ask.pause).await;
            }
            connection.write(piece).await?;
        }
        connection.response().await
    };
    let limit = ask.takes + ANSWER_LIMIT;
    let response = tokio::time::timeout(limit, answer)
        .await
        .map_err(|_| broken(Cause::Timeout, format!("nothing complete within {limit:?}")))??;
    Ok((ask.expect.check(&response)?, response.close))
}

impl Expect {
    fn check(&self, response: &Response) -> Result<Option<u32>, Broken> {
        let shown = || String::from_utf8_lossy(&response.body[..response.body.len().min(80)]).into_owned();
        if response.status != 200 {
            return Err(broken(Cause::Status, format!("{} {:?}", response.status, shown())));
        }
        match self {
            Self::Pid => {
                let pid =
                    std::str::from_utf8(&response.body).ok().and_then(|body| body.strip_suffix('\n')?.parse().ok());
                pid.map(Some).ok_or_else(|| broken(Cause::WrongBody, format!("{:?} is no pid", shown())))
            }
            Self::Exactly(body) if *body == response.body => Ok(None),
            Self::Exactly(body) => {
                let detail = format!(
                    "{} bytes that differ from the {} expected: {:?}…",
                    response.body.len(),
                    body.len(),
                    shown()
                );
                Err(broken(Cause::WrongBody, detail))
            }
        }
    }
}
