//! As a page: the picture, and every reload in a table.

use super::super::view::{generations, moved, remarks};
use super::super::when::duration;
use super::model::Fleet;
use super::svg;
use crate::page::{page, table};
use crate::terminal::Table;

pub(crate) fn render(fleet: &Fleet) -> String {
    let (wide, narrow) = (svg::render(fleet), svg::narrow(fleet));
    let body = format!(
        "<div class=\"wide\">{wide}</div><div class=\"narrow\">{narrow}</div>\n<div class=\"scrolls\">{}</div>\n",
        table(&numbers(fleet), "words")
    );
    page(&fleet.title(), &body)
}

fn numbers(fleet: &Fleet) -> Table {
    let mut all = Table::of(["batch", "machine", "began", "generation", "reload", "drain", "outcome"]);
    for batch in &fleet.batches {
        for place in &batch.reloads {
            let Some(reload) = fleet.reload(place) else { continue };
            let mut words: Vec<_> = remarks(reload).into_iter().map(|(_, remark)| remark).collect();
            if words.is_empty() {
                words.push(reload.outcome.words().to_owned());
            }
            words.extend(moved(reload));
            let cells = [
                batch.number.to_string(),
                place.machine.clone(),
                reload.began.full(&fleet.zone),
                generations(reload, " → "),
                reload.reload_ms.map(duration).unwrap_or_default(),
                reload.drain_ms().map(duration).unwrap_or_default(),
                words.join("; "),
            ];
            all.line(reload.outcome.is_bad(), cells);
        }
    }
    all
}
