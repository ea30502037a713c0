//! The way out of rustls: its keys, and the secrets that later keys are made from.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::rustls::{
    CipherSuite, ConnectionTrafficSecrets, KeyLog, ProtocolVersion, ServerConfig, ServerConnection,
};
use zeroize::Zeroizing;

use super::keys::{Cipher, HEADER, Material, TrafficSecret};
use super::layer::Layer;
use super::recent::Recent;
use super::version::Version;
use crate::sys::hidden::Hidden;

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

/// Learns the secrets of one handshake of TLS 1.3, which rustls does not hand out later. A log that
/// the application has hears all that it would hear without this.
pub(crate) struct KeyCapture {
    log: Arc<dyn KeyLog>,
    fragment: Option<usize>,
    captured: Mutex<Option<Hidden<Secrets>>>,
}

#[derive(Default)]
struct Secrets {
    client: Option<TrafficSecret>,
    server: Option<TrafficSecret>,
}

/// The number of the next record, and its key.
pub(super) type Extracted = (u64, ConnectionTrafficSecrets);

/// The secrets of a handshake. With TLS 1.2 there are none, and none are needed.
pub(crate) struct Captured {
    secrets: Option<Hidden<Secrets>>,
    /// The most plain bytes of a record that is sent.
    fragment: Option<usize>,
}

impl KeyCapture {
    /// Returns the configuration for one handshake.
    pub(crate) fn of(config: &ServerConfig) -> (Arc<Self>, Arc<ServerConfig>) {
        // rustls counts the header, too
        let fragment = config.max_fragment_size.map(|length| length.saturating_sub(HEADER));
        let capture = Arc::new(Self { log: Arc::clone(&config.key_log), fragment, captured: Mutex::default() });
        let mut config = config.clone();
        config.key_log = Arc::clone(&capture) as _;
        config.enable_secret_extraction = true;
        (capture, Arc::new(config))
    }

    /// Returns what was learned, if the connection can go on elsewhere.
    pub(crate) fn captured(&self, session: &ServerConnection) -> Option<Captured> {
        let secrets = self.captured.lock().unwrap_or_else(PoisonError::into_inner).take();
        let suite = session.negotiated_cipher_suite()?.suite();
        let version = version_of(suite)?;
        let complete = secrets.as_ref().is_some_and(|secrets| secrets.client.is_some() && secrets.server.is_some());
        (version == Version::Tls12 || complete).then_some(Captured { secrets, fragment: self.fragment })
    }
}

impl Captured {
    /// Returns what the keys of the client's records, and those of ours, are made from.
    pub(super) fn material(&self, received: Extracted, sent: Extracted) -> io::Result<(Material, Material)> {
        let secrets = self.secrets.as_deref();
        let received = material(received, secrets.and_then(|secrets| secrets.client.as_ref()))?;
        let sent = material(sent, secrets.and_then(|secrets| secrets.server.as_ref()))?;
        Ok((received, sent))
    }
}

impl KeyLog for KeyCapture {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if self.log.will_log(label) {
            self.log.log(label, client_random, secret);
        }
        if label != CLIENT && label != SERVER {
            return;
        }
        let mut captured = self.captured.lock().unwrap_or_else(PoisonError::into_inner);
        if captured.is_none() {
            // without memory it does not move
            *captured = Hidden::new(Secrets::default()).ok();
        }
        if let Some(secrets) = &mut *captured {
            let one = if label == CLIENT { &mut secrets.client } else { &mut secrets.server };
            *one = TrafficSecret::new(secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == CLIENT || label == SERVER || self.log.will_log(label)
    }
}

impl fmt::Debug for KeyCapture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyCapture")
    }
}

impl fmt::Debug for Captured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Captured")
    }
}

/// Returns the version that a suite is of, if it can move.
fn version_of(suite: CipherSuite) -> Option<Version> {
    use CipherSuite as Is;
    match suite {
        Is::TLS13_AES_128_GCM_SHA256 | Is::TLS13_AES_256_GCM_SHA384 | Is::TLS13_CHACHA20_POLY1305_SHA256 => {
            Some(Version::Tls13)
        }
        Is::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | Is::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        | Is::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | Is::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        | Is::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | Is::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(Version::Tls12),
        _ => None,
    }
}

impl Layer {
    /// Goes on with a connection of rustls', of which these bytes were received and not given to
    /// it, a part of a record, and these were the last that it was given.
    ///
    /// # Errors
    /// The connection is at its end, or there is no memory. Then it is lost.
    pub(crate) fn of(
        mut session: ServerConnection,
        captured: &Captured,
        sealed: Vec<u8>,
        recent: &Recent,
    ) -> io::Result<Self> {
        let state = session.process_new_packets().map_err(io::Error::other)?;
        let mut plain = vec![0; state.plaintext_bytes_to_read()];
        session.reader().read_exact(&mut plain)?;
        // The answer to a key update waits in there for the next write, of which an empty one is
        // enough. It is sealed with the key before.
        let _ = session.writer().write(&[])?;
        let mut out = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut out)?;
        }
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
            _ => Version::Tls12,
        };
        let extracted = session.dangerous_extract_secrets().map_err(io::Error::other)?;
        let (read, write) = captured.material(extracted.rx, extracted.tx)?;
        let handshake = recent.part_of_message(version, &read)?;
        let mut layer = Self::new(version, read, write)?;
        layer.begin_message(handshake);
        if let Some(fragment) = captured.fragment {
            layer.set_fragment(fragment);
        }
        layer.restore(sealed, plain, out, state.peer_has_closed());
        Ok(layer)
    }
}

fn material(extracted: Extracted, first: Option<&TrafficSecret>) -> io::Result<Material> {
    let (sequence, secrets) = extracted;
    let (cipher, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Cipher::ChaCha20Poly1305, key, iv),
        _ => return Err(io::Error::other("its cipher cannot move")),
    };
    let iv = Zeroizing::new(<[u8; 12]>::try_from(iv.as_ref()).map_err(|_| io::Error::other("its cipher cannot move"))?);
    let material = Material::new(cipher, key.as_ref(), &*iv, sequence)
        .ok_or_else(|| io::Error::other("its cipher cannot move"))?;
    Ok(match first {
        Some(first) => material.with_secret_from(first.get()),
        None => material,
    })
}
