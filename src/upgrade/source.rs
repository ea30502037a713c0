//! Where a candidate comes from.

use std::fmt;
use std::path::PathBuf;

use reqwest::header::AUTHORIZATION;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};
use crate::upgrade::http::{Http, shown};
use crate::upgrade::s3::S3;

/// Where GitHub's API is.
pub const GITHUB_API: &str = "https://api.github.com";

/// Where a candidate comes from. Its signature lies beside it, with `.minisig` after the name.
///
/// ```
/// use handover::upgrade::{GitHub, S3, ProgramSource};
/// let file: ProgramSource = ProgramSource::file("/srv/releases/web");
/// let https: ProgramSource = ProgramSource::url("https://releases.example.com/web")?;
/// let github: ProgramSource = GitHub::new("acme/web", "web-*-x86_64").into();
/// let s3: ProgramSource = S3::new("releases", "web/stable/web").region("eu-central-1").into();
/// assert_eq!(s3.to_string(), "s3://releases/web/stable/web");
/// # Ok::<(), handover::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum ProgramSource {
    /// A file of this machine.
    File(PathBuf),
    /// An address.
    Http(Http),
    /// An asset of a release.
    GitHub(GitHub),
    /// An object of a bucket.
    S3(S3),
}

impl ProgramSource {
    /// Names a file of this machine, or of one that is mounted.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }

    /// Takes an `https://` or `http://` address. A user and password in it are sent, and never
    /// shown.
    ///
    /// # Errors
    /// With [`Error::is_invalid`]: it is no such address.
    pub fn url(url: &str) -> Result<Self> {
        Http::new(url).map(Self::Http)
    }

    /// Returns the name by which a list of checksums has it.
    pub(crate) fn file_name(&self) -> String {
        let name = match self {
            Self::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
            Self::Http(http) => http.url.path_segments().and_then(|mut all| all.next_back()).map(str::to_owned),
            Self::GitHub(_) => None,
            Self::S3(s3) => s3.key.rsplit('/').next().map(str::to_owned),
        };
        name.unwrap_or_default()
    }

    /// Returns the name under which it is remembered what was seen there. It holds no secret.
    pub(crate) fn identity(&self) -> String {
        let all = match self {
            Self::Http(http) => http.url.to_string(),
            Self::GitHub(github) => format!("{self} {} {:?}", github.api, github.tag),
            Self::S3(s3) => format!("{self} {:?} {}", s3.endpoint, s3.region),
            Self::File(_) => self.to_string(),
        };
        hex(&Sha256::digest(all))
    }

    /// Returns whether who stands between could put another file in its place.
    pub(crate) fn is_plain_http(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Http(http) => http.url.scheme() == "http",
            Self::GitHub(github) => github.api.starts_with("http:"),
            Self::S3(s3) => s3.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http:")),
        }
    }
}

/// Without secrets: a URL's user, password, query and fragment are left out.
impl fmt::Display for ProgramSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Http(http) => f.write_str(&shown(&http.url)),
            Self::GitHub(github) => {
                write!(
                    f,
                    "github:{} ({}, {})",
                    github.repository,
                    github.tag.as_deref().unwrap_or("latest"),
                    github.asset
                )
            }
            Self::S3(s3) => write!(f, "s3://{}/{}", s3.bucket, s3.key),
        }
    }
}

impl fmt::Debug for ProgramSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

impl From<Http> for ProgramSource {
    fn from(http: Http) -> Self {
        Self::Http(http)
    }
}

impl From<S3> for ProgramSource {
    fn from(s3: S3) -> Self {
        Self::S3(s3)
    }
}

/// An asset of a release on GitHub, or on what has its API.
#[derive(Clone)]
pub struct GitHub {
    pub(crate) api: String,
    pub(crate) repository: String,
    pub(crate) tag: Option<String>,
    pub(crate) asset: String,
    pub(crate) token: Option<String>,
}

impl GitHub {
    /// Names the one asset of the latest release of `OWNER/REPOSITORY` whose name is that; `*` and
    /// `?` stand for others.
    pub fn new(repository: impl Into<String>, asset: impl Into<String>) -> Self {
        let (repository, asset) = (repository.into(), asset.into());
        Self { api: GITHUB_API.to_owned(), repository, tag: None, asset, token: None }
    }

    /// Takes the release with this tag, not the latest one.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// Sets the address of the API. The default is [`GITHUB_API`]; that of an Enterprise server is
    /// `https://HOST/api/v3`.
    pub fn api(mut self, url: impl Into<String>) -> Self {
        self.api = url.into().trim_end_matches('/').to_owned();
        self
    }

    /// Sets a token, for private repositories, and more requests an hour.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    pub(crate) fn release(&self) -> Result<Http> {
        let plain =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let named = self.repository.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name));
        if !named {
            return Err(Error::new(Kind::Invalid, format!("{:?} is not OWNER/REPOSITORY", self.repository)));
        }
        let mut http = Http::new(&format!("{}/repos/{}/releases", self.api, self.repository))?;
        if let Ok(mut path) = http.url.path_segments_mut() {
            match &self.tag {
                Some(tag) => path.push("tags").push(tag),
                None => path.push("latest"),
            };
        }
        self.authorized(http, "application/vnd.github+json")
    }

    /// Chooses the one whose name matches, of those in the release.
    pub(crate) fn choose(&self, release: &Value) -> Result<Asset> {
        let all = assets(release);
        let side = |name: &str| [".minisig", ".sha256", ".sha256sum"].iter().any(|end| name.ends_with(end));
        let found: Vec<_> = all.iter().filter(|a| matches(&self.asset, &a.name) && !side(&a.name)).collect();
        match found[..] {
            [one] => Ok(one.clone()),
            _ => {
                let listed: Vec<_> = if found.is_empty() { all.iter().collect() } else { found.clone() };
                let names: Vec<_> = listed.iter().map(|asset| asset.name.as_str()).collect();
                let what = if found.is_empty() { "no asset is called" } else { "several assets are called" };
                Err(Error::new(Kind::Fetch, format!("{self:?}: {what} {:?}: {}", self.asset, names.join(", "))))
            }
        }
    }

    /// Returns the address of an asset. The API is trusted with the token, and no other host that
    /// it may name.
    pub(crate) fn asset(&self, asset: &Asset) -> Result<Http> {
        let (api, http) = (Http::new(&self.api)?, Http::new(&asset.url)?);
        if api.url.origin() == http.url.origin() {
            return self.authorized(http, "application/octet-stream");
        }
        if api.url.scheme() == "https" && http.url.scheme() != "https" {
            let what = shown(&http.url);
            return Err(Error::new(Kind::Fetch, format!("{self:?}: an asset is at {what}, which is not https")));
        }
        http.header("accept", "application/octet-stream")
    }

    fn authorized(&self, http: Http, accept: &'static str) -> Result<Http> {
        let http = http.header("accept", accept)?.header("x-github-api-version", "2022-11-28")?;
        match &self.token {
            Some(token) => http.header(AUTHORIZATION.as_str(), &format!("Bearer {token}")),
            None => Ok(http),
        }
    }
}

impl From<GitHub> for ProgramSource {
    fn from(github: GitHub) -> Self {
        Self::GitHub(github)
    }
}

impl fmt::Debug for GitHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "github:{}", self.repository)
    }
}

/// One file of a release.
#[derive(Debug, Clone)]
pub(crate) struct Asset {
    pub(crate) name: String,
    pub(crate) url: String,
    /// Changes when the file does.
    pub(crate) version: String,
    /// The SHA-256 that GitHub has found.
    pub(crate) sha256: Option<String>,
}

pub(crate) fn assets(release: &Value) -> Vec<Asset> {
    let text = |asset: &Value, name: &str| asset[name].as_str().unwrap_or_default().to_owned();
    let all = release["assets"].as_array().into_iter().flatten();
    let assets = all.map(|asset| Asset {
        name: text(asset, "name"),
        url: text(asset, "url"),
        version: format!("{} {}", asset["id"], text(asset, "updated_at")),
        sha256: text(asset, "digest").strip_prefix("sha256:").map(str::to_ascii_lowercase),
    });
    assets.collect()
}

/// Returns whether the name matches the pattern: `*` stands for any text, `?` for one character.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                // The star takes one more.
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_match_patterns() {
        for (pattern, name) in [
            ("web", "web"),
            ("*", ""),
            ("web-*-x86_64", "web-1.2-x86_64"),
            ("*.a.b", "x.a.a.b"),
            ("w?b*", "web"),
            ("**b", "ab"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("web", "webs"), ("?", ""), ("web-*-x86_64", "web-1.2-aarch64"), ("*a", "ab"), ("", "a")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn one_asset_is_chosen() {
        let asset = |name: &str| json!({"name": name, "url": "u", "id": 7, "updated_at": "t", "digest": "sha256:AB"});
        let release =
            json!({"assets": [asset("web-x86_64"), asset("web-x86_64.minisig"), asset("web-aarch64"), asset("SUMS")]});
        let chosen = GitHub::new("a/b", "web-x86*").choose(&release).unwrap();
        assert_eq!((chosen.name.as_str(), chosen.version.as_str()), ("web-x86_64", "7 t"));
        assert_eq!(chosen.sha256.as_deref(), Some("ab"));
        let several = GitHub::new("a/b", "web-*").choose(&release).unwrap_err().to_string();
        assert!(several.contains("web-x86_64, web-aarch64") && !several.contains("minisig"), "{several}");
        let none = GitHub::new("a/b", "none").choose(&release).unwrap_err();
        assert!(none.is_fetch() && none.to_string().contains("SUMS"), "{none}");
    }

    #[test]
    fn what_is_shown_has_no_secret() {
        let source = ProgramSource::url("https://me:word@host:1/web?token=secret#x").unwrap();
        for text in [source.to_string(), format!("{source:?}"), source.identity()] {
            assert!(!text.contains("word") && !text.contains("secret"), "{text}");
        }
        assert_eq!(source.to_string(), "https://host:1/web");
        let github = GitHub::new("a/b", "*").token("hush").tag("v1/2");
        assert!(!format!("{github:?} {:?}", github.release().unwrap()).contains("hush"));
        assert_eq!(github.release().unwrap().url.path(), "/repos/a/b/releases/tags/v1%2F2");
        for bad in ["a", "a/", "a/b/c", "a/b?x"] {
            assert!(GitHub::new(bad, "*").release().unwrap_err().is_invalid(), "{bad}");
        }
        for bad in ["ftp://x/y", "web", "/usr/bin/web", ""] {
            assert!(ProgramSource::url(bad).unwrap_err().is_invalid(), "{bad}");
        }
    }
}
