//! The scenarios. A new module adds its `SCENARIOS` to [`all`].

mod basics;
mod check;
mod control;
mod counter;
mod crashes;
mod datagrams;
mod deferred;
mod directives;
mod disk_images;
mod failures;
mod faults;
mod held;
mod http2;
mod identity;
mod idle;
mod images;
mod init;
mod insured;
mod journal;
mod kept;
mod metrics;
mod mptcp;
mod package;
mod path_unit;
mod pause;
mod pauses;
mod pidfds;
mod preserved;
mod pressure;
mod probation;
mod protocols;
mod prove;
mod proxies;
mod reload;
mod reload_jobs;
mod requests;
mod reread;
mod restart;
mod restarts;
mod roots;
mod run;
mod runner;
mod skew;
mod stops;
mod store;
mod storm;
mod streams;
mod survival;
mod sysext;
mod timeline;
mod tls;
mod told;
mod upgrade;
mod user_manager;
mod watchdog;
mod web;
mod websocket;

use crate::lab::Scenario;

pub(crate) fn all() -> Vec<Scenario> {
    [
        basics::SCENARIOS,
        user_manager::SCENARIOS,
        preserved::SCENARIOS,
        reload::SCENARIOS,
        reload_jobs::SCENARIOS,
        reread::SCENARIOS,
        restart::SCENARIOS,
        kept::SCENARIOS,
        identity::SCENARIOS,
        pidfds::SCENARIOS,
        requests::SCENARIOS,
        failures::SCENARIOS,
        faults::SCENARIOS,
        probation::SCENARIOS,
        upgrade::SCENARIOS,
        crashes::SCENARIOS,
        insured::SCENARIOS,
        stops::SCENARIOS,
        store::SCENARIOS,
        storm::SCENARIOS,
        survival::SCENARIOS,
        sysext::SCENARIOS,
        restarts::SCENARIOS,
        roots::SCENARIOS,
        images::SCENARIOS,
        disk_images::SCENARIOS,
        deferred::SCENARIOS,
        streams::SCENARIOS,
        datagrams::SCENARIOS,
        watchdog::SCENARIOS,
        journal::SCENARIOS,
        timeline::SCENARIOS,
        told::SCENARIOS,
        run::SCENARIOS,
        run::LANGUAGES,
        run::PODMAN,
        runner::SCENARIOS,
        skew::SCENARIOS,
        http2::SCENARIOS,
        websocket::SCENARIOS,
        metrics::SCENARIOS,
        tls::SCENARIOS,
        init::SCENARIOS,
        control::SCENARIOS,
        pause::SCENARIOS,
        pauses::SCENARIOS,
        pressure::SCENARIOS,
        mptcp::SCENARIOS,
        idle::SCENARIOS,
        prove::SCENARIOS,
        proxies::SCENARIOS,
        package::SCENARIOS,
        path_unit::SCENARIOS,
        check::SCENARIOS,
    ]
    .concat()
}
