//! Units that others wrote: no crash, and no nonsense.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tool::{Run, check, json};

/// Not one of them hands over, and none has a line that systemd ignores.
fn no_fault_in(directory: &Path) -> usize {
    let at = directory.to_str().unwrap();
    let run = check(&["--format", "json", at], b"");
    assert_eq!(run.code, Some(0), "{at}: {}{}", run.stdout, run.stderr);
    let report = json(&run);
    assert_eq!(report["errors"], 0, "{report:#}");
    // Every other way through: whatever is found, it is reported.
    for arguments in [
        &["--assume-handover", "--level", "info"][..],
        &["--assume-handover", "--fix"],
        &["--format", "sarif", "--target-version", "252"],
    ] {
        let Run { code, stderr, .. } = check(&[arguments, &[at]].concat(), b"");
        assert!(matches!(code, Some(0 | 1)) && stderr.is_empty(), "{at} {arguments:?}: {code:?} {stderr}");
    }
    report["pairs"].as_array().unwrap().len()
}

#[test]
fn units_of_this_machine_and_of_the_lab() {
    let cache = std::env::var_os("HANDOVER_CACHE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/handover")));
    let roots =
        cache.and_then(|c| fs::read_dir(c.join("rootfs")).ok()).into_iter().flatten().flatten().map(|e| e.path());
    let mut services = 0;
    for root in roots.chain([PathBuf::from("/")]) {
        for place in ["usr/lib/systemd/system", "usr/lib/systemd/user"] {
            let directory = root.join(place);
            let any = |e: &fs::DirEntry| e.path().extension().is_some_and(|e| e == "service") && e.path().is_file();
            if fs::read_dir(&directory).is_ok_and(|mut entries| entries.any(|e| e.is_ok_and(|e| any(&e)))) {
                services += no_fault_in(&directory);
            }
        }
    }
    if services == 0 {
        eprintln!("not run: there are no units on this machine");
    }
}

const PACKAGES: [&str; 30] = [
    "nginx-common",
    "apache2",
    "postgresql-common",
    "redis-server",
    "openssh-server",
    "haproxy",
    "mariadb-server",
    "memcached",
    "dnsmasq",
    "bind9",
    "unbound",
    "prometheus",
    "cups-daemon",
    "avahi-daemon",
    "cron",
    "rsyslog",
    "docker.io",
    "containerd",
    "mosquitto",
    "exim4-base",
    "postfix",
    "chrony",
    "squid",
    "rabbitmq-server",
    "samba",
    "libvirt-daemon-system",
    "fail2ban",
    "tor",
    "varnish",
    "lighttpd",
];

/// By a developer: `cargo test --all-features --test check -- --ignored --nocapture`. Nothing of it is kept.
#[test]
#[ignore = "downloads 30 packages by apt-get"]
fn units_of_debian_packages() {
    let dir = tempfile::tempdir().unwrap();
    let (mut packages, mut services) = (0, 0);
    for package in PACKAGES {
        let script = format!(
            "set -eu; mkdir {package}; cd {package}; apt-get download -qq {package} >/dev/null 2>&1; \
             dpkg-deb --fsys-tarfile *.deb | tar -x --wildcards './lib/systemd/*' './usr/lib/systemd/*' 2>/dev/null || true"
        );
        let fetched = Command::new("sh").args(["-c", &script]).current_dir(dir.path()).status().unwrap();
        assert!(fetched.success(), "{package} cannot be fetched");
        for place in ["lib/systemd/system", "usr/lib/systemd/system"] {
            let directory = dir.path().join(package).join(place);
            if directory.exists() {
                services += no_fault_in(&directory);
                packages += 1;
            }
        }
    }
    eprintln!("{services} services of {packages} packages");
    assert!(packages >= 20, "only {packages} packages have units");
}
