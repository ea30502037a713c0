//! Sources that are on another machine: addresses, releases at GitHub, objects in buckets.

mod client;
mod github;
mod http;
mod origin;
mod s3;

pub(crate) use client::{Beside, Client, Network};
pub use client::{CONNECT_TIMEOUT, MAX_REDIRECTS, READ_TIMEOUT};
pub use github::{GITHUB_API, GitHub};
pub use http::Http;
pub use origin::Remote;
pub use s3::S3;
