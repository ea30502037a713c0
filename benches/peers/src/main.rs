//! All servers beside each other, in one run and in random order. See ../README.md.

mod cgroup;
mod config;
mod connections;
mod measure;
mod peer;
mod report;

use measure::{Floor, PASSES, Point, Sample, measure, median};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use peer::Peer;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use report::{Results, add};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().skip(1).map(|arg| arg.to_lowercase()).collect();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.max(65_536); // two processes' 10,000 connections, and HAProxy wants two descriptors for each
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        println!("no more than {hard} file descriptors: more need CAP_SYS_RESOURCE");
    }
    let seed = env::var("HANDOVER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand_seed);
    println!("HANDOVER_SEED={seed}");
    let passes = env::var("PEERS_PASSES").ok().and_then(|passes| passes.parse().ok()).unwrap_or(PASSES);
    let machine = format!("{}, HANDOVER_SEED={seed}", machine());
    match words.split_first() {
        Some((word, words)) if word == "connections" => connections::run(words, passes, seed, &machine),
        _ => reloads(&words, passes, seed, &machine),
    }
}

/// How quick a reload is, and what it loses.
fn reloads(only: &[String], passes: usize, seed: u64, machine: &str) -> io::Result<()> {
    let tool = PathBuf::from(env::var("PEERS_TOOL").unwrap_or_else(|_| "../../target/release/handover".into()));
    if !tool.exists() {
        return Err(io::Error::other(format!("{} is not there: run benches/peers/run", tool.display())));
    }
    let mut random = SmallRng::seed_from_u64(seed);

    let mut peers = Peer::ALL.to_vec();
    peers.retain(|peer| {
        let named = Peer::ALL.iter().any(|peer| only.contains(&peer.name().to_lowercase()));
        let wanted = !named || only.contains(&peer.name().to_lowercase());
        if wanted && peer.version().is_none() {
            println!("{}: not installed, left out", peer.name());
        }
        wanted && peer.version().is_some()
    });
    let mut all: Vec<(Peer, Point)> = peers.iter().flat_map(|peer| Point::ALL.map(|point| (*peer, point))).collect();
    all.retain(|(peer, point)| !point.takes_ballast() || peer.takes_ballast());
    let points: Vec<Point> =
        Point::ALL.into_iter().filter(|point| only.contains(&point.word().to_lowercase())).collect();
    all.retain(|(_, point)| points.is_empty() || points.contains(point));
    let visits = |pass| -> Vec<(Peer, Point)> {
        all.iter().flat_map(|visit| std::iter::repeat_n(*visit, visit.1.times(pass))).collect()
    };
    let total: usize = (0..passes).map(|pass| visits(pass).len()).sum();
    let (mut results, mut floor, mut done) = (Results::new(), Floor::default(), 0);
    for pass in 0..passes {
        let mut visits = visits(pass);
        visits.shuffle(&mut random);
        floor.measure()?;
        if all.iter().any(|(_, point)| *point == Point::Beside(8_192)) {
            floor.measure_beside(8_192)?;
        }
        for (peer, point) in visits {
            done += 1;
            println!("{done}/{total}: {}, {} (load {})", peer.name(), point.title(), load());
            // one that fails is told, and not in the table; the others are
            match measure(&tool, peer, point, random.random_range(1..1_000_000)) {
                Ok(sample) => {
                    let (first, Sample { lost, sent, reloads, failed, .. }) = (median(&sample.first_new_ms), &sample);
                    println!(
                        "    first answer {first:?} ms, lost {lost} of {sent}, reloads {reloads} ({failed} failed)"
                    );
                    add(&mut results, peer, point, sample);
                }
                Err(error) => println!("    not measured: {error}"),
            }
        }
    }
    floor.measure()?;
    fs::create_dir_all("target")?;
    let (markdown, svg) = (Path::new("target/results.md"), Path::new("target/results.svg"));
    fs::write(markdown, report::markdown(&peers, &results, &floor, passes, machine))?;
    fs::write(svg, report::svg(&peers, &results, median(&floor.paced).unwrap_or(1.0)))?;
    println!("\n{}\n{} and {}", fs::read_to_string(markdown)?, markdown.display(), svg.display());
    Ok(())
}

fn rand_seed() -> u64 {
    rand::rngs::SmallRng::from_os_rng().random_range(1..1_000_000_000)
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, name)| name);
    let memory =
        read("/proc/meminfo").split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 20;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cpus} × {model}, {memory} GiB, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}
