//! Whether a unit's main process has the root that the service manager would start the next one in.
//!
//! A reload stays in the mounts of the process that runs. The service itself notices when the
//! directory or image of its root was replaced, but not that its unit has another one by now, as a
//! portable service that was attached again. What cannot be known is never an answer.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use handover::internal::mounts::{ImageFile, Mount};
use tokio::sync::oneshot;

use crate::safe::terminal;
use crate::systemctl;
use crate::target::{Target, is_within};

/// How long it may take to compare roots.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Where systemd has the copies of `RootEphemeral=`, of which each process may get another one.
const EPHEMERAL: &str = "ephemeral-trees";

/// A root that a restart would leave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OldRoot {
    unit: String,
    user: bool,
    main: u32,
    has: String,
    wanted: String,
}

impl OldRoot {
    /// Looks at the main process of a unit. `None`: it is in the right root, or nobody can tell.
    pub(crate) async fn of(target: &Target) -> Option<Self> {
        let unit = target.unit.clone()?;
        let user = target.user;
        let (main, wanted) = if is_within(&unit) {
            // In the root that systemd has made for `ExecReload=` there need be no systemctl.
            (target.pid?, None)
        } else {
            let wanted = Wanted::of(&unit, user).await?;
            (wanted.main, Some(wanted))
        };
        let Differing { has, wanted } = aside(move || match wanted {
            None => Roots::of(main).differ_from_own(&own_root()?),
            Some(wanted) => wanted.differs(&Roots::of(main)),
        })
        .await?;
        Some(Self { unit, user, main, has, wanted })
    }
}

/// Looks at paths, which may lie on a file system that does not answer: not for ever, and in a
/// thread that nobody waits for.
async fn aside<T: Send + 'static>(look: impl FnOnce() -> Option<T> + Send + 'static) -> Option<T> {
    let (sender, looked) = oneshot::channel();
    let look = move || {
        let _ = sender.send(look()); // it may be too late
    };
    thread::Builder::new().spawn(look).ok()?;
    tokio::time::timeout(LOOK_TIMEOUT, looked).await.ok()?.ok()?
}

impl fmt::Display for OldRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unit, user, main, has, wanted } = self;
        let (has, wanted) = (terminal(has), terminal(wanted));
        let of_user = if *user { "--user " } else { "" };
        write!(
            f,
            "{unit} would start the old program again: pid {main} runs in {has}, and systemd has {wanted} by now; use \
             `systemctl {of_user}restart {unit}`, over which `migrate = \"restart\"` keeps the connections"
        )
    }
}

/// Of a root, or of what lies over it.
#[derive(Debug, PartialEq, Eq)]
struct Differing {
    has: String,
    wanted: String,
}

impl Differing {
    fn images(has: &ImageFile, wanted: &Path) -> Self {
        let path = has.path.display();
        if has.is_gone && has.may_be(wanted) {
            return Self {
                has: format!("the image {} of before", wanted.display()),
                wanted: "another one of that name".to_owned(),
            };
        }
        Self { has: format!("the image {path}"), wanted: format!("the image {}", wanted.display()) }
    }

    /// Of the one that a process has only the path in its file system is known.
    fn directories(has: &Mount, wanted: &Path) -> Self {
        let (has, wanted) = (has.within(), wanted.display());
        let has = format!("another directory ({} of its file system)", has.display());
        Self { has, wanted: format!("the directory {wanted}") }
    }
}

/// Our own root, if it is not the system's.
fn own_root() -> Option<Mount> {
    let (own, system) = (Mount::of("self", Path::new("/"))?, Mount::of("1", Path::new("/"))?);
    (!own.leads_where(&system)).then_some(own)
}

/// What a process has mounted at `/`, one over the other.
struct Roots {
    mounts: Vec<Mount>,
    images: Vec<ImageFile>,
}

impl Roots {
    fn of(pid: u32) -> Self {
        let mounts = Mount::roots(&pid.to_string());
        Self { images: mounts.iter().filter_map(Mount::image).collect(), mounts }
    }

    /// The first of them that is an image, if none is that file.
    fn other_image(&self, wanted: &Path) -> Option<Differing> {
        let is_it = |image: &ImageFile| image.is_verified || (!image.is_gone && image.may_be(wanted));
        let first = self.images.first().filter(|_| !self.images.iter().any(is_it))?;
        Some(Differing::images(first, wanted))
    }

    /// Compares them with the root that systemd has just made for a process of the same unit.
    fn differ_from_own(&self, own: &Mount) -> Option<Differing> {
        let is_copy = |path: &Path| path.components().any(|part| part.as_os_str() == EPHEMERAL);
        if let Some(image) = own.image() {
            return self.other_image(&image.path).filter(|_| !image.is_gone && !is_copy(&image.path));
        }
        if is_copy(&own.within()) {
            return None;
        }
        // Of another file system it may be one that is made for each process.
        let beside = self.mounts.iter().find(|mount| mount.is_beside(own))?;
        let is_it = self.mounts.iter().any(|mount| mount.leads_where(own));
        (!is_it).then(|| Differing::directories(beside, &own.within()))
    }
}

/// What the service manager would start the unit with.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    main: u32,
    directory: PathBuf,
    image: PathBuf,
    extensions: Vec<PathBuf>,
    program: PathBuf,
    /// Each start has a copy.
    ephemeral: bool,
}

impl Wanted {
    async fn of(unit: &str, user: bool) -> Option<Self> {
        let names = "MainPID,RootDirectory,RootImage,RootEphemeral,ExtensionImages,ExecStart";
        let shown = systemctl::ask(user, &["show", "-p", names, "--", unit], systemctl::TIMEOUT).await.ok()?;
        Some(Self::parse(&shown)).filter(|wanted| wanted.main != 0)
    }

    fn parse(shown: &str) -> Self {
        let value = |name: &str| {
            let mut lines = shown.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
        };
        // `-/srv/a.raw:root:nosuid`: it may be missing, and how it is mounted.
        let extension = |word: &str| {
            let path = word.strip_prefix('-').unwrap_or(word);
            PathBuf::from(path.split(':').next().unwrap_or_default())
        };
        let program = value("ExecStart").split_once("path=").and_then(|(_, rest)| rest.split_once(" ;"));
        Self {
            main: value("MainPID").parse().unwrap_or_default(),
            directory: value("RootDirectory").into(),
            image: value("RootImage").into(),
            extensions: value("ExtensionImages").split_whitespace().map(extension).collect(),
            program: program.map(|(path, _)| path.into()).unwrap_or_default(),
            ephemeral: value("RootEphemeral") == "yes",
        }
    }

    fn differs(&self, roots: &Roots) -> Option<Differing> {
        let is_own = [&self.image, &self.directory].iter().any(|path| !path.as_os_str().is_empty());
        if is_own {
            return if self.ephemeral { None } else { self.root_differs(roots) };
        }
        // A program that the system has need not come from an extension.
        let is_in_extension = self.program.is_absolute() && self.program.try_exists().is_ok_and(|exists| !exists);
        self.extensions.iter().filter(|_| is_in_extension).find_map(|path| replaced(path))
    }

    fn root_differs(&self, roots: &Roots) -> Option<Differing> {
        if let Some(image) = file(&self.image) {
            return roots.other_image(&image);
        }
        let directory = Some(&self.directory).filter(|path| path.is_absolute() && **path != Path::new("/"))?;
        let directory = directory.canonicalize().ok()?;
        // systemd takes one out of it (systemd.v(7)). To read it is to have it mounted.
        if directory.extension().is_some_and(|end| end == "v") || fs::read_dir(&directory).is_err() {
            return None;
        }
        let wanted = Mount::of("self", &directory)?;
        // Where PID 1 has something else there, it is not what we see.
        let system = Mount::of("1", &directory).filter(|system| system.leads_where(&wanted))?;
        let first = roots.mounts.first()?;
        // One on top of nothing that is known, and of memory, is of the program's own making.
        if !roots.mounts.iter().any(|mount| mount.is_beside(&system)) && first.is_of_memory() {
            return None;
        }
        let is_it = roots.mounts.iter().any(|mount| mount.leads_where(&system));
        (!is_it).then(|| Differing::directories(first, &directory))
    }
}

/// The path of an image: a directory is none, and systemd may take one out of it.
fn file(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    fs::metadata(&path).is_ok_and(|found| found.is_file()).then_some(path)
}

/// Of an extension nobody sees who has it. But nobody has the one that is there now, and somebody
/// one that was there.
fn replaced(path: &Path) -> Option<Differing> {
    let path = file(path)?;
    let here: Vec<_> = ImageFile::all().filter(|image| image.may_be(&path)).collect();
    let old = here.first().filter(|_| here.iter().all(|image| image.is_gone && !image.is_verified))?;
    Some(Differing::images(old, &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(path: &str, is_gone: bool) -> ImageFile {
        ImageFile { path: path.into(), is_gone, is_verified: false }
    }

    #[test]
    fn what_systemd_says_is_read() {
        let shown = "MainPID=7\nRootImage=\nRootDirectory=/srv/a\nRootEphemeral=yes\nExtensionImages=/a.raw -/b.raw:root:ro\n\
            ExecStart={ path=/opt/web ; argv[]=/opt/web -v ; ignore_errors=no }\n";
        let expected = Wanted {
            main: 7,
            directory: "/srv/a".into(),
            image: PathBuf::new(),
            extensions: vec!["/a.raw".into(), "/b.raw".into()],
            program: "/opt/web".into(),
            ephemeral: true,
        };
        assert_eq!(Wanted::parse(shown), expected);
        assert_eq!(Wanted::parse(""), Wanted::default());
    }

    #[test]
    fn only_what_is_certain_differs() {
        let of = |images: &[ImageFile]| Roots { mounts: Vec::new(), images: images.to_vec() };
        let differs = |images: &[ImageFile]| of(images).other_image(Path::new("/a.raw"));
        assert_eq!(differs(&[]), None, "no image can be seen");
        assert_eq!(differs(&[image("/a.raw", false)]), None);
        assert_eq!(differs(&[image("/b.raw", false), image("/a.raw", false)]), None, "below another");
        let verified = ImageFile { is_verified: true, ..image("/b.raw", true) };
        assert_eq!(differs(&[verified]), None, "a device that is shared");
        assert!(differs(&[image("/b.raw", false)]).is_some_and(|found| found.has == "the image /b.raw"));
        assert!(differs(&[image("/a.raw", true)]).is_some_and(|found| found.has == "the image /a.raw of before"));

        let own = Mount::roots("self");
        let nowhere = Wanted { directory: "/no/such".into(), image: "/no/such.raw".into(), ..Wanted::default() };
        let roots = Roots { mounts: own, images: Vec::new() };
        assert_eq!(nowhere.differs(&roots), None);
        let system = Wanted { directory: "/".into(), ..Wanted::default() };
        assert_eq!(system.differs(&roots), None);
        assert_eq!(Wanted::default().differs(&roots), None);
        let copied = Wanted { directory: "/usr".into(), ephemeral: true, ..Wanted::default() };
        assert_eq!(copied.differs(&roots), None);
    }
}
