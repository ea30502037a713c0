//! What counting and draining cost: `serve_hyper` beside bare hyper, with one service and equal settings.
//!
//! ```sh
//! cargo bench --bench overhead --features http        # about a minute; HANDOVER_SEED repeats an order
//! ```
//!
//! Every server is a process of its own with one thread, and so is the client. Slices of load go round the servers in random
//! order, so that whatever else the machine does hits all alike; what counts is the ratio within a round. The processor time
//! that the server took per request is given too: it does not depend on who else is running.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and fails by panicking")]

mod load;
mod server;

use load::Load;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use server::{Child, Kind};
use std::time::Duration;

/// One slice of load on one server.
const SLICE: Duration = Duration::from_millis(150);
const ROUNDS: usize = 100;
/// Idle connections whose memory is measured.
const IDLE: usize = 2000;

fn main() {
    if let Ok(kind) = std::env::var(server::KIND) {
        return server::main(&kind);
    }
    // `cargo test --benches` only wants to see it run
    let measured = std::env::args().any(|arg| arg == "--bench");
    let (rounds, slice, idle) = if measured { (ROUNDS, SLICE, IDLE) } else { (1, SLICE / 10, 50) };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(soft.max(65_536)), hard).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        speed(rounds, slice).await;
        memory(idle).await;
    });
}

/// What one server did in one slice.
#[derive(Clone, Copy)]
struct Sample {
    per_second: f64,
    /// Processor time of the server per request, in µs.
    micros: f64,
}

async fn speed(rounds: usize, slice: Duration) {
    let seed = std::env::var("HANDOVER_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand_seed);
    println!("{rounds} rounds of {} slices of {slice:?}, HANDOVER_SEED={seed}", Kind::ALL.len());
    let mut random = seed | 1;
    let mut servers = Vec::new();
    for kind in Kind::ALL {
        let child = Child::start(kind);
        let load = Load::open(child.address, kind.is_http2()).await;
        load.run(slice).await; // warm
        servers.push((child, load, Vec::new()));
    }
    for _ in 0..rounds {
        let mut order: Vec<usize> = (0..servers.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, usize::try_from(next(&mut random) % (at as u64 + 1)).unwrap());
        }
        for at in order {
            let (child, load, samples) = &mut servers[at];
            let before = child.processor_time();
            let (requests, took) = load.run(slice).await;
            let spent = child.processor_time() - before;
            let per_second = requests as f64 / took.as_secs_f64();
            samples.push(Sample { per_second, micros: spent.as_secs_f64() * 1e6 / requests as f64 });
        }
    }
    println!("\n{:34} {:>12} {:>12}", "server (medians)", "requests/s", "µs/request");
    let samples: Vec<Vec<Sample>> = servers.into_iter().map(|(_, _, samples)| samples).collect();
    for (kind, samples) in Kind::ALL.iter().zip(&samples) {
        let (speed, cost) = (median(samples, |s| s.per_second), median(samples, |s| s.micros));
        println!("{:34} {speed:>12.0} {cost:>12.2}", kind.title());
    }
    println!("\n{:34} {:>12} {:>18} {:>12}", "handover / hyper (per round)", "requests/s", "(quartiles)", "µs/request");
    for (at, kind) in Kind::ALL.iter().enumerate() {
        let Some(ours) = kind.compared_with() else { continue };
        let ours = &samples[Kind::ALL.iter().position(|k| *k == ours).unwrap()];
        let pairs: Vec<(Sample, Sample)> = ours.iter().copied().zip(samples[at].iter().copied()).collect();
        let mut ratios: Vec<f64> = pairs.iter().map(|(a, b)| a.per_second / b.per_second).collect();
        let cost = median(&pairs, |(a, b)| a.micros / b.micros);
        ratios.sort_by(f64::total_cmp);
        let quarter = |q: usize| ratios[(ratios.len() - 1) * q / 4];
        let quartiles = format!("({:.3}–{:.3})", quarter(1), quarter(3));
        println!("{:34} {:>12.3} {quartiles:>18} {cost:>12.3}", kind.title(), quarter(2));
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
