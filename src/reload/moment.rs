//! Every moment that somebody is told of, in one table: the journal's event, the step, the hook,
//! the metric, the entry in the history, and the text of `systemctl status`.
//!
//! A moment is added here, once, and explained in `packaging/handover.catalog`. Tests compare the
//! catalog and the table in `docs/timeline.md` with this one.

use std::sync::Arc;
use std::time::Instant;

use tracing::Level;

use crate::reload::clock::millis;
use crate::reload::history::ReloadOutcome;
use crate::reload::hooks::When;
use crate::reload::steps::What;

/// A field of an event in the journal, besides `MESSAGE_ID` and `GENERATION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    HandoverId,
    OldPid,
    NewPid,
    StartMs,
    SpawnMs,
    ReadyMs,
    SwitchMs,
    HandoverMs,
    ReloadMs,
    DrainMs,
    ServedMs,
    ReloadSignal,
    Connections,
    Cut,
    Moved,
    Stayed,
    MoveMs,
    Kept,
    Resumed,
    Closed,
    WaitedMs,
    Reason,
    Program,
    Source,
    Sha256,
    Previous,
}

/// What a moment is told with. Which of it reaches the journal, the table says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts<'a> {
    /// The generation that tells, by its number.
    pub(crate) generation: u64,
    /// The pid of that generation.
    pub(crate) pid: u32,
    /// The number of the generation that comes after it.
    pub(crate) next: u64,
    pub(crate) old_pid: Option<u32>,
    pub(crate) new_pid: Option<u32>,
    /// The reload that the moment belongs to.
    pub(crate) handover_id: Option<Arc<str>>,
    /// When the request for that reload came.
    pub(crate) asked: Option<Instant>,
    /// When that began which the moment ends; its duration is told.
    pub(crate) since: Option<Instant>,
    /// The signals that reload the service, with a space between.
    pub(crate) reload_signal: Option<Arc<str>>,
    /// How much is open.
    pub(crate) connections: usize,
    /// How many connections went elsewhere or came from there, and how many did not.
    pub(crate) moved: usize,
    pub(crate) stayed: usize,
    /// How long it took until the last of them had gone, or how long they have waited, in
    /// milliseconds.
    pub(crate) move_ms: u64,
    /// What was cut, one line each.
    pub(crate) cut: &'a [String],
    /// Why.
    pub(crate) reason: Option<&'a str>,
    /// What the text of the moment goes on with.
    pub(crate) detail: &'a str,
    /// What `systemctl status` says as long as nothing happens.
    pub(crate) serves: String,
    /// The moment is that of one worker of a supervised program: what it has open is not known, and
    /// its reload is counted and remembered with that of the others.
    pub(crate) of_worker: bool,
}

/// What is told of a moment, and to whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MomentRow {
    /// The constant in `events`, and its `MESSAGE_ID`. `None`: the journal is not told.
    pub(crate) event: Option<(&'static str, &'static str)>,
    pub(crate) level: Level,
    pub(crate) fields: &'static [Field],
    pub(crate) step: Option<What>,
    pub(crate) hook: Option<When>,
    /// The label of the reload that is counted.
    pub(crate) counts: Option<ReloadOutcome>,
    /// The outcome of the reload that is remembered.
    pub(crate) remembers: Option<ReloadOutcome>,
    /// The templates of the text, and of what `systemctl status` says: `{generation}`, `{next}`,
    /// `{detail}`, `{reason}` and `{serves}` stand for what the [`Facts`] have.
    pub(crate) says: &'static str,
    pub(crate) status: &'static str,
}

impl<'a> Facts<'a> {
    /// A text about a generation, and nothing else.
    pub(crate) fn said(generation: u64, detail: &'a str) -> Self {
        Self { generation, detail, ..Self::default() }
    }

    /// Puts what is known into a template. What is put in is not looked at again.
    fn fill(&self, template: &str) -> String {
        let mut out = String::with_capacity(template.len() + self.detail.len());
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            match name {
                "generation" => out.push_str(&self.generation.to_string()),
                "next" => out.push_str(&self.next.to_string()),
                "detail" => out.push_str(self.detail),
                "reason" => out.push_str(self.reason.unwrap_or_default()),
                "serves" => out.push_str(&self.serves),
                // A test fills every template.
                other => debug_assert!(false, "no fact is called {other:?}"),
            }
            rest = after;
        }
        out + rest
    }
}

macro_rules! moments {
    (
        $(
            #[$doc:meta]
            $name:ident $([$constant:ident = $id:literal] $level:ident)?
            $(, fields $($field:ident)+)? $(, step $step:ident)? $(, hook $hook:ident)?
            $(, counts $counts:ident)? $(, remembers $remembers:ident)?
            $(, says $says:literal)? $(, status $status:literal)?;
        )+
    ) => {
        /// What can be told.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[cfg_attr(
            not(test),
            expect(
                dead_code,
                reason = "upgrades take only the ids, only a supervisor tells some; a test finds who tells each"
            )
        )]
        pub(crate) enum Moment {
            $(#[$doc] $name,)+
        }

        impl Moment {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name),+];

            pub(crate) fn row(self) -> MomentRow {
                match self {
                    $(Self::$name => MomentRow {
                        event: [$(Some((stringify!($constant), events::$constant)),)? None][0],
                        level: [$(Level::$level,)? Level::DEBUG][0],
                        fields: &[$($(Field::$field),+)?],
                        step: None::<What>$(.or(Some(What::$step)))?,
                        hook: None::<When>$(.or(Some(When::$hook)))?,
                        counts: None::<ReloadOutcome>$(.or(Some(ReloadOutcome::$counts)))?,
                        remembers: None::<ReloadOutcome>$(.or(Some(ReloadOutcome::$remembers)))?,
                        says: concat!($($says)?),
                        status: concat!($($status)?),
                    },)+
                }
            }
        }

        /// The `MESSAGE_ID` of each event of a service's life in the journal.
        ///
        /// Each event that the module `logging` (feature `journald`) sends to journald has a field
        /// `MESSAGE_ID`, by which programs find it and `journalctl -x` explains it, from the
        /// message catalog `packaging/handover.catalog`. An id never changes its meaning; the text
        /// of a message may. What fields each has is in [`docs::timeline`](crate::docs::timeline).
        ///
        /// ```sh
        /// journalctl -u web.service MESSAGE_ID=765edeee2c25452b996c5b995d14ff08   # reloads that failed
        /// ```
        pub mod events {
            $($(#[$doc] pub const $constant: &str = $id;)?)+

            /// All of them: what the constant is called, and the id.
            pub const ALL: &[(&str, &str)] = &[$($((stringify!($constant), $id),)?)+];
        }
    };
}

moments! {
    /// A first generation serves: a start, or a restart.
    Serves [SERVES = "b5c8a6b0b0b3469393f9fcced9b0ecce"] INFO, fields NewPid StartMs ReloadSignal,
        step Serves, hook Ready, says "generation {generation} serves{detail}", status "{serves}";
    /// A reload begins.
    Starting [RELOAD_STARTED = "b77e0132eb5a4eb89fe2129b8be81ce0"] INFO, fields HandoverId OldPid,
        says "reload: starting generation {next} from {detail}";
    /// The next generation's process runs.
    Spawned [SPAWNED = "05f9db0921164003aeca1e40eaf9599a"] INFO, fields HandoverId OldPid NewPid SpawnMs, step Started,
        says "started generation {next}";
    /// The next generation said that it is ready.
    Ready [READY = "0cd16f60fd6b448499946d9cf63ce9d0"] INFO, fields HandoverId OldPid NewPid ReadyMs, step Ready,
        says "generation {next} is ready";
    /// The next generation accepts; the old one stops accepting.
    Switched [SWITCHED = "aeb0826c5a3b4a05845a6639ee560eb3"] INFO, fields HandoverId OldPid NewPid SwitchMs,
        step Switched, hook Switch, says "generation {next} accepts";
    /// The old generation has handed over. The reload is a success from here on.
    HandedOver [HANDED_OVER = "2a755cd75f49413eb21fd6a8a5c9cbd0"] INFO, fields HandoverId OldPid NewPid HandoverMs,
        step HandedOver, hook HandedOver, counts HandedOver, says "handed over to generation {next}";
    /// The new generation says that it is main.
    Main [MAIN = "ab8f47e81693431e97a30375cebb1c91"] INFO,
        fields HandoverId OldPid NewPid StartMs ReloadSignal, step Main, remembers HandedOver, says "generation {generation} is main", status "{serves}";
    /// A generation begins to finish what it accepted.
    DrainStarted [DRAIN_STARTED = "a3288afcef174c09808237f44af2e8dd"] INFO,
        fields HandoverId OldPid NewPid Connections, hook DrainStarted, says "generation {generation} {detail}";
    /// The connections of a generation that could move to the next one have.
    Moved [MOVED = "2e540679a89d42638d0df680f35fa529"] INFO, fields HandoverId OldPid NewPid Moved Stayed MoveMs,
        step Moved, says "generation {generation} {detail}";
    /// The connections of a service that is started anew wait for that.
    Kept [KEPT = "6e160a3bd06f4bb9a278e7cebe515177"] INFO, fields OldPid Kept Stayed MoveMs, step Kept,
        says "generation {generation} {detail}";
    /// Connections that have waited for this start are served.
    Resumed [RESUMED = "41ef328e7fea4324b41521f30a1e304d"] INFO, fields NewPid Resumed Closed WaitedMs, step Resumed,
        says "generation {generation} {detail}";
    /// A generation has finished what it accepted, and exits.
    Drained [DRAINED = "d36cfa3c9c214d83aef14cebd4f2ac60"] INFO, fields HandoverId OldPid NewPid DrainMs,
        says "generation {generation} has drained and exits";
    /// The drain timeout was over: what was left was cut.
    Hammered [HAMMERED = "bcf873883b104283811f8e83ed1c9c2a"] WARN, fields HandoverId OldPid NewPid DrainMs Cut,
        step Hammered, hook Hammered, says "hammered; {detail}";
    /// One of the connections that were cut.
    Cut [CUT = "c927b3e82a0447abaadae2c4fd14cd0d"] WARN, fields HandoverId, says "cut {detail}";
    /// The next generation failed; the old one serves on.
    RolledBack [RELOAD_FAILED = "765edeee2c25452b996c5b995d14ff08"] ERROR,
        fields HandoverId OldPid NewPid ReloadMs Reason, step RolledBack, hook RolledBack, counts RolledBack,
        remembers RolledBack, says "reload failed: {detail}; {serves} on", status "{serves}; reload failed: {detail}";
    /// A reload that needed no new generation.
    InPlace [RELOADED_IN_PLACE = "64f62fc645964613b42612eca1279e29"] INFO, fields HandoverId ReloadMs, step InPlace,
        counts InPlace, remembers InPlace, says "generation {generation} was reloaded in place",
        status "{serves}; reloaded in place";
    /// The other generation died during the handover; this one serves.
    Reclaimed [RECLAIMED = "f6b46a1ee7af432c90070037ca54b5a0"] WARN, fields HandoverId,
        says "the other generation is gone: generation {generation} serves", status "{serves}";
    /// A generation that was rolled back has ended.
    NextEnded [NEXT_ENDED = "e29b9b04d64b4ec1b0d257e5e33f3832"] INFO, fields NewPid,
        says "rolled-back generation {generation} {detail}";
    /// Too many generations drain; the oldest is hammered.
    TooManyDrain [TOO_MANY_DRAIN = "960e29f167234334957517c1c64326d8"] WARN, fields OldPid,
        says "more than {detail} generations drain: hammering generation {generation}";
    /// A draining generation hung, and was killed.
    DrainerKilled [DRAINER_KILLED = "9bcacfbf1c844a95b06fe76e0fcf043b"] WARN, fields OldPid,
        says "generation {generation} hangs beyond its drain timeout: killing it";
    /// Nothing new is taken, for some time: clients wait.
    Paused [PAUSED = "be41fa919c244c709c7d621d33b4a772"] INFO, fields Connections, step Paused,
        says "generation {generation} {detail}", status "{serves}";
    /// In a pause nothing is in hand any more.
    AtRest [AT_REST = "6321b58b23764bfe9326575e72d4d4d9"] INFO, step AtRest,
        says "generation {generation} {detail}", status "{serves}";
    /// The pause is over: who has waited is served.
    PauseOver [PAUSE_OVER = "6f6f38bbd53541ed99b16304f299caa2"] INFO, fields Reason, step PauseOver,
        says "generation {generation} serves again: {reason}", status "{serves}";
    /// The service has had nothing to do for as long as is set, and exits until a client comes.
    Idle [IDLE = "e764923c246445cb8014a52e0b531378"] INFO, says "generation {generation} {detail}";
    /// The service was told to stop.
    Stop [STOP = "8b2b91128d8b4f39aa3f958040bb5f26"] INFO, says "{detail}";
    /// The application's own check failed, or hung: the watchdog is not fed.
    Unhealthy [UNHEALTHY = "7fbcf5385a4845c0b60860a81cf5c3c7"] ERROR, fields Reason, says "{detail}",
        status "unhealthy: {reason}";
    /// It passes again.
    Healthy [HEALTHY = "1c973c0bae5f46d68d3a486bcd0590ba"] INFO, says "healthy again",
        status "generation {generation} serves; healthy again";
    /// This generation gave up before it came to serve.
    Failed [FAILED = "b1f80a339fef46878428c127280d9ce0"] ERROR, says "generation {generation} {detail}";
    /// The previous generation told this one to go.
    Dismissed [DISMISSED = "82bbdcdd1c4a4a889a3bc94b081c74c3"] WARN, fields Reason,
        says "dismissed by the previous generation";
    /// A process of a supervised program has ended that nobody had told to; it is started again.
    Crashed [CRASHED = "154c3ce1154b4556a1cee0f527395a8c"] ERROR, fields OldPid ServedMs, step Crashed,
        says "generation {generation} {detail}";
    /// After a loop of crashes a supervised program goes back to its last good version.
    WentBack [WENT_BACK = "071f3419f47a4f6fb2660d6dc7782089"] WARN, says "{detail}";
    /// A supervisor goes on as a new version of itself.
    Renewed [RENEWED = "8c5d975b6ae349578e0349fbc89a9e47"] INFO, fields NewPid, says "{detail}";
    /// A new program is in place of the running one; the service is asked to reload.
    UpgradeInstalled [UPGRADE_INSTALLED = "2cfa92ad9008405aab6ca2b08ed0b038"] INFO,
        fields Program Source Sha256 Previous;
    /// The service runs its new program.
    Upgraded [UPGRADED = "4bccadc1652d48c3a04b7606fbb9345d"] INFO, fields Program Source Sha256 Previous;
    /// The service does not run its new program; the one of before is back in place.
    UpgradeFailed [UPGRADE_FAILED = "68d5edbe88484ff482673d3bce6f879f"] ERROR,
        fields Program Source Sha256 Previous Reason;
    /// A new program is not what it should be, and was not installed.
    UpgradeRefused [UPGRADE_REFUSED = "a90fc51967154f9e94679849670ca486"] ERROR, fields Program Source Sha256 Reason;

    // What the journal is not told.
    /// A reload begins; hooks may still hold it back.
    Reloading, step Reloading, status "{serves}; {detail}";
    /// This next generation is ready, and has told the previous one.
    Standby, hook Ready;
    /// This next generation accepts.
    Accepts, hook Switch;
    /// The service manager is told of the next generation.
    TakesOver, status "generation {next} takes over";
    /// This generation is main, after a reload or from the start.
    IsMain, hook Main;
    /// A generation of a supervised program is main that took over from no other.
    FirstMain, step Main;
    /// All workers of a supervised program have been replaced.
    AllReplaced, counts HandedOver, remembers HandedOver, status "{serves}";
    /// This generation, which has handed over, finishes what it accepted.
    Draining, step Draining;
    /// This generation finishes what it accepted, and the service ends with it.
    Stopping, step Stopping, status "stopping{detail}";
    /// This generation is over.
    Exits, step Exits;
    /// The process is about to exit.
    BeforeExit, hook BeforeExit;
}

/// One event, with the fields of its row; a field that is `None` is not there.
macro_rules! emit {
    ($level:ident, $message_id:expr, $facts:expr, $has:expr, $text:expr) => {{
        let (facts, has) = ($facts, $has);
        let took = |field| facts.since.filter(|_| has(field)).map(millis);
        tracing::$level!(
            message_id = $message_id,
            generation = Some(facts.generation).filter(|number| *number > 0),
            handover_id = facts.handover_id.as_deref().filter(|_| has(Field::HandoverId)),
            old_pid = facts.old_pid.filter(|_| has(Field::OldPid)),
            new_pid = facts.new_pid.filter(|_| has(Field::NewPid)),
            start_ms = took(Field::StartMs),
            spawn_ms = took(Field::SpawnMs),
            ready_ms = took(Field::ReadyMs),
            switch_ms = took(Field::SwitchMs),
            handover_ms = took(Field::HandoverMs),
            reload_ms = took(Field::ReloadMs),
            drain_ms = took(Field::DrainMs),
            served_ms = took(Field::ServedMs),
            reload_signal = facts.reload_signal.as_deref().filter(|_| has(Field::ReloadSignal)),
            connections = Some(facts.connections).filter(|_| has(Field::Connections) && !facts.of_worker),
            cut = Some(facts.cut.len()).filter(|_| has(Field::Cut) && !facts.of_worker),
            moved = Some(facts.moved).filter(|_| has(Field::Moved)),
            stayed = Some(facts.stayed).filter(|_| has(Field::Stayed)),
            move_ms = Some(facts.move_ms).filter(|_| has(Field::MoveMs)),
            kept = Some(facts.moved).filter(|_| has(Field::Kept)),
            resumed = Some(facts.moved).filter(|_| has(Field::Resumed)),
            closed = Some(facts.stayed).filter(|_| has(Field::Closed)),
            waited_ms = Some(facts.move_ms).filter(|_| has(Field::WaitedMs)),
            reason = facts.reason.filter(|_| has(Field::Reason)),
            "{}",
            $text
        );
    }};
}

impl Moment {
    /// Tells the journal alone. Tasks beside the driver have nobody else to tell.
    pub(crate) fn log(self, facts: &Facts<'_>) {
        let row = self.row();
        let Some((_, id)) = row.event else { return };
        let (has, text) = (|field: Field| row.fields.contains(&field), facts.fill(row.says));
        match row.level {
            Level::ERROR => emit!(error, id, facts, has, text),
            Level::WARN => emit!(warn, id, facts, has, text),
            _ => emit!(info, id, facts, has, text),
        }
    }

    /// What `systemctl status` says at this moment.
    pub(crate) fn status(self, facts: &Facts<'_>) -> String {
        facts.fill(self.row().status)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    use super::*;

    const CATALOG: &str = include_str!("../../packaging/handover.catalog");
    const CHAPTER: &str = include_str!("../docs/timeline.md");
    const MARK: &str = "<!-- the table below is written by HANDOVER_BLESS=1 cargo test --lib moment -->\n";

    #[test]
    fn ids_are_128_bits_and_unique() {
        let unique: BTreeSet<_> = events::ALL.iter().map(|(_, id)| id).collect();
        assert_eq!(unique.len(), events::ALL.len());
        let is_hex = |id: &str| id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        assert!(events::ALL.iter().all(|(_, id)| is_hex(id)));
    }

    #[test]
    fn the_catalog_explains_each_and_no_other() {
        let ours: BTreeSet<_> = events::ALL.iter().map(|(_, id)| *id).collect();
        let explained: Vec<_> = CATALOG.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        assert_eq!(explained.len(), ours.len(), "each once");
        assert_eq!(explained.into_iter().collect::<BTreeSet<_>>(), ours);
        for entry in CATALOG.split("\n-- ").skip(1) {
            let (id, rest) = entry.split_once('\n').unwrap();
            let (head, text) = rest.split_once("\n\n").expect("an empty line ends the head");
            assert!(head.contains("Subject: ") && head.contains("Defined-By: handover"), "{id}");
            assert!(!text.trim().is_empty() && !text.contains('\t'), "{id} says nothing");
        }
    }

    #[test]
    fn the_chapter_has_the_table() {
        let (head, rest) = CHAPTER.split_once(MARK).expect("docs/timeline.md has the mark");
        let (_, tail) = rest.split_once("\n\n").expect("an empty line ends the table");
        let table = render();
        if std::env::var_os("HANDOVER_BLESS").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/timeline.md");
            std::fs::write(path, format!("{head}{MARK}{table}\n{tail}")).expect("docs/timeline.md can be written");
            return;
        }
        assert!(rest.starts_with(&table), "docs/timeline.md is stale: HANDOVER_BLESS=1 cargo test --lib moment");
    }

    #[test]
    fn each_template_names_facts() {
        let facts = Facts { generation: 1, next: 2, detail: "{next}", ..Facts::default() };
        for moment in Moment::ALL {
            let (says, status) = (facts.fill(moment.row().says), moment.status(&facts));
            assert!(!says.contains("{generation}") && !status.contains("{serves}"), "{moment:?}: {says} {status}");
        }
        assert_eq!(facts.fill("{generation}: {detail}"), "1: {next}", "what is put in is no template");
    }

    #[test]
    fn each_is_told_somewhere() {
        let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut sources = String::new();
        let mut open = ["reload", "service", "supervise", "upgrade"].map(|room| top.join(room)).to_vec();
        while let Some(path) = open.pop() {
            match path.is_dir() {
                true => open.extend(std::fs::read_dir(path).unwrap().flatten().map(|entry| entry.path())),
                false => sources += &std::fs::read_to_string(path).unwrap(),
            }
        }
        for moment in Moment::ALL {
            let by_event = moment.row().event.is_some_and(|(name, _)| sources.contains(&format!("events::{name},")));
            assert!(by_event || sources.contains(&format!("Moment::{moment:?}")), "{moment:?}");
        }
    }

    fn render() -> String {
        let mut table = String::from(
            "| moment | `MESSAGE_ID` | fields | step | hook | outcome | `STATUS=` |\n|---|---|---|---|---|---|---|\n",
        );
        let code = |text: String| format!("`{text}`");
        for moment in Moment::ALL {
            let row = moment.row();
            let (name, id) = match row.event {
                Some((name, id)) => (code(name.to_owned()), id),
                None => (format!("{moment:?}"), "no event"),
            };
            let fields: Vec<_> = row.fields.iter().map(|field| code(screaming(&format!("{field:?}")))).collect();
            let cells = [
                row.step.map(|step| code(format!("{step:?}"))),
                row.hook.map(|hook| code(format!("{hook:?}"))),
                row.counts.or(row.remembers).map(|outcome| code(outcome.code().to_owned())),
                Some(row.status.to_owned()).filter(|status| !status.is_empty()).map(code),
            ];
            let cells = cells.map(Option::unwrap_or_default).join(" | ");
            let _ = writeln!(table, "| {name} | {id} | {} | {cells} |", fields.join(" "));
        }
        table
    }

    fn screaming(name: &str) -> String {
        let mut out = String::new();
        for c in name.chars() {
            if c.is_ascii_uppercase() && !out.is_empty() {
                out.push('_');
            }
            out.push(c.to_ascii_uppercase());
        }
        out
    }
}
