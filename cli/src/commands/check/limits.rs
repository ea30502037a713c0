//! What the settings of a unit are compared with.

use std::time::Duration;

use clap::Args;
use handover::service::settings;

use super::directives::OURS;
use super::unit::Unit;
use super::value;

/// From the command line, else from `[X-Handover]`, else from `Environment=HANDOVER_…`.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Limits {
    /// Systemd's version on the machine that the units are for; unknown unless units are asked from
    /// this machine's systemd
    #[arg(long = "target-version", value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..=9999))]
    pub(super) target: Option<u32>,
    /// Take every service for one that is reloaded by handover, whatever its unit says
    #[arg(long = "assume-handover")]
    pub(super) assume: bool,
    /// The service's drain timeout, which TimeoutStopSec= must exceed [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) drain_timeout: Option<Duration>,
    /// How long a generation may take to be ready, which TimeoutStartSec= must exceed [default:
    /// 30s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) warm_up: Option<Duration>,
    /// Connections of one generation at most
    #[arg(long, value_name = "N")]
    pub(super) connections: Option<u64>,
    /// Memory that one generation takes, as 500M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(super) memory: Option<u64>,
    /// Threads and child processes of one generation at most
    #[arg(long, value_name = "N")]
    pub(super) tasks: Option<u64>,
    /// Entries that the service keeps in the fd store, its listeners aside
    #[arg(long, value_name = "N")]
    pub(super) stored: Option<u64>,
}

impl Limits {
    /// With what the units say where the command line says nothing.
    pub(super) fn of(&self, units: &[&Unit]) -> Self {
        let time = |key: &str, variable: &str| {
            let said = units.iter().find_map(|u| Some(u.time(OURS, key)?.0));
            let read = |value: String| humantime::parse_duration(value.trim()).ok();
            said.or_else(|| units.iter().find_map(|u| read(u.environment(variable)?)))
        };
        let number =
            |key: &str, read: fn(&str) -> Option<u64>| units.iter().find_map(|u| Some(u.read(OURS, key, read)?.0));
        Self {
            drain_timeout: self.drain_timeout.or_else(|| time("DrainTimeout", "HANDOVER_DRAIN_TIMEOUT")),
            warm_up: self.warm_up.or_else(|| time("WarmUp", "HANDOVER_READY_TIMEOUT")),
            connections: self.connections.or_else(|| number("Connections", value::count)),
            memory: self.memory.or_else(|| number("Memory", value::size)),
            tasks: self.tasks.or_else(|| number("Tasks", value::count)),
            stored: self.stored.or_else(|| number("Stored", value::count)),
            ..*self
        }
    }

    pub(super) fn drain_timeout(&self) -> Duration {
        self.drain_timeout.unwrap_or(settings::DRAIN_TIMEOUT)
    }

    pub(super) fn warm_up(&self) -> Duration {
        self.warm_up.unwrap_or(settings::READY_TIMEOUT)
    }

    /// The target's version, where it is known and older than that.
    pub(super) fn target_below(&self, version: u32) -> Option<u32> {
        self.target.filter(|target| *target < version)
    }
}

fn size(text: &str) -> Result<u64, String> {
    value::size(text).ok_or_else(|| "write a number of bytes, or one with K, M, G or T".into())
}
