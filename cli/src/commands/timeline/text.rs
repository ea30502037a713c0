//! As text, for terminals of any width.

use std::fmt::Write as _;

use super::model::{DrainEnd, Mark, Outcome, PhaseName, Reload, Row};
use super::scale::cells;
use super::view::{View, generations, remarks};
use super::when::duration;
use crate::safe::{terminal, wrap};

/// How it looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) width: usize,
    pub(super) colours: bool,
    /// Letters instead of blocks, where the terminal has no UTF-8.
    pub(super) ascii: bool,
}

/// Less cannot hold a row.
pub(super) const NARROWEST: u16 = 40;
/// Of more nobody sees both ends.
pub(super) const WIDEST: u16 = 1000;

/// A bar of less tells nothing.
const SHORTEST_BAR: usize = 8;

const RED: &str = "31";
const DIM: &str = "2";
const BOLD: &str = "1";

#[derive(Debug)]
struct Columns {
    number: usize,
    generations: usize,
    reload_bar: usize,
    /// 0: nobody drains.
    drain_bar: usize,
    /// The drain has a line of its own, below that of the reload.
    below: bool,
    reload_end: u64,
    drain_end: u64,
}

const TIME: usize = 8;
const DURATION: usize = 7;
const GAP: &str = "  ";

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colours && !text.is_empty() && !code.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    fn arrow(self) -> &'static str {
        if self.ascii { ">" } else { "→" }
    }

    fn phase(self, name: PhaseName) -> (char, &'static str) {
        let (block, letter, colour) = match name {
            PhaseName::Spawn => ('░', 's', "34"),
            PhaseName::Ready => ('▒', 'r', "36"),
            PhaseName::Switch => ('▓', 'w', "33"),
            PhaseName::Handover => ('█', 'h', "32"),
            PhaseName::Reload => ('▚', 'R', "94"),
        };
        (if self.ascii { letter } else { block }, colour)
    }

    fn drain(self) -> char {
        if self.ascii { 'd' } else { '▄' }
    }

    fn failed(self) -> char {
        if self.ascii { 'X' } else { '✗' }
    }

    fn beyond(self) -> char {
        if self.ascii { '>' } else { '»' }
    }

    fn going_on(self) -> char {
        if self.ascii { '~' } else { '…' }
    }
}

pub(super) fn render(view: &View, style: Style) -> String {
    let mut text = String::new();
    let head = format!("{}: {}", terminal(&view.unit), view.counted());
    for line in wrap(&head, style.width) {
        let _ = writeln!(text, "{}", style.paint(BOLD, &line));
    }
    if let Some(span) = view.span() {
        for line in wrap(&span, style.width) {
            let _ = writeln!(text, "{line}");
        }
    }
    if view.shown > 0 {
        let columns = Columns::new(view, style);
        if view.has_phase(PhaseName::Spawn) || columns.drain_bar > 0 {
            let _ = writeln!(text, "{}", legend(view, style));
        }
        let _ = writeln!(text);
        for line in columns.heading(style) {
            let _ = writeln!(text, "{}", style.paint(DIM, &line));
        }
        let mut date = view.each_reload().next().map(|r| r.began.date(&view.zone)).unwrap_or_default();
        for row in &view.rows {
            let today = row.began().date(&view.zone);
            if today != date {
                let _ = writeln!(text, "{}", style.paint(DIM, &today));
                date = today;
            }
            match row {
                Row::Reload(reload) => columns.reload(&mut text, reload, view, style),
                Row::Event(mark) => columns.mark(&mut text, mark, view, style),
            }
        }
        let _ = writeln!(text);
        for line in view.summary().iter().flat_map(|line| wrap(line, style.width)) {
            let _ = writeln!(text, "{line}");
        }
    } else {
        for row in &view.rows {
            if let Row::Event(mark) = row {
                let head = format!("{}  ", mark.time.full(&view.zone));
                text.push_str(&indented(&head, &mark.text, if mark.bad { RED } else { "" }, style));
            }
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn legend(view: &View, style: Style) -> String {
    let names = PhaseName::ALL.into_iter().filter(|name| view.has_phase(*name));
    let part = |sign: String, colour: &str, word: &str| {
        (format!("{sign} {word}"), format!("{} {word}", style.paint(colour, &sign)))
    };
    let mut parts: Vec<_> = names
        .map(|name| {
            let (cell, colour) = style.phase(name);
            part(cell.to_string().repeat(2), colour, name.word())
        })
        .collect();
    if view.has_drains() {
        parts.push(part(style.drain().to_string().repeat(2), "35", "drain"));
    }
    if view.each_reload().any(|r| r.outcome.is_bad()) {
        parts.push(part(style.failed().to_string(), RED, "failed"));
    }
    let longer = view.each_reload().filter_map(|r| r.reload_ms).any(|ms| ms > view.reload_scale())
        || view.each_reload().filter_map(Reload::drain_ms).any(|ms| ms > view.drain_scale());
    if longer {
        parts.push(part(style.beyond().to_string(), "", "beyond the scale"));
    }
    let mut legend = String::new();
    let mut used = 0;
    for (plain, painted) in parts {
        let long = plain.chars().count();
        if used > 0 && used + GAP.len() + long > style.width {
            legend.push('\n');
            used = 0;
        }
        let gap = if used > 0 { GAP } else { "" };
        used += gap.len() + long;
        legend = legend + gap + &painted;
    }
    legend
}

impl Columns {
    fn new(view: &View, style: Style) -> Self {
        let number = view.each_reload().map(|r| r.number.to_string().len()).max().unwrap_or(1);
        let mut generations = match view.has_generations() {
            true => view.each_reload().map(|r| generations(r, "→").chars().count()).max().unwrap_or(0).max(3),
            false => 0,
        };
        let left_with = |generations: usize| {
            let generation_column = if generations > 0 { generations + GAP.len() } else { 0 };
            let fixed = number + GAP.len() + TIME + GAP.len() + generation_column + DURATION + 1;
            style.width.saturating_sub(fixed)
        };
        // Rather without the generations' numbers than without bars.
        if left_with(generations) < SHORTEST_BAR {
            generations = 0;
        }
        let left = left_with(generations);
        let both = left.saturating_sub(GAP.len() + DURATION + 1);
        let below = view.has_drains() && both / 3 < SHORTEST_BAR / 2;
        let (reload_bar, drain_bar) = match view.has_drains() {
            true if below => (left, left),
            true => (both - both / 3, both / 3),
            false => (left, 0),
        };
        Self {
            number,
            generations,
            reload_bar,
            drain_bar,
            below,
            reload_end: view.reload_scale(),
            drain_end: view.drain_scale(),
        }
    }

    /// Columns before the duration.
    fn indent(&self) -> usize {
        let generations = if self.generations > 0 { self.generations + GAP.len() } else { 0 };
        self.number + GAP.len() + TIME + GAP.len() + generations
    }

    fn heading(&self, style: Style) -> Vec<String> {
        let mut line = format!("{:>1$}{GAP}{2:<TIME$}{GAP}", "#", self.number, "time");
        if self.generations > 0 {
            let _ = write!(line, "{:<1$}{GAP}", "gen", self.generations);
        }
        let _ = write!(line, "{:>DURATION$} {}", "reload", axis(self.reload_end, self.reload_bar, style));
        let drain = format!("{:>DURATION$} {}", "drain", axis(self.drain_end, self.drain_bar, style));
        match (self.drain_bar, self.below) {
            (0, _) => vec![line],
            (_, true) => vec![line, format!("{:1$}{drain}", "", self.indent())],
            (_, false) => vec![format!("{line}{GAP}{drain}")],
        }
    }

    fn reload(&self, text: &mut String, reload: &Reload, view: &View, style: Style) {
        let mut line = format!("{:>1$}{GAP}{2}{GAP}", reload.number, self.number, reload.began.time(&view.zone));
        if self.generations > 0 {
            let shown = generations(reload, style.arrow());
            let padded = format!("{shown:<0$}", self.generations);
            line += &if reload.outcome.is_bad() { style.paint(RED, &padded) } else { padded };
            line += GAP;
        }
        let total = reload.reload_ms.map(duration).unwrap_or_default();
        let bar = self.reload_cells(reload, style);
        let bar_width = bar.len();
        let _ = write!(line, "{total:>DURATION$} ");
        for (cell, colour) in runs(&bar) {
            line += &style.paint(colour, &cell);
        }
        if let Some(drain) = &reload.drain {
            let total = drain.ms.map(duration).unwrap_or_default();
            if self.below {
                let _ = writeln!(text, "{}", line.trim_end());
                line = " ".repeat(self.indent());
            } else {
                let _ = write!(line, "{:1$}{GAP}", "", self.reload_bar.saturating_sub(bar_width));
            }
            let _ = write!(line, "{total:>DURATION$} ");
            line += &style.paint("35", &self.drain_cells(drain.ms, drain.end, style));
        }
        let _ = writeln!(text, "{}", line.trim_end());
        for (bad, remark) in remarks(reload) {
            let head = " ".repeat(self.number + GAP.len());
            text.push_str(&indented(&head, &remark, if bad { RED } else { DIM }, style));
        }
    }

    fn reload_cells(&self, reload: &Reload, style: Style) -> Vec<(char, &'static str)> {
        let lengths: Vec<u64> = reload.phases.iter().map(|p| p.ms).collect();
        let mut bar = Vec::new();
        for (phase, count) in reload.phases.iter().zip(cells(&lengths, self.reload_end, self.reload_bar)) {
            bar.extend(std::iter::repeat_n(style.phase(phase.name), count));
        }
        if reload.reload_ms.is_some_and(|ms| ms > self.reload_end) {
            bar.truncate(self.reload_bar.saturating_sub(1));
            bar.push((style.beyond(), "0"));
        }
        let end = match reload.outcome {
            outcome if outcome.is_bad() => Some((style.failed(), RED)),
            Outcome::UnderWay => Some((style.going_on(), "0")),
            _ => None,
        };
        if let Some(end) = end {
            bar.truncate(self.reload_bar.saturating_sub(1));
            bar.push(end);
        }
        bar
    }

    fn drain_cells(&self, ms: Option<u64>, end: DrainEnd, style: Style) -> String {
        let ms = ms.unwrap_or(0);
        let count = cells(&[ms], self.drain_end, self.drain_bar).into_iter().sum::<usize>();
        let mut bar = style.drain().to_string().repeat(count);
        let mark = match end {
            DrainEnd::Drained if ms > self.drain_end => Some(style.beyond()),
            DrainEnd::Drained => None,
            DrainEnd::Hammered | DrainEnd::Killed => Some(style.failed()),
            DrainEnd::Unknown => Some('?'),
            DrainEnd::Draining => Some(style.going_on()),
        };
        if let Some(mark) = mark {
            if count >= self.drain_bar {
                bar.pop();
            }
            bar.push(mark);
        }
        bar
    }

    fn mark(&self, text: &mut String, mark: &Mark, view: &View, style: Style) {
        let head = format!("{:1$}{GAP}{2}{GAP}", "", self.number, mark.time.time(&view.zone));
        text.push_str(&indented(&head, &mark.text, if mark.bad { RED } else { DIM }, style));
    }
}

/// Neighbours of one colour in one piece.
fn runs(bar: &[(char, &'static str)]) -> Vec<(String, &'static str)> {
    let mut all: Vec<(String, &'static str)> = Vec::new();
    for (cell, colour) in bar {
        match all.last_mut() {
            Some((run, same)) if same == colour => run.push(*cell),
            _ => all.push((cell.to_string(), colour)),
        }
    }
    all
}

/// `├──────── 100 ms`, as wide as the bars.
fn axis(end: u64, width: usize, style: Style) -> String {
    let label = format!(" {}", duration(end));
    let rest = width.saturating_sub(1 + label.chars().count());
    let (edge, line) = if style.ascii { ("|", "-") } else { ("├", "─") };
    let corner = if style.ascii { "|" } else { "┤" };
    match rest {
        _ if label.trim_start().chars().count() > width => String::new(),
        0 => format!("{:>width$}", label.trim_start()),
        _ => format!("{edge}{}{label}{corner}", line.repeat(rest.saturating_sub(1))),
    }
}

/// What the journal says, made harmless, in lines that begin below each other.
fn indented(head: &str, text: &str, colour: &str, style: Style) -> String {
    const FEWEST: usize = 20;
    let mut all = String::new();
    let mut head = head.to_owned();
    // Where little would be left beside it, below it.
    if head.chars().count() + FEWEST > style.width {
        let _ = writeln!(all, "{}", head.trim_end());
        head = GAP.to_owned();
    }
    let indent = head.chars().count();
    let lines = wrap(&terminal(text), style.width.saturating_sub(indent).max(1));
    for (number, line) in lines.iter().enumerate() {
        let head = if number == 0 { head.clone() } else { " ".repeat(indent) };
        let line = if style.ascii { line.replace('→', ">") } else { line.clone() };
        let _ = writeln!(all, "{head}{}", if colour.is_empty() { line } else { style.paint(colour, &line) });
    }
    all
}
