//! Addresses of programs.

use std::fmt;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{Error, Kind, Result};

/// An address, with what is to be sent there.
#[derive(Clone)]
pub struct Http {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
}

impl Http {
    /// Takes an address, as [`ProgramSource::url`](crate::upgrade::ProgramSource::url) does.
    ///
    /// # Errors
    /// With [`Error::is_invalid`]: it is no `https://` or `http://` address.
    pub fn new(url: &str) -> Result<Self> {
        let bad = |why: &dyn fmt::Display| Error::new(Kind::Invalid, format!("this is no address of a program: {why}"));
        let url = Url::parse(url).map_err(|e| bad(&e))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad(&format_args!("{}: is not http or https", url.scheme())));
        }
        Ok(Self { url, headers: HeaderMap::new() })
    }

    /// Sends this, too. `Authorization` is not sent on to another host by a redirect; of other
    /// headers say only what is no secret.
    ///
    /// # Errors
    /// With [`Error::is_invalid`]: it is no header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self> {
        let bad = || Error::new(Kind::Invalid, format!("{name:?} with its value is no header of HTTP"));
        let name = HeaderName::try_from(name).map_err(|_| bad())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(self)
    }

    pub(crate) fn file_name(&self) -> Option<String> {
        self.url.path_segments().and_then(|mut all| all.next_back()).map(str::to_owned)
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http({})", shown(&self.url))
    }
}

/// Writes a URL as it may be shown.
pub(crate) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}
