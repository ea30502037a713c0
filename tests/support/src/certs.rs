//! Certificates, made when they are needed, and clients that take any of them.

use handover_load::AnyCertificate;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, SupportedProtocolVersion, version};

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
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}
