//! A source on another machine.

use std::fmt;

use super::github::GitHub;
use super::http::{Http, shown};
use super::s3::S3;
use crate::error::Result;

/// A source on another machine.
#[derive(Clone)]
#[non_exhaustive]
pub enum RemoteSource {
    /// An address.
    Http(Http),
    /// An asset of a release.
    GitHub(GitHub),
    /// An object of a bucket.
    S3(S3),
}

impl RemoteSource {
    pub(crate) fn file_name(&self) -> Option<String> {
        match self {
            Self::Http(http) => http.file_name(),
            Self::GitHub(_) => None,
            Self::S3(s3) => s3.file_name(),
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

    /// Returns whether it has a name only when it has been asked.
    pub(crate) fn is_named_later(&self) -> bool {
        matches!(self, Self::GitHub(_))
    }

    /// Finds what is wrong with it before anybody is asked.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::GitHub(github) => github.release().map(drop),
            Self::Http(_) | Self::S3(_) => Ok(()),
        }
    }
}

/// Without secrets: a URL's user, password, query and fragment are left out.
impl fmt::Display for RemoteSource {
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

impl fmt::Debug for RemoteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteSource({self})")
    }
}

impl From<Http> for RemoteSource {
    fn from(http: Http) -> Self {
        Self::Http(http)
    }
}

impl From<GitHub> for RemoteSource {
    fn from(github: GitHub) -> Self {
        Self::GitHub(github)
    }
}

impl From<S3> for RemoteSource {
    fn from(s3: S3) -> Self {
        Self::S3(s3)
    }
}
