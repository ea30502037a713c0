//! What happens to the service, in which order, and what each step must lead to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::options::Options;
use super::report::{KillRow, Report, StepRow};
use super::supervisor::{Reloaded, Supervisor};
use super::versions::{Version, Versions};
use crate::commands::prove::{Asked, Plan, Progress, Reloads, Run, Server, Teller, ms};
use crate::failure::Failure;
use crate::terminal::Ink;
use handover_load::{Kind, Random, Since, Target};

/// How many clients of each kind.
pub(super) const CLIENTS: [(Kind, usize); 5] =
    [(Kind::KeepAlive, 64), (Kind::Fresh, 8), (Kind::Slow, 5), (Kind::Upload, 4), (Kind::Stream, 3)];
/// The longest from a reload or a restart to an answer from the right process.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// The longest until old generations have ended: above their drain timeout.
const DRAIN_LIMIT: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(100);

/// The load of the demo, on the example service.
pub(super) fn plan(options: &Options, address: SocketAddr) -> Plan {
    let every = options.duration / options.reloads;
    Plan {
        url: format!("http://{address}/"),
        target: Target::tcp(address),
        load: Arc::new(handover_load::Plan::example()),
        clients: CLIENTS.to_vec(),
        seed: options.seed,
        reloads: options.reloads,
        every,
        window: Duration::from_millis(300).min(every / 2),
        duration: options.duration,
        reload_timeout: ANSWER_LIMIT,
        probe_every: Duration::from_millis(2),
        quiet: options.json,
    }
}

pub(super) struct Script<'a, S> {
    plan: &'a Plan,
    service: Service<'a, S>,
    progress: &'a Progress,
    random: Random,
    problems: Vec<String>,
    kill: Option<KillRow>,
    steps: Vec<StepRow>,
}

/// The service, as the run reloads it: to the version that is next.
struct Service<'a, S> {
    supervisor: &'a S,
    versions: &'a Versions,
    next: Version,
    last: Result<Option<Reloaded>, Failure>,
    /// The main process after the last reload, before it may have been killed.
    main: Option<u32>,
}

impl<'a, S: Supervisor> Script<'a, S> {
    pub(super) fn new(plan: &'a Plan, supervisor: &'a S, versions: &'a Versions, progress: &'a Progress) -> Self {
        // A stream of its own: the clients count theirs from 1.
        let random = Random::new(plan.seed, 0);
        let service = Service { supervisor, versions, next: Version::Good, last: Ok(None), main: None };
        Self { plan, service, progress, random, problems: Vec::new(), kill: None, steps: Vec::new() }
    }

    pub(super) async fn run(mut self) -> Result<Report, Failure> {
        let supervisor = self.service.supervisor;
        let how = supervisor.name();
        self.progress.line(&format!("{}, supervised by {how}; seed {}", self.plan.url, self.plan.seed));
        let main = supervisor.running(0).await?;
        let clients = self.plan.clients_in_all();
        self.progress.line(&format!("main process {main} is ready; {clients} clients start"));
        let server = Server { family: supervisor.family().await?, teller: Teller::Body, notes: Vec::new() };
        let mut run = Run::start(self.plan, server, self.progress).await?;

        let reloads = self.plan.reloads;
        let (exits, hangs, kill) = (reloads.div_ceil(3), reloads * 2 / 3, reloads - reloads / 5);
        for n in 1..=reloads {
            let thousandth = self.plan.every.mul_f64(0.4).min(Duration::from_secs(1)) / 1000;
            let jitter = thousandth * u32::try_from(self.random.within(0..1000)).unwrap_or_default();
            let at = run.begun() + self.plan.every * (n - 1) + jitter;
            if n == kill {
                run.wait(at).await;
                self.kill(&mut run).await?;
            }
            let version = match n {
                n if n == exits => Version::Exits,
                n if n == hangs => Version::Hangs,
                _ => Version::Good,
            };
            self.reload(n, version, at, &mut run).await?;
        }
        run.wait(run.begun() + self.plan.duration).await;

        self.progress.line("the load ends, the last old generations drain");
        let mut measured = run.end(format!("SIGHUP by {how}"), &self.service).await;
        self.drained("without load").await;
        measured.add(self.problems);
        Ok(Report::new(how, measured, self.steps, self.kill))
    }

    async fn reload(&mut self, n: u32, version: Version, at: Instant, run: &mut Run<'_>) -> Result<(), Failure> {
        self.service.next = version;
        run.reload(at, &mut self.service).await;
        let Some(reloaded) = std::mem::replace(&mut self.service.last, Ok(None))? else {
            return Err(Failure::failed(format!("reload {n} was not asked for")));
        };
        let (switched, said) = (reloaded.has_switched(), &reloaded.status_text);
        if switched != (version == Version::Good) {
            let what = if switched { "made a bad version main" } else { "did not lead to a new generation" };
            self.problems.push(format!("reload {n} {what}; the service said: {said}"));
        } else if !switched && said.is_empty() {
            self.problems.push(format!("reload {n} was rolled back, and the service's status does not say why"));
        }
        let ready = format!("{:.1} ms,", reloaded.ready_ms);
        let (main, before) = (reloaded.main, reloaded.main_before);
        let (what, ready) = match version {
            Version::Good => (format!("pid {before} → {main},"), format!("ready after {ready}")),
            Version::Exits => (format!("a version that exits: pid {main} serves on,"), String::new()),
            Version::Hangs => {
                (format!("a version that hangs: pid {main} serves on,"), format!("rolled back after {ready}"))
            }
        };
        run.tell(&[(Ink::Plain, &what), (Ink::Ready, &ready)]);
        self.answered_by(main, &format!("after reload {n}"), run).await;
        self.steps.push(StepRow { n, version, reloaded });
        Ok(())
    }

    /// A new connection must be answered by the process that is main.
    async fn answered_by(&mut self, main: u32, when: &str, run: &Run<'_>) {
        if !run.is_answered_by(main, ANSWER_LIMIT).await {
            self.problems.push(format!("{when}, main process {main} did not answer within {ANSWER_LIMIT:?}"));
        }
    }

    /// Kills when only the main generation is left: systemd ends a service as a whole, and an older
    /// generation that still drained would have to hurry.
    async fn kill(&mut self, run: &mut Run<'_>) -> Result<(), Failure> {
        self.drained("under load").await;
        run.stats().closes_are_laid_to(Since::Kill);
        let kill = self.service.supervisor.kill().await?;
        let (pid, at, died_ms) = (kill.pid, kill.at, ms(kill.dead - kill.at));
        run.stats().killed(kill);
        let main = self.service.supervisor.running(pid).await?;
        let ready_ms = ms(at.elapsed());
        run.stats().restarted();
        self.answered_by(main, "after the kill", run).await;
        let after = format!("ready after {ready_ms:.1} ms");
        let who = format!("pid {pid} by SIGKILL, pid {main}");
        self.progress.parts(&[(Ink::Bad, "kill"), (Ink::Plain, &who), (Ink::Ready, &after)]);
        self.kill = Some(KillRow { pid, main, died_ms, ready_ms });
        Ok(())
    }

    /// Waits until only the main generation is left.
    async fn drained(&mut self, when: &str) {
        let begun = Instant::now();
        loop {
            // Where that cannot be told, nobody is waited for.
            let processes = self.service.supervisor.family().await.map_or(0, |mut family| family.members().len());
            if processes <= 1 {
                return;
            }
            if begun.elapsed() > DRAIN_LIMIT {
                let problem = format!("{} old generations did not end {when} within {DRAIN_LIMIT:?}", processes - 1);
                self.problems.push(problem);
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl<S: Supervisor> Service<'_, S> {
    async fn reload(&self) -> Result<Reloaded, Failure> {
        self.versions.install(self.next)?;
        let reloaded = self.supervisor.reload().await?;
        self.versions.install(Version::Good)?;
        Ok(reloaded)
    }
}

impl<S: Supervisor> Reloads for Service<'_, S> {
    async fn ask(&mut self, _: Duration) -> Asked {
        self.last = self.reload().await.map(Some);
        self.main = self.last.as_ref().ok().and_then(Option::as_ref).map(|reloaded| reloaded.main);
        match &self.last {
            Ok(Some(reloaded)) if !reloaded.has_switched() => Asked::Refused(reloaded.status_text.clone()),
            Ok(_) => Asked::Done,
            Err(failure) => Asked::Failed(failure.to_string()),
        }
    }

    async fn main(&self) -> Option<u32> {
        self.main
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use axum::extract::Request;
    use axum::middleware::{Next, from_fn};
    use serde_json::Value;

    use super::*;
    use crate::commands::prove::{Family, figures, json};
    use crate::terminal::Look;

    struct Nobody;

    impl Reloads for Nobody {
        async fn ask(&mut self, _: Duration) -> Asked {
            Asked::Done
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_demo_and_prove_tell_the_same_of_one_load_and_so_does_the_server() {
        let served = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&served);
        let count = from_fn(move |request: Request, next: Next| {
            counter.fetch_add(1, Ordering::SeqCst);
            next.run(request)
        });
        let router = crate::commands::web::router(1).layer(count);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let (reloads, duration) = (3, Duration::from_secs(3));
        let plan = plan(&Options { reloads, duration, seed: 7, systemd: false, json: true }, address);
        let progress = Progress::new(&plan);
        let unknown = Server { family: Family::Unknown, teller: Teller::Body, notes: Vec::new() };
        let run = Run::start(&plan, unknown, &progress).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let answered = |kind| run.stats().summary().counts.get(&kind).map_or(0, |count| count.answered);
        while CLIENTS.iter().any(|(kind, _)| answered(*kind) < 4) {
            assert!(Instant::now() < deadline, "{:?}", run.stats().summary());
            run.wait(Instant::now() + Duration::from_millis(50)).await;
        }
        let measured = run.end("never".to_owned(), &Nobody).await;
        server.abort();

        let proved: Value = serde_json::from_str(&json(&measured)).unwrap();
        let told = figures(&measured, Look::plain(80));
        let demo = Report::new("nobody".to_owned(), measured, Vec::new(), None);
        let shown: Value = serde_json::from_str(&demo.json()).unwrap();
        let keys: Vec<_> = proved.as_object().unwrap().keys().collect();
        assert!(keys.len() > 10 && keys.iter().all(|key| shown[*key] == proved[*key]), "{keys:?}");
        let text = demo.text(Look::plain(80));
        assert!(text.starts_with(&told) && text.ends_with("No client noticed a reload."), "{text}");
        let total = &proved["total"];
        assert_eq!((&total["answered"], &total["lost"]), (&total["sent"], &0.into()), "{}", proved["losses"]);
        assert_eq!(total["answered"], served.load(Ordering::SeqCst));
        for width in [40, 60, 80, 120, 200] {
            let text = demo.text(Look::plain(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
        }
    }
}
