//! Mounts as proc_pid_mountinfo(5) shows them, and the files that images are mounted from.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Where systemd mounts the extensions of a unit, as an overlay of theirs names it.
const EXTENSIONS: &[u8] = b"lowerdir=/run/systemd/unit-extensions/";
/// How the kernel marks the file of a loop device that was removed, or replaced by another.
const REMOVED: &[u8] = b" (deleted)";
const BLOCK_DEVICES: &str = "/sys/dev/block";

/// The mount that a file lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub(crate) device: String,
    /// The directory of its file system that is seen.
    pub(crate) root: Vec<u8>,
    /// Where that is.
    pub(crate) point: PathBuf,
    /// The file, from there.
    below: PathBuf,
    /// It is an overlay of extensions, which shows nobody what lies below it.
    pub(crate) of_extensions: bool,
    /// It is a copy of a mount of the service manager's, and that one is still there.
    pub(crate) follows: bool,
}

impl Mount {
    /// Finds the mount that has this path, for a process as /proc names it. `None`: that cannot be
    /// read.
    #[must_use]
    pub fn of(pid: &str, path: &Path) -> Option<Self> {
        find(&table_of(pid)?, path)
    }

    /// Finds all that are, or were before another was put over them, the root of a process.
    #[must_use]
    pub fn roots(pid: &str) -> Vec<Self> {
        let table = table_of(pid).unwrap_or_default();
        let lines = table.split(|byte| *byte == b'\n').filter_map(|line| Line::parse(line, Path::new("/")));
        lines.map(|line| line.mount).filter(|mount| mount.point == Path::new("/")).collect()
    }

    /// Tells whether both lead to the same file, by whatever mounts: one that is only made
    /// read-only (`ProtectSystem=`) has another root.
    #[must_use]
    pub fn leads_where(&self, other: &Self) -> bool {
        self.is_beside(other) && self.within() == other.within()
    }

    /// Tells whether both are of one file system, so that their paths in it can be compared.
    #[must_use]
    pub fn is_beside(&self, other: &Self) -> bool {
        self.device == other.device
    }

    /// Tells whether its file system has no device of its own: a tmpfs, for one.
    #[must_use]
    pub fn is_of_memory(&self) -> bool {
        self.device.starts_with("0:")
    }

    /// Returns the path of the file within its file system.
    #[must_use]
    pub fn within(&self) -> PathBuf {
        // What is joined with an empty path ends with a slash.
        let root = Path::new(OsStr::from_bytes(&self.root));
        if self.below.as_os_str().is_empty() { root.to_owned() } else { root.join(&self.below) }
    }

    /// Returns the file of the image that this is a mount of, through a partition of it or a device
    /// that verifies it.
    #[must_use]
    pub fn image(&self) -> Option<ImageFile> {
        ImageFile::of(&Path::new(BLOCK_DEVICES).join(&self.device))
    }
}

/// The file that a loop device reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Where it is now; where it was, if it is there no more.
    pub path: PathBuf,
    /// It was removed, or another file was renamed to its name.
    pub is_gone: bool,
    /// A device that verifies it lies over it, which those who start later may share.
    pub is_verified: bool,
}

impl ImageFile {
    fn of(block: &Path) -> Option<Self> {
        let read = |block: &Path| fs::read(block.join("loop/backing_file")).ok();
        let below = || fs::read_dir(block.join("slaves")).into_iter().flatten().flatten().map(|slave| slave.path());
        // A partition is a directory in that of its device. `..` is where the link leads.
        let of = |block: &Path| read(block).or_else(|| read(&block.join("..")));
        let verified = || below().find_map(|slave| of(&slave)).map(|text| Self::parse(text, true));
        of(block).map(|text| Self::parse(text, false)).or_else(verified)
    }

    /// Returns those of all loop devices.
    pub fn all() -> impl Iterator<Item = Self> {
        let blocks = fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|block| block.path());
        blocks.filter_map(|block| {
            let is_held = fs::read_dir(block.join("holders")).is_ok_and(|mut holders| holders.next().is_some());
            Some(Self::parse(fs::read(block.join("loop/backing_file")).ok()?, is_held))
        })
    }

    /// Tells whether the paths may be those of one file. Where the file system of an image is seen
    /// no more, as in a service's own mounts, the path begins in it.
    #[must_use]
    pub fn may_be(&self, path: &Path) -> bool {
        let bare = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
        path.ends_with(bare(&self.path)) || self.path.ends_with(bare(path))
    }

    fn parse(mut text: Vec<u8>, is_verified: bool) -> Self {
        text.pop_if(|last| *last == b'\n');
        let path = text.strip_suffix(REMOVED);
        let (is_gone, path) = (path.is_some(), PathBuf::from(OsStr::from_bytes(path.unwrap_or(&text))));
        Self { path, is_gone, is_verified }
    }
}

fn table_of(pid: &str) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/mountinfo")).ok()
}

struct Line<'a> {
    id: &'a [u8],
    parent: &'a [u8],
    mount: Mount,
}

impl<'a> Line<'a> {
    /// `None`: it is no line of a mount, or the path is not below that one.
    fn parse(line: &'a [u8], path: &Path) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let [Some(id), Some(parent), Some(device), Some(root), Some(point)] = [(); 5].map(|()| fields.next()) else {
            return None;
        };
        let point = PathBuf::from(OsString::from_vec(unescaped(point)));
        let below = path.strip_prefix(&point).ok()?.to_owned();
        let device = String::from_utf8_lossy(device).into_owned();
        // The options, and then tags up to a dash.
        let follows = fields.skip(1).take_while(|field| *field != b"-").any(|field| field.starts_with(b"master:"));
        let of_extensions = line.windows(EXTENSIONS.len()).any(|part| part == EXTENSIONS);
        let mount = Mount { device, root: unescaped(root), point, below, of_extensions, follows };
        Some(Self { id, parent, mount })
    }
}

/// Finds the mount that has this path: the longest, and of those the one on top. That need not be
/// the last of the table: what comes from another namespace is put below what is there.
pub(crate) fn find(table: &[u8], path: &Path) -> Option<Mount> {
    let mut found: Vec<Line<'_>> = Vec::new();
    for line in table.split(|byte| *byte == b'\n').filter_map(|line| Line::parse(line, path)) {
        let length = |line: &Line<'_>| line.mount.point.as_os_str().len();
        let longest = found.first().map_or(0, length);
        if length(&line) < longest {
            continue;
        }
        if length(&line) > longest {
            found.clear();
        }
        found.push(line);
    }
    let covered = |id: &[u8]| found.iter().any(|other| other.id != id && other.parent == id);
    let top = found.iter().rposition(|line| !covered(line.id)).or(found.len().checked_sub(1))?;
    Some(found.swap_remove(top).mount)
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
    use std::os::unix::fs::symlink;

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

    /// As /sys shows an image, a partition of one, and one that is verified.
    #[test]
    fn an_image_is_found_behind_its_devices() {
        let sys = tempfile::tempdir().unwrap();
        let path = |name: &str| sys.path().join(name);
        fs::create_dir_all(path("devices/loop0/loop")).unwrap();
        fs::create_dir_all(path("devices/loop0/loop0p1")).unwrap();
        fs::create_dir_all(path("devices/dm-0/slaves")).unwrap();
        fs::create_dir_all(path("devices/sda")).unwrap();
        symlink("../../loop0/loop0p1", path("devices/dm-0/slaves/loop0p1")).unwrap();
        for (number, device) in [("7:0", "loop0"), ("259:0", "loop0/loop0p1"), ("254:0", "dm-0"), ("8:0", "sda")] {
            symlink(format!("devices/{device}"), path(number)).unwrap();
        }
        fs::write(path("devices/loop0/loop/backing_file"), "/srv/a (deleted)/web.raw\n").unwrap();
        for (number, is_verified) in [("7:0", false), ("259:0", false), ("254:0", true)] {
            let there = ImageFile { path: "/srv/a (deleted)/web.raw".into(), is_gone: false, is_verified };
            assert_eq!(ImageFile::of(&path(number)), Some(there), "{number}");
        }
        assert_eq!((ImageFile::of(&path("8:0")), ImageFile::of(&path("0:40"))), (None, None));
        fs::write(path("devices/loop0/loop/backing_file"), "/srv/web.raw (deleted)\n").unwrap();
        let gone = ImageFile { path: "/srv/web.raw".into(), is_gone: true, is_verified: false };
        assert_eq!(ImageFile::of(&path("7:0")), Some(gone.clone()));
        assert!(gone.may_be(Path::new("/srv/web.raw")) && gone.may_be(Path::new("/web.raw")));
        assert!(gone.may_be(Path::new("/data/srv/web.raw")));
        assert!(!gone.may_be(Path::new("/srv/b.raw")) && !gone.may_be(Path::new("/data/web.raw")));
    }
}
