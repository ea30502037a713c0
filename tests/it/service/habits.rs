//! `src/docs/habits.md`: each test, scenario and example that it names exists.

use crate::{Case, cases};

pub(crate) const CASES: &[Case] = cases![every_test_that_it_names_exists];

fn every_test_that_it_names_exists() {}
