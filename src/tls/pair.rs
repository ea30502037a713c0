//! A certificate chain and its key: read, and judged before clients see them.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, CertificateError, InconsistentKeys, RootCertStore};
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};

/// Longest file that is read: a chain has some kilobytes.
const MAX_FILE: u64 = 1 << 20;
/// Reads again when the files change under its hands, this often at most.
const READS: usize = 4;

/// A pair that clients may see.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    /// Seconds since 1970.
    pub(super) not_after: Option<u64>,
}

/// Both PEM texts, with what messages call them.
pub(super) struct Pem {
    pub(super) chain: Vec<u8>,
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) chain_name: String,
    pub(super) key_name: String,
}

/// What a pair is judged by.
pub(super) struct Judge {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) ignore_validity: bool,
}

impl Judge {
    /// Returns the pair, or what is wrong with it and what to do.
    pub(super) fn judge(&self, pem: &Pem) -> Result<Pair> {
        let chain = self.chain(pem)?;
        let key = self.key(pem, chain)?;
        let leaf = key.end_entity_cert().map_err(|e| unusable("certificate chain", &pem.chain_name, &e))?;
        let validity = self.validity(leaf);
        if let Some((not_before, not_after)) = validity
            && !self.ignore_validity
        {
            let now = now();
            if now > not_after {
                let why = format!("it expired {} ago; renew it", Age(now - not_after));
                return Err(unusable("certificate chain", &pem.chain_name, &why));
            }
            if now < not_before {
                let why = format!("it is not valid for another {}; check this machine's clock", Age(not_before - now));
                return Err(unusable("certificate chain", &pem.chain_name, &why));
            }
        }
        Ok(Pair { key: Arc::new(key), not_after: validity.map(|(_, not_after)| not_after) })
    }

    fn chain(&self, pem: &Pem) -> Result<Vec<CertificateDer<'static>>> {
        let refuse = |why: &dyn fmt::Display| unusable("certificate chain", &pem.chain_name, why);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem.chain)
            .collect::<Result<_, _>>()
            .map_err(|e| refuse(&format_args!("{}: was it only half written?", Broken(&e))))?;
        if chain.is_empty() {
            return Err(refuse(&"it has no certificate in it (-----BEGIN CERTIFICATE-----)"));
        }
        // Of an intermediate that is past its time clients may know a newer one: that is no reason
        // to stop.
        for (at, certificate) in chain.iter().enumerate().skip(1) {
            if !self.ignore_validity && self.validity(certificate).is_some_and(|(_, not_after)| now() > not_after) {
                tracing::warn!("certificate {} of the chain {} has expired", at + 1, pem.chain_name);
            }
        }
        Ok(chain)
    }

    fn key(&self, pem: &Pem, chain: Vec<CertificateDer<'static>>) -> Result<CertifiedKey> {
        let refuse = |why: &dyn fmt::Display| unusable("private key", &pem.key_name, why);
        let key = PrivateKeyDer::from_pem_slice(&pem.key).map_err(|e| match e {
            pem::Error::NoItemsFound if pem.key.windows(9).any(|w| w == b"ENCRYPTED") => {
                refuse(&"it is encrypted; decrypt it first (openssl pkey)")
            }
            pem::Error::NoItemsFound => refuse(&"it has no private key in it (PKCS#8, PKCS#1 or SEC1, as PEM)"),
            broken => refuse(&format_args!("{}: was it only half written?", Broken(&broken))),
        })?;
        let key = self.provider.key_provider.load_private_key(key).map_err(|e| {
            refuse(&format_args!("{e}; use ECDSA with P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits"))
        })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
            Err(rustls::Error::InconsistentKeys(_)) => Err(refuse(&format_args!(
                "it is not the key of the first certificate in {}: take both of one renewal, and the server's own \
                 certificate first",
                pem.chain_name
            ))),
            Err(e) => Err(unusable("certificate chain", &pem.chain_name, &e)),
        }
    }

    /// Reads from when to when it is valid, in seconds since 1970. webpki has no question for it,
    /// but says it when it refuses: it looks at the time first. One more X.509 parser was rejected.
    fn validity(&self, certificate: &CertificateDer<'_>) -> Option<(u64, u64)> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let at = |seconds| {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &RootCertStore::empty(),
                &[],
                UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
                self.provider.signature_verification_algorithms.all,
            )
        };
        let not_before = match at(0) {
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                not_before.as_secs()
            }
            _ => 0,
        };
        match at(u64::MAX) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                Some((not_before, not_after.as_secs()))
            }
            _ => None,
        }
    }
}

/// Where a pair is read from.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
}

/// Which files were there; another one when either was written, renamed over, or its symlink
/// pointed elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp([Option<[i128; 5]>; 2]);

impl Files {
    pub(super) fn stamp(&self) -> Stamp {
        let stamp = |path: &Path| {
            let file = std::fs::metadata(path).ok()?;
            let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            let (written, changed) = (time(file.mtime(), file.mtime_nsec()), time(file.ctime(), file.ctime_nsec()));
            Some([i128::from(file.dev()), i128::from(file.ino()), i128::from(file.size()), written, changed])
        };
        Stamp([stamp(&self.chain), stamp(&self.key)])
    }

    /// Reads both texts, of one moment if there is one.
    pub(super) fn read(&self) -> (Stamp, Result<Pem>) {
        let mut stamp = self.stamp();
        for left in (0..READS).rev() {
            let pem = self.read_once();
            let after = self.stamp();
            if after == stamp || left == 0 {
                return (stamp, pem);
            }
            stamp = after;
        }
        (stamp, self.read_once())
    }

    fn read_once(&self) -> Result<Pem> {
        Ok(Pem {
            chain: read("certificate chain", &self.chain)?,
            key: Zeroizing::new(read("private key", &self.key)?),
            chain_name: self.chain.display().to_string(),
            key_name: self.key.display().to_string(),
        })
    }
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>> {
    let failed = |e: io::Error| {
        let todo = match e.kind() {
            io::ErrorKind::NotFound => "is the path right?",
            io::ErrorKind::PermissionDenied => "the service's user must be able to read it",
            _ => "it must be a readable file",
        };
        Error::os(format!("the {what} {} cannot be read ({todo})", path.display()), e)
    };
    // Nonblocking: a FIFO without a writer would hold us for ever.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    // Room for all of it at once: a buffer that grew would leave copies of a key behind.
    let length = file.metadata().map_err(failed)?.len().min(MAX_FILE);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 64);
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(unusable(what, &path.display(), &format_args!("it is longer than {MAX_FILE} bytes")));
    }
    Ok(bytes)
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn unusable(what: &str, name: &dyn fmt::Display, why: &dyn fmt::Display) -> Error {
    Error::new(Kind::Invalid, format!("the {what} {name} cannot be used: {why}"))
}

/// A PEM error, with its lines as text and nothing of what was in between: that may be a key.
struct Broken<'a>(&'a pem::Error);

impl fmt::Display for Broken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            pem::Error::MissingSectionEnd { end_marker } => {
                write!(f, "the line -----END {}----- is missing", end_marker.escape_ascii())
            }
            pem::Error::IllegalSectionStart { .. } => f.write_str("a -----BEGIN line is broken"),
            pem::Error::Base64Decode(_) => f.write_str("it is no PEM between its BEGIN and END lines"),
            other => write!(f, "{other}"),
        }
    }
}

/// A time in its largest unit.
pub(super) struct Age(pub(super) u64);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = match self.0 {
            s @ 0..120 => (s, "second"),
            s @ 120..7_200 => (s / 60, "minute"),
            s @ 7_200..172_800 => (s / 3_600, "hour"),
            s => (s / 86_400, "day"),
        };
        write!(f, "{number} {unit}{}", if number == 1 { "" } else { "s" })
    }
}
