//! The course of one upgrade.

use std::sync::Arc;

use tracing::{error, info, warn};

use crate::error::{Error, Kind, Result};
use crate::reload::moment::events;
use crate::upgrade::fetch::{Fetched, Fetcher, Fresh};
use crate::upgrade::place::{CandidateFile, Place, ProgramFile};
use crate::upgrade::plan::{UpgradeShared, Verdict};
use crate::upgrade::progress::{Done, UpgradeStep};
use crate::upgrade::record::{Pending, Record, Seen};
use crate::upgrade::trust::{Sum, sum_of};
use crate::upgrade::{check, elf};

/// What is known when the lock is ours.
struct UpgradeStart {
    place: Arc<Place>,
    record: Record,
    current: ProgramFile,
}

pub(crate) async fn run(inner: &Arc<UpgradeShared>, only_look: bool) -> Result<Done> {
    let UpgradeStart { place, mut record, current } = start(inner, only_look).await?;
    let seen = record.seen.clone().filter(|seen| {
        let known = seen.sha256 == current.sha256 || (record.why_bad(&seen.sha256).is_some() && !inner.plan.retry);
        known && seen.source == inner.plan.source.identity()
    });
    let (written, candidate) = blocking(&place, |place| place.candidate()).await?;
    let into = (written, candidate.path().to_owned());
    let fetched = inner.fetcher.program(&inner.plan.source, seen.as_ref(), into).await?;
    let sha256 = match (&fetched, seen) {
        (Fetched::Program(fresh), _) => fresh.seen.sha256.clone(),
        (Fetched::Unchanged, Some(seen)) => seen.sha256,
        (Fetched::Unchanged, None) => return Err(Error::new(Kind::Fetch, "unchanged, and nothing was seen before")),
    };
    let known = if sha256 == current.sha256 {
        Some(Done::UpToDate { sha256: sha256.clone() })
    } else {
        let bad = record.why_bad(&sha256).filter(|_| !inner.plan.retry);
        bad.map(|reason| Done::KnownBad { sha256: sha256.clone(), reason: reason.to_owned() })
    };
    let fresh = match (known, fetched) {
        (Some(done), Fetched::Program(fresh)) => {
            if record.seen.as_ref() != Some(&fresh.seen) && !only_look {
                record.seen = Some(fresh.seen);
                blocking(&place, move |place| record.write(place.hidden())).await?;
            }
            return Ok(done);
        }
        (Some(done), Fetched::Unchanged) => return Ok(done),
        (None, Fetched::Unchanged) => return Err(Error::new(Kind::Fetch, "unchanged, and not known")),
        (None, Fetched::Program(fresh)) => fresh,
    };
    inner.tell(&UpgradeStep::Fetched { sha256: sha256.clone() });
    let examined = examine(inner, &place, &candidate, &current, &fresh, record.signed).await;
    if let Err(error) = &examined
        && error.is_candidate()
    {
        warn!(
            message_id = events::UPGRADE_REFUSED,
            program = %inner.plan.program.display(),
            source = %inner.plan.source,
            sha256,
            reason = %error,
            "a new program is not taken"
        );
    }
    let signed = examined?;
    if only_look {
        return Ok(Done::Available { sha256, current: current.sha256 });
    }
    let pending = Pending { sha256, previous: current.sha256.clone(), seen: Some(fresh.seen), back: false, signed };
    commit(inner, place, record, pending, Install::Candidate(candidate, current)).await
}

pub(crate) async fn back(inner: &Arc<UpgradeShared>) -> Result<Done> {
    let UpgradeStart { place, record, current } = start(inner, false).await?;
    let Some(sha256) = record.previous.first().cloned() else {
        return Err(Error::new(Kind::State, format!("{}: no program of before is kept", inner.plan.program.display())));
    };
    let pending = Pending { sha256, previous: current.sha256.clone(), seen: None, back: true, signed: None };
    commit(inner, place, record, pending, Install::Kept(current)).await
}

/// Takes the lock, and brings to its end what was cut short.
async fn start(inner: &Arc<UpgradeShared>, only_look: bool) -> Result<UpgradeStart> {
    let program = inner.plan.program.clone();
    let (place, mut record, mut current) = blocking(&(), move |()| {
        let place = Place::open(&program)?;
        let record = Record::read(place.hidden())?;
        let current = place.look()?;
        Ok((Arc::new(place), record, current))
    })
    .await?;
    inner.tell(&UpgradeStep::Locked);
    let Some(pending) = record.pending.clone().filter(|_| !only_look) else {
        return Ok(UpgradeStart { place, record, current });
    };
    if pending.sha256 == current.sha256 {
        inner.tell(&UpgradeStep::Resumed { sha256: pending.sha256.clone() });
        info!(program = %inner.plan.program.display(), sha256 = pending.sha256, "an upgrade was cut short: asking again for a reload");
        // What comes of it is told below; the source is read in any case.
        match commit(inner, Arc::clone(&place), record, pending, Install::Done).await {
            Err(error) if !error.is_generation() => return Err(error),
            _ => {}
        }
    } else {
        // Before the install, after the way back, or somebody has installed another program since.
        record.pending = None;
        blocking(&place, move |place| record.write(place.hidden())).await?;
    }
    (record, current) = blocking(&place, |place| Ok((Record::read(place.hidden())?, place.look()?))).await?;
    Ok(UpgradeStart { place, record, current })
}

/// Examines everything that can be known of a candidate without running the service with it.
/// Returns when it was signed.
async fn examine(
    inner: &UpgradeShared,
    place: &Arc<Place>,
    candidate: &CandidateFile,
    current: &ProgramFile,
    fresh: &Fresh,
    newest: Option<u64>,
) -> Result<Option<u64>> {
    let bad = |why: String| Error::new(Kind::Candidate, format!("{}: {why}", inner.plan.source));
    let name = Fetcher::name_of(fresh);
    let expected = match &inner.plan.sum {
        None => None,
        Some(Sum::Given(sum)) => Some(sum.clone()),
        Some(Sum::In(list)) => {
            let text = inner.fetcher.named(fresh, list).await?;
            let sum = sum_of(&String::from_utf8_lossy(&text), &name);
            Some(sum.ok_or_else(|| bad(format!("{list} has no SHA-256 of {name}")))?)
        }
    };
    let sha256 = &fresh.seen.sha256;
    if let Some(expected) = expected.filter(|expected| expected != sha256) {
        return Err(bad(format!("its SHA-256 is {sha256}, not {expected}")));
    }
    let signature = match inner.plan.trust.is_unsigned() {
        true => None,
        false => Some(inner.fetcher.side(fresh, ".minisig").await?),
    };
    let (trust, any_format, like) = (inner.plan.trust.clone(), inner.plan.any_format, current.clone());
    let examined = candidate.clone();
    let source = inner.plan.source.to_string();
    let (any_name, allow_older) = (inner.plan.any_name, inner.plan.allow_older);
    let signed = blocking(place, move |place| {
        let mut signed = None;
        if let Some(signature) = signature {
            let comment = trust.verify((examined.file(), examined.path()), &signature, &source)?;
            if !any_name {
                let program = place.program.file_name().unwrap_or_default().to_string_lossy();
                comment.check_name(&source, [&program, &name])?;
            }
            if !allow_older {
                comment.check_age(&source, newest)?;
            }
            signed = comment.timestamp();
        }
        if !any_format {
            elf::check(examined.file()).map_err(|why| Error::new(Kind::Candidate, format!("{source}: {why}")))?;
        }
        place.ready(&examined, &like)?;
        Ok(signed)
    })
    .await?;
    inner.tell(&UpgradeStep::Verified);
    if let Some(command) = &inner.plan.check {
        check::run(command, candidate.path(), inner.plan.check_timeout).await?;
        inner.tell(&UpgradeStep::Checked);
    }
    Ok(signed)
}

enum Install {
    Candidate(CandidateFile, ProgramFile),
    Kept(ProgramFile),
    /// It was installed before we came.
    Done,
}

/// Installs, and asks for the reload, in a task of its own: once it is begun, nobody's going away
/// leaves it half done.
async fn commit(
    inner: &Arc<UpgradeShared>,
    place: Arc<Place>,
    record: Record,
    pending: Pending,
    what: Install,
) -> Result<Done> {
    let inner = Arc::clone(inner);
    let counted = Committing::new(&inner);
    let committing = tokio::spawn(async move {
        let _counted = counted;
        // The generation that upgrades itself stays until it is on the disk.
        let _held = inner.drain.as_ref().map(|drain| drain.register("an upgrade"));
        let (record, pending) = prepare(&inner, &place, record, pending, what).await?;
        let verdict = match &inner.plan.reload {
            Some(reload) => (reload.0)().await,
            None => Verdict::Taken,
        };
        settle(&inner, &place, record, pending, verdict).await
    });
    committing.await.unwrap_or_else(|e| Err(Error::os("the upgrade", std::io::Error::other(e))))
}

async fn prepare(
    inner: &Arc<UpgradeShared>,
    place: &Arc<Place>,
    mut record: Record,
    pending: Pending,
    what: Install,
) -> Result<(Record, Pending)> {
    let told = Arc::clone(inner);
    let (record, pending) = blocking(place, move |place| {
        let current = match what {
            Install::Done => return Ok((record, pending)),
            Install::Candidate(candidate, current) => {
                place.keep_candidate(&candidate, &pending.sha256)?;
                current
            }
            Install::Kept(current) => {
                if !place.has(&pending.sha256) {
                    let why = format!("{}: the program of before is not what it was", place.program.display());
                    return Err(Error::new(Kind::State, why));
                }
                current
            }
        };
        told.tell(&UpgradeStep::Kept);
        place.keep_current(&current)?;
        told.tell(&UpgradeStep::PreviousKept);
        record.pending = Some(pending.clone());
        record.write(place.hidden())?;
        told.tell(&UpgradeStep::Recorded);
        if !place.is(&current) {
            let why = format!("{} was replaced by somebody else meanwhile", place.program.display());
            return Err(Error::new(Kind::State, why));
        }
        place.install(&pending.sha256)?;
        told.tell(&UpgradeStep::Installed);
        Ok((record, pending))
    })
    .await?;
    info!(
        message_id = events::UPGRADE_INSTALLED,
        program = %inner.plan.program.display(),
        source = %inner.plan.source,
        sha256 = pending.sha256,
        previous = pending.previous,
        "a new program is in place"
    );
    Ok((record, pending))
}

async fn settle(
    inner: &Arc<UpgradeShared>,
    place: &Arc<Place>,
    mut record: Record,
    pending: Pending,
    verdict: Verdict,
) -> Result<Done> {
    let (sha256, previous) = (pending.sha256.clone(), pending.previous.clone());
    let (reason, refused) = match verdict {
        Verdict::Taken => {
            inner.tell(&UpgradeStep::Taken);
            record.took(pending, inner.plan.keep);
            write_and_prune(inner, place, record, sha256.clone()).await?;
            if inner.plan.reload.is_none() {
                return Ok(Done::Installed { sha256, previous });
            }
            info!(
                message_id = events::UPGRADED,
                program = %inner.plan.program.display(),
                source = %inner.plan.source,
                sha256,
                previous,
                "the service runs its new program"
            );
            return Ok(Done::Upgraded { sha256, previous });
        }
        Verdict::Refused(reason) => (reason, true),
        Verdict::Unknown(reason) => (reason, false),
    };
    inner.tell(&UpgradeStep::NotTaken { reason: reason.clone() });
    let (told, back) = (Arc::clone(inner), pending.clone());
    let restored = blocking(place, move |place| {
        // Somebody else's program is not ours to replace.
        if place.look()?.sha256 != back.sha256 {
            return Ok(false);
        }
        if !place.has(&back.previous) {
            let why = format!("{}: the program of before is not what it was", place.program.display());
            return Err(Error::new(Kind::State, why));
        }
        place.install(&back.previous)?;
        told.tell(&UpgradeStep::Restored);
        Ok(true)
    })
    .await;
    let after = match &restored {
        Ok(true) => "the program of before is back in place",
        Ok(false) => "somebody else has replaced it meanwhile",
        Err(_) => "THE PROGRAM OF BEFORE COULD NOT BE PUT BACK",
    };
    error!(
        message_id = events::UPGRADE_FAILED,
        program = %inner.plan.program.display(),
        source = %inner.plan.source,
        sha256,
        previous,
        reason,
        "the service does not run its new program; {after}"
    );
    restored?;
    if refused {
        record.add_bad(&sha256, &reason);
        let seen: Option<Seen> = pending.seen;
        record.seen = seen.or(record.seen);
    }
    record.pending = None;
    write_and_prune(inner, place, record, previous).await?;
    let kind = if refused { Kind::Generation } else { Kind::Timeout };
    Err(Error::new(kind, format!("{reason}; {after}")))
}

async fn write_and_prune(
    inner: &Arc<UpgradeShared>,
    place: &Arc<Place>,
    record: Record,
    current: String,
) -> Result<()> {
    let told = Arc::clone(inner);
    blocking(place, move |place| {
        record.write(place.hidden())?;
        told.tell(&UpgradeStep::Settled);
        let kept: Vec<&str> = record.previous.iter().map(String::as_str).chain([current.as_str()]).collect();
        // What is left over costs room, no more.
        if let Err(error) = place.prune(&kept) {
            warn!(%error, "old versions are left");
        }
        told.tell(&UpgradeStep::Pruned);
        Ok(())
    })
    .await
}

/// Counts what must not be cut short; see [`Upgrade::settled`](crate::upgrade::Upgrade::settled).
struct Committing(Arc<UpgradeShared>);

impl Committing {
    fn new(inner: &Arc<UpgradeShared>) -> Self {
        inner.committing.send_modify(|count| *count += 1);
        Self(Arc::clone(inner))
    }
}

impl Drop for Committing {
    fn drop(&mut self) {
        self.0.committing.send_modify(|count| *count -= 1);
    }
}

/// Does work on files, away from the tasks of the service.
async fn blocking<C: Clone + Send + 'static, T: Send + 'static>(
    with: &C,
    work: impl FnOnce(&C) -> Result<T> + Send + 'static,
) -> Result<T> {
    let with = with.clone();
    let done = tokio::task::spawn_blocking(move || work(&with)).await;
    done.unwrap_or_else(|e| Err(Error::os("work on files", std::io::Error::other(e))))
}
