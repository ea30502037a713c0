//! `handover run`: programs that know nothing of handover, under the packaged template unit.

mod languages;
mod podman;
mod promises;
mod served;

use crate::lab::Scenario;
pub(super) use served::Instance;

pub(super) const SCENARIOS: &[Scenario] = promises::SCENARIOS;
pub(super) const LANGUAGES: &[Scenario] = languages::SCENARIOS;
pub(super) const PODMAN: &[Scenario] = podman::SCENARIOS;
