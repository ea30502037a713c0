//! Before the load: the server answers, the paths are right, and it is known whose processes to look at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::family::Family;
use super::options::Options;
use super::prober::Teller;
use super::target::target;
use super::trigger::Trigger;
use super::who::peer;
use crate::failure::Failure;
use crate::safe;
use handover::supervise::proc::{self, Diag, holds};
use handover_load::{Ask, Client, Download, Expect, Kind, Plan, Probe, Stats, Target, Template};

/// Descriptors beside those of the clients.
const SPARE: u64 = 200;

pub(super) struct Ready {
    pub(super) target: Arc<Target>,
    pub(super) plan: Arc<Plan>,
    pub(super) trigger: Trigger,
    pub(super) family: Family,
    pub(super) teller: Teller,
    pub(super) path: String,
    pub(super) notes: Vec<String>,
}

pub(super) async fn preflight(options: &Options) -> Result<Ready, Failure> {
    let (target, path) = target(options).await?;
    let trigger = Trigger::new(&options.reload, options.reloads)?;
    let counts = options.clients.counts();
    if options.http2 {
        let only_one = [Kind::Pipelined, Kind::HalfHead, Kind::WebSocket];
        if let Some((kind, _)) = counts.iter().find(|(kind, _)| only_one.contains(kind)) {
            return Err(Failure::usage(format!("there is no --{} in HTTP/2", kind.slug())));
        }
    }
    raise_limit(counts.iter().map(|(_, count)| *count as u64).sum())?;
    let plan = Arc::new(plan(options, &path));
    let mut notes = Vec::new();
    let (holder, why_not) = first_answer(options, &target, &plan).await?;
    for (kind, ask, option) in others(options, &plan) {
        if counts.iter().any(|(k, _)| *k == kind) {
            check(&target, kind, ask, option, options.timeout).await?;
        }
    }
    let family = trigger.family(&options.reload, holder).await?;
    let teller = match &plan.expect {
        _ if options.generation_header.is_some() => Teller::Header,
        Expect::Like(template) if template.names_generation() => Teller::Body,
        _ if matches!(family, Family::Unknown) || holder.is_none() => Teller::Nothing,
        _ => Teller::Process,
    };
    if teller == Teller::Nothing {
        let why = why_not.unwrap_or_else(|| "the server's processes are not known".to_owned());
        notes.push(format!(
            "who answers is not told ({why}): there is no time to the first answer of a new process; \
             give --generation-header or --expect-body with {}",
            Template::GENERATION
        ));
    }
    if matches!(family, Family::Unknown) {
        notes.push("the server's processes are not known: no memory, no descriptors".to_owned());
    }
    Ok(Ready { target, plan, trigger, family, teller, path, notes })
}

fn plan(options: &Options, path: &str) -> Plan {
    let first = || Expect::First(Arc::default());
    let expect = match &options.expect_body {
        Some(text) => Expect::Like(Arc::new(Template::new(text))),
        None if options.any_body => Expect::Anything,
        None => first(),
    };
    let any_or_first = || if options.any_body { Expect::Anything } else { first() };
    let clients = &options.clients;
    Plan {
        path: path.to_owned(),
        expect,
        cadence: clients.cadence.clone(),
        fresh: clients.fresh_cadence.clone(),
        slow_path: clients.slow_path.clone(),
        slow_expect: any_or_first(),
        slow: clients.slow_time.clone(),
        upload_path: clients.upload_path.clone(),
        upload_first: Arc::default(),
        downloads: vec![Download {
            path: clients.download_path.clone(),
            takes: clients.download_time,
            expect: any_or_first(),
        }],
        websocket_path: clients.websocket_path.clone(),
        short_first: false,
        limit: options.timeout,
        every: options.every,
    }
}

/// The other paths, each with the option that names it.
fn others(options: &Options, plan: &Plan) -> Vec<(Kind, Ask, &'static str)> {
    let slow = Ask::get(&plan.slow_path.replace("{ms}", "1"), plan.slow_expect.clone());
    let upload = Ask::upload(&plan.upload_path, b"handover prove".to_vec(), &plan.upload_first);
    let mut asks = vec![(Kind::Slow, slow, "--slow-path"), (Kind::Upload, upload, "--upload-path")];
    if let Some(download) = plan.downloads.first() {
        let ask = Ask::get(&download.path, download.expect.clone()).taking(options.clients.download_time);
        asks.push((Kind::Stream, ask, "--download-path"));
    }
    asks
}

/// The process that has the other end of a connection, or why that is not known.
async fn first_answer(
    options: &Options,
    target: &Arc<Target>,
    plan: &Plan,
) -> Result<(Option<u32>, Option<String>), Failure> {
    let stats = Arc::new(Stats::default());
    let (path, expect) = (plan.path.clone(), plan.expect.clone());
    let probe = Probe { target: Arc::clone(target), stats: Arc::clone(&stats), path, expect, limit: options.timeout };
    let begun = Instant::now();
    let connection = loop {
        match probe.ask().await {
            Ok((connection, _)) => break connection,
            // A unit that has just been started may still be about to listen.
            Err(()) if begun.elapsed() < Duration::from_secs(1) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(()) => return Err(unanswered(&options.url, &stats)),
        }
    };
    let Some(stream) = connection.stream() else {
        return Ok((None, Some("not with HTTP/2".to_owned())));
    };
    let own = std::process::id();
    let holder =
        |inode| proc::all().map(|process| process.pid).filter(|pid| *pid != own).find(|pid| holds(*pid, inode));
    let found = match Diag::open().and_then(|diag| peer(&diag, stream)) {
        Ok(inode) => match inode.and_then(holder) {
            Some(pid) => (Some(pid), None),
            None => {
                (None, Some("no process that may be looked at has the connection; root may look at all".to_owned()))
            }
        },
        Err(e) => (None, Some(format!("the kernel does not say who has the connection: {e}"))),
    };
    connection.end();
    Ok(found)
}

async fn check(target: &Arc<Target>, kind: Kind, ask: Ask, option: &str, limit: Duration) -> Result<(), Failure> {
    let stats = Arc::new(Stats::default());
    let path = ask.path().to_owned();
    Client::new(kind, Arc::clone(target), Arc::clone(&stats), limit).ask(ask).await;
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
    if soft >= wanted {
        return Ok(());
    }
    if hard >= wanted {
        return setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map_err(bad);
    }
    // Root may raise the hard limit as well.
    setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).map_err(|_| {
        Failure::usage(format!(
            "{clients} clients need {wanted} open files, and {hard} are allowed: ulimit -n {wanted}"
        ))
    })
}
