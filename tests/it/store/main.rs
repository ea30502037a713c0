//! The fd store and saved state from outside, with a stand-in for the manager that keeps fds as
//! systemd does.
#![expect(unsafe_code, reason = "fds are received and inherited by number, and compared by kcmp")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panics and report by printing")]

mod cell;
mod fdstore;
mod generations;
mod manager;
mod memory;
mod replace;
mod state;
mod unusable;
mod waiting;

/// Long enough for the slowest machine; nothing that works waits for so long.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
