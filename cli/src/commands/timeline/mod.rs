//! `handover timeline`: the reloads of a unit, as the journal has them.

mod brief;
mod history;
mod html;
mod jobs;
mod journal;
mod known;
mod model;
mod scale;
mod svg;
mod text;
mod told;
mod view;
mod when;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::FutureExt as _;
use jiff::Zoned;
use jiff::tz::TimeZone;
use nix::unistd::{Group, Uid, getegid, getgroups};

use crate::failure::{Failure, Outcome};
use crate::terminal::Look;
use crate::{out, target};
pub(crate) use brief::{Brief, reloads as briefs};
use history::{History, unit_of};
use text::{NARROWEST, Style, WIDEST};
use view::View;
use when::Moment;

/// Shows the reloads of a unit as the journal has them: what each took, which failed and why, and
/// how long the old generations drained.
///
/// Services that use handover tell each phase of a reload. Of others, there is what systemd says:
/// when a reload began, when it was over, and how it ended. Nothing has to run any more.
#[derive(Debug, Args)]
#[command(after_help = include_str!("after_help.txt").trim_end())]
pub(crate) struct Options {
    /// The unit: `web.service`, or `web` for short. With --file it may be left out if only one unit
    /// in it was reloaded
    #[arg(value_name = "UNIT", required_unless_present = "file")]
    unit: Option<String>,
    /// From when on: "2h", "3 days", "today", "14:30", "2026-11-21 14:30", "@1795282200" [default:
    /// all that the journal has]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// At most so many reloads, the latest; 0 for all
    #[arg(long, value_name = "N", default_value_t = 50)]
    last: usize,
    /// A unit of your own systemd (`systemctl --user`)
    #[arg(long, conflicts_with = "file")]
    user: bool,
    /// Read what `journalctl -o json` has printed, on this machine or another; `-` for stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
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
    let unit = options.unit.as_deref().map(unit_name).transpose().map_err(Failure::usage)?;
    if [&options.svg, &options.html].into_iter().flatten().filter(|path| is_stdout(path)).count()
        + usize::from(options.json)
        > 1
    {
        return Err(Failure::usage(
            "only one of --json, --svg - and --html - can go to stdout: name a file for the others",
        ));
    }

    let (unit, history) = match (&options.file, unit) {
        (Some(path), unit) => from_file(path, unit, since).await?,
        (None, Some(_)) => {
            let said = options.unit.as_deref().unwrap_or_default();
            from_journal(target::service(said, options.user).await?, options.user, since).await?
        }
        (None, None) => return Err(Failure::usage("name a unit, or a --file")),
    };
    if history.odd > 0 {
        out::error(&format!("left out {} entries that lack a time or a field", history.odd));
    }
    let uses_handover = history.uses_handover;
    let view = View::new(unit, history.finish(), options.last, uses_handover, zone);
    show(&options, &view)?;
    Ok(Outcome::Success)
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
    let view = View::new("fuzz.service".to_owned(), history.finish(), 0, uses_handover, TimeZone::UTC);
    let style = Style { look: Look::of_stdout().with_width(80), ascii: false };
    let _ = (svg::render(&view), html::render(&view), text::render(&view, style), serde_json::to_string(&view));
}

fn show(options: &Options, view: &View) -> Result<(), Failure> {
    for (path, render) in [(&options.svg, svg::render as fn(&View) -> String), (&options.html, html::render)] {
        match path {
            Some(path) if is_stdout(path) => out::line(render(view)),
            Some(path) => out::file(path, render(view) + "\n")
                .map_err(|e| Failure::cannot_run(format!("{} cannot be written: {e}", path.display())))?,
            None => {}
        }
    }
    if options.json {
        let json = serde_json::to_string_pretty(view);
        out::line(json.map_err(|e| Failure::failed(format!("what was read is no JSON: {e}")))?);
    } else if options.svg.is_none() && options.html.is_none() {
        let own = || out::columns().unwrap_or(80).clamp(NARROWEST.into(), WIDEST.into());
        let look = Look::of_stdout().with_width(options.width.map_or_else(own, usize::from));
        out::line(text::render(view, Style { look, ascii: options.ascii || !locale_is_utf8() }));
    }
    Ok(())
}

async fn from_journal(unit: String, user: bool, since: Option<Moment>) -> Result<(String, History), Failure> {
    let mut history = History::default();
    let words = journal::ask(&unit, user, since, |entry| {
        if unit_of(&entry).as_deref() == Some(&*unit) {
            history.read(&entry);
        }
    })
    .await?;
    if history.is_empty() {
        if !user && !may_read_the_journal() && (words.contains("not seeing messages") || words.contains("permission")) {
            return Err(Failure::cannot_run(format!(
                "the journal of {unit} is not for this user. Run it as root (`sudo handover timeline {unit}`), or join a group \
                 that may read it: `sudo usermod -aG systemd-journal $USER`, and log in anew"
            )));
        }
        let within = if since.is_some() { " in that time: leave out --since, or" } else { ":" };
        let (flag, other) = if user { (" --user", "without --user") } else { ("", "with --user") };
        return Err(Failure::cannot_run(format!(
            "the journal has nothing about {unit}{within} see `systemctl{flag} list-units --type=service --all` for the names of \
             units; a unit of the other manager is shown {other}"
        )));
    }
    Ok((unit, history))
}

async fn from_file(path: &Path, unit: Option<String>, since: Option<Moment>) -> Result<(String, History), Failure> {
    let mut all: BTreeMap<String, History> = BTreeMap::new();
    journal::read(path, |entry| {
        let late = since.is_none_or(|since| entry.time().is_none_or(|time| time >= since));
        if let Some(of) = unit_of(&entry).filter(|of| late && unit.as_ref().is_none_or(|unit| unit == of)) {
            all.entry(of).or_default().read(&entry);
        }
    })
    .await?;
    if unit.is_none() {
        all.retain(|_, history| history.has_reloads());
    }
    let name = crate::safe::terminal(&path.display().to_string());
    match all.len() {
        0 | 1 => all.pop_first().filter(|(_, history)| !history.is_empty()).ok_or_else(|| {
            let what = unit.map_or_else(|| "about reloads of any unit".to_owned(), |unit| format!("about {unit}"));
            Failure::cannot_run(format!(
                "{name} has nothing {what}: export it with `journalctl -o json -u UNIT`, without --output-fields"
            ))
        }),
        _ => {
            let names: Vec<_> = all.keys().map(|unit| crate::safe::short(&crate::safe::terminal(unit), 64)).collect();
            Err(Failure::usage(format!("{name} has reloads of several units: name one of {}", names.join(", "))))
        }
    }
}

/// `web` is `web.service`.
fn unit_name(text: &str) -> Result<String, String> {
    let valid = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c));
    if !valid || text.len() > 255 || text.starts_with('-') {
        return Err(format!("{text:?} is not the name of one unit, as web.service"));
    }
    Ok(if text.ends_with(".service") { text.to_owned() } else { format!("{text}.service") })
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

fn may_read_the_journal() -> bool {
    let groups: Vec<_> = getgroups().unwrap_or_default().into_iter().chain([getegid()]).collect();
    let is_member =
        |name: &&str| Group::from_name(name).ok().flatten().is_some_and(|group| groups.contains(&group.gid));
    Uid::effective().is_root() || ["systemd-journal", "adm", "wheel"].iter().any(is_member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_units() {
        assert_eq!(unit_name("web").unwrap(), "web.service");
        assert_eq!(unit_name("web@a.service").unwrap(), "web@a.service");
        for bad in ["", "web*", "-x", "a b", "a\n", "a/b"] {
            assert!(unit_name(bad).is_err(), "{bad}");
        }
    }
}
