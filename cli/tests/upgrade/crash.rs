//! SIGKILL at each step of an upgrade: there is always a whole program in place, and the next
//! upgrade goes on from there.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use handover::upgrade::{Done, ProgramSource, Trust, Upgrade, Verdict};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::parts::{Place, block_on, program, run, sha256, succeeds};
use crate::{Case, cases};

pub(crate) const CASES: &[Case] =
    cases![killed_where_it_is_taken, killed_where_it_is_refused, killed_on_the_way_back, killed_at_any_time];

/// Of the child, which is this binary: where it upgrades.
pub(crate) const DIRECTORY: &str = "HANDOVER_TEST_UPGRADE";
/// At which step it dies; how the service is; whether it goes back.
const STEP: &str = "HANDOVER_TEST_UPGRADE_STEP";
const REFUSED: &str = "HANDOVER_TEST_UPGRADE_REFUSED";
const BACK: &str = "HANDOVER_TEST_UPGRADE_BACK";

/// The child.
pub(crate) fn main(directory: &Path) -> ExitCode {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let last: usize = variable(STEP).parse().unwrap();
    let refused = !variable(REFUSED).is_empty();
    let steps = AtomicUsize::new(0);
    let upgrade =
        Upgrade::builder(directory.join("web"), ProgramSource::file(directory.join("new")), Trust::unsigned())
            .on_step(move |_| {
                if steps.fetch_add(1, Ordering::SeqCst) == last {
                    kill(Pid::this(), Signal::SIGKILL).unwrap();
                }
            })
            .reload_with(move || async move { verdict(refused) })
            .unwrap();
    let done = if variable(BACK).is_empty() { block_on(upgrade.run()) } else { block_on(upgrade.back()) };
    if done.is_ok() || refused { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn verdict(refused: bool) -> Verdict {
    if refused { Verdict::Refused("bad".into()) } else { Verdict::Taken }
}

fn child(place: &Place, step: usize, refused: bool, back: bool) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.env(DIRECTORY, place.path("")).env(STEP, step.to_string());
    child.env(REFUSED, if refused { "1" } else { "" }).env(BACK, if back { "1" } else { "" });
    child
}

/// How many steps it has.
fn killed(place: &dyn Fn() -> Place, refused: bool, back: bool, check: impl Fn(&Place, usize)) -> usize {
    for step in 0.. {
        let place = place();
        let status = child(&place, step, refused, back).status().unwrap();
        if status.success() {
            return step;
        }
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status} at step {step}");
        check(&place, step);
    }
    0
}

fn fresh() -> Place {
    let place = Place::new();
    place.write("new", &program("1"));
    place
}

/// It runs, and is one of both.
fn whole(place: &Place, old: &str, new: &str) -> bool {
    let is_new = std::fs::read(&place.program).unwrap() == program(new);
    place.is(if is_new { new } else { old });
    is_new
}

fn killed_where_it_is_taken() {
    let steps = killed(&fresh, false, false, |place, step| {
        let was_new = whole(place, "old", "1");
        let done = run(&place.taken(place.unsigned(ProgramSource::file(place.path("new"))))).unwrap();
        place.is("1");
        assert_eq!(matches!(done, Done::UpToDate { .. }), was_new, "step {step}: {done:?}");
        let mut kept = [sha256(&program("1")), sha256(&program("old"))];
        kept.sort();
        assert_eq!(place.kept(), kept, "step {step}");
        crate::parts::upgraded(&block_on(place.taken(place.unsigned(ProgramSource::file(place.path("new")))).back()));
        place.is("old");
    });
    assert!(steps >= 10, "{steps}");
}

fn killed_where_it_is_refused() {
    let steps = killed(&fresh, true, false, |place, step| {
        let _ = whole(place, "old", "1");
        let build = || {
            let builder = place.unsigned(ProgramSource::file(place.path("new")));
            builder.reload_with(|| async { verdict(true) }).unwrap()
        };
        // Either it was known, or it is found again.
        let first = run(&build());
        let known = matches!(first, Ok(Done::KnownBad { .. }));
        assert!(known || first.as_ref().is_err_and(handover::Error::is_generation), "step {step}: {first:?}");
        place.is("old");
        assert!(matches!(run(&build()), Ok(Done::KnownBad { .. })), "step {step}");
        place.write("new", &program("2"));
        crate::parts::upgraded(&run(&place.taken(place.unsigned(ProgramSource::file(place.path("new"))))));
        place.is("2");
    });
    assert!(steps >= 10, "{steps}");
}

fn killed_on_the_way_back() {
    let installed = || {
        let place = fresh();
        crate::parts::upgraded(&run(&place.taken(place.unsigned(ProgramSource::file(place.path("new"))))));
        place
    };
    let steps = killed(&installed, false, true, |place, step| {
        let still = whole(place, "old", "1");
        let upgrade = place.taken(place.unsigned(ProgramSource::file(place.path("new"))));
        let done = run(&upgrade).unwrap();
        // Before the file was put back, nothing was asked for that would be known; after it, it
        // stays.
        let expected =
            if still { matches!(done, Done::UpToDate { .. }) } else { matches!(done, Done::KnownBad { .. }) };
        assert!(expected, "step {step}: {done:?}");
        place.is(if still { "1" } else { "old" });
    });
    assert!(steps >= 7, "{steps}");
}

/// Again and again in one place, between the steps too. `HANDOVER_SOAK` is how many times.
fn killed_at_any_time() {
    let place = fresh();
    let times = std::env::var("HANDOVER_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(25_u64);
    let (mut old, mut ended) = (program("old"), 0);
    for n in 0..times {
        let new = program(&n.to_string());
        place.write("part", &new);
        std::fs::rename(place.path("part"), place.path("new")).unwrap();
        // What was cut short the last time may be taken back first.
        let state = std::fs::read(place.path(".web.handover/state.json")).unwrap_or_default();
        let state: Value = serde_json::from_slice(&state).unwrap_or_default();
        let mut running = child(&place, usize::MAX, n % 3 == 0, false).spawn().unwrap();
        // Whenever it comes, it is right; that it comes at many moments is what makes the test
        // good.
        std::thread::sleep(Duration::from_micros(n * 7919 % 60_000));
        running.kill().unwrap();
        ended += u64::from(running.wait().unwrap().success());
        let found = std::fs::read(&place.program).unwrap();
        let before = state["pending"]["previous"] == sha256(&found);
        assert!(found == old || found == new || before, "after {n}");
        assert!(succeeds(&place.program));
        old = found;
    }
    assert!(times < 25 || ended < times, "none was killed");
    place.write("new", &program("last"));
    crate::parts::upgraded(&run(&place.taken(place.unsigned(ProgramSource::file(place.path("new"))))));
    place.is("last");
}
