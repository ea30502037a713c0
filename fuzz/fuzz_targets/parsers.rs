//! One program for all targets: `HANDOVER_FUZZ` names the one that is meant, as `tests/run fuzz` sets it.
#![no_main]

use std::sync::OnceLock;

use handover::internal::fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

/// Those of the tool.
const TOOL: &[(&str, Target)] = &[("journal", handover_cli::fuzz::journal), ("units", handover_cli::fuzz::units)];

fuzz_target!(|bytes: &[u8]| {
    static CHOSEN: OnceLock<Target> = OnceLock::new();
    CHOSEN.get_or_init(chosen)(bytes);
});

fn chosen() -> Target {
    let name = std::env::var("HANDOVER_FUZZ").unwrap_or_default();
    let all = || TARGETS.iter().chain(TOOL);
    match all().find(|(known, _)| *known == name) {
        Some((_, target)) => *target,
        None => {
            let names: Vec<_> = all().map(|(name, _)| *name).collect();
            panic!("HANDOVER_FUZZ={name:?} is no target: there are {}", names.join(", "))
        }
    }
}
