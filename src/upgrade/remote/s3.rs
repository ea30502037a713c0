//! Objects of S3-compatible storage.

use std::fmt;
use std::time::Duration;

use rusty_s3::actions::{GetObject, S3Action as _};
use rusty_s3::{Bucket, Credentials, UrlStyle};

use super::http::Http;
use crate::error::{Error, Kind, Result};

/// A signed address is good for this long: from its making until the server has read it.
const SIGNED_FOR: Duration = Duration::from_secs(300);

/// An object of a bucket in S3-compatible storage. Requests are signed (`SigV4`) if there are
/// credentials.
#[derive(Clone)]
pub struct S3 {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) region: String,
    pub(crate) endpoint: Option<String>,
    path_style: Option<bool>,
    credentials: Option<Credentials>,
}

impl S3 {
    /// Names the object `key` of that bucket.
    pub fn new(bucket: impl Into<String>, key: impl Into<String>) -> Self {
        let (bucket, key) = (bucket.into(), key.into());
        Self { bucket, key, region: "us-east-1".to_owned(), endpoint: None, path_style: None, credentials: None }
    }

    /// Takes what is set of `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`,
    /// `AWS_REGION` or `AWS_DEFAULT_REGION`, and `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, as
    /// Amazon's own tools do.
    pub fn with_env(self) -> Self {
        self.with_variables(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn with_variables(mut self, get: impl Fn(&str) -> Option<String>) -> Self {
        if let Some(region) = get("AWS_REGION").or_else(|| get("AWS_DEFAULT_REGION")) {
            self.region = region;
        }
        self.endpoint = get("AWS_ENDPOINT_URL_S3").or_else(|| get("AWS_ENDPOINT_URL")).or(self.endpoint);
        match (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")) {
            (Some(key), Some(secret)) => self.credentials(key, secret, get("AWS_SESSION_TOKEN")),
            _ => self,
        }
    }

    /// Sets the region. The default is `us-east-1`.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = region.into();
        self
    }

    /// Sets where the storage is. By default that is Amazon's, in the region.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Sets whether the bucket stands in the path, not in the host name. By default it does if
    /// there is an [`endpoint`](Self::endpoint).
    pub fn path_style(mut self, on: bool) -> Self {
        self.path_style = Some(on);
        self
    }

    /// Sets what requests are signed with. By default they are not signed.
    pub fn credentials(mut self, key: impl Into<String>, secret: impl Into<String>, token: Option<String>) -> Self {
        self.credentials = Some(match token {
            Some(token) => Credentials::new_with_token(key, secret, token),
            None => Credentials::new(key, secret),
        });
        self
    }

    pub(crate) fn file_name(&self) -> Option<String> {
        self.key.rsplit('/').next().map(str::to_owned)
    }

    /// Returns the address, with a signature of its own, of the object, or of the one whose key has
    /// this in place of its last part.
    pub(crate) fn get(&self, key: &str) -> Result<Http> {
        let bad = |why: &dyn fmt::Display| Error::new(Kind::Invalid, format!("s3://{}: {why}", self.bucket));
        let endpoint = match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("https://s3.{}.amazonaws.com", self.region),
        };
        let endpoint = Http::new(&endpoint).map_err(|e| bad(&e))?.url;
        let path_style = self.path_style.unwrap_or(self.endpoint.is_some());
        let style = if path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let bucket = Bucket::new(endpoint, style, self.bucket.clone(), self.region.clone()).map_err(|e| bad(&e))?;
        let url = GetObject::new(&bucket, self.credentials.as_ref(), key).sign(SIGNED_FOR);
        Http::new(url.as_str())
    }
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_is_in_the_host_or_in_the_path() {
        let url = |s3: &S3| s3.get(&s3.key).unwrap().url;
        let own = S3::new("b", "x/web").region("eu-west-1");
        assert_eq!(url(&own).as_str(), "https://b.s3.eu-west-1.amazonaws.com/x/web");
        let other = own.clone().endpoint("http://[::1]:9000");
        assert_eq!(url(&other).as_str(), "http://[::1]:9000/b/x/web");
        let other = other.endpoint("https://store.example").path_style(false);
        assert_eq!(url(&other).as_str(), "https://b.store.example/x/web");
        assert!(own.endpoint("store").get("x").unwrap_err().is_invalid());
    }

    #[test]
    fn the_environment_is_that_of_amazons_tools() {
        let s3 = S3::new("b", "web").with_variables(|name| match name {
            "AWS_ACCESS_KEY_ID" => Some("me".into()),
            "AWS_SECRET_ACCESS_KEY" => Some("hush".into()),
            "AWS_SESSION_TOKEN" => Some("today".into()),
            "AWS_DEFAULT_REGION" => Some("mars".into()),
            "AWS_ENDPOINT_URL" => Some("https://store".into()),
            _ => None,
        });
        let url = s3.get("web").unwrap().url;
        assert!(url.as_str().starts_with("https://store/b/web?"), "{url}");
        let query = url.query().unwrap();
        assert!(query.contains("X-Amz-Signature=") && query.contains("X-Amz-Security-Token=today"), "{query}");
        assert!(query.contains("me%2F") && query.contains("%2Fmars%2Fs3"), "{query}");
        assert!(!url.as_str().contains("hush") && !format!("{s3:?}").contains("hush"));
    }
}
