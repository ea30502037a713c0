//! As a page: the picture, and every number in a table.

use super::model::{DrainEnd, PhaseName, Reload, Row, Teller};
use super::svg;
use super::view::{View, generations, moved, remarks};
use super::when::duration;
use crate::page::{page, table};
use crate::terminal::Table;

pub(super) fn render(view: &View) -> String {
    let (wide, narrow) = (svg::render(view), svg::narrow(view));
    let mut body = format!("<div class=\"wide\">{wide}</div><div class=\"narrow\">{narrow}</div>\n");
    if view.shown > 0 {
        body += &format!("<div class=\"scrolls\">{}</div>\n", table(&numbers(view), "words"));
    }
    if !view.uses_handover && view.shown > 0 {
        body += "<p>This service does not tell its phases: what is shown is systemd's account.</p>\n";
    }
    page(&view.title(), &body)
}

fn numbers(view: &View) -> Table {
    // One that is the whole reload has that column.
    let is_part = |name: &PhaseName| *name != PhaseName::Reload && view.has_phase(*name);
    let names: Vec<_> = PhaseName::ALL.into_iter().filter(is_part).collect();
    let phases = names.iter().map(|name| name.word());
    let (first, last) = (["#", "began", "generation"], ["reload", "drain", "pids", "outcome"]);
    let mut all = Table::of(first.into_iter().chain(phases).chain(last));
    for row in &view.rows {
        match row {
            Row::Reload(reload) => all.line(reload.outcome.is_bad(), cells(reload, &names, view)),
            Row::Event(mark) => {
                let empty = std::iter::repeat_n(String::new(), names.len() + 4);
                let cells = [String::new(), mark.time.full(&view.zone)].into_iter().chain(empty);
                all.line(mark.bad, cells.chain([mark.text.clone()]));
            }
        }
    }
    all
}

fn cells(reload: &Reload, names: &[PhaseName], view: &View) -> Vec<String> {
    let phase = |name: &PhaseName| {
        let phase = reload.phases.iter().find(|p| p.name == *name);
        let shown = phase.map(|p| format!("{}{}", if p.failed { "✗ " } else { "" }, duration(p.ms)));
        shown.unwrap_or_default()
    };
    let drain = reload.drain.as_ref().map(|drain| match (drain.ms, drain.end) {
        (_, DrainEnd::Draining) => "…".to_owned(),
        (Some(ms), _) => duration(ms),
        (None, _) => "?".to_owned(),
    });
    let pids: Vec<_> = [reload.old.pid, reload.new.pid].into_iter().flatten().map(|pid| pid.to_string()).collect();
    let mut words: Vec<_> = remarks(reload).into_iter().map(|(_, remark)| remark).collect();
    if words.is_empty() {
        words.push(match reload.told_by {
            Teller::Handover => reload.outcome.words().to_owned(),
            Teller::Systemd => format!("{}, says systemd", reload.outcome.words()),
        });
    }
    words.extend(moved(reload));
    let mut cells = vec![reload.number.to_string(), reload.began.full(&view.zone), generations(reload, " → ")];
    cells.extend(names.iter().map(phase));
    cells.extend([reload.reload_ms.map(duration), drain].map(Option::unwrap_or_default));
    cells.extend([pids.join(" → "), words.join("; ")]);
    cells
}
