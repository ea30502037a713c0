//! As a page: the picture, and every number in a table. Needs nothing else, and runs nothing.

use std::fmt::Write as _;

use super::model::{DrainEnd, PhaseName, Reload, Row, Teller};
use super::svg;
use super::view::{View, generations, remarks};
use super::when::duration;
use crate::safe::markup;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,'Segoe UI','DejaVu Sans',sans-serif;color:#1f2430;background:#fff;max-width:1050px;margin:2em auto;padding:0 1em}\
svg{max-width:100%;height:auto;display:block}.narrow{display:none}.scrolls{overflow-x:auto}\
@media(max-width:800px){body{margin:1em auto}.wide{display:none}.narrow{display:block}}\
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}\
th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #e3e6eb;white-space:nowrap}\
th:last-child,td:last-child{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:18em}.b{color:#b3261e}footer{color:#5b6472;margin-top:2em}";

pub(super) fn render(view: &View) -> String {
    let title = markup(&format!("{}: {}", view.unit, view.counted()));
    let mut page =
        format!("<div class=\"wide\">{}</div><div class=\"narrow\">{}</div>\n", svg::render(view), svg::narrow(view));
    if view.shown > 0 {
        page += "<div class=\"scrolls\"><table><thead><tr><th>#<th>began<th>generation";
        // One that is the whole reload has that column.
        let is_part = |name: &PhaseName| *name != PhaseName::Reload && view.has_phase(*name);
        let names: Vec<_> = PhaseName::ALL.into_iter().filter(is_part).collect();
        for name in &names {
            let _ = write!(page, "<th>{}", name.word());
        }
        page += "<th>reload<th>drain<th>pids<th>outcome</tr></thead>\n<tbody>\n";
        for row in &view.rows {
            match row {
                Row::Reload(reload) => table_row(&mut page, reload, &names, view),
                Row::Event(mark) => {
                    let class = if mark.bad { " class=\"b\"" } else { "" };
                    let time = mark.time.full(&view.zone);
                    let _ = writeln!(
                        page,
                        "<tr{class}><td><td>{}<td colspan=\"{}\">{}</tr>",
                        markup(&time),
                        names.len() + 5,
                        markup(&mark.text)
                    );
                }
            }
        }
        page += "</tbody></table></div>\n";
    }
    if !view.uses_handover && view.shown > 0 {
        page += "<p>This service does not tell its phases: what is shown is systemd's account.</p>\n";
    }
    whole(&title, &page)
}

/// A page of its own around that. Both are markup already.
pub(crate) fn whole(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"script-src 'none'; object-src 'none'; img-src 'none'; connect-src 'none'\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body>\n{body}\
         <footer>handover {}</footer>\n</body></html>",
        env!("CARGO_PKG_VERSION")
    )
}

fn table_row(page: &mut String, reload: &Reload, names: &[PhaseName], view: &View) {
    let class = if reload.outcome.is_bad() { " class=\"b\"" } else { "" };
    let began = markup(&reload.began.full(&view.zone));
    let _ = write!(page, "<tr{class}><td>{}<td>{began}<td>{}", reload.number, generations(reload, " → "));
    for name in names {
        let phase = reload.phases.iter().find(|p| p.name == *name);
        let shown = phase.map(|p| format!("{}{}", if p.failed { "✗ " } else { "" }, duration(p.ms)));
        let _ = write!(page, "<td>{}", shown.unwrap_or_default());
    }
    let drain = match &reload.drain {
        Some(drain) => match (drain.ms, drain.end) {
            (_, DrainEnd::Draining) => "…".to_owned(),
            (Some(ms), _) => duration(ms),
            (None, _) => "?".to_owned(),
        },
        None => String::new(),
    };
    let pids: Vec<_> = [reload.old.pid, reload.new.pid].into_iter().flatten().map(|pid| pid.to_string()).collect();
    let mut words: Vec<_> = remarks(reload).into_iter().map(|(_, remark)| remark).collect();
    if words.is_empty() {
        words.push(match reload.told_by {
            Teller::Handover => reload.outcome.words().to_owned(),
            Teller::Systemd => format!("{}, says systemd", reload.outcome.words()),
        });
    }
    let _ = writeln!(
        page,
        "<td>{}<td>{drain}<td>{}<td>{}</tr>",
        reload.reload_ms.map(duration).unwrap_or_default(),
        pids.join(" → "),
        markup(&words.join("; "))
    );
}
