//! What the journal says of the reloads of a unit, beside what the clients saw.

use std::time::{Duration, Instant, SystemTime};

use super::record::Reloaded;
use super::trigger::{How, Trigger};
use crate::commands::timeline::{Brief, briefs};

/// For the last entries to come into the journal.
const LATE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(100);

/// One for each reload that it knows, or why there are none.
pub(super) async fn read(trigger: &Trigger, reloads: &[Reloaded]) -> Result<Vec<Option<Brief>>, String> {
    let (How::Unit { unit, user }, Some(first)) = (&trigger.how, reloads.first()) else { return Ok(Vec::new()) };
    let begun = Instant::now();
    loop {
        let told = briefs(unit, *user, first.watched.wall).await.map_err(|failure| failure.to_string())?;
        let rows = in_order(&told, &reloads.iter().map(|one| one.watched.wall).collect::<Vec<_>>());
        let complete = rows.iter().all(|row| row.as_ref().is_some_and(|brief| !brief.is_under_way()));
        if complete || begun.elapsed() > LATE {
            return match told.is_empty() {
                true => Err(format!("it has nothing of {unit} that this user may read")),
                false => Ok(rows),
            };
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The first one that began after each was asked for, and before the next one was.
fn in_order(told: &[Brief], asked: &[SystemTime]) -> Vec<Option<Brief>> {
    let nexts = asked.iter().skip(1).copied().map(Some).chain([None]);
    asked.iter().zip(nexts).map(|(at, next)| told.iter().find(|one| one.began_within(*at, next)).cloned()).collect()
}
