//! On which mount the program lies, and whether the service manager would still start that one.
//!
//! The next generation inherits our mounts and our root. A service with mounts of its own keeps
//! them over a soft reboot that it survives, when the directory that is its root is renamed, and
//! when what lies below a mount of its own is replaced by another extension: a reload would then
//! start the old program again, and say that it went well.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::error::{Error, Kind, Result};

/// How the kernel marks a directory that was removed.
const DELETED: &[u8] = b"//deleted";
/// Where systemd mounts the extensions of a unit, as an overlay of theirs names it.
const EXTENSIONS: &[u8] = b"lowerdir=/run/systemd/unit-extensions/";
/// What starts the new program instead, for a service of ours.
pub(crate) const RESTART: &str = "use `systemctl restart`, over which `migrate = \"restart\"` keeps the connections";

/// The mount that a file lies on, as proc_pid_mountinfo(5) shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    device: String,
    /// The directory of its file system that is seen.
    root: Vec<u8>,
    /// Where that is.
    point: PathBuf,
    /// The file, from there.
    below: PathBuf,
    /// It is an overlay of extensions, which shows nobody what lies below it.
    of_extensions: bool,
    /// It is a copy of a mount of the service manager's, and that one is still there.
    follows: bool,
}

impl Mount {
    /// Tells whether both lead to the same file, by whatever mounts: one that is only made
    /// read-only (`ProtectSystem=`) has another root.
    fn leads_where(&self, other: &Self) -> bool {
        let within = |mount: &Self| Path::new(OsStr::from_bytes(&mount.root)).join(&mount.below);
        self.device == other.device && within(self) == within(other)
    }
}

/// The mounts that a program lies on, as they were at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    ours: Option<Mount>,
    /// At the same path in the mounts of PID 1; unknown where /proc hides it (`ProtectProc=`).
    manager: Option<Mount>,
}

impl Place {
    /// Finds where the program at this path lies. What cannot be read is unknown, and of that
    /// nothing is judged.
    pub(crate) fn of(program: &Path) -> Self {
        let read = |pid: &str| fs::read(format!("/proc/{pid}/mountinfo")).ok();
        let path = program.canonicalize().ok();
        let on = |pid| path.as_deref().zip(read(pid)).and_then(|(path, table)| find(&table, path));
        Self { ours: on("self"), manager: on("1") }
    }

    /// Warns of what cannot be seen: that there is another extension by now.
    pub(crate) fn warn_of_extensions(&self, program: &Path) {
        if self.ours.as_ref().is_some_and(|mount| mount.of_extensions) {
            warn!(
                "{} lies in an extension (ExtensionDirectories=, ExtensionImages=): a reload starts what was there when \
                 systemd started the service, and only `systemctl restart` takes another one",
                program.display()
            );
        }
    }

    /// Fails if a start by the service manager would run a program of another root than ours, and
    /// says what to do instead.
    pub(crate) fn check(&self, now: &Self, program: &Path, instead: &str) -> Result<()> {
        match self.differs(now) {
            None => Ok(()),
            Some(why) => {
                let shown = program.display();
                let message = format!("{shown} would be the old program again: {why}; {instead}");
                Err(Error::new(Kind::Generation, message))
            }
        }
    }

    fn differs(&self, now: &Self) -> Option<String> {
        let (then, ours) = (self.ours.as_ref()?, now.ours.as_ref()?);
        // Where we see what PID 1 sees, a restart leads nowhere else.
        let shared =
            |place: &Self| place.ours.as_ref().zip(place.manager.as_ref()).is_some_and(|(a, b)| a.leads_where(b));
        if shared(now) || (&then.device, &then.point) != (&ours.device, &ours.point) {
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
        let left_behind = match now.manager {
            Some(_) => shared(self),
            None => then.follows && !ours.follows,
        };
        left_behind.then(|| {
            "this process has kept the mounts from before a soft reboot, or before something was mounted over it, and \
             systemd has others"
                .to_owned()
        })
    }
}

/// Finds the mount that has this path: the longest, and of those the one on top. That need not be
/// the last of the table: what comes from another namespace is put below what is there.
fn find(table: &[u8], path: &Path) -> Option<Mount> {
    let mut found: Vec<(&[u8], &[u8], Mount)> = Vec::new();
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let [Some(id), Some(parent), Some(device), Some(root), Some(point)] = [(); 5].map(|()| fields.next()) else {
            continue;
        };
        let point = PathBuf::from(OsString::from_vec(unescaped(point)));
        let Ok(below) = path.strip_prefix(&point) else { continue };
        let longest = found.first().map_or(0, |(.., other)| other.point.as_os_str().len());
        if point.as_os_str().len() < longest {
            continue;
        }
        if point.as_os_str().len() > longest {
            found.clear();
        }
        let device = String::from_utf8_lossy(device).into_owned();
        // The options, and then tags up to a dash.
        let follows = fields.skip(1).take_while(|field| *field != b"-").any(|field| field.starts_with(b"master:"));
        let of_extensions = line.windows(EXTENSIONS.len()).any(|part| part == EXTENSIONS);
        let (root, below) = (unescaped(root), below.to_owned());
        found.push((id, parent, Mount { device, root, point, below, of_extensions, follows }));
    }
    let covered = |id: &[u8]| found.iter().any(|(other, parent, _)| *other != id && *parent == id);
    let top = found.iter().rposition(|(id, ..)| !covered(id)).or(found.len().checked_sub(1))?;
    Some(found.swap_remove(top).2)
}

/// Takes back the kernel's `\040` for what would end a field.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.filter(|_| *first == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(ours: &str, manager: &str) -> Place {
        let on = |table: &str| find(table.as_bytes(), Path::new("/opt/my web/web"));
        Place { ours: on(ours), manager: on(manager) }
    }

    const HOST: &str = "1 0 8:1 / / rw - ext4\n2 1 0:5 / /run rw - tmpfs\n";

    /// A copy of a mount of PID 1's, which then goes away.
    const FOLLOWS: &str = "1 0 8:1 / / rw master:1 - ext4\n2 1 0:5 / /opt ro,nodev shared:9 master:7 - overlay a ro\n";
    const LEFT: &str = "1 0 8:1 / / rw master:1 - ext4\n2 1 0:5 / /opt ro,nodev shared:9 - overlay master:7 ro\n";

    const READ_ONLY: &str = "1 0 8:1 / / rw\n2 1 8:1 /opt /opt ro\n";

    #[test]
    fn the_mount_on_top_of_the_longest_path_has_it() {
        let table = "1 0 8:1 / / rw\n3 1 8:2 /a\\040b /opt/my\\040web rw\n4 1 8:3 / /opt/my rw\n\nodd\n";
        let found = find(table.as_bytes(), Path::new("/opt/my web/web")).unwrap();
        assert_eq!((found.device.as_str(), &*found.root), ("8:2", &b"/a b"[..]));
        let over = find(b"1 0 8:1 / / rw\n2 1 8:4 / / rw\n", Path::new("/web")).unwrap();
        assert_eq!(over.device, "8:4");
        let below = find(b"4 5 8:1 / / rw\n5 1 8:4 / / rw\n", Path::new("/web")).unwrap();
        assert_eq!(below.device, "8:1", "what came later was put below it");
        assert_eq!(find(b"1 1 8:1 / / rw\n", Path::new("/web")).unwrap().device, "8:1");
        assert_eq!(find(b"", Path::new("/web")), None);
        assert!(!found.of_extensions && !over.of_extensions);
        let table = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:88 / /usr ro - overlay systemd-extensions ro,\
            lowerdir=/run/systemd/unit-extensions/0/usr:/run/systemd/mount-rootfs/usr\n";
        assert!(find(table, Path::new("/usr/bin/web")).unwrap().of_extensions);
        assert_eq!(unescaped(b"a\\\\134\\04"), b"a\\\\\\04", "no code of three digits stays as it is");
    }

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
            ("an image", place("1 0 7:0 / / rw\n", HOST), place("1 0 7:0 / / rw\n", "1 0 8:9 / / rw\n"), None),
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
