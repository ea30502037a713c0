//! The scenarios. A new module adds its `SCENARIOS` to [`all`].

mod basics;

use crate::lab::Scenario;

pub(crate) fn all() -> Vec<Scenario> {
    [basics::SCENARIOS].concat()
}
