//! One client: connects when it must, sends, verifies the answer, counts. It never repeats a
//! request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ask::Ask;
use super::connection::{Answer, Connection};
use super::http1;
use super::kind::{Cause, Kind};
use super::message::{Broken, Idle, broken};
use super::stats::{Loss, Stats};
use super::target::Target;
use super::turnover::{Close, Tenant};

/// A client that lost a request does not storm the service.
const AFTER_LOSS: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct Client {
    kind: Kind,
    target: Arc<Target>,
    stats: Arc<Stats>,
    /// How much later than by their nature connections and answers may come.
    limit: Duration,
    connection: Option<Connection>,
    tenant: Tenant,
}

impl Client {
    pub fn new(kind: Kind, target: Arc<Target>, stats: Arc<Stats>, limit: Duration) -> Self {
        let tenant = Tenant::new(kind, Arc::clone(&stats));
        Self { kind, target, stats, limit, connection: None, tenant }
    }

    /// Waits with nothing under way. When the server closes in that time, nothing is lost: the next
    /// request connects anew.
    pub(super) async fn idle(&mut self, time: Duration) {
        let until = Instant::now() + time;
        self.idle_until_closed(time).await;
        tokio::time::sleep_until(until.into()).await;
    }

    /// The same, but no longer than the server keeps the connection.
    pub(super) async fn idle_until_closed(&mut self, time: Duration) {
        let idle = match &mut self.connection {
            None => return,
            Some(Connection::One(one)) => one.idle(time).await,
            Some(Connection::Two(two)) => two.idle(time).await,
        };
        if idle != Idle::Open {
            self.closed(&idle);
        }
    }

    /// Whether there is a connection on which the next request can go.
    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Connects, with nothing to say yet.
    pub(super) async fn connect(&mut self) -> bool {
        match self.open().await {
            Ok(connection) => self.connection = Some(connection),
            Err(broken) => {
                self.stats.sent(self.kind);
                self.lost(broken, None, None).await;
            }
        }
        self.connection.is_some()
    }

    pub(super) fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.end();
        }
    }

    /// Sends one request and counts how it ended; who answered, where the answer tells.
    pub async fn ask(&mut self, ask: Ask) -> Option<u32> {
        self.stats.sent(self.kind);
        let begun = Instant::now();
        self.last_look().await;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match self.open().await {
                Ok(connection) => connection,
                Err(broken) => {
                    self.lost(broken, None, None).await;
                    return None;
                }
            },
        };
        let sent = Instant::now();
        let mut held = Duration::ZERO;
        match self.exchange(&mut connection, &ask, &mut held).await {
            Ok(Some(Answer { response, generation })) => {
                let by = self.stats.tag(generation);
                self.stats.answered(self.kind, begun, ask.takes + held, by);
                connection.is_served_by(by);
                self.keep(connection, response.close, ask.close);
                by
            }
            Ok(None) => {
                self.stats.handed_back(self.kind);
                self.stats.announced(self.kind);
                if connection.is_ended().await {
                    self.tenant.closed(Close::Announced);
                }
                None
            }
            Err(broken) => {
                if broken.is_end() && connection.is_ended().await {
                    self.tenant.closed(Close::Unannounced);
                }
                self.lost(broken, Some(&connection), Some(sent)).await;
                None
            }
        }
    }

    /// Sends all in one write, and reads as many answers.
    pub(super) async fn pipeline(&mut self, asks: &[Ask]) {
        let begun = Instant::now();
        self.last_look().await;
        for _ in asks {
            self.stats.sent(self.kind);
        }
        let mut connection = match self.connection.take().map_or_else(|| None, Connection::one) {
            Some(connection) => connection,
            None => match self.open().await {
                Ok(Connection::One(one)) => one,
                Ok(Connection::Two(_)) => return,
                Err(broken) => {
                    for _ in asks {
                        self.lost_now(broken.clone(), None, None);
                    }
                    return tokio::time::sleep(AFTER_LOSS).await;
                }
            },
        };
        let sent = Instant::now();
        let heads: Vec<u8> = asks.iter().flat_map(|ask| ask.head(&self.target.host)).collect();
        // What has been answered before a failed write can still be read.
        let written = connection.write(&heads).await;
        for (n, ask) in asks.iter().enumerate() {
            let last = n + 1 == asks.len();
            let answer = async {
                let response = connection.response().await?;
                let generation = ask.expect.check(&response)?;
                if last {
                    connection.nothing_more()?;
                }
                Ok((response, generation))
            };
            let answer = tokio::time::timeout(self.limit, answer).await;
            match answer.unwrap_or_else(|_| Err(self.late(self.limit))) {
                Ok((response, generation)) => {
                    let by = self.stats.tag(generation.or(response.generation));
                    self.stats.answered(self.kind, begun, Duration::ZERO, by);
                    connection.served_by = by.or(connection.served_by);
                    if response.close {
                        // The rest was not acted on, and we are told so (RFC 9112, 9.6).
                        asks[n + 1..].iter().for_each(|_| self.stats.handed_back(self.kind));
                        self.stats.announced(self.kind);
                        self.tenant.closed(Close::Announced);
                        return;
                    }
                }
                Err(broken) => {
                    let connection = Connection::One(connection);
                    if broken.is_end() {
                        self.tenant.closed(Close::Unannounced);
                    }
                    let broken = written.err().unwrap_or(broken);
                    for _ in &asks[n..] {
                        self.lost_now(broken.clone(), Some(&connection), Some(sent));
                    }
                    return tokio::time::sleep(AFTER_LOSS).await;
                }
            }
        }
        self.connection = Some(Connection::One(connection));
    }

    /// Whatever has happened to the connection by now happened before the request.
    async fn last_look(&mut self) {
        let idle = match &mut self.connection {
            None => return,
            // It has something to say on this very connection: one that is closed without a word
            // before that is not served.
            Some(_) if self.kind == Kind::Late => return,
            Some(Connection::One(one)) => one.look(),
            Some(Connection::Two(two)) => two.ready().await,
        };
        if idle != Idle::Open {
            self.closed(&idle);
        }
    }

    fn closed(&mut self, idle: &Idle) {
        let connection = self.connection.take();
        match idle {
            Idle::Open => self.connection = connection,
            Idle::Closed => {
                self.stats.idle_closed(self.kind);
                self.tenant.closed(Close::Unannounced);
            }
            Idle::Announced => {
                self.stats.announced(self.kind);
                self.tenant.closed(Close::Announced);
            }
            Idle::Spoke => {
                let broken = broken(Cause::Unasked, "bytes on a connection that was idle");
                self.lost_now(broken, connection.as_ref(), None);
            }
        }
    }

    async fn open(&mut self) -> Result<Connection, Broken> {
        let connection = Connection::open(&self.target, self.limit).await?;
        self.tenant.connected();
        Ok(connection)
    }

    async fn exchange(
        &self,
        connection: &mut Connection,
        ask: &Ask,
        held: &mut Duration,
    ) -> Result<Option<Answer>, Broken> {
        let pieces = u32::try_from(ask.body.len()).unwrap_or(u32::MAX);
        let holds = ask.split.as_ref().map_or(Duration::ZERO, |(_, hold)| hold.most());
        let limit = (ask.takes + self.limit + holds).saturating_add(ask.pause.saturating_mul(pieces));
        let answer = connection.exchange(ask, &self.target, held);
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(self.late(limit)))
    }

    fn late(&self, limit: Duration) -> Broken {
        broken(Cause::Timeout, format!("nothing complete within {limit:?}"))
    }

    fn keep(&mut self, connection: Connection, announced: bool, ours: bool) {
        match connection {
            connection if !announced && !ours => self.connection = Some(connection),
            Connection::One(one) => {
                if announced && !ours {
                    self.stats.announced(self.kind);
                    self.tenant.closed(Close::Announced);
                }
                one.end();
            }
            Connection::Two(_) => {}
        }
    }

    async fn lost(&self, broken: Broken, connection: Option<&Connection>, sent: Option<Instant>) {
        self.lost_now(broken, connection, sent);
        tokio::time::sleep(AFTER_LOSS).await;
    }

    fn lost_now(&self, broken: Broken, connection: Option<&Connection>, sent: Option<Instant>) {
        self.stats.lost(Loss {
            kind: self.kind,
            cause: broken.cause,
            detail: broken.detail,
            connected: connection.map(Connection::opened),
            sent,
            failed: Instant::now(),
            served_by: connection.and_then(Connection::served_by),
        });
    }
}

impl Connection {
    fn one(self) -> Option<Box<http1::Connection>> {
        match self {
            Self::One(one) => Some(one),
            Self::Two(_) => None,
        }
    }
}
