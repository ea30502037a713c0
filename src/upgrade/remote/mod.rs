//! Sources that are on another machine: addresses, releases at GitHub, objects in buckets.

mod client;
mod github;
mod http;
mod s3;
mod source;

pub use client::{CONNECT_TIMEOUT, MAX_REDIRECTS, READ_TIMEOUT};
pub(crate) use client::{HttpClient, Network, RemoteRelease};
pub use github::{GITHUB_API, GitHub};
pub use http::Http;
pub use s3::S3;
pub use source::RemoteSource;
