//! Fetching: what a source has comes to the candidate's file, bounded in size and time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

use crate::error::{Error, Kind, Result};
use crate::sys::folder::open_regular;
use crate::upgrade::record::Seen;
#[cfg(feature = "upgrade-remote")]
use crate::upgrade::remote;
use crate::upgrade::sink::{MAX_TEXT, Sink};
use crate::upgrade::source::ProgramSource;

/// How long a program with its signature may take to be fetched.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(600);
/// How large a program may be, in bytes.
pub const MAX_SIZE: u64 = 512 * 1024 * 1024;

#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) total: Duration,
    pub(crate) size: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { total: FETCH_TIMEOUT, size: MAX_SIZE }
    }
}

#[derive(Debug)]
pub(crate) struct Fetcher {
    pub(crate) limits: Limits,
    #[cfg(feature = "upgrade-remote")]
    pub(crate) client: remote::HttpClient,
}

/// What a source has.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// What it had.
    Unchanged,
    Program(Box<Fresh>),
}

#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) seen: Seen,
    /// Where the rest of its release is.
    beside: Beside,
}

#[derive(Debug)]
enum Beside {
    File(PathBuf),
    #[cfg(feature = "upgrade-remote")]
    Remote(Box<remote::RemoteRelease>),
}

impl Fetcher {
    /// Writes the program to that file, unless it is what was `seen` there.
    pub(crate) async fn program(
        &self,
        source: &ProgramSource,
        seen: Option<&Seen>,
        into: (std::fs::File, PathBuf),
    ) -> Result<Fetched> {
        let fetching = self.fetch(source, seen, into);
        match tokio::time::timeout(self.limits.total, fetching).await {
            Ok(fetched) => fetched,
            Err(_) => {
                let within = self.limits.total;
                Err(Error::new(Kind::Fetch, format!("{source}: not fetched within {within:?}")))
            }
        }
    }

    async fn fetch(
        &self,
        source: &ProgramSource,
        seen: Option<&Seen>,
        (file, path): (std::fs::File, PathBuf),
    ) -> Result<Fetched> {
        let mut sink = Sink::new(File::from_std(file), path, self.limits.size);
        let mut fresh = Seen { source: source.identity(), ..Seen::default() };
        let beside = match source {
            ProgramSource::File(path) => {
                fresh.version = Some(copy(path, seen.and_then(|seen| seen.version.as_deref()), &mut sink).await?);
                if fresh.version == seen.and_then(|seen| seen.version.clone()) {
                    return Ok(Fetched::Unchanged);
                }
                Beside::File(path.clone())
            }
            #[cfg(feature = "upgrade-remote")]
            ProgramSource::Remote(remote) => match self.client.program(remote, seen, &mut sink, &mut fresh).await? {
                Some(release) => Beside::Remote(Box::new(release)),
                None => return Ok(Fetched::Unchanged),
            },
        };
        fresh.sha256 = sink.end().await?;
        #[cfg(feature = "upgrade-remote")]
        if let Beside::Remote(release) = &beside
            && release.contradicts(&fresh.sha256)
        {
            let what = "its SHA-256 is not the one that the release tells";
            return Err(Error::new(Kind::Candidate, format!("{source}: {what}")));
        }
        Ok(Fetched::Program(Box::new(Fresh { seen: fresh, beside })))
    }

    /// Fetches what has the program's name and this ending.
    pub(crate) async fn side(&self, fresh: &Fresh, ending: &str) -> Result<Vec<u8>> {
        self.named(fresh, &format!("{}{ending}", Self::name_of(fresh))).await
    }

    /// Fetches what has this name, and lies where the program does.
    pub(crate) async fn named(&self, fresh: &Fresh, name: &str) -> Result<Vec<u8>> {
        let reading = async {
            match &fresh.beside {
                Beside::File(path) => {
                    let path = path.with_file_name(name);
                    let failed = |e| Error::caused(Kind::Fetch, format!("{} cannot be read", path.display()), e);
                    let mut text = Vec::new();
                    let file = opened(&path).await.map_err(failed)?;
                    file.take(MAX_TEXT).read_to_end(&mut text).await.map_err(failed)?;
                    Ok(text)
                }
                #[cfg(feature = "upgrade-remote")]
                Beside::Remote(release) => self.client.named(release, name).await,
            }
        };
        let within = self.limits.total;
        tokio::time::timeout(within, reading)
            .await
            .unwrap_or_else(|_| Err(Error::new(Kind::Fetch, format!("{name}: not fetched within {within:?}"))))
    }

    pub(crate) fn name_of(fresh: &Fresh) -> String {
        match &fresh.beside {
            Beside::File(path) => ProgramSource::file(path).file_name(),
            #[cfg(feature = "upgrade-remote")]
            Beside::Remote(release) => release.file_name(),
        }
    }
}

/// Opens a file on a thread of its own, as it may be on a file system that hangs.
async fn opened(path: &Path) -> std::io::Result<File> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || open_regular(&path)).await;
    opened.unwrap_or_else(|e| Err(std::io::Error::other(e))).map(File::from_std)
}

/// Copies the file, and returns its version. Nothing is copied if that is the one that was seen.
async fn copy(path: &Path, seen: Option<&str>, sink: &mut Sink) -> Result<String> {
    use std::os::unix::fs::MetadataExt as _;
    let failed = |e| Error::caused(Kind::Fetch, format!("{} cannot be read", path.display()), e);
    let mut file = opened(path).await.map_err(failed)?;
    let meta = file.metadata().await.map_err(failed)?;
    let version = format!("{} {} {}.{:09} {}", meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size());
    if seen == Some(&version) {
        return Ok(version);
    }
    let what = path.display().to_string();
    sink.announced(meta.len()).map_err(|e| Error::new(Kind::Candidate, format!("{what}: {e}")))?;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk).await.map_err(failed)? {
            0 => return Ok(version),
            n => sink.take(&chunk[..n], &what).await?,
        }
    }
}
