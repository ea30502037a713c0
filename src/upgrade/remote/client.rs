//! Fetching over HTTP.

use std::error::Error as _;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Response, StatusCode, redirect};
use serde_json::Value;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::github::{Asset, GitHub, assets};
use super::http::{Http, shown};
use super::s3::S3;
use super::source::RemoteSource;
use crate::error::{Error, Kind, Result};
use crate::sys::folder::open_regular;
use crate::upgrade::record::Seen;
use crate::upgrade::sink::{MAX_TEXT, Sink};

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nothing may come.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an address may lead to another one.
pub const MAX_REDIRECTS: usize = 10;

/// How other machines are reached.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) connect: Duration,
    pub(crate) read: Duration,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) resolve: Vec<(String, SocketAddr)>,
}

impl Default for Network {
    fn default() -> Self {
        Self { connect: CONNECT_TIMEOUT, read: READ_TIMEOUT, ca: None, resolve: Vec::new() }
    }
}

/// Where a program was found, and with it what lies beside it.
#[derive(Debug)]
pub(crate) enum RemoteRelease {
    Http(Http),
    S3(S3),
    GitHub(GitHub, Value, Asset),
}

impl RemoteRelease {
    pub(crate) fn file_name(&self) -> String {
        let name = match self {
            Self::Http(http) => http.file_name(),
            Self::S3(s3) => s3.file_name(),
            Self::GitHub(_, _, asset) => Some(asset.name.clone()),
        };
        name.unwrap_or_default()
    }

    /// Returns whether the source itself says that its program has another SHA-256.
    pub(crate) fn contradicts(&self, sha256: &str) -> bool {
        match self {
            Self::Http(_) | Self::S3(_) => false,
            Self::GitHub(_, _, asset) => asset.sha256.as_ref().is_some_and(|told| told != sha256),
        }
    }

    /// Returns the address of what has this name, and lies where the program does.
    fn named(&self, name: &str) -> Result<Http> {
        match self {
            Self::Http(http) => {
                let mut beside = http.clone();
                // As it stands there: it may have escapes that must stay.
                let folder = http.url.path().rsplit_once('/').map_or("", |(folder, _)| folder);
                beside.url.set_path(&format!("{folder}/{name}"));
                Ok(beside)
            }
            Self::S3(s3) => match s3.key.rsplit_once('/') {
                Some((folder, _)) => s3.get(&format!("{folder}/{name}")),
                None => s3.get(name),
            },
            Self::GitHub(github, release, _) => {
                let found = assets(release).into_iter().find(|asset| asset.name == name);
                let asset = found
                    .ok_or_else(|| Error::new(Kind::Fetch, format!("{github:?}: the release has no asset {name}")))?;
                github.asset(&asset)
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct HttpClient(reqwest::Client);

impl HttpClient {
    pub(crate) fn new(network: &Network) -> Result<Self> {
        let policy = redirect::Policy::custom(|attempt| {
            let from = attempt.previous().last();
            if attempt.previous().len() > MAX_REDIRECTS {
                attempt.error(format!("more than {MAX_REDIRECTS} redirects"))
            } else if from.is_some_and(|from| from.scheme() == "https") && attempt.url().scheme() != "https" {
                attempt.error("a redirect from https to http")
            } else {
                attempt.follow()
            }
        });
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("handover/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(network.connect)
            .read_timeout(network.read)
            .redirect(policy)
            .referer(false)
            .tls_backend_preconfigured(tls(network.ca.as_deref())?);
        for (host, address) in &network.resolve {
            client = client.resolve(host, *address);
        }
        let client = client.build().map_err(|e| Error::new(Kind::Fetch, format!("no HTTP client: {}", why(e))))?;
        Ok(Self(client))
    }

    /// Writes the program there, unless it is what was `seen`: then it returns `None`.
    pub(crate) async fn program(
        &self,
        remote: &RemoteSource,
        seen: Option<&Seen>,
        sink: &mut Sink,
        fresh: &mut Seen,
    ) -> Result<Option<RemoteRelease>> {
        match remote {
            RemoteSource::Http(http) => {
                let Some(response) = self.get(http, seen).await? else { return Ok(None) };
                self.download(response, sink, fresh).await?;
                Ok(Some(RemoteRelease::Http(http.clone())))
            }
            RemoteSource::S3(s3) => {
                let Some(response) = self.get(&s3.get(&s3.key)?, seen).await? else { return Ok(None) };
                self.download(response, sink, fresh).await?;
                Ok(Some(RemoteRelease::S3(s3.clone())))
            }
            RemoteSource::GitHub(github) => {
                let Some(response) = self.get(&github.release()?, seen).await? else { return Ok(None) };
                note(response.headers(), fresh);
                let text = self.text(response).await?;
                let release = serde_json::from_slice(&text).map_err(|e| {
                    Error::new(Kind::Fetch, format!("{remote}: what tells of the release is no JSON: {e}"))
                })?;
                let asset = github.choose(&release)?;
                fresh.version = Some(asset.version.clone());
                if fresh.version == seen.and_then(|seen| seen.version.clone()) {
                    return Ok(None);
                }
                let http = github.asset(&asset)?;
                let response = self.get(&http, None).await?;
                let mut ignored = Seen::default();
                if let Some(response) = response {
                    self.download(response, sink, &mut ignored).await?;
                }
                Ok(Some(RemoteRelease::GitHub(github.clone(), release, asset)))
            }
        }
    }

    /// Fetches what has this name, and lies where the program does.
    pub(crate) async fn named(&self, release: &RemoteRelease, name: &str) -> Result<Vec<u8>> {
        let response = self.get(&release.named(name)?, None).await?;
        let response = response.ok_or_else(|| Error::new(Kind::Fetch, format!("{name}: not modified")))?;
        self.text(response).await
    }

    /// Asks for what is at that address. It returns `None` if that has not changed since.
    async fn get(&self, http: &Http, seen: Option<&Seen>) -> Result<Option<Response>> {
        let what = shown(&http.url);
        let mut request = self.0.get(http.url.clone()).headers(http.headers.clone());
        if let Some(etag) = seen.and_then(|seen| seen.etag.as_ref()) {
            request = request.header(IF_NONE_MATCH, etag);
        } else if let Some(modified) = seen.and_then(|seen| seen.modified.as_ref()) {
            request = request.header(IF_MODIFIED_SINCE, modified);
        }
        let failed = |e| Error::new(Kind::Fetch, format!("{what}: {}", why(e)));
        let response = request.send().await.map_err(failed)?;
        match response.status() {
            StatusCode::OK => Ok(Some(response)),
            StatusCode::NOT_MODIFIED if seen.is_some() => Ok(None),
            status => {
                let hint = match status {
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ": are the credentials set, and allowed to?",
                    StatusCode::NOT_FOUND => ": there is nothing, or nothing for these credentials",
                    StatusCode::TOO_MANY_REQUESTS => ": ask less often, or with credentials",
                    _ => "",
                };
                Err(Error::new(Kind::Fetch, format!("{what}: the server answers {status}{hint}")))
            }
        }
    }

    async fn download(&self, mut response: Response, sink: &mut Sink, seen: &mut Seen) -> Result<()> {
        let what = shown(response.url());
        note(response.headers(), seen);
        if let Some(encoding) = response.headers().get(CONTENT_ENCODING).filter(|value| *value != "identity") {
            return Err(Error::new(Kind::Fetch, format!("{what}: nobody asked for the encoding {encoding:?}")));
        }
        if let Some(length) = response.content_length() {
            sink.announced(length).map_err(|e| Error::new(Kind::Candidate, format!("{what}: {e}")))?;
        }
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => sink.take(&chunk, &what).await?,
                Ok(None) => return Ok(()),
                Err(e) => {
                    return Err(Error::new(Kind::Fetch, format!("{what}: after {} bytes: {}", sink.length, why(e))));
                }
            }
        }
    }

    async fn text(&self, mut response: Response) -> Result<Vec<u8>> {
        let what = shown(response.url());
        let mut text = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|e| Error::new(Kind::Fetch, format!("{what}: {}", why(e))))?
        {
            text.extend_from_slice(&chunk);
            if text.len() as u64 > MAX_TEXT {
                return Err(Error::new(Kind::Fetch, format!("{what}: more than {MAX_TEXT} bytes")));
            }
        }
        Ok(text)
    }
}

fn note(headers: &HeaderMap, seen: &mut Seen) {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    (seen.etag, seen.modified) = (text(ETAG), text(LAST_MODIFIED));
}

fn tls(ca: Option<&Path>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let bad = |why: &dyn fmt::Display| {
                Error::new(Kind::Invalid, format!("the certificates in {} cannot be used: {why}", path.display()))
            };
            let file = open_regular(path).map_err(|e| bad(&e))?;
            for certificate in CertificateDer::pem_reader_iter(file) {
                roots.add(certificate.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
            }
            if roots.is_empty() {
                return Err(bad(&"there is none"));
            }
        }
        // None at all shows when an https:// address is asked.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(Kind::Fetch, format!("TLS cannot be set up: {e}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Describes the error without the address, which may hold a secret, and with the cause, which says
/// what is wrong.
fn why(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
