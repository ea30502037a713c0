//! As a picture: one SVG file that needs nothing else.

use super::super::model::{Outcome, Reload, Row};
use super::super::sheet::{BAR, LINE, Sheet, painted, width_of};
use super::super::view::{Sign, remarks};
use super::super::when::{Moment, duration, round_duration};
use super::model::{Batch, Fleet, Lane, Span, drained, ended};
use super::text::facts;
use crate::safe::short;
use crate::svg::Drawing;

const ROW: f64 = 30.0;
const GOOD: Sign = Sign::Phase(super::super::model::PhaseName::Handover);
/// So that what takes milliseconds is seen among minutes.
const NARROWEST: f64 = 4.0;

/// Where things are, for one width of the picture.
#[derive(Debug)]
struct Layout {
    sheet: Sheet,
    /// From where to where time goes.
    axis: (f64, f64),
    /// Names of machines stand beside their lanes, else above them.
    beside: bool,
    /// No more than so many.
    ticks: u64,
}

const WIDE: Layout = Layout {
    sheet: Sheet { width: 1000.0, margin: 24.0, title_characters: 80, characters: 130 },
    axis: (190.0, 970.0),
    beside: true,
    ticks: 6,
};

/// For telephones, and for pages beside others.
const NARROW: Layout = Layout {
    sheet: Sheet { width: 400.0, margin: 12.0, title_characters: 32, characters: 48 },
    axis: (16.0, 384.0),
    beside: false,
    ticks: 2,
};

/// The picture of its own.
pub(crate) fn render(fleet: &Fleet) -> String {
    draw(fleet, &WIDE)
}

/// The same for narrow windows: a tall one.
pub(super) fn narrow(fleet: &Fleet) -> String {
    draw(fleet, &NARROW)
}

fn draw(fleet: &Fleet, layout: &Layout) -> String {
    let mut picture = Picture { fleet, layout, drawing: Drawing::default(), y: 14.0 };
    picture.head();
    if let Some(span) = fleet.span() {
        picture.legend();
        picture.chart(Axis { span, layout });
    }
    picture.failures();
    layout.sheet.picture(&picture.drawing, picture.y, &fleet.title())
}

#[derive(Debug, Clone, Copy)]
struct Axis<'a> {
    span: Span,
    layout: &'a Layout,
}

impl Axis<'_> {
    #[expect(clippy::cast_precision_loss, reason = "a picture has fewer pixels than a float has digits")]
    fn x(self, at: Moment) -> f64 {
        let (from, to) = self.layout.axis;
        from + (at.since(self.span.from) as f64 / self.span.ms.max(1) as f64).min(1.0) * (to - from)
    }

    /// Which batches have room for their number, those that failed first, and where.
    fn named(self, batches: &[Batch]) -> Vec<(f64, &Batch)> {
        let (bad, good): (Vec<_>, Vec<_>) = batches.iter().partition(|batch| batch.bad > 0);
        let wide = |batch: &Batch| width_of(&batch.number.to_string());
        let mut named: Vec<(f64, &Batch)> = Vec::new();
        for batch in bad.into_iter().chain(good) {
            let x = (self.x(batch.began) - 3.0).min(self.layout.axis.1 - wide(batch));
            let apart = |(at, other): &(f64, &Batch)| x + wide(batch) + 6.0 <= *at || at + wide(other) + 6.0 <= x;
            if named.iter().all(apart) {
                named.push((x, batch));
            }
        }
        named.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        named
    }
}

struct Picture<'a> {
    fleet: &'a Fleet,
    layout: &'a Layout,
    drawing: Drawing,
    /// So far it reaches.
    y: f64,
}

impl Picture<'_> {
    fn head(&mut self) {
        let fleet = self.fleet;
        let machines = format!("{}: {}", fleet.machines_words(), fleet.counted());
        let facts: Vec<_> =
            [Some(machines), fleet.span().map(|span| fleet.span_words(span))].into_iter().flatten().collect();
        self.y = self.layout.sheet.head(&mut self.drawing, self.y, &fleet.unit, &facts);
    }

    fn legend(&mut self) {
        let signs = [(GOOD, "reload"), (Sign::Drain, "drain"), (Sign::Failed, "failed")];
        self.y = self.layout.sheet.legend(&mut self.drawing, self.y, signs) + 14.0;
    }

    fn chart(&mut self, axis: Axis<'_>) {
        let (fleet, layout) = (self.fleet, self.layout);
        let row = if layout.beside { ROW } else { ROW + LINE };
        let lanes = f64::from(u32::try_from(fleet.machines.len()).unwrap_or(u32::MAX));
        let (top, bottom) = (self.y + 40.0, self.y + 46.0 + row * lanes);
        self.ticks(axis, (top, bottom));
        self.batches(axis, (top, bottom));
        self.y = top + 6.0;
        for lane in &fleet.machines {
            self.lane(axis, lane);
        }
        self.y = bottom;
    }

    /// At round times, and what the whole took, where there is room for that.
    fn ticks(&mut self, axis: Axis<'_>, (top, bottom): (f64, f64)) {
        let whole = axis.span.ms;
        let step = step(whole, self.layout.ticks);
        let (mut ticks, mut used): (Vec<_>, _) = ((0..=whole / step).map(|tick| tick * step).collect(), 0.0);
        ticks.push(whole);
        for (number, ms) in ticks.iter().enumerate() {
            let x = axis.x(axis.span.from.later(*ms));
            let (label, anchor) = match *ms {
                0 => (axis.span.from.time(&self.fleet.zone), "start"),
                ms if number + 1 == ticks.len() => (format!("+{}", duration(ms)), "end"),
                ms => (format!("+{}", round_duration(ms)), "middle"),
            };
            let wide = width_of(&label);
            let (from, to) = match anchor {
                "start" => (x, x + wide),
                "end" => (x - wide, x),
                _ => (x - wide / 2.0, x + wide / 2.0),
            };
            if number > 0 && (from < used || to > self.layout.axis.1 + 1.0) {
                continue;
            }
            used = to + 6.0;
            self.drawing.path(&format!("M{x:.1} {}V{bottom:.1}", top - 4.0), "class=\"g\"", "");
            self.drawing.text((x, top - 8.0), "s n", anchor, &label);
        }
    }

    /// Bands behind the lanes.
    fn batches(&mut self, axis: Axis<'_>, (top, bottom): (f64, f64)) {
        for batch in &self.fleet.batches {
            let (from, to) = (axis.x(batch.began) - 3.0, axis.x(batch.ended) + 3.0);
            let size = ((to - from).max(NARROWEST + 6.0), bottom - top);
            let fill = if batch.bad > 0 { "#d55e00" } else { "#0072b2" };
            let attributes = format!("fill=\"{fill}\" fill-opacity=\".10\"");
            self.drawing.rect((from, top), size, &attributes, &Fleet::batch_words(batch));
        }
        let named = axis.named(&self.fleet.batches);
        for (number, (x, batch)) in named.iter().enumerate() {
            let room = named.get(number + 1).map_or(self.layout.axis.1, |(next, _)| next - 6.0) - x;
            let full = Fleet::batch_words(batch);
            let fits = self.layout.beside && width_of(&full) <= room;
            let words = if fits { full } else { batch.number.to_string() };
            self.drawing.text((*x, top - 24.0), if batch.bad > 0 { "b" } else { "s" }, "start", &words);
        }
    }

    fn lane(&mut self, axis: Axis<'_>, lane: &Lane) {
        let layout = self.layout;
        let bad = lane.view.each_reload().any(|reload| reload.outcome.is_bad());
        let class = if bad { "b" } else { "" };
        if layout.beside {
            self.drawing.text((layout.axis.0 - 14.0, self.y + 19.0), class, "end", &short(&lane.machine, 22));
        } else {
            self.drawing.text((layout.sheet.margin, self.y + 12.0), class, "start", &short(&lane.machine, 40));
            self.y += LINE;
        }
        let line = self.y + 14.5;
        self.drawing.path(&format!("M{:.1} {line:.1}H{:.1}", layout.axis.0, layout.axis.1), "class=\"g\"", "");
        let reloads: Vec<_> = lane.view.each_reload().collect();
        let mut used = layout.axis.0;
        for (number, reload) in reloads.iter().enumerate() {
            let next = reloads.get(number + 1).map(|next| axis.x(next.began));
            used = self.reload(axis, reload, used, next);
        }
        for row in &lane.view.rows {
            if let Row::Event(mark) = row
                && mark.bad
                && mark.time >= axis.span.from
            {
                let x = axis.x(mark.time);
                let shape = format!("M{:.1} {:.1}l5 -9h-10z", x, self.y + 8.0);
                self.drawing.path(&shape, &painted(Sign::Failed), &mark.text);
            }
        }
        self.y += ROW;
    }

    /// `used`: so far the lane is; returns how far it is then.
    fn reload(&mut self, axis: Axis<'_>, reload: &Reload, used: f64, next: Option<f64>) -> f64 {
        let y = self.y + 8.0;
        let (from, to) = (axis.x(reload.began), axis.x(ended(reload)));
        let gone = drained(reload).map_or(to, |at| axis.x(at));
        if gone > from && reload.drain.is_some() {
            let title = format!("drain {}", reload.drain_ms().map(duration).unwrap_or_default());
            self.drawing.rect((from, y + 3.0), (gone - from, BAR - 6.0), &painted(Sign::Drain), &title);
        }
        let bad = reload.outcome.is_bad();
        let (sign, title) =
            (if bad { Sign::Failed } else { GOOD }, format!("{}: {}", reload.outcome.words(), facts(reload, ", ")));
        let width = (to - from).max(NARROWEST);
        self.drawing.rect((from, y), (width, BAR), &painted(sign), &title);
        let words = match reload.outcome {
            Outcome::HandedOver | Outcome::Reloaded => facts(reload, ", "),
            outcome => format!("{} {}", facts(reload, ", "), outcome.words()),
        };
        let (wide, reached) = (width_of(&words), gone.max(from + width) + 6.0);
        let class = if bad { "h b n" } else { "h s n" };
        // Beside it, where the next reload of this machine leaves room.
        if reached + wide <= next.unwrap_or(self.layout.axis.1) {
            self.drawing.text((reached, y + 11.0), class, "start", &words);
            return reached + wide;
        }
        if from - wide - 6.0 >= used {
            self.drawing.text((from - 6.0, y + 11.0), class, "end", &words);
        }
        reached
    }

    /// Why, in words, below the picture.
    fn failures(&mut self) {
        let fleet = self.fleet;
        self.y += 8.0;
        for place in fleet.batches.iter().flat_map(|batch| &batch.reloads) {
            let Some(reload) = fleet.reload(place) else { continue };
            for (_, remark) in remarks(reload).into_iter().filter(|(bad, _)| *bad) {
                let text = format!("{}, {}: {remark}", reload.began.time(&fleet.zone), place.machine);
                self.y = self.layout.sheet.lines(&mut self.drawing, self.y, &text, (18.0, "b"));
            }
        }
    }
}

/// The time from tick to tick, if there shall be no more than so many.
fn step(whole: u64, most: u64) -> u64 {
    const SECOND: u64 = 1000;
    const MINUTE: u64 = 60 * SECOND;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let in_unit = [1, 2, 5, 10, 20, 50, 100, 200, 500].into_iter();
    let in_sixty = [1, 2, 5, 10, 15, 30];
    let mut steps = in_unit
        .chain(in_sixty.map(|n| n * SECOND))
        .chain(in_sixty.map(|n| n * MINUTE))
        .chain([1, 2, 3, 6, 12].map(|n| n * HOUR))
        .chain([1, 2, 5, 10, 30, 100].map(|n| n * DAY));
    let far = whole / most.max(1) + 1;
    steps.find(|step| *step >= far).unwrap_or(far)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_at_round_times() {
        let steps = [0, 1, 90, 47_000, 145_000, 5_400_000, 100_000_000, u64::MAX].map(|whole| step(whole, 6));
        assert_eq!(steps, [1, 1, 20, 10_000, 30_000, 1_800_000, 21_600_000, u64::MAX / 6 + 1]);
    }
}
