//! Plots over time, as SVG.

use crate::svg::Drawing;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 984.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 160.0;
/// More points than pixels are drawn for nothing: of several in one place the highest is.
const POINTS: usize = 900;

/// Okabe and Ito's, told apart by all eyes.
const COLOURS: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#56b4e9", "#cc79a7", "#d55e00", "#5b6472"];
const BAD: &str = "#b3261e";

pub(super) const STYLE: &str = "\
svg text{font:12px system-ui,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2430}\
.t{font-size:14px;font-weight:600}.s{fill:#5b6472}.g{stroke:#e3e6eb}.m{stroke:#9aa2ae;stroke-dasharray:3 3}";

/// Something over time: seconds and values.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) unit: &'a str,
    /// In seconds.
    pub(super) end: f64,
    /// When reloads began, in seconds.
    pub(super) marks: &'a [f64],
    pub(super) lines: Vec<Line>,
    /// Each line stands on the one before it.
    pub(super) stacked: bool,
    /// When requests were lost, in seconds.
    pub(super) losses: Vec<f64>,
}

impl Plot<'_> {
    pub(super) fn svg(mut self) -> String {
        for line in &mut self.lines {
            line.points = thinned(&line.points);
        }
        if self.stacked {
            stack(&mut self.lines);
        }
        let values = self.lines.iter().flat_map(|line| line.points.iter().map(|(_, value)| *value));
        let top = round_up(values.fold(0.0, f64::max));
        let mut drawing = Drawing::default();
        drawing.text((LEFT, 20.0), "t", "start", self.title);
        self.grid(&mut drawing, top);
        let x = |at: f64| LEFT + (at / self.end.max(1e-9)).clamp(0.0, 1.0) * (RIGHT - LEFT);
        let y = |value: f64| BOTTOM - (value / top).clamp(0.0, 1.0) * (BOTTOM - TOP);
        for mark in self.marks {
            drawing.path(&format!("M{:.1} {TOP}V{BOTTOM}", x(*mark)), "class=\"m\"", "");
        }
        // A stack is drawn from above, so that each area shows only its own part.
        for (n, line) in self.lines.iter().enumerate().rev() {
            let (Some((first, _)), Some((last, _))) = (line.points.first(), line.points.last()) else { continue };
            let points: Vec<_> = line.points.iter().map(|(at, v)| format!("{:.1} {:.1}", x(*at), y(*v))).collect();
            let (path, colour) = (format!("M{}", points.join("L")), COLOURS[n % COLOURS.len()]);
            if self.stacked {
                let area = format!("{path}L{:.1} {BOTTOM}L{:.1} {BOTTOM}Z", x(*last), x(*first));
                drawing.path(&area, &format!("fill=\"{colour}\""), &line.name);
            } else {
                let stroke = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.3\"");
                drawing.path(&path, &stroke, &line.name);
            }
        }
        for at in &self.losses {
            let circle = format!("cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{BAD}\"", x(*at), TOP + 4.0);
            drawing.shape("circle", &circle, "lost");
        }
        self.legend(&mut drawing);
        drawing.picture((WIDTH, HEIGHT), "", self.title, "")
    }

    fn grid(&self, drawing: &mut Drawing, top: f64) {
        for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
            let y = BOTTOM - part * (BOTTOM - TOP);
            drawing.path(&format!("M{LEFT} {y:.1}H{RIGHT}"), "class=\"g\"", "");
            drawing.text((LEFT - 6.0, y + 4.0), "s", "end", &number(part * top));
        }
        for n in 0..=10 {
            let part = f64::from(n) / 10.0;
            let (anchor, unit) = if n == 10 { ("end", " s") } else { ("middle", "") };
            let label = number(part * self.end) + unit;
            drawing.text((LEFT + part * (RIGHT - LEFT), BOTTOM + 16.0), "s", anchor, &label);
        }
        drawing.text((LEFT - 6.0, 20.0), "s", "end", self.unit);
    }

    /// Of so many names that they would not fit, the number.
    fn legend(&self, drawing: &mut Drawing) {
        let mut x = 330.0;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()).take(8) {
            let name: String = line.name.chars().take(14).collect();
            drawing.rect((x, 11.0), (10.0, 10.0), &format!("fill=\"{colour}\""), "");
            drawing.text((x + 14.0, 20.0), "s", "start", &name);
            x += 78.0;
        }
        if self.lines.len() > 8 {
            drawing.text((x, 20.0), "s", "start", &format!("+{}", self.lines.len() - 8));
        }
    }
}

fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let each = points.len().div_ceil(POINTS).max(1);
    let highest =
        |part: &[(f64, f64)]| part.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a }).unwrap_or_default();
    points.chunks(each).map(highest).collect()
}

/// All lines have their points at the same times, or nearly so.
fn stack(lines: &mut [Line]) {
    for n in 1..lines.len() {
        let (below, above) = lines.split_at_mut(n);
        let (Some(below), Some(above)) = (below.last(), above.first_mut()) else { return };
        for (point, under) in above.points.iter_mut().zip(&below.points) {
            point.1 += under.1;
        }
    }
}

fn round_up(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 1.0;
    }
    let unit = 10_f64.powf(value.log10().floor());
    [1.0, 1.2, 1.6, 2.0, 2.4, 3.0, 4.0, 6.0, 8.0, 10.0]
        .map(|step| step * unit)
        .into_iter()
        .find(|top| *top >= value)
        .unwrap_or(value)
}

fn number(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.0}k", v / 1000.0),
        v if v >= 10.0 || v == 0.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_markup_and_nothing_is_infinite() {
        let line = |name: &str, points: &[(f64, f64)]| Line { name: name.into(), points: points.to_vec() };
        let plot = Plot {
            title: "<script>",
            unit: "1/s",
            end: 0.0,
            marks: &[0.0],
            lines: vec![line("<b>", &[(0.0, 0.0)]), line("x", &[])],
            stacked: true,
            losses: vec![1.0],
        };
        let svg = plot.svg();
        assert!(
            !svg.contains("<script>") && !svg.contains("<b>") && !svg.contains("NaN") && !svg.contains("inf"),
            "{svg}"
        );
    }

    #[test]
    fn the_highest_of_many_is_kept() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|n| (f64::from(n), 1.0)).collect();
        points[5000].1 = 9.0;
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS && thin.iter().any(|(_, value)| *value > 8.0));
    }
}
