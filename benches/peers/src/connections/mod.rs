//! What becomes of open connections at a reload: closed or not, what is lost, and what it costs.

mod clients;
mod table;
mod trial;

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::cgroup::Cgroup;
use crate::peer::Peer;
use trial::{Trial, measure};

/// How many connections, if nothing is said.
const CONNECTIONS: [usize; 3] = [100, 1_000, 10_000];
/// Of each pass.
const RELOADS: usize = 10;
/// Where a control group is made if nothing is said.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

pub(crate) type Results = Vec<(Peer, usize, Trial)>;

/// What a run is asked for.
pub(crate) struct Plan {
    pub(crate) peers: Vec<Peer>,
    /// Without anybody connected, too: what a reload costs by itself.
    pub(crate) connections: Vec<usize>,
    pub(crate) reloads: usize,
    pub(crate) passes: usize,
    pub(crate) seed: u64,
    /// What is not measured, and why.
    pub(crate) missing: Vec<String>,
}

impl Plan {
    fn new(words: &[String], passes: usize, seed: u64) -> io::Result<Self> {
        let (mut peers, mut connections) = (Vec::new(), vec![0]);
        for word in words {
            match (word.parse::<usize>(), Peer::CONNECTIONS.iter().find(|peer| peer.word() == word)) {
                (Ok(count), _) => connections.push(count),
                (_, Some(peer)) => peers.push(*peer),
                _ => {
                    let known = Peer::CONNECTIONS.map(Peer::word).join(", ");
                    return Err(io::Error::other(format!("{word} is no number of connections, and none of {known}")));
                }
            }
        }
        if connections.len() == 1 {
            connections.extend(CONNECTIONS);
        }
        connections.sort_unstable();
        connections.dedup();
        if peers.is_empty() {
            peers = Peer::CONNECTIONS.into();
        }
        let reloads = env::var("PEERS_RELOADS").ok().and_then(|reloads| reloads.parse().ok()).unwrap_or(RELOADS);
        let mut plan = Self { peers, connections, reloads, passes, seed, missing: Vec::new() };
        plan.leave_out();
        Ok(plan)
    }

    /// What this machine, or this version of handover, does not have.
    fn leave_out(&mut self) {
        let (there, not): (Vec<_>, Vec<_>) = self.peers.iter().copied().partition(|peer| peer.version().is_some());
        self.peers = there;
        self.missing.extend(not.iter().map(|peer| {
            format!("{} is not measured: this machine has no root image `tests/lab/rootfs peers`.", peer.name())
        }));
        let setting = serde_json::from_str::<handover::Settings>(r#"{"migrate": "never"}"#);
        if self.peers.contains(&Peer::HandoverDrain) && setting.is_err() {
            self.missing.push(
                "This version of handover has no setting `migrate`: both of its rows show the same, a drain.".into(),
            );
        }
    }
}

/// Measures all of the plan, in random order, and prints and writes the results.
pub(crate) fn run(words: &[String], passes: usize, seed: u64, machine: &str) -> io::Result<()> {
    let plan = Plan::new(words, passes, seed)?;
    plan.missing.iter().for_each(|line| println!("{line}"));
    let parent = cgroup()?;
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut results, mut failed, mut done) = (Results::new(), Vec::new(), 0);
    for _ in 0..passes {
        let mut visits: Vec<(Peer, usize)> =
            plan.peers.iter().flat_map(|peer| plan.connections.iter().map(move |count| (*peer, *count))).collect();
        visits.shuffle(&mut random);
        for (peer, count) in &visits {
            done += 1;
            println!("{done}/{}: {}, {count} connections", visits.len() * passes, peer.name());
            let group = Cgroup::below(&parent, &format!("{}-{done}", peer.word()))?;
            // one that fails is told; the others are measured
            match measure(*peer, *count, plan.reloads, random.random_range(1..1_000_000), &group) {
                Ok(trial) => {
                    println!("    {}", table::line(&trial));
                    add(&mut results, *peer, *count, trial);
                }
                Err(error) => {
                    println!("    not measured: {error}");
                    failed.push(format!("{} with {count} connections failed in one pass: {error}", peer.name()));
                }
            }
        }
    }
    let plan = Plan { missing: [plan.missing, failed].concat(), ..plan };
    fs::create_dir_all("target")?;
    let (markdown, json) = (Path::new("target/connections.md"), Path::new("target/connections.json"));
    fs::write(markdown, table::markdown(&plan, &results, machine))?;
    fs::write(json, table::json(&plan, &results, machine).to_string())?;
    println!("\n{}\n{} and {}", fs::read_to_string(markdown)?, markdown.display(), json.display());
    Ok(())
}

/// To what the passes before have measured of it.
fn add(results: &mut Results, peer: Peer, count: usize, trial: Trial) {
    match results.iter_mut().find(|(a, b, _)| (*a, *b) == (peer, count)) {
        Some((_, _, known)) => known.join(trial),
        None => results.push((peer, count, trial)),
    }
}

/// Below which each server has a control group of its own.
fn cgroup() -> io::Result<PathBuf> {
    let given = env::var_os("PEERS_CGROUP").map(PathBuf::from);
    let known = || CGROUPS.map(PathBuf::from).into_iter().find(|path| path.join("cgroup.subtree_control").exists());
    given.or_else(known).ok_or_else(|| io::Error::other("no cgroup2 is mounted here: nothing tells the processor time"))
}
