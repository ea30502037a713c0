//! What happens to the service, in which order, and what each step must lead to.

use std::time::{Duration, Instant};

use super::Options;
use super::load::Load;
use super::progress::Progress;
use super::report::{KillRow, ReloadRow, Report};
use super::supervisor::Supervisor;
use super::versions::{Version, Versions};
use crate::failure::Failure;
use handover_load::{Kind, Random};

/// The longest until every kind of client has had its first answer.
const WARM_UP_LIMIT: Duration = Duration::from_secs(20);
/// The longest from a reload's end to an answer from the right process.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The longest until old generations have ended: above their drain timeout.
const DRAIN_LIMIT: Duration = Duration::from_secs(15);

pub(super) struct Script<'a> {
    options: &'a Options,
    supervisor: &'a Supervisor,
    versions: &'a Versions,
    progress: &'a Progress,
    random: Random,
    pub(super) report: Report,
    /// The pid that was killed on purpose.
    pub(super) killed: Option<u32>,
}

impl<'a> Script<'a> {
    pub(super) fn new(
        options: &'a Options,
        supervisor: &'a Supervisor,
        versions: &'a Versions,
        progress: &'a Progress,
    ) -> Self {
        let report = Report::new(supervisor.name(), options.seed);
        // A stream of its own: the clients count theirs from 1.
        Self { options, supervisor, versions, progress, random: Random::new(options.seed, 0), report, killed: None }
    }

    pub(super) async fn run(&mut self) -> Result<(), Failure> {
        let address = self.supervisor.address();
        self.progress.line(format_args!(
            "http://{address}, supervised by {}; seed {}",
            self.supervisor.name(),
            self.options.seed
        ));
        let main = self.supervisor.running(0).await?;
        self.report.generations = 1;
        self.progress.line(format_args!("main process {main} is ready; {} clients start", Load::CLIENTS));

        let load = Load::start(address, self.options.seed);
        self.warm_up(&load).await?;
        let reloads = self.options.reloads;
        let (exits, hangs, kill) = (reloads.div_ceil(3), reloads * 2 / 3, reloads - reloads / 5);
        let slot = self.options.duration / reloads;
        let begun = Instant::now();
        for n in 1..=reloads {
            let jitter = slot.mul_f64(0.4).min(Duration::from_secs(1)) / 1000
                * u32::try_from(self.random.within(0..1000)).unwrap_or_default();
            self.wait_until(begun + slot * (n - 1) + jitter, &load).await;
            if n == kill {
                self.kill(&load).await?;
            }
            let version = match n {
                n if n == exits => Version::Exits,
                n if n == hangs => Version::Hangs,
                _ => Version::Good,
            };
            self.reload(n, version, &load).await?;
        }
        self.wait_until(begun + self.options.duration, &load).await;

        self.progress.line("the load ends, the last old generations drain");
        let stats =
            load.stop().await.map_err(|left| Failure::failed(format!("{left} clients did not come to an end")))?;
        self.drained("without load").await;
        self.report.count(&stats.summary(), Load::count);
        Ok(())
    }

    async fn warm_up(&self, load: &Load) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let summary = load.stats().summary();
            let silent =
                Kind::ALL.into_iter().find(|kind| Load::count(*kind) > 0 && !summary.counts.contains_key(kind));
            let Some(kind) = silent else { return Ok(()) };
            if begun.elapsed() > WARM_UP_LIMIT {
                return Err(Failure::failed(format!("no answer to {kind} within {WARM_UP_LIMIT:?}")));
            }
            self.progress.tick(&summary);
            tokio::time::sleep(Progress::TICK).await;
        }
    }

    /// Waits, showing what goes on.
    async fn wait_until(&self, at: Instant, load: &Load) {
        while Instant::now() < at {
            self.progress.tick(&load.stats().summary());
            tokio::time::sleep_until(at.min(Instant::now() + Progress::TICK).into()).await;
        }
    }

    async fn reload(&mut self, n: u32, version: Version, load: &Load) -> Result<(), Failure> {
        self.install(version)?;
        let reloaded = self.supervisor.reload().await?;
        self.install(Version::Good)?;
        let switched = reloaded.main != reloaded.main_before;
        if switched != (version == Version::Good) {
            let what = if switched { "made a bad version main" } else { "did not lead to a new generation" };
            self.report.problems.push(format!("reload {n} {what}; the service said: {}", reloaded.status_text));
        } else if !switched && reloaded.status_text.is_empty() {
            self.report.problems.push(format!("reload {n} was rolled back, and the service's status does not say why"));
        }
        let answered = self.answer_by(reloaded.main, n, load).await;
        let first = load.stats().first_answer(reloaded.main).filter(|_| switched);
        let row = ReloadRow {
            n,
            version,
            main_before: reloaded.main_before,
            main: reloaded.main,
            ready: reloaded.ready,
            answered: first.or(answered).map(|at| at.saturating_duration_since(reloaded.requested)),
            status_text: reloaded.status_text.clone(),
        };
        self.report.generations += usize::from(switched);
        self.progress.reload(&row, &load.stats().summary());
        self.report.reloads.push(row);
        Ok(())
    }

    /// A new connection must be answered by the process that is main.
    async fn answer_by(&mut self, main: u32, n: u32, load: &Load) -> Option<Instant> {
        let begun = Instant::now();
        let mut others = Vec::new();
        while begun.elapsed() < ANSWER_LIMIT {
            match load.probe().await {
                Some(pid) if pid == main => return Some(Instant::now()),
                other => others.extend(other),
            }
        }
        self.report.problems.push(format!(
            "after reload {n}, main process {main} did not answer within {ANSWER_LIMIT:?}, but {others:?}"
        ));
        None
    }

    /// Kills when only the main generation is left: systemd ends a service as a whole, and an older generation that still
    /// drained would have to hurry.
    async fn kill(&mut self, load: &Load) -> Result<(), Failure> {
        self.drained("under load").await;
        let kill = self.supervisor.kill().await?;
        self.killed = Some(kill.pid);
        let (pid, at, died) = (kill.pid, kill.at, kill.dead - kill.at);
        load.stats().killed(kill);
        let main = self.supervisor.running(pid).await?;
        let ready = at.elapsed();
        load.stats().restarted();
        self.answer_by(main, 0, load).await;
        self.report.generations += 1;
        let row = KillRow { pid, main, died, ready };
        self.progress.kill(&row);
        self.report.kill = Some(row);
        Ok(())
    }

    fn install(&self, version: Version) -> Result<(), Failure> {
        self.versions
            .install(version)
            .map_err(|e| Failure::cannot_run(format!("{} cannot be replaced: {e}", self.versions.program().display())))
    }

    /// Waits until only the main generation is left.
    async fn drained(&mut self, when: &str) {
        let begun = Instant::now();
        while let Some(processes) = self.supervisor.processes().await.filter(|processes| *processes > 1) {
            if begun.elapsed() > DRAIN_LIMIT {
                let problem = format!("{} old generations did not end {when} within {DRAIN_LIMIT:?}", processes - 1);
                self.report.problems.push(problem);
                return;
            }
            tokio::time::sleep(Progress::TICK).await;
        }
    }
}
