//! What is to be done, resolved once from the command line: nothing else reads that.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::options::Options;
use super::trigger::{How, Main, Trigger};
use crate::failure::Failure;
use crate::target::unit_name;
use handover_load::{Address, AnyCertificate, Download, Expect, Kind, Target, Template, Tls};

/// One run of a load over reloads.
#[derive(Debug)]
pub(crate) struct Plan {
    /// As people call the server.
    pub(crate) url: String,
    pub(crate) target: Arc<Target>,
    pub(crate) load: Arc<handover_load::Plan>,
    pub(crate) clients: Vec<(Kind, usize)>,
    pub(crate) seed: u64,
    pub(crate) reloads: u32,
    /// Between the beginnings of two reloads, at least; at most half of it is a window.
    pub(crate) every: Duration,
    /// What is looked at before and after a reload begins.
    pub(crate) window: Duration,
    /// How long the load lasts, at least.
    pub(crate) duration: Duration,
    /// How long a reload may take until a new process answers.
    pub(crate) reload_timeout: Duration,
    /// Between two probes.
    pub(crate) probe_every: Duration,
    /// Nothing but JSON is to be said.
    pub(crate) quiet: bool,
}

impl Plan {
    pub(crate) fn clients_in_all(&self) -> usize {
        self.clients.iter().map(|(_, count)| count).sum()
    }

    pub(crate) fn protocol(&self) -> &'static str {
        match (self.target.http2, self.target.tls.is_some()) {
            (false, false) => "HTTP/1.1",
            (false, true) => "HTTP/1.1 over TLS",
            (true, false) => "HTTP/2",
            (true, true) => "HTTP/2 over TLS",
        }
    }

    /// What the last request may take that is under way at the end.
    pub(crate) fn longest_request(&self) -> Duration {
        let load = &self.load;
        let download = load.downloads.iter().map(|download| download.takes).max().unwrap_or_default();
        load.limit + load.slow.end + download
    }
}

pub(super) async fn resolved(options: Options) -> Result<(Plan, Trigger), Failure> {
    let trigger = trigger(&options)?;
    let clients = options.counts();
    if options.http2 {
        let only_one = [Kind::Pipelined, Kind::HalfHead, Kind::WebSocket];
        if let Some((kind, _)) = clients.iter().find(|(kind, _)| only_one.contains(kind)) {
            return Err(Failure::usage(format!("there is no --{} in HTTP/2", kind.slug())));
        }
    }
    let (target, path) = target(&options).await?;
    let plan = Plan {
        target: Arc::new(target),
        clients,
        seed: options.seed,
        reloads: options.reloads,
        every: options.every,
        window: options.window.min(options.every / 2),
        duration: options.duration.unwrap_or_default(),
        reload_timeout: options.reload_timeout,
        probe_every: options.probe_every,
        quiet: options.json,
        url: options.url.clone(),
        load: Arc::new(load(options, path)),
    };
    Ok((plan, trigger))
}

fn trigger(options: &Options) -> Result<Trigger, Failure> {
    let main = match (options.pid, &options.pidfile) {
        (Some(pid), _) => Some(Main::Pid(pid)),
        (_, Some(file)) => Some(Main::File(file.clone())),
        _ => None,
    };
    let how = match (&options.unit, &options.reload, &options.signal) {
        (Some(unit), ..) => How::Unit { unit: unit_name(unit), user: options.user },
        (_, Some(command), _) => How::Command(command.clone()),
        (.., Some(_)) if main.is_none() => return Err(Failure::usage("--signal needs --pid or --pidfile")),
        (.., Some(signal)) => How::signal(signal)?,
        _ if options.reloads == 0 => How::Never,
        _ => return Err(Failure::usage("say how to reload: --unit, --reload or --signal; or --reloads 0 for none")),
    };
    Ok(Trigger { how, main })
}

fn load(options: Options, path: String) -> handover_load::Plan {
    let any = options.any_body;
    let any_or_first = || if any { Expect::Anything } else { Expect::First(Arc::default()) };
    let expect = match &options.expect_body {
        Some(text) => Expect::Like(Arc::new(Template::new(text))),
        None => any_or_first(),
    };
    handover_load::Plan {
        path,
        expect,
        cadence: options.cadence,
        fresh: options.fresh_cadence,
        slow_path: options.slow_path,
        slow_expect: any_or_first(),
        slow: options.slow_time,
        upload_path: options.upload_path,
        upload_first: Arc::default(),
        downloads: vec![Download { path: options.download_path, takes: options.download_time, expect: any_or_first() }],
        websocket_path: options.websocket_path,
        short_first: false,
        limit: options.timeout,
        every: options.every,
    }
}

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
async fn target(options: &Options) -> Result<(Target, String), Failure> {
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
