//! On which mount the program lies, and whether the service manager would still start that one.
//!
//! The next generation inherits our mounts and our root. A service with mounts of its own keeps
//! them over a soft reboot that it survives, when the directory or the image that is its root is
//! replaced, and when what lies below a mount of its own is replaced by another extension: a reload
//! would then start the old program again, and say that it went well.

use std::ffi::OsString;
use std::path::Path;

use tracing::warn;

use crate::error::{Error, Kind, Result};
use crate::generation::mounts::{ImageFile, Mount};

/// How the kernel marks a directory that was removed.
const DELETED: &[u8] = b"//deleted";
/// What starts the new program instead, for a service of ours.
pub(crate) const RESTART: &str = "use `systemctl restart`, over which `migrate = \"restart\"` keeps the connections";

/// The mounts that a program lies on, as they were at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    ours: Option<Mount>,
    /// At the same path in the mounts of PID 1; unknown where /proc hides it (`ProtectProc=`).
    manager: Option<Mount>,
    /// That ours is mounted from.
    image: Option<ImageFile>,
}

impl Place {
    /// Finds where the program at this path lies. What cannot be read is unknown, and of that
    /// nothing is judged.
    pub(crate) fn of(program: &Path) -> Self {
        let path = program.canonicalize().ok();
        let on = |pid| Mount::of(pid, path.as_deref()?);
        let ours = on("self");
        Self { image: ours.as_ref().and_then(Mount::image), ours, manager: on("1") }
    }

    /// Warns of what cannot be seen: that there is another extension by now, or that a portable
    /// service was attached to another image.
    pub(crate) fn warn_of_unseen(&self, program: &Path, env: &[(OsString, OsString)]) {
        let Some(ours) = &self.ours else { return };
        if ours.of_extensions {
            warn!(
                "{} lies in an extension (ExtensionDirectories=, ExtensionImages=): a reload starts what was there when \
                 systemd started the service, and only `systemctl restart` takes another one",
                program.display()
            );
        }
        let attached = env.iter().find(|(name, _)| name == "PORTABLE");
        if let Some((_, image)) = attached.filter(|_| self.has_own_root()) {
            warn!(
                "{} lies in the image {} of a portable service: a reload starts what is in that one, also after \
                 `portablectl reattach`, and only `systemctl restart` takes another one",
                program.display(),
                image.display()
            );
        }
    }

    fn has_own_root(&self) -> bool {
        self.ours.as_ref().is_some_and(|ours| ours.point == Path::new("/")) && !self.is_shared()
    }

    /// Tells whether we see what PID 1 sees.
    fn is_shared(&self) -> bool {
        self.ours.as_ref().zip(self.manager.as_ref()).is_some_and(|(ours, theirs)| ours.leads_where(theirs))
    }

    /// Fails if a start by the service manager would run a program of another root than ours, and
    /// says what to do instead.
    pub(crate) fn check(&self, now: &Self, program: &Path, instead: &str) -> Result<()> {
        match self.differs(now) {
            None => Ok(()),
            Some(why) => {
                let shown = program.display();
                let message = format!("{shown} would be the old program again: {why}; {instead}");
                Err(Error::new(Kind::State, message))
            }
        }
    }

    fn differs(&self, now: &Self) -> Option<String> {
        let (then, ours) = (self.ours.as_ref()?, now.ours.as_ref()?);
        // Where we see what PID 1 sees, a restart leads nowhere else.
        if now.is_shared() || (&then.device, &then.point) != (&ours.device, &ours.point) {
            return None;
        }
        let shown = |root: &[u8]| String::from_utf8_lossy(root).into_owned();
        if let Some(gone) = ours.root.strip_suffix(DELETED) {
            return Some(format!("the directory {} that it lies in (RootDirectory=) was removed", shown(gone)));
        }
        if then.root != ours.root {
            // Without PID 1's mounts it may be that all of the system lies there.
            let (was, is) = (shown(&then.root), shown(&ours.root));
            return now
                .manager
                .is_some()
                .then(|| format!("the directory {was} that it lies in (RootDirectory=) was renamed to {is}"));
        }
        // Where PID 1 is hidden, only our own root is sure to be no mount of the system's.
        if now.manager.is_some() || (!ours.follows && ours.point == Path::new("/")) {
            match self.image.as_ref().zip(now.image.as_ref()) {
                Some((was, is)) if is.is_gone && !was.is_gone => {
                    let was = was.path.display();
                    return Some(format!("the image {was} that it lies in (RootImage=) was replaced or removed"));
                }
                Some((was, is)) if !was.may_be(&is.path) => {
                    let (was, is) = (was.path.display(), is.path.display());
                    return Some(format!("the image {was} that it lies in (RootImage=) was renamed to {is}"));
                }
                _ => {}
            }
        }
        let left_behind = match now.manager {
            Some(_) => self.is_shared(),
            None => then.follows && !ours.follows,
        };
        left_behind.then(|| {
            "this process has kept the mounts from before a soft reboot, or before something was mounted over it, and \
             systemd has others"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::mounts::find;

    fn place(ours: &str, manager: &str) -> Place {
        let on = |table: &str| find(table.as_bytes(), Path::new("/opt/my web/web"));
        Place { ours: on(ours), manager: on(manager), image: None }
    }

    const IMAGE: &str = "1 0 7:0 / / rw - ext4 /dev/loop0 rw\n";

    fn imaged(ours: &str, manager: &str, path: &str, is_gone: bool) -> Place {
        Place { image: Some(ImageFile { path: path.into(), is_gone, is_verified: false }), ..place(ours, manager) }
    }

    const HOST: &str = "1 0 8:1 / / rw - ext4\n2 1 0:5 / /run rw - tmpfs\n";

    /// A copy of a mount of PID 1's, which then goes away.
    const FOLLOWS: &str = "1 0 8:1 / / rw master:1 - ext4\n2 1 0:5 / /opt ro,nodev shared:9 master:7 - overlay a ro\n";
    const LEFT: &str = "1 0 8:1 / / rw master:1 - ext4\n2 1 0:5 / /opt ro,nodev shared:9 - overlay master:7 ro\n";

    const READ_ONLY: &str = "1 0 8:1 / / rw\n2 1 8:1 /opt /opt ro\n";

    #[test]
    fn what_a_restart_would_start_is_told_from_what_a_reload_would() {
        let rooted = "1 0 8:1 /srv/web / rw\n";
        let cases = [
            ("nothing has changed", place(HOST, HOST), place(HOST, HOST), None),
            ("a root of its own", place(rooted, HOST), place(rooted, HOST), None),
            ("renamed", place(rooted, HOST), place("1 0 8:1 /srv/old / rw\n", HOST), Some("renamed to /srv/old")),
            ("removed", place(rooted, HOST), place("1 0 8:1 /srv/web//deleted / rw\n", ""), Some("was removed")),
            ("a subvolume of all", place(HOST, HOST), place("1 0 8:1 /@old / rw\n", "1 0 8:1 /@old / rw\n"), None),
            ("PID 1 is hidden", place(HOST, ""), place("1 0 8:1 /@old / rw\n", ""), None),
            ("PID 1 is hidden, left behind", place(FOLLOWS, ""), place(LEFT, ""), Some("mounted over it")),
            ("PID 1 is hidden, nothing has changed", place(FOLLOWS, ""), place(FOLLOWS, ""), None),
            ("PID 1 is hidden, mounts of its own", place(LEFT, ""), place(LEFT, ""), None),
            ("PID 1 is hidden, taken along", place(FOLLOWS, ""), place(&FOLLOWS.replace("0:5", "0:6"), ""), None),
            ("left behind", place(HOST, HOST), place(HOST, "1 0 8:9 / / rw\n"), Some("soft reboot")),
            (
                "left behind, read-only",
                place(READ_ONLY, HOST),
                place(READ_ONLY, "1 0 8:9 / / rw\n"),
                Some("soft reboot"),
            ),
            ("read-only", place(READ_ONLY, HOST), place(READ_ONLY, HOST), None),
            ("on another mount", place(rooted, HOST), place("1 0 8:1 /b /opt rw\n", HOST), None),
            ("taken along", place(HOST, HOST), place("1 0 8:9 / / rw\n", "1 0 8:9 / / rw\n"), None),
            ("an image", place(IMAGE, HOST), place(IMAGE, "1 0 8:9 / / rw\n"), None),
            ("the same image", imaged(IMAGE, HOST, "/a.raw", false), imaged(IMAGE, HOST, "/a.raw", false), None),
            (
                "an image, replaced",
                imaged(IMAGE, HOST, "/a.raw", false),
                imaged(IMAGE, HOST, "/a.raw", true),
                Some("the image /a.raw that it lies in (RootImage=) was replaced"),
            ),
            (
                "an image, replaced, PID 1 is hidden",
                imaged(IMAGE, "", "/a.raw", false),
                imaged(IMAGE, "", "/a.raw", true),
                Some("was replaced"),
            ),
            (
                "an image, renamed",
                imaged(IMAGE, HOST, "/a.raw", false),
                imaged(IMAGE, HOST, "/b.raw", false),
                Some("was renamed to /b.raw"),
            ),
            (
                "an image whose file system is not seen any more",
                imaged(IMAGE, HOST, "/srv/a.raw", false),
                imaged(IMAGE, HOST, "/a.raw", false),
                None,
            ),
            ("no /sys by now", imaged(IMAGE, HOST, "/a.raw", false), place(IMAGE, HOST), None),
            ("never was there", imaged(IMAGE, HOST, "/a.raw", true), imaged(IMAGE, HOST, "/a.raw", true), None),
            ("of the system", imaged(IMAGE, IMAGE, "/a.raw", false), imaged(IMAGE, IMAGE, "/a.raw", true), None),
            (
                "of the system, PID 1 is hidden",
                imaged(FOLLOWS, "", "/a.raw", false),
                imaged(FOLLOWS, "", "/a.raw", true),
                None,
            ),
        ];
        for (name, then, now, expected) in cases {
            let error = then.check(&now, Path::new("/opt/web"), RESTART).err().map(|e| e.to_string());
            match expected {
                None => assert_eq!(error, None, "{name}"),
                Some(part) => assert!(error.is_some_and(|e| e.contains(part) && e.contains("restart")), "{name}"),
            }
        }
    }
}
