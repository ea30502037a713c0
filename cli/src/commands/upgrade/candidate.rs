//! What a new program must be, and how it is fetched: the same for `handover upgrade` and `handover
//! run --watch`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use handover::Error;
use handover::upgrade::{KEEP, MAX_SIZE, ProgramSource, Trust, Upgrade, UpgradeBuilder};

use super::from::More;
use crate::failure::Failure;
use crate::safe;

#[derive(Debug, Args)]
pub(crate) struct Candidate {
    #[command(flatten)]
    more: More,
    /// A public key of minisign that the program must be signed by: its line, or its file. May be
    /// said again, for one of several
    #[arg(long, value_name = "KEY|FILE", group = "trust")]
    key: Vec<String>,
    /// Take what is not signed
    #[arg(long, group = "trust", conflicts_with = "key")]
    no_signature: bool,
    /// Take a signature that is of a file with another name
    #[arg(long, conflicts_with = "no_signature")]
    any_name: bool,
    /// Take a signature that is older than that of a program which ran already
    #[arg(long, conflicts_with = "no_signature")]
    allow_older: bool,
    /// The list of checksums, beside the program, that its SHA-256 stands in
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "SHA256SUMS", require_equals = true)]
    sha256_in: Option<String>,
    /// A command of the shell that the new program must pass before it is installed; {} is its path
    #[arg(long, value_name = "COMMAND")]
    check: Option<String>,
    /// How long that may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    check_timeout: Duration,
    /// Take files that are no ELF program of this machine, such as scripts
    #[arg(long)]
    any_format: bool,
    /// How many programs of before are kept
    #[arg(long, value_name = "N", default_value_t = KEEP, value_parser = keep)]
    keep: usize,
    /// Try a program again that the service would not have before
    #[arg(long)]
    retry: bool,
    /// How large a program may be
    #[arg(long, value_name = "BYTES", default_value_t = MAX_SIZE)]
    max_size: u64,
    /// How long a connection may take to be made
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    connect_timeout: Duration,
    /// How long nothing may come
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    read_timeout: Duration,
    /// How long the program may take to come
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    fetch_timeout: Duration,
}

type Set = fn(UpgradeBuilder) -> UpgradeBuilder;

fn keep(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "at least 1, which is what a failure goes back to".to_owned())
}

impl Candidate {
    /// `from`: None if nothing is to be fetched.
    pub(crate) fn builder(&self, program: PathBuf, from: Option<&str>) -> Result<UpgradeBuilder, Failure> {
        let source = match from {
            Some(from) => self.more.source(from).map_err(Failure::usage)?,
            None => ProgramSource::file(&program),
        };
        let mut trust = Trust::unsigned();
        for key in &self.key {
            let key = if Path::new(key).exists() { Trust::key_file(key) } else { Trust::keys([key.as_str()]) };
            trust = trust.and(key.map_err(|e| invalid(&e))?);
        }
        let mut builder = Upgrade::builder(program, source, trust)
            .check_timeout(self.check_timeout)
            .keep(self.keep)
            .max_size(self.max_size)
            .connect_timeout(self.connect_timeout)
            .read_timeout(self.read_timeout)
            .fetch_timeout(self.fetch_timeout);
        if let Some(list) = &self.sha256_in {
            builder = builder.sha256_in(list);
        }
        if let Some(command) = &self.check {
            builder = builder.check(command);
        }
        let flags: [(bool, Set); 4] = [
            (self.any_format, UpgradeBuilder::any_format),
            (self.any_name, UpgradeBuilder::any_name),
            (self.allow_older, UpgradeBuilder::allow_older),
            (self.retry, UpgradeBuilder::retry),
        ];
        builder = flags.iter().filter(|(said, _)| *said).fold(builder, |builder, (_, set)| set(builder));
        Ok(self.more.add_to(builder))
    }

    /// The first option that was said of those that mean nothing without a source.
    pub(crate) fn said(&self) -> Option<&'static str> {
        let all = [
            (!self.key.is_empty(), "--key"),
            (self.no_signature, "--no-signature"),
            (self.sha256_in.is_some(), "--sha256-in"),
            (self.check.is_some(), "--check"),
            (self.any_format, "--any-format"),
            (self.any_name, "--any-name"),
            (self.allow_older, "--allow-older"),
            (self.retry, "--retry"),
            (self.more.is_said(), "an option for one kind of source"),
        ];
        all.into_iter().find(|(said, _)| *said).map(|(_, name)| name)
    }

    /// Whether it is said whose programs are taken.
    pub(crate) fn says_whom_to_trust(&self) -> bool {
        self.no_signature || !self.key.is_empty()
    }
}

pub(crate) fn invalid(error: &Error) -> Failure {
    Failure::usage(safe::terminal(&error.to_string()))
}
