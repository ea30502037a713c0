//! The points that are measured, each by `handover prove`.

use crate::peer::{Peer, Server};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Every point is visited so often, at times apart, as a machine is busier at one time than at
/// another.
pub(crate) const PASSES: usize = 2;
/// Reloads of each pass: the machine's own noise is as large as what is measured.
const RELOADS: usize = 7;
/// Where all of 8 GiB are touched before each.
const FEW: usize = 4;
/// Under load, where a loss counts and not a time.
const LOADED: &str = "20";
/// By one client each time.
const ONE_RELOAD: [&str; 6] = ["--idle", "0", "--reloads", "1", "--every", "1s"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// So many idle connections.
    Idle(u32),
    /// So many MiB of touched heap in who is reloaded, by one client each time: to be compared with
    /// 0 of them.
    Heap(u32),
    /// The control: so many MiB of touched heap in a process that nobody reloads.
    Beside(u32),
    /// Requests lost by all kinds of clients.
    Mixed,
    /// Requests lost by keep-alive clients whose next request crosses the close.
    Race,
}

impl Point {
    pub(crate) const ALL: [Self; 9] = [
        Self::Idle(0),
        Self::Idle(1_000),
        Self::Idle(10_000),
        Self::Heap(0),
        Self::Heap(2_048),
        Self::Heap(8_192),
        Self::Beside(8_192),
        Self::Mixed,
        Self::Race,
    ];

    pub(crate) fn title(self) -> String {
        match self {
            Self::Idle(0) => "nothing open".into(),
            Self::Idle(connections) => format!("{connections} idle"),
            Self::Heap(0) => "first reload".into(),
            Self::Heap(mib) => format!("{} GiB heap", mib / 1024),
            Self::Beside(mib) => format!("{} GiB beside", mib / 1024),
            Self::Mixed => "mixed".into(),
            Self::Race => "race".into(),
        }
    }

    /// By which it is asked for on the command line.
    pub(crate) fn word(self) -> String {
        match self {
            Self::Idle(connections) => format!("idle{connections}"),
            Self::Heap(mib) => format!("heap{}", mib / 1024),
            Self::Beside(mib) => format!("beside{}", mib / 1024),
            Self::Mixed | Self::Race => self.title(),
        }
    }

    /// How often in that pass.
    pub(crate) fn times(self, pass: usize) -> usize {
        match self {
            Self::Race => usize::from(pass == 0),
            Self::Mixed => 1 + usize::from(pass == 0),
            _ => 1,
        }
    }

    pub(crate) fn is_time(self) -> bool {
        !matches!(self, Self::Mixed | Self::Race)
    }

    pub(crate) fn takes_ballast(self) -> bool {
        matches!(self, Self::Heap(_) | Self::Beside(_))
    }
}

/// What one peer did at one point.
#[derive(Debug, Default, Clone)]
pub(crate) struct Sample {
    pub(crate) first_new_ms: Vec<f64>,
    pub(crate) longest_gap_ms: Vec<f64>,
    pub(crate) gap_before_ms: Vec<f64>,
    pub(crate) resolution_ms: Vec<f64>,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) reloads: u64,
    /// No new process answered, or the reload was refused.
    pub(crate) failed: u64,
    /// Of old and new together, beside the old one alone and the new one alone.
    pub(crate) memory: Vec<[f64; 3]>,
    /// How many were lost, by kind of client and cause.
    pub(crate) causes: BTreeMap<String, u64>,
}

pub(crate) fn measure(tool: &Path, peer: Peer, point: Point, seed: u64) -> io::Result<Sample> {
    let mut sample = Sample::default();
    let server = peer.start(None)?;
    let mut prove = |options: &[&str], seed| sample.add(&prove(tool, peer, &server, options, seed)?);
    match point {
        Point::Idle(connections) => {
            // after 5 s of linger and 2.5 s of reopening, all are with who is reloaded
            let every = if connections == 0 { "1s" } else { "9s" };
            prove(&["--idle", &connections.to_string(), "--reloads", &RELOADS.to_string(), "--every", every], seed)?;
        }
        Point::Heap(mib) => {
            for round in 0..if mib > 2_048 { FEW } else { RELOADS } {
                if mib > 0 {
                    server.touch(mib)?;
                }
                prove(&ONE_RELOAD, seed + round as u64)?;
            }
        }
        Point::Beside(mib) => {
            for round in 0..FEW {
                let beside = peer.start(None)?; // anew each time, as each time who is reloaded touches it anew
                beside.touch(mib)?;
                prove(&ONE_RELOAD, seed + round as u64)?;
            }
        }
        Point::Mixed => {
            let clients = ["--fresh", "8", "--keep-alive", "200", "--slow", "5", "--reloads", LOADED, "--every", "1s"];
            prove(&clients, seed)?;
        }
        Point::Race => prove(&["--keep-alive", "400", "--reloads", LOADED, "--every", "1s"], seed)?,
    }
    if sample.failed > 0 {
        eprintln!("{}: {} reloads failed\n{}", peer.name(), sample.failed, server.log());
    }
    Ok(sample)
}

fn prove(tool: &Path, peer: Peer, server: &Server, options: &[&str], seed: u64) -> io::Result<Value> {
    let mut command = Command::new(tool);
    // Back to back: what is measured is shorter than the pause that is right for a service in use.
    command.args(["prove", "--json", "--url", &server.url(), "--seed", &seed.to_string(), "--probe-every", "0s"]);
    let (signal, pid) = (peer.signal(), server.main()?.to_string());
    command.args(["--signal", signal.as_str().trim_start_matches("SIG"), "--pid", &pid]);
    let output = command.args(options).stderr(Stdio::piped()).output()?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        io::Error::other(format!("{command:?} said: {stderr}"))
    })
}

impl Sample {
    pub(crate) fn join(&mut self, mut other: Self) {
        self.first_new_ms.append(&mut other.first_new_ms);
        self.longest_gap_ms.append(&mut other.longest_gap_ms);
        self.gap_before_ms.append(&mut other.gap_before_ms);
        self.resolution_ms.append(&mut other.resolution_ms);
        self.memory.append(&mut other.memory);
        for (cause, count) in other.causes {
            *self.causes.entry(cause).or_default() += count;
        }
        self.sent += other.sent;
        self.lost += other.lost;
        self.reloads += other.reloads;
        self.failed += other.failed;
    }

    fn add(&mut self, result: &Value) -> io::Result<()> {
        let total = &result["total"];
        let number = |value: &Value| value.as_u64().ok_or_else(|| io::Error::other(format!("no number: {value}")));
        self.sent += number(&total["sent"])?;
        self.lost += number(&total["lost"])?;
        for loss in result["losses"].as_array().into_iter().flatten() {
            let cause = format!("{} {}", loss["kind"], loss["cause"]).replace('"', "");
            *self.causes.entry(cause).or_default() += number(&loss["count"])?;
        }
        for reload in result["reloads"].as_array().into_iter().flatten() {
            self.reloads += 1;
            match reload["first_new_ms"].as_f64() {
                Some(ms) => self.first_new_ms.push(ms),
                None => self.failed += 1,
            }
            let push = |of: &str, to: &mut Vec<f64>| to.extend(reload[of].as_f64());
            push("longest_gap_ms", &mut self.longest_gap_ms);
            push("gap_before_ms", &mut self.gap_before_ms);
            push("resolution_ms", &mut self.resolution_ms);
            let rss = |when: &str| reload["usage"][when]["rss"].as_f64();
            if let (Some(peak), Some(before), Some(new)) = (rss("peak"), rss("before"), rss("new")) {
                self.memory.push([peak, before, new]);
            }
        }
        Ok(())
    }
}

pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// From starting the least program to its first byte, in ms.
#[derive(Debug, Default)]
pub(crate) struct Floor {
    /// At a reload's pace.
    pub(crate) paced: Vec<f64>,
    /// One right after the other.
    pub(crate) at_once: Vec<f64>,
    /// The first one after another process has touched 8 GiB: what such a moment costs anybody.
    pub(crate) beside: Vec<f64>,
}

impl Floor {
    pub(crate) fn measure(&mut self) -> io::Result<()> {
        for _ in 0..RELOADS {
            sleep(Duration::from_secs(1)); // the caches and the processors are as cold as they are at a reload
            self.paced.push(start_floor()?);
        }
        for _ in 0..50 {
            self.at_once.push(start_floor()?);
        }
        Ok(())
    }

    pub(crate) fn measure_beside(&mut self, mib: u32) -> io::Result<()> {
        for _ in 0..FEW {
            let beside = Peer::Restart.start(None)?;
            beside.touch(mib)?;
            sleep(Duration::from_secs(1)); // as `prove` waits for its first reload
            self.beside.push(start_floor()?);
        }
        Ok(())
    }
}

fn start_floor() -> io::Result<f64> {
    let program = std::env::current_exe()?.with_file_name("floor");
    let began = Instant::now();
    let mut child = Command::new(&program).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut byte = [0];
    child.stdout.take().map_or(Ok(()), |mut out| out.read_exact(&mut byte))?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    child.wait()?;
    Ok(took)
}
