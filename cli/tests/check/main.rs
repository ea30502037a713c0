//! `handover check` from outside: every rule with a pair of units that it is about and one that it
//! leaves alone, the forms of input and output, exit codes, and the units of this machine.
#![expect(clippy::unwrap_used, reason = "tests fail by panics")]

mod cases;
mod claims;
mod docs;
mod fix;
mod formats;
mod hostile;
mod input;
mod others;
mod table;
mod tool;
