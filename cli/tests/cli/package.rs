//! The Debian package, as far as it can be looked at without installing it; scenarios `package_*`
//! do that.

use std::path::Path;
use std::process::Command;

use crate::{commands, handover, is_there, run};

fn build(output: &Path) -> String {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/build-deb"));
    command.args(["--fast", "--binary", env!("CARGO_BIN_EXE_handover"), "--output"]).arg(output);
    let built = run(&mut command);
    assert_eq!(built.code, Some(0), "{}", built.stderr);
    built.stdout.trim().to_owned()
}

#[test]
fn the_package_has_all_in_its_place_and_the_same_bytes_each_time() {
    if !is_there("dpkg-shlibdeps", "dpkg-dev") || !is_there("strip", "binutils") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (build(&dir.path().join("1")), build(&dir.path().join("2")));
    assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(), "two builds differ");

    let root = dir.path().join("root");
    let unpacked = run(Command::new("dpkg-deb").arg("-R").arg(&first).arg(&root));
    assert_eq!(unpacked.code, Some(0), "{}", unpacked.stderr);
    let mut expected = vec![
        "usr/share/bash-completion/completions/handover".to_owned(),
        "usr/share/zsh/vendor-completions/_handover".to_owned(),
        "usr/share/fish/vendor_completions.d/handover.fish".to_owned(),
        "usr/lib/systemd/catalog/handover.catalog".to_owned(),
        "usr/share/doc/handover/copyright".to_owned(),
        "usr/share/doc/handover/changelog.Debian.gz".to_owned(),
        "usr/share/doc/handover/examples/recipes/web-upgrade.path".to_owned(),
        "usr/share/man/man1/handover.1.gz".to_owned(),
    ];
    expected.extend(commands().iter().map(|name| format!("usr/share/man/man1/handover-{name}.1.gz")));
    for file in expected {
        assert!(std::fs::metadata(root.join(&file)).is_ok_and(|m| m.len() > 50), "{file}");
    }
    let control = std::fs::read_to_string(root.join("DEBIAN/control")).unwrap();
    assert!(control.contains("\nDepends: libc6 (>= ") && !control.contains("@V"), "{control}");
    for script in ["postinst", "prerm", "postrm"] {
        let read = run(Command::new("sh").arg("-n").arg(root.join("DEBIAN").join(script)));
        assert_eq!((read.code, read.stderr.as_str()), (Some(0), ""), "{script}");
    }

    // With the tool installed, a reload tells its outcome: no unit in the package only sends a
    // signal.
    let (units, examples) = (root.join("usr/lib/systemd/system"), root.join("usr/share/doc/handover/examples/systemd"));
    for directory in [&units, &examples] {
        let checked = handover(&["check", "--strict", directory.to_str().unwrap()]);
        assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
        for entry in std::fs::read_dir(directory).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!text.contains("kill -HUP") && !text.contains("HO132"), "{text}");
        }
    }
}

#[test]
fn units_and_recipes_pass_our_own_check() {
    for directory in ["deb", "recipes", "systemd"] {
        let directory = format!("{}/../packaging/{directory}", env!("CARGO_MANIFEST_DIR"));
        let checked = handover(&["check", "--strict", &directory]);
        assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    }
}
