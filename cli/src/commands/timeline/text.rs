//! As text, for terminals of any width.

use std::iter::repeat_n;

use super::model::{Drain, Outcome, PhaseName, Reload, Row};
use super::scale::cells;
use super::view::{Sign, View, generations, moved, remarks};
use super::when::duration;
use crate::safe::{terminal, wrap};
use crate::terminal::{Ink, Look};

/// Less cannot hold a row.
pub(super) const NARROWEST: u16 = 40;
/// Of more nobody sees both ends.
pub(super) const WIDEST: u16 = 1000;

/// A bar of less tells nothing.
const SHORTEST_BAR: usize = 8;
const TIME: usize = 8;
const DURATION: usize = 7;
const GAP: &str = "  ";

/// How it looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) look: Look,
    /// Letters instead of blocks, where the terminal has no UTF-8.
    pub(super) ascii: bool,
}

impl Style {
    pub(super) fn width(self) -> usize {
        self.look.width()
    }

    pub(super) fn paint(self, ink: Ink, text: &str) -> String {
        self.look.paint(ink, text)
    }

    /// The character, or a letter in its place.
    pub(super) fn letter(self, c: char) -> char {
        match c {
            _ if !self.ascii => c,
            '░' => 's',
            '▒' => 'r',
            '▓' => 'w',
            '█' => 'h',
            '▚' => 'R',
            '▞' => 'm',
            '▄' => 'd',
            '✗' => 'X',
            '»' | '→' => '>',
            '…' => '~',
            '─' => '-',
            '├' | '┤' => '|',
            c => c,
        }
    }

    pub(super) fn letters(self, text: &str) -> String {
        text.chars().map(|c| self.letter(c)).collect()
    }

    fn cell(self, sign: Sign) -> (char, Ink) {
        let (block, ink) = match sign {
            Sign::Phase(PhaseName::Spawn) => ('░', Ink::Spawn),
            Sign::Phase(PhaseName::Ready) => ('▒', Ink::Ready),
            Sign::Phase(PhaseName::Switch) => ('▓', Ink::Switch),
            Sign::Phase(PhaseName::Handover) => ('█', Ink::Good),
            Sign::Phase(PhaseName::Reload) => ('▚', Ink::Whole),
            Sign::Moving => ('▞', Ink::Good),
            Sign::Drain => ('▄', Ink::Reload),
            Sign::Failed => ('✗', Ink::Bad),
            Sign::Beyond => ('»', Ink::Plain),
        };
        (self.letter(block), ink)
    }

    /// Neighbours of one colour are painted in one piece.
    pub(super) fn painted(self, bar: &[(char, Ink)]) -> String {
        let run =
            |run: &[(char, Ink)]| self.look.paint(run[0].1, &run.iter().map(|(cell, _)| cell).collect::<String>());
        bar.chunk_by(|a, b| a.1 == b.1).map(run).collect()
    }
}

pub(super) fn render(view: &View, style: Style) -> String {
    let mut page = Page::new(view, style);
    page.wrapped(&terminal(&view.title()), Ink::Bold);
    page.wrapped(&view.span().unwrap_or_default(), Ink::Plain);
    if view.shown > 0 {
        if view.has_phase(PhaseName::Spawn) || view.has_drains() {
            page.legend();
        }
        page.line("");
        page.heading();
        let mut date = view.each_reload().next().map(|r| r.began.date(&view.zone)).unwrap_or_default();
        for row in &view.rows {
            let today = row.began().date(&view.zone);
            if today != date {
                page.line(&style.look.paint(Ink::Dim, &today));
                date = today;
            }
            match row {
                Row::Reload(reload) => page.reload(reload),
                Row::Event(mark) => {
                    let head = format!("{:1$}{GAP}{2}{GAP}", "", page.number, mark.time.time(&view.zone));
                    page.indented(&head, &mark.text, if mark.bad { Ink::Bad } else { Ink::Dim });
                }
            }
        }
        page.line("");
        for line in view.summary() {
            page.wrapped(&line, Ink::Plain);
        }
    } else {
        for row in &view.rows {
            if let Row::Event(mark) = row {
                let head = format!("{}  ", mark.time.full(&view.zone));
                page.indented(&head, &mark.text, if mark.bad { Ink::Bad } else { Ink::Plain });
            }
        }
    }
    page.text.truncate(page.text.trim_end().len());
    page.text
}

/// The text so far, and how wide its columns are.
#[derive(Debug)]
struct Page<'a> {
    view: &'a View,
    style: Style,
    text: String,
    number: usize,
    /// 0: they are left out.
    generations: usize,
    reload_bar: usize,
    /// 0: nobody drains.
    drain_bar: usize,
    /// The drain has a line of its own, below that of the reload.
    below: bool,
    reload_end: u64,
    drain_end: u64,
}

impl<'a> Page<'a> {
    fn new(view: &'a View, style: Style) -> Self {
        let number = view.each_reload().map(|r| r.number.to_string().len()).max().unwrap_or(1);
        let generations = match view.has_generations() {
            true => view.each_reload().map(|r| generations(r, "→").chars().count()).max().unwrap_or(0).max(3),
            false => 0,
        };
        let (reload_end, drain_end) = (view.reload_scale(), view.drain_scale());
        let (text, below, reload_bar, drain_bar) = (String::new(), false, 0, 0);
        let mut page =
            Self { view, style, text, number, generations, reload_bar, drain_bar, below, reload_end, drain_end };
        let left = |page: &Self| style.look.width().saturating_sub(page.indent() + DURATION + 1);
        // Rather without the generations' numbers than without bars.
        if left(&page) < SHORTEST_BAR {
            page.generations = 0;
        }
        let left = left(&page);
        let both = left.saturating_sub(GAP.len() + DURATION + 1);
        page.below = view.has_drains() && both / 3 < SHORTEST_BAR / 2;
        (page.reload_bar, page.drain_bar) = match view.has_drains() {
            true if page.below => (left, left),
            true => (both - both / 3, both / 3),
            false => (left, 0),
        };
        page
    }

    fn line(&mut self, line: &str) {
        self.text += line.trim_end();
        self.text.push('\n');
    }

    fn wrapped(&mut self, text: &str, ink: Ink) {
        for line in wrap(text, self.style.look.width()).iter().filter(|line| !line.is_empty()) {
            self.line(&self.style.look.paint(ink, line));
        }
    }

    /// What the journal says, made harmless, in lines that begin below each other.
    fn indented(&mut self, head: &str, text: &str, ink: Ink) {
        const FEWEST: usize = 20;
        let (Style { look, .. }, mut head) = (self.style, head.to_owned());
        // Where little would be left beside it, below it.
        if head.chars().count() + FEWEST > look.width() {
            self.line(&head);
            head = GAP.to_owned();
        }
        let indent = head.chars().count();
        for line in wrap(&terminal(text), look.width().saturating_sub(indent).max(1)) {
            let line = if self.style.ascii { line.replace('→', ">") } else { line };
            self.line(&format!("{head}{}", look.paint(ink, &line)));
            head = " ".repeat(indent);
        }
    }

    fn legend(&mut self) {
        let (mut legend, mut used) = (String::new(), 0);
        for sign in self.view.signs() {
            let (cell, ink) = self.style.cell(sign);
            let bar = cell.to_string().repeat(if matches!(sign, Sign::Phase(_) | Sign::Moving | Sign::Drain) {
                2
            } else {
                1
            });
            let long = bar.chars().count() + 1 + sign.word().len();
            let gap = match used {
                0 => "",
                used if used + GAP.len() + long > self.style.look.width() => "\n",
                _ => GAP,
            };
            used = if gap == GAP { used + GAP.len() + long } else { long };
            legend += &format!("{gap}{} {}", self.style.look.paint(ink, &bar), sign.word());
        }
        self.line(&legend);
    }

    /// Columns before the duration.
    fn indent(&self) -> usize {
        let generations = if self.generations > 0 { self.generations + GAP.len() } else { 0 };
        self.number + GAP.len() + TIME + GAP.len() + generations
    }

    fn heading(&mut self) {
        let mut line = format!("{:>1$}{GAP}{2:<TIME$}{GAP}", "#", self.number, "time");
        if self.generations > 0 {
            line += &format!("{:<1$}{GAP}", "gen", self.generations);
        }
        line += &format!("{:>DURATION$} {}", "reload", self.axis(self.reload_end, self.reload_bar));
        let drain = format!("{:>DURATION$} {}", "drain", self.axis(self.drain_end, self.drain_bar));
        let lines = match (self.drain_bar, self.below) {
            (0, _) => vec![line],
            (_, true) => vec![line, format!("{:1$}{drain}", "", self.indent())],
            (_, false) => vec![format!("{line}{GAP}{drain}")],
        };
        for line in lines {
            self.line(&self.style.look.paint(Ink::Dim, &line));
        }
    }

    /// `├──────── 100 ms┤`, as wide as the bars.
    fn axis(&self, end: u64, width: usize) -> String {
        let label = duration(end);
        match width.checked_sub(label.chars().count()) {
            None => String::new(),
            Some(0..=2) => format!("{label:>width$}"),
            Some(rest) => self.style.letters(&format!("├{} {label}┤", "─".repeat(rest - 3))),
        }
    }

    fn reload(&mut self, reload: &Reload) {
        let (style, is_bad) = (self.style, reload.outcome.is_bad());
        let mut line = format!("{:>1$}{GAP}{2}{GAP}", reload.number, self.number, reload.began.time(&self.view.zone));
        if self.generations > 0 {
            let padded = format!("{:<1$}", style.letters(&generations(reload, "→")), self.generations);
            line += &style.look.paint(if is_bad { Ink::Bad } else { Ink::Plain }, &padded);
            line += GAP;
        }
        let bar = self.reload_cells(reload);
        line += &format!("{:>DURATION$} {}", reload.reload_ms.map(duration).unwrap_or_default(), style.painted(&bar));
        if let Some(drain) = &reload.drain {
            if self.below {
                self.line(&line);
                line = " ".repeat(self.indent());
            } else {
                line += &format!("{:1$}{GAP}", "", self.reload_bar.saturating_sub(bar.len()));
            }
            let bar = style.painted(&self.drain_cells(drain));
            line += &format!("{:>DURATION$} {bar}", drain.ms.map(duration).unwrap_or_default());
        }
        self.line(&line);
        let moved = moved(reload).map(|moved| (false, moved));
        for (bad, remark) in moved.into_iter().chain(remarks(reload)) {
            let head = " ".repeat(self.number + GAP.len());
            self.indented(&head, &remark, if bad { Ink::Bad } else { Ink::Dim });
        }
    }

    fn reload_cells(&self, reload: &Reload) -> Vec<(char, Ink)> {
        let lengths: Vec<u64> = reload.phases.iter().map(|p| p.ms).collect();
        let mut bar = Vec::new();
        for (phase, count) in reload.phases.iter().zip(cells(&lengths, self.reload_end, self.reload_bar)) {
            bar.extend(repeat_n(self.style.cell(Sign::Phase(phase.name)), count));
        }
        let is_beyond = reload.reload_ms.is_some_and(|ms| ms > self.reload_end);
        let end = match reload.outcome {
            outcome if outcome.is_bad() => Some(self.style.cell(Sign::Failed)),
            Outcome::UnderWay => Some((self.style.letter('…'), Ink::Plain)),
            _ => None,
        };
        for last in [is_beyond.then(|| self.style.cell(Sign::Beyond)), end].into_iter().flatten() {
            bar.truncate(self.reload_bar.saturating_sub(1));
            bar.push(last);
        }
        bar
    }

    fn drain_cells(&self, drain: &Drain) -> Vec<(char, Ink)> {
        let mut bar = Vec::new();
        for (sign, count) in
            [Sign::Moving, Sign::Drain].into_iter().zip(cells(&drain.parts(), self.drain_end, self.drain_bar))
        {
            bar.extend(repeat_n(self.style.cell(sign), count));
        }
        let (_, ink) = self.style.cell(Sign::Drain);
        if let Some(mark) = drain.mark(self.drain_end) {
            bar.truncate(self.drain_bar.saturating_sub(1));
            bar.push((self.style.letter(mark), ink));
        }
        bar
    }
}
