//! A pidfile, for supervisors that know no `NOTIFY_SOCKET`: monit, OpenRC, runit or supervisord with a script of its own.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::service::hooks::on_thread;
use crate::settings::PIDFILE_TIMEOUT;

/// The file, while this generation is the one to be named in it.
#[derive(Debug, Clone)]
pub(crate) struct Pidfile {
    path: PathBuf,
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
        Self { path }
    }

    /// Names us. Whoever reads it finds the old content or the new, never half of it.
    pub(crate) async fn write(self) {
        self.aside("written", |path| {
            let old = read(path);
            if let Some(old) = old.filter(|pid| *pid != std::process::id()) {
                note_old(path, old);
            }
            replace(path)
        })
        .await;
    }

    /// Removes it, if it still names us.
    pub(crate) async fn remove(self) {
        self.aside("removed", |path| match read(path) {
            Some(pid) if pid == std::process::id() => fs::remove_file(path),
            _ => Ok(()),
        })
        .await;
    }

    /// It may be on a file system that hangs.
    async fn aside(self, what: &str, job: impl FnOnce(&Path) -> io::Result<()> + Send + 'static) {
        let shown = self.path.display().to_string();
        let done = on_thread(move || job(&self.path).map_err(|e| e.to_string()));
        match tokio::time::timeout(PIDFILE_TIMEOUT, done).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("the pidfile {shown} cannot be {what}: {error}"),
            Err(_) => warn!("the pidfile {shown} could not be {what} within {PIDFILE_TIMEOUT:?}"),
        }
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

/// Never a reason not to start: that a stale file does that elsewhere is what pidfiles are known for.
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
        let pidfile = || Pidfile::new(path.clone(), false);
        let us = format!("{}\n", std::process::id());
        for stale in ["", "4194304\n", "no number", "1"] {
            fs::write(&path, stale).unwrap();
            pidfile().write().await;
            assert_eq!(fs::read_to_string(&path).unwrap(), us);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing beside it");
        pidfile().remove().await;
        assert!(!path.exists());
        fs::write(&path, "1\n").unwrap();
        pidfile().remove().await;
        assert!(path.exists(), "another's");
        Pidfile::new("/nowhere/web.pid".into(), false).write().await;
    }
}
