//! Where the journals come from: this machine, files, a directory of journals, other machines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nix::unistd::{Group, Uid, getegid, getgroups};

use super::history::{History, unit_of};
use super::journal::{self, Entry, Place};
use super::when::Moment;
use crate::failure::Failure;
use crate::{safe, target};

/// So many machines are asked at once.
const AT_ONCE: usize = 16;

#[derive(Debug, Args)]
pub(super) struct Sources {
    /// The unit: `web.service`, or `web` for short. With --file it may be left out if only one unit
    /// in it was reloaded
    #[arg(value_name = "UNIT", required_unless_present = "file")]
    unit: Option<String>,
    /// A unit of your own systemd (`systemctl --user`)
    #[arg(long, conflicts_with = "file")]
    user: bool,
    /// Read what `journalctl -o json` or `-o export` has printed, on this machine or another; `-`
    /// for stdin. May be said again, for several machines
    #[arg(long, value_name = "FILE", conflicts_with_all = ["directory", "host"])]
    file: Vec<PathBuf>,
    /// Read the journals in this directory, as systemd-journal-remote writes them: a lane for each
    /// machine
    #[arg(long, value_name = "DIR", conflicts_with_all = ["user", "host"])]
    directory: Option<PathBuf>,
    /// Ask journalctl on this machine, over ssh. May be said again: a lane for each
    #[arg(long, value_name = "NAME", value_parser = host)]
    host: Vec<String>,
}

/// The journals of one unit.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) unit: String,
    /// By the names of their machines.
    pub(super) machines: Vec<(String, History)>,
    /// There may be several, whether or not there are.
    pub(super) is_fleet: bool,
}

impl Sources {
    pub(super) async fn gather(&self, since: Option<Moment>) -> Result<Gathered, Failure> {
        let unit = self.unit.as_deref().map(unit_name).transpose().map_err(Failure::usage)?;
        match (unit, &*self.file, &self.directory, &*self.host) {
            (unit, [_, ..], ..) => self.of_files(unit, since).await,
            (Some(unit), [], Some(directory), _) => {
                let (machines, _) = ask(&Place::Directory(directory.clone()), &unit, since).await?;
                let machines: Vec<_> = machines.into_iter().collect();
                if machines.is_empty() {
                    let shown = directory.display();
                    return Err(Failure::cannot_run(format!("the journals in {shown} have nothing about {unit}")));
                }
                Ok(Gathered { unit, machines, is_fleet: true })
            }
            (Some(unit), [], None, [_, ..]) => self.of_hosts(unit, since).await,
            (Some(_), [], None, []) => {
                let said = self.unit.as_deref().unwrap_or_default();
                let unit = target::service(said, self.user).await?;
                let history = from_journal(&unit, self.user, since).await?;
                Ok(Gathered { unit, machines: vec![(String::new(), history)], is_fleet: false })
            }
            (None, ..) => Err(Failure::usage("name a unit, or a --file")),
        }
    }

    /// The unit of this machine that is meant, and whether it is one of the user's own systemd.
    pub(super) async fn one_of_here(&self) -> Result<(String, bool), Failure> {
        let said = self.unit.as_deref().unwrap_or_default();
        unit_name(said).map_err(Failure::usage)?;
        let unit = target::service(said, self.user).await?;
        if !self.user && !may_read_the_journal() {
            return Err(not_for_this_user(&unit));
        }
        Ok((unit, self.user))
    }

    async fn of_hosts(&self, unit: String, since: Option<Moment>) -> Result<Gathered, Failure> {
        let hosts: BTreeSet<&String> = self.host.iter().collect();
        let asked = stream::iter(hosts.into_iter().map(|host| {
            let (unit, place) = (unit.clone(), Place::Host { name: host.clone(), user: self.user });
            async move {
                let (machines, _) = ask(&place, &unit, since).await?;
                // Of one that has nothing yet, an empty lane.
                let history = machines.into_values().next().unwrap_or_default();
                Ok::<_, Failure>((host.clone(), history))
            }
        }));
        let machines: Vec<_> = asked.buffered(AT_ONCE).try_collect().await?;
        if machines.iter().all(|(_, history)| history.is_empty()) {
            return Err(Failure::cannot_run(format!(
                "the journals of these machines have nothing about {unit}, or this user may not read them there"
            )));
        }
        Ok(Gathered { unit, machines, is_fleet: true })
    }

    async fn of_files(&self, unit: Option<String>, since: Option<Moment>) -> Result<Gathered, Failure> {
        let mut all: BTreeMap<String, BTreeMap<String, History>> = BTreeMap::new();
        for path in &self.file {
            journal::read(path, |entry| {
                let late = since.is_none_or(|since| entry.time().is_none_or(|time| time >= since));
                if let Some(of) = unit_of(&entry).filter(|of| late && unit.as_ref().is_none_or(|unit| unit == of)) {
                    all.entry(of).or_default().entry(machine_of(&entry)).or_default().read(&entry);
                }
            })
            .await?;
        }
        if unit.is_none() {
            all.retain(|_, machines| machines.values().any(History::has_reloads));
        }
        let names: Vec<_> = self.file.iter().map(|path| safe::terminal(&path.display().to_string())).collect();
        let name = names.join(", ");
        if all.len() > 1 {
            let units: Vec<_> = all.keys().map(|unit| safe::short(&safe::terminal(unit), 64)).collect();
            return Err(Failure::usage(format!(
                "{name} has reloads of several units: name one of {}",
                units.join(", ")
            )));
        }
        let found = all.pop_first().filter(|(_, machines)| machines.values().any(|history| !history.is_empty()));
        let (unit, machines) = found.ok_or_else(|| {
            let what = unit.map_or_else(|| "about reloads of any unit".to_owned(), |unit| format!("about {unit}"));
            Failure::cannot_run(format!(
                "{name} has nothing {what}: export it with `journalctl -o json -u UNIT`, without --output-fields"
            ))
        })?;
        let is_fleet = self.file.len() > 1 || machines.len() > 1;
        Ok(Gathered { unit, machines: machines.into_iter().collect(), is_fleet })
    }
}

/// By their machines; and what journalctl said about what is missing.
async fn ask(place: &Place, unit: &str, since: Option<Moment>) -> Result<(BTreeMap<String, History>, String), Failure> {
    let mut machines: BTreeMap<String, History> = BTreeMap::new();
    let words = journal::ask(place, unit, since, |entry| {
        if unit_of(&entry).as_deref() == Some(unit) {
            // That of another machine is one, whatever it calls itself.
            let machine = if matches!(place, Place::Directory(_)) { machine_of(&entry) } else { String::new() };
            machines.entry(machine).or_default().read(&entry);
        }
    })
    .await?;
    Ok((machines, words))
}

async fn from_journal(unit: &str, user: bool, since: Option<Moment>) -> Result<History, Failure> {
    let (machines, words) = ask(&Place::Here { user }, unit, since).await?;
    let history = machines.into_values().next().unwrap_or_default();
    if history.is_empty() {
        if !user && !may_read_the_journal() && (words.contains("not seeing messages") || words.contains("permission")) {
            return Err(not_for_this_user(unit));
        }
        let within = if since.is_some() { " in that time: leave out --since, or" } else { ":" };
        let (flag, other) = if user { (" --user", "without --user") } else { ("", "with --user") };
        return Err(Failure::cannot_run(format!(
            "the journal has nothing about {unit}{within} see `systemctl{flag} list-units --type=service --all` for the names of \
             units; a unit of the other manager is shown {other}"
        )));
    }
    Ok(history)
}

fn not_for_this_user(unit: &str) -> Failure {
    Failure::cannot_run(format!(
        "the journal of {unit} is not for this user. Run it as root (`sudo handover timeline {unit}`), or join a group \
         that may read it: `sudo usermod -aG systemd-journal $USER`, and log in anew"
    ))
}

fn machine_of(entry: &Entry) -> String {
    entry.get("_HOSTNAME").unwrap_or_default().into_owned()
}

/// `web` is `web.service`.
fn unit_name(text: &str) -> Result<String, String> {
    let valid = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c));
    if !valid || text.len() > 255 || text.starts_with('-') {
        return Err(format!("{text:?} is not the name of one unit, as web.service"));
    }
    Ok(if text.ends_with(".service") { text.to_owned() } else { format!("{text}.service") })
}

/// What ssh could take for an option, or for more than one word, is no name.
fn host(text: &str) -> Result<String, String> {
    let valid = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.@[]%".contains(c));
    if !valid || text.len() > 255 || text.starts_with('-') {
        return Err("is no name that ssh knows a machine by, as web1 or admin@web1".to_owned());
    }
    Ok(text.to_owned())
}

fn may_read_the_journal() -> bool {
    let groups: Vec<_> = getgroups().unwrap_or_default().into_iter().chain([getegid()]).collect();
    let is_member =
        |name: &&str| Group::from_name(name).ok().flatten().is_some_and(|group| groups.contains(&group.gid));
    Uid::effective().is_root() || ["systemd-journal", "adm", "wheel"].iter().any(is_member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_units() {
        assert_eq!(unit_name("web").unwrap(), "web.service");
        assert_eq!(unit_name("web@a.service").unwrap(), "web@a.service");
        for bad in ["", "web*", "-x", "a b", "a\n", "a/b"] {
            assert!(unit_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_machines() {
        for good in ["web1", "admin@web1.example.com", "fe80::1%eth0", "ssh-alias"] {
            assert_eq!(host(good).as_deref(), Ok(good));
        }
        for bad in ["", "-oProxyCommand=x", "a b", "a;b", "$(a)", "a\n", "ssh://a/b"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
