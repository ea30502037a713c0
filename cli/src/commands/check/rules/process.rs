//! HO11x, second part: whether the main process is the program, and where it runs.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::commands::check::command::Exec;
use crate::commands::check::rule::{Finding, Pair, Row, SERVICE, Service, ServiceAll, Unit};

pub(super) const RULES: &[Row] = &[("HO112", ServiceAll(wrapped)), ("HO113", Service(pinned))];

/// Links of this name are what deploys move.
const MOVED: [&str; 4] = ["current", "latest", "live", "active"];

fn wrapped(service: &Unit, _: &Pair<'_>) -> Vec<Finding> {
    let wrapped = service.commands("ExecStart").into_iter().filter_map(|(exec, setting)| {
        Some(Finding::at(&setting, format!("the main process is {}, not the service", wrapper(&exec)?)))
    });
    wrapped.collect()
}

/// The program that stays, if one does.
fn wrapper(exec: &Exec) -> Option<String> {
    let short =
        |letter: char| exec.arguments.iter().any(|a| a.starts_with('-') && !a.starts_with("--") && a.contains(letter));
    let name = exec.program();
    let stays = match name {
        // Those that become the program by execve: the next word is looked at.
        "env" | "nice" | "ionice" | "chrt" | "taskset" | "setpriv" | "stdbuf" | "prlimit" | "numactl" | "nohup" => {
            return wrapper(&behind(exec)?);
        }
        _ if exec.is_shell() => {
            return exec.script().filter(|script| shell_stays(script)).map(|_| format!("{name}, which does not exec"));
        }
        "flock" => !short('F') && !exec.has(&["--no-fork"]),
        "unshare" => short('f') || exec.has(&["--fork"]),
        "start-stop-daemon" => short('b') || exec.has(&["--background"]),
        "docker" | "podman" | "nerdctl" => exec.has(&["run", "start", "exec", "compose"]),
        "cargo" => exec.has(&["run", "watch"]),
        "systemd-run" => !exec.has(&["--scope"]),
        _ => STAYING.split(' ').any(|staying| staying == name),
    };
    stays.then(|| name.to_owned())
}

/// Programs that start another one, and wait for it or leave it behind.
const STAYING: &str = "sudo su runuser doas docker-compose podman-compose timeout time strace ltrace script unbuffer \
    setsid daemon daemonize supervisord npm npx yarn pnpm pm2 forever nodemon make xvfb-run dbus-run-session \
    systemd-inhibit tini dumb-init catatonit docker-init bwrap firejail screen tmux ssh watch entr watchexec";

/// What a program runs that becomes it: the first word that is no option, variable or number.
fn behind(exec: &Exec) -> Option<Exec> {
    let is_option =
        |word: &String| word.starts_with('-') || word.contains('=') || word.chars().all(|c| c.is_ascii_digit());
    let at = exec.arguments.iter().position(|word| !is_option(word))?;
    let (path, arguments) = (exec.arguments[at].clone(), exec.arguments[at + 1..].to_vec());
    Some(Exec { prefixes: String::new(), path, arguments })
}

/// Whether a shell remains to wait for what the script runs. Without `exec` dash always does, and
/// bash for all but the simplest scripts (measured).
fn shell_stays(script: &str) -> bool {
    // Of 2>&1 the & is none that separates.
    let script = script.trim().trim_end_matches(';').replace(">&", "> ").replace("&&", ";").replace("||", ";");
    let commands: Vec<_> =
        script.split([';', '&', '\n']).map(str::trim).filter(|command| !command.is_empty()).collect();
    let becomes = |command: &str| ["exec ", "then exec ", "else exec "].iter().any(|word| command.starts_with(word));
    // In a pipeline, and behind, even exec is the child's.
    let apart = script.contains('|') || script.ends_with('&');
    // Without arguments it only redirects: `exec 2>>/var/log/web`.
    let last = commands.iter().rev().find(|command| !matches!(**command, "fi" | "esac"));
    apart || last.is_none_or(|command| !becomes(command))
}

fn pinned(service: &Unit, _: &Pair<'_>) -> Option<Finding> {
    let setting = service.text(SERVICE, "WorkingDirectory")?;
    let text = setting.expanded();
    let path = Path::new(text.strip_prefix('-').unwrap_or(&text));
    // Where a release is, there is its program: then the path is found.
    let known = |exec: &Exec| path.is_absolute() && Path::new(&exec.path).starts_with(path);
    if service.commands("ExecStart").iter().any(|(exec, _)| known(exec)) {
        return None;
    }
    let what = match link_in(path) {
        Some(link) => format!(": {} is a symbolic link", link.display()),
        None if path.is_absolute() && path.iter().any(|part| MOVED.iter().any(|name| part == *name)) => {
            " looks like a link that deploys move".to_owned()
        }
        None => return None,
    };
    Some(Finding::of(&setting).but(what))
}

/// The first link on the way, as far as this machine has the path; those of the system stay.
fn link_in(path: &Path) -> Option<PathBuf> {
    let mut so_far = PathBuf::new();
    let mut links = path.components().filter_map(|part| {
        so_far.push(part);
        let below = matches!(part, Component::Normal(_)) && so_far.components().count() > 2;
        (below && path.is_absolute() && fs::symlink_metadata(&so_far).is_ok_and(|m| m.is_symlink()))
            .then(|| so_far.clone())
    });
    links.find(|link| link != Path::new("/var/run") && link != Path::new("/var/lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stays_main() {
        let main = |line: &str| wrapper(&Exec::parse(line).remove(0));
        for wrapped in [
            "/usr/bin/sudo -u web /usr/bin/web",
            "/usr/bin/docker run --rm web",
            "/usr/bin/podman start -a web",
            "/usr/bin/flock /run/lock/web /usr/bin/web",
            "/bin/sh -c 'cd /srv && /usr/bin/web'",
            "/bin/sh -c '/usr/bin/web; echo over'",
            "/bin/bash -c '/usr/bin/web | tee /var/log/web'",
            "/bin/sh -c '/usr/bin/web &'",
            "/bin/sh -c '/usr/bin/web >>/var/log/web 2>&1'",
            "/bin/sh -c 'exec /usr/bin/web | logger'",
            "/bin/sh -c 'while true; do /usr/bin/web; done'",
            "/usr/bin/env A=1 /usr/bin/sudo /usr/bin/web",
            "/usr/bin/nice -n 10 timeout 1h /usr/bin/web",
            "/usr/bin/npm start",
            "/usr/bin/unshare -pf /usr/bin/web",
            "@/usr/bin/setsid setsid /usr/bin/web",
        ] {
            assert!(main(wrapped).is_some(), "{wrapped}");
        }
        for direct in [
            "/usr/bin/web --sudo su",
            "/usr/bin/flock -F /run/lock/web /usr/bin/web",
            "/bin/sh -c 'exec /usr/bin/web'",
            "/bin/sh -c 'cd /srv && exec /usr/bin/web >>/var/log/web 2>&1'",
            "/bin/sh -c 'if test -e /x; then exec /usr/bin/web; fi'",
            "/usr/bin/env A=1 /usr/bin/web",
            "/usr/bin/unshare -n /usr/bin/web",
            "/usr/bin/docker version",
            "/usr/bin/handover run -- /usr/bin/web",
        ] {
            assert_eq!(main(direct), None, "{direct}");
        }
    }

    #[test]
    fn links_on_the_way_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let (release, current) = (dir.path().join("1"), dir.path().join("current"));
        fs::create_dir(&release).unwrap();
        std::os::unix::fs::symlink(&release, &current).unwrap();
        assert_eq!(link_in(&current.join("sub")).as_deref(), Some(current.as_path()));
        assert_eq!((link_in(&release), link_in(Path::new("/lib")), link_in(Path::new("/gone/x"))), (None, None, None));
    }
}
