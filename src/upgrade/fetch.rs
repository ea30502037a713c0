//! Fetching: what is written to the candidate's file is counted, hashed, and bounded in size and
//! time.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Client, Response, StatusCode, redirect};
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::{Error, Kind, Result};
use crate::upgrade::http::{Http, shown};
use crate::upgrade::record::Seen;
use crate::upgrade::source::{GitHub, ProgramSource, assets, hex};

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long nothing may come.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a program with its signature may take to be fetched.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(600);
/// How large a program may be, in bytes.
pub const MAX_SIZE: u64 = 512 * 1024 * 1024;
/// How often an address may lead to another one.
pub const MAX_REDIRECTS: usize = 10;
/// How large a signature or a list of checksums may be, and what tells of a release.
const MAX_TEXT: u64 = 4 * 1024 * 1024;

#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) connect: Duration,
    pub(crate) read: Duration,
    pub(crate) total: Duration,
    pub(crate) size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: CONNECT_TIMEOUT, read: READ_TIMEOUT, total: FETCH_TIMEOUT, size: MAX_SIZE }
    }
}

#[derive(Debug)]
pub(crate) struct Fetcher {
    client: Client,
    limits: Limits,
}

/// What a source has.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// What it had.
    Unchanged,
    Program(Box<Fresh>),
}

#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) seen: Seen,
    /// Where the rest of its release is.
    beside: Beside,
}

#[derive(Debug)]
enum Beside {
    Source(ProgramSource),
    Release(GitHub, serde_json::Value, String),
}

impl Fetcher {
    pub(crate) fn new(limits: Limits, ca: Option<&Path>, resolve: &[(String, SocketAddr)]) -> Result<Self> {
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
        let mut client = Client::builder()
            .user_agent(concat!("handover/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .read_timeout(limits.read)
            .redirect(policy)
            .referer(false)
            .tls_backend_preconfigured(tls(ca)?);
        for (host, address) in resolve {
            client = client.resolve(host, *address);
        }
        let client = client.build().map_err(|e| Error::new(Kind::Fetch, format!("no HTTP client: {}", why(e))))?;
        Ok(Self { client, limits })
    }

    /// Writes the program to that file, unless it is what was `seen` there.
    pub(crate) async fn program(
        &self,
        source: &ProgramSource,
        seen: Option<&Seen>,
        into: (std::fs::File, PathBuf),
    ) -> Result<Fetched> {
        let fetching = self.fetch(source, seen, into);
        match tokio::time::timeout(self.limits.total, fetching).await {
            Ok(fetched) => fetched,
            Err(_) => {
                let within = self.limits.total;
                Err(Error::new(Kind::Fetch, format!("{source}: not fetched within {within:?}")))
            }
        }
    }

    async fn fetch(
        &self,
        source: &ProgramSource,
        seen: Option<&Seen>,
        (file, path): (std::fs::File, PathBuf),
    ) -> Result<Fetched> {
        let mut sink = Sink::new(File::from_std(file), path, self.limits.size);
        let mut fresh = Seen { source: source.identity(), ..Seen::default() };
        let beside = match source {
            ProgramSource::File(path) => {
                fresh.version = Some(copy(path, seen.and_then(|seen| seen.version.as_deref()), &mut sink).await?);
                if fresh.version == seen.and_then(|seen| seen.version.clone()) {
                    return Ok(Fetched::Unchanged);
                }
                Beside::Source(source.clone())
            }
            ProgramSource::Http(http) => {
                let Some(response) = self.get(http, seen).await? else { return Ok(Fetched::Unchanged) };
                self.download(response, &mut sink, &mut fresh).await?;
                Beside::Source(source.clone())
            }
            ProgramSource::S3(s3) => {
                let Some(response) = self.get(&s3.get(&s3.key)?, seen).await? else { return Ok(Fetched::Unchanged) };
                self.download(response, &mut sink, &mut fresh).await?;
                Beside::Source(source.clone())
            }
            ProgramSource::GitHub(github) => {
                let Some(response) = self.get(&github.release()?, seen).await? else { return Ok(Fetched::Unchanged) };
                note(response.headers(), &mut fresh);
                let text = self.text(response).await?;
                let release = serde_json::from_slice(&text).map_err(|e| {
                    Error::new(Kind::Fetch, format!("{source}: what tells of the release is no JSON: {e}"))
                })?;
                let asset = github.choose(&release)?;
                fresh.version = Some(asset.version.clone());
                if fresh.version == seen.and_then(|seen| seen.version.clone()) {
                    return Ok(Fetched::Unchanged);
                }
                let http = github.asset(&asset)?;
                let response = self.get(&http, None).await?;
                let mut ignored = Seen::default();
                if let Some(response) = response {
                    self.download(response, &mut sink, &mut ignored).await?;
                }
                fresh.sha256 = sink.end().await?;
                if asset.sha256.as_ref().is_some_and(|told| *told != fresh.sha256) {
                    let what = "its SHA-256 is not the one that the release tells";
                    return Err(Error::new(Kind::Candidate, format!("{source}: {what}")));
                }
                let beside = Beside::Release(github.clone(), release, asset.name);
                return Ok(Fetched::Program(Box::new(Fresh { seen: fresh, beside })));
            }
        };
        fresh.sha256 = sink.end().await?;
        Ok(Fetched::Program(Box::new(Fresh { seen: fresh, beside })))
    }

    /// Fetches what has the program's name and this ending.
    pub(crate) async fn side(&self, fresh: &Fresh, ending: &str) -> Result<Vec<u8>> {
        match &fresh.beside {
            Beside::Source(source) => self.named(fresh, &format!("{}{ending}", source.file_name())).await,
            Beside::Release(_, _, asset) => self.named(fresh, &format!("{asset}{ending}")).await,
        }
    }

    /// Fetches what has this name, and lies where the program does.
    pub(crate) async fn named(&self, fresh: &Fresh, name: &str) -> Result<Vec<u8>> {
        let fetching = async {
            let http = match &fresh.beside {
                Beside::Source(ProgramSource::File(path)) => {
                    let path = path.with_file_name(name);
                    let failed = |e| Error::io(Kind::Fetch, format!("{} cannot be read", path.display()), e);
                    let mut text = Vec::new();
                    let file = File::open(&path).await.map_err(failed)?;
                    file.take(MAX_TEXT).read_to_end(&mut text).await.map_err(failed)?;
                    return Ok(text);
                }
                Beside::Source(ProgramSource::Http(http)) => {
                    let mut beside = http.clone();
                    // As it stands there: it may have escapes that must stay.
                    let folder = http.url.path().rsplit_once('/').map_or("", |(folder, _)| folder);
                    beside.url.set_path(&format!("{folder}/{name}"));
                    beside
                }
                Beside::Source(ProgramSource::S3(s3)) => match s3.key.rsplit_once('/') {
                    Some((folder, _)) => s3.get(&format!("{folder}/{name}"))?,
                    None => s3.get(name)?,
                },
                Beside::Source(ProgramSource::GitHub(_)) => {
                    return Err(Error::new(Kind::Fetch, "a release without its assets"));
                }
                Beside::Release(github, release, _) => {
                    let found = assets(release).into_iter().find(|asset| asset.name == name);
                    let asset = found.ok_or_else(|| {
                        Error::new(Kind::Fetch, format!("{github:?}: the release has no asset {name}"))
                    })?;
                    github.asset(&asset)?
                }
            };
            let response = self.get(&http, None).await?;
            let response = response.ok_or_else(|| Error::new(Kind::Fetch, format!("{name}: not modified")))?;
            self.text(response).await
        };
        let within = self.limits.total;
        tokio::time::timeout(within, fetching)
            .await
            .unwrap_or_else(|_| Err(Error::new(Kind::Fetch, format!("{name}: not fetched within {within:?}"))))
    }

    pub(crate) fn name_of(fresh: &Fresh) -> String {
        match &fresh.beside {
            Beside::Source(source) => source.file_name(),
            Beside::Release(_, _, asset) => asset.clone(),
        }
    }

    /// Asks for what is at that address. It returns `None` if that has not changed since.
    async fn get(&self, http: &Http, seen: Option<&Seen>) -> Result<Option<Response>> {
        let what = shown(&http.url);
        let mut request = self.client.get(http.url.clone()).headers(http.headers.clone());
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

/// Where the bytes go.
struct Sink {
    file: File,
    path: PathBuf,
    hash: Sha256,
    length: u64,
    limit: u64,
}

impl Sink {
    fn new(file: File, path: PathBuf, limit: u64) -> Self {
        Self { file, path, hash: Sha256::new(), length: 0, limit }
    }

    fn announced(&self, length: u64) -> std::result::Result<(), String> {
        let limit = self.limit;
        if length > limit { Err(format!("{length} bytes, and a program may have {limit}")) } else { Ok(()) }
    }

    async fn take(&mut self, chunk: &[u8], what: &str) -> Result<()> {
        self.length += chunk.len() as u64;
        if self.length > self.limit {
            let limit = self.limit;
            return Err(Error::new(
                Kind::Candidate,
                format!("{what}: more than {limit} bytes, which a program may have"),
            ));
        }
        self.hash.update(chunk);
        self.file.write_all(chunk).await.map_err(|e| self.failed(e))
    }

    /// Ends the file when everything is in it, and returns its SHA-256.
    async fn end(&mut self) -> Result<String> {
        self.file.flush().await.map_err(|e| self.failed(e))?;
        Ok(hex(&std::mem::take(&mut self.hash).finalize()))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::os(format!("{} cannot be written", self.path.display()), error)
    }
}

/// Copies the file, and returns its version. Nothing is copied if that is the one that was seen.
async fn copy(path: &Path, seen: Option<&str>, sink: &mut Sink) -> Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    let failed = |e| Error::io(Kind::Fetch, format!("{} cannot be read", path.display()), e);
    let mut file = File::open(path).await.map_err(failed)?;
    let meta = file.metadata().await.map_err(failed)?;
    if !meta.is_file() {
        return Err(Error::new(Kind::Fetch, format!("{} is no file", path.display())));
    }
    let version = format!("{} {} {}.{:09} {}", meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size());
    if seen == Some(&version) {
        return Ok(version);
    }
    let what = path.display().to_string();
    sink.announced(meta.len()).map_err(|e| Error::new(Kind::Candidate, format!("{what}: {e}")))?;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk).await.map_err(failed)? {
            0 => return Ok(version),
            n => sink.take(&chunk[..n], &what).await?,
        }
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
            let bad = |why: &dyn std::fmt::Display| {
                Error::new(Kind::Invalid, format!("the certificates in {} cannot be used: {why}", path.display()))
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(&e))? {
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
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
