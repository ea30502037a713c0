//! What counting and draining cost: `http::serve` beside bare hyper, with one service and equal
//! settings.
//!
//! ```sh
//! cargo bench --bench overhead --features http        # about two minutes; HANDOVER_SEED repeats an order
//! ```
//!
//! Every server is a process of its own with one thread on the last processor, the client has the
//! first. Slices of load go round the servers in random order, so that whatever else the machine
//! does hits all alike; what counts is the ratio within a round. The servers are started anew now
//! and then: where a process happens to lie in memory is worth a few percent. The processor time
//! that the server took per request is given too: it does not depend on who else is running.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and fails by panicking")]

mod load;
mod server;

use load::Load;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use server::{Child, Kind};
use std::time::Duration;

/// One slice of load on one server.
const SLICE: Duration = Duration::from_millis(40);
const ROUNDS: usize = 50;
/// How often the servers are started anew; each time for so many rounds.
const STARTS: usize = 10;
/// Idle connections whose memory is measured.
const IDLE: usize = 2000;
const SLICES: usize = 15;
/// Connections with one request each, in each of the slices whose median counts.
const CONNECTIONS: usize = 1000;

fn main() {
    if let Ok(kind) = std::env::var(server::KIND) {
        return server::main(&kind);
    }
    // `cargo test --benches` only wants to see it run
    let measured = std::env::args().any(|arg| arg == "--bench");
    let (starts, rounds, slice, idle) = if measured { (STARTS, ROUNDS, SLICE, IDLE) } else { (1, 1, SLICE / 10, 50) };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(soft.max(65_536)), hard).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let servers_on = pin_to_first();
        speed(starts, rounds, slice, servers_on).await;
        connections(if measured { CONNECTIONS } else { 10 }, servers_on);
        memory(idle).await;
    });
}

/// The client stays on one processor; returns the one for the servers, if there is another.
fn pin_to_first() -> Option<usize> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut all = (0..CpuSet::count()).filter(|at| allowed.is_set(*at).unwrap_or(false));
    let (first, last) = (all.next()?, all.next_back()?);
    pin(Pid::from_raw(0), first);
    Some(last)
}

fn pin(process: Pid, processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor).unwrap();
    sched_setaffinity(process, &set).unwrap();
}

/// What one server did in one slice.
#[derive(Clone, Copy)]
struct Sample {
    per_second: f64,
    /// Processor time of the server per request, in µs.
    micros: f64,
}

async fn speed(starts: usize, rounds: usize, slice: Duration, servers_on: Option<usize>) {
    let seed = std::env::var("HANDOVER_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand_seed);
    let (servers, threads) = (Kind::ALL.len(), server::threads());
    println!(
        "{starts} starts, {rounds} rounds of {servers} slices of {slice:?}, {threads} threads, HANDOVER_SEED={seed}"
    );
    let mut random = seed | 1;
    let mut samples = vec![Vec::new(); Kind::ALL.len()];
    for _ in 0..starts {
        let mut servers = Vec::new();
        for kind in Kind::ALL {
            let child = Child::start(kind);
            if let Some(processor) = servers_on {
                pin(child.pid(), processor);
            }
            let load = Load::open(child.address, kind.is_http2()).await;
            load.run(slice).await; // warm
            servers.push((child, load));
        }
        for _ in 0..rounds {
            let mut order: Vec<usize> = (0..servers.len()).collect();
            for at in (1..order.len()).rev() {
                order.swap(at, usize::try_from(next(&mut random) % (at as u64 + 1)).unwrap());
            }
            for at in order {
                let (child, load) = &servers[at];
                let before = child.processor_time();
                let (requests, took) = load.run(slice).await;
                let spent = child.processor_time() - before;
                let per_second = requests as f64 / took.as_secs_f64();
                samples[at].push(Sample { per_second, micros: spent.as_secs_f64() * 1e6 / requests as f64 });
            }
        }
    }
    println!("\n{:34} {:>12} {:>12}", "server (medians)", "requests/s", "µs/request");
    for (kind, samples) in Kind::ALL.iter().zip(&samples) {
        let (speed, cost) = (median(samples, |s| s.per_second), median(samples, |s| s.micros));
        println!("{:34} {speed:>12.0} {cost:>12.2}", kind.title());
    }
    println!("\n{:66} {:>12} {:>18} {:>12}", "ratio (per round)", "requests/s", "(by start)", "µs/request");
    let of = |kind: Kind| &samples[Kind::ALL.iter().position(|k| *k == kind).unwrap()];
    for (ours, theirs) in Kind::RATIOS {
        let pairs: Vec<(Sample, Sample)> = of(ours).iter().copied().zip(of(theirs).iter().copied()).collect();
        let speed = |pairs: &[(Sample, Sample)]| median(pairs, |(a, b)| a.per_second / b.per_second);
        let by_start: Vec<f64> = pairs.chunks(rounds).map(speed).collect();
        let (low, high) = by_start.iter().fold((f64::MAX, 0_f64), |(low, high), one| (low.min(*one), high.max(*one)));
        let cost = median(&pairs, |(a, b)| a.micros / b.micros);
        let range = format!("({low:.3}–{high:.3})");
        let title = format!("{} / {}", ours.title(), theirs.title());
        println!("{title:66} {:>12.3} {range:>18} {cost:>12.3}", speed(&pairs));
    }
}

/// What a connection costs that has one request.
fn connections(count: usize, servers_on: Option<usize>) {
    println!("\n{:34} {:>12}", format!("{SLICES} times {count} connections"), "µs each");
    for kind in [Kind::ServiceHttp1, Kind::InsuredHttp1] {
        let child = Child::start(kind);
        if let Some(processor) = servers_on {
            pin(child.pid(), processor);
        }
        load::connections(child.address, count);
        let slice = |_| {
            let before = child.processor_time();
            load::connections(child.address, count);
            (child.processor_time() - before).as_secs_f64() * 1e6 / count as f64
        };
        let each: Vec<f64> = (0..SLICES).map(slice).collect();
        println!("{:34} {:>12.1}", kind.title(), median(&each, |each| *each));
    }
}

async fn memory(idle: usize) {
    println!("\n{:34} {:>12}", format!("memory, {idle} idle connections"), "bytes each");
    for kind in Kind::ALL {
        let child = Child::start(kind);
        let warm = load::idle(child.address, kind.is_http2(), 16).await;
        let before = child.resident();
        let open = load::idle(child.address, kind.is_http2(), idle).await;
        let each = (child.resident().saturating_sub(before)) / idle as u64;
        println!("{:34} {each:>12}", kind.title());
        drop((warm, open));
    }
}

fn median<T>(samples: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

fn rand_seed() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos().into()
}

/// xorshift64
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
