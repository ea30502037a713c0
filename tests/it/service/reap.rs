//! A service that adopts orphans waits for them, and leaves its own children to those who started
//! them.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use handover::service::hooks::{Hook, When};
use handover::{BoxError, Builder};

use crate::extra::configured;
use crate::{Case, cases};
use handover_testing::processes::{look, until};
use handover_testing::world::World;

pub(crate) const CASES: &[Case] = cases![adopted_ones_are_waited_for_and_own_ones_are_not];

/// Long enough to be seen as a zombie many times, and shorter than the time after which it is
/// nobody's.
const LATE: Duration = Duration::from_secs(2);

pub(crate) fn with_family(builder: Builder, directory: &Path) -> Builder {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let directory = directory.to_owned();
    builder.on(When::Main, Hook::new(move |_| family(directory.clone())).timeout(Duration::from_secs(60)))
}

async fn family(directory: std::path::PathBuf) -> Result<(), BoxError> {
    let shell = |script: &str| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).current_dir(&directory);
        command
    };
    // Its parent ends at once, and it soon after that.
    shell("sleep 0.1 & echo $! >orphan").status()?;
    let mut late = shell("exit 3").spawn()?;
    let prompt = tokio::process::Command::from(shell("sleep 0.3; exit 4")).status().await?;
    tokio::time::sleep(LATE).await;
    let late = late.wait()?;
    Ok(fs::write(directory.join("family"), format!("{:?} {:?}", late.code(), prompt.code()))?)
}

fn adopted_ones_are_waited_for_and_own_ones_are_not() {
    let world = World::without_manager().configured(|c| configured(c, |e| e.family = true));
    let first = world.start();
    let orphan: u32 = until("an orphan", || fs::read_to_string(world.path("orphan")).ok()?.trim().parse().ok());
    until("it to be adopted, and to end", || {
        look(orphan).filter(|process| process.dead && process.parent == first.pid)
    });
    let family = until("the others", || fs::read_to_string(world.path("family")).ok().filter(|text| !text.is_empty()));
    assert_eq!(family, "Some(3) Some(4)");
    until("the zombie to be gone", || look(orphan).is_none().then_some(()));
    assert!(!world.log().contains("the hook"), "{}", world.log());
    world.stop();
}
