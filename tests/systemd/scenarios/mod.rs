//! The scenarios. A new module adds its `SCENARIOS` to [`all`].

mod basics;
mod failures;
mod identity;
mod probation;
mod reload;
mod upgrade;
mod web;

use crate::lab::Scenario;

pub(crate) fn all() -> Vec<Scenario> {
    [
        basics::SCENARIOS,
        reload::SCENARIOS,
        identity::SCENARIOS,
        failures::SCENARIOS,
        probation::SCENARIOS,
        upgrade::SCENARIOS,
    ]
    .concat()
}
