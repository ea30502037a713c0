//! What to type next, as it works in the directory that `init` was called in.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::plan::Plan;

pub(super) fn steps(plan: &Plan, directory: &Path, with_program: bool) -> String {
    let (socket, service) = (plan.unit("socket"), plan.unit("service"));
    let (socket_file, service_file) = (directory.join(&socket), directory.join(&service));
    let mut text = "\nNext:\n".to_owned();
    let mut step = |line: String| _ = writeln!(text, "  {line}");
    if with_program {
        let manifest = directory.join("Cargo.toml");
        let built = directory.join("target/release").join(&plan.prefix);
        step(match directory == Path::new(".") {
            true => "cargo build --release".to_owned(),
            false => format!("cargo build --release --manifest-path {}", quoted(manifest.as_os_str())),
        });
        // An instance's is not one place.
        step(match plan.exec.contains("%i") {
            true => format!("# put {} at {} for each instance", quoted(built.as_os_str()), plan.exec),
            false => format!("install -D {} {}", quoted(built.as_os_str()), in_a_shell(&plan.exec)),
        });
    }
    step(format!("{} check {}", tool(), quoted(service_file.as_os_str())));
    let (place, systemctl) = match plan.user {
        true => ("~/.config/systemd/user", "systemctl --user"),
        false => ("/etc/systemd/system", "systemctl"),
    };
    if !is_the_managers(directory, place) {
        let files = format!("{} {}", quoted(socket_file.as_os_str()), quoted(service_file.as_os_str()));
        step(format!("install -D -m 644 -t {place} {files}"));
    }
    let started = match plan.template {
        true => format!("{0}@INSTANCE.socket {0}@INSTANCE.service", plan.prefix),
        false => format!("{socket} {service}"),
    };
    step(format!("{systemctl} daemon-reload && {systemctl} enable --now {started}"));
    text.trim_end().to_owned()
}

/// As this tool was called: by its name, or by a path, as `cargo run` does.
fn tool() -> String {
    let called = std::env::args_os().next();
    called.map_or_else(|| "handover".to_owned(), |name| quoted(&name))
}

/// `%h` is systemd's word for the home directory, and the only specifier that is left here.
fn in_a_shell(exec: &str) -> String {
    match exec.strip_prefix("%h/") {
        Some(below) => format!("~/{}", quoted(OsStr::new(below))),
        None => quoted(OsStr::new(exec)),
    }
}

/// Whether systemd looks for units there: nothing is to be copied then.
fn is_the_managers(directory: &Path, place: &str) -> bool {
    let home = std::env::home_dir().unwrap_or_default();
    let place = place.strip_prefix("~/").map_or(PathBuf::from(place), |below| home.join(below));
    matches!((directory.canonicalize(), place.canonicalize()), (Ok(directory), Ok(place)) if directory == place)
}

fn quoted(text: &OsStr) -> String {
    let text = text.to_string_lossy();
    // Only a NUL cannot be quoted, and a path has none.
    shlex::try_quote(&text).map_or_else(|_| text.to_string(), |quoted| quoted.into_owned())
}
