//! Certificates, made when they are needed, and clients that take any of them.

use handover_load::AnyCertificate;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{CipherSuite, ClientConfig, SupportedProtocolVersion, version};

pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// Both in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    pub chain: String,
    pub key: String,
    pub der: CertificateDer<'static>,
}

/// A certificate for `localhost` of our own making, valid now.
pub fn pair() -> Pair {
    let now = OffsetDateTime::now_utc();
    between(now - Duration::days(1), now + Duration::days(30))
}

pub fn expired() -> Pair {
    between(date_time_ymd(2020, 1, 1), OffsetDateTime::now_utc() - Duration::days(3))
}

pub fn not_yet_valid() -> Pair {
    let now = OffsetDateTime::now_utc();
    between(now + Duration::hours(5), now + Duration::days(30))
}

fn between(from: OffsetDateTime, to: OffsetDateTime) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (from, to);
    let certificate = params.self_signed(&key).unwrap();
    Pair { chain: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
}

/// A client with a session cache of its own.
pub fn client(versions: &[&'static SupportedProtocolVersion], alpn: &[&str]) -> Arc<ClientConfig> {
    client_as(versions, &SUITES, alpn, None)
}

/// All cipher suites that there are for a certificate of [`pair`]'s.
pub const SUITES: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// A client with only these suites, and perhaps a certificate.
pub fn client_as(
    versions: &[&'static SupportedProtocolVersion],
    suites: &[CipherSuite],
    alpn: &[&str],
    identity: Option<&Pair>,
) -> Arc<ClientConfig> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.retain(|suite| suites.contains(&suite.suite()));
    let provider = Arc::new(provider);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)));
    let mut config = match identity {
        Some(pair) => {
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![pair.der.clone()], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}
