//! `handover man`: the manual pages, from the same definitions as `--help`. A command of the tool,
//! and not of a build script: so they are there too for those who install by cargo, and a package
//! builds the crate only once.

use std::io;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::failure::{Failure, Outcome};
use crate::out;

/// Writes the manual pages: handover.1, and one for each command.
///
/// The Debian package has installed them already.
#[derive(Debug, Args)]
#[command(after_help = include_str!("manual_after_help.txt").trim_end())]
pub(crate) struct Options {
    /// Where to; it is made if it is not there, and pages in it are replaced
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

const ENVIRONMENT: [(&str, &str); 2] = [
    ("NO_COLOR", "If it is set and not empty there are no colours. Without it, there are colours on a terminal only."),
    ("TERM", "If it is \"dumb\" there are no colours."),
];

const OTHERS: &str = "systemctl(1), journalctl(1), systemd.service(5), systemd.socket(5), sd_notify(3)";

/// By the headings in `after_help`; the rest of it is notes.
const EXAMPLES: &str = "Examples:";
const EXIT_CODES: &str = "Exit codes:";

pub(crate) fn run(options: &Options) -> Result<Outcome, Failure> {
    let cannot = |what: &std::path::Path, e: io::Error| {
        Failure::cannot_run(format!("{} cannot be written: {e}", what.display()))
    };
    std::fs::create_dir_all(&options.directory).map_err(|e| cannot(&options.directory, e))?;
    for (name, text) in pages().map_err(|e| Failure::failed(format!("a manual page cannot be made: {e}")))? {
        let path = options.directory.join(name);
        out::file(&path, &text).map_err(|e| cannot(&path, e))?;
        out::line(format_args!("wrote {}", path.display()));
    }
    Ok(Outcome::Success)
}

/// File names and what is in them.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    // `handover help` is `--help`, and needs no page.
    let mut root = crate::published().disable_help_subcommand(true);
    root.build();
    let names: Vec<_> = std::iter::once(&root).chain(root.get_subcommands()).map(page_name).collect();
    let page = |command: &Command| Ok((format!("{}.1", page_name(command)), page(command, &names)?));
    std::iter::once(&root).chain(root.get_subcommands()).map(page).collect()
}

fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(command: &Command, all: &[String]) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(page_name(command).to_uppercase())
        .source(concat!("handover ", env!("CARGO_PKG_VERSION")))
        .manual("handover");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    // clap_mangen's own lists every option.
    let usage = command.clone().render_usage().to_string();
    let mut roff = Roff::new();
    section(&mut roff, "SYNOPSIS", vec![usage.trim_start_matches("Usage: ").trim()], |roff, usage| {
        roff.text([bold(usage)]);
    });
    page.extend(roff.render().into_bytes());
    man.render_description_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut roff = Roff::new();
    section(&mut roff, "EXIT STATUS", exit_codes(&help), |roff, (code, text)| item(roff, code, &text));
    section(&mut roff, "ENVIRONMENT", ENVIRONMENT.into(), |roff, (name, text)| item(roff, name, text));
    section(&mut roff, "NOTES", notes(&help), block);
    section(&mut roff, "EXAMPLES", paragraphs(&help).filter_map(|p| p.strip_prefix(EXAMPLES)).collect(), block);
    let related = all.iter().filter(|name| **name != page_name(command)).map(|name| format!("{name}(1)"));
    let related = related.chain([OTHERS.to_owned()]).collect::<Vec<_>>().join(", ");
    section(&mut roff, "SEE ALSO", vec![related], |roff, line| {
        roff.text([roman(line)]);
    });
    page.extend(roff.render().into_bytes());
    Ok(page)
}

/// A section, unless there is nothing in it.
fn section<T>(roff: &mut Roff, title: &str, parts: Vec<T>, each: impl Fn(&mut Roff, T)) {
    if !parts.is_empty() {
        roff.control("SH", [title]);
    }
    for part in parts {
        each(roff, part);
    }
}

fn item(roff: &mut Roff, term: &str, text: &str) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text([roman(text)]);
}

/// Lines as they are where they are indented, else a paragraph.
fn block(roff: &mut Roff, text: &str) {
    roff.control("PP", []);
    let mut as_is = false;
    for line in text.lines().filter(|line| !line.is_empty()) {
        let indented = line.starts_with(' ');
        if indented != as_is {
            roff.control(if indented { "nf" } else { "fi" }, []);
            as_is = indented;
        }
        roff.text([roman(line)]);
    }
    if as_is {
        roff.control("fi", []);
    }
}

fn paragraphs(help: &str) -> impl Iterator<Item = &str> {
    help.split("\n\n")
}

fn notes(help: &str) -> Vec<&str> {
    let others = |p: &&str| !p.is_empty() && !p.starts_with(EXAMPLES) && !p.starts_with(EXIT_CODES);
    paragraphs(help).filter(others).collect()
}

/// `  130  interrupted`: the code and what it says, which may go on in the next line.
fn exit_codes(help: &str) -> Vec<(&str, String)> {
    let mut codes: Vec<(&str, String)> = Vec::new();
    for line in paragraphs(help).filter_map(|p| p.strip_prefix(EXIT_CODES)).flat_map(str::lines).map(str::trim) {
        match (line.split_once(' '), codes.last_mut()) {
            (Some((code, text)), _) if code.parse::<u8>().is_ok() => codes.push((code, text.trim().to_owned())),
            (_, Some((_, text))) => *text = format!("{text} {line}"),
            _ => {}
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_taken_apart() {
        let help = "Examples:\n  a  b\n\nA note:\n  as it is\n\nExit codes:\n  0    good\n  1    bad,\n       really\n  130  over";
        assert_eq!(exit_codes(help), [("0", "good".into()), ("1", "bad, really".into()), ("130", "over".to_owned())]);
        assert_eq!(notes(help), ["A note:\n  as it is"]);
        let mut roff = Roff::new();
        block(&mut roff, notes(help)[0]);
        assert!(roff.render().ends_with(".PP\nA note:\n.nf\n  as it is\n.fi\n"), "{}", roff.render());
    }

    #[test]
    fn every_command_has_a_page_with_all_sections() {
        let pages = pages().unwrap();
        let commands = crate::published();
        assert_eq!(pages.len(), commands.get_subcommands().count() + 1);
        for (name, page) in pages {
            let page = String::from_utf8(page).unwrap();
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"EXIT STATUS\"", "EXAMPLES", "\"SEE ALSO\""]
            {
                assert!(page.contains(&format!("\n.SH {section}\n")), "{name} has no {section}:\n{page}");
            }
        }
    }
}
