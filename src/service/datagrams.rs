//! Datagrams, and other fds that were passed by name.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use crate::drain::{Datagram, DatagramOptions, Datagrams, Flows, serve_datagrams};
use crate::error::Result;
use crate::service::api::Service;
use crate::systemd::activation::{Need, RECEIVED, Socket};

/// A link to the previous generation's flows is passed under a name that begins so. (Not with
/// `handover.`: those are of the fd store.)
const FLOWS: &str = "handover-flows.";

impl Service {
    /// Serves each datagram to the UDP and Unix datagram sockets of that name with a function, in a
    /// task of its own.
    ///
    /// Receiving starts when the service is ready, and goes over to the next generation at the
    /// switch; what is in the kernel's queue then is received by that one. Handlers that run then
    /// are finished here. See [`serve_datagrams`].
    ///
    /// ```no_run
    /// # fn example(service: &handover::Service) -> handover::Result<()> {
    /// service.serve_datagrams("echo", |datagram| async move { datagram.reply(datagram.bytes()).await })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`datagrams`](Self::datagrams); and outside of a tokio runtime.
    pub fn serve_datagrams<H, F>(&self, name: &str, handler: H) -> Result<()>
    where
        H: Fn(Datagram) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        self.serve_datagrams_with(name, DatagramOptions::default(), handler)
    }

    /// Serves datagrams as [`serve_datagrams`](Self::serve_datagrams) does, with settings.
    ///
    /// # Errors
    /// As [`serve_datagrams`](Self::serve_datagrams); and a setting that cannot work.
    pub fn serve_datagrams_with<H, F>(&self, name: &str, options: DatagramOptions, handler: H) -> Result<()>
    where
        H: Fn(Datagram) -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let sockets = self.sockets().take(name, &RECEIVED)?;
        serve_datagrams(self.drain(), name, sockets, options, handler)
    }

    /// Returns a receiver for each of the sockets of that name: UDP and Unix datagram sockets,
    /// FIFOs, message queues and netlink sockets.
    ///
    /// # Errors
    /// With [`Error::is_socket`](crate::Error::is_socket): nobody passed a socket of that name, it
    /// is of another kind, or the name was taken before.
    pub fn datagrams(&self, name: &str) -> Result<Vec<Datagrams>> {
        let sockets = self.sockets().take(name, &RECEIVED)?;
        sockets.into_iter().map(|socket| Datagrams::new(self.drain(), name, socket)).collect()
    }

    /// Returns a receiver for each of the UDP sockets of that name, for protocols that have
    /// connections: a datagram whose flow an older generation has open goes there. See [`Flows`].
    ///
    /// # Errors
    /// As [`datagrams`](Self::datagrams); one of them is no UDP socket; and outside of a tokio
    /// runtime.
    pub fn flows<K>(&self, name: &str, key: K) -> Result<Vec<Flows>>
    where
        K: Fn(&[u8], SocketAddr) -> Option<Vec<u8>> + Clone + Send + Sync + 'static,
    {
        let mut sockets = self.sockets();
        let mut all = Vec::new();
        for (number, socket) in sockets.take(name, &RECEIVED)?.into_iter().enumerate() {
            // The order of the sockets is kept from generation to generation.
            let link = format!("{FLOWS}{number}.{name}");
            let flows = Flows::new(self.drain(), name, socket, sockets.older_flows(&link)?, key.clone())?;
            sockets.keep_flows(link, flows.links());
            all.push(flows);
        }
        Ok(all)
    }

    /// Returns whatever was passed under that name, of any kind, as copies: the service keeps its
    /// own, so that the next generation can have them.
    ///
    /// There is no gate: whoever reads must listen to
    /// [`Drain::signal`](crate::drain::Drain::signal) itself.
    ///
    /// # Errors
    /// With [`Error::is_socket`](crate::Error::is_socket): nothing of that name was passed, or the
    /// name was taken before.
    pub fn fds(&self, name: &str) -> Result<Vec<Socket>> {
        self.sockets().take(name, &Need::ANYTHING)
    }
}
