//! As a picture: one SVG file that needs nothing else.

use std::fmt::Write as _;

use super::model::{Drain, DrainEnd, Outcome, PhaseName, Reload, Row};
use super::view::{View, generations, remarks};
use super::when::duration;
use crate::safe::{markup, wrap};

const WIDTH: f64 = 1000.0;
const ROW: f64 = 21.0;
const BAR: f64 = 13.0;
/// Characters of a remark's line: of the widest, in the font's size, so many fit.
const REMARK_CHARACTERS: usize = 130;

const NUMBER_END: f64 = 50.0;
const TIME: f64 = 62.0;
const GENERATIONS: f64 = 128.0;
const RELOAD_END: f64 = 258.0;
const RIGHT: f64 = 976.0;

const STYLE: &str = "\
text{font:12px system-ui,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2430}\
.t{font-size:19px;font-weight:600}.s{fill:#5b6472}.n{font-variant-numeric:tabular-nums}.b{fill:#b3261e}\
.g{stroke:#e3e6eb}.a{stroke:#9aa2ae}.z{fill:#1f2430;fill-opacity:.03}.h{paint-order:stroke;stroke:#fff;stroke-width:3px}.e{stroke:#cfd4db;stroke-dasharray:3 3}";

/// Two bars side by side, each with an axis of its own: a drain takes seconds where a reload takes milliseconds.
struct Axis {
    from: f64,
    to: f64,
    end: u64,
}

impl Axis {
    #[expect(clippy::cast_precision_loss, reason = "a picture has fewer pixels than a float has digits")]
    fn x(&self, ms: u64) -> f64 {
        self.from + (ms as f64 / self.end as f64).min(1.0) * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = u64> {
        let parts = [4, 5, 3, 2].into_iter().find(|n| self.end.is_multiple_of(*n)).unwrap_or(1);
        let step = self.end / parts;
        (0..=parts).map(move |i| i * step)
    }
}

fn colour(name: PhaseName) -> &'static str {
    match name {
        PhaseName::Spawn => "#56b4e9",
        PhaseName::Ready | PhaseName::Reload => "#0072b2",
        PhaseName::Switch => "#e69f00",
        PhaseName::Handover => "#009e73",
    }
}

const DRAIN: &str = "#b9a3c9";
const FAILED: &str = "#d55e00";

pub(super) fn render(view: &View) -> String {
    let drains = view.has_drains();
    let reload = Axis { from: 268.0, to: if drains { 690.0 } else { RIGHT }, end: view.reload_scale() };
    let drain = drains.then(|| Axis { from: 786.0, to: RIGHT, end: view.drain_scale() });
    let mut body = String::new();
    let top = head(&mut body, view);
    let mut y = top + 28.0;
    let rows_from = y;
    let mut rows = String::new();
    let mut date = view.rows.first().map(|row| row.began().date(&view.zone)).unwrap_or_default();
    for (number, row) in view.rows.iter().enumerate() {
        let today = row.began().date(&view.zone);
        if today != date {
            text(&mut rows, TIME, y + 14.0, "s", "start", &today);
            y += ROW;
            date = today;
        }
        if number % 2 == 1 && matches!(row, Row::Reload(_)) {
            let _ = write!(rows, "<rect class=\"z\" x=\"24\" y=\"{y}\" width=\"{}\" height=\"{ROW}\"/>", WIDTH - 48.0);
        }
        match row {
            Row::Reload(one) => y = reload_row(&mut rows, y, one, &reload, drain.as_ref(), view),
            Row::Event(mark) => {
                let class = if mark.bad { "h b" } else { "h s" };
                let _ = write!(rows, "<path class=\"e\" d=\"M24 {0}H{1}\"/>", y + 0.5, WIDTH - 24.0);
                text(&mut rows, TIME, y + 14.0, "n s", "start", &mark.time.time(&view.zone));
                for line in wrap(&mark.text, REMARK_CHARACTERS - 10) {
                    text(&mut rows, GENERATIONS, y + 14.0, class, "start", &line);
                    y += ROW - 4.0;
                }
                y += 4.0;
            }
        }
    }
    if view.shown > 0 {
        text(&mut body, NUMBER_END, top + 20.0, "s", "end", "#");
        text(&mut body, TIME, top + 20.0, "s", "start", "time");
        if view.has_generations() {
            text(&mut body, GENERATIONS, top + 20.0, "s", "start", "generation");
        }
        axis(&mut body, &reload, top, y, "reload");
        if let Some(drain) = &drain {
            axis(&mut body, drain, top, y, "drain");
        }
    }
    // The zebra must not hide the grid: grid, then rows, whose ground is almost transparent.
    body += &rows;
    y += 12.0;
    for line in view.summary() {
        y += 18.0;
        text(&mut body, 24.0, y, "s", "start", &line);
    }
    let height = y.max(rows_from) + 22.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\
         <title>{}</title><style>{STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>{body}</svg>",
        markup(&format!("{}: {}", view.unit, view.counted()))
    )
}

/// Title and legend; where they end.
fn head(body: &mut String, view: &View) -> f64 {
    let title = crate::safe::short(&view.unit, 80);
    text(body, 24.0, 38.0, "t", "start", &title);
    let facts: Vec<_> = [Some(view.counted()), view.span()].into_iter().flatten().collect();
    text(body, 24.0, 62.0, "s", "start", &facts.join("   ·   "));
    if view.shown == 0 {
        return 70.0;
    }
    let mut x = 24.0;
    let mut entry = |body: &mut String, fill: &str, word: &str, wide: f64| {
        let _ = write!(body, "<rect x=\"{x}\" y=\"78\" width=\"{BAR}\" height=\"{BAR}\" rx=\"2\" fill=\"{fill}\"/>");
        text(body, x + 19.0, 89.0, "", "start", word);
        x += wide;
    };
    for name in PhaseName::ALL.into_iter().filter(|name| view.has_phase(*name)) {
        entry(body, colour(name), name.word(), 96.0);
    }
    if view.has_drains() {
        entry(body, DRAIN, "drain of the old generation", 200.0);
    }
    if view.each_reload().any(|r| r.outcome.is_bad()) {
        entry(body, FAILED, "failed here", 110.0);
    }
    let over = |axis: u64, ms: Option<u64>| ms.is_some_and(|ms| ms > axis);
    let (reload, drain) = (view.reload_scale(), view.drain_scale());
    if view.each_reload().any(|r| over(reload, r.reload_ms) || over(drain, r.drain_ms())) {
        text(body, x, 89.0, "", "start", "»  beyond the scale");
    }
    100.0
}

fn axis(body: &mut String, axis: &Axis, top: f64, bottom: f64, what: &str) {
    text(body, axis.from - 10.0, top + 20.0, "s", "end", what);
    for tick in axis.ticks() {
        let x = axis.x(tick);
        let class = if tick == 0 { "a" } else { "g" };
        let _ = write!(body, "<path class=\"{class}\" d=\"M{x:.1} {}V{bottom}\"/>", top + 26.0);
        // In so little room, the ends alone.
        if axis.to - axis.from > 300.0 || tick == 0 || tick == axis.end {
            let label = if tick == 0 { "0".to_owned() } else { duration(tick) };
            text(body, x, top + 20.0, "s n", if tick == axis.end { "end" } else { "middle" }, &label);
        }
    }
}

fn reload_row(rows: &mut String, y: f64, reload: &Reload, axis: &Axis, drains: Option<&Axis>, view: &View) -> f64 {
    let base = y + 15.0;
    let bad = reload.outcome.is_bad();
    let class = if bad { "n b" } else { "n" };
    text(rows, NUMBER_END, base, "n s", "end", &reload.number.to_string());
    text(rows, TIME, base, class, "start", &reload.began.time(&view.zone));
    text(rows, GENERATIONS, base, class, "start", &generations(reload, " → "));
    if let Some(ms) = reload.reload_ms {
        text(rows, RELOAD_END, base, class, "end", &duration(ms));
    }
    for phase in &reload.phases {
        let fill = if phase.failed { FAILED } else { colour(phase.name) };
        let failed = if phase.failed { ", failed here" } else { "" };
        let title = format!("{} {}{failed}", phase.name.word(), duration(phase.ms));
        bar(rows, y, axis, (phase.start_ms, phase.start_ms.saturating_add(phase.ms)), fill, &title);
    }
    let end = match reload.outcome {
        Outcome::UnderWay => Some("…"),
        _ if reload.reload_ms.is_some_and(|ms| ms > axis.end) => Some("»"),
        Outcome::Interrupted => Some("✗"),
        _ => None,
    };
    let reached = reload.phases.last().map_or(axis.from, |p| axis.x(p.start_ms.saturating_add(p.ms)));
    if let Some(end) = end {
        text(rows, reached + 4.0, base, class, "start", end);
    }
    if let (Some(drain), Some(axis)) = (&reload.drain, drains) {
        drain_bar(rows, y, drain, axis);
    }
    let mut y = y + ROW;
    for (bad, remark) in remarks(reload) {
        for line in wrap(&remark, REMARK_CHARACTERS) {
            text(rows, TIME, y + 11.0, if bad { "h b" } else { "h s" }, "start", &line);
            y += ROW - 4.0;
        }
    }
    y
}

fn drain_bar(rows: &mut String, y: f64, drain: &Drain, axis: &Axis) {
    let base = y + 15.0;
    let end = match drain.end {
        DrainEnd::Drained if drain.ms.is_some_and(|ms| ms > axis.end) => "»",
        DrainEnd::Drained => "",
        DrainEnd::Hammered | DrainEnd::Killed => "✗",
        DrainEnd::Unknown => "?",
        DrainEnd::Draining => "…",
    };
    let mut reached = axis.from;
    if let Some(ms) = drain.ms {
        text(rows, axis.from - 10.0, base, "n", "end", &duration(ms));
        let open = drain.connections.map(|n| format!(", connections open at its beginning: {n}")).unwrap_or_default();
        let fill = if matches!(drain.end, DrainEnd::Hammered | DrainEnd::Killed) { FAILED } else { DRAIN };
        bar(rows, y, axis, (0, ms), fill, &format!("drain {}{open}", duration(ms)));
        reached = axis.x(ms);
    }
    if !end.is_empty() {
        let inside = reached > axis.to - 14.0;
        text(
            rows,
            if inside { reached - 3.0 } else { reached + 4.0 },
            base,
            "",
            if inside { "end" } else { "start" },
            end,
        );
    }
}

fn bar(rows: &mut String, y: f64, axis: &Axis, (from, to): (u64, u64), fill: &str, title: &str) {
    if from == to || from > axis.end {
        return;
    }
    let (x, width) = (axis.x(from), (axis.x(to) - axis.x(from)).max(1.0));
    let _ = write!(
        rows,
        "<rect x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{fill}\"><title>{}</title></rect>",
        y + 4.0,
        markup(title)
    );
}

fn text(to: &mut String, x: f64, y: f64, class: &str, anchor: &str, words: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let anchor = if anchor == "start" { String::new() } else { format!(" text-anchor=\"{anchor}\"") };
    let _ = write!(to, "<text x=\"{x:.1}\" y=\"{y:.1}\"{class}{anchor}>{}</text>", markup(words));
}
