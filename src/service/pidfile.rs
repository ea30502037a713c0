//! A pidfile, for supervisors that know no `NOTIFY_SOCKET`: monit, OpenRC, runit or supervisord
//! with a script of its own.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::reload::hooks::on_thread;
use crate::settings::PIDFILE_TIMEOUT;

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
            aside(path, "written", |path| {
                if let Some(old) = read(path).filter(|pid| *pid != std::process::id()) {
                    note_old(path, old);
                }
                replace(path)
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
            aside(self.path, "removed", |path| match read(path) {
                Some(pid) if pid == std::process::id() => fs::remove_file(path),
                _ => Ok(()),
            })
            .await;
        }
    }
}

/// The file may be on a file system that hangs.
async fn aside(path: PathBuf, what: &str, job: impl FnOnce(&Path) -> io::Result<()> + Send + 'static) {
    let shown = path.display().to_string();
    let done = on_thread(move || job(&path).map_err(|e| e.to_string()));
    match tokio::time::timeout(PIDFILE_TIMEOUT, done).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!("the pidfile {shown} cannot be {what}: {error}"),
        Err(_) => warn!("the pidfile {shown} could not be {what} within {PIDFILE_TIMEOUT:?}"),
    }
}

/// Lets a supervisor that looks at the wrong moment see one of the two: rename(2).
fn replace(path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    // Of a process with our pid that died half-way.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
    let written = file.write_all(format!("{}\n", std::process::id()).as_bytes()).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn read(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
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
