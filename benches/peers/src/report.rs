//! The results as Markdown and as a picture.

use crate::measure::{Floor, Point, Sample, median};
use crate::peer::Peer;
use std::fmt::Write;

pub(crate) type Results = Vec<(Peer, Point, Sample)>;

/// To what the passes before have measured of it.
pub(crate) fn add(results: &mut Results, peer: Peer, point: Point, sample: Sample) {
    match results.iter_mut().find(|(a, b, _)| (*a, *b) == (peer, point)) {
        Some((_, _, known)) => known.join(sample),
        None => results.push((peer, point, sample)),
    }
}

fn of(results: &Results, peer: Peer, point: Point) -> Option<&Sample> {
    results.iter().find(|(a, b, _)| (*a, *b) == (peer, point)).map(|(_, _, sample)| sample)
}

fn ms(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |ms| if ms < 10.0 { format!("{ms:.1}") } else { format!("{ms:.0}") })
}

fn spread(values: &[f64]) -> String {
    let of = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick);
    match median(values) {
        Some(middle) => {
            format!("{} ({}–{} of {})", ms(Some(middle)), ms(of(f64::min)), ms(of(f64::max)), values.len())
        }
        None => "–".into(),
    }
}

pub(crate) fn markdown(peers: &[Peer], results: &Results, floor: &Floor, passes: usize, machine: &str) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{machine}\n");
    let versions: Vec<String> = peers.iter().filter_map(|peer| peer.version()).collect();
    let _ = writeln!(text, "{}.\n", versions.join(", "));
    let times: Vec<Point> = Point::ALL.into_iter().filter(|point| point.is_time()).collect();

    let _ = writeln!(text, "## From the reload to the first answer of the new process\n");
    let _ = writeln!(
        text,
        "Milliseconds, median (least to most, of so many reloads). They were made in {passes} passes, each in an order of its own.\n"
    );
    heading(&mut text, &times);
    for peer in peers {
        let cell = |point: &Point| match of(results, *peer, *point) {
            Some(sample) => spread(&sample.first_new_ms),
            None => "–".into(),
        };
        row(&mut text, peer.name(), times.iter().map(cell));
    }
    let _ = writeln!(
        text,
        "\nFloor, a static program from its start to its first byte: once a second, as reloads are, {} ms; one right after the \
         other {} ms; the first one after another process has touched 8 GiB {} ms. The prober's resolution: {} ms.\n",
        spread(&floor.paced),
        spread(&floor.at_once),
        spread(&floor.beside),
        spread(&results.iter().flat_map(|(_, _, sample)| sample.resolution_ms.clone()).collect::<Vec<_>>()),
    );

    let _ = writeln!(
        text,
        "## The longest time without an answer\n\nMilliseconds between two answers that new connections get, around a reload; in \
         brackets in as long a time before it. Medians.\n"
    );
    heading(&mut text, &times);
    for peer in peers {
        let cell = |point: &Point| match of(results, *peer, *point) {
            Some(sample) => format!("{} ({})", ms(median(&sample.longest_gap_ms)), ms(median(&sample.gap_before_ms))),
            None => "–".into(),
        };
        row(&mut text, peer.name(), times.iter().map(cell));
    }
    text.push('\n');

    let _ = writeln!(text, "## Requests lost\n");
    let _ = writeln!(
        text,
        "| | mixed: {} × 20 reloads | race: per reload, of 20 | reloads without a new process |\n|---|---|---|---|",
        (0..passes).map(|pass| Point::Mixed.times(pass)).sum::<usize>()
    );
    for peer in peers {
        let lost = |point, per_reload: bool| match of(results, *peer, point) {
            Some(sample) if per_reload => {
                format!("{:.1} of {}", sample.lost as f64 / sample.reloads.max(1) as f64, sample.sent)
            }
            Some(sample) => format!("{} of {}", sample.lost, sample.sent),
            None => "–".into(),
        };
        let failed: u64 = results.iter().filter(|(a, _, _)| a == peer).map(|(_, _, sample)| sample.failed).sum();
        row(
            &mut text,
            peer.name(),
            [lost(Point::Mixed, false), lost(Point::Race, true), failed.to_string()].into_iter(),
        );
    }

    let _ = writeln!(
        text,
        "\n## Memory\n\nMiB of resident memory: of the old process before, of the new one after, and the peak of all together.\n"
    );
    heading(&mut text, &times);
    for peer in peers {
        let cell = |point: &Point| {
            let memory = of(results, *peer, *point).map(|sample| sample.memory.clone()).unwrap_or_default();
            let part = |at: usize| median(&memory.iter().map(|three| three[at] / 1048576.0).collect::<Vec<_>>());
            match (part(1), part(2), part(0)) {
                (Some(old), Some(new), Some(peak)) => format!("{old:.0} + {new:.0}, {peak:.0}"),
                _ => "–".into(),
            }
        };
        row(&mut text, peer.name(), times.iter().map(cell));
    }
    let _ = writeln!(text, "\n## What was lost\n");
    for peer in peers {
        for (_, point, sample) in results.iter().filter(|(of, _, sample)| of == peer && !sample.causes.is_empty()) {
            let causes: Vec<String> = sample.causes.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
            let _ = writeln!(text, "- {}, {}: {}", peer.name(), point.title(), causes.join(", "));
        }
    }
    text
}

fn heading(text: &mut String, points: &[Point]) {
    let titles: Vec<String> = points.iter().map(|point| point.title()).collect();
    let _ = writeln!(text, "| | {} |\n|---|{}", titles.join(" | "), "---|".repeat(points.len()));
}

fn row(text: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
}

/// Bars on a logarithmic axis, a group for each point.
pub(crate) fn svg(peers: &[Peer], results: &Results, floor: f64) -> String {
    const COLOURS: [&str; 6] = ["#0b7285", "#e8590c", "#f59f00", "#5f3dc4", "#868e96", "#c2255c"];
    const LEFT: f64 = 120.0;
    const WIDTH: f64 = 520.0;
    const BAR: f64 = 14.0;
    let points: Vec<Point> = Point::ALL.into_iter().filter(|point| point.is_time()).collect();
    let x = |ms: f64| LEFT + WIDTH * (ms.clamp(0.5, 5000.0) / 0.5).log10() / 4.0;
    let (mut body, mut y) = (String::new(), 30.0);
    for point in points {
        let shown: Vec<(usize, f64)> = peers
            .iter()
            .enumerate()
            .filter_map(|(at, peer)| Some((at, median(&of(results, *peer, point)?.first_new_ms)?)))
            .collect();
        let middle = y + BAR * shown.len() as f64 / 2.0;
        let _ = writeln!(body, "<text x=\"8\" y=\"{middle}\">{}</text>", point.title());
        for (at, value) in shown {
            let (width, colour) = (x(value) - LEFT, COLOURS[at % COLOURS.len()]);
            let _ = writeln!(
                body,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>",
                BAR - 2.0
            );
            let _ = writeln!(
                body,
                "<text x=\"{:.1}\" y=\"{}\">{} {}</text>",
                x(value) + 4.0,
                y + BAR - 4.0,
                peers[at].name(),
                ms(Some(value))
            );
            y += BAR;
        }
        y += 12.0;
    }
    let mut axis = String::new();
    for tick in [0.5, 5.0, 50.0, 500.0, 5000.0] {
        let _ = writeln!(
            axis,
            "<line x1=\"{0:.1}\" y1=\"24\" x2=\"{0:.1}\" y2=\"{y}\" stroke=\"#ddd\"/><text x=\"{0:.1}\" y=\"18\">{tick} ms</text>",
            x(tick)
        );
    }
    let _ = writeln!(
        axis,
        "<line x1=\"{0:.1}\" y1=\"24\" x2=\"{0:.1}\" y2=\"{y}\" stroke=\"#2b8a3e\" stroke-dasharray=\"4 3\"><title>floor</title></line>",
        x(floor)
    );
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {h}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"760\" height=\"{h}\" fill=\"white\"/>\n{axis}{body}</svg>\n",
        h = y + 10.0
    )
}
