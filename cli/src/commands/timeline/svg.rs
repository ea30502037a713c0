//! As a picture: one SVG file that needs nothing else.

use std::fmt::Write as _;

use super::model::{Drain, DrainEnd, Outcome, PhaseName, Reload, Row};
use super::view::{View, generations, remarks};
use super::when::duration;
use crate::safe::{markup, wrap};

const ROW: f64 = 21.0;
const LINE: f64 = 17.0;
const BAR: f64 = 13.0;

/// Where things are, for one width of the picture.
#[derive(Debug)]
struct Layout {
    width: f64,
    margin: f64,
    number_end: f64,
    time: f64,
    generations: f64,
    /// The durations of reload and drain end here.
    reload_end: f64,
    drain_end: f64,
    /// From where to where the bars go, if somebody drains and if not.
    reload: (f64, f64),
    reload_alone: (f64, f64),
    drain: (f64, f64),
    /// Bars stand beside the numbers, else below them.
    beside: bool,
    /// Of the largest letters, and of the others.
    title_characters: usize,
    characters: usize,
    remark_characters: usize,
}

const WIDE: Layout = Layout {
    width: 1000.0,
    margin: 24.0,
    number_end: 50.0,
    time: 62.0,
    generations: 126.0,
    reload_end: 276.0,
    drain_end: 776.0,
    reload: (286.0, 690.0),
    reload_alone: (286.0, 976.0),
    drain: (786.0, 976.0),
    beside: true,
    title_characters: 80,
    characters: 135,
    remark_characters: 120,
};

/// For telephones, and for pages beside others.
const NARROW: Layout = Layout {
    width: 400.0,
    margin: 12.0,
    number_end: 36.0,
    time: 44.0,
    generations: 108.0,
    reload_end: 262.0,
    drain_end: 388.0,
    reload: (12.0, 262.0),
    reload_alone: (12.0, 388.0),
    drain: (286.0, 388.0),
    beside: false,
    title_characters: 32,
    characters: 50,
    remark_characters: 38,
};

const STYLE: &str = "\
text{font:12px system-ui,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2430}\
.t{font-size:19px;font-weight:600}.s{fill:#5b6472}.n{font-variant-numeric:tabular-nums}.b{fill:#b3261e}\
.g{stroke:#e3e6eb}.a{stroke:#9aa2ae}.z{fill:#1f2430;fill-opacity:.03}.h{paint-order:stroke;stroke:#fff;stroke-width:3px}.e{stroke:#cfd4db;stroke-dasharray:3 3}";

/// Two bars side by side, each with an axis of its own: a drain takes seconds where a reload takes
/// milliseconds.
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
        PhaseName::Ready => "#0072b2",
        PhaseName::Reload => "#882255",
        PhaseName::Switch => "#e69f00",
        PhaseName::Handover => "#009e73",
    }
}

const DRAIN: &str = "#b9a3c9";
const FAILED: &str = "#d55e00";

/// The picture of its own.
pub(super) fn render(view: &View) -> String {
    draw(view, &WIDE)
}

/// The same for narrow windows: a tall one.
pub(super) fn narrow(view: &View) -> String {
    draw(view, &NARROW)
}

fn draw(view: &View, layout: &Layout) -> String {
    let drains = view.has_drains();
    let axis = |(from, to): (f64, f64), end: u64| Axis { from, to, end };
    let reload = axis(if drains { layout.reload } else { layout.reload_alone }, view.reload_scale());
    let drain = drains.then(|| axis(layout.drain, view.drain_scale()));
    let mut body = String::new();
    let top = head(&mut body, view, layout);
    let mut y = top + if layout.beside { 28.0 } else { 44.0 };
    let rows_from = y;
    let mut rows = String::new();
    let mut date = view.rows.first().map(|row| row.began().date(&view.zone)).unwrap_or_default();
    for (number, row) in view.rows.iter().enumerate() {
        let today = row.began().date(&view.zone);
        if today != date {
            text(&mut rows, layout.time, y + 14.0, "s", "start", &today);
            y += ROW;
            date = today;
        }
        let from = y;
        let mut one = String::new();
        match row {
            Row::Reload(reloaded) => {
                y = reload_row(&mut one, y, reloaded, &reload, drain.as_ref(), view, layout);
                if number % 2 == 1 {
                    let (x, width, height) = (layout.margin, layout.width - 2.0 * layout.margin, y - from);
                    let _ = write!(
                        rows,
                        "<rect class=\"z\" x=\"{x}\" y=\"{from}\" width=\"{width}\" height=\"{height}\"/>"
                    );
                }
            }
            Row::Event(mark) => {
                let class = if mark.bad { "h b" } else { "h s" };
                let (left, right) = (layout.margin, layout.width - layout.margin);
                let _ = write!(one, "<path class=\"e\" d=\"M{left} {0}H{right}\"/>", y + 0.5);
                text(&mut one, layout.time, y + 14.0, "n s", "start", &mark.time.time(&view.zone));
                for line in wrap(&mark.text, layout.remark_characters) {
                    text(&mut one, layout.generations, y + 14.0, class, "start", &line);
                    y += LINE;
                }
                y += 4.0;
            }
        }
        rows += &one;
    }
    if view.shown > 0 {
        text(&mut body, layout.number_end, top + 20.0, "s", "end", "#");
        text(&mut body, layout.time, top + 20.0, "s", "start", "time");
        if view.has_generations() {
            text(&mut body, layout.generations, top + 20.0, "s", "start", "generation");
        }
        axis_of(&mut body, &reload, (top, y), "reload", layout);
        if let Some(drain) = &drain {
            axis_of(&mut body, drain, (top, y), "drain", layout);
        }
    }
    // The zebra must not hide the grid: grid, then rows, whose ground is almost transparent.
    body += &rows;
    y += 12.0;
    for line in view.summary().iter().flat_map(|line| wrap(line, layout.characters)) {
        y += 18.0;
        text(&mut body, layout.margin, y, "s", "start", &line);
    }
    let (width, height) = (layout.width, y.max(rows_from) + 22.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         style=\"max-width:100%;height:auto\" role=\"img\">\
         <title>{}</title><style>{STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>{body}</svg>",
        markup(&format!("{}: {}", view.unit, view.counted()))
    )
}

/// Title and legend; where they end.
fn head(body: &mut String, view: &View, layout: &Layout) -> f64 {
    let mut y = 14.0;
    for line in wrap(&crate::safe::short(&view.unit, 2 * layout.title_characters), layout.title_characters) {
        y += 24.0;
        text(body, layout.margin, y, "t", "start", &line);
    }
    y += 6.0;
    let facts = [Some(view.counted()), view.span()].into_iter().flatten();
    let facts = if layout.beside { vec![facts.collect::<Vec<_>>().join("   ·   ")] } else { facts.collect() };
    for line in facts.iter().flat_map(|fact| wrap(fact, layout.characters)) {
        y += 18.0;
        text(body, layout.margin, y, "s", "start", &line);
    }
    if view.shown == 0 {
        return y + 8.0;
    }
    let over = |axis: u64, ms: Option<u64>| ms.is_some_and(|ms| ms > axis);
    let (reload, drain) = (view.reload_scale(), view.drain_scale());
    let longer = view.each_reload().any(|r| over(reload, r.reload_ms) || over(drain, r.drain_ms()));
    let phases = PhaseName::ALL.into_iter().filter(|name| view.has_phase(*name));
    let mut entries: Vec<_> = phases.map(|name| (Some(colour(name)), name.word())).collect();
    entries.extend(view.has_drains().then_some((Some(DRAIN), "drain of the old generation")));
    entries.extend(view.each_reload().any(|r| r.outcome.is_bad()).then_some((Some(FAILED), "failed here")));
    entries.extend(longer.then_some((None, "beyond the scale")));
    legend(body, y + 27.0, &entries, layout)
}

/// In as many lines as it takes; where they end.
fn legend(body: &mut String, mut y: f64, entries: &[(Option<&str>, &str)], layout: &Layout) -> f64 {
    let mut x = layout.margin;
    for (fill, word) in entries {
        // Wider than any font has it: nothing measures text here.
        let wide = 19.0 + 6.8 * f64::from(u8::try_from(word.len()).unwrap_or(u8::MAX)) + 14.0;
        if x > layout.margin && x + wide > layout.width - layout.margin {
            (x, y) = (layout.margin, y + 20.0);
        }
        match fill {
            Some(fill) => {
                let top = y - 11.0;
                let _ = write!(
                    body,
                    "<rect x=\"{x}\" y=\"{top}\" width=\"{BAR}\" height=\"{BAR}\" rx=\"2\" fill=\"{fill}\"/>"
                );
            }
            None => text(body, x + 3.0, y, "", "start", "»"),
        }
        text(body, x + 19.0, y, "k", "start", word);
        x += wide;
    }
    y + 11.0
}

fn axis_of(body: &mut String, axis: &Axis, (top, bottom): (f64, f64), what: &str, layout: &Layout) {
    let line = if layout.beside { top + 20.0 } else { top + 36.0 };
    if layout.beside {
        text(body, axis.from - 10.0, line, "s", "end", what);
    } else {
        text(body, axis.to, top + 20.0, "s", "end", what);
    }
    for tick in axis.ticks() {
        let x = axis.x(tick);
        let class = if tick == 0 { "a" } else { "g" };
        let _ = write!(body, "<path class=\"{class}\" d=\"M{x:.1} {}V{bottom}\"/>", line + 6.0);
        // In so little room, the ends alone.
        if axis.to - axis.from > 300.0 || tick == 0 || tick == axis.end {
            let label = if tick == 0 { "0".to_owned() } else { duration(tick) };
            text(body, x, line, "s n", if tick == axis.end { "end" } else { "middle" }, &label);
        }
    }
}

/// Returns where it ends.
fn reload_row(
    rows: &mut String,
    y: f64,
    reload: &Reload,
    axis: &Axis,
    drains: Option<&Axis>,
    view: &View,
    layout: &Layout,
) -> f64 {
    let base = y + 15.0;
    let bad = reload.outcome.is_bad();
    let class = if bad { "n b" } else { "n" };
    text(rows, layout.number_end, base, "n s", "end", &reload.number.to_string());
    text(rows, layout.time, base, class, "start", &reload.began.time(&view.zone));
    let named = generations(reload, " → ");
    let named = if named.chars().count() > 11 { generations(reload, "→") } else { named };
    text(rows, layout.generations, base, class, "start", &named);
    if let Some(ms) = reload.reload_ms {
        text(rows, layout.reload_end, base, class, "end", &duration(ms));
    }
    if let Some(ms) = reload.drain_ms().filter(|_| drains.is_some()) {
        text(rows, layout.drain_end, base, "n", "end", &duration(ms));
    }
    let y = if layout.beside { y } else { y + LINE };
    let base = y + 15.0;
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
        for line in wrap(&remark, layout.remark_characters) {
            text(rows, layout.time, y + 11.0, if bad { "h b" } else { "h s" }, "start", &line);
            y += LINE;
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
