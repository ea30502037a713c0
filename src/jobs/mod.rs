//! Work that is not a connection: jobs, workers that fetch them from a queue, and the programs that
//! they run.
//!
//! A job is counted in the [`Drain`](crate::drain::Drain) like a connection: a reload or a stop
//! waits for it, under the drain timeout. From the moment a drain begins no new job starts; those
//! that run are told ([`Job::draining`]) and finish, and jobs that they start themselves are
//! finished too. At the drain timeout the hammer falls: what still runs is cut, counted and named.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use handover::drain::Drain;
//! use handover::jobs::{Jobs, Outcome};
//!
//! let jobs = Jobs::new(&Drain::new()); // of a service: service.jobs()
//! let sum = jobs.spawn("sum", |_job| async { 1 + 1 })?;
//! let lines = jobs.spawn_blocking("count lines", |_job| "a\nb\n".lines().count())?;
//! assert_eq!(sum.await, Outcome::Finished(2));
//! assert_eq!(lines.await, Outcome::Finished(2));
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
//! ```
//!
//! | for | use | at the hammer |
//! |---|---|---|
//! | a future | [`Jobs::spawn`] | dropped at its next `.await` |
//! | code that blocks | [`Jobs::spawn_blocking`] | cannot be stopped; named, and the process exits without it |
//! | a program | [`Jobs::command`] | SIGTERM, and SIGKILL after a grace |
//! | a queue | [`Jobs::worker`] | its items are jobs; it has stopped fetching long before |
//!
//! # A scope for each program
//! With the feature `scope` a program can run in a transient scope of its own (`JobCommand::scope`
//! and the module `handover::systemd::scope`): another cgroup, which a stop of the service does not
//! reach. [`JobCommand`] says what else does.
//!
//! # Limitations
//! A blocking job has a thread of its own: bound their number where you start them, or use a
//! worker.

mod child;
mod children;
mod command;
mod core;
mod handle;
mod job;
mod output;
mod program;
mod report;
#[cfg(feature = "scope")]
mod scoped;
mod spawner;
mod spec;
mod worker;

pub use self::child::{CommandReport, End};
pub use self::children::KILL_TIMEOUT;
pub use self::command::JobCommand;
pub use self::handle::Jobs;
pub use self::job::{Job, JobHandle, Outcome, Refused};
pub use self::output::{Captured, LINE_LIMIT, OUTPUT_GRACE, OUTPUT_LIMIT, Output};
pub use self::report::JobReport;
pub use self::spec::TERM_GRACE;
pub use self::worker::{FETCH_RETRY_MAX, FETCH_RETRY_MIN, IDLE_PAUSE, Worker, WorkerHandle, WorkerReport};
