//! A reload as the journal tells it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::web::{Setup, UNIT, Web};
use crate::lab::{Container, Entry, Outcome, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new("journal_of_a_reload", journal_of_a_reload).system_only()];

fn journal_of_a_reload(lab: &Container) -> Outcome {
    let web = Web::start(lab, Setup::default())?;
    let first = lab.main_pid(UNIT)?;
    let request = web.in_flight(4, Duration::from_millis(100))?;
    let second = web.reload()?;
    request.finish()?;
    web.until_only(&[second])?;
    let third = web.reload()?;
    web.until_only(&[third])?;

    let journal = lab.journal_json(UNIT)?;
    let ids: Vec<String> = journal
        .iter()
        .filter(|e| e.message().starts_with("reload: starting"))
        .filter_map(|e| Some(e.get("HANDOVER_ID")?.into_owned()))
        .collect();
    assert_eq!(ids.len(), 2);
    assert_ne!(ids[0], ids[1]);
    for (number, (id, old, new)) in [(&ids[0], first, second), (&ids[1], second, third)].into_iter().enumerate() {
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        // As an operator asks for it.
        let text = lab.sh_ok(&format!("journalctl -o json -u {UNIT} HANDOVER_ID={id}"))?;
        assert!(text.lines().count() >= 6, "{text}");
        let told: Vec<&Entry> = journal.iter().filter(|e| e.get("HANDOVER_ID").as_deref() == Some(id)).collect();
        assert_eq!(told.len(), text.lines().count());

        let (before, after) = (number + 1, number + 2);
        let steps = [
            (format!("reload: starting generation {after}"), old, before, None),
            (format!("started generation {after}"), old, before, Some("SPAWN_MS")),
            (format!("generation {after} is ready"), old, before, Some("READY_MS")),
            (format!("handed over to generation {after}"), old, before, Some("HANDOVER_MS")),
            (format!("generation {after} is main"), new, after, Some("START_MS")),
            (format!("generation {before} drains"), old, before, None),
            (format!("generation {before} has drained"), old, before, Some("DRAIN_MS")),
        ];
        for (message, pid, generation, duration) in steps {
            let entry =
                told.iter().find(|e| e.message().starts_with(&message)).ok_or(format!("{message:?} of {id}"))?;
            let field = |name: &str| entry.get(name).unwrap_or_default().into_owned();
            assert_eq!(field("_PID"), pid.to_string(), "who says {message:?}");
            assert_eq!(field("GENERATION"), generation.to_string(), "{message}");
            assert_eq!(field("OLD_PID"), old.to_string(), "{message}");
            if !message.starts_with("reload: starting") {
                assert_eq!(field("NEW_PID"), new.to_string(), "{message}");
            }
            if let Some(name) = duration {
                assert!(field(name).parse::<u64>()? < 20_000, "{name} of {message:?}: {:?}", field(name));
            }
            assert_eq!(field("_SYSTEMD_UNIT"), UNIT, "{message}");
            assert_eq!(field("PRIORITY"), "5", "{message}");
        }
        let speakers: BTreeSet<_> = told.iter().filter_map(|e| e.get("_PID")).collect();
        assert_eq!(
            speakers,
            BTreeSet::from([old.to_string().into(), new.to_string().into()]),
            "both ends, and nobody else"
        );
    }
    Ok(())
}
