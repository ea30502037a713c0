//! What the published packages have in them.

use std::process::Command;

use crate::{PUBLISHED, report, top};

/// Of the library. A service that wants a reload downloads no tool, and no tests.
const MOST_BYTES: u64 = 2_750_000;
/// What cargo adds by itself, and what each package has.
const EVERYWHERE: [&str; 7] = [
    ".cargo_vcs_info.json",
    "Cargo.lock",
    "Cargo.toml",
    "Cargo.toml.orig",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
];

#[test]
fn no_stray_file_is_in_a_package() {
    let mut broken = Vec::new();
    for package in PUBLISHED {
        for name in listed(package).into_iter().filter(|name| !EVERYWHERE.contains(&name.as_str())) {
            let (place, kind) =
                (name.split('/').next().unwrap_or_default(), name.rsplit('.').next().unwrap_or_default());
            let belongs = match (*package, place, kind) {
                (_, "src", "rs") => true,
                // The chapters, and the interface that `varlinkctl` reads.
                ("", "src", "md") => name.starts_with("src/docs/"),
                ("", "src", "varlink") => true,
                ("", "examples", "rs") => true,
                ("", "packaging", "catalog" | "container" | "path" | "service" | "socket") => true,
                ("", "CHANGELOG.md", _) => true,
                // The skeleton of a page; what `check` knows of systemd's settings and of its
                // rules, what `init` writes, and what help says below the options.
                ("cli", "src", "css" | "html") => name.starts_with("src/page."),
                ("cli", "src", "toml") => name == "src/commands/check/rules.toml",
                ("cli", "src", "txt") => {
                    name == "src/commands/check/directives.txt"
                        || name.starts_with("src/commands/init/templates/")
                        || name.ends_with("after_help.txt")
                }
                _ => false,
            };
            if !belongs {
                broken.push(format!("{}: a stray file in the package", top().join(package).join(name).display()));
            }
        }
    }
    report(&broken);
}

#[test]
fn the_library_is_small() {
    let sizes = listed("").into_iter().filter_map(|name| top().join(name).metadata().ok());
    let bytes: u64 = sizes.map(|file| file.len()).sum();
    assert!((1_000_000..MOST_BYTES).contains(&bytes), "the library's package has {bytes} bytes");
}

fn listed(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline"])
        .current_dir(top().join(package))
        .output()
        .expect("cargo package");
    assert!(output.status.success(), "cargo package: {}", String::from_utf8_lossy(&output.stderr));
    let names: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    assert!(names.iter().any(|name| name.starts_with("src/")), "{names:?}");
    names
}
