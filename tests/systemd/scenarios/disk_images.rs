//! Services whose root or extension is an image, or that are portable: which program a reload
//! starts.

use super::roots::Rooted;
use super::web::DEADLINE;
use crate::lab::{Container, Outcome, Scenario, example, handover};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("a_replaced_image_is_not_reloaded", replaced_image).with_loops(),
    Scenario::new("a_program_from_an_extension_image", extension_image).with_loops(),
    Scenario::new("a_portable_service_of_a_directory", portable_directory).system_only(),
    Scenario::new("a_portable_service_of_an_image", portable_image).with_loops(),
];

const SERVICE: &str =
    "[Service]\nType=notify\nNotifyAccess=main\nExecReload=/bin/kill -HUP $MAINPID\nExecStart=/opt/web\n";
const SOCKET: &str = "[Socket]\nListenStream=127.0.0.1:8080\nFileDescriptorName=http\n";
const OWN_ROOT: &str = "MountAPIVFS=yes\nBindReadOnlyPaths=/usr /run/systemd\n";
/// Where portablectl looks for images.
const PORTABLES: &str = "/var/lib/portables";
const OLD: &str = "would start the old program again";

fn app(lab: &Container) -> Rooted<'_> {
    Rooted { lab, unit: "app" }
}

/// The program without what debuggers read of it, so that an image of it is small.
fn prepare(lab: &Container) -> Outcome {
    let program = lab.install(&example("web")?, "whole")?;
    lab.install(handover(), "handover")?;
    let (from, to) = (lab.outside(&program), lab.host_dir().join("web"));
    let strip = format!("strip -o {} {}", to.display(), from.display());
    assert!(lab.sh_beside(DEADLINE, &strip)?.success(), "{strip}");
    Ok(())
}

/// A directory with a version of the program in it, as whose root it is made: what stands behind an
/// ELF file is not looked at.
fn tree(lab: &Container, path: &str, version: &str) -> Outcome {
    lab.write_file(&format!("{path}/usr/lib/os-release"), &format!("ID=app\nVERSION_ID={version}\n"))?;
    lab.write_file(&format!("{path}/usr/lib/systemd/system/app.service"), &format!("{SERVICE}{BELOW_USR}"))?;
    lab.write_file(&format!("{path}/usr/lib/systemd/system/app.socket"), SOCKET)?;
    lab.sh_ok(&format!(
        "cd {path} && mkdir -p opt run/systemd run/dbus lab proc sys dev tmp var/tmp etc root && touch etc/resolv.conf etc/machine-id && \
         ln -s usr/lib lib && ln -s usr/lib64 lib64 && ln -s usr/bin bin"
    ))?;
    program(lab, &format!("{path}/opt/web"), version)
}

/// The machine's own libraries, in a portable service.
const BELOW_USR: &str = "BindReadOnlyPaths=/usr /lab\n";

/// Replaces the program at this path, by rename.
fn program(lab: &Container, path: &str, version: &str) -> Outcome {
    lab.sh_ok(&format!("cp /lab/web {path}.new && printf '\nversion {version}' >>{path}.new && mv {path}.new {path}"))
        .map(drop)
}

/// Replaces the image at this path by one of that directory, by rename.
fn image(lab: &Container, path: &str, tree: &str) -> Outcome {
    lab.sh_ok(&format!(
        "truncate -s $(($(du -sm {tree} | cut -f 1) + 16))M {path}.new && mkfs.ext4 -q -d {tree} {path}.new && mv {path}.new {path}"
    ))
    .map(drop)
}

impl Rooted<'_> {
    fn starts(&self) -> Outcome {
        self.lab.systemctl_ok(&["start", &format!("{}.socket", self.unit), &format!("{}.service", self.unit)]).map(drop)
    }

    fn restarts(&self) -> Outcome {
        self.lab.systemctl_ok(&["restart", &format!("{}.service", self.unit)]).map(drop)
    }

    /// Which version the main process runs.
    fn version(&self) -> Outcome<String> {
        self.lab.version_of(self.main()?)
    }

    fn reloads(&self) -> Outcome<String> {
        let old = self.main()?;
        self.reload()?;
        self.becomes_another(old)?;
        self.version()
    }

    /// The tool, from outside, refuses it and says why; and so does the status.
    fn is_refused_outside(&self, wanted: &str) -> Outcome {
        let (old, unit) = (self.main()?, format!("{}.service", self.unit));
        let refused = self.lab.sh(&format!("/lab/handover reload {unit}"))?;
        assert!(!refused.success() && refused.stderr.contains(OLD) && refused.stderr.contains(wanted), "{refused:?}");
        assert_eq!(self.main()?, old);
        let status = self.lab.sh_ok(&format!("/lab/handover status {unit}"))?;
        assert!(status.contains("A reload stays in the old root"), "{status}");
        println!("systemd {}: {}", self.lab.version(), refused.stderr.trim());
        Ok(())
    }

    /// After a restart there is nothing to refuse: the tool reloads it.
    fn is_reloaded_outside(&self) -> Outcome {
        let (old, unit) = (self.main()?, format!("{}.service", self.unit));
        self.lab.sh_ok(&format!("/lab/handover reload {unit}"))?;
        self.becomes_another(old)?;
        let status = self.lab.sh_ok(&format!("/lab/handover status {unit}"))?;
        assert!(!status.contains("A reload stays in the old root"), "{status}");
        Ok(())
    }

    fn warns(&self, text: &str) -> Outcome {
        let logged = self.lab.journal_json(&format!("{}.service", self.unit))?;
        assert!(logged.iter().any(|entry| entry.message().contains(text)), "nothing says {text}");
        Ok(())
    }
}

/// `RootImage=`: another file by the name of the image is taken by a restart alone, and the service
/// notices it by itself.
fn replaced_image(lab: &Container) -> Outcome {
    lab.make_loops()?;
    prepare(lab)?;
    tree(lab, "/var/tree", "1")?;
    image(lab, "/lab/app.raw", "/var/tree")?;
    lab.write_unit("app.service", &format!("{SERVICE}RootImage=/lab/app.raw\n{OWN_ROOT}"))?;
    lab.write_unit("app.socket", SOCKET)?;
    lab.daemon_reload()?;
    let app = app(lab);
    app.starts()?;
    assert_eq!(app.reloads()?, "version 1", "the image is what it was");

    program(lab, "/var/tree/opt/web", "2")?;
    image(lab, "/lab/app.raw", "/var/tree")?;
    let status = app.refuses()?;
    assert!(status.contains("the image /lab/app.raw that it lies in (RootImage=) was replaced"), "{status}");
    assert!(!status.contains("a crash would start"), "that would start the new one: {status}");
    app.is_refused_outside("the image /lab/app.raw of before")?;
    app.restarts()?;
    assert_eq!(app.version()?, "version 2");
    app.is_reloaded_outside()?;

    lab.sh_ok("mv /lab/app.raw /lab/old.raw && cp /lab/old.raw /lab/app.raw")?;
    let status = app.refuses()?;
    assert!(status.contains("was renamed to /lab/old.raw"), "{status}");
    app.is_refused_outside("the image /lab/old.raw")
}

/// `ExtensionImages=`: the service does not see that there is another one, and warns at each
/// reload; the tool sees it from outside.
fn extension_image(lab: &Container) -> Outcome {
    lab.make_loops()?;
    prepare(lab)?;
    // Of an extension the tool looks at all loop devices, those of other cases among them.
    let name = format!("app-{}-{}", lab.version(), std::process::id());
    let extension = format!("/lab/{name}.raw");
    lab.write_file(&format!("/var/tree/usr/lib/extension-release.d/extension-release.{name}"), "ID=_any\n")?;
    lab.sh_ok("mkdir -p /var/tree/usr/local/bin")?;
    program(lab, "/var/tree/usr/local/bin/web", "1")?;
    image(lab, &extension, "/var/tree")?;
    let service = SERVICE.replace("/opt/web", "/usr/local/bin/web");
    lab.write_unit("app.service", &format!("{service}ExtensionImages={extension}\n"))?;
    lab.write_unit("app.socket", SOCKET)?;
    lab.daemon_reload()?;
    let app = app(lab);
    app.starts()?;
    app.is_reloaded_outside()?;

    program(lab, "/var/tree/usr/local/bin/web", "2")?;
    image(lab, &extension, "/var/tree")?;
    app.is_refused_outside(&format!("the image {extension} of before"))?;
    assert_eq!(app.reloads()?, "version 1", "a reload stays in the extension that it was started with");
    app.warns("/usr/local/bin/web lies in an extension")?;
    app.restarts()?;
    assert_eq!(app.version()?, "version 2");
    app.is_reloaded_outside()
}

/// A portable service from a directory: a new program in it is taken by a reload. Attached again to
/// another directory it stays in that one, and warns; the tool refuses.
fn portable_directory(lab: &Container) -> Outcome {
    prepare(lab)?;
    let (first, second) = (format!("{PORTABLES}/app_1"), format!("{PORTABLES}/app_2"));
    tree(lab, &first, "1")?;
    lab.sh_ok("portablectl attach --runtime app_1 app")?;
    let app = app(lab);
    app.starts()?;
    assert_eq!(app.version()?, "version 1");
    program(lab, &format!("{first}/opt/web"), "1b")?;
    assert_eq!(app.reloads()?, "version 1b");
    app.is_reloaded_outside()?;

    tree(lab, &second, "2")?;
    attached_again(&app, "app_2", "version 1b", "the directory /var/lib/portables/app_2")?;
    asked_from_within(&app)
}

/// `ExecReload=` runs in the root that the unit has by now: the tool refuses there, too, so that
/// `systemctl reload` fails.
fn asked_from_within(app: &Rooted<'_>) -> Outcome {
    let third = format!("{PORTABLES}/app_3");
    tree(app.lab, &third, "3")?;
    let unit = format!("{third}/usr/lib/systemd/system/app.service");
    let lines = "RuntimeDirectory=app\\nExecReload=/lab/handover reload $MAINPID";
    app.lab.sh_ok(&format!("sed -i 's|^ExecReload=.*|{lines}|' {unit}"))?;
    app.lab.sh_ok("portablectl reattach --runtime app_3 app")?;
    app.restarts()?;
    assert_eq!(app.reloads()?, "version 3");

    let fourth = format!("{PORTABLES}/app_4");
    app.lab.sh_ok(&format!("cp -a {third} {fourth}"))?;
    program(app.lab, &format!("{fourth}/opt/web"), "4")?;
    app.lab.sh_ok("portablectl reattach --runtime app_4 app")?;
    let old = app.main()?;
    let refused = app.lab.systemctl(&["reload", "app.service"])?;
    assert!(!refused.success() && app.main()? == old, "{refused:?}");
    app.warns("/var/lib/portables/app_3 of its file system), and systemd has the directory /var/lib/portables/app_4")?;
    app.restarts()?;
    assert_eq!(app.reloads()?, "version 4");
    Ok(())
}

/// The same from an image.
fn portable_image(lab: &Container) -> Outcome {
    lab.make_loops()?;
    prepare(lab)?;
    for version in ["1", "2"] {
        tree(lab, &format!("/var/tree{version}"), version)?;
        lab.sh_ok(&format!("mkdir -p -m 700 {PORTABLES}"))?;
        image(lab, &format!("{PORTABLES}/app_{version}.raw"), &format!("/var/tree{version}"))?;
    }
    lab.sh_ok("portablectl attach --runtime app_1 app")?;
    let app = app(lab);
    app.starts()?;
    app.is_reloaded_outside()?;
    attached_again(&app, "app_2", "version 1", "the image /var/lib/portables/app_2.raw")
}

fn attached_again(app: &Rooted<'_>, image: &str, old: &str, wanted: &str) -> Outcome {
    app.lab.sh_ok(&format!("portablectl reattach --runtime {image} app"))?;
    app.is_refused_outside(wanted)?;
    assert_eq!(app.reloads()?, old, "a reload by signal stays in the image that it was started with");
    app.warns("a reload starts what is in that one, also after `portablectl reattach`")?;
    app.restarts()?;
    assert_eq!(app.version()?, "version 2");
    app.is_reloaded_outside()
}
