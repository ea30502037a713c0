//! Which sockets belong to which service, and whether the two claim to be reloaded by a handover.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use handover::service::settings;

use super::command::commands;
use super::graph;
use super::name::UnitName;
use super::unit::{OURS, SERVICE, SOCKET, Setting, UNIT, Unit};
use super::value;
use crate::safe::short;

/// Units that can belong to each other: of one directory, of one text, of one manager.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) units: Vec<Unit>,
    /// Programs whose files have the library in them.
    pub(super) programs: BTreeSet<String>,
    by_name: HashMap<UnitName, usize>,
    /// Numbers of sockets for that of a service, and the other way round: to look at every two
    /// units would be quadratic.
    sockets: HashMap<usize, Vec<usize>>,
    services: HashMap<usize, Vec<usize>>,
    reloads: OnceCell<graph::Circles>,
}

/// A service and the sockets that systemd passes to it; or a socket without its service.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    pub(super) service: Option<&'a Unit>,
    pub(super) sockets: Vec<&'a Unit>,
    pub(super) world: &'a World,
    pub(super) claim: Claim,
    /// The unit, or its program, says outright that handover reloads it: so it speaks sd_notify.
    pub(super) told: bool,
    /// What speaks for the claim.
    pub(super) signs: Vec<String>,
    pub(super) limits: Limits,
    /// Ids and names of rules that the units say not to apply.
    pub(super) ignored: BTreeSet<String>,
}

/// Whether the service is reloaded by a handover. A unit file seldom says so: many a daemon has a
/// socket, or answers SIGHUP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    /// At most one sign: what the rules of a rolling reload find is information.
    No,
    /// Two signs: each finding weighs one step less.
    Likely,
    /// Said outright, or all three signs.
    Yes,
}

/// How far a machine may change the unit of the service: what one that hands over needs can break
/// one that does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Nothing says that it is reloaded by handover, but for signs: only what systemd ignores may
    /// be put right.
    Signs,
    /// Somebody assumes it: all but that it speaks sd_notify, without which it would never be
    /// started.
    Assumed,
    /// The unit or the program says so.
    Told,
}

/// What the settings of a unit are compared with. From the command line, else from `[X-Handover]`,
/// else from `Environment=HANDOVER_…`, else the library's defaults.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Given {
    pub(super) target: Option<u32>,
    pub(super) assume: bool,
    pub(super) drain_timeout: Option<Duration>,
    pub(super) warm_up: Option<Duration>,
    pub(super) connections: Option<u64>,
    pub(super) memory: Option<u64>,
    pub(super) tasks: Option<u64>,
    pub(super) stored: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// systemd's version; `None`: any.
    pub(super) target: Option<u32>,
    pub(super) drain_timeout: Duration,
    pub(super) warm_up: Duration,
    /// Of one generation.
    pub(super) connections: Option<u64>,
    pub(super) memory: Option<u64>,
    pub(super) tasks: Option<u64>,
    /// Entries of the fd store, listeners aside.
    pub(super) stored: Option<u64>,
}

impl World {
    /// Of units with different names.
    pub(super) fn new(units: Vec<Unit>) -> Self {
        let by_name = units.iter().enumerate().map(|(at, unit)| (unit.name.clone(), at)).collect();
        let mut world = Self { units, by_name, ..Self::default() };
        let mut asked: HashMap<UnitName, Vec<usize>> = HashMap::new();
        for (at, service) in world.units.iter().enumerate().filter(|(_, u)| u.name.is_service()) {
            for socket in sockets_setting(service).iter().filter_map(|name| reference(name)) {
                asked.entry(socket).or_default().push(at);
            }
        }
        for (at, socket) in world.units.iter().enumerate().filter(|(_, u)| u.name.is_socket()) {
            let mut services: BTreeSet<usize> = asked.get(&socket.name).into_iter().flatten().copied().collect();
            services.extend(world.started_by(socket));
            for service in services {
                world.sockets.entry(service).or_default().push(at);
                world.services.entry(at).or_default().push(service);
            }
        }
        world
    }

    /// Services that a socket starts, by name or as an instance of a template.
    fn started_by(&self, socket: &Unit) -> Vec<usize> {
        let find = |name: &UnitName| self.by_name.get(name).copied().filter(|_| name.is_service());
        let Some(starts) = service_of(socket) else { return Vec::new() };
        let exact = find(&starts);
        // Accept=yes by mistake: systemd looks for a template that nobody wrote.
        let meant = || find(&socket.name.with_type("service")).filter(|_| names_no_service(socket));
        let template = starts.template().as_ref().and_then(find);
        exact.into_iter().chain(template).chain(if exact.is_none() { meant() } else { None }).collect()
    }

    /// Each service with its sockets, then the sockets that are nobody's.
    pub(super) fn pairs<'a>(&'a self, given: &'a Given) -> impl Iterator<Item = Pair<'a>> {
        let units = || self.units.iter().enumerate();
        let services = units().filter(|(_, u)| u.name.is_service()).map(move |(at, service)| {
            let sockets = self.sockets.get(&at).into_iter().flatten().map(|at| &self.units[*at]);
            self.pair(Some(service), sockets.collect(), given)
        });
        let lone = units().filter(|(at, u)| u.name.is_socket() && !self.services.contains_key(at));
        services.chain(lone.map(|(_, socket)| self.pair(None, vec![socket], given)))
    }

    fn pair<'a>(&'a self, service: Option<&'a Unit>, sockets: Vec<&'a Unit>, given: &Given) -> Pair<'a> {
        let units: Vec<_> = service.into_iter().chain(sockets.iter().copied()).collect();
        let ignored = units.iter().flat_map(|u| u.list(OURS, "Ignore")).flat_map(|s| s.words()).collect();
        let (claim, told, signs) = claim(service, &sockets, given, &self.programs);
        let limits = given.limits(&units);
        Pair { service, sockets, world: self, claim, told, signs, limits, ignored }
    }

    /// Services that this socket is passed to.
    pub(super) fn services_of(&self, socket: &Unit) -> Vec<&Unit> {
        let at = self.by_name.get(&socket.name);
        at.and_then(|at| self.services.get(at)).into_iter().flatten().map(|at| &self.units[*at]).collect()
    }

    /// Whether a reload that the one passes on to the other comes back to it.
    pub(super) fn leads_back(&self, from: &UnitName, to: &UnitName) -> bool {
        let at = |name: &UnitName| self.by_name.get(name).copied();
        let circles = self.reloads.get_or_init(|| {
            let mut edges = vec![Vec::new(); self.units.len()];
            for (own, unit) in self.units.iter().enumerate() {
                let named = |key: &str| -> Vec<usize> {
                    let words = unit.list(UNIT, key).iter().flat_map(Setting::words).collect::<Vec<_>>();
                    words.iter().filter_map(|word| at(&UnitName::parse(word)?)).collect()
                };
                edges[own].extend(named("PropagatesReloadTo"));
                named("ReloadPropagatedFrom").into_iter().for_each(|other| edges[other].push(own));
            }
            graph::Circles::of(&edges)
        });
        at(from).zip(at(to)).is_some_and(|(from, to)| circles.share(from, to))
    }
}

impl Pair<'_> {
    pub(super) fn units(&self) -> impl Iterator<Item = &Unit> {
        self.service.into_iter().chain(self.sockets.iter().copied())
    }

    pub(super) fn trust(&self) -> Trust {
        let notifies = self.service.is_some_and(super::rules::notifies);
        match self.claim {
            _ if self.told => Trust::Told,
            // All three signs, and sd_notify is spoken already.
            Claim::Yes if notifies => Trust::Told,
            Claim::Yes => Trust::Assumed,
            Claim::Likely | Claim::No => Trust::Signs,
        }
    }

    /// What `ExecStart=` runs, as it stands there but for its prefixes.
    pub(super) fn program(&self) -> String {
        let line = self.service.and_then(|service| Some(service.list(SERVICE, "ExecStart").first()?.value()));
        let program = line.unwrap_or("PROGRAM").trim_start_matches(['+', '!', '-', '@', ':', '|']);
        short(program, 200)
    }

    /// How it is called: by its service.
    pub(super) fn name(&self) -> String {
        self.units().next().map(|u| u.name.to_string()).unwrap_or_default()
    }

    /// Whether systemd passes listening sockets to the service, and not single connections.
    pub(super) fn has_listeners(&self) -> bool {
        self.sockets.iter().any(|s| passes_listeners(s))
    }

    /// Whether the target is older than that. Unknown: no.
    pub(super) fn target_is_below(&self, version: u32) -> Option<u32> {
        self.limits.target.filter(|target| *target < version)
    }
}

impl Given {
    fn limits(&self, units: &[&Unit]) -> Limits {
        let time = |key: &str, variable: &str| {
            let said = units.iter().find_map(|u| Some(u.time(OURS, key)?.0));
            let read = |value: String| humantime::parse_duration(value.trim()).ok();
            said.or_else(|| units.iter().find_map(|u| read(environment(u, variable)?)))
        };
        let count = |key: &str| units.iter().find_map(|u| Some(u.count(OURS, key)?.0));
        let size = |key: &str| units.iter().find_map(|u| Some(u.read(OURS, key, value::size)?.0));
        Limits {
            target: self.target,
            drain_timeout: self
                .drain_timeout
                .or_else(|| time("DrainTimeout", "HANDOVER_DRAIN_TIMEOUT"))
                .unwrap_or(settings::DRAIN_TIMEOUT),
            warm_up: self
                .warm_up
                .or_else(|| time("WarmUp", "HANDOVER_READY_TIMEOUT"))
                .unwrap_or(settings::READY_TIMEOUT),
            connections: self.connections.or_else(|| count("Connections")),
            memory: self.memory.or_else(|| size("Memory")),
            tasks: self.tasks.or_else(|| count("Tasks")),
            stored: self.stored.or_else(|| count("Stored")),
        }
    }
}

/// What the service's own settings are given by `Environment=`: see `handover::Settings::from_env`.
pub(super) fn environment(unit: &Unit, variable: &str) -> Option<String> {
    let words = unit.list(SERVICE, "Environment").into_iter().flat_map(|s| s.words());
    let mut values =
        words.filter_map(|word| Some(word.split_once('=').filter(|(name, _)| *name == variable)?.1.to_owned()));
    values.next_back()
}

/// Names of sockets that a service asks for.
pub(super) fn sockets_setting(service: &Unit) -> Vec<String> {
    service.list(SERVICE, "Sockets").iter().flat_map(Setting::words).collect()
}

/// The service that a socket starts.
pub(super) fn service_of(socket: &Unit) -> Option<UnitName> {
    match socket.text(SOCKET, "Service") {
        Some(setting) => reference(&setting.expanded()),
        None if socket.on(SOCKET, "Accept").is_some() => UnitName::parse(&format!("{}@.service", socket.name.stem())),
        None => Some(socket.name.with_type("service")),
    }
}

/// The unit that a setting names. A template names units of the same, unknown instance: their
/// templates.
pub(super) fn reference(text: &str) -> Option<UnitName> {
    UnitName::parse(&text.replace("@%i.", "@.").replace("@%I.", "@."))
}

fn names_no_service(socket: &Unit) -> bool {
    socket.text(SOCKET, "Service").is_none()
}

pub(super) fn passes_listeners(socket: &Unit) -> bool {
    socket.on(SOCKET, "Accept").is_none()
}

/// A socket that the service will not start without, wherever its unit is.
pub(super) fn required_socket(service: &Unit) -> Option<String> {
    let lines = ["Requires", "BindsTo"].into_iter().flat_map(|key| service.list(UNIT, key));
    let words = lines.flat_map(|s| s.words()).chain(sockets_setting(service));
    words.filter_map(|word| reference(&word)).find(UnitName::is_socket).map(|name| name.to_string())
}

/// What `ExecStart=` runs of this tool: any program, reloaded by handover.
pub(super) fn runs_by_handover(service: &Unit) -> bool {
    commands(service, "ExecStart")
        .iter()
        .any(|(exec, _)| exec.program() == "handover" && exec.arguments.iter().any(|a| a == "run"))
}

fn claim(
    service: Option<&Unit>,
    sockets: &[&Unit],
    given: &Given,
    programs: &BTreeSet<String>,
) -> (Claim, bool, Vec<String>) {
    let units: Vec<_> = service.into_iter().chain(sockets.iter().copied()).collect();
    // A job that runs and ends is never reloaded, whatever somebody assumes of a whole directory.
    let ends = service.is_some_and(|s| s.text(SERVICE, "Type").is_some_and(|kind| kind.value() == "oneshot"));
    let said = told(service, &units, programs).filter(|_| !ends || units.iter().any(|u| u.has_section(OURS)));
    if given.assume && !ends {
        return (Claim::Yes, said.is_some(), vec!["--assume-handover".to_owned()]);
    }
    if let Some(sign) = said {
        return (Claim::Yes, true, vec![sign]);
    }
    let Some(service) = service else { return (Claim::No, false, Vec::new()) };
    let reloads = commands(service, "ExecReload");
    let mut signs = Vec::new();
    let socket = sockets.iter().find(|s| passes_listeners(s)).map(|s| s.name.to_string());
    signs.extend(socket.or_else(|| required_socket(service)));
    if service.text(SERVICE, "Type").is_some_and(|s| s.value() == "notify-reload") {
        signs.push("Type=notify-reload".to_owned());
    } else if reloads.iter().any(|(exec, _)| exec.kills_with().as_deref() == Some("HUP")) {
        signs.push("ExecReload= sends SIGHUP".to_owned());
    }
    if let Some((entries, _)) = service.count(SERVICE, "FileDescriptorStoreMax").filter(|(n, _)| *n > 0) {
        signs.push(format!("FileDescriptorStoreMax={entries}"));
    }
    // systemd's own daemons have all three, and none hands over to another process.
    let own = commands(service, "ExecStart")
        .iter()
        .any(|(exec, _)| exec.path.starts_with("/lib/systemd/") || exec.path.starts_with("/usr/lib/systemd/"));
    // So does a daemon say that its children are to outlive it: sshd, dockerd, libvirtd.
    let supervises = service.text(SERVICE, "KillMode").is_some_and(|s| s.value() == "process");
    let claim = match signs.len() {
        3.. if !own => Claim::Yes,
        2 if !own && !supervises => Claim::Likely,
        _ => Claim::No,
    };
    (claim, false, signs)
}

/// What says outright that handover reloads the service.
fn told(service: Option<&Unit>, units: &[&Unit], programs: &BTreeSet<String>) -> Option<String> {
    if units.iter().any(|u| u.has_section(OURS)) {
        return Some(format!("[{OURS}]"));
    }
    let service = service?;
    if commands(service, "ExecReload").iter().any(|(exec, _)| exec.is_handover_reload()) {
        return Some("ExecReload=handover reload".to_owned());
    }
    if runs_by_handover(service) {
        return Some("ExecStart=handover run".to_owned());
    }
    let starts = commands(service, "ExecStart");
    let program = starts.iter().find(|(exec, _)| programs.contains(&exec.path));
    program.map(|(exec, _)| format!("{} has handover in it", exec.path))
}

#[cfg(test)]
mod tests {
    use super::super::unit::File;
    use super::*;

    fn world(units: &[(&str, &str)]) -> World {
        let unit = |(name, text): &(&str, &str)| {
            Unit::new(UnitName::parse(name).unwrap(), vec![File::new(*name, text.as_bytes())])
        };
        World::new(units.iter().map(unit).collect())
    }

    fn described(world: &World) -> Vec<String> {
        let given = Given::default();
        let pairs = world.pairs(&given);
        let text = |p: &Pair<'_>| p.units().map(|u| u.name.to_string()).collect::<Vec<_>>().join("+");
        pairs.map(|p| format!("{} {:?}", text(&p), p.claim)).collect()
    }

    #[test]
    fn sockets_find_their_service() {
        let world = world(&[
            ("a.service", "[Service]\nSockets=x.socket\n"),
            ("a.socket", "[Socket]\nListenStream=1\n"),
            ("x.socket", "[Socket]\nListenStream=2\nService=other.service\n"),
            ("t@.service", "[Service]\n"),
            ("t.socket", "[Socket]\nAccept=yes\n"),
            ("v@.service", "[Service]\n"),
            ("u@.socket", "[Socket]\nService=v@%i.service\n"),
            ("lone.socket", "[Socket]\n"),
        ]);
        let expected =
            ["a.service+a.socket+x.socket No", "t@.service+t.socket No", "v@.service+u@.socket No", "lone.socket No"];
        assert_eq!(described(&world), expected);
    }

    #[test]
    fn the_claim_grows_with_the_signs() {
        let socket = ("w.socket", "[Socket]\nListenStream=80\n");
        let with = |service: &str| described(&world(&[("w.service", service), socket])).remove(0);
        assert_eq!(with("[Service]\nType=notify\n"), "w.service+w.socket No");
        assert_eq!(with("[Service]\nExecReload=/bin/kill -HUP $MAINPID\n"), "w.service+w.socket Likely");
        assert_eq!(with("[Service]\nType=notify-reload\nFileDescriptorStoreMax=3\n"), "w.service+w.socket Yes");
        assert_eq!(with("[Service]\nExecReload=/usr/bin/handover reload\n"), "w.service+w.socket Yes");
        assert_eq!(with("[X-Handover]\n"), "w.service+w.socket Yes");
        assert_eq!(with("[Service]\nExecReload=/bin/kill -HUP $MAINPID\nKillMode=process\n"), "w.service+w.socket No");
        let own = "[Service]\nExecStart=/lib/systemd/systemd-x\nType=notify-reload\nFileDescriptorStoreMax=3\n";
        assert_eq!(with(own), "w.service+w.socket No");
    }

    #[test]
    fn limits_come_from_the_command_line_then_the_unit_then_the_library() {
        let world = world(&[("w.service", "[X-Handover]\nDrainTimeout=5min\nMemory=1G\nWarmUp=2s\n")]);
        let given = Given { warm_up: Some(Duration::from_secs(9)), ..Given::default() };
        let limits = world.pairs(&given).next().unwrap().limits;
        assert_eq!((limits.drain_timeout, limits.warm_up), (Duration::from_secs(300), Duration::from_secs(9)));
        assert_eq!((limits.memory, limits.tasks), (Some(1 << 30), None));
    }
}
