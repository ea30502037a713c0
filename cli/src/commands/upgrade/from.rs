//! `--from`, and what belongs to one kind of source only.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use clap::Args;
use handover::upgrade::{GitHub, Http, ProgramSource, S3, UpgradeBuilder};

#[derive(Debug, Args)]
pub(super) struct More {
    /// github: the release with this tag [default: the latest one]
    #[arg(long)]
    tag: Option<String>,
    /// github: the asset with this name; * and ? stand for others
    #[arg(long, value_name = "PATTERN")]
    asset: Option<String>,
    /// github: where the API is, if not at GitHub
    #[arg(long, value_name = "URL")]
    github_api: Option<String>,
    /// s3: where the storage is, if not at Amazon
    #[arg(long, value_name = "URL")]
    s3_endpoint: Option<String>,
    /// s3: the region [default: $AWS_REGION, or us-east-1]
    #[arg(long, value_name = "NAME")]
    s3_region: Option<String>,
    /// s3: the bucket in the path (path) or in the host name (virtual) [default: path with an
    /// endpoint]
    #[arg(long, value_name = "STYLE", value_parser = ["path", "virtual"])]
    s3_style: Option<String>,
    /// https: trust these certificates (PEM) in place of the system's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Connect to ADDRESS for HOST
    #[arg(long, value_name = "HOST:ADDRESS", value_parser = resolved)]
    resolve: Vec<(String, SocketAddr)>,
}

impl More {
    /// `Err` is for people.
    pub(super) fn source(&self, from: &str) -> Result<ProgramSource, String> {
        let text = |e: handover::Error| crate::safe::terminal(&e.to_string());
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(repository) = from.strip_prefix("github:") {
            let asset = self.asset.as_deref().ok_or("github: needs --asset, the name of the program in the release")?;
            let mut github = GitHub::new(repository, asset);
            if let Some(tag) = &self.tag {
                github = github.tag(tag);
            }
            if let Some(api) = &self.github_api {
                github = github.api(api);
            }
            if let Some(token) = variable("GITHUB_TOKEN").or_else(|| variable("GH_TOKEN")) {
                github = github.token(token);
            }
            return Ok(github.into());
        }
        if self.tag.is_some() || self.asset.is_some() || self.github_api.is_some() {
            return Err("--tag, --asset and --github-api are for --from github:OWNER/REPOSITORY".to_owned());
        }
        if let Some(rest) = from.strip_prefix("s3://") {
            let (bucket, key) = rest
                .split_once('/')
                .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
                .ok_or("write s3://BUCKET/KEY")?;
            let mut s3 = S3::new(bucket, key).with_env();
            if let Some(endpoint) = &self.s3_endpoint {
                s3 = s3.endpoint(endpoint);
            }
            if let Some(region) = &self.s3_region {
                s3 = s3.region(region);
            }
            if let Some(style) = &self.s3_style {
                s3 = s3.path_style(style == "path");
            }
            return Ok(s3.into());
        }
        if self.s3_endpoint.is_some() || self.s3_region.is_some() || self.s3_style.is_some() {
            return Err("--s3-endpoint, --s3-region and --s3-style are for --from s3://BUCKET/KEY".to_owned());
        }
        if let Some(path) = from.strip_prefix("file://") {
            return Ok(ProgramSource::file(path));
        }
        if from.contains("://") {
            let mut http = Http::new(from).map_err(text)?;
            if let Some(value) = variable("HANDOVER_AUTHORIZATION") {
                http = http.header("authorization", &value).map_err(text)?;
            }
            return Ok(http.into());
        }
        std::path::absolute(from).map(ProgramSource::file).map_err(|e| format!("{from}: {e}"))
    }

    pub(super) fn is_said(&self) -> bool {
        let texts = [&self.tag, &self.asset, &self.github_api, &self.s3_endpoint, &self.s3_region, &self.s3_style];
        texts.into_iter().any(Option::is_some) || self.ca_file.is_some() || !self.resolve.is_empty()
    }

    pub(super) fn add_to(&self, mut builder: UpgradeBuilder) -> UpgradeBuilder {
        if let Some(path) = &self.ca_file {
            builder = builder.ca_file(path);
        }
        for (host, address) in &self.resolve {
            builder = builder.resolve(host, *address);
        }
        builder
    }
}

fn resolved(text: &str) -> Result<(String, SocketAddr), String> {
    let (host, address) = text.split_once(':').ok_or("write HOST:ADDRESS, for example example.com:192.0.2.1")?;
    let address = address.trim_matches(['[', ']']);
    let mut found = (address, 0).to_socket_addrs().map_err(|e| format!("{address}: {e}"))?;
    found.next().map(|address| (host.to_owned(), address)).ok_or_else(|| format!("{address} is no address"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        more: More,
    }

    fn source(from: &str, more: &str) -> Result<String, String> {
        let words = std::iter::once("x").chain(more.split_whitespace());
        Cli::parse_from(words).more.source(from).map(|source| source.to_string())
    }

    #[test]
    fn sources_are_told_apart() {
        for (from, more, shown) in [
            ("/srv/web", "", "/srv/web"),
            ("file:///srv/web", "", "/srv/web"),
            ("https://a.example/web?key=1", "", "https://a.example/web"),
            ("github:a/b", "--asset web*", "github:a/b (latest, web*)"),
            ("github:a/b", "--asset web --tag v1", "github:a/b (v1, web)"),
            ("s3://b/x/web", "--s3-style virtual", "s3://b/x/web"),
        ] {
            assert_eq!(source(from, more).as_deref(), Ok(shown), "{from}");
        }
        for (from, more) in [
            ("github:a/b", ""),
            ("web", "--tag v1"),
            ("s3://b", ""),
            ("s3:///k", ""),
            ("ftp://x/y", ""),
            ("web", "--s3-style path"),
        ] {
            assert!(source(from, more).is_err(), "{from} {more}");
        }
        assert_eq!(resolved("h:127.0.0.1").unwrap().1.to_string(), "127.0.0.1:0");
        assert!(resolved("h").is_err());
    }
}
