//! Releases at GitHub.

use std::fmt;

use reqwest::header::AUTHORIZATION;
use serde_json::Value;

use super::http::{Http, shown};
use crate::error::{Error, Kind, Result};

/// Where GitHub's API is.
pub const GITHUB_API: &str = "https://api.github.com";

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
}
