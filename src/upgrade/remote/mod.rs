//! Sources that are on another machine: addresses, releases at GitHub, objects in buckets.

mod client;
mod github;
mod http;
mod s3;

use std::fmt;

pub(crate) use client::{Beside, Client, Network};
pub use client::{CONNECT_TIMEOUT, MAX_REDIRECTS, READ_TIMEOUT};
pub use github::{GITHUB_API, GitHub};
pub use http::Http;
use http::shown;
pub use s3::S3;

use crate::error::Result;
use crate::upgrade::source::Source;

/// A source on another machine.
#[derive(Clone)]
#[non_exhaustive]
pub enum Remote {
    /// An address.
    Http(Http),
    /// An asset of a release.
    GitHub(GitHub),
    /// An object of a bucket.
    S3(S3),
}

impl Remote {
    pub(crate) fn file_name(&self) -> Option<String> {
        match self {
            Self::Http(http) => http.url.path_segments().and_then(|mut all| all.next_back()).map(str::to_owned),
            Self::GitHub(_) => None,
            Self::S3(s3) => s3.key.rsplit('/').next().map(str::to_owned),
        }
    }

    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Http(http) => http.url.to_string(),
            Self::GitHub(github) => format!("{self} {} {:?}", github.api, github.tag),
            Self::S3(s3) => format!("{self} {:?} {}", s3.endpoint, s3.region),
        }
    }

    pub(crate) fn is_plain_http(&self) -> bool {
        match self {
            Self::Http(http) => http.url.scheme() == "http",
            Self::GitHub(github) => github.api.starts_with("http:"),
            Self::S3(s3) => s3.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http:")),
        }
    }

    /// Whether the source itself has no name, because its files have.
    pub(crate) fn has_names_of_its_own(&self) -> bool {
        matches!(self, Self::GitHub(_))
    }

    /// What can be said before anybody is asked.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::GitHub(github) => github.release().map(drop),
            Self::Http(_) | Self::S3(_) => Ok(()),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(http) => f.write_str(&shown(&http.url)),
            Self::GitHub(github) => {
                let tag = github.tag.as_deref().unwrap_or("latest");
                write!(f, "github:{} ({tag}, {})", github.repository, github.asset)
            }
            Self::S3(s3) => write!(f, "s3://{}/{}", s3.bucket, s3.key),
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({self})")
    }
}

impl Source {
    /// An `https://` or `http://` address. A user and password in it are sent, and never shown.
    ///
    /// # Errors
    /// With [`is_invalid`](crate::Error::is_invalid): it is no such address.
    pub fn url(url: &str) -> Result<Self> {
        Http::new(url).map(Self::from)
    }
}

impl From<Http> for Source {
    fn from(http: Http) -> Self {
        Self::Remote(Remote::Http(http))
    }
}

impl From<GitHub> for Source {
    fn from(github: GitHub) -> Self {
        Self::Remote(Remote::GitHub(github))
    }
}

impl From<S3> for Source {
    fn from(s3: S3) -> Self {
        Self::Remote(Remote::S3(s3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_has_no_secret() {
        let source = Source::url("https://me:word@host:1/web?token=secret#x").unwrap();
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
            assert!(Source::url(bad).unwrap_err().is_invalid(), "{bad}");
        }
    }
}
