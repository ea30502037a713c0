//! The program of `--rust`: the paved path, and nothing more. Pure.

use std::time::Duration;

use super::library::Library;
use super::plan::{Listen, Plan};

/// `Cargo.toml` and `src/main.rs`. Below a workspace that is not its own the manifest must say so.
pub(super) fn files(plan: &Plan, library: &Library, in_a_workspace: bool) -> Result<Vec<(String, String)>, String> {
    let valid = plan.prefix.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        && plan.prefix.starts_with(|c: char| c.is_ascii_alphabetic());
    if !valid {
        return Err(format!("{}: with --rust the name is a crate's too: letters, digits, `-` and `_`", plan.prefix));
    }
    Ok(vec![("Cargo.toml".to_owned(), manifest(plan, library, in_a_workspace)), ("src/main.rs".to_owned(), main(plan))])
}

fn manifest(plan: &Plan, library: &Library, in_a_workspace: bool) -> String {
    format!(
        include_str!("templates/manifest.txt"),
        name = plan.prefix,
        library = library.dependency(),
        control = if plan.wait.is_some() { "\"control\", " } else { "" },
        workspace = match in_a_workspace {
            true =>
                "\n\n# The workspace of a directory above does not name this package: it is one of its own.\n[workspace]",
            false => "",
        },
    )
}

fn main(plan: &Plan) -> String {
    // What stands in the unit may only mean something to systemd.
    let address = match &plan.listen {
        Listen::Tcp(address) | Listen::Unix(address) | Listen::Udp(address) if !address.contains('%') => address,
        _ => "127.0.0.1:8080",
    };
    format!(
        include_str!("templates/main.txt"),
        address = address,
        title = plan.prefix,
        name = plan.socket_name,
        unit = plan.unit("socket"),
        drain = duration(plan.drain_timeout),
        warm_up = duration(plan.warm_up),
        control = if plan.wait.is_some() {
            "        .control() // for `handover reload` and `handover status`\n"
        } else {
            ""
        },
    )
}

fn duration(time: Duration) -> String {
    match time.subsec_nanos() {
        0 => format!("Duration::from_secs({})", time.as_secs()),
        _ => format!("Duration::from_millis({})", time.as_millis().max(1)),
    }
}
