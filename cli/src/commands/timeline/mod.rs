//! `handover timeline`: the reloads of a unit, as the journal has them.

mod brief;
mod fleet;
mod follow;
mod history;
mod html;
mod jobs;
mod journal;
mod known;
mod model;
mod scale;
mod sheet;
mod sources;
mod svg;
mod text;
mod told;
mod view;
mod when;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures_util::FutureExt as _;
use jiff::Zoned;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::out;
use crate::terminal::Look;
pub(crate) use brief::{Brief, reloads as briefs};
use fleet::{Fleet, Lane};
use history::History;
use sources::{Gathered, Sources};
use text::{NARROWEST, Style, WIDEST};
use view::View;

/// Grows when a field of `--json` changes its meaning; new fields do not count.
const FORMAT: u32 = 1;

/// Shows the reloads of a unit as the journal has them: what each took, which failed and why, and
/// how long the old generations drained.
///
/// Services that use handover tell each phase of a reload. Of others, there is what systemd says:
/// when a reload began, when it was over, and how it ended. Nothing has to run any more.
#[derive(Debug, Args)]
#[command(after_help = include_str!("after_help.txt").trim_end())]
pub(crate) struct Options {
    #[command(flatten)]
    sources: Sources,
    /// From when on: "2h", "3 days", "today", "14:30", "2026-11-21 14:30", "@1795282200" [default:
    /// all that the journal has]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// At most so many reloads of a machine, the latest; 0 for all
    #[arg(long, value_name = "N", default_value_t = 50)]
    last: usize,
    /// Of several machines: a batch is over when for so long no other reload has begun
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    gap: Duration,
    /// Print each step as the journal gets it, until it is interrupted; with --since, those from
    /// then on, too
    #[arg(long, conflicts_with_all = ["file", "directory", "host", "svg", "html", "json", "last", "gap", "ascii"])]
    follow: bool,
    /// Write a picture; `-` for stdout
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write a page with the picture and all numbers; `-` for stdout
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print all that is known, for programs
    #[arg(long)]
    json: bool,
    /// Columns of the text [default: those of the terminal; 80 elsewhere]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(i64::from(NARROWEST)..=i64::from(WIDEST)))]
    width: Option<u16>,
    /// Letters instead of blocks; the default where the locale is not UTF-8
    #[arg(long)]
    ascii: bool,
    /// Times in UTC instead of this machine's time zone (or that of TZ=)
    #[arg(long)]
    utc: bool,
}

pub(crate) async fn run(options: Options) -> Result<Outcome, Failure> {
    let zone = if options.utc { TimeZone::UTC } else { TimeZone::system() };
    let now = Zoned::now().with_time_zone(zone.clone());
    let since = options.since.as_deref().map(|text| when::since(text, &now)).transpose().map_err(Failure::usage)?;
    if options.follow {
        let (unit, user) = options.sources.one_of_here().await?;
        return follow::run(&unit, user, since, zone).await;
    }
    if [&options.svg, &options.html].into_iter().flatten().filter(|path| is_stdout(path)).count()
        + usize::from(options.json)
        > 1
    {
        return Err(Failure::usage(
            "only one of --json, --svg - and --html - can go to stdout: name a file for the others",
        ));
    }

    let Gathered { unit, machines, is_fleet } = options.sources.gather(since).await?;
    let odd: usize = machines.iter().map(|(_, history)| history.odd).sum();
    if odd > 0 {
        out::error(&format!("left out {odd} entries that lack a time or a field"));
    }
    let view = |history: History| {
        let uses_handover = history.uses_handover;
        View::new(unit.clone(), history.finish(), options.last, uses_handover, zone.clone())
    };
    let mut lanes = machines.into_iter().map(|(machine, history)| Lane { machine, view: view(history) });
    let picture = match is_fleet {
        false => lanes.next().map(|lane| Picture::One(lane.view)),
        true => Some(Picture::Fleet(Fleet::new(unit.clone(), lanes.collect(), options.gap, zone.clone()))),
    };
    if let Some(picture) = picture {
        show(&options, &picture)?;
    }
    Ok(Outcome::Success)
}

/// What is shown, in each of its forms.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Picture {
    One(View),
    Fleet(Fleet),
}

#[derive(Debug, Serialize)]
struct Formatted<'a> {
    format: u32,
    #[serde(flatten)]
    picture: &'a Picture,
}

impl Picture {
    fn svg(&self) -> String {
        match self {
            Self::One(view) => svg::render(view),
            Self::Fleet(fleet) => fleet::svg(fleet),
        }
    }

    fn html(&self) -> String {
        match self {
            Self::One(view) => html::render(view),
            Self::Fleet(fleet) => fleet::html(fleet),
        }
    }

    fn text(&self, style: Style) -> String {
        match self {
            Self::One(view) => text::render(view, style),
            Self::Fleet(fleet) => fleet::text(fleet, style),
        }
    }
}

/// What `handover timeline --file` shows, in each form.
pub(crate) fn fuzz(entries: &[u8]) {
    let mut history = History::default();
    // All of it is there at once.
    let read = journal::lines(entries, "fuzz", |entry| history.read(&entry)).now_or_never();
    if !matches!(read, Some(Ok(()))) {
        return;
    }
    let uses_handover = history.uses_handover;
    let rows = history.finish();
    let view = || View::new("fuzz.service".to_owned(), rows.clone(), 0, uses_handover, TimeZone::UTC);
    let lanes = ["a", "b"].map(|machine| Lane { machine: machine.to_owned(), view: view() }).into();
    let fleet = Fleet::new("fuzz.service".to_owned(), lanes, Duration::from_secs(5), TimeZone::UTC);
    let style = Style { look: Look::of_stdout().with_width(80), ascii: false };
    for picture in [Picture::One(view()), Picture::Fleet(fleet)] {
        let _ = (picture.svg(), picture.html(), picture.text(style), serde_json::to_string(&picture));
    }
}

fn show(options: &Options, picture: &Picture) -> Result<(), Failure> {
    for (path, render) in [(&options.svg, Picture::svg as fn(&Picture) -> String), (&options.html, Picture::html)] {
        match path {
            Some(path) if is_stdout(path) => out::line(render(picture)),
            Some(path) => out::file(path, render(picture) + "\n")
                .map_err(|e| Failure::cannot_run(format!("{} cannot be written: {e}", path.display())))?,
            None => {}
        }
    }
    if options.json {
        let json = serde_json::to_string_pretty(&Formatted { format: FORMAT, picture });
        out::line(json.map_err(|e| Failure::failed(format!("what was read is no JSON: {e}")))?);
    } else if options.svg.is_none() && options.html.is_none() {
        let own = || out::columns().unwrap_or(80).clamp(NARROWEST.into(), WIDEST.into());
        let look = Look::of_stdout().with_width(options.width.map_or_else(own, usize::from));
        out::line(picture.text(Style { look, ascii: options.ascii || !locale_is_utf8() }));
    }
    Ok(())
}

fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// As [no-color.org](https://no-color.org) has it: set, and not empty.
fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn locale_is_utf8() -> bool {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find(|name| is_set(name)).and_then(|name| std::env::var(name).ok());
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}
