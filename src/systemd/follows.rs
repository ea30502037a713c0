//! What follows a stop: systemd's list of jobs tells whether it is the first half of a restart.
//!
//! | the list has | what follows |
//! |---|---|
//! | a job `restart` of the unit | a start, as with `systemctl restart`, of the unit or of one that it is `PartOf=` |
//! | a job of `soft-reboot.target` | a start, if the unit has `FileDescriptorStorePreserve=yes` or `on-success` |
//! | none of these | none that is known of |
//!
//! `systemctl` is asked: it finds its way without a message bus as root, and with one as anybody
//! else, to the system's manager and to a user's. It may be missing (`RootDirectory=`), or not be
//! answered (no bus): then nobody knows.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long the service manager may take to tell what follows a stop. The service serves on
/// meanwhile.
pub(crate) const FOLLOWS_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is asked at most, where what asks is killed, or has no answer.
const TRIES: u32 = 8;

/// It is asked once more after so long, and the first answer counts: who asks while a soft reboot
/// stops the message bus may wait for ever.
const ASK_AGAIN: Duration = Duration::from_millis(700);

/// The pause after the first that is killed, which doubles: each new process keeps the manager's
/// search for new ones going, and is found by it.
const PAUSE: Duration = Duration::from_millis(10);

const SOFT_REBOOT: &str = "soft-reboot.target";

/// What follows a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Follows {
    /// The service is started anew.
    Start,
    /// Nothing that the service manager knows of.
    Nothing,
    /// It could not be asked, for this reason.
    Unknown(String),
}

/// A unit, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unit {
    name: String,
    of_user: bool,
}

/// Asks the manager of the unit that this process is in.
pub(crate) async fn ask() -> Follows {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(unit) = Unit::of(&groups) else {
        return Follows::Unknown("this process is in the cgroup of no service".into());
    };
    match timeout(FOLLOWS_TIMEOUT, unit.follows()).await {
        Ok(Ok(follows)) => follows,
        Ok(Err(why)) => Follows::Unknown(why),
        Err(_) => Follows::Unknown(format!("systemctl does not answer within {FOLLOWS_TIMEOUT:?}")),
    }
}

impl Unit {
    /// Finds it in the text of `/proc/PID/cgroup`. A unit may have cgroups below its own.
    fn of(groups: &str) -> Option<Self> {
        let path = |prefix| groups.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(prefix));
        // The second is that of the old hierarchy, where systemd uses that.
        let paths = [path(":"), path("name=systemd:")];
        let path = paths.into_iter().flatten().find(|path| path.contains(".service"))?;
        let mut parts = path.rsplit('/').filter(|part| part.ends_with(".service"));
        let name = parts.next()?;
        let of_user = parts.any(|part| part.starts_with("user@"));
        // A name that a cgroup cannot have begins with another character.
        Some(Self { name: name.strip_prefix('_').unwrap_or(name).to_owned(), of_user })
    }

    async fn follows(&self) -> Result<Follows, String> {
        let jobs = self.systemctl(&["list-jobs"]).await?;
        Ok(match what_follows(&jobs, &self.name) {
            Planned::Restart => Follows::Start,
            Planned::SoftReboot => {
                let kept = self.systemctl(&["show", "--property=FileDescriptorStorePreserve", &self.name]).await?;
                if is_preserved(&kept) { Follows::Start } else { Follows::Nothing }
            }
            Planned::Nothing => Follows::Nothing,
        })
    }

    /// A stop signals all processes of the unit until it finds no new one, and so this, too.
    async fn systemctl(&self, arguments: &[&str]) -> Result<String, String> {
        let (mut asking, mut tries) = (JoinSet::new(), 0);
        loop {
            if tries < TRIES {
                tries += 1;
                asking.spawn(try_systemctl(self.command(arguments)));
            }
            let answer = tokio::select! {
                Some(answer) = asking.join_next() => answer.map_err(|e| format!("systemctl was not waited for: {e}"))?,
                () = sleep(ASK_AGAIN), if tries < TRIES => continue,
            };
            match answer {
                Err(Failure::Signalled(why)) if tries == TRIES && asking.is_empty() => return Err(why),
                Err(Failure::Signalled(_)) => sleep(PAUSE * 2_u32.pow(tries - 1)).await,
                Ok(output) => return Ok(output),
                Err(Failure::Refused(why)) => return Err(why),
            }
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("systemctl");
        if self.of_user {
            command.arg("--user");
        }
        command.args(["--no-legend", "--plain", "--full", "--no-pager", "--no-ask-password"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

async fn try_systemctl(mut command: Command) -> Result<String, Failure> {
    let output = command.output().await.map_err(|e| Failure::Refused(format!("systemctl cannot be started: {e}")))?;
    let (status, said) = (output.status, String::from_utf8_lossy(&output.stderr));
    let why = || format!("systemctl: {status}: {}", said.trim().escape_debug());
    if status.signal().is_some() {
        return Err(Failure::Signalled(why()));
    }
    if !status.success() {
        return Err(Failure::Refused(why()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Why systemctl has no answer.
#[derive(Debug)]
enum Failure {
    /// It was killed.
    Signalled(String),
    Refused(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planned {
    Restart,
    SoftReboot,
    Nothing,
}

/// Tells whether a stop that goes well keeps the fd store.
fn is_preserved(shown: &str) -> bool {
    matches!(shown.trim_end().rsplit_once('='), Some((_, "yes" | "on-success")))
}

/// Reads lines of a number, a unit, the type of the job, and its state.
fn what_follows(jobs: &str, unit: &str) -> Planned {
    let mut planned = Planned::Nothing;
    for line in jobs.lines() {
        let mut words = line.split_whitespace();
        let (Some(number), Some(of), Some(kind)) = (words.next(), words.next(), words.next()) else { continue };
        if number.parse::<u32>().is_err() {
            continue;
        }
        match kind {
            "restart" | "try-restart" if of == unit => return Planned::Restart,
            "start" if of == SOFT_REBOOT => planned = Planned::SoftReboot,
            _ => {}
        }
    }
    planned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_found_in_its_cgroup() {
        let unit = |name: &str, of_user| Some(Unit { name: name.into(), of_user });
        for (groups, found) in [
            ("0::/system.slice/web.service\n", unit("web.service", false)),
            ("0::/system.slice/system-web.slice/web@1.service/sub\n", unit("web@1.service", false)),
            ("0::/user.slice/user-7.slice/user@7.service/app.slice/web.service\n", unit("web.service", true)),
            ("4:memory:/x\n1:name=systemd:/system.slice/web.service\n0::/\n", unit("web.service", false)),
            ("4:name=systemd:/\n0::/payload/system.slice/web.service\n", unit("web.service", false)),
            ("0::/system.slice/__web.service\n", unit("_web.service", false)),
            ("0::/user.slice/user-7.slice/session-2.scope\n", None),
            ("", None),
        ] {
            assert_eq!(Unit::of(groups), found, "{groups}");
        }
    }

    #[test]
    fn what_a_stop_keeps_is_told() {
        for (value, kept) in [("yes", true), ("on-success", true), ("restart", false), ("no", false), ("", false)] {
            assert_eq!(is_preserved(&format!("FileDescriptorStorePreserve={value}\n")), kept, "{value}");
        }
        assert!(!is_preserved(""));
    }

    #[test]
    fn the_list_of_jobs_tells_what_follows() {
        for (jobs, planned) in [
            ("123 web.service restart running\n124 db.service start waiting\n", Planned::Restart),
            ("  9 web.service try-restart running\n", Planned::Restart),
            ("123 web.service stop running\n124 db.service restart waiting\n", Planned::Nothing),
            ("1 web.service stop running\n2 soft-reboot.target start waiting\n", Planned::SoftReboot),
            ("1 web.service stop running\n2 reboot.target start waiting\n", Planned::Nothing),
            ("No jobs running.\n", Planned::Nothing),
            ("", Planned::Nothing),
        ] {
            assert_eq!(what_follows(jobs, "web.service"), planned, "{jobs}");
        }
    }
}
