//! The scenarios. A new module adds its `SCENARIOS` to [`all`].

mod basics;
mod store;
mod user_manager;

use crate::lab::Scenario;

pub(crate) fn all() -> Vec<Scenario> {
    [basics::SCENARIOS, store::SCENARIOS, user_manager::SCENARIOS].concat()
}
