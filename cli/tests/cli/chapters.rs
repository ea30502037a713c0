//! What the pages say to type: commands and options that this tool has.

use std::fs;
use std::path::Path;

use crate::{commands, handover};

#[test]
fn the_pages_name_commands_and_options_that_there_are() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let chapters = fs::read_dir(top.join("src/docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = chapters.chain([top.join("README.md"), top.join("cli/README.md")]);
    let helps: Vec<_> = commands().into_iter().map(|name| (handover(&[&name, "--help"]).stdout, name)).collect();
    let (mut broken, mut seen) = (Vec::new(), 0);
    for page in pages {
        let mut script = false;
        for line in fs::read_to_string(&page).unwrap().lines() {
            script ^= line.starts_with("```");
            for said in said(line, script) {
                let command = said.split_whitespace().next().unwrap_or_default();
                // `--help`, and a dependency in a Cargo.toml.
                if command.starts_with('-') || command == "=" {
                    continue;
                }
                let Some((help, _)) = helps.iter().find(|(_, name)| name == command) else {
                    broken.push(format!("{}: handover {said}", page.display()));
                    continue;
                };
                seen += 1;
                let options = said.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
                let unknown = options.filter(|option| {
                    let name = option.split(['=', '[']).next().unwrap_or_default();
                    !help.split(|c: char| !(c.is_alphanumeric() || c == '-')).any(|word| word == name)
                });
                broken.extend(unknown.map(|option| format!("{}: handover {command} has no {option}", page.display())));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(seen > 60, "only {seen} commands were seen");
}

/// What follows `handover ` in a line: as code between two marks, or as a command of a script, up
/// to what is another command, a comment, or the program that is run.
fn said(line: &str, script: bool) -> Vec<&str> {
    let typed = line.strip_prefix("handover ").filter(|_| script);
    let further = ["| handover ", "; handover "].into_iter().flat_map(|mark| line.split(mark).skip(1));
    let code = line.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("handover "));
    let end = |said: &str| [" -- ", " | ", "; ", " #", " >", "  "].iter().filter_map(|mark| said.find(mark)).min();
    let all = typed.into_iter().chain(further.filter(|_| script)).chain(code.filter(|_| !script));
    all.map(|said| end(said).map_or(said, |end| &said[..end])).collect()
}

#[test]
fn commands_are_seen_where_they_end() {
    assert_eq!(said("see `handover check --fix` and `handover`", false), ["check --fix"]);
    assert!(said("handover waits; handover chose", false).is_empty());
    assert_eq!(said("handover run --ready accept -- web --verbose", true), ["run --ready accept"]);
    let two = "handover status --user web; handover reload --user web  # twice";
    assert_eq!(said(two, true), ["status --user web", "reload --user web"]);
    assert_eq!(said("systemctl cat web | handover check -", true), ["check -"]);
}
