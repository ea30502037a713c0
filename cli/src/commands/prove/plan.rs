//! What is to be done, resolved once from the command line: nothing else reads that.

use std::sync::Arc;
use std::time::Duration;

use super::options::Options;
use super::target::target;
use super::trigger::{How, Main, Trigger};
use crate::failure::Failure;
use crate::target::unit_name;
use handover_load::{Download, Expect, Kind, Target, Template};

/// One run of a load over reloads.
#[derive(Debug)]
pub(crate) struct Plan {
    /// As people call the server.
    pub(crate) url: String,
    pub(crate) target: Arc<Target>,
    pub(crate) load: Arc<handover_load::Plan>,
    pub(crate) clients: Vec<(Kind, usize)>,
    pub(crate) seed: u64,
    pub(crate) reloads: u32,
    /// Between the beginnings of two reloads, at least; at most half of it is a window.
    pub(crate) every: Duration,
    /// What is looked at before and after a reload begins.
    pub(crate) window: Duration,
    /// How long the load lasts, at least.
    pub(crate) duration: Duration,
    /// How long a reload may take until a new process answers.
    pub(crate) reload_timeout: Duration,
    /// Between two probes.
    pub(crate) probe_every: Duration,
    /// Nothing but JSON is to be said.
    pub(crate) quiet: bool,
}

impl Plan {
    pub(crate) fn clients_in_all(&self) -> usize {
        self.clients.iter().map(|(_, count)| count).sum()
    }

    pub(crate) fn protocol(&self) -> &'static str {
        match (self.target.http2, self.target.tls.is_some()) {
            (false, false) => "HTTP/1.1",
            (false, true) => "HTTP/1.1 over TLS",
            (true, false) => "HTTP/2",
            (true, true) => "HTTP/2 over TLS",
        }
    }

    /// What the last request may take that is under way at the end.
    pub(crate) fn longest_request(&self) -> Duration {
        let load = &self.load;
        let download = load.downloads.iter().map(|download| download.takes).max().unwrap_or_default();
        load.limit + load.slow.end + download
    }
}

pub(super) async fn resolved(options: Options) -> Result<(Plan, Trigger), Failure> {
    let trigger = trigger(&options)?;
    let clients = options.counts();
    if options.http2 {
        let only_one = [Kind::Pipelined, Kind::HalfHead, Kind::WebSocket];
        if let Some((kind, _)) = clients.iter().find(|(kind, _)| only_one.contains(kind)) {
            return Err(Failure::usage(format!("there is no --{} in HTTP/2", kind.slug())));
        }
    }
    let (target, path) = target(&options).await?;
    let plan = Plan {
        target: Arc::new(target),
        clients,
        seed: options.seed,
        reloads: options.reloads,
        every: options.every,
        window: options.window.min(options.every / 2),
        duration: options.duration.unwrap_or_default(),
        reload_timeout: options.reload_timeout,
        probe_every: options.probe_every,
        quiet: options.json,
        url: options.url.clone(),
        load: Arc::new(load(options, path)),
    };
    Ok((plan, trigger))
}

fn trigger(options: &Options) -> Result<Trigger, Failure> {
    let main = match (options.pid, &options.pidfile) {
        (Some(pid), _) => Some(Main::Pid(pid)),
        (_, Some(file)) => Some(Main::File(file.clone())),
        _ => None,
    };
    let how = match (&options.unit, &options.reload, &options.signal) {
        (Some(unit), ..) => How::Unit { unit: unit_name(unit), user: options.user },
        (_, Some(command), _) => How::Command(command.clone()),
        (.., Some(_)) if main.is_none() => return Err(Failure::usage("--signal needs --pid or --pidfile")),
        (.., Some(signal)) => How::signal(signal)?,
        _ if options.reloads == 0 => How::Never,
        _ => return Err(Failure::usage("say how to reload: --unit, --reload or --signal; or --reloads 0 for none")),
    };
    Ok(Trigger { how, main })
}

fn load(options: Options, path: String) -> handover_load::Plan {
    let any = options.any_body;
    let any_or_first = || if any { Expect::Anything } else { Expect::First(Arc::default()) };
    let expect = match &options.expect_body {
        Some(text) => Expect::Like(Arc::new(Template::new(text))),
        None => any_or_first(),
    };
    handover_load::Plan {
        path,
        expect,
        cadence: options.cadence,
        fresh: options.fresh_cadence,
        slow_path: options.slow_path,
        slow_expect: any_or_first(),
        slow: options.slow_time,
        upload_path: options.upload_path,
        upload_first: Arc::default(),
        downloads: vec![Download { path: options.download_path, takes: options.download_time, expect: any_or_first() }],
        websocket_path: options.websocket_path,
        short_first: false,
        limit: options.timeout,
        every: options.every,
    }
}
