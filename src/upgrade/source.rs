//! Where a candidate comes from.

use std::fmt;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

#[cfg(feature = "upgrade-remote")]
use crate::error::Result;
#[cfg(feature = "upgrade-remote")]
use crate::upgrade::remote::{Http, RemoteSource};
use crate::upgrade::trust::hex;

/// Where a candidate comes from. Its signature lies beside it, with `.minisig` after the name.
///
#[cfg_attr(feature = "upgrade-remote", doc = "```")]
#[cfg_attr(not(feature = "upgrade-remote"), doc = "```ignore")]
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
    /// What another machine has: an address, an asset of a release, an object of a bucket.
    #[cfg(feature = "upgrade-remote")]
    Remote(RemoteSource),
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
    /// With [`is_invalid`](crate::Error::is_invalid): it is no such address.
    #[cfg(feature = "upgrade-remote")]
    pub fn url(url: &str) -> Result<Self> {
        Http::new(url).map(Self::from)
    }

    /// Returns the name by which a list of checksums has it.
    pub(crate) fn file_name(&self) -> String {
        let name = match self {
            Self::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
            #[cfg(feature = "upgrade-remote")]
            Self::Remote(remote) => remote.file_name(),
        };
        name.unwrap_or_default()
    }

    /// Returns the name under which it is remembered what was seen there. It holds no secret.
    pub(crate) fn identity(&self) -> String {
        let all = match self {
            Self::File(_) => self.to_string(),
            #[cfg(feature = "upgrade-remote")]
            Self::Remote(remote) => remote.identity(),
        };
        hex(&Sha256::digest(all))
    }

    /// Returns whether who stands between could put another file in its place.
    pub(crate) fn is_plain_http(&self) -> bool {
        match self {
            Self::File(_) => false,
            #[cfg(feature = "upgrade-remote")]
            Self::Remote(remote) => remote.is_plain_http(),
        }
    }
}

/// Without secrets: a URL's user, password, query and fragment are left out.
impl fmt::Display for ProgramSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            #[cfg(feature = "upgrade-remote")]
            Self::Remote(remote) => write!(f, "{remote}"),
        }
    }
}

impl fmt::Debug for ProgramSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

#[cfg(feature = "upgrade-remote")]
impl<T: Into<RemoteSource>> From<T> for ProgramSource {
    fn from(remote: T) -> Self {
        Self::Remote(remote.into())
    }
}

#[cfg(all(test, feature = "upgrade-remote"))]
mod tests {
    use super::*;
    use crate::upgrade::GitHub;

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
