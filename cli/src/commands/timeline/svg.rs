//! As a picture: one SVG file that needs nothing else.

use std::mem::{replace, take};

use super::model::{Drain, Outcome, Reload, Row};
use super::sheet::{BAR, LINE, Sheet, painted};
use super::view::{Sign, View, generations, moved, remarks};
use super::when::duration;
use crate::safe::wrap;
use crate::svg::Drawing;

const ROW: f64 = 21.0;

/// Where things are, for one width of the picture.
#[derive(Debug)]
struct Layout {
    sheet: Sheet,
    number_end: f64,
    time: f64,
    generations: f64,
    /// The durations of reload and drain end here.
    reload_end: f64,
    drain_end: f64,
    /// From where to where the bars go. Where nobody drains those of the reload have all of it.
    reload: (f64, f64),
    drain: (f64, f64),
    /// Bars stand beside the numbers, else below them.
    beside: bool,
    remark_characters: usize,
}

const WIDE: Layout = Layout {
    sheet: Sheet { width: 1000.0, margin: 24.0, title_characters: 80, characters: 135 },
    number_end: 50.0,
    time: 62.0,
    generations: 126.0,
    reload_end: 276.0,
    drain_end: 776.0,
    reload: (286.0, 690.0),
    drain: (786.0, 976.0),
    beside: true,
    remark_characters: 120,
};

/// For telephones, and for pages beside others.
const NARROW: Layout = Layout {
    sheet: Sheet { width: 400.0, margin: 12.0, title_characters: 32, characters: 50 },
    number_end: 36.0,
    time: 44.0,
    generations: 108.0,
    reload_end: 262.0,
    drain_end: 388.0,
    reload: (12.0, 262.0),
    drain: (286.0, 388.0),
    beside: false,
    remark_characters: 38,
};

/// Two bars side by side, each with an axis of its own: a drain takes seconds where a reload takes
/// milliseconds.
#[derive(Debug, Clone, Copy)]
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
    let mut picture = Picture {
        view,
        layout,
        reload: axis(if drains { layout.reload } else { (layout.reload.0, layout.drain.1) }, view.reload_scale()),
        drain: drains.then(|| axis(layout.drain, view.drain_scale())),
        drawing: Drawing::default(),
        y: 14.0,
    };
    picture.head();
    let (top, head) = (picture.y, take(&mut picture.drawing));
    picture.y += if layout.beside { 28.0 } else { 44.0 };
    picture.rows();
    // The zebra must not hide the grid: grid, then rows, whose ground is almost transparent.
    let rows = replace(&mut picture.drawing, head);
    if view.shown > 0 {
        picture.axes(top);
    }
    picture.drawing.add(&rows);
    picture.y += 12.0;
    for line in view.summary() {
        picture.y = layout.sheet.lines(&mut picture.drawing, picture.y, &line, (18.0, "s"));
    }
    layout.sheet.picture(&picture.drawing, picture.y, &view.title())
}

struct Picture<'a> {
    view: &'a View,
    layout: &'a Layout,
    reload: Axis,
    drain: Option<Axis>,
    drawing: Drawing,
    /// So far it reaches.
    y: f64,
}

impl Picture<'_> {
    /// Title and legend.
    fn head(&mut self) {
        let (view, layout) = (self.view, self.layout);
        let facts: Vec<String> = [Some(view.counted()), view.span()].into_iter().flatten().collect();
        let facts = if layout.beside { vec![facts.join("   ·   ")] } else { facts };
        self.y = layout.sheet.head(&mut self.drawing, self.y, &view.unit, &facts);
        if view.shown == 0 {
            self.y += 8.0;
            return;
        }
        let signs = view.signs().into_iter().map(|sign| (sign, sign.word()));
        self.y = layout.sheet.legend(&mut self.drawing, self.y, signs) + 11.0;
    }

    fn axes(&mut self, top: f64) {
        let layout = self.layout;
        let y = top + 20.0;
        self.drawing.text((layout.number_end, y), "s", "end", "#");
        self.drawing.text((layout.time, y), "s", "start", "time");
        if self.view.has_generations() {
            self.drawing.text((layout.generations, y), "s", "start", "generation");
        }
        let line = if layout.beside { y } else { top + 36.0 };
        for (axis, what) in [(Some(self.reload), "reload"), (self.drain, "drain")] {
            let Some(axis) = axis else { continue };
            self.drawing.text((if layout.beside { axis.from - 10.0 } else { axis.to }, y), "s", "end", what);
            for tick in axis.ticks() {
                let x = axis.x(tick);
                let class = if tick == 0 { "class=\"a\"" } else { "class=\"g\"" };
                self.drawing.path(&format!("M{x:.1} {}V{}", line + 6.0, self.y), class, "");
                // In so little room, the ends alone.
                if axis.to - axis.from > 300.0 || tick == 0 || tick == axis.end {
                    let label = if tick == 0 { "0".to_owned() } else { duration(tick) };
                    let anchor = if tick == axis.end { "end" } else { "middle" };
                    self.drawing.text((x, line), "s n", anchor, &label);
                }
            }
        }
    }

    fn rows(&mut self) {
        let (view, layout) = (self.view, self.layout);
        let mut date = view.rows.first().map(|row| row.began().date(&view.zone)).unwrap_or_default();
        for (number, row) in view.rows.iter().enumerate() {
            let today = row.began().date(&view.zone);
            if today != date {
                self.drawing.text((layout.time, self.y + 14.0), "s", "start", &today);
                self.y += ROW;
                date = today;
            }
            let (from, above) = (self.y, take(&mut self.drawing));
            match row {
                Row::Reload(reload) => self.reload(reload),
                Row::Event(mark) => {
                    let (left, right, y) = (layout.sheet.margin, layout.sheet.width - layout.sheet.margin, from + 0.5);
                    self.drawing.path(&format!("M{left} {y}H{right}"), "class=\"e\"", "");
                    self.drawing.text((layout.time, from + 14.0), "n s", "start", &mark.time.time(&view.zone));
                    self.remark(layout.generations, 14.0, mark.bad, &mark.text);
                    self.y += 4.0;
                }
            }
            let row_itself = replace(&mut self.drawing, above);
            if number % 2 == 1 && matches!(row, Row::Reload(_)) {
                let size = (layout.sheet.width - 2.0 * layout.sheet.margin, self.y - from);
                self.drawing.rect((layout.sheet.margin, from), size, "class=\"z\"", "");
            }
            self.drawing.add(&row_itself);
        }
    }

    fn remark(&mut self, x: f64, base: f64, bad: bool, text: &str) {
        for line in wrap(text, self.layout.remark_characters) {
            self.drawing.text((x, self.y + base), if bad { "h b" } else { "h s" }, "start", &line);
            self.y += LINE;
        }
    }

    fn reload(&mut self, reload: &Reload) {
        let (layout, axis, base) = (self.layout, self.reload, self.y + 15.0);
        let class = if reload.outcome.is_bad() { "n b" } else { "n" };
        let named = generations(reload, " → ");
        let named = if named.chars().count() > 11 { generations(reload, "→") } else { named };
        let reload_took = reload.reload_ms.map(duration).unwrap_or_default();
        let drain_took = reload.drain_ms().filter(|_| self.drain.is_some()).map(duration).unwrap_or_default();
        let texts = [
            (layout.number_end, "n s", "end", reload.number.to_string()),
            (layout.time, class, "start", reload.began.time(&self.view.zone)),
            (layout.generations, class, "start", named),
            (layout.reload_end, class, "end", reload_took),
            (layout.drain_end, "n", "end", drain_took),
        ];
        for (x, class, anchor, words) in texts.iter().filter(|(.., words)| !words.is_empty()) {
            self.drawing.text((*x, base), class, anchor, words);
        }
        if !layout.beside {
            self.y += LINE;
        }
        for phase in &reload.phases {
            let (sign, failed) =
                if phase.failed { (Sign::Failed, ", failed here") } else { (Sign::Phase(phase.name), "") };
            let title = format!("{} {}{failed}", phase.name.word(), duration(phase.ms));
            self.bar(axis, (phase.start_ms, phase.start_ms.saturating_add(phase.ms)), sign, &title);
        }
        let end = match reload.outcome {
            Outcome::UnderWay => "…",
            _ if reload.reload_ms.is_some_and(|ms| ms > axis.end) => "»",
            Outcome::Interrupted => "✗",
            _ => "",
        };
        let reached = reload.phases.last().map_or(axis.from, |p| axis.x(p.start_ms.saturating_add(p.ms)));
        if !end.is_empty() {
            self.drawing.text((reached + 4.0, self.y + 15.0), class, "start", end);
        }
        if let (Some(drain), Some(axis)) = (&reload.drain, self.drain) {
            self.drain(drain, axis);
        }
        self.y += ROW;
        let moved = moved(reload).map(|moved| (false, moved));
        for (bad, remark) in moved.into_iter().chain(remarks(reload)) {
            self.remark(layout.time, 11.0, bad, &remark);
        }
    }

    fn drain(&mut self, drain: &Drain, axis: Axis) {
        let mut reached = axis.from;
        let [moving, rest] = drain.parts();
        if moving > 0 {
            self.bar(axis, (0, moving), Sign::Moving, &format!("connections moved for {}", duration(moving)));
            reached = axis.x(moving);
        }
        if let Some(ms) = drain.ms {
            let open = drain.connections.map(|n| format!(", connections open at its beginning: {n}"));
            let sign = if drain.is_bad() { Sign::Failed } else { Sign::Drain };
            self.bar(
                axis,
                (moving, moving + rest),
                sign,
                &format!("drain {}{}", duration(ms), open.unwrap_or_default()),
            );
            reached = axis.x(ms);
        }
        if let Some(end) = drain.mark(axis.end) {
            let (x, anchor) = if reached > axis.to - 14.0 { (reached - 3.0, "end") } else { (reached + 4.0, "start") };
            self.drawing.text((x, self.y + 15.0), "", anchor, &end.to_string());
        }
    }

    fn bar(&mut self, axis: Axis, (from, to): (u64, u64), sign: Sign, title: &str) {
        if from == to || from > axis.end {
            return;
        }
        let (x, width) = (axis.x(from), (axis.x(to) - axis.x(from)).max(1.0));
        self.drawing.rect((x, self.y + 4.0), (width, BAR), &painted(sign), title);
    }
}
