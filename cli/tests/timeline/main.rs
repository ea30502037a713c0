//! `handover timeline` from outside: journals as a machine would export them, and what is made of
//! them.
#![expect(clippy::unwrap_used, reason = "tests fail by panics")]

mod boxes;
mod fleet;
mod hostile;
mod input;
mod journal;
mod looks;
mod rows;
mod shuffled;
mod tool;
