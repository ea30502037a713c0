//! As a picture: one SVG file that needs nothing else.

use super::super::model::{Outcome, Reload, Row};
use super::super::svg::{STYLE, fill};
use super::super::view::{Sign, remarks};
use super::super::when::{Moment, duration};
use super::model::{Fleet, Lane, Span, drained, ended};
use super::text::facts;
use crate::safe::{short, wrap};
use crate::svg::Drawing;

const ROW: f64 = 30.0;
const LINE: f64 = 17.0;
const BAR: f64 = 13.0;
/// Wider than any font has a letter: nothing measures text here.
const LETTER: f64 = 6.9;
const GOOD: Sign = Sign::Phase(super::super::model::PhaseName::Handover);
/// So that what takes milliseconds is seen among minutes.
const NARROWEST: f64 = 4.0;

/// Where things are, for one width of the picture.
#[derive(Debug)]
struct Layout {
    width: f64,
    margin: f64,
    /// From where to where time goes.
    axis: (f64, f64),
    /// Names of machines stand beside their lanes, else above them.
    beside: bool,
    ticks: u64,
    title_characters: usize,
    characters: usize,
}

const WIDE: Layout = Layout {
    width: 1000.0,
    margin: 24.0,
    axis: (190.0, 970.0),
    beside: true,
    ticks: 6,
    title_characters: 80,
    characters: 130,
};

/// For telephones, and for pages beside others.
const NARROW: Layout = Layout {
    width: 400.0,
    margin: 12.0,
    axis: (16.0, 384.0),
    beside: false,
    ticks: 2,
    title_characters: 32,
    characters: 48,
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
    let (width, height) = (layout.width, picture.y + 22.0);
    let size = format!("width=\"{width}\" height=\"{height}\" style=\"max-width:100%;height:auto\"");
    let ground = format!("<style>{STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>");
    picture.drawing.picture((width, height), &size, &fleet.title(), &ground)
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
}

struct Picture<'a> {
    fleet: &'a Fleet,
    layout: &'a Layout,
    drawing: Drawing,
    /// So far it reaches.
    y: f64,
}

impl Picture<'_> {
    /// In as many lines as it takes.
    fn lines(&mut self, text: &str, characters: usize, height: f64, class: &str) {
        for line in wrap(text, characters) {
            self.y += height;
            self.drawing.text((self.layout.margin, self.y), class, "start", &line);
        }
    }

    fn head(&mut self) {
        let (fleet, layout) = (self.fleet, self.layout);
        self.lines(&short(&fleet.unit, 2 * layout.title_characters), layout.title_characters, 24.0, "t");
        self.y += 6.0;
        let machines = format!("{}: {}", fleet.machines_words(), fleet.counted());
        let facts = [Some(machines), fleet.span().map(|span| fleet.span_words(span))];
        for fact in facts.into_iter().flatten() {
            self.lines(&fact, layout.characters, 18.0, "s");
        }
    }

    fn legend(&mut self) {
        self.y += 27.0;
        let mut x = self.layout.margin;
        for (sign, word) in [(GOOD, "reload"), (Sign::Drain, "drain"), (Sign::Failed, "failed")] {
            self.drawing.rect((x, self.y - 11.0), (BAR, BAR), &format!("rx=\"2\" {}", painted(sign)), "");
            self.drawing.text((x + 19.0, self.y), "k", "start", word);
            x += 34.0 + width_of(word);
        }
        self.y += 14.0;
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

    fn ticks(&mut self, axis: Axis<'_>, (top, bottom): (f64, f64)) {
        let parts = self.layout.ticks;
        for part in 0..=parts {
            let at = axis.span.from.later(axis.span.ms / parts * part);
            let (x, anchor) = (axis.x(at), if part == parts { "end" } else { "start" });
            self.drawing.path(&format!("M{x:.1} {}V{bottom:.1}", top - 4.0), "class=\"g\"", "");
            let label = match part {
                0 => at.time(&self.fleet.zone),
                _ => format!("+{}", duration(at.since(axis.span.from))),
            };
            self.drawing.text((x, top - 8.0), "s n", anchor, &label);
        }
    }

    /// Bands behind the lanes. Where there is no room for all their names, those that failed have
    /// theirs, and others a number, or nothing.
    fn batches(&mut self, axis: Axis<'_>, (top, bottom): (f64, f64)) {
        let (bad, good): (Vec<_>, Vec<_>) = self.fleet.batches.iter().partition(|batch| batch.bad > 0);
        let mut used: Vec<(f64, f64)> = Vec::new();
        for batch in bad.into_iter().chain(good) {
            let (from, to) = (axis.x(batch.began) - 3.0, axis.x(batch.ended) + 3.0);
            let size = ((to - from).max(NARROWEST + 6.0), bottom - top);
            let fill = if batch.bad > 0 { "#d55e00" } else { "#0072b2" };
            let attributes = format!("fill=\"{fill}\" fill-opacity=\".10\"");
            self.drawing.rect((from, top), size, &attributes, &Fleet::batch_words(batch));
            let full = self.layout.beside.then(|| Fleet::batch_words(batch));
            for words in full.into_iter().chain([batch.number.to_string()]) {
                let x = from.min(self.layout.axis.1 - width_of(&words));
                let place = (x, x + width_of(&words) + 6.0);
                if used.iter().all(|other| place.1 <= other.0 || other.1 <= place.0) {
                    let class = if batch.bad > 0 { "b" } else { "s" };
                    self.drawing.text((x, top - 24.0), class, "start", &words);
                    used.push(place);
                    break;
                }
            }
        }
    }

    fn lane(&mut self, axis: Axis<'_>, lane: &Lane) {
        let layout = self.layout;
        let bad = lane.view.each_reload().any(|reload| reload.outcome.is_bad());
        let class = if bad { "b" } else { "" };
        if layout.beside {
            self.drawing.text((layout.axis.0 - 14.0, self.y + 19.0), class, "end", &short(&lane.machine, 22));
        } else {
            self.drawing.text((layout.margin, self.y + 12.0), class, "start", &short(&lane.machine, 40));
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
            (if bad { Sign::Failed } else { GOOD }, format!("{}: {}", reload.outcome.words(), facts(reload)));
        let width = (to - from).max(NARROWEST);
        self.drawing.rect((from, y), (width, BAR), &painted(sign), &title);
        let words = match reload.outcome {
            Outcome::HandedOver | Outcome::Reloaded => facts(reload),
            outcome => format!("{} {}", facts(reload), outcome.words()),
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
                self.lines(&text, self.layout.characters, 18.0, "b");
            }
        }
    }
}

fn width_of(words: &str) -> f64 {
    LETTER * f64::from(u8::try_from(words.chars().count()).unwrap_or(u8::MAX))
}

fn painted(sign: Sign) -> String {
    format!("fill=\"{}\"", fill(sign).unwrap_or_default())
}
