//! Connections whose handshake was in another generation.

use tokio_rustls::rustls::pki_types::UnixTime;

use super::handle::Tls;
use super::info::TlsInfo;
use super::options::MovedClients;
use super::stream::TlsStream;
use crate::drain::Stream;

impl Tls {
    /// Goes on with a connection of which another generation has given this state.
    ///
    /// # Errors
    /// Why not, in one word.
    pub(crate) fn adopt(&self, stream: Stream, state: &[u8]) -> Result<TlsStream, &'static str> {
        let stream = TlsStream::moved(stream, state).map_err(|error| {
            tracing::debug!(%error, "a TLS connection cannot be taken");
            "damaged"
        })?;
        if self.accepts(stream.info()) { Ok(stream) } else { Err("client") }
    }

    /// Goes on with one that was given here, and not taken.
    ///
    /// # Errors
    /// Why not, in one word.
    pub(crate) fn take_back(&self, stream: Stream, state: &[u8]) -> Result<TlsStream, &'static str> {
        TlsStream::moved(stream, state).map_err(|_| "damaged")
    }

    /// Returns whether the client is one that a handshake would let in now. Whom the other
    /// generation trusted nobody here knows; but its certificates are here.
    fn accepts(&self, info: &TlsInfo) -> bool {
        let Some(verifier) = self.client_verifier().filter(|verifier| verifier.offer_client_auth()) else {
            return true;
        };
        match (self.moved_clients(), info.client_certificates().split_first()) {
            (MovedClients::Take, _) => true,
            (MovedClients::Leave, _) => false,
            (MovedClients::Verify, None) => !verifier.client_auth_mandatory(),
            (MovedClients::Verify, Some((own, chain))) => {
                let verified = verifier.verify_client_cert(own, chain, UnixTime::now());
                if let Err(error) = &verified {
                    tracing::debug!(%error, "a client of another generation is not let in here");
                }
                verified.is_ok()
            }
        }
    }
}
