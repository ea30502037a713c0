//! What a service tells of itself over its control interface, and how far that is believed: who
//! runs the tool may be root, and the service is not.

use std::fs;
use std::io;

use handover::control::Server;
use serde_json::Value;

use crate::failure::Failure;

/// Whose the service is that was asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// As the caller would call it.
    pub(crate) name: String,
    pub(crate) unit: Option<String>,
    /// That of its main process.
    pub(crate) uid: Option<u32>,
}

/// Whose a process is, as the kernel says.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    unit: Option<String>,
    uid: u32,
}

impl Owner {
    fn of(pid: u32) -> io::Result<Self> {
        let uid = uid_of(pid)?;
        Ok(Self { unit: unit_of(&pid.to_string())?.0, uid })
    }
}

/// The effective user of a process. Not the owner of its files in /proc: those of a program with
/// privileges are root's.
pub(crate) fn uid_of(pid: u32) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let ids = text.lines().find_map(|line| line.strip_prefix("Uid:"));
    let effective = ids.and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
    effective.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Checks the pid that a status tells: it must be of the unit that was asked, and of the user of
/// its main process. One that has ended since is no lie.
pub(crate) fn check(expected: &Expected, status: &Value) -> Result<(), Failure> {
    let (Some(unit), Some(pid)) = (&expected.unit, pid(&status["pid"])) else { return Ok(()) };
    let owner = match Owner::of(pid) {
        Ok(owner) => owner,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(not_believed(expected, pid, &format!("which cannot be looked at: {e}"))),
    };
    if owner.unit.as_ref() != Some(unit) {
        return Err(not_believed(expected, pid, "which is none of that unit"));
    }
    match expected.uid {
        Some(uid) if uid != owner.uid => {
            Err(not_believed(expected, pid, &format!("which is uid {}'s and not uid {uid}'s", owner.uid)))
        }
        _ => Ok(()),
    }
}

/// Checks a pid that was told at a socket of which no unit is known: it must be of the user, and of
/// the unit, of the process that listens there.
pub(crate) fn check_by_socket(expected: &Expected, server: Option<Server>, pid: u32) -> Result<(), Failure> {
    let not = |why: &str| Err(not_believed(expected, pid, why));
    let Some(server) = server else { return not("and the kernel does not say who listens there") };
    let Ok(owner) = Owner::of(pid) else { return not("which cannot be looked at") };
    // A manager that listens for others vouches for none of them.
    if server.pid == Some(1) {
        return not("and who listens there is the service manager: say the unit, or --program PATH");
    }
    if server.uid != owner.uid {
        return not(&format!("which is uid {}'s, and uid {} listens there", owner.uid, server.uid));
    }
    match server.pid.map(Owner::of) {
        Some(Ok(listens)) if listens.unit != owner.unit => not("which is of another unit than who listens there"),
        _ => Ok(()),
    }
}

/// Checks who listens at the control interface of a unit or a pid: root, which is systemd where
/// that has made the socket, or the service's own user.
pub(crate) fn check_server(expected: &Expected, server: Option<Server>) -> Result<(), Failure> {
    let (Some(uid), Some(server)) = (expected.uid, server) else { return Ok(()) };
    if server.uid == 0 || server.uid == uid {
        return Ok(());
    }
    let (name, other) = (&expected.name, server.uid);
    Err(Failure::cannot_run(format!(
        "at the control interface of {name}, which runs as uid {uid}, uid {other} listens"
    )))
}

pub(crate) fn pid(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|pid| u32::try_from(pid).ok())
}

fn not_believed(expected: &Expected, pid: u32, why: &str) -> Failure {
    Failure::cannot_run(format!("{} tells that its process is {pid}, {why}: it is not believed", expected.name))
}

/// The unit that a process belongs to, and whether it is one of a user.
pub(crate) fn unit_of(pid: &str) -> io::Result<(Option<String>, bool)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    Ok(unit_in(&text))
}

/// Finds the unit in either hierarchy: that of version 2, and systemd's own of version 1.
fn unit_in(cgroups: &str) -> (Option<String>, bool) {
    let paths = cgroups.lines().filter_map(|line| {
        let (hierarchy, path) = line.split_once(':').and_then(|(_, rest)| rest.split_once(':'))?;
        ["", "name=systemd"].contains(&hierarchy).then_some(path)
    });
    let of = |path: &str| {
        let unit = path.split('/').rfind(|part| part.ends_with(".service"));
        unit.map(|unit| (Some(unit.to_owned()), path.contains("/user@")))
    };
    paths.clone().find_map(of).unwrap_or((None, paths.into_iter().any(|path| path.contains("/user@"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn units_are_found_in_cgroups() {
        let of = |text| unit_in(text);
        assert_eq!(of("0::/system.slice/web.service\n"), (Some("web.service".into()), false));
        assert_eq!(of("0::/system.slice/web.service/.control\n").0.as_deref(), Some("web.service"));
        let user = "1:name=x:/\n0::/user.slice/user-1.slice/user@1.service/app.slice/web@2.service\n";
        assert_eq!(of(user), (Some("web@2.service".into()), true));
        assert_eq!(of("0::/init.scope\n"), (None, false));
        assert_eq!(of("1:name=systemd:/system.slice/a.service\n0::/\n").0.as_deref(), Some("a.service"));
    }

    #[test]
    fn a_pid_of_another_unit_is_not_believed() {
        let own = std::process::id();
        let uid = nix::unistd::geteuid().as_raw();
        let unit = unit_of("self").unwrap().0;
        let expected = |unit: Option<String>, uid| Expected { name: "web".into(), unit, uid: Some(uid) };
        let other = expected(Some("no-such.service".into()), uid);
        let error = check(&other, &json!({ "pid": own })).unwrap_err().to_string();
        assert!(error.contains("none of that unit"), "{error}");
        check(&other, &json!({ "pid": 4_194_304 })).unwrap();
        check(&expected(None, uid), &json!({ "pid": own })).unwrap();
        if let Some(unit) = unit {
            check(&expected(Some(unit.clone()), uid), &json!({ "pid": own })).unwrap();
            check(&expected(Some(unit), uid + 1), &json!({ "pid": own })).unwrap_err();
        }
        assert_eq!(uid_of(own).unwrap(), uid);
    }
}
