//! A pidfile, for supervisors that know no `NOTIFY_SOCKET`: monit, OpenRC, runit or supervisord
//! with a script of its own.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::reload::hooks::on_thread;
use crate::settings::PIDFILE_TIMEOUT;
use crate::sys::folder::{Folder, Way};

/// More than any pid with what is around it: of a longer file no more is read.
const MAX_PIDFILE: u64 = 64;

/// The file, and what is being done to it.
#[derive(Debug)]
pub(crate) struct Pidfile {
    path: PathBuf,
    /// The last change, which has a deadline of its own.
    last: Option<JoinHandle<()>>,
    /// It names this process, or will.
    ours: bool,
}

impl Pidfile {
    pub(crate) fn new(path: PathBuf, managed: bool) -> Self {
        if managed {
            warn!(
                "a pidfile under a service manager that is notified is of no use; with PIDFile={} in the unit it would even \
                 move the main process back to an old one",
                path.display()
            );
        }
        Self { path, last: None, ours: false }
    }

    /// Names this process, aside. Whoever reads the file finds the old content or the new, never
    /// half of it.
    pub(crate) fn write(&mut self) {
        self.ours = true;
        let (path, before) = (self.path.clone(), self.last.take());
        self.last = Some(tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            aside(path, "written", |place| {
                if let Some(old) = place.read().filter(|pid| *pid != std::process::id()) {
                    note_old(&place.path(), old);
                }
                place.replace()
            })
            .await;
        }));
    }

    /// Leaves the file to the next generation, to write and to remove.
    pub(crate) fn leave(&mut self) {
        self.ours = false;
    }

    /// Removes the file, if it still names this process.
    pub(crate) async fn end(mut self) {
        if let Some(last) = self.last.take() {
            let _ = last.await;
        }
        if self.ours {
            aside(self.path, "removed", |place| match place.read() {
                Some(pid) if pid == std::process::id() => place.remove(),
                _ => Ok(()),
            })
            .await;
        }
    }
}

/// The file may be on a file system that hangs.
async fn aside(path: PathBuf, what: &str, job: impl FnOnce(&PidfilePlace) -> io::Result<()> + Send + 'static) {
    let shown = path.display().to_string();
    let done = on_thread(move || PidfilePlace::open(&path).and_then(|place| job(&place)).map_err(|e| e.to_string()));
    match tokio::time::timeout(PIDFILE_TIMEOUT, done).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!("the pidfile {shown} cannot be {what}: {error}"),
        Err(_) => warn!("the pidfile {shown} could not be {what} within {PIDFILE_TIMEOUT:?}"),
    }
}

/// Where the file is. All that is done is done there: who could move the directory meanwhile could
/// have a file written or removed elsewhere.
struct PidfilePlace {
    folder: Folder,
    name: OsString,
}

impl PidfilePlace {
    fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let (folder, name) = Folder::of(&path, Way::NoPlantedLinks).map_err(|error| {
            // Its text names the path, as that of whoever asked does.
            let number = error.io().and_then(io::Error::raw_os_error);
            number.map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
        })?;
        Ok(Self { folder, name })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// Reads whom it names, if it is a file that names somebody.
    fn read(&self) -> Option<u32> {
        let file = self.folder.file(&self.name, OFlag::O_RDONLY, 0).ok()?;
        let mut text = String::new();
        file.metadata().ok().filter(fs::Metadata::is_file)?;
        file.take(MAX_PIDFILE).read_to_string(&mut text).ok()?;
        text.trim().parse().ok()
    }

    fn remove(&self) -> io::Result<()> {
        self.folder.remove(&self.name)
    }

    /// Lets a supervisor that looks at the wrong moment see one of the two: rename(2).
    fn replace(&self) -> io::Result<()> {
        let new = OsString::from(format!(".{}.{}", self.name.display(), std::process::id()));
        // Of a process with our pid that died half-way.
        let _ = self.folder.remove(&new);
        let mut file = self.folder.file(&new, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, 0o666)?;
        let written = file.write_all(format!("{}\n", std::process::id()).as_bytes());
        let written = written.and_then(|()| self.folder.rename(&new, &self.folder, &self.name));
        if written.is_err() {
            let _ = self.folder.remove(&new);
        }
        written
    }
}

/// Never a reason not to start: that a stale file does that elsewhere is what pidfiles are known
/// for.
fn note_old(path: &Path, old: u32) {
    let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    match (program(old), program(std::process::id())) {
        (Some(theirs), Some(ours)) if theirs == ours => {
            info!("the pidfile {} named process {old}, which is another one of this program", path.display());
        }
        _ => info!("the pidfile {} was stale: it named process {old}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_names_us_and_is_removed_only_if_it_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.pid");
        let us = format!("{}\n", std::process::id());
        let mut pidfile = Pidfile::new(path.clone(), false);
        for stale in ["", "4194304\n", "no number", "1"] {
            fs::write(&path, stale).unwrap();
            pidfile.write();
            pidfile.last.take().unwrap().await.unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), us);
        }
        // What never ends, or never begins.
        let replaced = [
            |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
            |path: &Path| {
                nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            },
        ];
        for put in replaced {
            fs::remove_file(&path).unwrap();
            put(&path);
            let began = std::time::Instant::now();
            pidfile.write();
            pidfile.last.take().unwrap().await.unwrap();
            assert!(began.elapsed() < PIDFILE_TIMEOUT, "it was read without end");
            assert_eq!(fs::read_to_string(&path).unwrap(), us);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing beside it");
        pidfile.end().await;
        assert!(!path.exists());
        for (content, left) in [("1\n", false), (us.as_str(), true)] {
            let mut pidfile = Pidfile::new(path.clone(), false);
            pidfile.write();
            pidfile.last.take().unwrap().await.unwrap();
            fs::write(&path, content).unwrap();
            if left {
                pidfile.leave();
            }
            pidfile.end().await;
            assert!(path.exists(), "another's");
        }
        let mut nowhere = Pidfile::new("/nowhere/web.pid".into(), false);
        nowhere.write();
        nowhere.end().await;
    }
}
