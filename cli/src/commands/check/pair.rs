//! Which sockets belong to which service, and whether the two claim to be reloaded by a handover.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::DiGraph;
use serde::Serialize;

use super::command::PREFIXES;
use super::directives::{OURS, SERVICE, SOCKET, UNIT};
use super::limits::Limits;
use super::name::UnitName;
use super::unit::Unit;
use crate::safe::short;

/// Units that can belong to each other: of one directory, of one text, of one manager.
#[derive(Debug, Default)]
pub(super) struct World {
    units: Vec<Unit>,
    /// Programs whose files have the library in them.
    programs: BTreeSet<String>,
    /// Of services that run with handover: which signals they reload on, by their own word.
    reload_signals: BTreeMap<UnitName, BTreeSet<String>>,
    by_name: HashMap<UnitName, usize>,
    /// Numbers of sockets for that of a service, and the other way round.
    sockets: HashMap<usize, Vec<usize>>,
    services: HashMap<usize, Vec<usize>>,
    /// By the number of a unit which circle it is in, if reloads are passed on in circles.
    circles: OnceCell<Vec<usize>>,
}

/// A service and the sockets that systemd passes to it; or a socket without its service.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    pub(super) service: Option<&'a Unit>,
    pub(super) sockets: Vec<&'a Unit>,
    pub(super) world: &'a World,
    pub(super) claim: Claim,
    /// What says outright that handover reloads the service: so it speaks sd_notify.
    told: Option<String>,
    /// What speaks for the claim.
    pub(super) signs: Vec<String>,
    pub(super) limits: Limits,
    /// Whether there is a rule of that id or name.
    pub(super) is_rule: IsRule,
}

pub(super) type IsRule = fn(&str) -> bool;

/// Whether the service is reloaded by a handover, of which a unit file seldom speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Claim {
    /// At most one sign: what the rules of a rolling reload find is information.
    No,
    /// Two signs: each finding weighs one step less.
    Likely,
    /// Said outright, or all three signs.
    Yes,
}

/// How far a machine may change the unit: what a handover needs can break another service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Nothing but signs: only what systemd ignores may be put right.
    Signs,
    /// Somebody assumes a handover: all but that it speaks sd_notify, which a start waits for.
    Assumed,
    /// The unit or the program says so.
    Told,
}

impl World {
    /// Of units with different names.
    pub(super) fn new(programs: BTreeSet<String>, units: Vec<Unit>) -> Self {
        let by_name = units.iter().enumerate().map(|(at, unit)| (unit.name.clone(), at)).collect();
        let mut world = Self { units, programs, by_name, ..Self::default() };
        let mut asked: HashMap<UnitName, Vec<usize>> = HashMap::new();
        for (at, service) in world.units.iter().enumerate().filter(|(_, u)| u.name.is_service()) {
            service.sockets().for_each(|socket| asked.entry(socket).or_default().push(at));
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

    /// Takes what services that run have told.
    pub(super) fn running(&mut self, reload_signals: BTreeMap<UnitName, BTreeSet<String>>) {
        self.reload_signals = reload_signals;
    }

    /// The signals that the service reloads on. `None`: it does not run, or has not told.
    pub(super) fn reload_signals(&self, service: &Unit) -> Option<&BTreeSet<String>> {
        self.reload_signals.get(&service.name)
    }

    /// Services that a socket starts, by name or as an instance of a template.
    fn started_by(&self, socket: &Unit) -> Vec<usize> {
        let find = |name: &UnitName| self.at(name).filter(|_| name.is_service());
        let Some(starts) = socket.starts() else { return Vec::new() };
        let exact = find(&starts).or_else(|| {
            // Accept=yes by mistake: systemd looks for a template that nobody wrote.
            find(&socket.name.with_type("service")).filter(|_| socket.text(SOCKET, "Service").is_none())
        });
        exact.into_iter().chain(starts.template().as_ref().and_then(find)).collect()
    }

    fn at(&self, name: &UnitName) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Each service with its sockets, then the sockets that are nobody's.
    pub(super) fn pairs<'a>(&'a self, given: &'a Limits, is_rule: IsRule) -> impl Iterator<Item = Pair<'a>> {
        let pair = move |service: Option<&'a Unit>, sockets: Vec<&'a Unit>| {
            let limits = given.of(&service.into_iter().chain(sockets.iter().copied()).collect::<Vec<_>>());
            let (claim, told, signs) = (Claim::No, None, Vec::new());
            let mut pair = Pair { service, sockets, world: self, claim, told, signs, limits, is_rule };
            pair.judge();
            pair
        };
        let units = || self.units.iter().enumerate();
        let services = units().filter(|(_, u)| u.name.is_service()).map(move |(at, service)| {
            let sockets = self.sockets.get(&at).into_iter().flatten().map(|at| &self.units[*at]);
            pair(Some(service), sockets.collect())
        });
        let lone = units().filter(|(at, u)| u.name.is_socket() && !self.services.contains_key(at));
        services.chain(lone.map(move |(_, socket)| pair(None, vec![socket])))
    }

    /// Services that this socket is passed to.
    pub(super) fn services_of(&self, socket: &Unit) -> Vec<&Unit> {
        let services = self.at(&socket.name).and_then(|at| self.services.get(&at));
        services.into_iter().flatten().map(|at| &self.units[*at]).collect()
    }

    /// Whether a reload that the one passes on to the other comes back to it.
    pub(super) fn leads_back(&self, from: &UnitName, to: &UnitName) -> bool {
        let circles = self.circles.get_or_init(|| {
            let edges = self.units.iter().enumerate().flat_map(|(own, unit)| {
                let named =
                    |key: &str| unit.words(UNIT, key).into_iter().filter_map(|name| self.at(&UnitName::parse(&name)?));
                let to = named("PropagatesReloadTo").map(|other| (own, other));
                to.chain(named("ReloadPropagatedFrom").map(|other| (other, own))).collect::<Vec<_>>()
            });
            circles(self.units.len(), edges)
        });
        self.at(from).zip(self.at(to)).is_some_and(|(from, to)| circles[from] == circles[to])
    }
}

impl<'a> Pair<'a> {
    pub(super) fn units(&self) -> impl Iterator<Item = &'a Unit> {
        self.service.into_iter().chain(self.sockets.iter().copied())
    }

    /// How it is called: by its service.
    pub(super) fn name(&self) -> String {
        self.units().next().map(|unit| unit.name.to_string()).unwrap_or_default()
    }

    /// Ids and names of rules that the units say not to apply.
    pub(super) fn ignored(&self) -> BTreeSet<String> {
        self.units().flat_map(|unit| unit.words(OURS, "Ignore")).collect()
    }

    pub(super) fn trust(&self) -> Trust {
        match self.claim {
            _ if self.told.is_some() => Trust::Told,
            // All three signs, and sd_notify is spoken already.
            Claim::Yes if self.service.is_some_and(Unit::notifies) => Trust::Told,
            Claim::Yes => Trust::Assumed,
            Claim::Likely | Claim::No => Trust::Signs,
        }
    }

    /// What `ExecStart=` runs, as it stands there but for its prefixes.
    pub(super) fn program(&self) -> String {
        let line = self.service.and_then(|service| Some(service.list(SERVICE, "ExecStart").first()?.value()));
        short(line.unwrap_or("PROGRAM").trim_start_matches(PREFIXES), 200)
    }

    /// Sockets of which systemd passes the listener to the service, and not single connections.
    pub(super) fn listeners(&self) -> impl Iterator<Item = &'a Unit> {
        self.sockets.iter().copied().filter(|socket| socket.passes_listeners())
    }

    fn judge(&mut self) {
        // A job that runs and ends is never reloaded, whatever is assumed of a whole directory.
        let ends = self.service.is_some_and(|service| service.is(SERVICE, "Type", "oneshot"));
        self.told = self.what_tells().filter(|_| !ends || self.units().any(|unit| unit.has_section(OURS)));
        if self.limits.assume && !ends {
            (self.claim, self.signs) = (Claim::Yes, vec!["--assume-handover".to_owned()]);
        } else if let Some(sign) = self.told.clone() {
            (self.claim, self.signs) = (Claim::Yes, vec![sign]);
        } else if let Some(service) = self.service {
            (self.claim, self.signs) = self.guess(service);
        }
    }

    /// What says outright that handover reloads the service.
    fn what_tells(&self) -> Option<String> {
        if self.units().any(|unit| unit.has_section(OURS)) {
            return Some(format!("[{OURS}]"));
        }
        let service = self.service?;
        if service.commands("ExecReload").iter().any(|(exec, _)| exec.is_handover_reload()) {
            return Some("ExecReload=handover reload".to_owned());
        }
        if service.runs_by_handover() {
            return Some("ExecStart=handover run".to_owned());
        }
        if self.world.reload_signals(service).is_some() {
            return Some("the service that runs".to_owned());
        }
        let mut starts = service.commands("ExecStart").into_iter();
        let (exec, _) = starts.find(|(exec, _)| self.world.programs.contains(&exec.path))?;
        Some(format!("{} has handover in it", exec.path))
    }

    /// By the three signs of it.
    fn guess(&self, service: &Unit) -> (Claim, Vec<String>) {
        let socket = self.listeners().next().map(|socket| socket.name.clone()).or_else(|| service.required_socket());
        let mut signs: Vec<_> = socket.into_iter().map(|name| name.to_string()).collect();
        if service.is(SERVICE, "Type", "notify-reload") {
            signs.push("Type=notify-reload".to_owned());
        } else if service.commands("ExecReload").iter().any(|(exec, _)| exec.kills_with().as_deref() == Some("HUP")) {
            signs.push("ExecReload= sends SIGHUP".to_owned());
        }
        signs.extend(service.stores().map(|(entries, _)| format!("FileDescriptorStoreMax={entries}")));
        // systemd's own daemons have all three, and none hands over to another process.
        let own = ["/lib/systemd/", "/usr/lib/systemd/"];
        let own = service.commands("ExecStart").iter().any(|(exec, _)| own.iter().any(|d| exec.path.starts_with(d)));
        // So does a daemon say that its children are to outlive it: sshd, dockerd, libvirtd.
        let supervises = service.is(SERVICE, "KillMode", "process");
        let claim = match signs.len() {
            3.. if !own => Claim::Yes,
            2 if !own && !supervises => Claim::Likely,
            _ => Claim::No,
        };
        (claim, signs)
    }
}

/// Numbers the nodes of a graph: two have the same one if there is a way from each to the other.
fn circles(nodes: usize, edges: impl IntoIterator<Item = (usize, usize)>) -> Vec<usize> {
    let mut graph = DiGraph::<(), (), usize>::default();
    (0..nodes).for_each(|_| _ = graph.add_node(()));
    graph.extend_with_edges(edges);
    let mut circles = vec![0; nodes];
    for (number, circle) in kosaraju_scc(&graph).into_iter().enumerate() {
        circle.into_iter().for_each(|node| circles[node.index()] = number);
    }
    circles
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::unit::File;
    use super::*;

    fn world(units: &[(&str, &str)]) -> World {
        let unit = |(name, text): &(&str, &str)| Unit {
            name: UnitName::parse(name).unwrap(),
            files: vec![File::new(*name, text.as_bytes())],
        };
        World::new(BTreeSet::new(), units.iter().map(unit).collect())
    }

    fn described(world: &World) -> Vec<String> {
        let given = Limits::default();
        let pairs = world.pairs(&given, |_| true);
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
        for (service, claim) in [
            ("[Service]\nType=notify\n", "No"),
            ("[Service]\nExecReload=/bin/kill -HUP $MAINPID\n", "Likely"),
            ("[Service]\nType=notify-reload\nFileDescriptorStoreMax=3\n", "Yes"),
            ("[Service]\nExecReload=/usr/bin/handover reload\n", "Yes"),
            ("[X-Handover]\n", "Yes"),
            ("[Service]\nExecReload=/bin/kill -HUP $MAINPID\nKillMode=process\n", "No"),
            ("[Service]\nExecStart=/lib/systemd/systemd-x\nType=notify-reload\nFileDescriptorStoreMax=3\n", "No"),
        ] {
            assert_eq!(described(&world(&[("w.service", service), socket])), [format!("w.service+w.socket {claim}")]);
        }
    }

    #[test]
    fn limits_come_from_the_command_line_then_the_unit_then_the_library() {
        let world = world(&[("w.service", "[X-Handover]\nDrainTimeout=5min\nMemory=1G\nWarmUp=2s\n")]);
        let given = Limits { warm_up: Some(Duration::from_secs(9)), ..Limits::default() };
        let limits = world.pairs(&given, |_| true).next().unwrap().limits;
        assert_eq!((limits.drain_timeout(), limits.warm_up()), (Duration::from_secs(300), Duration::from_secs(9)));
        assert_eq!((limits.memory, limits.tasks), (Some(1 << 30), None));
    }

    #[test]
    fn circles_are_found() {
        let found = circles(6, [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 4), (5, 0)]);
        let with_0: Vec<_> = (0..6).filter(|n| found[*n] == found[0]).collect();
        assert_eq!(with_0, [0, 1, 2]);
        assert!(found[3] != found[4] && found[5] != found[0]);
        let long = circles(100_000, (0..100_000).map(|n| (n, (n + 1) % 100_000)));
        assert_eq!(long[0], long[50_000]);
    }
}
