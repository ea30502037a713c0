//! The scenarios. A new module adds its `SCENARIOS` to [`all`].

mod basics;
mod identity;
mod reload;
mod user_manager;
mod web;

use crate::lab::Scenario;

pub(crate) fn all() -> Vec<Scenario> {
    [basics::SCENARIOS, user_manager::SCENARIOS, identity::SCENARIOS, reload::SCENARIOS].concat()
}
