//! Before the load: the server answers, the paths are right, and it is known whose processes to
//! look at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::family::{Family, listeners, name, peer};
use super::plan::Plan;
use super::report::Teller;
use super::trigger::{How, Trigger};
use crate::failure::Failure;
use crate::safe;
use crate::target::{ControlGroup, control_group};
use handover::supervise::proc::{self, Diag, holds};
use handover_load::{Ask, Client, Expect, Kind, Probe, Stats};

/// Descriptors beside those of the clients.
const SPARE: u64 = 200;
/// What helps where it cannot be seen who answers.
pub(super) const REMEDY: &str =
    "say --generation-header NAME, {generation} in --expect-body, or --pid of the server's main process";

/// The server, as far as it is known.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) family: Family,
    /// How it is known who answers.
    pub(crate) teller: Teller,
    /// What is not known, and why.
    pub(crate) notes: Vec<String>,
}

impl Server {
    pub(super) async fn find(plan: &Plan, trigger: &Trigger) -> Result<Self, Failure> {
        raise_limit(plan.clients_in_all() as u64)?;
        let holder = first_answer(plan).await?;
        for (kind, ask, option) in others(plan) {
            if plan.clients.iter().any(|(k, _)| *k == kind) {
                check(plan, kind, ask, option).await?;
            }
        }
        let mut family = family(plan, trigger, holder.as_ref().ok().copied()).await?;
        let (mut notes, members) = (Vec::new(), family.members());
        let told = match &plan.load.expect {
            _ if plan.target.generation_header.is_some() => Ok(Teller::Header),
            Expect::Like(template) if template.names_generation() => Ok(Teller::Body),
            _ => holder.and_then(|holder| match &family {
                Family::Unknown => Err("the server's processes are not known".to_owned()),
                // Whoever it is will hold the connections to the new one as well.
                _ if !members.contains(&holder) => {
                    let (name, whose) = (name(holder), trigger.whose());
                    Err(format!("pid {holder} ({name}) answers, a proxy? {whose} does not have it"))
                }
                _ => Ok(Teller::Process),
            }),
        };
        let teller = told.unwrap_or_else(|why| {
            notes.push(format!(
                "who answers is not told ({why}): there is no time to the first answer of a new process; {REMEDY}"
            ));
            Teller::Nothing
        });
        if matches!(family, Family::Unknown) {
            notes.push("the server's processes are not known: no memory, no descriptors".to_owned());
        }
        Ok(Self { family, teller, notes })
    }
}

/// The processes of the server.
async fn family(plan: &Plan, trigger: &Trigger, holder: Option<u32>) -> Result<Family, Failure> {
    if let How::Unit { unit, user } = &trigger.how {
        let ControlGroup(path) = control_group(unit, *user).await?;
        return Ok(Family::of_cgroup(&path));
    }
    let pid = match &trigger.main {
        Some(main) => Some(main.read()?),
        None => holder,
    };
    Ok(pid.map_or(Family::Unknown, |pid| Family::around(pid, &listeners(&plan.target.address))))
}

/// The other paths, each with the option that names it.
fn others(plan: &Plan) -> Vec<(Kind, Ask, &'static str)> {
    let load = &plan.load;
    let slow = Ask::get(&load.slow_path.replace("{ms}", "1"), load.slow_expect.clone());
    let upload = Ask::upload(&load.upload_path, b"handover prove".to_vec(), &load.upload_first);
    let mut asks = vec![(Kind::Slow, slow, "--slow-path"), (Kind::Upload, upload, "--upload-path")];
    if let Some(download) = load.downloads.first() {
        let ask = Ask::get(&download.path, download.expect.clone()).taking(download.takes);
        asks.push((Kind::Stream, ask, "--download-path"));
    }
    asks
}

/// The process that has the other end of a connection, or why that is not known.
async fn first_answer(plan: &Plan) -> Result<Result<u32, String>, Failure> {
    let stats = Arc::new(Stats::default());
    let probe = probe(plan, &stats);
    let begun = Instant::now();
    let connection = loop {
        match probe.ask().await {
            Ok((connection, _)) => break connection,
            // A unit that has just been started may still be about to listen.
            Err(()) if begun.elapsed() < Duration::from_secs(1) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(()) => return Err(unanswered(&plan.url, &stats)),
        }
    };
    let Some(stream) = connection.stream() else { return Ok(Err("not with HTTP/2".to_owned())) };
    let own = std::process::id();
    let holder =
        |inode| proc::all().map(|process| process.pid).filter(|pid| *pid != own).find(|pid| holds(*pid, inode));
    let found = match Diag::open().and_then(|diag| peer(&diag, stream)) {
        Ok(inode) => inode
            .and_then(holder)
            .ok_or_else(|| "no process that may be looked at has the connection; root may look at all".to_owned()),
        Err(e) => Err(format!("the kernel does not say who has the connection: {e}")),
    };
    connection.end();
    Ok(found)
}

pub(super) fn probe(plan: &Plan, stats: &Arc<Stats>) -> Probe {
    Probe {
        target: Arc::clone(&plan.target),
        stats: Arc::clone(stats),
        path: plan.load.path.clone(),
        expect: plan.load.expect.clone(),
        limit: plan.load.limit,
    }
}

async fn check(plan: &Plan, kind: Kind, ask: Ask, option: &str) -> Result<(), Failure> {
    let stats = Arc::new(Stats::default());
    let path = ask.path().to_owned();
    Client::new(kind, Arc::clone(&plan.target), Arc::clone(&stats), plan.load.limit).ask(ask).await;
    match stats.summary().lost.is_empty() {
        true => Ok(()),
        false => Err(unanswered(&format!("{option} {path}"), &stats)),
    }
}

fn unanswered(what: &str, stats: &Stats) -> Failure {
    let lost = stats.summary().lost;
    let why = lost.iter().next().map(|((_, cause), (_, example))| format!("{cause}: {example}"));
    Failure::usage(safe::terminal(&format!("{what} gives no answer to begin with: {}", why.unwrap_or_default())))
}

fn raise_limit(clients: u64) -> Result<(), Failure> {
    let wanted = clients + SPARE;
    let bad = |e| Failure::usage(format!("the limit of open files: {e}"));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(bad)?;
    // Root may raise the hard limit as well.
    if soft >= wanted || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_ok() {
        return Ok(());
    }
    let why = format!("{clients} clients need {wanted} open files, and {hard} are allowed: ulimit -n {wanted}");
    Err(Failure::usage(why))
}
