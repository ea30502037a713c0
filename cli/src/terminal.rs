//! How text looks: it fits the width of the terminal, and each kind of thing has its colour.

use crate::out;
use crate::safe::wrap;

/// What a first column is not made narrower than, while there are other columns to leave out.
const NARROW: usize = 20;
const GAP: usize = 2;

/// The place that is written to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    width: usize,
    colours: bool,
}

/// What is told apart by its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    Plain,
    /// The time at which a new process was ready, or answered.
    Ready,
    /// A reload, as a whole.
    Reload,
    Good,
    Bad,
    Bold,
    Dim,
    /// The phases of a reload that are none of these.
    Spawn,
    Switch,
    Whole,
}

impl Look {
    /// Asks what stdout is.
    pub(crate) fn of_stdout() -> Self {
        Self { width: out::columns().unwrap_or(usize::MAX), colours: out::colours() }
    }

    /// The same, so wide.
    pub(crate) fn with_width(self, width: usize) -> Self {
        Self { width, ..self }
    }

    #[cfg(test)]
    pub(crate) fn plain(width: usize) -> Self {
        Self { width, colours: false }
    }

    pub(crate) fn width(self) -> usize {
        self.width
    }

    pub(crate) fn paint(self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Plain => return text.to_owned(),
            Ink::Bold => "1",
            Ink::Dim => "2",
            Ink::Spawn => "34",
            Ink::Switch => "33",
            Ink::Whole => "94",
            Ink::Ready => "36",
            Ink::Reload => "35",
            Ink::Good => "32",
            Ink::Bad => "31",
        };
        if self.colours && !text.is_empty() { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Makes lines that fit, broken between words; all but the first are indented.
    pub(crate) fn lines(self, parts: &[(Ink, &str)]) -> String {
        const INDENT: &str = "    ";
        let mut lines: Vec<Vec<(Ink, String)>> = vec![Vec::new()];
        let mut used = 0;
        for (ink, part) in parts {
            let words = part.split(' ').filter(|word| !word.is_empty());
            // What is longer than a line is cut.
            for piece in words.flat_map(|word| wrap(word, self.width.saturating_sub(INDENT.len()))) {
                let length = piece.chars().count();
                if used > 0 && length >= self.width.saturating_sub(used) {
                    lines.push(Vec::new());
                    used = INDENT.len();
                } else {
                    used += usize::from(used > 0);
                }
                used += length;
                let Some(line) = lines.last_mut() else { continue };
                match line.last_mut() {
                    Some((same, run)) if same == ink => *run = format!("{run} {piece}"),
                    _ => line.push((*ink, piece)),
                }
            }
        }
        let painted = |line: &Vec<(Ink, String)>| {
            line.iter().map(|(ink, run)| self.paint(*ink, run)).collect::<Vec<_>>().join(" ")
        };
        lines.iter().map(painted).collect::<Vec<_>>().join(&format!("\n{INDENT}"))
    }

    /// Makes lines of that text, the first one after that many spaces, the others a little further
    /// in. Where there is no terminal it stays as it is.
    pub(crate) fn fit(self, indent: usize, text: &str) -> String {
        let deeper = indent + 2;
        let lines = match self.width {
            usize::MAX => vec![text.to_owned()],
            width => wrap(text, width.saturating_sub(deeper).max(1)),
        };
        let indents = std::iter::once(indent).chain(std::iter::repeat(deeper));
        lines.iter().zip(indents).map(|(line, indent)| format!("{:indent$}{line}\n", "")).collect()
    }

    pub(crate) fn line(self, text: &str) -> String {
        self.lines(&[(Ink::Plain, text)])
    }
}

/// A name and numbers in each row. Where not all fit, those columns are left out that say least.
#[derive(Debug)]
pub(crate) struct Table {
    /// And how much each says: 0 stays in any case.
    head: Vec<(&'static str, u8)>,
    rows: Vec<Vec<(Ink, String)>>,
}

impl Table {
    pub(crate) fn new(head: impl IntoIterator<Item = (&'static str, u8)>) -> Self {
        Self { head: head.into_iter().collect(), rows: Vec::new() }
    }

    /// All columns stay in any case.
    pub(crate) fn of(names: impl IntoIterator<Item = &'static str>) -> Self {
        Self::new(names.into_iter().map(|name| (name, 0)))
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = (Ink, String)>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// A row of one colour.
    pub(crate) fn line(&mut self, is_bad: bool, cells: impl IntoIterator<Item = String>) {
        let ink = if is_bad { Ink::Bad } else { Ink::Plain };
        self.row(cells.into_iter().map(|cell| (ink, cell)));
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.head.iter().map(|(name, _)| *name)
    }

    pub(crate) fn rows(&self) -> &[Vec<(Ink, String)>] {
        &self.rows
    }

    pub(crate) fn render(&self, look: Look) -> String {
        let widths: Vec<usize> = (0..self.head.len()).map(|column| self.width(column)).collect();
        let numbers = |shown: &[usize]| shown.iter().map(|column| widths[*column] + GAP).sum::<usize>();
        let mut shown: Vec<usize> = (1..self.head.len()).collect();
        while look.width.saturating_sub(numbers(&shown)) < widths[0].min(NARROW) {
            let least = shown.iter().copied().filter(|column| self.head[*column].1 > 0);
            let Some(least) = least.max_by_key(|column| self.head[*column].1) else { break };
            shown.retain(|column| *column != least);
        }
        let first = look.width.saturating_sub(numbers(&shown)).clamp(1, widths[0]);
        let rule = "─".repeat(first + numbers(&shown)) + "\n";
        let head = self.names().map(|name| (Ink::Plain, name.to_owned())).collect::<Vec<_>>();
        let mut text = String::new();
        for (n, row) in std::iter::once(&head).chain(&self.rows).enumerate() {
            for (line, name) in wrap(&row[0].1, first).iter().enumerate() {
                text += &look.paint(row[0].0, name);
                if line == 0 && !shown.is_empty() {
                    text += &" ".repeat(first - name.chars().count());
                    for column in &shown {
                        let (ink, cell) = &row[*column];
                        text += &" ".repeat(GAP + widths[*column] - cell.chars().count());
                        text += &look.paint(*ink, cell);
                    }
                }
                text.truncate(text.trim_end_matches(' ').len());
                text.push('\n');
            }
            if n == 0 {
                text += &rule;
            }
        }
        text
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|(_, text)| text.chars().count());
        cells.chain([self.head[column].0.chars().count()]).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(text: &str, width: usize) -> bool {
        text.lines().all(|line| line.chars().count() <= width)
    }

    #[test]
    fn lines_are_broken_between_words() {
        let text = Look::plain(16).lines(&[(Ink::Reload, "reload 1"), (Ink::Plain, "pid 1 → 2, ready after 2 ms")]);
        assert_eq!(text, "reload 1 pid 1 →\n    2, ready\n    after 2 ms");
        assert!(fits(&Look::plain(10).line(&"x".repeat(50)), 10));
        assert_eq!(Look::plain(usize::MAX).line("as it  is"), "as it is");
    }

    #[test]
    fn each_kind_has_its_colour() {
        let look = Look { width: 80, colours: true };
        let text = look.lines(&[(Ink::Reload, "reload"), (Ink::Ready, "ready"), (Ink::Plain, "plain")]);
        assert_eq!(text, "\u{1b}[35mreload\u{1b}[0m \u{1b}[36mready\u{1b}[0m plain");
    }

    #[test]
    fn tables_leave_out_what_says_least() {
        let mut table = Table::new([("what", 0), ("sent", 2), ("lost", 0), ("wait", 1)]);
        let row = ["a long name of a thing", "1000", "0", "12.3 ms"];
        table.row(row.map(|cell| (Ink::Plain, cell.to_owned())));
        let wide = table.render(Look::plain(usize::MAX));
        assert_eq!(wide.lines().last(), Some("a long name of a thing  1000     0  12.3 ms"));
        for width in [16, 24, 32, 36, 40, 80] {
            assert!(fits(&table.render(Look::plain(width)), width), "{width}");
        }
        let narrow = table.render(Look::plain(36));
        assert!(narrow.contains("wait") && narrow.contains("lost") && !narrow.contains("sent"), "{narrow}");
        assert!(!table.render(Look::plain(26)).contains("wait"));
    }
}
