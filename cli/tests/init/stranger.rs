//! A package of somebody else's that depends on the library by its path.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::TOP;

/// Has cargo check what is there: without the network, with the versions that are known to be here,
/// and beside what the workspace has built already.
pub(crate) fn build(directory: &Path) {
    fs::copy(Path::new(TOP).join("Cargo.lock"), directory.join("Cargo.lock")).unwrap();
    let mut command = cargo(directory);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    // The same profile, or nothing could be used again.
    command
        .args(["check", "--offline", "--config", "profile.dev.package.'*'.debug=false"])
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    let (built, said) = run(command);
    assert!(built && !said.contains("warning"), "{said}");
}

/// Whether cargo takes the manifest, and what it says.
pub(crate) fn manifest_is_read(directory: &Path) -> (bool, String) {
    let mut command = cargo(directory);
    command.args(["metadata", "--format-version=1", "--no-deps", "--offline"]);
    run(command)
}

fn cargo(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(directory);
    // What `cargo test` tells us of this package: build scripts would take it for a change.
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        command.env_remove(name);
    }
    command
}

fn run(mut command: Command) -> (bool, String) {
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}
