//! A job runner without a socket: it runs what is put into a directory, and no reload or restart
//! breaks a job off.
//!
//! ```sh
//! mkdir -p spool/queue
//! cargo run --example runner --features journald -- --spool spool
//! echo 'program 2s' > spool/new && mv spool/new spool/queue/hello     # a move: never seen half-written
//! pkill -HUP --exact runner       # a new generation fetches; the old one finishes its jobs
//! ```
//!
//! A job is a file in `queue/`: its one line says how (`inline`, `blocking` or `program`) and how
//! long. It moves to `running/` when it is fetched, back if it was not started, and to `done/` or
//! `failed/` at its end. Its work is a file in `out/`, written in two steps.

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use handover::jobs::{Job, JobCommand};
use tracing::{info, warn};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Runs the jobs that are put into a spool directory.
#[derive(Debug, Parser)]
#[command(name = "runner")]
struct Options {
    /// Where the jobs are; below it queue, running, done, failed, cut and out are made
    #[arg(long, env = "STATE_DIRECTORY", default_value = "spool", value_name = "DIRECTORY")]
    spool: PathBuf,
    /// How many jobs run at once
    #[arg(long, default_value = "4", value_name = "NUMBER")]
    concurrency: usize,
    /// How long jobs may take to finish after a reload or in a stop; below TimeoutStopSec=
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    /// Whether the programs of jobs run in scopes of their own, out of reach of systemctl stop
    #[arg(long, default_value = "no", value_name = "WHEN")]
    scope: When,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    /// In the unit's own cgroup
    No,
    /// Where the service manager allows it
    Auto,
    /// Else the job fails
    Yes,
}

#[tokio::main]
async fn main() -> Result<()> {
    main_with(std::env::args_os()).await
}

/// Runs the service with these arguments, the program's name first.
pub(crate) async fn main_with(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let options = Options::parse_from(args);
    handover::logging::init()?;
    let service = handover::Service::builder()
        .drain_timeout(options.drain_timeout)
        .hurry_timeout(options.drain_timeout) // a crash of the new generation breaks off no job of an old one
        .max_draining(32) // an old generation is small, and its jobs are long
        .start()?;

    let spool = Arc::new(Spool::open(&options.spool, options.scope)?);
    if service.generation() == 1 {
        #[cfg(feature = "scope")]
        if options.scope != When::No {
            // before their work is done again
            service.jobs().kill_orphans().await.inspect_err(|e| warn!("programs may be left: {e}")).ok();
        }
        spool.set_cut_jobs_aside()?;
    }
    let (queue, back) = (Arc::clone(&spool), Arc::clone(&spool));
    let worker = service
        .jobs()
        .worker(
            "spool",
            options.concurrency,
            move || {
                let fetched = queue.fetch();
                async { fetched }
            },
            move |name, job| Arc::clone(&spool).run(name, job),
        )
        .give_back(move |name: String| {
            let given = back.rename("running", &name, "queue");
            async { given }
        })
        .name_items(Clone::clone)
        .idle_pause(Duration::from_millis(50))
        .start()?;
    drop(worker); // it ends with the drain

    service.run().await?; // ready, watchdog, SIGHUP → reload, SIGTERM → stop
    Ok(())
}

#[derive(Debug)]
struct Spool {
    top: PathBuf,
    scope: When,
}

impl Spool {
    fn open(top: &Path, scope: When) -> Result<Self> {
        for name in ["queue", "running", "done", "failed", "cut", "out"] {
            fs::create_dir_all(top.join(name)).map_err(|e| format!("{}: {e}", top.join(name).display()))?;
        }
        if scope != When::No && !cfg!(feature = "scope") {
            return Err("--scope: this program was built without the feature `scope`".into());
        }
        Ok(Self { top: top.to_owned(), scope })
    }

    /// What is in `running` when the first generation starts was broken off: nobody else can say so
    /// after a SIGKILL.
    fn set_cut_jobs_aside(&self) -> Result<()> {
        for name in self.names("running")? {
            warn!(job = name, "job {name:?} was broken off when the runner last ended; it is in cut/");
            self.rename("running", &name, "cut")?;
        }
        Ok(())
    }

    /// The next job, in the order of their names. Whoever renames it first has it, old generation
    /// or new.
    fn fetch(&self) -> io::Result<Option<String>> {
        for name in self.names("queue")? {
            match self.rename("queue", &name, "running") {
                Ok(()) => return Ok(Some(name)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn run(self: Arc<Self>, name: String, job: Job) -> Result<()> {
        let result = self.work(&name, &job).await;
        self.rename("running", &name, if result.is_ok() { "done" } else { "failed" })?;
        result
    }

    async fn work(&self, name: &str, job: &Job) -> Result<()> {
        let text = fs::read_to_string(self.top.join("running").join(name))?;
        let (kind, time) = text.trim().split_once(' ').ok_or("write a kind and a time, as in: inline 2s")?;
        let time = humantime::parse_duration(time)?;
        let out = self.top.join("out").join(name);
        match kind {
            "inline" => {
                let mut file = begin(&out)?;
                tokio::time::sleep(time).await;
                end(&mut file)?;
            }
            "blocking" => {
                let step = move |_| {
                    let mut file = begin(&out)?;
                    std::thread::sleep(time);
                    end(&mut file)
                };
                job.spawn_blocking("write", step)?.await.finished().ok_or("it was broken off")??;
            }
            "program" => {
                let mut program = Command::new("sh");
                program.args(["-c", r#"echo begun >>"$1" && sleep "$2" && echo ended >>"$1""#, "sh"]);
                program.arg(out).arg(time.as_secs_f64().to_string());
                let report = self.scoped(job.command("write", program)).run().await?;
                if !report.success() {
                    return Err(format!("the program {}: {}", report.end, report.stderr.text().trim()).into());
                }
            }
            other => return Err(format!("no such kind of job: {other}").into()),
        }
        info!(job = name, "job {name:?} is done");
        Ok(())
    }

    #[cfg(feature = "scope")]
    fn scoped(&self, command: JobCommand) -> JobCommand {
        use handover::systemd::scope::Scope;
        match self.scope {
            When::No => command,
            When::Auto => command.scope(Scope::if_possible()),
            When::Yes => command.scope(Scope::required()),
        }
    }

    #[cfg(not(feature = "scope"))]
    fn scoped(&self, command: JobCommand) -> JobCommand {
        command
    }

    fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.top.join(directory))?;
        let mut names: Vec<_> = entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, name: &str, to: &str) -> io::Result<()> {
        fs::rename(self.top.join(from).join(name), self.top.join(to).join(name))
    }
}

/// Appends: a job that ran twice shows.
fn begin(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(b"begun\n")?;
    Ok(file)
}

fn end(file: &mut File) -> io::Result<()> {
    file.write_all(b"ended\n")
}
