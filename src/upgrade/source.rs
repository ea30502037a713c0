//! Where a candidate comes from.

use std::fmt;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

#[cfg(feature = "upgrade-remote")]
use crate::upgrade::remote::Remote;

/// Where a candidate comes from. Its signature lies beside it, with `.minisig` after the name.
///
#[cfg_attr(feature = "upgrade-remote", doc = "```")]
#[cfg_attr(not(feature = "upgrade-remote"), doc = "```ignore")]
/// use handover::upgrade::{GitHub, S3, Source};
/// let file: Source = Source::file("/srv/releases/web");
/// let https: Source = Source::url("https://releases.example.com/web")?;
/// let github: Source = GitHub::new("acme/web", "web-*-x86_64").into();
/// let s3: Source = S3::new("releases", "web/stable/web").region("eu-central-1").into();
/// assert_eq!(s3.to_string(), "s3://releases/web/stable/web");
/// # Ok::<(), handover::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Source {
    /// A file of this machine.
    File(PathBuf),
    /// What another machine has: made from a [`Http`](crate::upgrade::Http), a [`GitHub`](crate::upgrade::GitHub) or an
    /// [`S3`](crate::upgrade::S3).
    #[cfg(feature = "upgrade-remote")]
    Remote(Remote),
}

impl Source {
    /// A file of this machine, or of one that is mounted.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File(path.into())
    }

    /// The name by which a list of checksums has it.
    pub(crate) fn file_name(&self) -> String {
        let name = match self {
            Self::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
            #[cfg(feature = "upgrade-remote")]
            Self::Remote(remote) => remote.file_name(),
        };
        name.unwrap_or_default()
    }

    /// What was seen there is remembered under this name. It holds no secret.
    pub(crate) fn identity(&self) -> String {
        let all = match self {
            Self::File(_) => self.to_string(),
            #[cfg(feature = "upgrade-remote")]
            Self::Remote(remote) => remote.identity(),
        };
        hex(&Sha256::digest(all))
    }

    /// Whether who stands between could put another file in its place.
    pub(crate) fn is_plain_http(&self) -> bool {
        match self {
            Self::File(_) => false,
            #[cfg(feature = "upgrade-remote")]
            Self::Remote(remote) => remote.is_plain_http(),
        }
    }
}

/// Without secrets: a URL's user, password, query and fragment are left out.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            #[cfg(feature = "upgrade-remote")]
            Self::Remote(remote) => write!(f, "{remote}"),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
