//! What was agreed on in a handshake.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{HandshakeKind, ProtocolVersion, ServerConnection};

#[cfg(feature = "http")]
use super::record::{Field, Fields, Version};

/// What was agreed on in the handshake. HTTP handlers find it in the request's `ConnectionInfo`.
/// A connection that has moved to another generation has the same. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    agreed: Arc<Agreed>,
}

#[derive(Debug)]
struct Agreed {
    server_name: Option<String>,
    protocol: Option<Vec<u8>>,
    version: Option<ProtocolVersion>,
    resumed: bool,
    certificates: Vec<CertificateDer<'static>>,
}

impl TlsInfo {
    pub(super) fn of(session: &ServerConnection) -> Self {
        let agreed = Agreed {
            server_name: session.server_name().map(str::to_owned),
            protocol: session.alpn_protocol().map(<[u8]>::to_vec),
            version: session.protocol_version(),
            resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
            certificates: session.peer_certificates().map(<[_]>::to_vec).unwrap_or_default(),
        };
        Self { agreed: Arc::new(agreed) }
    }

    /// Returns the name that the client asked for (SNI).
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.agreed.server_name.as_deref()
    }

    /// Returns the application protocol that was chosen (ALPN), for example `h2`.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.agreed.protocol.as_deref()
    }

    /// Returns whether it is TLS 1.2 or 1.3.
    #[must_use]
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.agreed.version
    }

    /// Returns whether the client came back with a session ticket.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.agreed.resumed
    }

    /// Returns the client's certificate and its chain, if [one was asked
    /// for](super::TlsOptions::client_verifier).
    #[must_use]
    pub fn client_certificates(&self) -> &[CertificateDer<'static>] {
        &self.agreed.certificates
    }
}

#[cfg(feature = "http")]
impl TlsInfo {
    pub(super) fn pack(&self, to: &mut Fields) {
        let Agreed { server_name, protocol, resumed, certificates, .. } = &*self.agreed;
        server_name.iter().for_each(|name| to.put(Field::ServerName, name.as_bytes()));
        protocol.iter().for_each(|protocol| to.put(Field::Protocol, protocol));
        to.put_flag(Field::Resumed, *resumed);
        certificates.iter().for_each(|certificate| to.put(Field::Certificate, certificate));
    }

    /// Reads what was packed of a connection of that version; `None` if it is damaged.
    pub(super) fn unpack(fields: &[(Field, &[u8])], version: Version) -> Option<Self> {
        let all = |wanted| fields.iter().filter(move |(field, _)| *field == wanted).map(|(_, bytes)| bytes.to_vec());
        let agreed = Agreed {
            server_name: all(Field::ServerName).next().map(String::from_utf8).transpose().ok()?,
            protocol: all(Field::Protocol).next(),
            version: Some(match version {
                Version::Tls12 => ProtocolVersion::TLSv1_2,
                Version::Tls13 => ProtocolVersion::TLSv1_3,
            }),
            resumed: all(Field::Resumed).next().is_some(),
            certificates: all(Field::Certificate).map(CertificateDer::from).collect(),
        };
        Some(Self { agreed: Arc::new(agreed) })
    }
}
