//! The programs under test, in the profile of the harness.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Outcome, command, must_succeed};

/// A cold build of everything on two cores.
const BUILD_DEADLINE: Duration = Duration::from_secs(900);

/// The command-line tool.
pub(crate) fn handover() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_handover"))
}

/// An example. `cargo test --test systemd` does not build those of another package, so it is built
/// here, once.
pub(crate) fn example(name: &'static str) -> Outcome<PathBuf> {
    static BUILT: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    let path = handover().with_file_name("examples").join(name);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    // Under sudo the files would be root's: tests/run has built them before.
    let may_build = std::env::var_os("SUDO_UID").is_none();
    if may_build
        && !built.contains(&name)
        && let Some(cargo) = std::env::var_os("CARGO")
    {
        let mut command = apart(Command::new(cargo));
        command.args(["build", "--quiet", "--workspace", "--all-features", "--example", name]).current_dir(crate::TOP);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        must_succeed(&format!("cargo build --example {name}"), command::run(&mut command, b"", BUILD_DEADLINE)?)?;
        built.push(name);
    }
    if !path.exists() {
        return Err(format!("{} is missing: cargo build --workspace --all-features --examples", path.display()).into());
    }
    Ok(path)
}

/// A former version, as its programs are.
#[derive(Debug, Clone)]
pub(crate) struct Former {
    pub(crate) name: String,
    directory: PathBuf,
}

impl Former {
    /// The command-line tool.
    pub(crate) fn handover(&self) -> PathBuf {
        self.directory.join("handover")
    }

    pub(crate) fn example(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The former versions whose sources are kept in `tests/skew`, built at the first call.
pub(crate) fn former() -> Outcome<Vec<Former>> {
    static BUILT: Mutex<Option<Vec<Former>>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(built) = &*built {
        return Ok(built.clone());
    }
    let script = Path::new(crate::TOP).join("tests/skew/build");
    let output = command::run(&mut apart(Command::new(script)), b"", BUILD_DEADLINE)?;
    let lines = must_succeed("tests/skew/build", output)?;
    let former: Vec<_> = lines
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, directory)| Former { name: name.to_owned(), directory: directory.into() })
        .collect();
    if former.is_empty() {
        return Err("no source of a former version is kept in tests/skew".into());
    }
    Ok(built.insert(former).clone())
}

/// Without what `cargo test` tells us of this package: ring's build script would take it for a
/// change, and be run each time.
fn apart(mut command: Command) -> Command {
    let ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
        command.env_remove(name);
    }
    command
}
