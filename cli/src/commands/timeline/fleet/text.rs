//! As text, for terminals of any width.

use std::iter::once;

use super::super::model::{Outcome, Reload, Row};
use super::super::text::Style;
use super::super::view::{generations, moved, remarks};
use super::super::when::{Moment, duration};
use super::model::{Batch, Fleet, Lane, Span, drained, ended};
use crate::safe::{short, terminal, wrap};
use crate::terminal::Ink;

const GAP: &str = "  ";
/// Longer names of machines are cut, where the chart would have less than three quarters.
const NAME_SHARE: usize = 4;

pub(crate) fn render(fleet: &Fleet, style: Style) -> String {
    let mut page = Page { fleet, style, text: String::new() };
    page.wrapped("", &fleet.title(), Ink::Bold);
    if let Some(span) = fleet.span() {
        page.wrapped("", &fleet.span_words(span), Ink::Plain);
        page.chart(span);
        fleet.batches.iter().for_each(|batch| page.batch(batch));
    }
    page.marks();
    page.text.truncate(page.text.trim_end().len());
    page.text
}

struct Page<'a> {
    fleet: &'a Fleet,
    style: Style,
    text: String,
}

impl Page<'_> {
    fn line(&mut self, line: &str) {
        self.text += line.trim_end();
        self.text.push('\n');
    }

    /// What the journals say, made harmless, in lines that begin below each other.
    fn wrapped(&mut self, head: &str, text: &str, ink: Ink) {
        let width = self.style.width().saturating_sub(head.chars().count()).max(1);
        let mut head = head.to_owned();
        for line in wrap(&self.style.letters(&terminal(text)), width) {
            self.line(&format!("{head}{}", self.style.paint(ink, &line)));
            head = " ".repeat(head.chars().count());
        }
    }

    /// A lane for each machine.
    fn chart(&mut self, span: Span) {
        let lanes = &self.fleet.machines;
        let longest = lanes.iter().map(|lane| terminal(&lane.machine).chars().count()).max().unwrap_or(0);
        let names = longest.clamp("batch".len(), (self.style.width() / NAME_SHARE).max("batch".len()));
        let axis = Axis { span, width: self.style.width().saturating_sub(names + GAP.len()).max(1) };
        self.line("");
        let length = duration(span.ms);
        let rule = axis.width.saturating_sub(length.chars().count() + 3);
        let rule = self.style.letters(&format!("├{} {length}┤", "─".repeat(rule)));
        let head = |name: &str| format!("{name:names$}{GAP}");
        self.line(&self.style.paint(Ink::Dim, &format!("{}{rule}", head(""))));
        let batches = axis.batches(&self.fleet.batches);
        self.line(&self.style.paint(Ink::Dim, &format!("{}{batches}", head("batch"))));
        for lane in lanes {
            let cells: Vec<_> = axis.lane(lane).into_iter().map(|(c, ink)| (self.style.letter(c), ink)).collect();
            let name = short(&terminal(&lane.machine), names);
            self.line(&format!("{}{}", head(&self.style.letters(&name)), self.style.painted(&cells)));
        }
        let legend = [
            ('█', Ink::Good, "reload"),
            ('▄', Ink::Reload, "drain"),
            ('✗', Ink::Bad, "failed"),
            ('!', Ink::Bad, "event"),
        ];
        let long = legend.iter().map(|(.., word)| "█ ".chars().count() + word.len() + GAP.len()).sum::<usize>();
        let legend = legend
            .map(|(c, ink, word)| format!("{} {word}", self.style.paint(ink, &self.style.letter(c).to_string())))
            .join(GAP);
        // Where it has no room below the chart, below the names, too.
        let head = if long <= axis.width { head("") } else { String::new() };
        self.line(&format!("{head}{legend}"));
    }

    fn batch(&mut self, batch: &Batch) {
        let fleet = self.fleet;
        self.line("");
        let head = format!("{}{GAP}{}", Fleet::batch_words(batch), batch.began.time(&fleet.zone));
        self.wrapped("", &head, if batch.bad > 0 { Ink::Bad } else { Ink::Bold });
        for place in &batch.reloads {
            let Some(reload) = fleet.reload(place) else { continue };
            let text = format!("{}{GAP}{}", terminal(&place.machine), facts(reload, GAP));
            self.wrapped(GAP, &text, Ink::Plain);
            let moved = moved(reload).map(|moved| (false, moved));
            for (bad, remark) in moved.into_iter().chain(remarks(reload)) {
                self.wrapped(&GAP.repeat(2), &remark, if bad { Ink::Bad } else { Ink::Dim });
            }
        }
    }

    /// What went wrong between the reloads.
    fn marks(&mut self) {
        let fleet = self.fleet;
        let mut marks: Vec<_> = fleet
            .machines
            .iter()
            .flat_map(|lane| lane.view.rows.iter().map(move |row| (lane, row)))
            .filter_map(|(lane, row)| match row {
                Row::Event(mark) if mark.bad => Some((mark.time, format!("{}: {}", lane.machine, mark.text))),
                _ => None,
            })
            .collect();
        marks.sort();
        if !marks.is_empty() {
            self.line("");
        }
        for (time, text) in marks {
            self.wrapped(&format!("{}{GAP}", time.time(&fleet.zone)), &text, Ink::Bad);
        }
    }
}

/// `1→2  81 ms  drain 1.20 s`, with that between them.
pub(super) fn facts(reload: &Reload, between: &str) -> String {
    let took = reload.reload_ms.map(duration);
    let drain = reload.drain_ms().map(|ms| format!("drain {}", duration(ms)));
    let facts = once(generations(reload, "→")).chain(took).chain(drain).filter(|fact| !fact.is_empty());
    facts.collect::<Vec<_>>().join(between)
}

#[derive(Debug, Clone, Copy)]
struct Axis {
    span: Span,
    width: usize,
}

impl Axis {
    fn cell(self, at: Moment) -> usize {
        let ms = u128::from(at.since(self.span.from).min(self.span.ms));
        let last = self.width.saturating_sub(1);
        usize::try_from(ms * last as u128 / u128::from(self.span.ms.max(1))).unwrap_or(last)
    }

    /// The number of each, where it begins, as far as there is room.
    fn batches(self, batches: &[Batch]) -> String {
        let (mut line, mut used) = (String::new(), 0);
        for batch in batches {
            let (at, number) = (self.cell(batch.began), batch.number.to_string());
            if at >= used && at + number.len() <= self.width {
                line += &format!("{:1$}{number}", "", at - line.chars().count());
                used = at + number.len() + 1;
            }
        }
        line
    }

    fn lane(self, lane: &Lane) -> Vec<(char, Ink)> {
        let mut cells = vec![(' ', Ink::Plain); self.width];
        let mut fill = |from: usize, to: usize, with: (char, Ink)| {
            let to = to.min(self.width.saturating_sub(1));
            cells.iter_mut().take(to + 1).skip(from).for_each(|cell| *cell = with);
        };
        for reload in lane.view.each_reload() {
            if let Some(end) = drained(reload) {
                fill(self.cell(reload.began), self.cell(end), ('▄', Ink::Reload));
            }
        }
        for row in &lane.view.rows {
            match row {
                Row::Reload(reload) => {
                    let sign = match reload.outcome {
                        outcome if outcome.is_bad() => ('✗', Ink::Bad),
                        Outcome::UnderWay => ('…', Ink::Plain),
                        _ => ('█', Ink::Good),
                    };
                    fill(self.cell(reload.began), self.cell(ended(reload)), sign);
                }
                Row::Event(mark) if mark.bad && mark.time >= self.span.from => {
                    fill(self.cell(mark.time), self.cell(mark.time), ('!', Ink::Bad));
                }
                Row::Event(_) => {}
            }
        }
        cells
    }
}
