//! The service's executable on disk: an upgrade is a file put in place of another.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;
use tempfile::TempDir;

use crate::failure::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Version {
    Good,
    /// Ends as soon as it is started.
    Exits,
    /// Starts and never is ready.
    Hangs,
}

/// A private directory, removed at the end, with the executable in it.
#[derive(Debug)]
pub(super) struct Versions {
    directory: TempDir,
}

impl Versions {
    /// A copy of this very program becomes the service.
    pub(super) fn new() -> Result<Self, Failure> {
        let own = std::env::current_exe()
            .map_err(|e| Failure::cannot_run(format!("the path of this program is unknown: {e}")))?;
        let places = [Some(std::env::temp_dir()), own.parent().map(Path::to_owned)];
        let mut refusals = Vec::new();
        for place in places.into_iter().flatten() {
            // A directory for temporary files may be mounted noexec.
            match Self::within(&place, &own) {
                Ok(versions) => return Ok(versions),
                Err(e) => refusals.push(format!("{}: {e}", place.display())),
            }
        }
        let refusals = refusals.join("; ");
        Err(Failure::cannot_run(format!(
            "no directory from which a copy of this program runs ({refusals}); name one in TMPDIR"
        )))
    }

    fn within(place: &Path, own: &Path) -> io::Result<Self> {
        let private = fs::Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().prefix("handover-demo-").permissions(private).tempdir_in(place)?;
        let versions = Self { directory };
        let good = versions.good();
        // Another file system, or another owner's file: copied.
        fs::hard_link(own, &good).or_else(|_| fs::copy(own, &good).map(drop))?;
        versions.put(Version::Good)?;
        let run =
            Command::new(versions.program()).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        run.success().then_some(versions).ok_or_else(|| io::Error::other(format!("the copy ended with {run}")))
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The path that the service is started from, again and again.
    pub(super) fn program(&self) -> PathBuf {
        self.directory().join("web")
    }

    fn good(&self) -> PathBuf {
        self.directory().join("good")
    }

    /// Puts this version in place, atomically, as a package manager does.
    pub(super) fn install(&self, version: Version) -> Result<(), Failure> {
        let path = self.program();
        self.put(version).map_err(|e| Failure::cannot_run(format!("{} cannot be replaced: {e}", path.display())))
    }

    fn put(&self, version: Version) -> io::Result<()> {
        let new = self.directory().join("web.new");
        match version {
            Version::Good => fs::hard_link(self.good(), &new)?,
            Version::Exits => script(&new, "echo 'this version ends at start' >&2; exit 3")?,
            Version::Hangs => script(&new, "echo 'this version never gets ready' >&2; exec sleep 3600")?,
        }
        fs::rename(&new, self.program())?;
        // Renaming over another link of the same file does nothing and leaves the name.
        fs::remove_file(&new).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
    }
}

fn script(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    writeln!(file, "#!/bin/sh\n{text}")?;
    file.set_permissions(fs::Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_replace_one_another() {
        let place = tempfile::tempdir().unwrap();
        let versions = Versions::within(place.path(), Path::new("/bin/true")).unwrap();
        let run = || Command::new(versions.program()).stderr(Stdio::null()).status().unwrap().code();
        assert_eq!(run(), Some(0));
        versions.install(Version::Good).unwrap();
        versions.install(Version::Exits).unwrap();
        assert_eq!(run(), Some(3));
        versions.install(Version::Good).unwrap();
        assert_eq!(run(), Some(0));
        assert_eq!(fs::read_dir(versions.directory()).unwrap().count(), 2, "the good one and the one in place");
    }
}
