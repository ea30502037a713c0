//! Protocols on UDP that have connections: each flow stays with the generation that has it.

use super::datagram::{Datagram, DatagramSender, Datagrams};
use super::guard::{Cutting, DrainSignal, Guard};
use super::handle::Drain;
use super::open_flows::{Change, OpenFlows};
use super::relay::Relay;
use super::router::Router;
use super::serve;
use crate::error::{Error, Kind, Result};
use crate::systemd::activation::{Socket, SocketKind};
use crate::wire::flows::MAX_KEY;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// The number of datagrams that may wait for [`Flows::recv`].
const QUEUE: usize = 64;

/// UDP for protocols that have connections, as QUIC or DTLS: a datagram goes to the generation that
/// has its flow.
///
/// A function of the application tells the key of a datagram's flow: a connection id or, where a
/// flow is a client's address, that. A flow begins with [`open`](Self::open), and is over when that
/// is dropped. After the switch the new generation receives; what belongs to a flow that an old one
/// has open it passes on, over a socket pair that the service hands over. The old one answers from
/// the shared socket. All else is the new one's: also what belongs to no flow that anybody has.
///
/// The old generation tells its flows when it has stopped to receive, and only then the new one
/// begins: so exactly one receives, and no datagram goes astray.
///
/// An open flow is work that the drain waits for, until the drain timeout. [`recv`](Self::recv)
/// goes on until then.
///
/// ```no_run
/// # async fn example(service: &handover::Service) -> handover::Result<()> {
/// // A protocol whose datagrams begin with an id of 8 bytes, all zeroes in the first one.
/// fn key(bytes: &[u8]) -> Option<Vec<u8>> {
///     bytes.get(..8).filter(|id| **id != [0; 8]).map(<[u8]>::to_vec)
/// }
///
/// for mut flows in service.flows("game", |bytes, _from| key(bytes))? {
///     tokio::spawn(async move {
///         let mut players = std::collections::HashMap::new();
///         while let Some(datagram) = flows.recv().await {
///             match key(datagram.bytes()) {
///                 None => {
///                     let id = vec![7; 8]; // at random
///                     if let Ok(flow) = flows.open(id.clone()) {
///                         players.insert(id.clone(), flow);
///                         let _ = datagram.reply(&id).await;
///                     }
///                 }
///                 Some(id) if datagram.bytes().ends_with(b"bye") => _ = players.remove(&id),
///                 Some(_) => _ = datagram.reply(datagram.bytes()).await,
///             }
///         }
///     });
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Limitations
/// - A generation that dies loses its flows, and cuts off those of older ones that it passed on to.
/// - What is passed on is dropped, and logged, when the old generation does not take it: as the
///   kernel does with a full queue.
/// - No GRO, GSO or ECN; the receiving address is not known (see [`Datagrams`]).
#[derive(Debug)]
pub struct Flows {
    datagrams: mpsc::Receiver<Datagram>,
    links: FlowLinks,
    sender: DatagramSender,
    shared: Arc<OpenFlows>,
}

/// Makes the links to next generations. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct FlowLinks {
    links: mpsc::UnboundedSender<OwnedFd>,
}

/// An open flow. It is over when dropped.
#[derive(Debug)]
#[must_use = "the flow is over when this is dropped"]
pub struct Flow {
    key: Vec<u8>,
    shared: Arc<OpenFlows>,
    guard: Guard,
}

impl Flows {
    /// Receives from this UDP socket, with flows by this key; `older` is the link to the generation
    /// before, which that has made by [`FlowLinks::link`].
    /// [`Service::flows`](crate::Service::flows) does it all.
    ///
    /// # Errors
    /// It is another kind of socket, the link is none, or there is no tokio runtime.
    pub fn new<K>(drain: &Drain, name: &str, socket: Socket, older: Option<OwnedFd>, key: K) -> Result<Self>
    where
        K: Fn(&[u8], SocketAddr) -> Option<Vec<u8>> + Send + Sync + 'static,
    {
        socket.check(&[SocketKind::Udp], "a UDP socket", "ListenDatagram=")?;
        let runtime = serve::runtime(name)?;
        let unusable =
            |e| Error::os(format!("the link to the previous generation's flows of {name:?} cannot be used"), e);
        let older = older.map(Relay::new).transpose().map_err(unusable)?;
        let datagrams = Datagrams::new(drain, name, socket)?;
        let sender = datagrams.sender();
        let (changes, changed) = mpsc::unbounded_channel();
        let (links, linked) = mpsc::unbounded_channel();
        let (queue, received) = mpsc::channel(QUEUE);
        let shared = Arc::new(OpenFlows { name: name.into(), drain: drain.clone(), own: Mutex::default(), changes });
        let router = Router::new(datagrams, Box::new(key), Arc::clone(&shared), older, changed, linked, queue);
        runtime.spawn(router.run());
        Ok(Self { datagrams: received, links: FlowLinks { links }, sender, shared })
    }

    /// Returns the next datagram that is this generation's: of a flow that is open here, or of none
    /// that is open elsewhere. It returns `None` when the drain has begun and no flow is open any
    /// more, here or in an older generation; or when the hammer has fallen.
    ///
    /// # Cancel safety
    /// No datagram is lost.
    pub async fn recv(&mut self) -> Option<Datagram> {
        self.datagrams.recv().await
    }

    /// Begins a flow of this key. One flow may have several keys, as one of QUIC has several
    /// connection ids: open each.
    ///
    /// # Errors
    /// The key is longer than 255 bytes, or open already ([`Error::is_invalid`]).
    pub fn open(&self, key: impl Into<Vec<u8>>) -> Result<Flow> {
        open(&self.shared, key.into())
    }

    /// Returns what opens flows from elsewhere.
    #[must_use]
    pub fn opener(&self) -> FlowOpener {
        FlowOpener { shared: Arc::clone(&self.shared) }
    }

    /// Returns what sends from the shared socket.
    #[must_use]
    pub fn sender(&self) -> &DatagramSender {
        &self.sender
    }

    /// Returns what makes the links to next generations, where the service does not hand them over.
    #[must_use]
    pub fn links(&self) -> FlowLinks {
        self.links.clone()
    }

    /// Resolves when the drain begins.
    pub fn drain(&self) -> DrainSignal {
        self.shared.drain.signal()
    }
}

/// Begins flows. It is cheap to clone.
#[derive(Debug, Clone)]
pub struct FlowOpener {
    shared: Arc<OpenFlows>,
}

impl FlowOpener {
    /// Begins a flow of this key, as [`Flows::open`] does.
    ///
    /// # Errors
    /// It fails as [`Flows::open`] does.
    pub fn open(&self, key: impl Into<Vec<u8>>) -> Result<Flow> {
        open(&self.shared, key.into())
    }
}

impl FlowLinks {
    /// Makes a link for the next generation's [`Flows::new`]. Each next generation needs one of its
    /// own; the link of one that is gone is given up by itself.
    ///
    /// # Errors
    /// There is no fd left, or this generation does not receive any more.
    pub fn link(&self) -> Result<OwnedFd> {
        let (ours, theirs) = Relay::pair().map_err(|e| Error::os("no link for the flows of the next generation", e))?;
        let over = |_| Error::new(Kind::State, "the flows of this generation are over");
        self.links.send(ours).map_err(over)?;
        Ok(theirs)
    }
}

impl Flow {
    /// Returns the flow's key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Resolves when the hammer falls: the flow should end.
    pub fn cut(&self) -> Cutting {
        self.guard.cut()
    }

    /// Resolves when the drain begins: time for the flow to come to an end.
    pub fn drain(&self) -> DrainSignal {
        self.shared.drain.signal()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let key = std::mem::take(&mut self.key);
        self.shared.own().remove(&key);
        // If nobody routes any more, nobody needs to know.
        let _ = self.shared.changes.send(Change::Removed(key));
    }
}

fn open(shared: &Arc<OpenFlows>, key: Vec<u8>) -> Result<Flow> {
    if key.len() > MAX_KEY {
        return Err(Error::new(Kind::Invalid, format!("a flow's key has {} bytes, at most {MAX_KEY}", key.len())));
    }
    if !shared.own().insert(key.clone()) {
        return Err(Error::new(Kind::Invalid, "a flow of that key is open already"));
    }
    let guard = shared.drain.register(format!("{}: a flow", shared.name));
    let _ = shared.changes.send(Change::Added(key.clone()));
    Ok(Flow { key, shared: Arc::clone(shared), guard })
}
