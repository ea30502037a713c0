//! `handover init`: the two units of a service, and the program if wanted.

mod library;
mod next;
mod plan;
mod program;
mod units;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};

use crate::failure::{Failure, Outcome};
use crate::out;
use library::Library;
use plan::{Listen, Plan};

/// Writes a .socket and a .service unit for a service that is reloaded by handover, and with --rust
/// a program that is one.
///
/// What it writes passes `handover check` and `systemd-analyze verify`. Nothing is installed, and
/// no file is replaced unless --force says so.
#[derive(Debug, Args)]
#[command(after_help = include_str!("after_help.txt").trim_end(), group = ArgGroup::new("listen"))]
pub(crate) struct Options {
    /// What the service is called; the units are NAME.socket and NAME.service
    name: String,
    /// For your own `systemctl --user` instead of the system
    #[arg(long)]
    user: bool,
    /// Type=notify-reload, for systemd 253 and later: `systemctl reload` waits until the new
    /// generation is main
    #[arg(long)]
    notify_reload: bool,
    /// ExecReload=PATH reload $MAINPID: `systemctl reload` waits, and fails with the reason if the
    /// reload failed. PATH is this tool on the machine that runs the service [default:
    /// /usr/bin/handover]
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "/usr/bin/handover", require_equals = true,
          conflicts_with = "notify_reload")]
    wait: Option<String>,
    /// NAME@.socket and NAME@.service, of which every instance is a service: `%i` stands for what
    /// comes after the @
    #[arg(long)]
    template: bool,
    /// Listen at this TCP port or address [default: 127.0.0.1:8080; with --template 127.0.0.1:%i]
    #[arg(long, value_name = "ADDR", group = "listen")]
    tcp: Option<String>,
    /// Listen at this path, or @name for an abstract one
    #[arg(long, value_name = "PATH", group = "listen")]
    unix: Option<String>,
    /// Receive datagrams at this UDP port or address
    #[arg(long, value_name = "ADDR", group = "listen", conflicts_with = "rust")]
    udp: Option<String>,
    /// The program [default: /usr/bin/NAME; with --user %h/.local/bin/NAME]
    #[arg(long, value_name = "PATH")]
    exec: Option<String>,
    /// The name that the program asks for its sockets by [default: http; with --udp udp]
    #[arg(long, value_name = "NAME")]
    socket_name: Option<String>,
    /// How long the program's drain may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    /// How long a generation may take to be ready
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// Keep connections over a restart, and ports, state and connections over a soft reboot
    #[arg(long)]
    preserve: bool,
    /// A sandbox that leaves reloads alone; this is the default
    #[arg(long, conflicts_with = "no_hardening")]
    hardened: bool,
    /// No sandbox
    #[arg(long)]
    no_hardening: bool,
    /// Write Cargo.toml and src/main.rs too: a web service of 15 lines
    #[arg(long)]
    rust: bool,
    /// A checkout of handover, which the program of --rust is built with [default: where this tool
    /// is from: that checkout or repository, else the registry]
    #[arg(long, value_name = "DIR", requires = "rust")]
    library: Option<PathBuf>,
    /// Where to write
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

// Async as the other commands are; there is nothing to wait for.
#[expect(clippy::unused_async, reason = "all commands are called alike")]
pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let plan = options.plan().map_err(Failure::usage)?;
    let mut files = units::files(&plan);
    if options.rust {
        files.extend(options.program(&plan).map_err(Failure::usage)?);
    }
    let paths: Vec<_> = files.iter().map(|(name, _)| options.dir.join(name)).collect();
    if !options.force {
        let there: Vec<_> =
            paths.iter().filter(|p| p.symlink_metadata().is_ok()).map(|p| p.display().to_string()).collect();
        if !there.is_empty() {
            return Err(Failure::failed(format!("already there: {}; --force replaces them", there.join(", "))));
        }
    }
    for (path, (_, text)) in paths.iter().zip(&files) {
        write(path, text, options.force)?;
        out::line(format_args!("wrote {}", path.display()));
    }
    out::line(next::steps(&plan, &options.dir, options.rust));
    Ok(Outcome::Success)
}

impl Options {
    fn plan(&self) -> Result<Plan, String> {
        let prefix = self.name.clone();
        let listen = match (&self.tcp, &self.unix, &self.udp) {
            (Some(address), ..) => Listen::Tcp(address.clone()),
            (_, Some(path), _) => Listen::Unix(path.clone()),
            (.., Some(address)) => Listen::Udp(address.clone()),
            _ if self.template => Listen::Tcp("127.0.0.1:%i".to_owned()),
            _ => Listen::Tcp("127.0.0.1:8080".to_owned()),
        };
        let default = if self.user { format!("%h/.local/bin/{prefix}") } else { format!("/usr/bin/{prefix}") };
        let socket_name = if matches!(listen, Listen::Udp(_)) { "udp" } else { "http" };
        let plan = Plan {
            prefix,
            user: self.user,
            notify_reload: self.notify_reload,
            wait: self.wait.clone(),
            template: self.template,
            listen,
            exec: self.exec.clone().unwrap_or(default),
            socket_name: self.socket_name.clone().unwrap_or_else(|| socket_name.to_owned()),
            drain_timeout: self.drain_timeout,
            warm_up: self.warm_up,
            preserve: self.preserve,
            hardened: self.hardened || !self.no_hardening,
        };
        plan.checked()
    }

    fn program(&self, plan: &Plan) -> Result<Vec<(String, String)>, String> {
        // Nothing is found beside a tool that is not there any more, or below a deleted directory.
        let tool = std::env::current_exe().unwrap_or_default();
        let here = std::env::current_dir().unwrap_or_default();
        let library = match &self.library {
            Some(directory) => Library::at(directory)?,
            None => Library::beside(&tool, &here),
        };
        let directory = library::absolute(&self.dir, &here);
        program::files(plan, &library, library::is_in_a_workspace(&directory))
    }
}

/// Whole or not at all, and never over a file that came in between.
fn write(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let failure = |e: std::io::Error| Failure::cannot_run(format!("{} cannot be written: {e}", path.display()));
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(failure)?;
    let readable = fs::Permissions::from_mode(0o644);
    let file = tempfile::Builder::new().prefix(".handover-").permissions(readable).tempfile_in(directory);
    let mut file = file.map_err(failure)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(failure)?;
    let kept = if force { file.persist(path) } else { file.persist_noclobber(path) };
    kept.map(drop).map_err(|e| failure(e.error))
}
