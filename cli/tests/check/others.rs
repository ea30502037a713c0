//! Units that others wrote: no crash, and no nonsense.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::tool::{Run, check, ids, json};

/// Packages of Debian whose units lie in `debian/`, and what each would need for a rolling reload,
/// by the rules' numbers.
const PACKAGES: [(&str, &str); 22] = [
    ("apache2", "101 104 151 224"),
    ("bind9", "151 224"),
    ("caddy", "109 142 151 155 224"),
    ("containerd", "104 131 224 311"),
    ("cups-daemon", "131 151 203 205 210"),
    ("docker.io", "104 132 141 205 210 311"),
    ("etcd-server", "131 151 224"),
    ("lighttpd", "101 103 133 151 224"),
    ("mosquitto", "132 151 224"),
    ("nginx-common", "101 103 104 109 142 151 224"),
    ("nsd", "132 151 224 310"),
    ("ntpsec", "101 103 109 131 151 224"),
    ("opensmtpd", "101 109 131 151 224"),
    ("openssh-server", "104 132 151 205 207 210 310"),
    ("pcscd", "101 109 151 205 210"),
    ("podman", "101 104 109 131 205 311"),
    ("prometheus", "101 123 132 142 151 224 304 308"),
    ("prometheus-node-exporter", "101 123 132 142 151 224"),
    ("redis-server", "103 131 151 224 304 308 310"),
    ("rpcbind", "104 131 151 205 210"),
    ("tomcat10", "101 131 151 224"),
    ("tor", "103 106 132 151 224"),
];

#[test]
fn units_of_popular_services() {
    for (package, needs) in PACKAGES {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check/debian").join(package);
        let at = directory.to_str().unwrap();
        // Not one of them hands over, and none has a line that systemd ignores.
        let run = check(&["--strict", at], b"");
        assert_eq!(run.code, Some(0), "{at}: {}{}", run.stdout, run.stderr);
        assert!(run.stdout.starts_with("0 errors, 0 warnings in "), "{}", run.stdout);
        let report = json(&check(&["--assume-handover", "--format", "json", at], b""));
        let found = report["findings"].as_array().unwrap();
        let numbers: BTreeSet<_> = ids(found).into_iter().map(|id| &id[2..]).collect();
        assert_eq!(numbers.into_iter().collect::<Vec<_>>().join(" "), needs, "{package}: {found:#?}");
        every_way_through(&directory);
    }
}

/// Whatever they are like: they are read, and what is found is reported.
#[test]
fn units_of_this_machine_and_of_the_lab() {
    let cache = std::env::var_os("HANDOVER_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/handover")));
    let roots =
        cache.and_then(|c| fs::read_dir(c.join("rootfs")).ok()).into_iter().flatten().flatten().map(|e| e.path());
    for root in roots.chain([PathBuf::from("/")]) {
        for place in ["usr/lib/systemd/system", "usr/lib/systemd/user"] {
            let directory = root.join(place);
            let any = |e: &fs::DirEntry| e.path().extension().is_some_and(|e| e == "service") && e.path().is_file();
            if fs::read_dir(&directory).is_ok_and(|mut entries| entries.any(|e| e.is_ok_and(|e| any(&e)))) {
                every_way_through(&directory);
            }
        }
    }
}

fn every_way_through(directory: &Path) {
    let at = directory.to_str().unwrap();
    for arguments in [
        &["--format", "json", "--level", "info"][..],
        &["--assume-handover", "--level", "info"],
        &["--assume-handover", "--fix"],
        &["--format", "sarif", "--target-version", "252"],
    ] {
        let Run { code, stdout, stderr } = check(&[arguments, &[at]].concat(), b"");
        assert!(matches!(code, Some(0 | 1)) && stderr.is_empty(), "{at} {arguments:?}: {code:?} {stderr}");
        assert!(!stdout.is_empty());
    }
}
