//! From the URL to what clients connect to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::options::Options;
use crate::failure::Failure;
use handover_load::{Address, AnyCertificate, Target, Tls};

#[derive(Debug, PartialEq, Eq)]
enum Url {
    Unix(PathBuf),
    Tcp { tls: bool, host: String, port: u16, path: String },
}

impl Url {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("--url {text:?}: {why}");
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(bad("it has characters that no URL has"));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(bad("write unix:/path")) };
        }
        let (tls, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(bad("it begins with http://, https:// or unix:")),
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| bad("the port is no number"))?)
            }
            _ => (authority, if tls { 443 } else { 80 }),
        };
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(bad("there is no host"));
        }
        Ok(Self::Tcp { tls, host: host.to_owned(), port, path: path.to_owned() })
    }

    fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

/// The target, and the path of short requests.
pub(super) async fn target(options: &Options) -> Result<(Target, String), Failure> {
    let url = Url::parse(&options.url).map_err(Failure::usage)?;
    let host = url.authority();
    let (address, tls, path) = match url {
        Url::Unix(socket) => (Address::Unix(socket), None, "/".to_owned()),
        Url::Tcp { tls: secure, host, port, path } => {
            let address = Address::Tcp(resolve(&host, port, options.i_own_this_host).await?);
            (address, secure.then(|| tls(&host, options)).transpose()?, path)
        }
    };
    let generation_header = options.generation_header.clone();
    let target = Target { address, host, tls, http2: options.http2, generation_header };
    Ok((target, options.path.clone().unwrap_or(path)))
}

/// `own`: another machine may be loaded, too.
async fn resolve(host: &str, port: u16, own: bool) -> Result<SocketAddr, Failure> {
    let found = tokio::net::lookup_host((host, port)).await;
    let mut found = found.map_err(|e| Failure::usage(format!("{host}: {e}")))?;
    let address = found.next().ok_or_else(|| Failure::usage(format!("{host} has no address")))?;
    if own || address.ip().to_canonical().is_loopback() {
        return Ok(address);
    }
    Err(Failure::usage(format!("{address} is not this machine: say --i-own-this-host if it is yours to load")))
}

fn tls(host: &str, options: &Options) -> Result<Tls, Failure> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::usage(format!("TLS: {e}")))?;
    let mut config = match &options.cacert {
        Some(path) => builder.with_root_certificates(authorities(path)?).with_no_client_auth(),
        None if options.insecure => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
        None => return Err(Failure::usage("https needs --cacert FILE, or --insecure")),
    };
    config.alpn_protocols = vec![if options.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let name = ServerName::try_from(host.to_owned()).map_err(|e| Failure::usage(format!("{host}: {e}")))?;
    Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
}

fn authorities(path: &Path) -> Result<RootCertStore, Failure> {
    let bad = |e: &dyn std::fmt::Display| Failure::usage(format!("--cacert {}: {e}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(&e))? {
        roots.add(certificate.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
    }
    if roots.is_empty() { Err(bad(&"it has no certificate")) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let tcp = |tls, host: &str, port, path: &str| Ok(Url::Tcp { tls, host: host.into(), port, path: path.into() });
        assert_eq!(Url::parse("http://127.0.0.1:8080"), tcp(false, "127.0.0.1", 8080, "/"));
        assert_eq!(Url::parse("https://localhost/a?b=c"), tcp(true, "localhost", 443, "/a?b=c"));
        assert_eq!(Url::parse("http://[::1]:81/"), tcp(false, "::1", 81, "/"));
        assert_eq!(Url::parse("http://[::1]"), tcp(false, "::1", 80, "/"));
        assert_eq!(Url::parse("unix:/run/web.sock"), Ok(Url::Unix("/run/web.sock".into())));
        for bad in ["", "ftp://x", "http://", "http://x:y/", "unix:relative", "http://a b/", "http://x/\r\nHost: y"] {
            assert!(Url::parse(bad).is_err(), "{bad:?}");
        }
    }
}
