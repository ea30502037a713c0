//! The scenarios. A new module adds its `SCENARIOS` to [`all`].

mod basics;
mod counter;
mod crashes;
mod datagrams;
mod failures;
mod identity;
mod init;
mod journal;
mod probation;
mod reload;
mod requests;
mod stops;
mod store;
mod storm;
mod streams;
mod survival;
mod timeline;
mod tls;
mod upgrade;
mod user_manager;
mod watchdog;
mod web;

use crate::lab::Scenario;

pub(crate) fn all() -> Vec<Scenario> {
    [
        basics::SCENARIOS,
        user_manager::SCENARIOS,
        reload::SCENARIOS,
        identity::SCENARIOS,
        requests::SCENARIOS,
        failures::SCENARIOS,
        probation::SCENARIOS,
        upgrade::SCENARIOS,
        crashes::SCENARIOS,
        stops::SCENARIOS,
        store::SCENARIOS,
        storm::SCENARIOS,
        survival::SCENARIOS,
        streams::SCENARIOS,
        datagrams::SCENARIOS,
        watchdog::SCENARIOS,
        journal::SCENARIOS,
        timeline::SCENARIOS,
        tls::SCENARIOS,
        init::SCENARIOS,
    ]
    .concat()
}
